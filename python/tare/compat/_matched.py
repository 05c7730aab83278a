# SPDX-License-Identifier: Apache-2.0
"""What the criteria of DETR's kin share: labels and scores of matched queries, and a loss over a number of boxes."""

from __future__ import annotations

from typing import Any

import torch

from .. import torch as tare
from . import NOT_A_LABEL, loss_type

Indices = tuple[torch.Tensor, torch.Tensor]  # images, and queries in them


def labels_of(logits: torch.Tensor, indices: Indices, classes: torch.Tensor) -> torch.Tensor:
    """Labels [images, queries] beside logits [images, queries, C]; C is background."""
    labels = torch.full(logits.shape[:2], logits.shape[2], dtype=torch.int64, device=logits.device)
    labels[indices] = classes.to(device=logits.device, dtype=torch.int64)
    return labels


def scores_of(logits: torch.Tensor, indices: Indices, overlaps: torch.Tensor) -> torch.Tensor:
    """Scores [images, queries] in the type that the loss is computed in; 0 where nothing is matched."""
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    scores = torch.zeros(logits.shape[:2], dtype=wide, device=logits.device)
    scores[indices] = overlaps.to(scores)
    return scores


def overlaps_of(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """IoU of each pair of boxes [N, 4], as centre and extent, at least in float32. Two points have 0, not NaN."""
    wide = torch.float64 if boxes.dtype == torch.float64 else torch.float32
    boxes, others = boxes.detach().to(wide), others.detach().to(device=boxes.device, dtype=wide)
    low = torch.maximum(boxes[:, :2] - boxes[:, 2:] / 2, others[:, :2] - others[:, 2:] / 2)
    high = torch.minimum(boxes[:, :2] + boxes[:, 2:] / 2, others[:, :2] + others[:, 2:] / 2)
    common = (high - low).clamp(min=0).prod(1)
    union = boxes[:, 2:].prod(1) + others[:, 2:].prod(1) - common
    return common / union.clamp(min=torch.finfo(wide).tiny)


def over_boxes(function: Any, logits: torch.Tensor, labels: torch.Tensor, num_boxes: Any, **options: Any) -> Any:
    """The sum of a sigmoid loss over num_boxes, a number or a tensor, in the type that the original has."""
    marks = {"background_label": logits.shape[2], "ignore_label": NOT_A_LABEL}
    loss = function(logits, labels, normalizer=num_boxes, **marks, **options)
    return typed(loss, logits.device, loss_type(logits.device, logits.dtype), num_boxes)


def typed(loss: torch.Tensor, device: torch.device, dtype: torch.dtype, num_boxes: Any) -> torch.Tensor:
    if isinstance(num_boxes, torch.Tensor):
        dtype = torch.result_type(torch.zeros((), dtype=dtype, device=device), num_boxes)
        loss = loss.reshape(num_boxes.shape)
    return loss.to(dtype)


def focal(logits: torch.Tensor, labels: torch.Tensor, num_boxes: Any, alpha: float, gamma: float = 2.0) -> Any:
    return over_boxes(tare.sigmoid_focal, logits, labels, num_boxes, alpha=alpha, gamma=gamma)


def iou_aware(
    logits: torch.Tensor, labels: torch.Tensor, scores: torch.Tensor, num_boxes: Any, alpha: float
) -> torch.Tensor:
    options = {"scores": scores, "gamma": 2.0, "p_exponent": alpha}
    return over_boxes(tare.sigmoid_iou_aware, logits, labels, num_boxes, **options)
