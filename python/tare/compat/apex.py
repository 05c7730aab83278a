# SPDX-License-Identifier: Apache-2.0
"""apex.contrib.focal_loss.focal_loss.

Differences: backward may run twice; bfloat16 and the CPU work; any number of classes and any alignment work.
label_smoothing other than 0 is refused: apex smooths the cross-entropy, but not the factor before it, and Tare has no
such loss.
"""

import torch

from .. import _checks
from .. import torch as tare
from . import check_tensors


def focal_loss(
    cls_output: torch.Tensor,
    cls_targets_at_level: torch.Tensor,
    num_positives_sum: torch.Tensor,
    num_real_classes: int,
    alpha: float,
    gamma: float,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Sum of the sigmoid focal loss over num_positives_sum (also if that is 0), a float32 scalar.

    cls_output: [..., classes]; classes from num_real_classes on are padding. cls_targets_at_level: [...], a
    class, -1 for background, -2 for ignored. num_positives_sum: a tensor with one element.
    """
    check_tensors(cls_output=cls_output, cls_targets_at_level=cls_targets_at_level, num_positives_sum=num_positives_sum)
    if label_smoothing != 0:
        raise ValueError(f"label_smoothing is {label_smoothing}; Tare computes this loss with 0 alone")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it must be in [0,1]: apex has none that is off")
    num_real_classes = _checks.integer("num_real_classes", num_real_classes, 1, cls_output.shape[-1])
    logits = cls_output[..., :num_real_classes]
    if logits.dim() > 5:
        logits = logits.flatten(0, -2)
    return tare.sigmoid_focal(logits, cls_targets_at_level, gamma=gamma, alpha=alpha, normalizer=num_positives_sum)
