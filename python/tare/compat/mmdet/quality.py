# SPDX-License-Identifier: Apache-2.0
"""mmdetection's QualityFocalLoss and VarifocalLoss: cross-entropy with scores."""

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
    row_options,
    types_of,
)

Target = Any  # a tensor, or a pair of labels and scores


def _quality(p: torch.Tensor, losses: torch.Tensor, target: torch.Tensor, beta: float) -> torch.Tensor:
    return losses * (target - p).abs().pow(beta)


class QualityFocalLoss(torch.nn.Module):
    """Quality focal loss (arXiv 2006.04388): |t-p|^beta * CE, summed over the classes of a row.

    Called with pred [N, C] and target (labels [N], scores [N]), where C and negative labels are background; or with
    dense targets of pred's shape [N, C, ...]. weight [N]. reduction "mean" divides by avg_factor, else by all rows.
    activated: pred are probabilities, and PyTorch computes the loss.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        beta: float = 2.0,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None:
        super().__init__()
        if use_sigmoid is not True:
            raise Refused(f"use_sigmoid is {use_sigmoid!r}; it must be True: there is sigmoid quality focal loss alone")
        self.use_sigmoid, self.activated = use_sigmoid, activated
        self.beta, self.reduction, self.loss_weight = beta, reduction, loss_weight

    def forward(
        self,
        pred: torch.Tensor,
        target: Target,
        weight: torch.Tensor | None = None,
        avg_factor: float | torch.Tensor | None = None,
        reduction_override: str | None = None,
    ) -> torch.Tensor:
        reduction = chosen(reduction_override, self.reduction)
        dense = isinstance(target, torch.Tensor)
        if not dense and len(target) != 2:
            raise Refused(f"target has {len(target)} parts; it must be (labels, scores), or a tensor")
        given = {"target": target} if dense else {"label": target[0], "score": target[1]}
        check_tensors(pred=pred, weight=weight, **given)
        loss = (self._dense if dense else self._scored)(pred, target, weight, reduction, avg_factor)
        return self.loss_weight * loss

    def _scored(self, pred, target, weight, reduction, avg_factor):
        label, score = as_labels(target[0]), target[1]
        check_labels(pred, label)
        classes, dtype = pred.shape[1], loss_type(pred.device, pred.dtype, *types_of(weight))
        label = torch.where((label < 0) | (label > classes), classes, label)
        options = row_options(weight, reduction, avg_factor, label.shape)
        marks = {"background_label": classes, "ignore_label": NOT_A_LABEL}

        def theirs():
            hot = one_hot(label, classes)
            return self._plain(pred, score.unsqueeze(1) * hot, options)

        def ours():
            scores = score.to(_tensors.wide(pred.dtype))
            return tare.sigmoid_quality_focal(pred, label, scores=scores, beta=self.beta, **marks, **options)

        loss = theirs() if self.activated else or_original(ours, theirs, score, weight)
        return finished(loss, dtype, reduction, avg_factor)

    def _dense(self, pred, target, weight, reduction, avg_factor):
        check_dense(pred, target)
        if pred.dim() < 2:
            raise Refused(f"pred has shape {tuple(pred.shape)}; it is [N, C, ...]")
        dtype = loss_type(pred.device, pred.dtype, *types_of(weight))
        options = row_options(weight, reduction, avg_factor, pred.shape[:1] + pred.shape[2:])

        def ours():
            x, t = (one.movedim(1, -1) for one in (pred, target.to(_tensors.wide(pred.dtype))))
            return tare.sigmoid_quality_focal(x, targets=t, beta=self.beta, **options)

        def theirs():
            return self._plain(pred, target, options)

        loss = theirs() if self.activated else or_original(ours, theirs, target, weight)
        return finished(loss, dtype, reduction, avg_factor)

    def _plain(self, pred, target, options):
        """The original's formula, of logits or of probabilities."""
        x, target = widened(pred), target.to(widened(pred).dtype)
        if self.activated:
            losses = _quality(x, F.binary_cross_entropy(x, target, reduction="none"), target, self.beta)
        else:
            losses = F.binary_cross_entropy_with_logits(x, target, reduction="none")
            losses = _quality(x.sigmoid(), losses, target, self.beta)
        plain = {**options, "reduction": "none"} if "reduction" in options else options
        return reduce_plainly(losses.sum(1), plain)


class VarifocalLoss(torch.nn.Module):
    """Varifocal loss (arXiv 2008.13367). Called with pred and dense targets of its shape, the scores of the labels'
    elements, and a weight that broadcasts. reduction "mean" divides by avg_factor, else by all elements. With
    iou_weighted=False positives weigh 1, and PyTorch computes the loss."""

    def __init__(
        self,
        use_sigmoid: bool = True,
        alpha: float = 0.75,
        gamma: float = 2.0,
        iou_weighted: bool = True,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if use_sigmoid is not True or not alpha >= 0:
            raise Refused(f"use_sigmoid is {use_sigmoid!r} and alpha {alpha}; they must be True, and 0 or more")
        self.use_sigmoid, self.iou_weighted = use_sigmoid, iou_weighted
        self.alpha, self.gamma, self.reduction, self.loss_weight = alpha, gamma, reduction, loss_weight

    def forward(
        self,
        pred: torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor | None = None,
        avg_factor: float | torch.Tensor | None = None,
        reduction_override: str | None = None,
    ) -> torch.Tensor:
        reduction = chosen(reduction_override, self.reduction)
        check_tensors(pred=pred, target=target, weight=weight)
        check_dense(pred, target)
        options = reduction_options(reduction, avg_factor, float(max(pred.numel(), 1)))
        if weight is not None:
            options["element_weights"] = broadcast(weight, pred.shape).to(torch.float32)
        parameters = {"alpha": self.alpha, "gamma": self.gamma, "positives": "by-score"}

        def theirs():
            x = widened(pred)
            t = target.to(x.dtype)
            positive = t if self.iou_weighted else torch.ones_like(t)
            factor = torch.where(t > 0, positive, self.alpha * (x.sigmoid() - t).abs().pow(self.gamma))
            return reduce_plainly(F.binary_cross_entropy_with_logits(x, t, reduction="none") * factor, options)

        def ours():
            return dense_loss(tare.sigmoid_varifocal, pred, target, {**parameters, **options})

        loss = or_original(ours, theirs, target, weight) if self.iou_weighted else theirs()
        return self.loss_weight * finished(
            loss, loss_type(pred.device, pred.dtype, *types_of(weight)), reduction, avg_factor
        )
