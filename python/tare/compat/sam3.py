# SPDX-License-Identifier: Apache-2.0
"""sam3.train.loss.sigmoid_focal_loss: the names of its Triton kernels.

Differences: CPUs and every platform work; gamma 0 gives no NaN; sums are the same on every run; small losses keep their
digits (log(1 + e) of the original loses them all from x = -17 on). torchvision's differences apply.
"""

from __future__ import annotations

import torch

from . import Refused, check_tensors, torchvision


def triton_sigmoid_focal_loss(
    inputs: torch.Tensor, targets: torch.Tensor, alpha: float = 0.25, gamma: float = 2
) -> torch.Tensor:
    """The focal losses of elements, float32, of the shape of inputs."""
    return _loss(inputs, targets, alpha, gamma, "none")


def triton_sigmoid_focal_loss_reduce(
    inputs: torch.Tensor, targets: torch.Tensor, alpha: float = 0.25, gamma: float = 2
) -> torch.Tensor:
    """The sum of the focal losses of elements, a float32 scalar."""
    return _loss(inputs, targets, alpha, gamma, "sum")


def _loss(inputs, targets, alpha, gamma, reduction):
    check_tensors(inputs=inputs, targets=targets)
    if targets.numel() != inputs.numel():
        raise Refused(f"inputs have {inputs.numel()} elements, targets {targets.numel()}")
    narrow = inputs.dtype in (torch.float16, torch.bfloat16)
    given = inputs.float() if narrow else inputs
    loss = torchvision.elements_of(given, targets.reshape(inputs.shape), alpha, gamma, reduction)
    return loss.to(torch.float32)


class SigmoidFocalLoss:
    """triton_sigmoid_focal_loss under the name of the original's autograd function."""

    apply = staticmethod(triton_sigmoid_focal_loss)


class SigmoidFocalLossReduced:
    """triton_sigmoid_focal_loss_reduce under the name of the original's autograd function."""

    apply = staticmethod(triton_sigmoid_focal_loss_reduce)
