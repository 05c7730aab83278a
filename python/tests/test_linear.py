# SPDX-License-Identifier: Apache-2.0
"""The fused head in tare.torch against a product and the loss of its logits."""

import pytest
import torch
from torch.library import opcheck

import tare
import tare.torch
from tare import _call, _linear, _spec


def draw(rows=700, dimensions=24, classes=9, dtype=torch.float32):
    torch.manual_seed(0)
    features = torch.randn(rows, dimensions).to(dtype).requires_grad_()
    weight = (torch.randn(classes, dimensions) * 0.5).to(dtype).requires_grad_()
    bias = torch.randn(classes).to(dtype).requires_grad_()
    return (features, weight, bias), torch.randint(0, classes, (rows,))


@pytest.fixture(autouse=True)
def blas():
    try:
        tare.torch.sigmoid_ce(tare.torch.Head(torch.ones(1, 1), torch.ones(1, 1)), torch.zeros(1, dtype=torch.int32))
    except tare.Error as error:
        if error.name == "TARE_STATUS_NO_BLAS":
            pytest.skip(error.text)
        raise


@pytest.mark.parametrize("workspace", [None, 0])
@pytest.mark.parametrize("name", ["sigmoid-focal", "softmax-ce", "softmax-focal", "ghm-c"])
def test_losses_and_gradients(name, workspace):
    head, y = draw()
    options = {"normalizer": torch.tensor(13)} if name != "ghm-c" else {}
    found = tare.torch.loss(name, tare.torch.Head(*head, workspace), y, **options)
    wide = [one.detach().double().requires_grad_() for one in head]
    expected = tare.torch.loss(name, wide[0] @ wide[1].T + wide[2], y, **options)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    above = torch.tensor(3.0)
    for ours, exact in zip(
        torch.autograd.grad(found, head, above, retain_graph=True), torch.autograd.grad(expected, wide, above.double())
    ):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-5 * exact.abs().max().item())
    (alone,) = torch.autograd.grad(found, head[2], above)  # backward again, for one of them
    torch.testing.assert_close(alone.double(), exact, rtol=1e-4, atol=1e-5 * exact.abs().max().item())


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", ["softmax-focal", "ghm-c"])
def test_on_a_cpu_one_pass_gives_loss_and_gradients(name, compiled, monkeypatch):
    calls, run = [], _linear._run
    monkeypatch.setattr(_linear, "_run", lambda *given, **wanted: calls.append(wanted) or run(*given, **wanted))
    torch._dynamo.reset()
    head, y = draw()
    plain = lambda *head: tare.torch.loss(name, tare.torch.Head(*head), y)
    loss = torch.compile(plain, fullgraph=True, backend="aot_eager") if compiled else plain
    for wants in ([0, 1, 2], [1], [0, 2]):
        for i, one in enumerate(head):
            one.requires_grad_(i in wants)
        sources = [head[i] for i in wants]
        calls.clear()
        found = loss(*head) * 2
        first = torch.autograd.grad(found, sources, retain_graph=True)
        assert len(calls) == 1 and [one is not None for one in calls[0]["gradients"]] == [i in wants for i in range(3)]
        copies = [one.clone() for one in first]
        [one.zero_() for one in first]  # its owner's affair
        for one, copy in zip(torch.autograd.grad(found, sources), copies):
            torch.testing.assert_close(one, copy, rtol=1e-5, atol=1e-7)
    calls.clear()
    with torch.no_grad():
        loss(*head)
    loss(*[one.detach() for one in head])
    assert all(call["gradients"] == [None] * 3 for call in calls) and len(calls) == 2


def test_a_larger_workspace_keeps_the_logits_of_ghm_alone(monkeypatch):
    sizes, lent = [], _call.lent
    monkeypatch.setattr(_call, "lent", lambda context, size, like: sizes.append(size) or lent(context, size, like))
    head, y = draw()
    losses = {}
    for name in ("ghm-c", "sigmoid-focal"):
        losses[name] = [tare.torch.loss(name, tare.torch.Head(*head, size), y) for size in (None, 1 << 40)]
    assert sizes[1] - sizes[0] == 4 * 700 * 9 and sizes[3] == sizes[2]
    assert all(torch.equal(*pair) for pair in losses.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types(dtype):
    head, y = draw(dtype=dtype)
    found = tare.torch.sigmoid_focal(tare.torch.Head(*head), y, normalizer=1e6) * 65536
    wide = [one.detach().double().requires_grad_() for one in head]
    expected = tare.torch.sigmoid_focal(wide[0] @ wide[1].T + wide[2], y, normalizer=1e6) * 65536
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    for ours, exact in zip(torch.autograd.grad(found, head), torch.autograd.grad(expected, wide)):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), exact, rtol=1e-2, atol=1e-2 * exact.abs().max().item())


@pytest.mark.parametrize("workspace", [None, 0])
@pytest.mark.parametrize("name", ["sigmoid-focal", "softmax-ce", "ghm-c"])
def test_class_sums(name, workspace):
    head, y = draw()
    plain, (features, weight, bias) = tare.torch.Head(*head, workspace), head
    want, expected = tare.torch.loss(name, (features @ weight.T + bias).detach(), y, class_sums=True)
    found, sums = tare.torch.loss(name, plain, y, class_sums=True)
    assert sums.dtype == torch.float64 and not sums.requires_grad
    torch.testing.assert_close(found, want, rtol=1e-5, atol=0)
    torch.testing.assert_close(sums, expected, rtol=1e-5, atol=1e-6)
    gradients = torch.autograd.grad(found, head, retain_graph=True)
    again = torch.autograd.grad(tare.torch.loss(name, plain, y), head)
    evaluated = torch.autograd.grad(found, head)
    for one, other, late in zip(gradients, again, evaluated):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(late, other, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(tare.torch.loss(name, plain, y, class_sums=True)[1], sums)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_class_sums_of_half_types_and_compiled(dtype):
    head, y = draw(dtype=dtype)
    state = tare.torch.ghm_state(10)
    loss = lambda *head: tare.torch.ghm_c(tare.torch.Head(*head), y, bins=10, state=state.clone(), class_sums=True)
    found, sums = loss(*head)
    compiled, same = torch.compile(loss, fullgraph=True, backend="aot_eager")(*head)
    assert torch.equal(found, compiled) and torch.equal(sums, same)
    wide = [one.detach().float() for one in head]
    _, expected = tare.torch.ghm_c(wide[0] @ wide[1].T + wide[2], y, bins=10, class_sums=True)
    torch.testing.assert_close(sums, expected, rtol=1e-4, atol=1e-4)
    for one, other in zip(torch.autograd.grad(found, head), torch.autograd.grad(compiled, head)):
        assert torch.equal(one, other) and one.isfinite().all()


def test_ghm_module_and_many_axes():
    (features, weight, bias), y = draw()
    fused, plain = tare.torch.GHMC(momentum=0.5), tare.torch.GHMC(momentum=0.5)
    for _ in range(2):
        found = fused(tare.torch.Head(features.view(7, 10, 10, -1), weight, bias), y.view(7, 10, 10))
        expected = plain(features @ weight.T + bias, y)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    assert torch.equal(fused.state[:2], plain.state[:2])


def test_compiled_and_checked():
    head, y = draw()
    loss = lambda *head: tare.torch.sigmoid_focal(tare.torch.Head(*head), y, normalizer="positives") * 2
    found = torch.compile(loss, fullgraph=True, backend="aot_eager")(*head)
    expected = loss(*head)
    assert torch.equal(found, expected)
    for one, other in zip(torch.autograd.grad(found, head), torch.autograd.grad(expected, head)):
        assert torch.equal(one, other)
    settings = {
        "loss": "softmax-ce",
        "reduction": "sum",
        "normalizer": "sum",
        "classes": 0,
        "first_label": 0,
        "background_label": -1,
        "ignore_label": -2,
        "background_weight": 1.0,
    }
    spec, tensors = _spec.write_spec(settings, ["labels"], []), [one.detach() for one in head]
    for wanted in ([False] * 3, [True] * 3, [False, True, False]):
        opcheck(torch.ops.tare.linear_loss.default, (*tensors, [y], wanted, spec, 1.0, -1))
    sums = _spec.with_setting(spec, _spec.SUMS_CLASSES, 1)
    opcheck(torch.ops.tare.linear_loss.default, (*tensors, [y], [True] * 3, sums, 1.0, -1))
    opcheck(torch.ops.tare.linear_gradient.default, (*tensors, [y], torch.ones(()), [True, True, False], spec, 1.0, -1))


def test_wrong_arguments():
    (features, weight, bias), y = draw()
    cases = [
        ((features, weight.T), {}, r"must be \[..., D\], \[C, D\]"),
        ((features, weight, bias[:3]), {}, "bias has shape"),
        ((features.half(), weight), {}, "of one type"),
        ((features, weight), {"reduction": "none"}, "'sum' alone"),
        ((features, weight), {"labels": y + 9}, "label of row 0"),
    ]
    for head, options, text in cases:
        with pytest.raises(ValueError, match=text):
            tare.torch.sigmoid_focal(tare.torch.Head(*head), **{"labels": y, **options})
    with pytest.raises(ValueError, match="density|exact"):
        tare.torch.ghm_c(tare.torch.Head(features, weight, bias), y, density="exact")
    with pytest.raises(RuntimeError, match="second derivatives"):
        loss = tare.torch.sigmoid_focal(tare.torch.Head(features, weight), y)
        (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
        gradient.sum().backward()


@pytest.mark.parametrize("above", [torch.inf, torch.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_a_gradient_is_zero_no_upstream_shows(dtype, above):
    head, y = draw(dtype=dtype)
    y[::5] = -2
    with torch.no_grad():
        head[0][:, 3] = 0  # a dead feature
    found = tare.torch.sigmoid_focal(tare.torch.Head(*head), y)
    unscaled = torch.autograd.grad(found, head, retain_graph=True)
    fresh = tare.torch.sigmoid_focal(tare.torch.Head(*head), y)
    for _ in range(2):  # kept, and then evaluated
        for ours, one in zip(torch.autograd.grad(fresh, head, torch.tensor(above), retain_graph=True), unscaled):
            assert torch.equal(ours == 0, one == 0) and not ours[one != 0].isfinite().any()
    assert (unscaled[0] == 0).any() and (unscaled[1] == 0).any()
