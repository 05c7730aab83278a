# SPDX-License-Identifier: Apache-2.0
"""transformers.loss: sigmoid_focal_loss of Deformable DETR and its kin, and that of Grounding DINO.

torchvision's differences apply. num_boxes may be a tensor; nothing waits for it.
"""

from __future__ import annotations

import torch

from .. import torch as tare
from . import Refused, check_tensors, focal_elements, loss_type, or_original, reduce_plainly
from .torchvision import as_rows


def sigmoid_focal_loss(
    inputs: torch.Tensor, targets: torch.Tensor, num_boxes: float | torch.Tensor, alpha: float = 0.25, gamma: float = 2
) -> torch.Tensor:
    """The sum of the elements' focal losses over num_boxes and the length of the second axis (the queries)."""
    check_tensors(inputs=inputs, targets=targets)
    if inputs.dim() < 2:
        raise Refused(f"inputs have shape {tuple(inputs.shape)}; their second axis is averaged")
    return _sum(inputs, targets, num_boxes, alpha, gamma, inputs.shape[1])


def grounding_dino_sigmoid_focal_loss(
    inputs: torch.Tensor, targets: torch.Tensor, num_boxes: int, alpha: float = 0.25, gamma: float = 2
) -> torch.Tensor:
    """The sum of the elements' focal losses over num_boxes: sigmoid_focal_loss of loss_grounding_dino."""
    check_tensors(inputs=inputs, targets=targets)
    return _sum(inputs, targets, num_boxes, alpha, gamma, 1)


def _sum(inputs, targets, num_boxes, alpha, gamma, queries):
    if inputs.shape != targets.shape:
        raise ValueError(f"inputs have shape {tuple(inputs.shape)}, targets {tuple(targets.shape)}")
    rows, options = as_rows(inputs), {"normalizer": num_boxes * max(queries, 1)}
    dense = targets if targets.is_floating_point() else targets.to(torch.float32)
    loss = or_original(
        lambda: tare.sigmoid_focal(rows, targets=dense.reshape(rows.shape), gamma=gamma, alpha=alpha, **options),
        lambda: reduce_plainly(focal_elements(inputs, targets, alpha, gamma), options),
        targets,
    )
    dtype = loss_type(inputs.device, inputs.dtype, targets.dtype)
    if isinstance(num_boxes, torch.Tensor):
        dtype = torch.result_type(torch.zeros((), dtype=dtype, device=inputs.device), num_boxes)
        loss = loss.reshape(num_boxes.shape)
    return loss.to(dtype)
