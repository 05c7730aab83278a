# SPDX-License-Identifier: Apache-2.0
"""tare.compat.mmdet in every layout: the values of mmdetection 3.3.0, whose functions are transcribed here on PyTorch's
own in double precision, or a refusal. No layout is taken for another."""

import pytest
import torch
import torch.nn.functional as F

from tare.compat import apex, fvcore, mmcv, mmdet, torchvision

EPSILON = torch.finfo(torch.float32).eps


# ---- the original, in double ----------------------------------------------------------------------------------------


def reduce_loss(loss, weight, reduction, avg_factor):
    loss = loss if weight is None else loss * weight
    if avg_factor is None:
        return {"none": lambda a: a, "sum": torch.sum, "mean": torch.mean}[reduction](loss)
    if reduction == "mean":
        return loss.sum() / (avg_factor + EPSILON)
    assert reduction == "none"
    return loss


def original_softmax(pred, label, weight, reduction, avg_factor, class_weight, ignore, avg_non_ignore):
    loss = F.cross_entropy(pred, label, class_weight, reduction="none", ignore_index=ignore)
    if avg_factor is None and avg_non_ignore and reduction == "mean":
        avg_factor = label.numel() - (label == ignore).sum().item()
    return reduce_loss(loss, weight, reduction, avg_factor)


def original_sigmoid(pred, label, weight, reduction, avg_factor, class_weight, ignore, avg_non_ignore):
    if pred.dim() != label.dim():
        valid = (label >= 0) & (label != ignore)
        hot = torch.zeros(len(label), pred.size(-1), dtype=pred.dtype)
        chosen = valid & (label < pred.size(-1))
        hot[chosen, label[chosen]] = 1
        label, mask = hot, valid.view(-1, 1).expand(len(hot), pred.size(-1)).to(pred.dtype)
        weight = mask if weight is None else weight.view(-1, 1).repeat(1, pred.size(-1)) * mask
    else:
        mask = ((label >= 0) & (label != ignore)).to(pred.dtype)
        weight = mask if weight is None else weight * mask
    if avg_factor is None and avg_non_ignore and reduction == "mean":
        avg_factor = mask.sum().item()
    loss = F.binary_cross_entropy_with_logits(pred, label.to(pred.dtype), pos_weight=class_weight, reduction="none")
    return reduce_loss(loss, weight, reduction, avg_factor)


def check(module, pred, label, weight=None, avg_factor=None, reduction="mean", ignore=None):
    """The module's loss and gradient are the original's."""
    pred = pred.detach().requires_grad_()
    wide = pred.detach().double().requires_grad_()
    classes = None if module.class_weight is None else torch.tensor(module.class_weight).double()
    number = (
        -100 if ignore is None and module.ignore_index is None else module.ignore_index if ignore is None else ignore
    )
    original = original_sigmoid if module.use_sigmoid else original_softmax
    dense = label.double() if label.is_floating_point() else label
    theirs = module.loss_weight * original(
        wide,
        dense,
        None if weight is None else weight.double(),
        reduction,
        avg_factor,
        classes,
        number,
        module.avg_non_ignore,
    )
    ours = module(pred, label, weight, avg_factor, reduction, ignore)
    torch.testing.assert_close(ours.double(), theirs, rtol=2e-6, atol=1e-7)
    above = torch.rand_like(ours)
    (gradient,) = torch.autograd.grad(ours, pred, above)
    (exact,) = torch.autograd.grad(theirs, wide, above.double())
    torch.testing.assert_close(gradient.double(), exact, rtol=1e-5, atol=1e-7)


REDUCTIONS = [("none", None), ("sum", None), ("mean", None), ("mean", 7.0)]


# ---- cross-entropy --------------------------------------------------------------------------------------------------


def test_the_examples():
    """Numbers that were wrong: ignored elements counted, and class weights on soft labels."""
    pred = torch.tensor([[0.3, -0.4], [1.2, 0.1]])
    label = torch.tensor([[1.0, -100.0], [0.0, 1.0]])
    check(mmdet.CrossEntropyLoss(use_sigmoid=True), pred, label)
    loss = mmdet.CrossEntropyLoss(use_sigmoid=True, class_weight=[3.0])(torch.tensor([[1.3]]), torch.tensor([[0.7]]))
    assert loss.item() == pytest.approx(0.968, abs=5e-4)
    exact = F.binary_cross_entropy_with_logits(torch.tensor(1.3), torch.tensor(0.7), pos_weight=torch.tensor(3.0))
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


@pytest.mark.parametrize("avg_non_ignore", [False, True])
@pytest.mark.parametrize("class_weight", [None, [0.5, 1.0, 2.0]])
@pytest.mark.parametrize("reduction, avg_factor", REDUCTIONS)
@pytest.mark.parametrize(
    "shape", [(8, 3), (3, 3), (2, 3, 4), (2, 3, 3), (3, 3, 3), (2, 3, 4, 5), (2, 3, 3, 3), (1, 3), (2, 3, 2, 2, 2)]
)
def test_softmax(shape, reduction, avg_factor, class_weight, avg_non_ignore):
    torch.manual_seed(0)
    pred = torch.randn(shape)
    losses = shape[:1] + shape[2:]
    module = mmdet.CrossEntropyLoss(class_weight=class_weight, avg_non_ignore=avg_non_ignore, loss_weight=1.5)
    for ignore in (None, 255, 1):
        label = torch.randint(0, 3, losses)
        label = torch.where(torch.rand(losses) < 0.3, -100 if ignore is None else ignore, label)
        for weight in (None, torch.rand(losses), torch.rand(1)):
            check(module, pred, label, weight, avg_factor, reduction, ignore)
    for soft in (torch.rand(shape), F.one_hot(torch.randint(0, 3, losses), 3).movedim(-1, 1).float()):
        for weight in (None, torch.rand(losses)):
            check(module, pred, soft, weight, avg_factor, reduction)
    double = pred.double()
    torch.testing.assert_close(module(double, soft.double()), module(pred, soft).double(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("avg_non_ignore", [False, True])
@pytest.mark.parametrize("class_weight", [None, [0.5, 1.0, 0.0]])
@pytest.mark.parametrize("reduction, avg_factor", REDUCTIONS)
@pytest.mark.parametrize(
    "shape", [(8, 3), (3, 3), (3,), (2, 4, 3), (2, 3, 3), (2, 3, 4, 3), (3, 3, 3, 3), (2, 2, 2, 2, 2, 3)]
)
def test_sigmoid_of_dense_labels(shape, reduction, avg_factor, class_weight, avg_non_ignore):
    torch.manual_seed(0)
    pred = torch.randn(shape)
    module = mmdet.CrossEntropyLoss(
        use_sigmoid=True, class_weight=class_weight, avg_non_ignore=avg_non_ignore, loss_weight=1.5
    )
    hard = torch.randint(0, 2, shape)
    for label in (hard, hard.float(), torch.rand(shape)):
        for ignore, marked in ((None, -100), (255, 255), (None, -1), (0, 0), (None, -0.5)):
            if label.is_floating_point() or marked != -0.5:
                mixed = torch.where(torch.rand(shape) < 0.3, marked, label).to(label.dtype)
                check(module, pred, mixed, None, avg_factor, reduction, ignore)
    weights = [torch.rand(shape), torch.rand(shape[-1:])]
    weights += [torch.rand(*shape[:-1], 1)] if len(shape) > 1 else []
    for weight in weights:
        check(module, pred, mixed.clamp(max=1), weight, avg_factor, reduction)


@pytest.mark.parametrize("reduction, avg_factor", REDUCTIONS)
@pytest.mark.parametrize("class_weight", [None, [0.5, 1.0, 2.0]])
def test_sigmoid_of_labels(class_weight, reduction, avg_factor):
    torch.manual_seed(0)
    for rows in (8, 3, 1):
        pred, label = torch.randn(rows, 3), torch.randint(-2, 5, (rows,))
        for avg_non_ignore in (False, True):
            module = mmdet.CrossEntropyLoss(use_sigmoid=True, class_weight=class_weight, avg_non_ignore=avg_non_ignore)
            for weight in (None, torch.rand(rows)):
                for ignore in (None, 1, 255):
                    check(module, pred, label, weight, avg_factor, reduction, ignore)


def test_everything_is_ignored():
    pred = torch.randn(4, 3)
    for module, label in (
        (mmdet.CrossEntropyLoss(use_sigmoid=True, avg_non_ignore=True), torch.full((4, 3), -100.0)),
        (mmdet.CrossEntropyLoss(avg_non_ignore=True), torch.full((4,), -100)),
    ):
        assert module(pred, label) == 0
        check(module, pred, label)


def test_a_layout_is_never_taken_for_another():
    """Where the original raises, or makes more losses than there are, this raises; so does what Tare cannot know."""
    softmax, sigmoid = mmdet.CrossEntropyLoss(), mmdet.CrossEntropyLoss(use_sigmoid=True)
    cases = [
        (softmax, (4, 3), (3,), None),
        (softmax, (3, 3, 5), (3, 3), None),
        (softmax, (2, 3, 4, 4), (2, 3, 4), None),
        (softmax, (3,), (), None),
        (softmax, (4, 3), (4, 1), None),
        (softmax, (2, 3, 3), (2,), None),
        (softmax, (2, 3, 4, 4), (2, 16), None),
        (softmax, (4, 3), (4,), (4, 1)),
        (softmax, (4, 3), (4,), (4, 3)),
        (softmax, (4, 3), (4,), (3,)),
        (softmax, (2, 3, 4), (2, 4), (2,)),
        (softmax, (3, 3), (3, 3), None),
        (sigmoid, (2, 3, 3), (2, 3), None),
        (sigmoid, (3, 3, 3, 3), (3, 3, 3), None),
        (sigmoid, (4, 3), (3,), None),
        (sigmoid, (4, 3), (4, 1), None),
        (sigmoid, (4, 3), (4, 3), (4,)),
        (sigmoid, (4, 3), (4, 3), (2, 4, 3)),
        (sigmoid, (4, 3), (4,), (3,)),
        (sigmoid, (2, 3, 3), (2,), None),
    ]
    for module, pred, label, weight in cases:
        weight = None if weight is None else torch.rand(weight)
        with pytest.raises(ValueError, match="labels|weight"):
            module(torch.randn(pred), torch.zeros(label, dtype=torch.int64), weight)
    with pytest.raises(ValueError, match="ignore_index is 255"):
        softmax(torch.randn(4, 3), torch.rand(4, 3), ignore_index=255)
    with pytest.raises(ValueError, match="class_weight has shape"):
        mmdet.CrossEntropyLoss(class_weight=[1.0, 2.0])(torch.randn(4, 3), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="class_weight has shape"):
        mmdet.CrossEntropyLoss(use_sigmoid=True, class_weight=[1.0] * 4)(torch.randn(2, 4, 3), torch.rand(2, 4, 3))
    with pytest.raises(TypeError, match="takes no foo"):
        softmax(torch.randn(4, 3), torch.zeros(4, dtype=torch.int64), foo=1)
    for override in ("avg", "", "Mean", False):
        with pytest.raises(ValueError, match="reduction_override"):
            softmax(torch.randn(4, 3), torch.zeros(4, dtype=torch.int64), reduction_override=override)


# ---- the other modules ----------------------------------------------------------------------------------------------


def original_focal(pred, target, weight, reduction, avg_factor, gamma=2.0, alpha=0.25):
    p = pred.sigmoid()
    target = target.to(pred.dtype)
    pt = (1 - p) * target + p * (1 - target)
    factor = (alpha * target + (1 - alpha) * (1 - target)) * pt.pow(gamma)
    loss = F.binary_cross_entropy_with_logits(pred, target, reduction="none") * factor
    if weight is not None:
        if weight.shape != loss.shape:
            weight = weight.view(-1, 1) if weight.size(0) == loss.size(0) else weight.view(loss.size(0), -1)
        assert weight.ndim == loss.ndim
    return reduce_loss(loss, weight, reduction, avg_factor)


@pytest.mark.parametrize("reduction, avg_factor", REDUCTIONS)
@pytest.mark.parametrize("shape", [(8, 3), (3, 3), (2, 3, 4), (3, 3, 3), (2, 3, 4, 5), (6,), (2, 1, 2, 1, 2, 3)])
def test_focal_loss_of_dense_targets(shape, reduction, avg_factor):
    torch.manual_seed(0)
    pred, target = torch.randn(shape), torch.randint(0, 2, shape)
    weights = [None, torch.rand(shape)]
    weights += [torch.rand(shape[:1]), torch.rand(pred.numel())] if len(shape) == 2 else []
    for weight in weights:
        asks, wide = pred.clone().requires_grad_(), pred.double().requires_grad_()
        theirs = original_focal(wide, target, None if weight is None else weight.double(), reduction, avg_factor)
        ours = mmdet.FocalLoss()(asks, target, weight, avg_factor, reduction)
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(
            torch.autograd.grad(ours.sum(), asks)[0].double(),
            torch.autograd.grad(theirs.sum(), wide)[0],
            rtol=1e-5,
            atol=1e-6,
        )


def test_focal_losses_take_no_layout_for_another():
    zeros = lambda *shape: torch.zeros(shape, dtype=torch.int64)
    cases = [
        ((3, 3, 5), (3, 3), None),
        ((2, 3, 3, 3), (2, 3, 3), None),
        ((4, 3), (3,), None),
        ((4, 3), (4, 1), None),
        ((4, 3), (4,), (3,)),
        ((4, 3), (4,), (2, 6)),
        ((2, 3, 4), (2, 3, 4), (2,)),
        ((2, 3, 4), (2, 3, 4), (24,)),
    ]
    for pred, target, weight in cases:
        with pytest.raises(ValueError, match="labels|weight"):
            mmdet.FocalLoss()(torch.randn(pred), zeros(*target), None if weight is None else torch.rand(weight))
    x, y = torch.randn(4, 3), zeros(4)
    for alpha in (-1, 1.5, float("nan")):  # no library but torchvision's has an alpha that is off
        for call in (
            lambda: mmdet.FocalLoss(alpha=alpha),
            lambda: mmcv.sigmoid_focal_loss(x, y, 2.0, alpha),
            lambda: apex.focal_loss(x, y, torch.tensor([1.0]), 3, alpha, 2.0),
        ):
            with pytest.raises(ValueError, match="alpha is"):
                call()
    with pytest.raises(ValueError, match="alpha is"):
        mmcv.softmax_focal_loss(x, y, 2.0, -1.0)
    for classes in (0, -1, 4, 2.0):
        with pytest.raises(ValueError, match="num_real_classes is"):
            apex.focal_loss(x, y, torch.tensor([1.0]), classes, 0.25, 2.0)
    with pytest.raises(ValueError, match="weight has shape"):
        mmcv.sigmoid_focal_loss(x, y, weight=torch.ones(3, 1))
    with pytest.raises(ValueError, match="weight has shape"):
        mmcv.softmax_focal_loss(x, y, weight=torch.ones(4))


def test_what_is_no_tensor_of_real_numbers():
    x, y, ones = torch.randn(4, 3), torch.zeros(4, dtype=torch.int64), torch.ones(4)
    dense, one = torch.rand(4, 3), torch.tensor([1.0])
    calls = {
        torchvision.sigmoid_focal_loss: [x, dense],
        fvcore.sigmoid_focal_loss: [x, dense],
        fvcore.sigmoid_focal_loss_star: [x, dense],
        mmcv.sigmoid_focal_loss: [x, y],
        mmcv.softmax_focal_loss: [x, y],
        mmdet.FocalLoss(): [x, y, ones],
        mmdet.CrossEntropyLoss(): [x, y, ones],
        mmdet.GHMC(): [x, y, ones],
        mmdet.CrossEntropyLoss(use_sigmoid=True): [x, dense, dense],
        mmdet.GHMR(): [x, dense, torch.ones(4, 1)],
        lambda *given: apex.focal_loss(*given, 3, 0.25, 2.0): [x, y, one],
    }
    for call, arguments in calls.items():
        assert torch.as_tensor(call(*arguments)).isfinite().all()
        for place in range(len(arguments)):
            for bad in (arguments[place].tolist(), arguments[place].numpy()):
                given = [bad if i == place else one for i, one in enumerate(arguments)]
                with pytest.raises(TypeError, match="is of type (list|ndarray); it must be a tensor"):
                    call(*given)
            if place < 2:  # a weight may be None
                given = [None if i == place else one for i, one in enumerate(arguments)]
                with pytest.raises(TypeError, match="is of type NoneType; it must be a tensor"):
                    call(*given)
            given = [one.to(torch.complex64) if i == place else one for i, one in enumerate(arguments)]
            with pytest.raises(ValueError, match="real numbers|complex64"):
                call(*given)


def test_numbers_that_are_none():
    x, y = torch.randn(6, 3), torch.randint(0, 4, (6,))
    for bad in (None, "x", 1j, [0.25]):
        for call in (
            lambda: mmcv.sigmoid_focal_loss(x, y, 2.0, bad),
            lambda: mmcv.softmax_focal_loss(x, y.clamp(max=2), 2.0, bad),
            lambda: mmdet.FocalLoss(alpha=bad),
        ):
            with pytest.raises(TypeError, match="alpha is .*; it must be a number"):
                call()
        if bad is not None:
            with pytest.raises(TypeError, match="avg_factor is .*; it must be a number"):
                mmdet.FocalLoss()(x, y, avg_factor=bad)
    with pytest.raises(TypeError, match="avg_factor is torch.complex64"):
        mmdet.FocalLoss()(x, y, avg_factor=torch.tensor(1j))
