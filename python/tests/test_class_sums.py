# SPDX-License-Identifier: Apache-2.0
"""Sums of each class, of tensors: those of NumPy arrays, in every way a loss can be called."""

import numpy as np
import pytest
import torch

import tare
import tare.torch

LEVELS = (37, 5), (600, 5)


def _levels(requires_grad=True):
    source = torch.Generator().manual_seed(5)
    logits = [torch.randn(2, *shape, generator=source).requires_grad_(requires_grad) for shape in LEVELS]
    labels = [torch.randint(-2, 5, one.shape[:-1], generator=source) for one in logits]
    return logits, labels


def _expected(name, logits, labels):
    arrays = [[one.detach().numpy() for one in level] for level in (logits, labels)]
    return tare.evaluate(name, *arrays, class_sums=True)


@pytest.mark.parametrize("name", ["sigmoid-focal", "ghm-c"])
@pytest.mark.parametrize("reduction", ["sum", "rows", "none"])
def test_every_reduction(name, reduction):
    logits, labels = _levels()
    want = _expected(name, logits, labels)
    for _ in range(3):  # the second call is one that was made before
        loss, sums = tare.torch.loss(name, logits, labels, reduction=reduction, class_sums=True)
        assert sums.dtype == torch.float64 and not sums.requires_grad
        assert (sums.numpy() == want.class_sums).all()
        total = loss if reduction == "sum" else sum(one.sum() for one in loss)
        assert float(total.detach()) == pytest.approx(want.loss, rel=1e-5)
        gradients = torch.autograd.grad(total, logits)
        for found, expected in zip(gradients, want.gradient):
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_without_a_gradient_and_with_a_state():
    logits, labels = _levels(requires_grad=False)
    _, sums = tare.torch.loss("sigmoid-ce", logits, labels, class_sums=True)
    assert (sums.numpy() == _expected("sigmoid-ce", logits, labels).class_sums).all()
    state = tare.torch.ghm_state(10)
    for one in logits:
        one.requires_grad_()
    loss, sums = tare.torch.ghm_c(logits, labels, bins=10, momentum=0.5, state=state, class_sums=True)
    loss.backward()
    assert state[0] == 1 and sums[:, 3].sum() == 5 * sum(int((one != -2).sum()) for one in labels)


def test_compiled():
    logits, labels = _levels()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(x, y):
        loss, sums = tare.torch.sigmoid_focal(x, y, class_sums=True)
        return 2 * loss, sums

    loss, sums = step(logits[1], labels[1])
    loss.backward()
    plain, want = tare.torch.sigmoid_focal(logits[1].detach(), labels[1], class_sums=True)
    assert (sums == want).all() and float(loss.detach()) == pytest.approx(2 * float(plain))
    assert logits[1].grad.abs().sum() > 0


def test_refusals():
    logits, labels = _levels()
    head = tare.torch.Head(torch.ones(3, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match="level_losses is True with a Head"):
        tare.torch.sigmoid_ce(head, labels[0][0, :3], class_sums=True, level_losses=True)
    with pytest.raises(ValueError, match="norm_histogram is 5 with a Head"):
        tare.torch.sigmoid_ce(head, labels[0][0, :3], class_sums=True, norm_histogram=5)
    with pytest.raises(tare.Error, match="class_sums with ghm-r"):
        tare.torch.ghm_r(logits[0].detach(), torch.zeros(2, 37, 5), class_sums=True)
    with pytest.raises(ValueError, match="class_sums is True with a histogram"):
        tare.torch.ghm_histogram("ghm-c", logits, labels, state=tare.torch.ghm_state(30), class_sums=True)
