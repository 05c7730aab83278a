# SPDX-License-Identifier: Apache-2.0
"""Dice and Tversky losses of tare.compat.monai, segmentation_models_pytorch and sam3 beside the originals' formulas."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from tare.compat import monai, sam3
from tare.compat import segmentation_models_pytorch as smp

SHAPE = (3, 4, 6, 5)


def draw(seed=0, dtype=torch.float32, soft=False, shape=SHAPE):
    generator = torch.Generator().manual_seed(seed)
    x = (2 * torch.randn(shape, generator=generator)).to(dtype).requires_grad_()
    t = torch.rand(shape, generator=generator)
    t = t if soft else (t > 0.7).float()
    return x, x.detach().double().requires_grad_(), t


def agree(found, exact, x, wide, dtype=None):
    assert found.dtype == (dtype or x.dtype) and found.shape == exact.shape
    narrow = found.dtype in (torch.float16, torch.bfloat16) or x.dtype in (torch.float16, torch.bfloat16)
    bound = 1e-10 if x.dtype == torch.float64 else 1e-2 if narrow else 1e-5
    above = torch.rand(exact.shape, generator=torch.Generator().manual_seed(1)).double() + 0.5
    (slope,) = torch.autograd.grad(exact, wide, above, retain_graph=True)
    (gradient,) = torch.autograd.grad(found, x, above.to(found.dtype))
    for one, other in ((found.detach().double(), exact.detach()), (gradient.double(), slope)):
        assert (one - other).abs().max() <= bound * other.abs().max()


# ---- MONAI ----------------------------------------------------------------------------------------------------------


def monai_losses(p, t, batch, squared, soft_label, weights, smoothings):
    axes = [0, 2, 3] if batch else [2, 3]
    t = t.double()
    if squared or soft_label:
        order = 2 if squared else 1
        a, b, apart = ((one.abs() ** order).sum(axes) for one in (p, t, p - t))
        tp = (a + b - apart) / 2
        fp, fn = a - tp, b - tp
    else:
        tp, fp, fn = (p * t).sum(axes), (p * (1 - t)).sum(axes), ((1 - p) * t).sum(axes)
    return 1 - (tp + smoothings[0]) / (tp + weights[0] * fp + weights[1] * fn + smoothings[1])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("squared, jaccard", [(False, False), (True, False), (False, True), (True, True)])
def test_monai_dice(reduction, squared, jaccard):
    for batch, background, soft, factors in itertools.product(
        (False, True), (True, False), (False, True), (False, True)
    ):
        x, wide, t = draw(soft=soft)
        skipped = 0 if background else 1
        weight = torch.rand(4 - skipped) if factors else None
        module = monai.DiceLoss(
            background, False, True, False, None, squared, jaccard, reduction, 0.1, 0.2, batch, weight
        )
        w = (1.0, 1.0) if jaccard else (0.5, 0.5)
        p = wide.sigmoid()[:, skipped:]
        exact = monai_losses(p, t[:, skipped:], batch, squared, False, w, (0.05, 0.1))
        exact = exact if weight is None else exact * weight.double()
        if reduction == "none":
            exact = exact.reshape(*exact.shape, 1, 1)
        exact = {"mean": torch.mean, "sum": torch.sum, "none": lambda one: one}[reduction](exact)
        agree(module(x, t), exact, x, wide)


def test_monai_labels_and_softmax():
    x, wide, _ = draw()
    labels = torch.randint(0, 4, (3, 1, 6, 5))
    hot = F.one_hot(labels[:, 0], 4).movedim(-1, 1)
    given = ((0.5, 0.5), (5e-6, 5e-6))
    sigmoid, softmax = monai.DiceLoss(to_onehot_y=True, sigmoid=True), monai.DiceLoss(to_onehot_y=True, softmax=True)
    agree(sigmoid(x, labels), monai_losses(wide.sigmoid(), hot, False, False, False, *given).mean(), x, wide)
    agree(softmax(x, labels), monai_losses(wide.softmax(1), hot, False, False, False, *given).mean(), x, wide)
    other = monai.DiceLoss(to_onehot_y=True, other_act=torch.tanh)
    agree(other(x, labels), monai_losses(wide.tanh(), hot, False, False, False, *given).mean(), x, wide)
    with pytest.raises(AssertionError, match="different shape"):
        monai.DiceLoss(sigmoid=True)(x, labels)
    with pytest.warns(UserWarning, match="one channel"):
        monai.DiceLoss(include_background=False, sigmoid=True)(x[:, :1], labels > 0)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_monai_tversky(reduction, dtype):
    for batch, soft, soft_label in itertools.product((False, True), (False, True), (False, True)):
        x, wide, t = draw(dtype=dtype, soft=soft)
        t = t.to(dtype)
        given = {"alpha": 0.3, "beta": 0.7, "smooth_nr": 0.1, "smooth_dr": 0.1}
        module = monai.TverskyLoss(sigmoid=True, batch=batch, reduction=reduction, soft_label=soft_label, **given)
        exact = monai_losses(wide.sigmoid(), t, batch, False, soft_label, (0.3, 0.7), (0.1, 0.1))
        exact = {"mean": torch.mean, "sum": torch.sum, "none": lambda one: one}[reduction](exact)
        agree(module(x, t), exact, x, wide)


def test_monai_refusals():
    for make, error, text in (
        (lambda: monai.DiceLoss(sigmoid=True, softmax=True), ValueError, "more than 1"),
        (lambda: monai.DiceLoss(other_act=3), TypeError, "other_act"),
        (lambda: monai.TverskyLoss(ignore_index=0), NotImplementedError, "TverskyLoss takes none"),
        (lambda: monai.DiceLoss(reduction="batch"), ValueError, "reduction is"),
        (lambda: monai.DiceLoss(sigmoid=True, weight=[1.0])(*draw()[::2]), ValueError, "4 classes"),
        (lambda: monai.DiceLoss(sigmoid=True, weight=[1.0, 1.0, -1.0, 1.0])(*draw()[::2]), ValueError, "no less"),
    ):
        with pytest.raises(error, match=text):
            make()


def test_monai_smoothing_that_tare_does_not_take():
    x, wide, t = draw()
    exact = monai_losses(wide.sigmoid(), t, False, False, False, (0.5, 0.5), (1.0, 0.5)).mean()
    agree(monai.DiceLoss(sigmoid=True, smooth_nr=2.0, smooth_dr=1.0)(x, t), exact, x, wide)


# ---- segmentation_models_pytorch ------------------------------------------------------------------------------------


def smp_classes(p, t, alpha=0.5, beta=0.5, smooth=0.0, log=False):
    p, t = (one.transpose(0, 1).flatten(1) for one in (p, t.double()))
    tp = (p.sum(1) + t.sum(1) - (p - t).abs().sum(1)) / 2
    score = (tp + smooth) / (tp + alpha * (p.sum(1) - tp) + beta * (t.sum(1) - tp) + smooth).clamp_min(1e-7)
    return (-score.clamp_min(1e-7).log() if log else 1 - score) * (t.sum(1) > 0)


@pytest.mark.parametrize("smooth, log, soft", [(0.0, False, False), (1.0, False, False), (1.0, True, True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_smp_dice(smooth, log, soft, dtype):
    x, wide, t = draw(dtype=dtype, soft=soft)
    t[:, 2] = 0  # a class without a pixel
    exact = smp_classes(wide.sigmoid(), t, smooth=smooth, log=log)
    agree(smp.DiceLoss("multilabel", smooth=smooth, log_loss=log)(x, t), exact.mean(), x, wide)
    factors = torch.tensor([1.0, 2.0, 0.5, 0.0])
    module = smp.DiceLoss("multilabel", [0, 1], log, smooth=smooth, class_weights=factors.tolist())
    agree(module(x, t), (exact * factors.double())[:2].sum() / 3, x, wide)
    one, wide_one, hot = draw(dtype=dtype, soft=soft, shape=(3, 1, 30))
    exact = smp_classes(wide_one.sigmoid(), hot, smooth=smooth, log=log)[0]
    agree(smp.DiceLoss("binary", smooth=smooth, log_loss=log)(one, hot[:, 0]), exact, one, wide_one)


def test_smp_ignored_pixels_and_labels():
    x, wide, t = draw()
    t[t.cumsum(3) % 3 == 2] = 255
    kept = t != 255
    exact = smp_classes(wide.sigmoid() * kept, t * kept).mean()
    agree(smp.DiceLoss("multilabel", ignore_index=255)(x, t.long()), exact, x, wide)
    labels = torch.randint(0, 4, (3, 6, 5))
    labels[0, 0] = 255
    kept = (labels != 255).unsqueeze(1)
    hot = F.one_hot(labels.clamp(max=3), 4).movedim(-1, 1) * kept
    exact = smp_classes(wide.softmax(1) * kept, hot).mean()
    agree(smp.DiceLoss("multiclass", ignore_index=255)(x, labels), exact, x, wide)


def test_smp_tversky():
    x, wide, t = draw()
    exact = smp_classes(wide.sigmoid(), t, 0.3, 0.7, 1.0).mean() ** 0.75
    agree(smp.TverskyLoss("multilabel", smooth=1.0, alpha=0.3, beta=0.7, gamma=0.75)(x, t), exact, x, wide)
    p, wide_p, t = draw()
    exact = smp_classes(wide_p.sigmoid(), t, 0.3, 0.7).mean()
    agree(smp.TverskyLoss("multilabel", from_logits=False, alpha=0.3, beta=0.7)(p.sigmoid(), t), exact, p, wide_p)


def test_smp_refusals():
    for make, error, text in (
        (lambda: smp.DiceLoss("pixels"), AssertionError, "mode is 'pixels'"),
        (lambda: smp.DiceLoss("binary", class_weights=[1.0]), ValueError, "class_weights"),
        (lambda: smp.TverskyLoss("binary", [0]), AssertionError, "Masking classes"),
        (lambda: smp.DiceLoss("multilabel")(torch.zeros(2, 1, 3), torch.zeros(1, 1, 3)), AssertionError, "2 images"),
    ):
        with pytest.raises(error, match=text):
            make()


# ---- SAM 3 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True])
def test_sam3(soft):
    x, wide, t = draw(soft=soft)
    p, flat = wide.sigmoid().flatten(2), t.double().flatten(2)
    exact = 1 - (2 * (p * flat).sum(-1) + 1) / (p.sum(-1) + flat.sum(-1) + 1)
    agree(sam3.dice_loss(x, t, torch.tensor(7.0), loss_on_multimask=True), exact / 7, x, wide)
    rows, wide_rows = x.detach().flatten(0, 1).requires_grad_(), wide.detach().flatten(0, 1).requires_grad_()
    p = wide_rows.sigmoid().flatten(1)
    exact = 1 - (2 * (p * flat.flatten(0, 1)).sum(-1) + 1) / (p.sum(-1) + flat.flatten(0, 1).sum(-1) + 1)
    targets = t.flatten(0, 1).flatten(1)
    agree(sam3.dice_loss(rows, targets, 7, reduce=False), exact, rows, wide_rows)
    agree(sam3.dice_loss(rows, targets, 7), exact.sum() / 7, rows, wide_rows)
    with pytest.raises(AssertionError, match="3 axes"):
        sam3.dice_loss(rows, t, 7, loss_on_multimask=True)
    with pytest.raises(AssertionError, match="inputs have shape"):
        sam3.dice_loss(rows, targets[1:], 7)
