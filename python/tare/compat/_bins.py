# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy with a target between two bins, as detectors write it; by PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from . import widened


def two_hot(pred: torch.Tensor, left: torch.Tensor, of_left: torch.Tensor, of_right: torch.Tensor) -> torch.Tensor:
    """of_left*CE(left) + of_right*CE(left+1) a row of pred [N, bins]."""
    x = widened(pred)
    losses = (F.cross_entropy(x, bin, reduction="none") for bin in (left, left + 1))
    return sum(loss * weight for loss, weight in zip(losses, (of_left, of_right)))


def between_bins(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The same with l = floor(target) and the weights l+1-target and target-l."""
    left = target.long().clamp(0, max(pred.shape[1] - 2, 0))
    return two_hot(pred, left, left + 1 - target, target - left)
