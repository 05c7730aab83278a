# SPDX-License-Identifier: Apache-2.0
"""mmcv.ops: sigmoid_focal_loss, softmax_focal_loss and their modules.

Differences: float16 gives no NaN, and bfloat16 works; a background row has weight 1, where mmcv reads beyond the end of
`weight`; softmax with reduction "none" has a correct gradient; more than 2^31 elements work; the CPU works. Labels
above the number of classes are errors (in softmax, also that number itself). As in the original, target and weight get
no gradient.
"""

from __future__ import annotations

import torch

from .. import _checks
from .. import torch as tare
from . import NOT_A_LABEL, Refused, as_labels, check_tensors, loss_type, reduced


def _check(input, target, weight, alpha, most):
    check_tensors(input=input, target=target, weight=weight)
    if input.dim() != 2 or target.shape != input.shape[:1]:
        raise Refused(f"input {tuple(input.shape)} and target {tuple(target.shape)} must be [N, C] and [N]")
    if weight is not None and not weight.numel():
        weight = None  # mmcv's own way to say so
    if weight is not None and weight.shape != input.shape[1:]:
        raise Refused(f"weight has shape {tuple(weight.shape)}; there are {input.shape[1]} classes")
    if not 0 <= _checks.number("alpha", alpha) <= most:
        raise ValueError(f"alpha is {alpha}; it must be in [0,{most:g}]: mmcv has none that is off")
    return float(max(len(input), 1)), None if weight is None else weight.detach()


def _typed(loss, input, reduction):
    """The loss in the original's type: the input's, but autocast sums in float32."""
    return loss.to(input.dtype if reduction == "none" else loss_type(input.device, input.dtype))


def sigmoid_focal_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """Sigmoid focal loss of input [N, C] and target [N], where C and negative targets are background.

    weight: float [C], multiplies the rows of a class. reduction: "none", [N, C]; "sum"; "mean", the sum over N rows.
    """
    rows, weight = _check(input, target, weight, alpha, 1)
    classes, target = input.shape[1], as_labels(target)
    loss = tare.sigmoid_focal(
        input,
        torch.where(target < 0, classes, target),
        gamma=gamma,
        alpha=alpha,
        class_weights=weight,
        background_label=classes,
        ignore_label=NOT_A_LABEL,
        **reduced(reduction, rows),
    )
    return _typed(loss, input, reduction)


def softmax_focal_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """Softmax focal loss of input [N, C] and target [N]; a negative target counts as a row, and adds nothing.

    alpha multiplies every row, weight [C] the rows of a class. reduction: "none", [N]; "sum"; "mean", the sum over N.
    """
    rows, weight = _check(input, target, weight, alpha, 1e30)
    loss = tare.softmax_focal(
        input,
        as_labels(target).clamp(min=-1),
        gamma=gamma,
        alpha=alpha,
        class_weights=weight,
        background_label=NOT_A_LABEL,
        ignore_label=-1,
        **reduced(reduction, rows),
    )
    return _typed(loss, input, reduction)


class SigmoidFocalLossFunction:
    """sigmoid_focal_loss under the name of the original's autograd function."""

    apply = staticmethod(sigmoid_focal_loss)


class SoftmaxFocalLossFunction:
    """softmax_focal_loss under the name of the original's autograd function."""

    apply = staticmethod(softmax_focal_loss)


class _Module(torch.nn.Module):
    def __init__(self, gamma: float, alpha: float, weight: torch.Tensor | None = None, reduction: str = "mean") -> None:
        super().__init__()
        self.gamma, self.alpha, self.reduction = gamma, alpha, reduction
        self.register_buffer("weight", weight)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return type(self).function(input, target, self.gamma, self.alpha, self.weight, self.reduction)

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}, alpha={self.alpha}, reduction={self.reduction}"


class SigmoidFocalLoss(_Module):
    """sigmoid_focal_loss as a module."""

    function = staticmethod(sigmoid_focal_loss)


class SoftmaxFocalLoss(_Module):
    """softmax_focal_loss as a module."""

    function = staticmethod(softmax_focal_loss)
