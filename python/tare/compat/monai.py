# SPDX-License-Identifier: Apache-2.0
"""monai.losses: FocalLoss, DiceLoss and TverskyLoss, of MONAI 1.6.

Differences: float64 is computed as such; class weights are float32. Tare computes targets 0 and 1, and labels
(to_onehot_y); PyTorch computes softmax of dense targets, and on a CPU targets between 0 and 1, by the original's
formula. On a GPU those are torchvision's. `ignore_index` is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from .. import torch as tare
from . import NOT_A_LABEL, check_tensors, reduce_plainly, widened
from ._maps import along_classes, are_hard, as_map, labels_of_map, of_map, wide
from ._monai_overlaps import DiceLoss, TverskyLoss

__all__ = ["DiceLoss", "FocalLoss", "TverskyLoss"]


def _vector(given: Any) -> torch.Tensor | None:
    return None if given is None else torch.as_tensor(given, dtype=torch.float32)


class FocalLoss(torch.nn.Module):
    """Focal loss of logits [B, C, ...] and target of this shape; or [B, 1, ...], labels, with to_onehot_y.

    alpha: a number, or one a class: a factor of positives (softmax: of classes). weight: a number or one a class.
    reduction "sum" is the sum of each image's and class's mean over places, as in the original.
    """

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        gamma: float = 2.0,
        alpha: float | Sequence[float] | None = None,
        weight: Sequence[float] | float | int | torch.Tensor | None = None,
        reduction: str = "mean",
        use_softmax: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        reduction = str(getattr(reduction, "value", reduction))
        if reduction not in ("none", "mean", "sum"):
            raise ValueError(f"reduction is {reduction!r}; it is one of: none, mean, sum")
        if ignore_index is not None:
            raise NotImplementedError(f"ignore_index is {ignore_index}; Tare's FocalLoss of MONAI takes none")
        self.include_background, self.to_onehot_y = include_background, to_onehot_y
        self.gamma, self.use_softmax, self.reduction = gamma, use_softmax, reduction
        self.alpha = float(alpha) if isinstance(alpha, (int, float)) else _vector(alpha)
        self.weight, self.ignore_index = weight, ignore_index
        self.register_buffer("class_weight", _vector(weight))
        if self.class_weight is not None and bool((self.class_weight < 0).any()):
            raise ValueError(f"weight is {weight}; no value may be negative")

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        check_tensors(input=input, target=target)
        classes = input.shape[1]
        one_hot = self.to_onehot_y and classes > 1
        if classes == 1 and (self.to_onehot_y or not self.include_background):
            warnings.warn("one channel: to_onehot_y and include_background=False have no effect", stacklevel=2)
        if one_hot and (target.shape[1] != 1 or target.shape[2:] != input.shape[2:]):
            raise ValueError(f"labels of to_onehot_y are [B, 1, ...]; target has shape {tuple(target.shape)}")
        skipped = 1 if classes > 1 and not self.include_background else 0
        x = widened(input)[:, skipped:]
        if one_hot:
            labels = target[:, 0].long()
        else:
            target, labels = target[:, skipped:], None
            if target.shape != x.shape:
                raise ValueError(f"ground truth has different shape ({target.shape}) from input ({x.shape})")
        factors = self._factors(x)
        function = self._softmax if self.use_softmax else self._sigmoid
        return function(x, target, labels, skipped, factors, self._options(x))

    def _factors(self, x: torch.Tensor) -> torch.Tensor | None:
        if self.class_weight is None:
            return None
        weight = self.class_weight.to(x.device)
        if weight.dim() and (x.shape[1] == 1 or weight.numel() != x.shape[1]):
            raise ValueError(f"weight has {weight.numel()} values; there are {x.shape[1]} classes, and more than 1")
        return weight.expand(x.shape[1]) if weight.dim() == 0 else weight

    def _options(self, x: torch.Tensor) -> dict[str, Any]:
        places = x[0, 0].numel() if x.numel() else 1
        divisor = {"mean": float(max(x.numel(), 1)), "sum": float(places)}
        given = {"reduction": "none"} if self.reduction == "none" else {"normalizer": divisor[self.reduction]}
        return {**of_map(x), **given}

    def _sigmoid(self, x, target, labels, skipped, factors, options):
        many = isinstance(self.alpha, torch.Tensor)
        alpha = -1.0 if self.alpha is None or many else self.alpha
        positive = self.alpha.to(x.device) if many else None
        if many and len(positive) != x.shape[1]:
            raise ValueError(f"The length of alpha ({len(positive)}) must match the number of classes ({x.shape[1]}).")
        if factors is not None:
            options["element_weights"] = as_map(along_classes(factors, x.shape))
        given = {"alpha": alpha, "gamma": self.gamma, "positive_weights": positive, **options}
        if labels is not None:
            marks = {"first_label": skipped, "background_label": 0 if skipped else NOT_A_LABEL}
            loss = tare.sigmoid_focal(as_map(x), labels_of_map(labels), **marks, **given)
        elif target.requires_grad or not are_hard(target):
            return reduce_plainly(self._plain_sigmoid(x, target.to(x.dtype)), options)
        else:
            loss = tare.sigmoid_focal(as_map(x), targets=as_map(wide(target, x)), **given)
        return loss.reshape(x.shape) if self.reduction == "none" else loss

    def _plain_sigmoid(self, x, target):
        losses = F.binary_cross_entropy_with_logits(x, target, reduction="none")
        losses = losses * (self.gamma * F.logsigmoid(-x * (2 * target - 1))).exp()
        if isinstance(self.alpha, torch.Tensor):
            return losses * torch.where(target == 1, along_classes(self.alpha.to(x), x.shape), 1.0)
        return losses if self.alpha is None else losses * (target * self.alpha + (1 - target) * (1 - self.alpha))

    def _softmax(self, x, target, labels, skipped, factors, options):
        if isinstance(self.alpha, float) and skipped:
            warnings.warn("`include_background=False`, scalar `alpha` ignored when using softmax.", stacklevel=3)
        of_classes = self._of_classes(x, skipped)
        if of_classes is not None:
            factors = of_classes if factors is None else factors * of_classes
        if labels is None or skipped:
            dense = target if labels is None else F.one_hot(labels, x.shape[1] + 1).movedim(-1, 1)[:, 1:]
            logs = x.log_softmax(1)
            losses = -(1 - logs.exp()).pow(self.gamma) * logs * dense.to(x.dtype)
            losses = losses if factors is None else losses * along_classes(factors, x.shape)
            return reduce_plainly(losses, options)
        marks = {"background_label": NOT_A_LABEL, "class_weights": factors, "alpha": -1.0, "gamma": self.gamma}
        loss = tare.softmax_focal(as_map(x), labels_of_map(labels), **marks, **options)
        if self.reduction != "none":
            return loss
        slices = torch.zeros(x.shape, dtype=loss.dtype, device=x.device)
        return slices.scatter(1, labels.unsqueeze(1), loss.reshape(labels.shape).unsqueeze(1))

    def _of_classes(self, x, skipped):
        """Factors of classes in softmax."""
        if isinstance(self.alpha, torch.Tensor):
            if len(self.alpha) != x.shape[1]:
                raise ValueError(
                    f"The length of alpha ({len(self.alpha)}) must match the number of classes ({x.shape[1]})."
                )
            return self.alpha.to(x.device)
        if self.alpha is None or skipped:
            return None
        factors = torch.full((x.shape[1],), self.alpha, device=x.device)
        factors[:1] = 1 - self.alpha
        return factors
