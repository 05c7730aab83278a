# SPDX-License-Identifier: Apache-2.0
"""The functions of torchvision, fvcore, mmcv and apex: torch.jit.script, types of results, what asks for a gradient,
label smoothing, and the cases of the originals' tests."""

import pytest
import torch
import torch.nn.functional as F

from tare.compat import apex, fvcore, mmcv, timm, torchvision, transformers

SCRIPTED = (
    torchvision.sigmoid_focal_loss,
    fvcore.sigmoid_focal_loss,
    fvcore.sigmoid_focal_loss_star,
    fvcore.sigmoid_focal_loss_jit,
    fvcore.sigmoid_focal_loss_star_jit,
)


def focal(x, t, alpha, gamma):
    p = x.sigmoid()
    loss = F.binary_cross_entropy_with_logits(x, t, reduction="none") * (p * (1 - t) + (1 - p) * t) ** gamma
    return loss if alpha < 0 else loss * (alpha * t + (1 - alpha) * (1 - t))


class Head(torch.nn.Module):
    """A module of a user that calls a loss, and is scripted as a whole."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torchvision.sigmoid_focal_loss(x * 2, t, alpha=0.3, reduction="sum") + 1


@pytest.mark.skipif(not hasattr(torch.jit, "script"), reason="this PyTorch has no torch.jit.script")
@pytest.mark.filterwarnings("ignore")
def test_scripted_functions():
    for function in SCRIPTED:
        scripted = torch.jit.script(function)
        for alpha, gamma, reduction in ((-1.0, 2.0, "none"), (0.123456789, 1.5, "mean"), (0.25, 1.0, "sum")):
            x, t = torch.randn(5, 2, requires_grad=True), torch.randint(0, 2, (5, 2)).float()
            found, expected = scripted(x, t, alpha, gamma, reduction), function(x, t, alpha, gamma, reduction)
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
            above = torch.rand_like(expected)
            gradient, exact = (torch.autograd.grad(loss, x, above)[0] for loss in (found, expected))
            assert torch.equal(gradient, exact) and exact.any()
        torch.testing.assert_close(scripted(x, t), function(x, t))  # the defaults
    x, t = torch.randn(5, 2, requires_grad=True), torch.rand(5, 2)
    loss = torch.jit.script(Head())(x, t)
    torch.testing.assert_close(loss, torchvision.sigmoid_focal_loss(x * 2, t, 0.3, reduction="sum") + 1)
    assert torch.autograd.grad(loss, x)[0].any()


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types_are_the_originals(dtype, reduction):
    x, y, t = torch.randn(6, 3).to(dtype).requires_grad_(), torch.randint(0, 3, (6,)), torch.rand(6, 3)
    exact = {"none": lambda a: a, "sum": torch.sum, "mean": torch.mean}[reduction](
        focal(x.double(), t.double(), 0.25, 2)
    )
    tolerance = {"rtol": 1e-2, "atol": 1e-2} if dtype.itemsize == 2 else {"rtol": 1e-5, "atol": 1e-6}
    for target, wanted in ((t.to(dtype), dtype), (t.double(), torch.float64), ((t > 0.5), None)):
        loss = torchvision.sigmoid_focal_loss(x, target, reduction=reduction)
        assert loss.dtype == (wanted or dtype)
        if wanted is not None:
            torch.testing.assert_close(loss.double(), exact, **tolerance)
        assert fvcore.sigmoid_focal_loss(x, target, reduction=reduction).dtype == torch.float32
        assert fvcore.sigmoid_focal_loss_star(x, target, reduction=reduction).dtype == torch.float32
    weight = torch.rand(3)
    for function in (mmcv.sigmoid_focal_loss, mmcv.softmax_focal_loss):
        loss = function(x, y, 2.0, 0.25, weight, reduction)
        assert loss.dtype == dtype and torch.autograd.grad(loss.sum(), x)[0].dtype == dtype
    assert apex.focal_loss(x, y, torch.tensor([3.0]), 3, 0.25, 2.0).dtype == torch.float32
    assert apex.focal_loss(x, y, torch.tensor([3.0]), 3, 0.25, 2.0, 0.1).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torchvision.sigmoid_focal_loss(x, t.to(dtype)).dtype == torch.promote_types(dtype, torch.float32)
        kept = dtype if reduction == "none" else torch.promote_types(dtype, torch.float32)
        assert mmcv.sigmoid_focal_loss(x, y, 2.0, 0.25, None, reduction).dtype == kept


def test_targets_that_ask_for_a_gradient():
    x, t = torch.randn(6, 3, requires_grad=True), torch.rand(6, 3, requires_grad=True)
    star = lambda x, t, alpha, gamma: -F.logsigmoid(gamma * x * (2 * t - 1)) / gamma
    for function, exact in (
        (torchvision.sigmoid_focal_loss, focal),
        (fvcore.sigmoid_focal_loss, focal),
        (fvcore.sigmoid_focal_loss_star, star),
    ):
        found = torch.autograd.grad(function(x, t, -1, 2.0, "sum"), [x, t])
        expected = torch.autograd.grad(exact(x.double(), t.double(), -1, 2.0).sum(), [x, t])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    y, weight = torch.randint(0, 3, (6,)), torch.rand(3, requires_grad=True)
    for function in (mmcv.sigmoid_focal_loss, mmcv.softmax_focal_loss):  # weights get none there
        (gradient,) = torch.autograd.grad(function(x, y, 2.0, 0.25, weight), weight, allow_unused=True)
        assert gradient is None
    positives = torch.tensor([2.0], requires_grad=True)
    assert apex.focal_loss(x, y, positives, 3, 0.25, 2.0).requires_grad


def test_names_and_errors_of_the_originals():
    x, y, t = torch.randn(6, 3), torch.randint(0, 3, (6,)), torch.rand(6, 3)
    assert mmcv.SigmoidFocalLossFunction.apply(x, y, 2.0, 0.25, None, "mean") == mmcv.sigmoid_focal_loss(x, y)
    assert mmcv.SoftmaxFocalLossFunction.apply(x, y, 2.0, 0.25, None, "mean") == mmcv.softmax_focal_loss(x, y)
    with pytest.raises(ValueError, match="Invalid"):
        torchvision.sigmoid_focal_loss(x, t, 0.25, 2, "xyz")
    for bad in ((x[0], y), (x, y[1:]), (x, y, 2.0, 0.25, torch.rand(2))):
        with pytest.raises(AssertionError):
            mmcv.sigmoid_focal_loss(*bad)
    with pytest.raises(AssertionError):
        mmcv.softmax_focal_loss(x, y, 2.0, 0.25, None, "xyz")
    for dtype in (torch.uint8, torch.int16, torch.int32):
        assert mmcv.sigmoid_focal_loss(x, y.to(dtype)) == mmcv.sigmoid_focal_loss(x, y)
        assert mmcv.softmax_focal_loss(x, y.to(dtype)) == mmcv.softmax_focal_loss(x, y)
    for call in (
        lambda: torchvision.sigmoid_focal_loss(x, t, foo=1),
        lambda: fvcore.sigmoid_focal_loss(x, t, foo=1),
        lambda: mmcv.SigmoidFocalLoss(2.0, 0.25, foo=1),
        lambda: apex.focal_loss(x, y, torch.tensor([1.0]), 3, 0.25, 2.0, foo=1),
    ):
        with pytest.raises(TypeError):
            call()


def test_transformers():
    x, t = torch.randn(2, 5, 3, requires_grad=True), torch.randint(0, 2, (2, 5, 3)).float()
    wide = x.detach().double().requires_grad_()
    for alpha in (0.25, -1):
        elements = focal(wide, t.double(), alpha, 2.0)
        for number in (4.0, 4, torch.tensor([4.0]), torch.tensor(4)):
            for function, exact in (
                (transformers.sigmoid_focal_loss, elements.mean(1).sum() / 4),
                (transformers.grounding_dino_sigmoid_focal_loss, elements.sum() / 4),
            ):
                found = function(x, t, number, alpha=alpha, gamma=2.0)
                assert found.shape == getattr(number, "shape", ()) and found.dtype == torch.float32
                torch.testing.assert_close(found.double().reshape(()), exact, rtol=1e-5, atol=0)
                (gradient,) = torch.autograd.grad(found.sum(), x)
                (slope,) = torch.autograd.grad(exact, wide, retain_graph=True)
                torch.testing.assert_close(gradient.double(), slope, rtol=1e-4, atol=1e-8)
    flat = transformers.grounding_dino_sigmoid_focal_loss(x.flatten(), t.flatten(), 4)
    torch.testing.assert_close(flat, transformers.grounding_dino_sigmoid_focal_loss(x, t, 4))
    assert transformers.sigmoid_focal_loss(x.half(), t.half(), 4).dtype == torch.float16
    with pytest.raises(ValueError, match="second axis"):
        transformers.sigmoid_focal_loss(x.flatten(), t.flatten(), 4)


# ---- timm -----------------------------------------------------------------------------------------------------------


def asymmetric(module, x, y):
    """timm 1.0.31's module, in double, without its eps."""
    y = y * (1 - module.smoothing) + module.smoothing / 2
    p = x.sigmoid()
    rest = (1 - p + (module.clip or 0)).clamp(max=1)
    factor = (1 - p * y - rest * (1 - y)) ** (module.gamma_pos * y + module.gamma_neg * (1 - y))
    factor = factor.detach() if module.disable_torch_grad_focal_loss else factor
    positive = y * p.log() * (1 if module.pos_weight is None else module.pos_weight)
    loss = -(positive + (1 - y) * rest.log()) * factor * (1 if module.weight is None else module.weight)
    divisors = {"batchmean": x.shape[0], "sum": 1, "mean": x.numel()}
    return loss if module.reduction == "none" else loss.sum() / divisors[module.reduction]


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("reduction", ["batchmean", "sum", "mean", "none"])
def test_timm(reduction, detached):
    torch.manual_seed(0)
    more = {"weight": torch.rand(9), "pos_weight": torch.rand(9)}
    for given in ({}, {"gamma_neg": 2, "gamma_pos": 0, "clip": 0.2, **more}, {"clip": None, "smoothing": 0.1}):
        module = timm.AsymmetricLossMultiLabel(**given, reduction=reduction, disable_torch_grad_focal_loss=detached)
        x, y = (3 * torch.randn(6, 9)).requires_grad_(), torch.randint(0, 2, (6, 9))
        wide = x.detach().double().requires_grad_()
        ours, theirs = module(x, y), asymmetric(module, wide, y)
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-7)
        (gradient,), (exact,) = torch.autograd.grad(ours.sum(), x), torch.autograd.grad(theirs.sum(), wide)
        torch.testing.assert_close(gradient.double(), exact, rtol=1e-5, atol=1e-7)
    assert module(x.half(), y).dtype == torch.float32


def test_timm_far_out():
    far = torch.tensor([[-30.0]], requires_grad=True)  # where the original's clamp leaves no gradient
    (gradient,) = torch.autograd.grad(timm.AsymmetricLossMultiLabel(clip=None)(far, torch.ones(1, 1)), far)
    assert gradient.item() == pytest.approx(-1)
    with pytest.raises(ValueError, match="x has shape"):
        timm.AsymmetricLossMultiLabel()(far, torch.ones(2, 1))
    with pytest.raises(ValueError, match="reduction is 'max'"):
        timm.AsymmetricLossMultiLabel(reduction="max")


# ---- apex -----------------------------------------------------------------------------------------------------------


def smoothed(x, labels, classes, alpha, gamma, smoothing):
    """apex's kernel, in double: the factor of the hard label, the cross-entropy of the smoothed one."""
    total = torch.zeros((), dtype=torch.float64)
    for row, label in zip(x.reshape(-1, x.shape[-1])[:, :classes], labels.reshape(-1).tolist()):
        for c in range(classes if label != -2 else 0):
            p, off = row[c].sigmoid(), F.softplus(-row[c])
            if c == label:
                total = total + alpha * (1 - p) ** gamma * (smoothing / 2 * row[c] + off)
            else:
                total = total + (1 - alpha) * p**gamma * ((1 - smoothing / 2) * row[c] + off)
    return total


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_label_smoothing_of_apex(smoothing):
    torch.manual_seed(0)
    x, labels = torch.randn(2, 5, 6, requires_grad=True), torch.randint(-2, 4, (2, 5))
    wide = x.detach().double().requires_grad_()
    theirs = smoothed(wide, labels, 4, 0.24, 2.0, smoothing) / 3
    for positives in (torch.tensor([3.0]), torch.tensor(3.0)):
        ours = apex.focal_loss(
            cls_output=x,
            cls_targets_at_level=labels,
            num_positive_sum=positives,
            num_real_classes=4,
            alpha=0.24,
            gamma=2.0,
            label_smoothing=smoothing,
        )
        assert ours.shape == ()
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=0)
        (gradient,) = torch.autograd.grad(ours, x)
        (exact,) = torch.autograd.grad(theirs, wide, retain_graph=True)
        torch.testing.assert_close(gradient.double(), exact, rtol=1e-4, atol=1e-7)
        assert ours == apex.FocalLoss.apply(x, labels, positives, 4, 0.24, 2.0, smoothing)
    for bad in (-3, 4):
        with pytest.raises(ValueError, match="-3|4"):
            apex.focal_loss(x, torch.where(labels == 1, bad, labels), positives, 4, 0.24, 2.0, smoothing)
    with pytest.raises(ValueError):
        apex.focal_loss(x, labels[0], positives, 4, 0.24, 2.0, smoothing)


def test_the_case_of_apexs_own_test():
    """Sums over single rows are torchvision's loss of all rows."""
    x, y = torch.randn(12, 8), torch.randint(0, 8, (12,))
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = focal(theirs, F.one_hot(y, 8).float(), 0.24, 2.0).sum()
    found = sum(
        apex.FocalLoss.apply(ours[i : i + 1], y[i : i + 1], torch.ones([]), 8, 0.24, 2.0, 0.0) for i in range(12)
    )
    torch.testing.assert_close(expected, found)
    torch.testing.assert_close(torch.autograd.grad(expected, theirs), torch.autograd.grad(found, ours))
