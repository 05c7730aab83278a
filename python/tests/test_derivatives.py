# SPDX-License-Identifier: Apache-2.0
"""No derivative is wrong in silence: forward mode, second derivatives, derivatives by what comes from above."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from support import NAMES, REDUCTIONS, blas, few, make

import tare.torch
from tare.compat import fvcore, mmcv, mmdet

# ---- forward mode ---------------------------------------------------------------------------------------------------

FORWARD = pytest.raises(RuntimeError, match="forward mode|torch.func|jvp")


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_forward_mode_raises(name, reduction):
    x, loss = make(name, reduction)
    v = torch.randn_like(x)
    with FORWARD:
        torch.func.jvp(loss, (x,), (v,))
    with FORWARD:
        torch.func.jacfwd(loss)(x)
    with FORWARD:
        torch.func.linearize(loss, x)[1](v)
    for asks in (False, True):
        with forward_ad.dual_level(), pytest.raises((RuntimeError, NotImplementedError), match="forward|jvp"):
            loss(forward_ad.make_dual(x.clone().requires_grad_(asks), v))
    with FORWARD:
        torch.autograd.functional.jacobian(loss, x, strategy="forward-mode", vectorize=True)


def test_forward_mode_by_targets_weights_and_normalizer_raises():
    x, y = few(dtype=torch.float32)
    calls = {
        "targets": lambda t: tare.torch.sigmoid_ce(x, targets=t),
        "row_weights": lambda w: weighted(row_weights=w[:, 0]),
        "element_weights": lambda w: weighted(element_weights=w),
        "class_weights": lambda w: weighted(class_weights=w[0]),
        "alpha": lambda a: weighted(alpha=a[0]),
        "normalizer": lambda n: weighted(normalizer=n[0, 0]),
    }
    weighted = lambda **options: tare.torch.sigmoid_ce(x, y, **options)
    for call in calls.values():
        assert call(torch.rand_like(x)).isfinite()
        with FORWARD:
            torch.func.jvp(call, (torch.rand_like(x),), (x,))
        with forward_ad.dual_level(), FORWARD:
            call(forward_ad.make_dual(torch.rand_like(x), x))


def test_forward_mode_of_a_head_and_of_compat_raises():
    x, y = few(dtype=torch.float32)
    dense = torch.nn.functional.one_hot(y, 5).float()
    calls = [
        lambda x: mmdet.FocalLoss()(x, y),
        lambda x: mmdet.CrossEntropyLoss()(x, y),
        lambda x: mmcv.softmax_focal_loss(x, y),
        lambda x: mmdet.GHMC()(x, y, torch.ones(20)),
        lambda x: fvcore.sigmoid_focal_loss_star(x, dense, reduction="sum"),
    ]
    for call in calls:
        with FORWARD:
            torch.func.jvp(call, (x,), (x,))
        with forward_ad.dual_level(), FORWARD:
            call(forward_ad.make_dual(x, x))
    blas()
    head = [x, torch.randn(4, 5), torch.randn(4)]
    for index, given in enumerate(head):
        loss = lambda one: tare.torch.sigmoid_focal(
            tare.torch.Head(*head[:index], one, *head[index + 1 :]), y.clamp(max=3)
        )
        with FORWARD:
            torch.func.jvp(loss, (given,), (given,))
        with forward_ad.dual_level(), FORWARD:
            loss(forward_ad.make_dual(given, given))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("wants", [False, True])
def test_a_tangent_of_a_constant_or_of_the_upstream_raises(fused, wants):
    x, y, w = torch.randn(6, 5), torch.randint(0, 4, (6,)), torch.randn(4, 5)
    if fused:
        blas()
    logits = tare.torch.Head(x.requires_grad_(wants), w) if fused else x.requires_grad_(wants)
    one = torch.ones(())
    with forward_ad.dual_level():
        for options in (
            {"row_weights": forward_ad.make_dual(torch.ones(6), torch.ones(6))},
            {"normalizer": forward_ad.make_dual(one, one)},
        ):
            with FORWARD:
                tare.torch.sigmoid_focal(logits, y, **options)
        for create_graph in (False, True) if wants else ():
            loss = tare.torch.sigmoid_focal(logits, y)
            with FORWARD:  # of the gradient that forward kept: it would be multiplied by a plain number
                torch.autograd.grad(loss, x, forward_ad.make_dual(one, one), create_graph=create_graph)


def test_a_constant_loss_inside_forward_mode_is_one():
    x, loss = make("sigmoid-focal")
    z, dz = torch.func.jvp(lambda s: loss(x) * s, (torch.tensor(2.0),), (torch.tensor(1.0),))
    assert z == 2 * loss(x) and dz == loss(x)
    with forward_ad.dual_level():
        assert loss(x) == z / 2


def test_forward_mode_under_compile_and_in_an_exported_program_raises():
    torch._dynamo.reset()
    x, loss = make("sigmoid-focal", dtype=torch.float32)
    v = torch.randn_like(x)
    compiled = torch.compile(loss, backend="aot_eager")
    compiled(x)
    with pytest.raises(Exception, match="forward mode|torch.func"):
        torch.func.jvp(compiled, (x,), (v,))
    with pytest.raises(Exception, match="forward mode|torch.func"):
        torch.compile(lambda x: torch.func.jvp(loss, (x,), (v,)), backend="aot_eager")(x)

    class Model(torch.nn.Module):
        def forward(self, x):
            return loss(x)

    program = torch.export.export(Model(), (x,), strict=False).module()
    assert program(x) == loss(x)
    with FORWARD:
        torch.func.jvp(program, (x,), (v,))
    asks, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    (program(asks) * 2).backward()  # and in backward mode it is right
    (loss(other) * 2).backward()
    torch.testing.assert_close(asks.grad, other.grad)


# ---- by what comes from above ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_a_derivative_by_the_upstream_is_that_of_a_linear_function(name, reduction, dtype):
    x, loss = make(name, reduction, dtype)
    x.requires_grad_()
    found = loss(x)
    above = torch.rand_like(found).requires_grad_()
    (gradient,) = torch.autograd.grad(found, x, above, create_graph=True)
    (plain,) = torch.autograd.grad(loss(x), x, above.detach())
    torch.testing.assert_close(gradient.detach(), plain)
    weight = torch.randn_like(gradient)
    (by_above,) = torch.autograd.grad(gradient, above, weight, create_graph=True)
    wide = x.detach().to(torch.float64).requires_grad_()
    unit = [torch.autograd.grad(one, wide, retain_graph=True)[0] for one in loss(wide).flatten()]
    exact = torch.stack([(one * weight.double()).sum() for one in unit]).reshape(above.shape)
    torch.testing.assert_close(by_above.double(), exact, rtol=1e-5, atol=1e-6)
    # it is linear in the weight too, and does not depend on what came from above
    weight.requires_grad_()
    (again,) = torch.autograd.grad(gradient, above, weight, create_graph=True)
    (by_weight,) = torch.autograd.grad(again.sum(), weight, retain_graph=True)
    torch.testing.assert_close(by_weight.double(), sum(unit), rtol=1e-2 if dtype.itemsize == 2 else 1e-5, atol=1e-6)
    for one in (again, by_above, gradient, gradient**2):
        for call in (
            lambda: one.sum().backward(retain_graph=True),
            lambda: torch.autograd.grad(one.sum(), x, retain_graph=True),
        ):
            with pytest.raises(RuntimeError, match="second derivatives"):
                call()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_jvp_by_two_backwards(name, reduction):
    x, loss = make(name, reduction)
    v = torch.randn_like(x)
    value, found = torch.autograd.functional.jvp(loss, (x,), (v,))
    assert torch.equal(value, loss(x))
    asks = x.clone().requires_grad_()
    exact = torch.stack(
        [(torch.autograd.grad(one, asks, retain_graph=True)[0] * v).sum() for one in loss(asks).flatten()]
    )
    torch.testing.assert_close(found, exact.reshape(found.shape))
    for call in (torch.autograd.functional.hvp, torch.autograd.functional.vhp):
        with pytest.raises(RuntimeError, match="second derivatives"):
            call(lambda x: loss(x).sum(), x, v)
    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.autograd.functional.hessian(lambda x: loss(x).sum(), x)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_levels_of_maps_by_the_upstream(reduction):
    torch.manual_seed(0)
    maps = [torch.randn(2, 3 * 4, side, side, dtype=torch.float64, requires_grad=True) for side in (4, 2)]
    labels = torch.randint(0, 4, (2, 3 * 20))
    loss = lambda: tare.torch.sigmoid_focal(maps, labels, classes=4, reduction=reduction)
    found = loss()
    found = found if isinstance(found, list) else [found]
    above = [torch.rand_like(one).requires_grad_() for one in found]
    gradients = torch.autograd.grad(found, maps, above, create_graph=True)
    weights = [torch.randn_like(one) for one in gradients]
    by_above = torch.autograd.grad(gradients, above, weights)
    scalar = lambda above: sum(
        (g * w).sum() for g, w in zip(torch.autograd.grad(found, maps, above, retain_graph=True), weights)
    )
    for index, one in enumerate(by_above):  # linear: a difference is the derivative
        step = torch.randn_like(one)
        moved = [a + step if i == index else a for i, a in enumerate(above)]
        torch.testing.assert_close(
            (one * step).sum(),
            scalar([m.detach() for m in moved]) - scalar([a.detach() for a in above]),
            rtol=1e-6,
            atol=1e-9,
        )


def test_one_of_several_upstreams_is_missing():
    x, y = few()
    x.requires_grad_()
    rows = tare.torch.sigmoid_focal([x[:8], x[8:]], [y[:8], y[8:]], reduction="rows")
    above = torch.rand(8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(rows[0], x, above, create_graph=True)
    (by_above,) = torch.autograd.grad(gradient.sum(), above)
    exact = [torch.autograd.grad(row, x, retain_graph=True)[0].sum() for row in rows[0]]
    torch.testing.assert_close(by_above, torch.stack(exact))


def test_the_weights_of_gradnorm():
    """Chen et al., arXiv 1711.02257: the tasks' weights are learnt from the norms of their losses' gradients."""
    torch.manual_seed(0)
    layer, y = torch.nn.Linear(6, 5).double(), torch.randint(0, 5, (20,))
    features = torch.randn(20, 6, dtype=torch.float64)
    weights = torch.tensor([0.3, 1.7], dtype=torch.float64, requires_grad=True)

    def norms(first, second):
        logits = layer(features)
        losses = first(logits), second(logits)
        return [
            torch.autograd.grad(w * loss, layer.weight, create_graph=True)[0].norm() for w, loss in zip(weights, losses)
        ]

    ours = norms(lambda x: tare.torch.softmax_ce(x, y), lambda x: tare.torch.sigmoid_focal(x, y, gamma=0.0, alpha=None))
    theirs = norms(
        lambda x: torch.nn.functional.cross_entropy(x, y, reduction="sum"),
        lambda x: torch.nn.functional.binary_cross_entropy_with_logits(
            x, torch.nn.functional.one_hot(y, 5).double(), reduction="sum"
        ),
    )
    (found,) = torch.autograd.grad(sum((norm - 3).abs() for norm in ours), weights)
    (exact,) = torch.autograd.grad(sum((norm - 3).abs() for norm in theirs), weights)
    torch.testing.assert_close(found, exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["sigmoid-focal", "softmax-ce", "ghm-c"])
def test_a_head_by_the_upstream(name, dtype):
    blas()
    torch.manual_seed(0)
    head = [torch.randn(shape).to(dtype).requires_grad_() for shape in ((30, 6), (5, 6), (5,))]
    y = torch.randint(0, 5, (30,))
    for wants in ([0, 1, 2], [1], [0, 2]):
        sources = [head[i] for i in wants]
        [one.requires_grad_(i in wants) for i, one in enumerate(head)]
        loss = tare.torch.loss(name, tare.torch.Head(*head), y)
        above = torch.tensor(1.5, requires_grad=True)
        gradients = torch.autograd.grad(loss, sources, above, create_graph=True)
        weights = [torch.randn_like(one) for one in gradients]
        (by_above,) = torch.autograd.grad(gradients, above, weights, retain_graph=True)
        wide = [one.detach().double().requires_grad_() for one in head]
        exact = tare.torch.loss(name, wide[0] @ wide[1].T + wide[2], y)
        unit = torch.autograd.grad(exact, [wide[i] for i in wants])
        theirs = sum((one * weight.double()).sum() for one, weight in zip(unit, weights))
        torch.testing.assert_close(by_above.double(), theirs, rtol=1e-4, atol=1e-4)
        (again,) = torch.autograd.grad(gradients, above, weights, create_graph=True)
        for one in (sum(one.sum() for one in gradients), again):
            with pytest.raises(RuntimeError, match="second derivatives"):
                one.backward(retain_graph=True)
    torch.autograd.functional.jvp(
        lambda w: tare.torch.loss(name, tare.torch.Head(head[0].detach(), w), y),
        (head[1].detach(),),
        (head[1].detach(),),
    )


def test_logits_changed_in_place_before_the_second_backward_are_noticed():
    x, y = few()
    x.requires_grad_()
    logits = x * 1
    above = torch.tensor(1.0, dtype=x.dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(tare.torch.sigmoid_focal(logits, y), x, above, create_graph=True)
    with torch.no_grad():
        logits.mul_(2)
    with pytest.raises(RuntimeError, match="modified (by an )?inplace"):
        torch.autograd.grad(gradient.sum(), above)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("factor", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("name", ["sigmoid-focal", "softmax-ce"])
def test_a_gradient_of_zero_stays_zero_under_any_upstream(name, factor, compiled):
    torch._dynamo.reset()
    x, y = few(dtype=torch.float32)
    x.requires_grad_()
    y[:3] = -2
    loss = lambda x: tare.torch.loss(name, x, y)
    found = (torch.compile(loss, backend="aot_eager") if compiled else loss)(x)
    for _ in range(2):  # kept, then evaluated again
        (gradient,) = torch.autograd.grad(found, x, torch.tensor(factor), retain_graph=True)
        assert not gradient[:3].any() and not gradient[3:].isfinite().any()


def test_no_argument_loses_its_gradient():
    x, y = few(dtype=torch.float32)
    x.requires_grad_()
    asks = torch.rand(20, 5, requires_grad=True)
    one = torch.tensor(0.5, requires_grad=True)
    calls = {
        "targets": {"targets": asks},
        "row_weights": {"row_weights": asks[:, 0]},
        "element_weights": {"element_weights": asks},
        "class_weights": {"class_weights": asks[0]},
        "positive_weights": {"positive_weights": asks[0]},
        "alpha": {"alpha": asks[0]},
        "normalizer": {"normalizer": one},
        "gamma": {"gamma": one},
        "background_weight": {"background_weight": one},
    }
    for name, options in calls.items():
        with pytest.raises(ValueError, match=f"{name}.* asks for a gradient.*detach"):
            tare.torch.sigmoid_focal(x, y, **options)
