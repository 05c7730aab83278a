# SPDX-License-Identifier: Apache-2.0
"""tare.compat.kornia, monai and segmentation_models_pytorch beside their documented formulas in double precision."""

import pytest
import torch
import torch.nn.functional as F

from tare.compat import kornia, monai, segmentation_models_pytorch

SHAPES = [(3, 4), (2, 4, 5), (2, 4, 3, 2), (2, 1, 3), (2, 4, 2, 3, 2)]
REDUCTIONS = {"none": lambda a: a, "sum": torch.sum, "mean": torch.mean}


def sides(x, t, gamma, alpha):
    """Both sides of a sigmoid focal loss, weighed by the target."""
    one = t * (1 - x.sigmoid()) ** gamma * F.softplus(-x)
    zero = (1 - t) * x.sigmoid() ** gamma * F.softplus(x)
    return one + zero if alpha is None else alpha * one + (1 - alpha) * zero


def softmax_slices(x, y, gamma):
    """[N, C, ...], 0 but for the labels' elements."""
    logs = x.log_softmax(1)
    hot = F.one_hot(y.clamp(0, x.shape[1] - 1), x.shape[1]).movedim(-1, 1)
    return -((1 - logs.exp()) ** gamma) * logs * hot


def along(vector, shape):
    return torch.as_tensor(vector).double().reshape(-1, *[1] * (len(shape) - 2))


def drawn(*shape):
    x = 2 * torch.randn(shape)
    return x.requires_grad_(), x.detach().double().requires_grad_()


def agree(found, exact, x, wide):
    assert found.dtype == x.dtype and found.shape == exact.shape
    torch.testing.assert_close(found.double(), exact, rtol=5e-6, atol=1e-7)
    above = torch.rand_like(exact)
    slope = torch.autograd.grad(exact, wide, above, retain_graph=True)[0]
    gradient = torch.autograd.grad(found, x, above.to(found.dtype), retain_graph=True)[0].double()
    torch.testing.assert_close(gradient, slope, rtol=0, atol=1e-5 * float(slope.abs().max()) + 1e-12)


# ---- kornia ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_kornia(shape, reduction):
    torch.manual_seed(0)
    (x, wide), classes = drawn(*shape), shape[1]
    y = torch.randint(0, classes, (shape[0], *shape[2:]))
    y.view(-1)[0] = -100
    factors = torch.rand(classes)
    for alpha, weight in ((0.25, None), (None, factors), (0.3, factors)):
        exact = softmax_slices(wide, y, 2.0) * (y != -100).unsqueeze(1)
        if alpha is not None:
            exact = exact * along([1 - alpha] + [alpha] * (classes - 1), shape)
        exact = exact if weight is None else exact * along(weight, shape)
        found = kornia.FocalLoss(alpha, reduction=reduction, weight=weight)(x, y)
        agree(found, REDUCTIONS[reduction](exact), x, wide)
    hard = (torch.rand(shape) < 0.3).float()
    for target in (hard, torch.rand(shape)):
        for alpha, positive, weight in (
            (0.25, None, None),
            (None, factors, factors),
            (0.3, factors, None),
            (1.0, None, None),
        ):
            ignored = target.clone()
            ignored.view(-1)[0] = -100
            kept = torch.where(ignored == -100, 0, ignored).double()
            one, zero = sides(wide, kept, 2.0, None), sides(wide, torch.zeros_like(kept), 2.0, None)
            one, zero = kept * sides(wide, torch.ones_like(kept), 2.0, None), (1 - kept) * zero
            if alpha is not None:
                one, zero = alpha * one, (1 - alpha) * zero
            exact = (one if positive is None else one * along(positive, shape)) + zero
            exact = exact if weight is None else exact * along(weight, shape)
            exact = exact * (ignored != -100)
            module = kornia.BinaryFocalLossWithLogits(alpha, 2.0, reduction, positive, weight)
            agree(module(x, ignored), REDUCTIONS[reduction](exact), x, wide)


def test_what_kornia_refuses():
    x = torch.randn(2, 3, 4)
    with pytest.raises(NotImplementedError, match="Invalid reduction mode"):
        kornia.focal_loss(x, torch.zeros(2, 4, dtype=torch.int64), 0.5, reduction="rows")
    with pytest.raises(ValueError, match="alpha"):
        kornia.binary_focal_loss_with_logits(x, x.sigmoid(), alpha=1.5)
    for function in (kornia.binary_focal_loss_with_logits, lambda a, b: kornia.focal_loss(a, b, 0.5)):
        with pytest.raises(ValueError, match="shape"):
            function(x, torch.zeros(2, 3, 5))


# ---- segmentation_models_pytorch ------------------------------------------------------------------------------------


def smp_focal(x, t, alpha, gamma, threshold, normalized=False):
    losses = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    pt = (-losses).exp()
    factor = (1 - pt) ** gamma
    if threshold is not None:
        factor = torch.where(pt < threshold, 1.0, ((1 - pt) / threshold) ** gamma)
    losses = losses * factor
    losses = losses if alpha is None else losses * (alpha * t + (1 - alpha) * (1 - t))
    return losses / factor.sum() if normalized else losses


@pytest.mark.parametrize("threshold", [None, 0.5, 0.4])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("normalized", [False, True])
def test_segmentation_models(reduction, threshold, normalized):
    torch.manual_seed(0)
    x, wide = drawn(2, 4, 3, 5)
    options = {"alpha": 0.3, "gamma": 2.0, "reduction": reduction, "reduced_threshold": threshold}
    options["normalized"] = normalized
    reduce, settings = REDUCTIONS[reduction], (0.3, 2.0, threshold, normalized)
    y = torch.randint(0, 4, (2, 3, 5))
    weights = torch.tensor([1.0, 2.0, 0.5, 0.0])
    for ignored in (None, 3, 255):
        kept = torch.ones_like(y, dtype=torch.bool) if ignored is None else y != ignored
        by_class = [reduce(smp_focal(wide[:, c][kept], (y[kept] == c).double(), *settings)) for c in range(4)]
        exact = torch.stack(by_class)
        module = segmentation_models_pytorch.FocalLoss
        agree(module("multiclass", ignore_index=ignored, **options)(x, y), exact.mean(), x, wide)
        found = module("multiclass", ignore_index=ignored, class_weights=weights.tolist(), **options)(x, y)
        by_class = [reduce(smp_focal(wide[:, c][kept], (y[kept] == c).double(), *settings)) for c in range(4)]
        agree(found, (torch.stack(by_class) * weights).sum() / weights.sum(), x, wide)
        binary = (torch.rand(x.shape) < 0.4).long()
        if ignored is not None:
            binary[0, 0, 0] = ignored
        kept = torch.ones_like(binary, dtype=torch.bool) if ignored is None else binary != ignored
        exact = reduce(smp_focal(wide[kept], binary[kept].double(), *settings))
        agree(module("binary", ignore_index=ignored, **options)(x, binary), exact, x, wide)
    for target in (torch.rand(x.shape).round(), torch.rand(x.shape)):
        exact = [reduce(smp_focal(wide[:, c], target[:, c].double(), *settings)) for c in range(4)]
        found = segmentation_models_pytorch.FocalLoss("multilabel", **options)(x, target)
        agree(found, torch.stack(exact).mean(), x, wide)


def test_probabilities_of_segmentation_models():
    x, wide = drawn(2, 4, 3)
    y, module = torch.randint(0, 4, (2, 3)), segmentation_models_pytorch.FocalLoss
    exact = torch.stack(
        [smp_focal(wide.log_softmax(1)[:, c], (y == c).double(), None, 2.0, None).mean() for c in range(4)]
    )
    agree(module("multiclass", from_logits=False)(x.softmax(1), y), exact.mean(), x, wide)
    t = torch.rand(2, 4, 3).round()
    agree(
        module("binary", from_logits=False)(x.sigmoid(), t),
        smp_focal(wide, t.double(), None, 2.0, None).mean(),
        x,
        wide,
    )
    for bad in (
        {"mode": "rows"},
        {"mode": "binary", "class_weights": [1.0]},
        {"mode": "multilabel", "ignore_index": 1},
    ):
        with pytest.raises(ValueError, match="mode"):
            module(**bad)


# ---- MONAI ----------------------------------------------------------------------------------------------------------


def monai_reduced(losses, reduction):
    if reduction == "sum":
        return losses.mean(list(range(2, losses.dim()))).sum() if losses.dim() > 2 else losses.sum()
    return REDUCTIONS[reduction](losses)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 4, 3, 2), (2, 1, 3)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("background", [True, False])
def test_monai(shape, reduction, background):
    torch.manual_seed(0)
    (x, wide), classes = drawn(*shape), shape[1]
    skipped = 0 if background or classes == 1 else 1
    y = torch.randint(0, classes, (shape[0], 1, *shape[2:]))
    hot = F.one_hot(y[:, 0], classes).movedim(-1, 1) if classes > 1 else torch.randint(0, 2, shape)
    per_class = torch.rand(classes - skipped)
    options = {"include_background": background, "reduction": reduction}
    for alpha, weight in ((0.25, None), (None, 2.0), *([(per_class, per_class.tolist())] if classes > 1 else [])):
        t, v = hot[:, skipped:].double(), wide[:, skipped:]
        many = isinstance(alpha, torch.Tensor)
        exact = sides(v, t, 2.0, None if many else alpha)
        exact = exact * torch.where(t == 1, along(alpha, shape), 1.0) if many else exact
        factor = 1.0 if weight is None else along(weight, shape) if many else weight
        given = {"alpha": alpha.tolist() if many else alpha, "weight": weight, **options}
        agree(monai.FocalLoss(**given)(x, hot), monai_reduced(exact * factor, reduction), x, wide)
        if classes > 1:
            agree(monai.FocalLoss(to_onehot_y=True, **given)(x, y), monai_reduced(exact * factor, reduction), x, wide)
            logs = v.log_softmax(1)
            exact = -((1 - logs.exp()) ** 2) * logs * t * factor
            if many:
                exact = exact * along(alpha, shape)
            elif alpha is not None and not skipped:
                exact = exact * along([1 - alpha] + [alpha] * (classes - 1), shape)
            for hard, target in ((True, y), (False, hot)):
                module = monai.FocalLoss(use_softmax=True, to_onehot_y=hard, **given)
                agree(module(x, target), monai_reduced(exact, reduction), x, wide)


def test_soft_targets_of_monai_and_what_is_refused():
    x, wide = drawn(2, 3, 4)
    t = torch.rand(2, 3, 4)
    factor = torch.exp(2.0 * F.logsigmoid(-wide * (2 * t.double() - 1)))
    exact = (F.binary_cross_entropy_with_logits(wide, t.double(), reduction="none") * factor).mean()
    agree(monai.FocalLoss()(x, t), exact, x, wide)
    with pytest.raises(NotImplementedError, match="ignore_index"):
        monai.FocalLoss(ignore_index=1)
    with pytest.raises(ValueError, match="negative"):
        monai.FocalLoss(weight=[1.0, -1.0, 0.0])
    with pytest.raises(ValueError, match="length of alpha"):
        monai.FocalLoss(alpha=[0.5, 0.5])(x, t.round())
    with pytest.raises(ValueError, match="different shape"):
        monai.FocalLoss()(x, t[:, :2])
