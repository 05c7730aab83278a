# SPDX-License-Identifier: Apache-2.0
"""Dice losses of tare.compat against the originals' formulas in double."""

import pytest
import torch

from tare.compat import mmdet, transformers

EPSILON = torch.finfo(torch.float32).eps


def draw(seed=0, dtype=torch.float32, soft=False):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, 12, 11, generator=generator).mul(3).to(dtype).requires_grad_()
    t = torch.rand(5, 12, 11, generator=generator)
    return x, t if soft else (t > 0.7).float()


def original_mmdet(pred, target, weight, eps, reduction, naive, avg_factor):
    p, t = pred.flatten(1), target.flatten(1).to(pred.dtype)
    a = torch.sum(p * t, 1)
    of_squares = 2 * a / ((p * p).sum(1) + eps + (t * t).sum(1) + eps)
    d = (2 * a + eps) / (p.sum(1) + t.sum(1) + eps) if naive else of_squares
    loss = 1 - d
    loss = loss if weight is None else loss * weight
    if avg_factor is not None and reduction == "mean":
        return loss.sum() / (avg_factor + EPSILON)
    return {"none": lambda one: one, "sum": torch.sum, "mean": torch.mean}[reduction](loss)


def compare(found, x, wanted, y):
    above = torch.rand(found.shape, generator=torch.Generator().manual_seed(1))
    found.backward(above.to(found.dtype))
    wanted.backward(above.double())
    bound = 1e-10 if x.dtype == torch.float64 else 1e-5
    assert found.shape == wanted.shape
    for ours, theirs in ((found.detach(), wanted.detach()), (x.grad, y.grad)):
        assert (ours.double() - theirs).abs().max() <= bound * theirs.abs().max()
    x.grad = None


@pytest.mark.parametrize("naive", (False, True))
@pytest.mark.parametrize("reduction", ("mean", "sum", "none"))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_mmdet(naive, reduction, dtype):
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0])
    for soft in (False, True):
        for given in (None, weight):
            for avg_factor in (None, 3.0, torch.tensor(3.0)) if reduction == "mean" else (None,):
                x, t = draw(dtype=dtype, soft=soft)
                y = x.detach().double().requires_grad_()
                module = mmdet.DiceLoss(naive_dice=naive, reduction=reduction, loss_weight=2.0)
                found = module(x, t, given, avg_factor=avg_factor)
                wide = None if given is None else given.double()
                wanted = 2 * original_mmdet(y.sigmoid(), t, wide, 1e-3, reduction, naive, avg_factor)
                compare(found, x, wanted, y)


def test_mmdet_probabilities_and_targets_beyond_1():
    x, t = draw(dtype=torch.float64)
    y = x.detach().clone().requires_grad_()
    compare(
        mmdet.DiceLoss(activate=False)(x.sigmoid(), t),
        x,
        original_mmdet(y.sigmoid(), t, None, 1e-3, "mean", 0, None),
        y,
    )
    y.grad = None
    compare(mmdet.dice_loss(x.sigmoid(), t), x, original_mmdet(y.sigmoid(), t, None, 1e-3, "mean", 0, None), y)
    y.grad = None
    wanted = original_mmdet(y.sigmoid(), 3 * t, None, 1e-3, "mean", 0, None)
    compare(mmdet.DiceLoss()(x, 3 * t), x, wanted, y)
    with pytest.raises(NotImplementedError):
        mmdet.DiceLoss(use_sigmoid=False)(x, t)
    with pytest.raises(AssertionError, match="there are 5 masks"):
        mmdet.DiceLoss()(x, t, torch.ones(4))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("function", (transformers.dice_loss, transformers.maskformer_dice_loss))
def test_transformers(dtype, function):
    for number in (4, 2.5, torch.tensor(3.0)):
        x, t = draw(dtype=dtype)
        y = x.detach().double().requires_grad_()
        p, target = y.sigmoid().flatten(1), t.flatten(1).double()
        losses = 1 - (2 * (p * target).sum(-1) + 1) / (p.sum(-1) + target.sum(-1) + 1)
        compare(function(x, t.flatten(1), number), x, losses.sum() / number, y)
    with pytest.raises(ValueError, match="not \\[masks, pixels\\]"):
        function(x, t, 1)
