# SPDX-License-Identifier: Apache-2.0
"""The gradient that forward computes and keeps, what backward makes of it, and scales that are not finite."""

import weakref

import pytest
import torch
from support import LOSSES, draw, near

import tare.torch
from tare import _call


@pytest.fixture
def calls(monkeypatch):
    """What each call of tare_evaluate was asked for: the loss, the gradient, or both."""
    seen, run = [], _call.run

    def watched(*arguments, **wanted):
        seen.append(" and ".join(word for word in ("loss", "gradient") if wanted.get(word) is not None))
        return run(*arguments, **wanted)

    monkeypatch.setattr(_call, "run", watched)
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ["sigmoid-focal", "softmax-ce", "ghm-c"])
def test_on_a_cpu_one_pass_gives_loss_and_gradient(name, dtype, calls):
    x, y = draw(dtype=dtype)
    tare.torch.loss(name, x, y.abs()).backward()
    assert calls == ["loss and gradient"]


def test_no_gradient_is_computed_that_nobody_wants(calls):
    x, y = draw()
    with torch.no_grad():
        tare.torch.sigmoid_focal(x, y)
    tare.torch.sigmoid_focal(x.detach(), y)
    with torch.inference_mode():
        tare.torch.ghm_c(x, y)
    assert calls == ["loss"] * 3
    half = x.detach().half().requires_grad_()  # whose gradient is scaled before it is rounded
    tare.torch.sigmoid_focal(half, y).backward()
    assert calls[3:] == ["loss", "gradient"]


def test_a_caller_may_save_the_memory(calls):
    x, y = draw()
    (expected,) = torch.autograd.grad(tare.torch.sigmoid_focal(x, y), x)
    loss = tare.torch.sigmoid_focal(x, y, keep_gradient=False)
    assert not getattr(loss.grad_fn, "kept", ())
    assert torch.equal(torch.autograd.grad(loss, x)[0], expected)
    assert calls == ["loss and gradient", "loss", "gradient"]
    with pytest.raises(TypeError, match="keep_gradient"):
        tare.torch.sigmoid_focal(x, y, keep_gradient="no")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_gradients_are_scaled_where_they_are(dtype):
    """As on a GPU, where the number is not read by the host."""
    gradients = [torch.randn(2, size, 3, dtype=dtype)[:, 1:].contiguous() for size in (2, 7, 6000)]
    before, places = [one.clone() for one in gradients], [one.data_ptr() for one in gradients]
    for factor in (1.0, -0.7):
        _call.scale_gradients(gradients, torch.tensor(factor))
        for one, was in zip(gradients, before):
            assert torch.equal(one, (was.float() * factor).to(dtype))
    assert places == [one.data_ptr() for one in gradients]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_a_kept_gradient_is_rounded_once_more_and_no_worse(name, dtype):
    x, y = draw(rows=3000, dtype=dtype)
    y = y.abs() if name.startswith("softmax") else y
    loss = lambda x: tare.torch.loss(name, x, y, normalizer=1e3, **LOSSES[name])
    (plain,) = torch.autograd.grad(loss(x), x)
    wide = x.detach().to(torch.float32 if dtype == torch.bfloat16 else dtype).requires_grad_()
    (unrounded,) = torch.autograd.grad(loss(wide), wide)
    for factor in (1.0, -3.0, 0.7, 65536.0, 1e-6):
        found, above = loss(x), torch.tensor(factor).to(loss(x))
        (kept,) = torch.autograd.grad(found, x, above, retain_graph=True)
        assert torch.equal(kept, (plain.to(wide.dtype) * above).to(dtype))
        (again,) = torch.autograd.grad(found, x, above)  # evaluated, with the factor inside
        if factor == 1:
            assert torch.equal(kept, again)
        if dtype == torch.bfloat16:  # an ulp is the next number in 16 bits
            once = (unrounded * above).to(dtype)
            assert (kept.view(torch.int16).int() - once.view(torch.int16).int()).abs().max() <= 1
        else:
            near(kept, again.double(), 1e-6 if dtype == torch.float32 else 1e-14)


@pytest.mark.parametrize("factor", [1.0, 2.0])
@pytest.mark.parametrize("name", ["sigmoid-focal", "ghm-c"])
def test_a_gradient_that_is_handed_out_is_nobody_elses(name, factor):
    def fresh():
        x, y = draw()
        return x, tare.torch.loss(name, x, y) * factor

    x, loss = fresh()
    (expected,) = torch.autograd.grad(loss, x)

    x, loss = fresh()
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    first.zero_()  # its owner's affair
    (second,) = torch.autograd.grad(loss, x, retain_graph=True)
    second.fill_(torch.nan)
    assert torch.equal(torch.autograd.grad(loss, x)[0], expected)

    x, loss = fresh()
    for _ in range(3):  # .grad may be what the first backward handed out, and is added to in place
        loss.backward(retain_graph=True)
    torch.testing.assert_close(x.grad, 3 * expected, rtol=1e-6, atol=0)

    x, y = draw()
    logits = x * 1
    logits.register_hook(lambda gradient: gradient.mul_(5))  # not what PyTorch advises, but done
    loss = tare.torch.loss(name, logits, y) * factor
    for _ in range(2):
        torch.testing.assert_close(torch.autograd.grad(loss, x, retain_graph=True)[0], 5 * expected)

    x, y = draw()
    both = tare.torch.loss(name, [x, x], [y, y])  # two levels that are one tensor
    torch.autograd.grad(both * factor, x, retain_graph=True)[0].zero_()
    (two,) = torch.autograd.grad(both * factor, x)
    torch.testing.assert_close(two, (1 if name == "ghm-c" else 2) * expected, rtol=1e-6, atol=0)

    x, loss = fresh()
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_a_gradient_that_is_kept_is_freed():
    x, y = draw()
    loss = tare.torch.sigmoid_focal(x, y)
    (gradient,) = loss.grad_fn.kept
    gone = weakref.ref(gradient)
    del gradient
    torch.autograd.grad(loss, x)  # and is not kept by a loss that lives on
    assert gone() is None and loss.isfinite()
    loss = tare.torch.sigmoid_focal(x, y)
    gone = weakref.ref(loss.grad_fn.kept[0])
    del loss
    assert gone() is None


# ---- a scale that is not finite, as AMP has it ----------------------------------------------------------------------


def expect_carried(found, unscaled, above):
    """Zeros stay zeros; every other gradient carries what came from above, so that AMP sees it."""
    wanted = torch.where(unscaled == 0, unscaled, unscaled * above)
    assert torch.equal(found.isnan(), wanted.isnan())
    assert torch.equal(found[~wanted.isnan()], wanted[~wanted.isnan()])


@pytest.mark.parametrize("above", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", [*LOSSES, "ghm-c"])
def test_where_the_gradient_is_zero_no_upstream_shows(name, dtype, above):
    x, y = draw(dtype=dtype)
    y = torch.where(y < 0, -2, y) if name.startswith("softmax") else y  # softmax: ignored; sigmoid: background
    y[::5] = -2
    with torch.no_grad():
        x[::5, 1] = torch.nan  # of rows that add nothing
        x[1, :] = torch.where(torch.arange(7) == y[1], torch.inf, -torch.inf) if name.startswith("sigmoid") else 0
    loss = lambda: tare.torch.loss(name, x, y, **LOSSES.get(name, {}))
    (unscaled,) = torch.autograd.grad(loss(), x)
    assert (unscaled == 0).any() and (unscaled != 0).any()
    found = loss()
    for _ in range(2):  # kept, and then evaluated
        (ours,) = torch.autograd.grad(found, x, torch.tensor(above).to(found), retain_graph=True)
        expect_carried(ours, unscaled, above)


@pytest.mark.parametrize("above", [torch.inf, torch.nan])
@pytest.mark.parametrize("reduction", ["rows", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_the_same_of_an_upstream_for_each_row_or_element(name, reduction, above):
    x, y = draw()
    y[::5] = -2
    weights = torch.rand(200).where(torch.arange(200) % 4 != 0, torch.zeros(()))
    with torch.no_grad():
        x[::5, 1] = torch.nan
    options = LOSSES[name] | {"row_weights": weights}
    found = tare.torch.loss(name, x, y, reduction=reduction, **options)
    ones = torch.ones_like(found)
    (unscaled,) = torch.autograd.grad(found, x, ones, retain_graph=True)
    several = torch.where(torch.rand_like(ones) < 0.5, ones, above)
    (ours,) = torch.autograd.grad(found, x, several)
    expect_carried(ours, unscaled, several if several.dim() == 2 else several[:, None])


@pytest.mark.parametrize("above", [torch.inf, torch.nan])
def test_the_same_while_compiling(above):
    torch._dynamo.reset()
    x, y = draw()
    y[::5] = -2
    loss = torch.compile(lambda x: tare.torch.sigmoid_focal(x, y), fullgraph=True, backend="aot_eager")
    (unscaled,) = torch.autograd.grad(loss(x), x)
    (ours,) = torch.autograd.grad(loss(x), x, torch.tensor(above))
    expect_carried(ours, unscaled, above)
