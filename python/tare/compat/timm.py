# SPDX-License-Identifier: Apache-2.0
"""timm.loss: AsymmetricLossMultiLabel, of timm 1.0.31.

Differences: `eps` has no effect. The original clamps probabilities at it, so that a label far out has no gradient. Here
loss and gradient are those of the formula everywhere. A target between 0 and 1 mixes the losses of 1 and 0; the
original mixes their exponents too. With `smoothing` PyTorch computes the loss by the original's formula. A mean over
nothing is 0. float64 is computed as such.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import _checks
from .. import torch as tare
from . import Refused, check_tensors, widened
from .torchvision import as_rows

_REDUCTIONS = ("batchmean", "sum", "mean", "none")


class AsymmetricLossMultiLabel(torch.nn.Module):
    """Asymmetric loss (arXiv 2009.14119) of logits x and targets y, both [..., classes]."""

    weight: torch.Tensor | None
    pos_weight: torch.Tensor | None

    def __init__(
        self,
        gamma_neg: float = 4,
        gamma_pos: float = 1,
        clip: float | None = 0.05,
        eps: float = 1e-8,
        disable_torch_grad_focal_loss: bool = False,
        smoothing: float = 0.0,
        reduction: str = "batchmean",
        weight: torch.Tensor | None = None,
        pos_weight: torch.Tensor | float | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= smoothing < 1:
            raise Refused(f"smoothing is {smoothing}; it must be in [0,1)")
        self.reduction = _checks.word("reduction", reduction, _REDUCTIONS)
        self.gamma_neg, self.gamma_pos, self.clip, self.eps = gamma_neg, gamma_pos, clip, eps
        self.disable_torch_grad_focal_loss, self.smoothing = disable_torch_grad_focal_loss, smoothing
        if pos_weight is not None and not isinstance(pos_weight, torch.Tensor):
            pos_weight = torch.tensor(pos_weight)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def _options(self, x: torch.Tensor) -> dict[str, Any]:
        rows = as_rows(x)
        given: dict[str, Any] = {}
        if self.reduction == "none":
            given["reduction"] = "none"
        elif self.reduction != "sum":
            given["normalizer"] = float(max(1, x.shape[0] if self.reduction == "batchmean" and x.dim() else x.numel()))
        if self.weight is not None:
            given["element_weights"] = self.weight.to(torch.float32).expand(x.shape).reshape(rows.shape)
        if self.pos_weight is not None:
            given["positive_weights"] = self.pos_weight.to(torch.float32).expand(rows.shape[-1]).contiguous()
        return given

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        check_tensors(x=x, y=y)
        if x.shape != y.shape:
            raise Refused(f"x has shape {tuple(x.shape)}, y {tuple(y.shape)}")
        if self.smoothing:
            return self._original(widened(x), y * (1 - self.smoothing) + self.smoothing / 2)
        rows = as_rows(widened(x))
        dense = y if y.is_floating_point() else y.to(torch.float32)
        loss = tare.sigmoid_asymmetric(
            rows,
            targets=dense.reshape(rows.shape),
            gamma_positive=float(self.gamma_pos),
            gamma_negative=float(self.gamma_neg),
            margin=max(float(self.clip or 0), 0.0),
            modulator="detached" if self.disable_torch_grad_focal_loss else "differentiated",
            **self._options(x),
        )
        return loss.reshape(x.shape) if self.reduction == "none" else loss

    def _original(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        p = x.sigmoid()
        rest = (1 - p + max(self.clip or 0, 0)).clamp(max=1)
        positive = y * p.clamp(min=self.eps).log()
        if self.pos_weight is not None:
            positive = positive * self.pos_weight
        factor = (1 - p * y - rest * (1 - y)) ** (self.gamma_pos * y + self.gamma_neg * (1 - y))
        factor = factor.detach() if self.disable_torch_grad_focal_loss else factor
        loss = -(positive + (1 - y) * rest.clamp(min=self.eps).log()) * factor
        loss = loss if self.weight is None else loss * self.weight
        if self.reduction == "none":
            return loss
        return loss.sum() / self._options(x).get("normalizer", 1)
