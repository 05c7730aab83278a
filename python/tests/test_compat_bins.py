# SPDX-License-Identifier: Apache-2.0
"""Distribution focal loss of ultralytics and mmdetection, and D-FINE's of transformers, beside their formulas in
double precision."""

import pytest
import torch
import torch.nn.functional as F

from tare.compat import mmdet, transformers, ultralytics

ROWS, BINS = 24, 17


def pair(pred, left, of_left, of_right):
    one, other = (F.cross_entropy(pred.double(), bin, reduction="none") for bin in (left, left + 1))
    return one * of_left.double() + other * of_right.double()


def drawn(dtype=torch.float32, bins=BINS):
    generator = torch.Generator().manual_seed(3)
    pred = (torch.randn(ROWS, bins, generator=generator) * 3).to(dtype).requires_grad_()
    target = torch.rand(ROWS, generator=generator) * (bins - 1.5)
    weight = torch.rand(ROWS, generator=generator)
    return pred, target, weight


def same(ours, theirs, pred, upstream=None):
    close = {"rtol": 1e-10, "atol": 1e-12} if pred.dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-5}
    upstream = torch.ones_like(theirs) if upstream is None else upstream.double()
    torch.testing.assert_close(ours.double(), theirs, **close)
    (got,) = torch.autograd.grad(ours, pred, upstream.to(ours.dtype))
    (want,) = torch.autograd.grad(theirs, pred, upstream)
    torch.testing.assert_close(got, want, **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bins", [16, 20])
def test_ultralytics(dtype, bins):
    pred, target, weight = drawn(dtype, bins)
    target[:4] = torch.tensor([-0.5, 0.0, 14.99, 40.0])
    sides = target.reshape(-1, 4).to(dtype)
    left_alone = sides.clone()
    clamped = sides.double().clamp(0, 15 - 0.01)
    left = clamped.long()
    losses = pair(pred, left.reshape(-1), (left + 1 - clamped).reshape(-1), (clamped - left).reshape(-1))
    want = losses.reshape(sides.shape).mean(-1, keepdim=True)
    got = ultralytics.DFLoss(16)(pred, sides)
    assert got.shape == (ROWS // 4, 1)
    assert torch.equal(sides, left_alone)
    same(got, want, pred, weight[: ROWS // 4].unsqueeze(1))


def test_ultralytics_refuses_other_shapes():
    pred, target, _ = drawn(bins=16)
    with pytest.raises(ValueError, match="pred_dist has shape"):
        ultralytics.DFLoss(16)(pred[:-1], target.reshape(-1, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_mmdet(dtype, reduction, weighted):
    pred, target, weight = drawn(dtype)
    left = target.long()
    losses = pair(pred, left, left + 1 - target.double(), target.double() - left)
    losses = losses * weight.double() if weighted else losses
    want = 0.25 * {"mean": losses.mean, "sum": losses.sum, "none": losses.clone}[reduction]()
    got = mmdet.DistributionFocalLoss(reduction, 0.25)(pred, target, weight if weighted else None)
    same(got, want, pred)


def test_mmdet_with_a_divisor():
    pred, target, weight = drawn()
    left = target.long()
    losses = pair(pred, left, left + 1 - target.double(), target.double() - left) * weight.double()
    got = mmdet.DistributionFocalLoss()(pred, target, weight=weight, avg_factor=4.0)
    same(got, losses.sum() / (4.0 + torch.finfo(torch.float32).eps), pred)


def test_a_target_that_asks_for_a_gradient():
    pred, target, _ = drawn()
    target.requires_grad_()
    mmdet.DistributionFocalLoss()(pred, target).backward()
    assert target.grad is not None and target.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options",
    [{}, {"reduction": "mean"}, {"reduction": "none"}, {"avg_factor": 7}, {"avg_factor": torch.tensor(7.0)}],
)
def test_d_fine(dtype, options):
    pred, target, weight = drawn(dtype)
    label, of_right = target.floor(), target - target.floor()
    losses = pair(pred, label.long(), 1 - of_right, of_right) * weight.double()
    if "avg_factor" in options:
        want = losses.sum() / 7
    else:
        want = {"sum": losses.sum, "mean": losses.mean, "none": losses.clone}[options.get("reduction", "sum")]()
    got = transformers.d_fine_unimodal_distribution_focal_loss(
        None, pred, label, of_right, 1 - of_right, weight, **options
    )
    same(got, want, pred)
