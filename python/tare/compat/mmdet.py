# SPDX-License-Identifier: Apache-2.0
"""mmdet.models.losses: FocalLoss, CrossEntropyLoss, GHMC and GHMR, as of mmdetection 3.

avg_factor may be a tensor on the logits' device; nothing waits for it. A layout that the original would refuse or
confuse with another is refused. Differences: `activated` (probabilities instead of logits), `use_mask`, alpha outside
[0,1] and, in GHM, reductions other than "mean" are refused. GHM's momentum sums are in `state`, which is not a buffer
(see tare.torch.GHMC), instead of the buffer `acc_sum`. With class labels, its label_weight has one value a row.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .. import _checks
from .. import torch as tare
from . import NOT_A_LABEL, check_tensors, focal_elements, or_original, reduce_plainly, reduced, torchvision, widened

_EPSILON = torch.finfo(torch.float32).eps


def _chosen(override: str | None, reduction: str) -> str:
    if override not in (None, "none", "mean", "sum"):
        raise ValueError(f"reduction_override is {override!r}; it is one of: None, none, mean, sum")
    return override or reduction


def _reduction(reduction, avg_factor, mean):
    """What mmdetection's weight_reduce_loss does: avg_factor, if any, instead of the mean's divisor."""
    if avg_factor is None or reduction == "none":
        return reduced(reduction, mean)
    if reduction == "sum":
        raise ValueError("avg_factor is given with reduction 'sum'; it goes with 'mean'")
    if isinstance(avg_factor, torch.Tensor):
        check_tensors(avg_factor=avg_factor)
    elif not isinstance(avg_factor, (int, float)):
        avg_factor = _checks.number("avg_factor", avg_factor)
    return reduced(reduction, avg_factor + _EPSILON)


def _shapes(wanted: str, **tensors: torch.Tensor) -> ValueError:
    shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
    return ValueError(f"{shapes}; {wanted}")


def _check_labels(pred: torch.Tensor, label: torch.Tensor) -> None:
    if pred.dim() != 2 or label.shape != pred.shape[:1]:
        raise _shapes(
            "labels are [N] beside [N, C], dense ones have the shape of the logits", logits=pred, labels=label
        )


def _check_dense(pred: torch.Tensor, label: torch.Tensor) -> None:
    if label.shape != pred.shape:
        raise _shapes("dense labels have the shape of the logits", logits=pred, labels=label)


def _check_alpha(alpha: float) -> None:
    if not 0 <= _checks.number("alpha", alpha) <= 1:
        raise ValueError(f"alpha is {alpha}; it must be in [0,1]")


def _weights(weight, pred):
    """Weights [N], [N, 1], [N, C] or flat beside logits [N, C], or of their shape, as the keywords they are."""
    if weight is None:
        return {}
    if weight.shape == pred.shape:
        return {"element_weights": weight}
    if pred.dim() != 2:
        raise _shapes("a weight of more than two axes has the shape of the logits", weight=weight, logits=pred)
    if weight.shape == pred.shape[:1] or weight.shape == (len(pred), 1):
        return {"row_weights": weight.reshape(-1)}
    if weight.shape != (pred.numel(),):
        raise _shapes("it is [N], [N, 1], [N, C] or flat", weight=weight, logits=pred)
    return {"element_weights": weight.reshape(pred.shape)}


def _broadcast(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A weight as loss * weight takes it, but never one that makes more losses than there are."""
    try:
        return weight.broadcast_to(shape)
    except RuntimeError:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; the losses have {tuple(shape)}") from None


def _labels(target, classes, ignore_index=None):
    """Labels with negative values and ignore_index as -1. Values above the classes are background too."""
    ignored = target < 0 if ignore_index is None else (target < 0) | (target == ignore_index)
    return torch.where(ignored, -1, target.clamp(max=classes))


class FocalLoss(torch.nn.Module):
    """Sigmoid focal loss. Called with pred [N, C] and target [N] (C is background), or with dense targets of the shape
    of pred, whatever it is; weight [N], [N, C] or flat, beside more axes of pred's shape. reduction "mean" divides by
    avg_factor, else by all elements."""

    def __init__(self, use_sigmoid=True, gamma=2.0, alpha=0.25, reduction="mean", loss_weight=1.0, activated=False):
        super().__init__()
        if not use_sigmoid or activated:
            raise ValueError("use_sigmoid must be True and activated False: Tare takes logits")
        _check_alpha(alpha)
        self.use_sigmoid, self.activated = use_sigmoid, activated
        self.gamma, self.alpha, self.reduction, self.loss_weight = gamma, alpha, reduction, loss_weight

    def forward(self, pred, target, weight=None, avg_factor=None, reduction_override=None):
        check_tensors(pred=pred, target=target, weight=weight)
        options = {"gamma": self.gamma, "alpha": self.alpha, **_weights(weight, pred)}
        reduction = _chosen(reduction_override, self.reduction)
        options.update(_reduction(reduction, avg_factor, float(max(pred.numel(), 1))))
        if target.dim() == pred.dim():
            _check_dense(pred, target)
            return self.loss_weight * or_original(
                lambda: _dense(tare.sigmoid_focal, pred, target, options),
                lambda: reduce_plainly(focal_elements(pred, target, self.alpha, self.gamma), options),
            )
        _check_labels(pred, target)
        classes = pred.shape[1]
        labels = torch.where(target < 0, classes, target)  # as in mmcv
        return self.loss_weight * tare.sigmoid_focal(
            pred, labels, background_label=classes, ignore_label=NOT_A_LABEL, **options
        )


def _dense(loss, pred, target, options):
    """A sigmoid loss of dense targets, of any shape."""
    rows = torchvision.as_rows(pred)
    if "element_weights" in options:
        options = {**options, "element_weights": options["element_weights"].reshape(rows.shape)}
    result = loss(rows, targets=target.to(torch.float32).reshape(rows.shape), **options)
    return result.reshape(pred.shape) if options.get("reduction") == "none" else result


class CrossEntropyLoss(torch.nn.Module):
    """Softmax cross-entropy, or sigmoid (labels of C and more are background, negative ones ignored).

    Softmax: cls_score [N, C] or [N, C, ...] with label [N] or [N, ...], or dense, floating, of cls_score's shape;
    weight of the labels' shape. Sigmoid: [N, C] with label [N] and weight [N] or [N, C]; or dense of any shape, of
    which negative elements and ignore_index are ignored, and a weight that broadcasts. class_weight multiplies the
    losses of a class, in sigmoid those of its positives. reduction "mean" divides by avg_factor, else by all losses;
    with avg_non_ignore by those that are not ignored."""

    def __init__(
        self,
        use_sigmoid=False,
        use_mask=False,
        reduction="mean",
        class_weight=None,
        ignore_index=None,
        loss_weight=1.0,
        avg_non_ignore=False,
    ):
        super().__init__()
        if use_mask:
            raise ValueError("use_mask must be False: Tare has no mask loss")
        self.use_sigmoid, self.use_mask, self.reduction = use_sigmoid, use_mask, reduction
        self.class_weight, self.loss_weight = class_weight, loss_weight
        self.ignore_index, self.avg_non_ignore = ignore_index, avg_non_ignore

    def forward(
        self, cls_score, label, weight=None, avg_factor=None, reduction_override=None, ignore_index=None, **kwargs
    ):
        if kwargs:
            raise TypeError(f"CrossEntropyLoss takes no {', '.join(kwargs)}")
        check_tensors(cls_score=cls_score, label=label, weight=weight)
        ignore = self.ignore_index if ignore_index is None else ignore_index
        ignore = -100 if ignore is None else ignore
        reduction, weights = _chosen(reduction_override, self.reduction), None
        if self.class_weight is not None:
            weights = torch.as_tensor(self.class_weight, dtype=torch.float32, device=cls_score.device)
        sigmoid = self._sigmoid_dense if label.dim() == cls_score.dim() else self._sigmoid
        loss = sigmoid if self.use_sigmoid else self._softmax
        return self.loss_weight * loss(cls_score, label, ignore, weights, reduction, avg_factor, weight)

    def _softmax(self, pred, label, ignore, weights, reduction, avg_factor, weight):
        losses = pred.shape[:1] + pred.shape[2:]
        dense = label.dim() == pred.dim()
        if pred.dim() < 2 or label.shape != (pred.shape if dense else losses):
            raise _shapes(
                "labels are [N, ...] beside [N, C, ...], or dense of the same shape", logits=pred, labels=label
            )
        _check_class_weight(weights, pred.shape[1])
        everything = float(max(losses.numel(), 1))
        if dense and self.avg_non_ignore and reduction == "mean" and avg_factor is None:
            avg_factor = label.numel() - (label == ignore).sum()  # of elements, as there
        options = _reduction(reduction, avg_factor, "rows" if self.avg_non_ignore and not dense else everything)
        if weight is not None:
            options["row_weights"] = _broadcast(weight, losses)
        if pred.dim() > 2:  # [N, C, ...] is a map of one anchor
            pred, options["classes"] = pred.flatten(2).unsqueeze(-1), pred.shape[1]
            label = label.flatten(2).unsqueeze(-1) if dense else label.flatten(1)
            if weight is not None:
                options["row_weights"] = options["row_weights"].flatten(1)
        if dense:
            targets = _soft(label, ignore, weights)
            loss = or_original(
                lambda: tare.softmax_ce(pred, targets=targets, **options),
                lambda: reduce_plainly(-(targets * widened(pred).log_softmax(1)).sum(1), options),
            )
        else:
            loss = tare.softmax_ce(
                pred, label, class_weights=weights, background_label=NOT_A_LABEL, ignore_label=ignore, **options
            )
        return loss.reshape(losses) if reduction == "none" else loss

    def _sigmoid(self, pred, label, ignore, weights, reduction, avg_factor, weight):
        _check_labels(pred, label)
        classes, everything = pred.shape[1], float(max(pred.numel(), 1))
        _check_class_weight(weights, classes)
        options = _weights(weight, pred)
        options.update(_reduction(reduction, avg_factor, "elements" if self.avg_non_ignore else everything))
        return tare.sigmoid_ce(
            pred,
            _labels(label, classes, ignore),
            positive_weights=weights,
            background_label=classes,
            ignore_label=-1,
            **options,
        )

    def _sigmoid_dense(self, pred, label, ignore, weights, reduction, avg_factor, weight):
        _check_dense(pred, label)
        _check_class_weight(weights, pred.shape[-1])
        counted = (label >= 0) & (label != ignore)
        if self.avg_non_ignore and reduction == "mean" and avg_factor is None:
            avg_factor = counted.sum()
        options = _reduction(reduction, avg_factor, float(max(pred.numel(), 1)))
        given = torch.where(counted, label, 0).to(torch.float32)
        elements = counted.to(torch.float32)
        if weight is not None:
            elements = torch.where(counted, _broadcast(weight, pred.shape).to(torch.float32), 0)

        def ours():
            targets, factors = given, elements
            if weights is not None:  # w*t*l(x) + (1-t)*l(-x) is s times the cross-entropy of the target w*t/s
                product, beyond = weights * targets, targets > 1  # Tare tells those from the others
                sums = product + (1 - targets)
                factors = torch.where(beyond, elements, elements * sums)
                targets = torch.where(beyond, targets, torch.where(product == 0, 0, product / sums))
            return _dense(tare.sigmoid_ce, pred, targets, {**options, "element_weights": factors})

        def theirs():
            wide = widened(pred)
            losses = F.binary_cross_entropy_with_logits(
                wide, given.to(wide.dtype), pos_weight=weights, reduction="none"
            )
            return reduce_plainly(losses, {**options, "element_weights": elements})

        return or_original(ours, theirs)


def _check_class_weight(weights: torch.Tensor | None, classes: int) -> None:
    if weights is not None and weights.shape != (classes,):
        raise ValueError(f"class_weight has shape {tuple(weights.shape)}; there are {classes} classes")


def _soft(label: torch.Tensor, ignore: int, weights: torch.Tensor | None) -> torch.Tensor:
    """Probabilities of classes, each times its weight, as PyTorch's cross_entropy takes them."""
    if not label.is_floating_point():
        raise ValueError(f"labels of the logits' shape are probabilities, and {label.dtype} is no floating type")
    if ignore >= 0:
        raise ValueError(f"ignore_index is {ignore}; beside probabilities it must be negative: it has no meaning there")
    return label if weights is None else label * weights.view(-1, *[1] * (label.dim() - 2))


def _only_mean(reduction):
    if reduction != "mean":
        raise ValueError(f"reduction is '{reduction}'; a GHM loss has its own divisor and takes 'mean' alone")


class GHMC(tare.GHMC):
    """GHM-C as mmdetection computes it (not as the paper has it: see variant in the C header). Called with pred [N, C],
    target [N] (0..C-1; anything else is background) and label_weight [N]; or dense, of any shape, with a label_weight
    that broadcasts to it. Where label_weight is 0 an element is ignored. Its other values have no effect, as in the
    original."""

    def __init__(self, bins=10, momentum=0, use_sigmoid=True, loss_weight=1.0, reduction="mean"):
        super().__init__(bins, momentum, variant="mmdet")
        if not use_sigmoid:
            raise NotImplementedError("use_sigmoid must be True")
        self.use_sigmoid, self.loss_weight, self.reduction = use_sigmoid, loss_weight, reduction

    def forward(self, pred, target, label_weight, reduction_override=None, **kwargs):
        check_tensors(pred=pred, target=target, label_weight=label_weight)
        _only_mean(_chosen(reduction_override, self.reduction))
        if target.dim() == pred.dim():
            _check_dense(pred, target)
            return self.loss_weight * super().forward(
                pred.reshape(-1, 1), targets=_column(target), row_weights=_mask(label_weight, pred)
            )
        _check_labels(pred, target)
        if label_weight.numel() != len(pred):
            raise _shapes("beside labels it is [N]", label_weight=label_weight, logits=pred)
        classes = pred.shape[1]
        labels = torch.where(target < 0, classes, target.clamp(max=classes))
        return self.loss_weight * super().forward(
            pred, labels, row_weights=label_weight.reshape(-1), background_label=classes, ignore_label=NOT_A_LABEL
        )


def _column(dense: torch.Tensor) -> torch.Tensor:
    """Elements as rows of one class: GHM's counts know no rows, and a mask is of rows."""
    return dense.to(torch.float32).reshape(-1, 1)


def _mask(label_weight: torch.Tensor, pred: torch.Tensor) -> torch.Tensor:
    """label_weight as one weight an element. One of rows, [N], may stand beside [N, C] if it cannot be meant for
    columns; the original takes it for these."""
    if pred.dim() == 2 and label_weight.shape == pred.shape[:1] != pred.shape[1:]:
        label_weight = label_weight.unsqueeze(1)
    return _broadcast(label_weight, pred.shape).reshape(-1)


class GHMR(tare.GHMR):
    """GHM-R as mmdetection computes it. Called with pred and target of one shape, [N, 4], and a label_weight that
    broadcasts to it, where 0 is ignored. avg_factor is not used, as in the original."""

    def __init__(self, mu=0.02, bins=10, momentum=0, loss_weight=1.0, reduction="mean"):
        super().__init__(mu, bins, momentum, variant="mmdet")
        self.loss_weight, self.reduction = loss_weight, reduction

    def forward(self, pred, target, label_weight, avg_factor=None, reduction_override=None):
        check_tensors(pred=pred, target=target, label_weight=label_weight)
        _only_mean(_chosen(reduction_override, self.reduction))
        if target.shape != pred.shape:
            raise _shapes("they must be of one shape", pred=pred, target=target)
        target = target if target.is_floating_point() else target.to(torch.float32)
        return self.loss_weight * super().forward(
            pred.reshape(-1, 1), target.reshape(-1, 1), row_weights=_mask(label_weight, pred)
        )
