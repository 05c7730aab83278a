# SPDX-License-Identifier: Apache-2.0
"""apex.contrib.focal_loss.focal_loss: focal_loss, and FocalLoss with its `apply`.

Differences: backward may run twice; bfloat16 and the CPU work; any number of classes and any alignment work; labels may
be of any integer type. label_smoothing is below 1.
"""

import torch

from .. import _checks
from .. import torch as tare
from . import Refused, as_labels, check_tensors


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
    if logits.dim() > 5:
        logits = logits.flatten(0, -2)
    loss = tare.sigmoid_focal(
        logits, labels, gamma=gamma, alpha=alpha, label_smoothing=label_smoothing, normalizer=divisor
    )
    return loss.to(torch.float32)


class FocalLoss:
    """focal_loss under the name of the original's autograd function: FocalLoss.apply(...)."""

    apply = staticmethod(focal_loss)
