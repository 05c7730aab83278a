# SPDX-License-Identifier: Apache-2.0
"""torchvision.ops.sigmoid_focal_loss; and the losses of RetinaNet and SSD, from torchvision_detection.

Differences: gamma below 1 has finite gradients, and small losses keep their digits. alpha must be in [0,1], or
negative. torch.jit.script takes the function.
"""

import torch

from .. import torch as tare
from . import _scripted, check_tensors, focal_elements, loss_type, or_original, reduce_plainly, reduced
from .torchvision_detection import retinanet_classification_loss, ssd_loss

__all__ = ["retinanet_classification_loss", "sigmoid_focal_loss", "ssd_loss"]


def sigmoid_focal_loss(
    inputs: torch.Tensor, targets: torch.Tensor, alpha: float = 0.25, gamma: float = 2, reduction: str = "none"
) -> torch.Tensor:
    """alpha_t*(1-p_t)^gamma*CE of elements (arXiv 1708.02002, eq. 5).

    inputs, targets: of one shape, any; targets 0 and 1, or between. alpha: negative is off. reduction: "none", of the
    inputs' shape; "mean" over all elements; "sum".
    """
    if torch.jit.is_scripting():
        return torch.ops.tare_compat.torchvision_focal(inputs, targets, alpha, gamma, reduction)
    else:  # noqa: RET505 - torch.jit.script compiles what follows an if without else
        return elements_of(inputs, targets, alpha, gamma, reduction)


def elements_of(inputs, targets, alpha, gamma, reduction):
    """The loss in the type that PyTorch's operators give it."""
    check_tensors(inputs=inputs, targets=targets)
    if inputs.shape != targets.shape:
        raise ValueError(f"inputs have shape {tuple(inputs.shape)}, targets {tuple(targets.shape)}")
    options = reduced(reduction, "elements")
    rows = as_rows(inputs)
    dense = targets if targets.is_floating_point() else targets.to(torch.float32)
    loss = or_original(
        lambda: tare.sigmoid_focal(rows, targets=dense.reshape(rows.shape), gamma=gamma, alpha=alpha, **options),
        lambda: reduce_plainly(focal_elements(inputs, targets, alpha, gamma), options),
        targets,
    )
    loss = loss.reshape(inputs.shape) if reduction == "none" else loss
    return loss.to(loss_type(inputs.device, inputs.dtype, targets.dtype))


def as_rows(inputs):
    """Any tensor as one with rows; only its elements matter."""
    if inputs.dim() < 2:
        return inputs.reshape(-1, 1)
    return inputs if inputs.dim() <= 5 else inputs.flatten(0, -2)


_scripted.define("torchvision_focal", elements_of)
