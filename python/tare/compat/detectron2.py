# SPDX-License-Identifier: Apache-2.0
"""detectron2: the sigmoid cross-entropy of Fast R-CNN heads, with the federated loss of LVIS, and what detectron2 takes
from fvcore.

sigmoid_cross_entropy_loss is a method: tare.patch("detectron2") puts it into FastRCNNOutputLayers, and fvcore's focal
losses into every module that has imported them.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import torch as tare
from . import NOT_A_LABEL, as_labels, check_tensors, loss_type
from .fvcore import sigmoid_focal_loss, sigmoid_focal_loss_jit, sigmoid_focal_loss_star, sigmoid_focal_loss_star_jit

__all__ = [
    "federated_loss",
    "sigmoid_cross_entropy_loss",
    "sigmoid_focal_loss",
    "sigmoid_focal_loss_jit",
    "sigmoid_focal_loss_star",
    "sigmoid_focal_loss_star_jit",
]


def federated_loss(logits: torch.Tensor, labels: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
    """Cross-entropy of each class over the number of rows (arXiv 2103.07461): logits [N, C], labels [N], C is
    background. classes: numbers of the classes that count; None: all."""
    check_tensors(logits=logits, labels=labels)
    marks = {"background_label": logits.shape[1], "ignore_label": NOT_A_LABEL}
    if classes is not None:
        counts = torch.zeros(logits.shape[1] + 1, dtype=torch.uint8, device=logits.device)
        counts[classes] = 1
        marks["class_mask"] = counts[:-1]
    loss = tare.sigmoid_ce(logits, as_labels(labels), normalizer=float(max(len(logits), 1)), **marks)
    return loss.to(loss_type(logits.device, logits.dtype))


def sigmoid_cross_entropy_loss(head: Any, pred_class_logits: torch.Tensor, gt_classes: torch.Tensor) -> torch.Tensor:
    """FastRCNNOutputLayers.sigmoid_cross_entropy_loss of logits [N, C+1], whose last column does not count, and
    gt_classes [N], where C is background."""
    if pred_class_logits.numel() == 0:
        return pred_class_logits.new_zeros([1])[0]
    classes = None
    if head.use_fed_loss:
        classes = head.get_fed_loss_classes(
            gt_classes,
            num_fed_loss_classes=head.fed_loss_num_classes,
            num_classes=pred_class_logits.shape[1] - 1,
            weight=head.fed_loss_cls_weights,
        )
    return federated_loss(pred_class_logits[:, :-1], gt_classes, classes)
