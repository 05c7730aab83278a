# SPDX-License-Identifier: Apache-2.0
"""sam3.train.loss: the names of sigmoid_focal_loss's Triton kernels, and dice_loss of loss_fns.

Differences: CPUs and every platform work; gamma 0 gives no NaN; sums are the same on every run; small losses keep their
digits (log(1 + e) of the original loses them all from x = -17 on). torchvision's differences apply.
"""

from __future__ import annotations

import torch

from .. import torch as tare
from . import Refused, check_tensors, loss_type, or_original, torchvision, widened


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


def dice_loss(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    num_boxes: float | torch.Tensor,
    loss_on_multimask: bool = False,
    reduce: bool = True,
) -> torch.Tensor:
    """1 - (2*sum p*t + 1)/(sum p + sum t + 1) of each mask, inputs [N, ...] and targets [N, pixels]: the sum over
    num_boxes, or [N] without it (reduce=False). loss_on_multimask: [N, M, H, W], and [N, M] over num_boxes."""
    check_tensors(inputs=inputs, targets=targets)
    if loss_on_multimask and (inputs.dim() != 4 or targets.dim() != 4):
        raise Refused(f"inputs have {inputs.dim()} axes, targets {targets.dim()}; masks of loss_on_multimask have 4")
    masks = inputs.shape[:2] if loss_on_multimask else inputs.shape[:1]
    rows = inputs.flatten(0, 1).flatten(1) if loss_on_multimask else inputs.flatten(1)
    if targets.numel() != inputs.numel():
        raise Refused(f"inputs have shape {tuple(inputs.shape)}, targets {tuple(targets.shape)}")
    wanted = targets.reshape(rows.shape)

    def theirs() -> torch.Tensor:
        p, t = widened(rows).sigmoid(), wanted.to(widened(rows).dtype)
        return 1 - (2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1)

    losses = or_original(lambda: tare.dice_loss(rows, wanted, reduction="masks"), theirs, wanted)
    losses = losses.to(loss_type(inputs.device, inputs.dtype, targets.dtype)).reshape(masks)
    if loss_on_multimask:
        return losses / num_boxes
    return losses.sum() / num_boxes if reduce else losses
