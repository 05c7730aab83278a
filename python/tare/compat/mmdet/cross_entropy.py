# SPDX-License-Identifier: Apache-2.0
"""mmdetection's CrossEntropyLoss and its functions: softmax, sigmoid, and the masks of instances."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from ... import _tensors
from ... import torch as tare
from .. import NOT_A_LABEL, Refused, as_labels, check_tensors, loss_type, or_original, reduce_plainly, widened
from ._layout import (
    broadcast,
    check_dense,
    check_labels,
    chosen,
    dense_loss,
    finished,
    one_hot,
    reduction_options,
    shapes,
    weights_of,
)


def _class_weights(class_weight, pred: torch.Tensor) -> torch.Tensor | None:
    return None if class_weight is None else torch.as_tensor(class_weight, dtype=torch.float32, device=pred.device)


# ---- softmax --------------------------------------------------------------------------------------------------------


def cross_entropy(
    pred: torch.Tensor,
    label: torch.Tensor,
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
    avg_factor: float | torch.Tensor | None = None,
    class_weight: Any = None,
    ignore_index: int | None = -100,
    avg_non_ignore: bool = False,
) -> torch.Tensor:
    """Softmax cross-entropy of pred [N, C, ...] with label [N, ...], or of probabilities of pred's shape."""
    check_tensors(cls_score=pred, label=label, weight=weight)
    ignore = -100 if ignore_index is None else ignore_index
    dense = label.dim() == pred.dim()
    given = (pred.dtype, label.dtype) if dense else (pred.dtype,)
    dtype = loss_type(pred.device, *given, *([] if weight is None else [torch.float32]))
    loss = _softmax(pred, label, weight, reduction, avg_factor, class_weight, ignore, avg_non_ignore)
    return finished(loss, dtype, reduction, avg_factor)


def _softmax(pred, label, weight, reduction, avg_factor, class_weight, ignore, avg_non_ignore):
    losses, dense = pred.shape[:1] + pred.shape[2:], label.dim() == pred.dim()
    if pred.dim() < 2 or label.shape != (pred.shape if dense else losses):
        raise shapes("labels are [N, ...] beside [N, C, ...], or dense of the same shape", logits=pred, labels=label)
    factors = _class_weights(class_weight, pred)
    if factors is not None and factors.shape != (pred.shape[1],):
        raise ValueError(f"class_weight has shape {tuple(factors.shape)}; there are {pred.shape[1]} classes")
    if dense:
        _check_soft(label, ignore)
        if avg_non_ignore and reduction == "mean" and avg_factor is None:
            avg_factor = label.numel() - (label == ignore).sum()  # of elements, as there
    everything = float(max(losses.numel(), 1))
    options = reduction_options(reduction, avg_factor, "rows" if avg_non_ignore and not dense else everything)
    if weight is not None:
        options["row_weights"] = broadcast(weight, losses)
    loss = or_original(
        lambda: _softmax_rows(pred, label, ignore, factors, options),
        lambda: _plain_softmax(pred, label, ignore, factors, options),
        label,
        weight,
        factors,
    )
    return loss.reshape(losses) if reduction == "none" else loss


def _softmax_rows(pred, label, ignore, factors, options):
    dense = label.dim() == pred.dim()
    if dense and factors is not None:  # each probability times its weight, as PyTorch's cross_entropy takes them
        label = label * factors.view(-1, *[1] * (label.dim() - 2))
    if pred.dim() > 2:  # [N, C, ...] is a map of one anchor
        options = {**options, "classes": pred.shape[1]}
        pred = pred.flatten(2).unsqueeze(-1)
        label = label.flatten(2).unsqueeze(-1) if dense else label.flatten(1)
        if "row_weights" in options:
            options["row_weights"] = options["row_weights"].flatten(1)
    if dense:
        return tare.softmax_ce(pred, targets=label, **options)
    marks = {"background_label": NOT_A_LABEL, "ignore_label": ignore}
    return tare.softmax_ce(pred, as_labels(label), class_weights=factors, **marks, **options)


def _plain_softmax(pred, label, ignore, factors, options):
    wide = widened(pred)
    label = label.to(wide.dtype) if label.dim() == pred.dim() else label.long()
    factors = None if factors is None else factors.to(wide.dtype)
    losses = F.cross_entropy(wide, label, factors, reduction="none", ignore_index=ignore)
    if options.get("normalizer") == "rows":
        options = {**options, "normalizer": (label != ignore).sum().clamp(min=1)}
    return reduce_plainly(losses, options)


def _check_soft(label: torch.Tensor, ignore: int) -> None:
    if not label.is_floating_point():
        raise ValueError(f"labels of the logits' shape are probabilities, and {label.dtype} is no floating type")
    if ignore >= 0:
        raise ValueError(f"ignore_index is {ignore}; beside probabilities it must be negative: it has no meaning there")


# ---- sigmoid --------------------------------------------------------------------------------------------------------


def binary_cross_entropy(
    pred: torch.Tensor,
    label: torch.Tensor,
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
    avg_factor: float | torch.Tensor | None = None,
    class_weight: Any = None,
    ignore_index: int | None = -100,
    avg_non_ignore: bool = False,
) -> torch.Tensor:
    """Cross-entropy of each class: pred [N, C] with labels [N], or dense labels of pred's shape, whatever it is."""
    check_tensors(cls_score=pred, label=label, weight=weight)
    ignore = -100 if ignore_index is None else ignore_index
    factors = _class_weights(class_weight, pred)
    function = _binary_dense if label.dim() == pred.dim() else _binary
    loss = function(pred, label, weight, reduction, avg_factor, factors, ignore, avg_non_ignore)
    return finished(loss, loss_type(pred.device, pred.dtype, torch.float32), reduction, avg_factor)


def _binary(pred, label, weight, reduction, avg_factor, factors, ignore, avg_non_ignore):
    check_labels(pred, label)
    options, classes = weights_of(weight, pred), pred.shape[1]
    _check_factors(factors, pred)
    label = as_labels(label)
    counted = (label >= 0) & (label != ignore)
    by_class = factors is None or factors.numel() == 1 or factors.shape == (classes,)
    if not by_class or any(one is not None and one.requires_grad for one in (weight, factors)):
        elements = options.get("element_weights", options.get("row_weights"))
        if elements is not None and elements.dim() == 1:
            elements = elements.unsqueeze(1)
        targets, counted = one_hot(label, classes), counted.unsqueeze(1).expand(pred.shape)
        return _weighed(pred, targets, counted, elements, reduction, avg_factor, factors, avg_non_ignore)
    everything = float(max(pred.numel(), 1))
    options.update(reduction_options(reduction, avg_factor, "elements" if avg_non_ignore else everything))
    labels = torch.where(counted, label.clamp(max=classes), -1)  # above the classes is background too
    positives = None if factors is None else factors.expand(classes)
    marks = {"background_label": classes, "ignore_label": -1}
    return tare.sigmoid_ce(pred, labels, positive_weights=positives, **marks, **options)


def _binary_dense(pred, label, weight, reduction, avg_factor, factors, ignore, avg_non_ignore):
    check_dense(pred, label)
    _check_factors(factors, pred)
    counted = (label >= 0) & (label != ignore)
    elements = None if weight is None else broadcast(weight, pred.shape)
    return _weighed(pred, label, counted, elements, reduction, avg_factor, factors, avg_non_ignore)


def _weighed(pred, label, counted, elements, reduction, avg_factor, factors, avg_non_ignore):
    """Dense labels, of which `counted` says where they count; elements: weights that broadcast, or None."""
    if avg_non_ignore and reduction == "mean" and avg_factor is None:
        avg_factor = counted.sum()
    options = reduction_options(reduction, avg_factor, float(max(pred.numel(), 1)))
    wide = torch.float64 if torch.float64 in (pred.dtype, label.dtype) else torch.float32
    if _tensors.is_plain(pred) and bool(counted.all()):
        given = label.to(wide)
    else:
        given = torch.where(counted, label, 0).to(wide)
        elements = counted.to(torch.float32) if elements is None else torch.where(counted, elements.float(), 0)
    if elements is not None:
        options["element_weights"] = elements.expand(pred.shape)

    def theirs():
        x = widened(pred)
        losses = F.binary_cross_entropy_with_logits(x, given.to(x.dtype), pos_weight=factors, reduction="none")
        return reduce_plainly(losses, options)

    return or_original(lambda: _soft_with_factors(pred, given, factors, options), theirs, label, elements, factors)


def _soft_with_factors(pred, targets, factors, options):
    """w*t*l(x) + (1-t)*l(-x). With w of each element it is s times the cross-entropy of the target w*t/s."""
    classes = pred.shape[-1] if pred.dim() > 1 else 1
    if factors is not None and factors.numel() in (1, classes) and factors.shape[-1:] in ((), (1,), (classes,)):
        weights = factors.reshape(-1).expand(classes).contiguous()
        options = {**options, "positive_weights": weights, "weighting": "terms"}
    elif factors is not None:
        product, beyond = factors * targets, targets > 1  # Tare tells those from the others
        sums = product + (1 - targets)
        weights = torch.where(beyond, 1, sums)
        if "element_weights" in options:
            weights = weights * options["element_weights"]
        options = {**options, "element_weights": weights}
        targets = torch.where(beyond, targets, torch.where(product == 0, 0, product / sums))
    return dense_loss(tare.sigmoid_ce, pred, targets, options)


def _check_factors(factors: torch.Tensor | None, pred: torch.Tensor) -> None:
    """class_weight weighs positives, and broadcasts to the logits."""
    if factors is None:
        return
    try:
        factors.broadcast_to(pred.shape)
    except RuntimeError:
        raise ValueError(f"class_weight has shape {tuple(factors.shape)}; there are {pred.shape[-1]} classes") from None


# ---- masks ----------------------------------------------------------------------------------------------------------


def mask_cross_entropy(
    pred: torch.Tensor,
    target: torch.Tensor,
    label: torch.Tensor,
    reduction: str = "mean",
    avg_factor: float | torch.Tensor | None = None,
    class_weight: Any = None,
    ignore_index: int | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """Mean sigmoid cross-entropy, of shape [1], of the mask of each row's class: pred [N, C, ...], target [N, ...],
    label [N]. class_weight broadcasts to the masks. Other keywords have no effect, as in the original."""
    if ignore_index is not None:
        raise Refused(f"ignore_index is {ignore_index}; a loss of masks has none")
    if reduction != "mean" or avg_factor is not None:
        raise Refused(f"reduction is {reduction!r}, avg_factor {avg_factor}; a loss of masks has 'mean' and None alone")
    check_tensors(pred=pred, target=target, label=label)
    if pred.dim() < 2 or label.shape != pred.shape[:1]:
        raise shapes("masks are [N, C, ...] beside labels [N]", masks=pred, labels=label)
    masks = pred[torch.arange(len(pred), device=pred.device), label.long()]
    if masks.dim() > 1 and masks.shape[1] == 1 and target.shape == masks.squeeze(1).shape:
        masks = masks.squeeze(1)
    if target.shape != masks.shape:
        raise shapes("targets are [N, ...] beside [N, C, ...]", masks=pred, targets=target)
    options = reduction_options("mean", None, float(max(masks.numel(), 1)))
    factors = _class_weights(class_weight, pred)
    if factors is not None:
        options["element_weights"] = broadcast(factors, masks.shape)
    wide = widened(masks)

    def theirs():
        losses = F.binary_cross_entropy_with_logits(wide, target.to(wide.dtype), reduction="none")
        return reduce_plainly(losses, options)

    loss = or_original(lambda: dense_loss(tare.sigmoid_ce, masks, target, options), theirs, target, factors)
    return loss.to(loss_type(pred.device, pred.dtype, target.dtype)).reshape(1)


class CrossEntropyLoss(torch.nn.Module):
    """Softmax cross-entropy; or sigmoid (labels of C and more are background, negative ones ignored); or, by use_mask,
    mask_cross_entropy, called with masks, targets and labels.

    Softmax: cls_score [N, C] or [N, C, ...] with label [N] or [N, ...], or dense, floating, of cls_score's shape;
    weight of the labels' shape. Sigmoid: [N, C] with label [N] and weight [N] or [N, C]; or dense of any shape, of
    which negative elements and ignore_index are ignored, and a weight that broadcasts. class_weight multiplies the
    losses of a class, in sigmoid those of its positives. reduction "mean" divides by avg_factor, else by all losses;
    with avg_non_ignore by those that are not ignored."""

    def __init__(
        self,
        use_sigmoid: bool = False,
        use_mask: bool = False,
        reduction: str = "mean",
        class_weight: Any = None,
        ignore_index: int | None = None,
        loss_weight: float = 1.0,
        avg_non_ignore: bool = False,
    ) -> None:
        super().__init__()
        if use_sigmoid is not False and use_mask is not False:
            raise Refused(f"use_sigmoid is {use_sigmoid!r} and use_mask {use_mask!r}; one of them must be False")
        self.use_sigmoid, self.use_mask, self.reduction = use_sigmoid, use_mask, reduction
        self.class_weight, self.loss_weight = class_weight, loss_weight
        self.ignore_index, self.avg_non_ignore = ignore_index, avg_non_ignore
        softmax_or_mask = mask_cross_entropy if use_mask else cross_entropy
        self.cls_criterion = binary_cross_entropy if use_sigmoid else softmax_or_mask

    def extra_repr(self) -> str:
        return f"avg_non_ignore={self.avg_non_ignore}"

    def forward(
        self,
        cls_score: torch.Tensor,
        label: torch.Tensor,
        weight: torch.Tensor | None = None,
        avg_factor: float | torch.Tensor | None = None,
        reduction_override: str | None = None,
        ignore_index: int | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        reduction = chosen(reduction_override, self.reduction)
        if kwargs and not self.use_mask:
            raise TypeError(f"CrossEntropyLoss takes no {', '.join(kwargs)}")
        return self.loss_weight * self.cls_criterion(
            cls_score,
            label,
            weight,
            class_weight=self.class_weight,
            reduction=reduction,
            avg_factor=avg_factor,
            ignore_index=self.ignore_index if ignore_index is None else ignore_index,
            avg_non_ignore=self.avg_non_ignore,
            **kwargs,
        )
