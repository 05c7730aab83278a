# SPDX-License-Identifier: Apache-2.0
"""torchvision.models.detection: the classification losses of RetinaNet and SSD, from labels.

Both are methods: tare.patch("torchvision") puts them into the classes they are named after. No one-hot targets are
formed, nothing is sorted, and nothing waits for a GPU. Differences in SSD: of background anchors with equal losses, the
first ones are hard negatives; the original's sort is not stable. And where three times an image's objects are more than
its background anchors, the original adds losses of objects a second time. Here each counts once.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .. import torch as tare
from . import NOT_A_LABEL, loss_type

_MOST = 16  # levels of a call
_IGNORED = -2


def retinanet_classification_loss(
    head: Any, targets: list[dict[str, torch.Tensor]], head_outputs: dict[str, torch.Tensor], matched_idxs: list
) -> torch.Tensor:
    """RetinaNetClassificationHead.compute_loss: the mean over images of each image's focal loss over its objects."""
    logits = head_outputs["cls_logits"]
    labels = [_labels(one["labels"], matched, -1) for one, matched in zip(targets, matched_idxs)]
    loss = logits.new_zeros((), dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32)
    for first in range(0, len(labels), _MOST):
        images = slice(first, first + _MOST)
        scope: dict[str, Any] = {"normalizer": "positives", "normalizer_scope": "level", "ignore_label": _IGNORED}
        loss = loss + tare.sigmoid_focal(list(logits[images]), labels[images], **scope)
    return (loss / max(len(targets), 1)).to(loss_type(logits.device, logits.dtype))


def _labels(classes: torch.Tensor, matched: torch.Tensor, background: int) -> torch.Tensor:
    """Labels of an image's anchors from the objects they were matched with; below -1 they are ignored."""
    if not len(classes):
        return torch.where(matched == _IGNORED, _IGNORED, background)
    labels = classes[matched.clamp(min=0)]
    return torch.where(matched >= 0, labels, torch.where(matched == _IGNORED, _IGNORED, background))


def ssd_loss(
    model: Any,
    targets: list[dict[str, torch.Tensor]],
    head_outputs: dict[str, torch.Tensor],
    anchors: list[torch.Tensor],
    matched_idxs: list[torch.Tensor],
) -> dict[str, torch.Tensor]:
    """SSD.compute_loss: softmax cross-entropy with hard negative mining, and smooth L1, over all objects."""
    logits, boxes = head_outputs["cls_logits"], head_outputs["bbox_regression"]
    of_boxes, labels, count = [], [], 0
    for one, box, anchor, matched in zip(targets, boxes, anchors, matched_idxs):
        rows = torch.where(matched >= 0)[0]
        count += len(rows)
        wanted = model.box_coder.encode_single(one["boxes"][matched[rows]], anchor[rows])
        of_boxes.append(F.smooth_l1_loss(box[rows], wanted, reduction="sum"))
        labels.append(torch.where(matched >= 0, _labels(one["labels"], matched, 0), 0))
    marks: dict[str, Any] = {"background_label": 0, "ignore_label": NOT_A_LABEL, "normalizer": "positives"}
    ratio = float(model.neg_to_pos_ratio)
    loss = tare.softmax_ce(logits, torch.stack(labels), hard_negatives=ratio, least_negatives=0, **marks)
    return {
        "bbox_regression": torch.stack(of_boxes).sum() / max(count, 1),
        "classification": loss.to(loss_type(logits.device, logits.dtype)),
    }
