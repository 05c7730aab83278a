# SPDX-License-Identifier: Apache-2.0
"""apex.contrib.focal_loss.focal_loss: focal_loss, and FocalLoss with its `apply`.

Differences: backward may run twice; bfloat16 and the CPU work; any number of classes and any alignment work; labels may
be of any integer type. With label_smoothing PyTorch computes the loss: the cross-entropy has smoothed targets, and the
factor before it has those of the labels.
"""

import torch
import torch.nn.functional as F

from .. import _checks, _tensors
from .. import torch as tare
from . import Refused, as_labels, check_tensors, widened


def focal_loss(
    cls_output: torch.Tensor,
    cls_targets_at_level: torch.Tensor,
    num_positive_sum: torch.Tensor,
    num_real_classes: int,
    alpha: float,
    gamma: float,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Sum of the sigmoid focal loss over num_positive_sum (also if that is 0), a float32 scalar.

    cls_output: [..., classes]; classes from num_real_classes on are padding. cls_targets_at_level: [...], a
    class, -1 for background, -2 for ignored. num_positive_sum: a tensor with one element. label_smoothing s moves the
    targets 0 and 1 of the cross-entropy to s/2 and 1 - s/2.
    """
    check_tensors(cls_output=cls_output, cls_targets_at_level=cls_targets_at_level, num_positive_sum=num_positive_sum)
    label_smoothing = _checks.number("label_smoothing", label_smoothing)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it must be in [0,1]: apex has none that is off")
    num_real_classes = _checks.integer("num_real_classes", num_real_classes, 1, cls_output.shape[-1])
    if num_positive_sum.numel() != 1:
        raise Refused(f"num_positive_sum has shape {tuple(num_positive_sum.shape)}; it must have one element")
    logits, labels = cls_output[..., :num_real_classes], as_labels(cls_targets_at_level)
    divisor = num_positive_sum.detach()
    if label_smoothing:
        return _smoothed(logits, labels, divisor, alpha, gamma, label_smoothing)
    if logits.dim() > 5:
        logits = logits.flatten(0, -2)
    return tare.sigmoid_focal(logits, labels, gamma=gamma, alpha=alpha, normalizer=divisor).to(torch.float32)


def _smoothed(logits, labels, divisor, alpha, gamma, smoothing):
    if labels.shape != logits.shape[:-1]:
        raise Refused(f"labels {tuple(labels.shape)} are [...] beside cls_output [..., classes] {tuple(logits.shape)}")
    last = logits.shape[-1] - 1
    if _tensors.is_plain(labels) and len(wrong := labels[(labels < -2) | (labels > last)]):
        raise ValueError(f"cls_targets_at_level holds {wrong[0]}; labels are -2..{last}")
    x, classes = widened(logits), torch.arange(logits.shape[-1], device=logits.device)
    ones = (labels.unsqueeze(-1) == classes).to(x.dtype)
    wrong = x.sigmoid() * (1 - ones) + (-x).sigmoid() * ones
    factors = (alpha * ones + (1 - alpha) * (1 - ones)) * wrong**gamma
    smooth = ones * (1 - smoothing) + smoothing / 2
    losses = factors * F.binary_cross_entropy_with_logits(x, smooth, reduction="none")
    kept = torch.where((labels == -2).unsqueeze(-1), 0, losses)
    return (kept.sum() / divisor.reshape(())).to(torch.float32)


class FocalLoss:
    """focal_loss under the name of the original's autograd function: FocalLoss.apply(...)."""

    apply = staticmethod(focal_loss)
