# SPDX-License-Identifier: Apache-2.0
"""segmentation_models_pytorch.losses: DiceLoss and TverskyLoss, of version 0.6."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from . import Refused, check_tensors, loss_type, or_original, widened
from ._maps import are_hard
from ._overlaps import are_smoothings, are_weights, channel_rows, overlap_losses

_MODES = ("binary", "multiclass", "multilabel")


class DiceLoss(torch.nn.Module):
    """Dice loss of y_pred [N, C, ...] over the batch, and the mean of the classes. y_true: of its shape ("binary",
    "multilabel"), or labels [N, ...] ("multiclass"). A class without a pixel has loss 0.

    Tare computes "binary" and "multilabel" from logits with targets 0 and 1; PyTorch the rest, and log_loss.
    """

    alpha, beta, gamma = 0.5, 0.5, 1.0

    def __init__(
        self,
        mode: str,
        classes: list[int] | None = None,
        log_loss: bool = False,
        from_logits: bool = True,
        smooth: float = 0.0,
        ignore_index: int | None = None,
        eps: float = 1e-7,
        class_weights: list[float] | None = None,
    ) -> None:
        super().__init__()
        if mode not in _MODES:
            raise Refused(f"mode is {mode!r}; it is one of: {', '.join(_MODES)}")
        if class_weights is not None and mode == "binary":
            raise ValueError("class_weights are not supported with mode=binary")
        if classes is not None and mode == "binary":
            raise Refused("Masking classes is not supported with mode=binary")
        self.mode, self.log_loss, self.from_logits = mode, log_loss, from_logits
        self.smooth, self.ignore_index, self.eps = smooth, ignore_index, eps
        self.classes = None if classes is None else torch.as_tensor(classes, dtype=torch.long)
        self.class_weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float)

    def forward(self, y_pred: torch.Tensor, y_true: torch.Tensor) -> torch.Tensor:
        check_tensors(y_pred=y_pred, y_true=y_true)
        if y_pred.shape[0] != y_true.shape[0]:
            raise Refused(f"y_pred has {y_pred.shape[0]} images, y_true {y_true.shape[0]}")
        if self.mode == "binary":
            y_pred, y_true = (one.reshape(len(one), 1, -1) for one in (y_pred, y_true))
        elif self.mode == "multilabel":
            y_true = y_true.reshape(y_pred.shape)
        valid = None if self.ignore_index is None else y_true != self.ignore_index
        t = y_true if valid is None else y_true * valid
        if self.mode == "multiclass":
            t = F.one_hot(t.long(), y_pred.shape[1]).movedim(-1, 1)
            valid = None if valid is None else valid.unsqueeze(1).expand(t.shape)
            t = t if valid is None else t * valid
        losses = self._losses(y_pred, t, valid).to(loss_type(y_pred.device, y_pred.dtype))
        losses = losses * (channel_rows(t, True).sum(1) > 0)
        losses = losses if self.classes is None else losses[self.classes]
        return self.aggregate_loss(losses)

    def _losses(self, x, t, valid):
        """One a class, [C]."""
        known = self.from_logits and self.mode != "multiclass" and not self.log_loss and self.eps <= 1e-6
        known = known and are_weights(self.alpha, self.beta) and are_smoothings(self.smooth, self.smooth)
        if known and self.beta >= 1e-6 and are_hard(t) and t.numel():
            return or_original(lambda: self._kernel(x, t, valid), lambda: self._plain(x, t, valid), t)
        return self._plain(x, t, valid)

    def _kernel(self, x, t, valid):
        return overlap_losses(
            x,
            t,
            True,
            valid,
            false_positive_weight=float(self.alpha),
            false_negative_weight=float(self.beta),
            numerator_smoothing=float(self.smooth),
            denominator_smoothing=float(self.smooth),
        )

    def _plain(self, x, t, valid):
        p = widened(x)
        if self.from_logits:
            p = p.softmax(1) if self.mode == "multiclass" else p.sigmoid()
        p = p if valid is None else p * valid.reshape(p.shape)
        p, t = channel_rows(p, True), channel_rows(t.reshape(p.shape), True).to(p.dtype)
        of_p, of_t = p.sum(1), t.sum(1)
        tp = (of_p + of_t - (p - t).abs().sum(1)) / 2
        below = tp + self.alpha * (of_p - tp) + self.beta * (of_t - tp) + self.smooth
        score = (tp + self.smooth) / below.clamp_min(self.eps)
        return -score.clamp_min(self.eps).log() if self.log_loss else 1 - score

    def aggregate_loss(self, loss: torch.Tensor) -> torch.Tensor:
        if self.class_weights is None:
            return self._raised(loss.mean())
        weights = self.class_weights.to(loss.device)
        weights = weights if self.classes is None else weights[self.classes]
        return self._raised((loss * weights).sum() / weights.sum())

    def _raised(self, loss: torch.Tensor) -> torch.Tensor:
        return loss


class TverskyLoss(DiceLoss):
    """Tversky loss of y_pred and y_true as DiceLoss has them. alpha: the weight of false positives. beta: of false
    negatives. gamma: the power of the mean over the classes."""

    def __init__(
        self,
        mode: str,
        classes: list[int] | None = None,
        log_loss: bool = False,
        from_logits: bool = True,
        smooth: float = 0.0,
        ignore_index: int | None = None,
        eps: float = 1e-7,
        alpha: float = 0.5,
        beta: float = 0.5,
        gamma: float = 1.0,
        class_weights: list[float] | None = None,
    ) -> None:
        super().__init__(mode, classes, log_loss, from_logits, smooth, ignore_index, eps, class_weights)
        self.alpha, self.beta, self.gamma = alpha, beta, gamma

    def _raised(self, loss: torch.Tensor) -> torch.Tensor:
        return loss**self.gamma
