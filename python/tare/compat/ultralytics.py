# SPDX-License-Identifier: Apache-2.0
"""ultralytics.utils.loss: VarifocalLoss, FocalLoss, DFLoss, and the cross-entropy of detection heads (YOLOv8 to
YOLO26).

tare.patch("ultralytics") replaces the three modules, and the classification loss of RT-DETR. The cross-entropy of a
YOLO head is an attribute of an object that exists only when training starts, so a line replaces it there:

    tare.compat.ultralytics.replace_bce(model.init_criterion())

Differences: float64 is computed as such; a soft target of FocalLoss is torchvision's. DFLoss leaves its target as it
is; the original clamps it in place.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import torch as tare
from . import NOT_A_LABEL, Refused, check_tensors, focal_elements, loss_type, or_original, reduce_plainly, widened
from ._bins import between_bins
from .torchvision import as_rows


def _dense(targets: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return targets.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)


def _second(tensor: torch.Tensor) -> float:
    """What mean(1).sum() divides by."""
    return float(max(tensor.shape[1], 1))


class VarifocalLoss(torch.nn.Module):
    """Varifocal loss (arXiv 2008.13367) of pred_score [B, N, C], gt_score and label (0 or 1) of its shape.

    The sum over the length of the second axis, in float32. gt_score is 0 where label is 0. A label with gt_score 0 adds
    nothing, as in the original.
    """

    def __init__(self, gamma: float = 2.0, alpha: float = 0.75) -> None:
        super().__init__()
        self.gamma, self.alpha = gamma, alpha

    def forward(self, pred_score: torch.Tensor, gt_score: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        check_tensors(pred_score=pred_score, gt_score=gt_score, label=label)
        rows = as_rows(pred_score)
        targets = _dense(gt_score, pred_score).expand(pred_score.shape)
        empty = (label > 0) & (targets <= 0)
        loss = tare.sigmoid_varifocal(
            rows,
            targets=targets.reshape(rows.shape),
            alpha=float(self.alpha),
            gamma=float(self.gamma),
            modulator="differentiated",
            positives="by-score",
            element_weights=(~empty).to(torch.float32).expand(pred_score.shape).reshape(rows.shape),
            normalizer=_second(pred_score),
        )
        return loss if pred_score.dtype == torch.float64 else loss.to(torch.float32)


class FocalLoss(torch.nn.Module):
    """Focal loss of pred [B, N, ...] and label of its shape: the sum over the length of the second axis.

    alpha: a number, or one a class in a tensor; what is not above 0 is off.
    """

    alpha: torch.Tensor

    def __init__(self, gamma: float = 1.5, alpha: float = 0.25) -> None:
        super().__init__()
        self.gamma, self.alpha = gamma, torch.as_tensor(alpha)

    def forward(self, pred: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        check_tensors(pred=pred, label=label)
        rows, alpha = as_rows(pred), -1.0
        options: dict[str, Any] = {"normalizer": _second(pred)}
        if self.alpha.dim() == 0:
            number = float(self.alpha)
            alpha = number if number > 0 else -1.0
        elif bool((self.alpha > 0).any()):
            factors = self.alpha.to(device=pred.device, dtype=torch.float32)
            weights = label * factors + (1 - label) * (1 - factors)
            options["element_weights"] = weights.reshape(rows.shape).to(torch.float32)
        loss = or_original(
            lambda: tare.sigmoid_focal(
                rows, targets=_dense(label, pred).reshape(rows.shape), gamma=self.gamma, alpha=alpha, **options
            ),
            lambda: reduce_plainly(focal_elements(pred, label, alpha, self.gamma), options),
            label,
        )
        return loss.to(loss_type(pred.device, pred.dtype, label.dtype))


class DFLoss(torch.nn.Module):
    """Distribution focal loss (arXiv 2006.04388, eq. 6) of pred_dist [4*P, reg_max] and target [P, 4], in bins.

    Targets are clamped to [0, reg_max-1.01]. Returns the mean of the four sides, [P, 1].
    """

    def __init__(self, reg_max: int = 16) -> None:
        super().__init__()
        self.reg_max = reg_max

    def forward(self, pred_dist: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        check_tensors(pred_dist=pred_dist, target=target)
        if pred_dist.dim() != 2 or len(pred_dist) != target.numel():
            raise Refused(
                f"pred_dist has shape {tuple(pred_dist.shape)} and target {tuple(target.shape)}; "
                "they are [4*P, reg_max] and [P, 4]"
            )
        flat = _dense(target, pred_dist).reshape(-1)

        def clamped() -> torch.Tensor:
            return flat.clamp(0, self.reg_max - 1 - 0.01)

        def ours() -> torch.Tensor:
            if pred_dist.shape[1] == self.reg_max:  # the loss clamps itself
                return tare.softmax_distribution_focal(pred_dist, scores=flat, delta=0.01, reduction="rows")
            return tare.softmax_distribution_focal(pred_dist, scores=clamped(), reduction="rows")

        loss = or_original(ours, lambda: between_bins(pred_dist, clamped()), flat)
        loss = loss.to(loss_type(pred_dist.device, pred_dist.dtype, target.dtype))
        return loss.reshape(target.shape).mean(-1, keepdim=True)


# ---- detection heads ------------------------------------------------------------------------------------------------


def detection_bce(
    pred_scores: torch.Tensor,
    target_scores: torch.Tensor,
    target_scores_sum: float | torch.Tensor,
    class_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """The cross-entropy of pred_scores [B, anchors, C] and target_scores of its shape over target_scores_sum.

    class_weights: [C] or of a shape that broadcasts. target_scores_sum: a number or a tensor; nothing waits for it.
    """
    check_tensors(pred_scores=pred_scores, target_scores=target_scores)
    rows = as_rows(pred_scores)
    options: dict[str, Any] = {"normalizer": target_scores_sum}
    if class_weights is not None:
        weights = class_weights.detach().to(torch.float32).expand(pred_scores.shape)
        options["element_weights"] = weights.reshape(rows.shape)
    targets = _dense(target_scores, pred_scores)

    def theirs() -> torch.Tensor:
        x = widened(pred_scores)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(x, targets.to(x.dtype), reduction="none")
        return reduce_plainly(losses, options)

    loss = or_original(
        lambda: tare.sigmoid_ce(rows, targets=targets.reshape(rows.shape), **options), theirs, target_scores
    )
    return loss.to(loss_type(pred_scores.device, pred_scores.dtype, target_scores.dtype))


class _Losses:
    """Losses of elements that nobody has asked for: a detection head multiplies them by class weights, and sums."""

    def __init__(self, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        self._given = logits, targets
        self._weights = weights

    def __mul__(self, weights: torch.Tensor) -> _Losses:
        return _Losses(*self._given, weights if self._weights is None else self._weights * weights)

    __imul__ = __mul__

    def sum(self) -> torch.Tensor:
        return detection_bce(*self._given, 1.0, self._weights)


class DetectionBCE(torch.nn.Module):
    """In the place of a detection loss's `bce`: called with (pred_scores, target_scores), it gives what has `sum()`,
    `*` and `*=`. No tensor of losses is formed."""

    def forward(self, pred_scores: torch.Tensor, target_scores: torch.Tensor) -> Any:
        check_tensors(pred_scores=pred_scores, target_scores=target_scores)
        return _Losses(pred_scores, target_scores)


def replace_bce(criterion: Any) -> Any:
    """Puts a DetectionBCE into a detection loss, and into both branches of an end-to-end one. Returns it."""
    parts = [criterion, *(getattr(criterion, name, None) for name in ("one2many", "one2one"))]
    found = [part for part in parts if isinstance(getattr(part, "bce", None), torch.nn.BCEWithLogitsLoss)]
    if not found:
        raise ValueError(f"{type(criterion).__name__} has no bce, nor have one2many and one2one")
    for part in found:
        part.bce = DetectionBCE()
    return criterion


def rt_detr_loss_class(
    criterion: Any,
    pred_scores: torch.Tensor,
    targets: torch.Tensor,
    gt_scores: torch.Tensor,
    num_gts: int,
    postfix: str = "",
) -> dict[str, torch.Tensor]:
    """DETRLoss._get_loss_class of ultralytics.models.utils.loss: varifocal, focal or cross-entropy from labels [B, N]
    (C is background) and scores [B, N]."""
    options: dict[str, Any]
    background: dict[str, Any] = {"background_label": criterion.nc, "ignore_label": NOT_A_LABEL}
    queries, divisor = max(pred_scores.shape[1], 1), float(max(num_gts, 1))
    scores = _dense(gt_scores, pred_scores).reshape(targets.shape)
    if criterion.fl and num_gts and criterion.vfl:
        options = {"alpha": float(criterion.vfl.alpha), "gamma": float(criterion.vfl.gamma), "positives": "by-label"}
        loss = tare.sigmoid_varifocal(pred_scores, targets, scores=scores, normalizer=divisor, **options, **background)
    elif criterion.fl:
        alpha = float(criterion.fl.alpha)
        options = {"alpha": alpha if alpha > 0 else -1.0, "gamma": float(criterion.fl.gamma)}
        loss = tare.sigmoid_focal(pred_scores, targets, normalizer=divisor, **options, **background)
    else:
        loss = tare.sigmoid_ce(pred_scores, targets, scores=scores, normalizer=float(queries), **background)
    return {f"loss_class{postfix}": loss * criterion.loss_gain["class"]}
