# SPDX-License-Identifier: Apache-2.0
"""The losses that are compared, all of them Tare's. Alpha follows gamma as in RetinaNet's table 1b."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import tare
import tare.torch

from . import anchors

RETINANET_ALPHA = {0.0: 0.75, 0.5: 0.5, 2.0: 0.25, 5.0: 0.25}


def _focal(gamma: float, **options: Any) -> dict[str, Any]:
    return dict(name="sigmoid-focal", gamma=gamma, alpha=RETINANET_ALPHA[gamma], normalizer="positives", **options)


SETTINGS: dict[str, dict[str, Any]] = {
    "ce": dict(name="sigmoid-ce", normalizer="positives"),
    "alpha-ce": dict(name="sigmoid-ce", alpha=RETINANET_ALPHA[0.0], normalizer="positives"),
    "focal-0.5": _focal(0.5),
    "focal-2": _focal(2.0),
    "focal-5": _focal(5.0),
    "cb-focal-2": _focal(2.0, balanced=0.999),
    "poly1": dict(name="sigmoid-poly1", gamma=2.0, alpha=0.25, epsilon=1.0, normalizer="positives"),
    "ghm-c": dict(name="ghm-c", bins=30, momentum=0.75),
    "ghm-c+r": dict(name="ghm-c", bins=30, momentum=0.75, boxes="ghm-r"),
    "quality-focal": dict(name="sigmoid-quality-focal", beta=2.0, scored=True, normalizer="positives"),
    "varifocal": dict(name="sigmoid-varifocal", gamma=2.0, alpha=0.75, scored=True, normalizer="targets"),
}


class DetectionLoss(nn.Module):
    """One of SETTINGS for the classes, and smooth L1 or GHM-R for the boxes.

    counts: objects of each class in the training split, for class-balanced weights. weight: the classification loss is
    multiplied by it. state_dict() has GHM's momentum sums.
    """

    def __init__(self, key: str, counts: list[int], weight: float) -> None:
        super().__init__()
        options = dict(SETTINGS[key])
        self.weight, self.classes, self.name = weight, len(counts), options.pop("name")
        self.is_scored = options.pop("scored", False)
        self.ghm_boxes = tare.torch.nn.GHMR(momentum=0.7) if options.pop("boxes", "") == "ghm-r" else None
        beta = options.pop("balanced", None)
        if beta is not None:
            options["class_weights"] = torch.from_numpy(tare.class_balanced_weights(counts, beta)).float()
        self.options = options
        self.density = tare.torch.nn.GHMC(**options) if self.name == "ghm-c" else None

    def classification(self, logits: list[torch.Tensor], labels: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """logits: a map [B, anchors*classes, h, w] for each level. labels, scores: [B, rows]; only the losses with
        scores use these."""
        if self.density is not None:
            return self.density(logits, labels, classes=self.classes)
        extra = {"scores": scores} if self.is_scored else {}
        return tare.torch.loss(self.name, logits, labels, classes=self.classes, **self.options, **extra)

    def boxes(self, differences: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """differences, targets: [positives, 4]."""
        if self.ghm_boxes is not None:
            return 4 * self.ghm_boxes(differences, targets)
        total = nn.functional.smooth_l1_loss(differences, targets, reduction="sum", beta=1 / 9)
        return total / max(1, len(differences))


def scores_of(differences: torch.Tensor, grid: anchors.Grid, labels: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """IoU of each predicted box with its object's [B, rows], as a constant; 0 for rows without an object.
    differences, boxes: [B, rows, 4]."""
    scores = torch.zeros(labels.shape)
    image, row = torch.nonzero(labels >= 0, as_tuple=True)
    found = anchors.decode(grid.boxes[row], differences.detach()[image, row])
    scores[image, row] = anchors.overlap_of_pairs(found, boxes[image, row]).clamp(0, 1)
    return scores
