# SPDX-License-Identifier: Apache-2.0
"""mmdetection's FocalLoss and its functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ... import _checks
from ... import torch as tare
from .. import (
    NOT_A_LABEL,
    Refused,
    as_labels,
    check_tensors,
    focal_elements,
    loss_type,
    or_original,
    reduce_plainly,
    widened,
)
from ._layout import check_dense, check_labels, chosen, dense_loss, finished, one_hot, reduction_options, weights_of


def check_alpha(alpha: float) -> None:
    if not 0 <= _checks.number("alpha", alpha) <= 1:
        raise ValueError(f"alpha is {alpha}; it must be in [0,1]")


def _options(pred, weight, reduction, avg_factor):
    """Weights and divisor as keywords of tare.torch.loss, and the type of the original's losses."""
    options = weights_of(weight, pred)
    options.update(reduction_options(reduction, avg_factor, float(max(pred.numel(), 1))))
    given = [one.dtype for one in (pred, weight) if one is not None]
    return options, loss_type(pred.device, *given)


def sigmoid_focal_loss(
    pred: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    gamma: float = 2.0,
    alpha: float = 0.25,
    reduction: str = "mean",
    avg_factor: float | torch.Tensor | None = None,
) -> torch.Tensor:
    """Sigmoid focal loss of pred [N, C] and labels [N], where C and negative labels are background."""
    check_tensors(pred=pred, target=target, weight=weight)
    check_alpha(alpha)
    options, dtype = _options(pred, weight, reduction, avg_factor)
    check_labels(pred, target)
    classes = pred.shape[1]

    def ours():
        target_of = as_labels(target)
        labels = torch.where(target_of < 0, classes, target_of)  # as in mmcv
        labelled = {"background_label": classes, "ignore_label": NOT_A_LABEL, **options}
        return tare.sigmoid_focal(pred, labels, gamma=gamma, alpha=alpha, **labelled)

    def theirs():
        return reduce_plainly(focal_elements(pred, one_hot(target, classes), alpha, gamma), options)

    return finished(or_original(ours, theirs, weight), dtype, reduction, avg_factor)


def py_sigmoid_focal_loss(
    pred: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    gamma: float = 2.0,
    alpha: float = 0.25,
    reduction: str = "mean",
    avg_factor: float | torch.Tensor | None = None,
) -> torch.Tensor:
    """Sigmoid focal loss of dense targets of pred's shape."""
    check_tensors(pred=pred, target=target, weight=weight)
    check_alpha(alpha)
    options, dtype = _options(pred, weight, reduction, avg_factor)
    check_dense(pred, target)
    loss = or_original(
        lambda: dense_loss(tare.sigmoid_focal, pred, target, {"gamma": gamma, "alpha": alpha, **options}),
        lambda: reduce_plainly(focal_elements(pred, target, alpha, gamma), options),
        target,
        weight,
    )
    return finished(loss, dtype, reduction, avg_factor)


def py_focal_loss_with_prob(
    pred: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    gamma: float = 2.0,
    alpha: float = 0.25,
    reduction: str = "mean",
    avg_factor: float | torch.Tensor | None = None,
) -> torch.Tensor:
    """Focal loss of probabilities, with labels [N] beside [N, C] or dense targets. PyTorch computes it: a probability
    near 1 has lost the digits that a logit has."""
    check_tensors(pred=pred, target=target, weight=weight)
    check_alpha(alpha)
    options, dtype = _options(pred, weight, reduction, avg_factor)
    if target.dim() != pred.dim():
        check_labels(pred, target)
        target = one_hot(target, pred.shape[1])
    check_dense(pred, target)
    p = widened(pred)
    t = target.to(p.dtype)
    away = (1 - p) * t + p * (1 - t)
    losses = F.binary_cross_entropy(p, t, reduction="none") * (alpha * t + (1 - alpha) * (1 - t)) * away.pow(gamma)
    return finished(reduce_plainly(losses, options), dtype, reduction, avg_factor)


class FocalLoss(torch.nn.Module):
    """Sigmoid focal loss. Called with pred [N, C] and target [N] (C is background), or with dense targets of the shape
    of pred, whatever it is; weight [N], [N, C] or flat, beside more axes of pred's shape. reduction "mean" divides by
    avg_factor, else by all elements. activated: pred are probabilities."""

    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: float = 0.25,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None:
        super().__init__()
        if use_sigmoid is not True:
            raise Refused(f"use_sigmoid is {use_sigmoid!r}; it must be True: there is sigmoid focal loss alone")
        check_alpha(alpha)
        self.use_sigmoid, self.activated = use_sigmoid, activated
        self.gamma, self.alpha, self.reduction, self.loss_weight = gamma, alpha, reduction, loss_weight

    def forward(
        self,
        pred: torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor | None = None,
        avg_factor: float | torch.Tensor | None = None,
        reduction_override: str | None = None,
    ) -> torch.Tensor:
        reduction = chosen(reduction_override, self.reduction)
        check_tensors(pred=pred, target=target)
        if self.activated:
            function = py_focal_loss_with_prob
        else:
            function = py_sigmoid_focal_loss if target.dim() == pred.dim() else sigmoid_focal_loss
        return self.loss_weight * function(pred, target, weight, self.gamma, self.alpha, reduction, avg_factor)
