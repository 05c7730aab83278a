# SPDX-License-Identifier: Apache-2.0
"""segmentation_models_pytorch.losses: FocalLoss, DiceLoss and TverskyLoss, of version 0.6.

Tare computes the reductions "mean" and "sum" of targets 0 and 1. PyTorch computes the rest by the original's formula:
targets between, `normalized`, other reductions, thresholds below 0.5. Differences: class weights are float32; alpha is
in [0,1]; `ignore_index` with mode "multilabel" is refused, where the original fails.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .. import torch as tare
from . import NOT_A_LABEL, Refused, check_tensors, loss_type, widened
from ._maps import along_classes, are_hard, as_map, labels_of_map, of_map, wide
from ._smp_overlaps import DiceLoss, TverskyLoss

__all__ = ["DiceLoss", "FocalLoss", "TverskyLoss"]

_MODES = ("binary", "multiclass", "multilabel")


class FocalLoss(torch.nn.Module):
    """Focal loss of y_pred [N, C, ...] and y_true: of its shape ("binary", "multilabel"), or labels [N, ...]
    ("multiclass", where each class has a sigmoid of its own). The mean over classes of each class's mean or sum.
    reduced_threshold: reduced focal loss (arXiv 1903.01347). from_logits=False: probabilities, clamped at eps."""

    def __init__(
        self,
        mode: str,
        alpha: float | None = None,
        gamma: float | None = 2.0,
        ignore_index: int | None = None,
        from_logits: bool = True,
        eps: float = 1e-7,
        reduction: str | None = "mean",
        normalized: bool = False,
        reduced_threshold: float | None = None,
        class_weights: list[float] | None = None,
    ) -> None:
        super().__init__()
        if mode not in _MODES:
            raise Refused(f"mode is {mode!r}; it is one of: {', '.join(_MODES)}")
        if class_weights is not None and mode == "binary":
            raise ValueError("class_weights are not supported with mode=binary")
        if ignore_index is not None and mode == "multilabel":
            raise ValueError(f"ignore_index is {ignore_index}; mode 'multilabel' takes none")
        self.mode, self.alpha, self.gamma, self.ignore_index = mode, alpha, gamma, ignore_index
        self.from_logits, self.eps, self.reduction = from_logits, eps, reduction
        self.normalized, self.reduced_threshold = normalized, reduced_threshold
        self.class_weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float)

    def forward(self, y_pred: torch.Tensor, y_true: torch.Tensor) -> torch.Tensor:
        check_tensors(y_pred=y_pred, y_true=y_true)
        dtype = loss_type(y_pred.device, y_pred.dtype)
        if not self.from_logits:
            p = y_pred.clamp(self.eps, 1 - self.eps)
            y_pred = p.log() if self.mode == "multiclass" else (p / (1 - p)).log()
        if self.mode == "binary":
            y_pred, y_true = y_pred.reshape(-1, 1), y_true.reshape(-1, 1)
        labels = self.mode == "multiclass"
        if y_true.shape != (y_pred.shape[:1] + y_pred.shape[2:] if labels else y_pred.shape):
            raise Refused(f"y_pred has shape {tuple(y_pred.shape)}, y_true {tuple(y_true.shape)}")
        threshold = self.reduced_threshold
        known = self.reduction in ("mean", "sum") and not self.normalized
        known = known and (threshold is None or 0.5 <= threshold <= 1)
        ours = known and not y_true.requires_grad and (labels or are_hard(self._hidden(y_true)))
        return (self._kernel if ours else self._plain)(y_pred, y_true).to(dtype)

    def _hidden(self, y_true: torch.Tensor) -> torch.Tensor:
        return y_true if self.ignore_index is None else torch.where(y_true == self.ignore_index, 0, y_true)

    def _kernel(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        classes = x.shape[1]
        options = {"alpha": -1.0 if self.alpha is None else float(self.alpha), "gamma": self.gamma, **of_map(x)}
        threshold = self.reduced_threshold
        function: Any = tare.sigmoid_focal if threshold is None else tare.sigmoid_reduced_focal
        if threshold is not None:
            options["threshold"] = float(threshold)
        counted = float(y.numel()) if self.ignore_index is None else (y != self.ignore_index).sum()
        weights, total = self.class_weights, float(classes)
        if weights is not None:
            weights = weights.to(x.device)
            options["element_weights"], total = as_map(along_classes(weights, x.shape)), weights.sum()
        places = counted if self.mode == "multiclass" or self.mode == "binary" else counted / classes
        options["normalizer"] = total * (places if self.reduction == "mean" else 1.0)
        if self.mode == "multiclass":
            ignored = NOT_A_LABEL if self.ignore_index is None else self.ignore_index
            y = torch.where((y >= 0) & (y < classes) | (y == ignored), y, classes)
            marks = {"background_label": classes, "ignore_label": ignored}
            if ignored == classes:
                marks["background_label"] = classes + 1
            return function(as_map(x), labels_of_map(y.long()), **marks, **options)
        if self.ignore_index is not None:
            options["element_weights"] = as_map((y != self.ignore_index).to(torch.float32))
        return function(as_map(x), targets=as_map(wide(self._hidden(y), x)), **options)

    def _plain(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        found = []
        for one in range(x.shape[1]):
            chosen = (y == one) if self.mode == "multiclass" else y[:, one]
            of_class = x[:, one]
            if self.ignore_index is not None:
                kept = (y if self.mode == "multiclass" else chosen) != self.ignore_index
                chosen, of_class = chosen[kept], of_class[kept]
            found.append(self._elements(widened(of_class), chosen))
        if self.mode == "binary":
            return found[0]
        losses = torch.stack(found)
        if self.class_weights is None:
            return losses.mean()
        weights = self.class_weights.to(losses.device)
        return (losses * weights).sum() / weights.sum()

    def _elements(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        y = y.to(x.dtype)
        losses, threshold = F.binary_cross_entropy_with_logits(x, y, reduction="none"), self.reduced_threshold
        pt = (-losses).exp()
        factor = (1 - pt).pow(self.gamma)
        if threshold is not None:
            factor = torch.where(pt < threshold, 1.0, ((1 - pt) / threshold).pow(self.gamma))
        losses = losses * factor
        if self.alpha is not None:
            losses = losses * (self.alpha * y + (1 - self.alpha) * (1 - y))
        if self.normalized:
            losses = losses / factor.sum().clamp_min(1e-6)
        known = {"mean": torch.Tensor.mean, "sum": torch.Tensor.sum, "batchwise_mean": lambda a: a.sum(0)}
        return known.get(self.reduction or "", lambda a: a)(losses)
