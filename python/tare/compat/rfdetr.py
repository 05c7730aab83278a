# SPDX-License-Identifier: Apache-2.0
"""rfdetr.models.criterion: the classification losses of RF-DETR 1.11.

loss_labels is a method: tare.patch("rfdetr") puts it into SetCriterion. It computes every kind of loss from labels and
scores: IoU-aware cross-entropy, the default, position-supervised, varifocal and focal. What RF-DETR compiles of all
layers at once on a GPU stays its own. torchvision's differences apply. Boxes without area have an IoU of 0, not NaN.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import torch as tare
from . import check_tensors
from . import transformers as _transformers
from ._matched import focal, iou_aware, labels_of, over_boxes, overlaps_of, scores_of, typed
from .torchvision import as_rows

sigmoid_focal_loss = _transformers.sigmoid_focal_loss


def sigmoid_ce_loss(inputs: torch.Tensor, targets: torch.Tensor, num_masks: torch.Tensor | float) -> torch.Tensor:
    """The sum of the elements' cross-entropies over num_masks and the length of the second axis."""
    return _transformers.rf_detr_sigmoid_cross_entropy_loss(inputs, targets, num_masks)


def sigmoid_varifocal_loss(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    num_boxes: torch.Tensor,
    alpha: float = 0.25,
    gamma: float = 2,
) -> torch.Tensor:
    """Varifocal loss of dense targets over num_boxes and the length of the second axis; negatives weigh 1 - alpha."""
    options = {"alpha": 1 - alpha, "gamma": gamma, "modulator": "differentiated", "positives": "by-score"}
    return _dense(tare.sigmoid_varifocal, inputs, targets, num_boxes, options)


def position_supervised_loss(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    num_boxes: torch.Tensor,
    alpha: float = 0.25,
    gamma: float = 2,
) -> torch.Tensor:
    """|t-p|^gamma * CE of dense targets over num_boxes and the second axis; alpha by t > 0, and negative is off."""
    weights = None
    if alpha >= 0:
        weights = torch.where(targets > 0, alpha, 1 - alpha).to(torch.float32)
    return _dense(tare.sigmoid_quality_focal, inputs, targets, num_boxes, {"beta": gamma}, weights)


def _dense(function, inputs, targets, num_boxes, options, weights=None):
    check_tensors(inputs=inputs, targets=targets)
    if inputs.dim() < 2 or inputs.shape != targets.shape:
        raise ValueError(f"inputs have shape {tuple(inputs.shape)}, targets {tuple(targets.shape)}")
    rows = as_rows(inputs)
    if weights is not None:
        options = {**options, "element_weights": weights.reshape(rows.shape)}
    dense = targets.detach().to(torch.float64 if inputs.dtype == torch.float64 else torch.float32)
    divisor = num_boxes * max(inputs.shape[1], 1)
    loss = function(rows, targets=dense.reshape(rows.shape), normalizer=divisor, **options)
    return typed(loss, inputs.device, torch.promote_types(inputs.dtype, targets.dtype), num_boxes)


def loss_labels(
    criterion: Any,
    outputs: dict[str, Any],
    targets: list[dict[str, torch.Tensor]],
    indices: list[tuple[torch.Tensor, torch.Tensor]],
    num_boxes: torch.Tensor,
    log: bool = True,
    matched_targets: Any = None,
) -> dict[str, torch.Tensor]:
    """SetCriterion.loss_labels. Pairs with padding (`valid` of the targets is 0) are queries without an object."""
    logits, valid = outputs["pred_logits"], criterion._matched_valid_mask(targets, indices)
    if valid is not None and not criterion.ia_bce_loss:
        raise NotImplementedError("targets are padded (valid) and ia_bce_loss is False; padding needs ia_bce_loss")
    found = criterion._get_src_permutation_idx(indices)
    classes = torch.cat([target["labels"][chosen] for target, (_, chosen) in zip(targets, indices)])
    boxes = torch.cat([target["boxes"][chosen] for target, (_, chosen) in zip(targets, indices)])
    taken = classes if valid is None else torch.where(valid > 0, classes, logits.shape[2])
    labels = labels_of(logits, found, taken)
    scores = scores_of(logits, found, overlaps_of(outputs["pred_boxes"][found], boxes))
    losses = {"loss_ce": _classification(criterion, logits, labels, scores, num_boxes)}
    if log:
        losses["class_error"] = _error(logits[found].detach(), classes, valid)
    return losses


def _classification(criterion, logits, labels, scores, num_boxes):
    alpha = criterion.focal_alpha
    if criterion.ia_bce_loss:
        return iou_aware(logits, labels, scores, num_boxes, alpha)
    if criterion.use_position_supervised_loss:
        scores = scores / (scores.amax(1, True) + 1e-8)
        labels = torch.where(scores > 0, labels, logits.shape[2])
        options = {"alpha": alpha, "beta": 2.0, "scores": scores}
        return over_boxes(tare.sigmoid_quality_focal, logits, labels, num_boxes, **options)
    if criterion.use_varifocal_loss:
        options = {"alpha": 1 - alpha, "gamma": 2.0, "positives": "by-score", "scores": scores}
        return over_boxes(tare.sigmoid_varifocal, logits, labels, num_boxes, **options)
    return focal(logits, labels, num_boxes, alpha)


def _error(logits: torch.Tensor, classes: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    """The percentage of matched queries whose largest logit is not that of their class."""
    right = (logits.argmax(-1) == classes).to(logits.dtype)
    weights = torch.ones_like(right) if valid is None else valid.to(right)
    return 100 - 100 * (right * weights).sum() / weights.sum().clamp(min=1)
