# SPDX-License-Identifier: Apache-2.0
"""tare.torch under torch.func (grad, vmap, jacrev) and batched gradients: as one call after the other, or a refusal."""

import pytest
import torch
from support import NAMES, blas, few, make
from torch.func import functional_call, grad, grad_and_value, hessian, jacrev, vjp, vmap

import tare.torch


def gradient(loss, x):
    asks = x.clone().requires_grad_()
    return torch.autograd.grad(loss(asks), asks)[0]


@pytest.mark.parametrize("name", NAMES)
def test_transforms_are_one_call_after_the_other(name):
    x, loss = make(name)
    several = torch.stack([x, x.flip(0), x * 2])
    expected = torch.stack([gradient(loss, one) for one in several])
    found, value = grad_and_value(loss)(x)
    assert torch.equal(found, expected[0]) and torch.equal(value, loss(x))
    assert torch.equal(vmap(loss)(several), torch.stack([loss(one) for one in several]))
    assert torch.equal(vmap(grad(loss))(several), expected)
    assert torch.equal(grad(lambda x: vmap(loss)(x).sum())(several), expected)
    asks = several.clone().requires_grad_()
    vmap(loss)(asks).sum().backward()
    assert torch.equal(asks.grad, expected)


@pytest.mark.parametrize("reduction", ["rows", "none"])
@pytest.mark.parametrize("name", ["sigmoid-focal", "softmax-ce", "ghm-c"])
def test_jacobians_and_batched_gradients(name, reduction):
    x, loss = make(name, reduction)
    exact = torch.autograd.functional.jacobian(loss, x)
    torch.testing.assert_close(jacrev(loss)(x), exact)
    torch.testing.assert_close(torch.autograd.functional.jacobian(loss, x, vectorize=True), exact)
    x.requires_grad_()
    above = torch.randn(3, *loss(x).shape, dtype=x.dtype)
    (found,) = torch.autograd.grad(loss(x), x, above, is_grads_batched=True)
    torch.testing.assert_close(found, torch.stack([torch.autograd.grad(loss(x), x, one)[0] for one in above]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_batched_gradients_of_a_scalar(dtype):
    x, loss = make("sigmoid-focal", dtype=dtype)
    x.requires_grad_()
    found, above = loss(x), torch.tensor([0.0, 1.0, 3.0])
    for _ in range(2):  # of the gradient that forward kept, and without it
        (several,) = torch.autograd.grad(found, x, above.to(found), retain_graph=True, is_grads_batched=True)
        wanted = [torch.autograd.grad(loss(x), x, one.to(found))[0] for one in above]
        torch.testing.assert_close(several, torch.stack(wanted))


def test_a_batch_of_other_arguments():
    x, y = few(dtype=torch.float32)
    weights, labels = torch.rand(3, 20), torch.stack([y, y.flip(0)])
    call = lambda w, y: tare.torch.sigmoid_ce(x, y, row_weights=w, normalizer="weights")
    assert torch.equal(vmap(call, (0, None))(weights, y), torch.stack([call(one, y) for one in weights]))
    assert torch.equal(vmap(call, (None, 1))(weights[0], labels.T), torch.stack([call(weights[0], y) for y in labels]))
    assert vmap(call, (0, None))(weights.double(), y).isfinite().all()
    levels = lambda x: tare.torch.sigmoid_focal([x[:8], x[8:]], y, reduction="rows")
    for one, other in zip(vmap(levels)(x.expand(2, 20, 5)), levels(x)):
        assert torch.equal(one, other.expand(2, *other.shape))
    _, pullback = vjp(levels, x)
    (found,) = pullback([torch.ones(8), torch.zeros(12)])
    assert torch.equal(found[:8], gradient(lambda x: tare.torch.sigmoid_focal(x[:8], y[:8]), x)[:8])
    assert not found[8:].any()
    losses, sums = vmap(lambda x: tare.torch.sigmoid_ce(x, y, class_sums=True))(x.expand(2, 20, 5))
    assert losses.shape == (2,) and torch.equal(sums[1], tare.torch.sigmoid_ce(x, y, class_sums=True)[1])


def test_gradients_of_each_sample():
    torch.manual_seed(0)
    model, x, y = torch.nn.Linear(6, 5), torch.randn(7, 6), torch.randint(-1, 5, (7,))
    loss = lambda parameters, x, y: tare.torch.sigmoid_focal(functional_call(model, parameters, (x[None],)), y[None])
    parameters = {key: one.detach() for key, one in model.named_parameters()}
    found = vmap(grad(loss), (None, 0, 0))(parameters, x, y)
    for index in range(7):
        alone = tare.torch.sigmoid_focal(model(x[index : index + 1]), y[index : index + 1])
        for key, one in zip(parameters, torch.autograd.grad(alone, list(model.parameters()))):
            torch.testing.assert_close(found[key][index], one)


def test_a_state_of_ghm_is_not_written():
    x, y = few(dtype=torch.float32)
    state = tare.torch.ghm_state(30)
    with pytest.raises(RuntimeError, match=r"state is written.*use_stored_density=True"):
        grad(lambda x: tare.torch.ghm_c(x, y, state=state))(x)
    tare.torch.ghm_c(x, y, state=state)
    before = state.clone()
    loss = lambda x: tare.torch.ghm_c(x, y, state=state, use_stored_density=True)
    assert torch.equal(grad(loss)(x), gradient(loss, x)) and torch.equal(state, before) and state.any()


def test_with_compile():
    torch._dynamo.reset()
    x, loss = make("sigmoid-focal", dtype=torch.float32)
    for call in (torch.compile(grad(loss), backend="aot_eager"), grad(torch.compile(loss, backend="aot_eager"))):
        torch.testing.assert_close(call(x), gradient(loss, x))


def test_what_raises():
    x, loss = make("sigmoid-focal")
    y, w = few()[1], torch.randn(5, 5)
    for call in (lambda: grad(lambda x: grad(loss)(x).sum())(x), lambda: hessian(loss)(x)):
        with pytest.raises(RuntimeError, match="second derivatives|forward mode"):
            call()
    with pytest.raises(ValueError, match=r"row_weights asks for a gradient.*detach"):
        grad(lambda w: tare.torch.sigmoid_ce(x, y, row_weights=w))(torch.ones(20))
    with pytest.raises(ValueError, match="0 elements"):
        vmap(loss)(x[None][:0])
    blas()
    fused = lambda x: tare.torch.sigmoid_focal(tare.torch.Head(x, w), y)
    x = x.float().requires_grad_()
    found = fused(x)
    torch.autograd.grad(found, x, retain_graph=True)
    for call in (
        lambda: grad(fused)(x),
        lambda: vmap(fused)(x[None]),
        lambda: torch.autograd.grad(found, x, torch.ones(2), is_grads_batched=True),
    ):
        with pytest.raises(RuntimeError, match="a Head takes no part in torch.func"):
            call()
