# SPDX-License-Identifier: Apache-2.0
"""kornia.losses: focal_loss, binary_focal_loss_with_logits and their modules, of kornia 0.9.

Differences: alpha outside [0,1] and gamma below 0 are refused; a sum of float16 losses is formed in float32. Weights of
classes are float32. A target between 0 and 1 weighs both sides of the loss, as in the original.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .. import _checks
from .. import torch as tare
from . import NOT_A_LABEL, check_tensors, loss_type, reduce_plainly, widened
from ._maps import along_classes, are_hard, as_map, labels_of_map, of_map, wide


def _reduced(reduction: str, elements: int) -> dict[str, Any]:
    known: dict[str, dict[str, Any]] = {
        "none": {"reduction": "none"},
        "sum": {},
        "mean": {"normalizer": float(max(elements, 1))},
    }
    if reduction not in known:
        raise NotImplementedError(f"Invalid reduction mode: {reduction}; it is one of: none, mean, sum")
    return known[reduction]


def _check_alpha(alpha: float | None) -> None:
    if alpha is not None and not 0 <= _checks.number("alpha", alpha) <= 1:
        raise ValueError(f"alpha is {alpha}; it must be in [0,1], or None")


def focal_loss(
    pred: torch.Tensor,
    target: torch.Tensor,
    alpha: float | None,
    gamma: float = 2.0,
    reduction: str = "none",
    weight: torch.Tensor | None = None,
    ignore_index: int | None = -100,
) -> torch.Tensor:
    """Softmax focal loss of pred [B, C, ...] and labels [B, ...]. alpha: class 0 weighs 1 - alpha, the others alpha.

    reduction "none": [B, C, ...], 0 but for the labels' elements; "mean" divides by all of these. weight: [C].
    """
    check_tensors(pred=pred, target=target, weight=weight)
    _check_alpha(alpha)
    if pred.dim() < 2 or target.shape != pred.shape[:1] + pred.shape[2:]:
        raise ValueError(f"pred has shape {tuple(pred.shape)}, target {tuple(target.shape)}; it must be [B, ...]")
    classes, options = pred.shape[1], _reduced(reduction, pred.numel())
    if weight is not None or alpha is not None:
        factors = torch.full((classes,), 1.0 if alpha is None else alpha, device=pred.device)
        factors[:1] = 1.0 if alpha is None else 1 - alpha
        options["class_weights"] = factors if weight is None else factors * weight.detach().to(factors)
    ignored = NOT_A_LABEL if ignore_index is None else ignore_index
    marks: dict[str, Any] = {
        "background_label": NOT_A_LABEL - 1 if ignored == NOT_A_LABEL else NOT_A_LABEL,
        "ignore_label": ignored,
    }
    labels = labels_of_map(target)
    loss = tare.softmax_focal(as_map(pred), labels, gamma=gamma, alpha=-1.0, **marks, **of_map(pred), **options)
    if reduction == "none":
        slices = torch.zeros(pred.shape, dtype=loss.dtype, device=pred.device)
        places = target.clamp(0, classes - 1).unsqueeze(1)
        loss = slices.scatter(1, places, loss.reshape(target.shape).unsqueeze(1))
    return loss.to(loss_type(pred.device, pred.dtype))


class FocalLoss(torch.nn.Module):
    """focal_loss as a module."""

    def __init__(
        self,
        alpha: float | None,
        gamma: float = 2.0,
        reduction: str = "none",
        weight: torch.Tensor | None = None,
        ignore_index: int | None = -100,
    ) -> None:
        super().__init__()
        self.alpha, self.gamma, self.reduction, self.ignore_index = alpha, gamma, reduction, ignore_index
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return focal_loss(pred, target, self.alpha, self.gamma, self.reduction, self.weight, self.ignore_index)


def binary_focal_loss_with_logits(
    pred: torch.Tensor,
    target: torch.Tensor,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
    pos_weight: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    ignore_index: int | None = -100,
) -> torch.Tensor:
    """Sigmoid focal loss of pred [B, C, ...] and target of its shape: t*alpha*(1-p)^gamma*(-log p) and the same of the
    other side. pos_weight, weight: [C]. Targets of ignore_index add nothing, and count in the mean."""
    check_tensors(pred=pred, target=target)
    _check_alpha(alpha)
    if pred.dim() < 2 or pred.shape != target.shape:
        raise ValueError(f"pred has shape {tuple(pred.shape)}, target {tuple(target.shape)}; they must be [B, C, ...]")
    options = _reduced(reduction, pred.numel())
    elements = None if weight is None else along_classes(weight.detach().to(torch.float32), pred.shape)
    if ignore_index is not None:
        counted = target != ignore_index
        target = torch.where(counted, target, 0)
        elements = counted.to(torch.float32) if elements is None else elements * counted
    if elements is not None:
        options["element_weights"] = as_map(elements)
    x, targets = as_map(pred), as_map(wide(target, pred))
    loss = _binary(x, targets, alpha, gamma, pos_weight, {**of_map(pred), **options})
    return (loss.reshape(pred.shape) if reduction == "none" else loss).to(loss_type(pred.device, pred.dtype))


def _binary(x, targets, alpha, gamma, pos_weight, options):
    positive = None if pos_weight is None else pos_weight.detach().to(torch.float32)
    on_cpu = x.device.type == "cpu"
    if on_cpu and are_hard(targets):
        given = {"alpha": -1.0 if alpha is None else float(alpha), "gamma": gamma, "positive_weights": positive}
        return tare.sigmoid_focal(x, targets=targets, **given, **options)
    if x.dtype == torch.float64 or targets.requires_grad:
        return _plain(x, targets, alpha, gamma, positive, options)
    of_one, of_zero = targets, 1 - targets
    if alpha is not None:
        of_one, of_zero = alpha * of_one, (1 - alpha) * of_zero
    if positive is not None:
        of_one = of_one * along_classes(positive, x.shape)
    elements, sums = options.get("element_weights", 1.0), 0.0
    for target, weights in ((1.0, of_one), (0.0, of_zero)):  # a soft target is both, and weighs them
        hard = torch.full((), target, device=x.device).expand(x.shape)
        given = {**options, "element_weights": weights * elements}
        sums = sums + tare.sigmoid_focal(x, targets=hard, alpha=-1.0, gamma=gamma, **given)
    return sums


def _plain(x, targets, alpha, gamma, positive, options):
    x = widened(x)
    right, wrong = F.logsigmoid(x), F.logsigmoid(-x)
    of_one, of_zero = -(gamma * wrong).exp() * targets * right, -(gamma * right).exp() * (1 - targets) * wrong
    if alpha is not None:
        of_one, of_zero = alpha * of_one, (1 - alpha) * of_zero
    if positive is not None:
        of_one = of_one * along_classes(positive, x.shape)
    return reduce_plainly(of_one + of_zero, options)


class BinaryFocalLossWithLogits(torch.nn.Module):
    """binary_focal_loss_with_logits as a module."""

    def __init__(
        self,
        alpha: float | None,
        gamma: float = 2.0,
        reduction: str = "none",
        pos_weight: torch.Tensor | None = None,
        weight: torch.Tensor | None = None,
        ignore_index: int | None = -100,
    ) -> None:
        super().__init__()
        self.alpha, self.gamma, self.reduction, self.ignore_index = alpha, gamma, reduction, ignore_index
        self.register_buffer("pos_weight", pos_weight, persistent=False)
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        options = self.pos_weight, self.weight, self.ignore_index
        return binary_focal_loss_with_logits(pred, target, self.alpha, self.gamma, self.reduction, *options)
