# SPDX-License-Identifier: Apache-2.0
"""mmdetection's QualityFocalLoss, VarifocalLoss and GaussianFocalLoss beside their formulas in double precision."""

import pytest
import torch
import torch.nn.functional as F

from tare.compat import mmdet

EPSILON = torch.finfo(torch.float32).eps
REDUCTIONS = [("none", None), ("sum", None), ("mean", None), ("mean", 7.0), ("mean", torch.tensor([7.0]))]


def reduced(losses, weight, reduction, avg_factor):
    losses = losses if weight is None else losses * weight.double()
    if reduction == "mean" and avg_factor is not None:
        return losses.sum() / (avg_factor + EPSILON)
    return {"none": lambda a: a, "sum": torch.sum, "mean": torch.mean}[reduction](losses)


def agree(found, exact, x, wide):
    assert found.shape == exact.shape
    torch.testing.assert_close(found.double(), exact.double(), rtol=5e-6, atol=1e-7)
    above = torch.rand_like(exact)
    slope = torch.autograd.grad(exact, wide, above, retain_graph=True)[0]
    gradient = torch.autograd.grad(found, x, above.to(found.dtype), retain_graph=True)[0].double()
    torch.testing.assert_close(gradient, slope, rtol=0, atol=1e-5 * float(slope.abs().max()))


def drawn(*shape):
    x = 2 * torch.randn(shape)
    return x.requires_grad_(), x.detach().double().requires_grad_()


def quality(x, t, beta):
    return F.binary_cross_entropy_with_logits(x, t, reduction="none") * (t - x.sigmoid()).abs() ** beta


@pytest.mark.parametrize("reduction, avg_factor", REDUCTIONS)
@pytest.mark.parametrize("activated", [False, True])
def test_quality_focal_loss(reduction, avg_factor, activated):
    torch.manual_seed(0)
    x, wide = drawn(8, 3)
    y, score, weight = torch.randint(-1, 4, (8,)), torch.rand(8), torch.rand(8)
    hot = (y[:, None] == torch.arange(3)).double() * score.double()[:, None]
    module = mmdet.QualityFocalLoss(beta=1.5, loss_weight=2.0, activated=activated)
    given = x.sigmoid() if activated else x
    for one in (None, weight):
        exact = 2 * reduced(quality(wide, hot, 1.5).sum(1), one, reduction, avg_factor)
        agree(module(given, (y, score), one, avg_factor, reduction), exact, x, wide)
        agree(module(given, hot.float(), one, avg_factor, reduction), exact, x, wide)
    x, wide = drawn(2, 3, 4, 5)
    t, given = torch.rand(2, 3, 4, 5), x.sigmoid() if activated else x
    exact = 2 * reduced(quality(wide, t.double(), 1.5).sum(1), None, reduction, avg_factor)
    agree(module(given, t, None, avg_factor, reduction), exact, x, wide)


@pytest.mark.parametrize("reduction, avg_factor", REDUCTIONS)
@pytest.mark.parametrize("iou_weighted", [True, False])
def test_varifocal_loss(reduction, avg_factor, iou_weighted):
    torch.manual_seed(0)
    x, wide = drawn(8, 3)
    t, weight = torch.rand(8, 3) * (torch.rand(8, 3) < 0.4), torch.rand(8, 3)
    positive = t.double() if iou_weighted else torch.ones(8, 3, dtype=torch.float64)
    module = mmdet.VarifocalLoss(iou_weighted=iou_weighted, loss_weight=2.0)
    for one in (None, weight, weight[:, :1]):
        factor = torch.where(t > 0, positive, 0.75 * wide.sigmoid() ** 2)
        losses = F.binary_cross_entropy_with_logits(wide, t.double(), reduction="none") * factor
        exact = 2 * reduced(losses, one, reduction, avg_factor)
        agree(module(x, t, one, avg_factor, reduction), exact, x, wide)


@pytest.mark.parametrize("reduction, avg_factor", REDUCTIONS)
def test_gaussian_focal_loss(reduction, avg_factor):
    torch.manual_seed(0)
    x, wide = drawn(2, 3, 4, 4)
    t = torch.rand(2, 3, 4, 4)
    t[t > 0.8] = 1
    weight = torch.rand(2, 3, 4, 4)
    p, peaks = wide.sigmoid(), t == 1
    for sides, one in (((1.0, 1.0), None), ((2.0, 0.5), weight)):
        losses = torch.where(
            peaks,
            sides[0] * (1 - p) ** 2 * F.softplus(-wide),
            sides[1] * (1 - t.double()) ** 4 * p**2 * F.softplus(wide),
        )
        module = mmdet.GaussianFocalLoss(loss_weight=2.0, pos_weight=sides[0], neg_weight=sides[1])
        exact = 2 * reduced(losses, one, reduction, avg_factor)
        found = module(x.sigmoid(), t, weight=one, avg_factor=avg_factor, reduction_override=reduction)
        torch.autograd.grad(exact.sum(), wide, retain_graph=True)
        agree(found, exact, x, wide)
        p = wide.sigmoid()


def test_peaks_of_their_own():
    """CenterNet's update gives the places of peaks; a target of 1 is no peak then."""
    torch.manual_seed(0)
    x, wide = drawn(9, 3)
    t, rows, labels = torch.rand(9, 3), torch.tensor([0, 4, 4]), torch.tensor([1, 2, 0])
    t[0, 1] = 1
    p = wide.sigmoid()
    positive = ((1 - p) ** 2 * F.softplus(-wide))[rows, labels]
    negative = (1 - t.double()) ** 4 * p**2 * F.softplus(wide)
    module = mmdet.GaussianFocalLoss(pos_weight=0.25, neg_weight=0.75)
    agree(
        module(x.sigmoid(), t, rows, labels, avg_factor=3),
        (0.25 * positive.sum() + 0.75 * negative.sum()) / (3 + EPSILON),
        x,
        wide,
    )
    sure = torch.tensor([[0.0, 1.0, 1.0]], requires_grad=True)
    loss = mmdet.GaussianFocalLoss()(sure, torch.tensor([[1.0, 0.0, 1.0]]))
    assert loss.isfinite() and torch.autograd.grad(loss, sure)[0].isfinite().all()


def test_what_is_refused():
    x, y = torch.randn(4, 3), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(AssertionError, match="use_sigmoid"):
        mmdet.QualityFocalLoss(use_sigmoid=False)
    with pytest.raises(AssertionError, match="alpha"):
        mmdet.VarifocalLoss(alpha=-1.0)
    with pytest.raises(AssertionError, match="parts"):
        mmdet.QualityFocalLoss()(x, (y, y, y))
    with pytest.raises(AssertionError, match="shape"):
        mmdet.VarifocalLoss()(x, x[:, :2])
    with pytest.raises(AssertionError, match="pos_labels"):
        mmdet.GaussianFocalLoss()(x.sigmoid(), x.sigmoid(), y)
    with pytest.raises(AssertionError, match="reduction_override"):
        mmdet.GaussianFocalLoss()(x.sigmoid(), x.sigmoid(), reduction_override="rows")
