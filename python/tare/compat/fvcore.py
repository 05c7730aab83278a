# SPDX-License-Identifier: Apache-2.0
"""fvcore.nn: sigmoid_focal_loss and sigmoid_focal_loss_star, with the names of their jit versions.

They are torchvision's, except that alpha is off by default and that the loss is float32, whatever the inputs are.
torchvision's differences apply. An unknown reduction is refused; the original takes it for "none".
"""

import torch
import torch.nn.functional as F

from .. import torch as tare
from . import _scripted, check_tensors, or_original, reduce_plainly, reduced, torchvision, widened


def sigmoid_focal_loss(
    inputs: torch.Tensor, targets: torch.Tensor, alpha: float = -1, gamma: float = 2, reduction: str = "none"
) -> torch.Tensor:
    """alpha_t*(1-p_t)^gamma*CE of elements (arXiv 1708.02002, eq. 5). See torchvision's."""
    if torch.jit.is_scripting():
        return torch.ops.tare_compat.fvcore_focal(inputs, targets, alpha, gamma, reduction)
    else:  # noqa: RET505 - torch.jit.script compiles what follows an if without else
        return _focal(inputs, targets, alpha, gamma, reduction)


def sigmoid_focal_loss_star(
    inputs: torch.Tensor, targets: torch.Tensor, alpha: float = -1, gamma: float = 1, reduction: str = "none"
) -> torch.Tensor:
    """FL*: -alpha_t*log(sigmoid(gamma*x_t))/gamma, x_t = x*(2t-1) (arXiv 1708.02002, appendix A). gamma > 0."""
    if torch.jit.is_scripting():
        return torch.ops.tare_compat.fvcore_focal_star(inputs, targets, alpha, gamma, reduction)
    else:  # noqa: RET505
        return _star(inputs, targets, alpha, gamma, reduction)


def _focal(inputs, targets, alpha, gamma, reduction):
    check_tensors(inputs=inputs)
    narrow = inputs.dtype in (torch.float16, torch.bfloat16)
    loss = torchvision.elements_of(inputs.float() if narrow else inputs, targets, alpha, gamma, reduction)
    return loss.to(torch.float32)


def _star(inputs, targets, alpha, gamma, reduction):
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
    loss = or_original(
        lambda: tare.sigmoid_ce(shifted, targets=ones, **options),
        lambda: reduce_plainly(-F.logsigmoid(widened(shifted)), options),
        targets,
    )
    loss = loss.reshape(inputs.shape) / gamma if reduction == "none" else loss
    return loss.to(torch.float32)


_scripted.define("fvcore_focal", _focal)
_scripted.define("fvcore_focal_star", _star)

sigmoid_focal_loss_jit = sigmoid_focal_loss
sigmoid_focal_loss_star_jit = sigmoid_focal_loss_star
