# SPDX-License-Identifier: Apache-2.0
"""fvcore.nn: sigmoid_focal_loss and sigmoid_focal_loss_star, with the names of their jit versions.

They are torchvision's, except that alpha is off by default. torchvision's differences apply.
"""

import torch

from .. import torch as tare
from . import check_tensors, reduced, torchvision


def sigmoid_focal_loss(
    inputs: torch.Tensor, targets: torch.Tensor, alpha: float = -1, gamma: float = 2, reduction: str = "none"
) -> torch.Tensor:
    """alpha_t*(1-p_t)^gamma*CE of elements (arXiv 1708.02002, eq. 5). See torchvision's."""
    return torchvision.sigmoid_focal_loss(inputs, targets, alpha, gamma, reduction)


def sigmoid_focal_loss_star(
    inputs: torch.Tensor, targets: torch.Tensor, alpha: float = -1, gamma: float = 1, reduction: str = "none"
) -> torch.Tensor:
    """FL*: -alpha_t*log(sigmoid(gamma*x_t))/gamma, x_t = x*(2t-1) (arXiv 1708.02002, appendix A). gamma > 0."""
    check_tensors(inputs=inputs, targets=targets)
    if inputs.shape != targets.shape:
        raise ValueError(f"inputs have shape {tuple(inputs.shape)}, targets {tuple(targets.shape)}")
    options = reduced(reduction, float(gamma * max(inputs.numel(), 1)))
    if reduction == "sum":
        options = {"normalizer": float(gamma)}
    targets = targets.to(torch.float32)
    shifted = torchvision.as_rows(gamma * (inputs * (2 * targets - 1)).to(inputs.dtype))
    if alpha >= 0:
        options["element_weights"] = (alpha * targets + (1 - alpha) * (1 - targets)).reshape(shifted.shape)
    ones = torch.ones((), dtype=torch.float32, device=inputs.device).expand(shifted.shape)
    loss = tare.sigmoid_ce(shifted, targets=ones, **options)
    return loss.reshape(inputs.shape) / gamma if reduction == "none" else loss


sigmoid_focal_loss_jit = sigmoid_focal_loss
sigmoid_focal_loss_star_jit = sigmoid_focal_loss_star
