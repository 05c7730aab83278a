# SPDX-License-Identifier: Apache-2.0
"""monai.losses: DiceLoss and TverskyLoss, of MONAI 1.6."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from . import check_tensors, loss_type, or_original, widened
from ._maps import are_hard
from ._overlaps import are_smoothings, are_weights, channel_rows, overlap_losses


class _Overlap(torch.nn.Module):
    """What both share: the activation, the channels, the reduction."""

    def __init__(
        self,
        include_background: bool,
        to_onehot_y: bool,
        activations: tuple[bool, bool, Callable | None],
        reduction: Any,
        smoothings: tuple[float, float],
        batch: bool,
        soft_label: bool,
        ignore_index: int | None,
    ) -> None:
        super().__init__()
        self.reduction = str(getattr(reduction, "value", reduction))
        if self.reduction not in ("none", "mean", "sum"):
            raise ValueError(f"reduction is {reduction!r}; it is one of: none, mean, sum")
        self.sigmoid, self.softmax, self.other_act = activations
        if self.other_act is not None and not callable(self.other_act):
            raise TypeError(f"other_act must be None or callable but is {type(self.other_act).__name__}.")
        if int(self.sigmoid) + int(self.softmax) + int(self.other_act is not None) > 1:
            raise ValueError("Incompatible values: more than 1 of [sigmoid=True, softmax=True, other_act is not None].")
        if ignore_index is not None:
            raise NotImplementedError(f"ignore_index is {ignore_index}; Tare's {type(self).__name__} takes none")
        self.include_background, self.to_onehot_y, self.ignore_index = include_background, to_onehot_y, ignore_index
        self.smooth_nr, self.smooth_dr = (float(one) for one in smoothings)
        self.batch, self.soft_label = batch, soft_label

    # What a subclass says: false positives' and negatives' weights, the form of the smoothings, powers, and the sums of
    # soft labels' own formula.
    def _weights(self) -> tuple[float, float]:
        raise NotImplementedError

    _halves, squared_pred = False, False

    def _losses(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """One a channel: [N, C], or [C] over the batch."""
        check_tensors(input=input, target=target)
        channels = input.shape[1]
        skips = not self.include_background and channels > 1
        if channels == 1 and (self.softmax or self.to_onehot_y or not self.include_background):
            warnings.warn("one channel: softmax, to_onehot_y and include_background have no effect", stacklevel=3)
        dtype = target.dtype
        if self.to_onehot_y and channels > 1:
            if target.shape[1] != 1:
                raise AssertionError("labels should have a channel with length equal to one.")
            target, dtype = F.one_hot(target[:, 0].long(), channels).movedim(-1, 1), torch.float32
        p = input
        if self.softmax and channels > 1:
            p = widened(input).softmax(1)
        elif self.other_act is not None:
            p = self.other_act(input)
        p, target = (p[:, 1:], target[:, 1:]) if skips else (p, target)
        if target.shape != p.shape:
            raise AssertionError(f"ground truth has different shape ({target.shape}) from input ({p.shape})")
        scale = 0.5 if self._halves else 1.0
        smoothings = (scale * self.smooth_nr, scale * self.smooth_dr)
        ours = self.sigmoid and are_smoothings(*smoothings) and are_weights(*self._weights()) and are_hard(target)
        ours = ours and target.numel() > 0

        def theirs() -> torch.Tensor:
            return self._plain(widened(p).sigmoid() if self.sigmoid else p, target, smoothings)

        losses = or_original(lambda: self._kernel(p, target, smoothings), theirs, target) if ours else theirs()
        return losses.to(loss_type(input.device, input.dtype, dtype))

    def _kernel(self, x, target, smoothings):
        names = ("false_positive_weight", "false_negative_weight", "numerator_smoothing", "denominator_smoothing")
        given = dict(zip(names, (*self._weights(), *smoothings)))
        return overlap_losses(x, target, self.batch, squared=self.squared_pred, **given)

    def _plain(self, p, target, smoothings):
        shape = p.shape[1:2] if self.batch else p.shape[:2]
        p, t = widened(channel_rows(p, self.batch)), channel_rows(target, self.batch)
        t = t.to(p.dtype)
        if self.squared_pred or self.soft_label:
            order = 2 if self.squared_pred else 1
            of_p, of_t, apart = ((one.abs() ** order).sum(1) for one in (p, t, p - t))
            tp = (of_p + of_t - apart) / 2
            fp, fn = of_p - tp, of_t - tp
        else:
            tp, fp, fn = (p * t).sum(1), (p * (1 - t)).sum(1), ((1 - p) * t).sum(1)
        more, less = self._weights()
        return (1 - (tp + smoothings[0]) / (tp + more * fp + less * fn + smoothings[1])).reshape(shape)

    def _reduced(self, losses: torch.Tensor) -> torch.Tensor:
        return {"mean": torch.mean, "sum": torch.sum, "none": lambda one: one}[self.reduction](losses)


class DiceLoss(_Overlap):
    """Dice loss of input and target [B, C, ...], or of labels [B, 1, ...] with to_onehot_y; jaccard: of intersection
    over union. Tare computes sigmoid=True with targets 0 and 1, and PyTorch the rest."""

    _halves = True

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Callable | None = None,
        squared_pred: bool = False,
        jaccard: bool = False,
        reduction: Any = "mean",
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        batch: bool = False,
        weight: Sequence[float] | float | int | torch.Tensor | None = None,
        soft_label: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        activations, smoothings = (sigmoid, softmax, other_act), (smooth_nr, smooth_dr)
        super().__init__(
            include_background, to_onehot_y, activations, reduction, smoothings, batch, soft_label, ignore_index
        )
        self.squared_pred, self.jaccard = squared_pred, jaccard
        self.class_weight: torch.Tensor | None
        self.register_buffer("class_weight", None if weight is None else torch.as_tensor(weight))

    def _weights(self) -> tuple[float, float]:
        return (1.0, 1.0) if self.jaccard else (0.5, 0.5)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        losses = self._losses(input, target)
        classes = losses.shape[-1]
        if self.class_weight is not None and classes != 1:
            weight = self.class_weight
            if weight.dim() and len(weight) != classes:
                raise ValueError(f"weight has {len(weight)} values; there are {classes} classes that count")
            if bool((weight < 0).any()):
                raise ValueError("the value/values of the `weight` should be no less than 0.")
            losses = losses * weight.to(losses)
        if self.reduction == "none":
            return losses.reshape(*losses.shape, *[1] * (input.dim() - 2))
        return self._reduced(losses)


class TverskyLoss(_Overlap):
    """Tversky loss of input and target [B, C, ...], or of labels [B, 1, ...] with to_onehot_y. alpha: the weight of
    false positives. beta: of false negatives. Tare computes sigmoid=True with targets 0 and 1, and PyTorch the rest."""

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Callable | None = None,
        alpha: float = 0.5,
        beta: float = 0.5,
        reduction: Any = "mean",
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        batch: bool = False,
        soft_label: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        activations, smoothings = (sigmoid, softmax, other_act), (smooth_nr, smooth_dr)
        super().__init__(
            include_background, to_onehot_y, activations, reduction, smoothings, batch, soft_label, ignore_index
        )
        self.alpha, self.beta = alpha, beta

    def _weights(self) -> tuple[float, float]:
        return self.alpha, self.beta

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self._reduced(self._losses(input, target))
