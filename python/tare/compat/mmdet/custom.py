# SPDX-License-Identifier: Apache-2.0
"""mmdetection's losses for V3Det: those of every detector, with a classifier of num_classes of their own."""

from __future__ import annotations

from typing import Any

import torch

from .. import Refused, check_tensors
from ._layout import chosen
from .cross_entropy import CrossEntropyLoss
from .focal import FocalLoss, sigmoid_focal_loss


class _Custom:
    """What heads ask of a loss that brings its own classifier."""

    custom_cls_channels = custom_activation = custom_accuracy = True

    def _check_classes(self, num_classes: int) -> None:
        if num_classes == -1:
            raise Refused("num_classes is -1; give the number of classes")
        self.num_classes = num_classes

    def get_accuracy(self, cls_score: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """The percentage of rows with a class whose largest score is that of the class, in a tensor [1]."""
        rows = labels < self.num_classes
        scores, labels = cls_score[rows, : self.num_classes], labels[rows]
        if not len(scores):
            return {"acc_classes": scores.new_tensor(0.0)}
        return {"acc_classes": (scores.argmax(1) == labels).float().mean().reshape(1) * 100}

    def _channels(self, num_classes: int, more: int) -> int:
        if num_classes != self.num_classes:
            raise Refused(f"num_classes is {num_classes}; the loss was made with {self.num_classes}")
        return num_classes + more


class CrossEntropyCustomLoss(_Custom, CrossEntropyLoss):
    """CrossEntropyLoss with a classifier of its own."""

    def __init__(
        self,
        use_sigmoid: bool = False,
        use_mask: bool = False,
        reduction: str = "mean",
        num_classes: int = -1,
        class_weight: Any = None,
        ignore_index: int | None = None,
        loss_weight: float = 1.0,
        avg_non_ignore: bool = False,
    ) -> None:
        CrossEntropyLoss.__init__(
            self, use_sigmoid, use_mask, reduction, class_weight, ignore_index, loss_weight, avg_non_ignore
        )
        self._check_classes(num_classes)

    def get_cls_channels(self, num_classes: int) -> int:
        return self._channels(num_classes, 0 if self.use_sigmoid else 1)

    def get_activation(self, cls_score: torch.Tensor) -> torch.Tensor:
        scores = cls_score[:, : self.num_classes]
        if not self.use_sigmoid:
            return torch.cat([scores, cls_score[:, -1:]], dim=-1).softmax(dim=-1)
        scores = scores.sigmoid()
        return torch.cat([scores, (1 - scores.sum(dim=1, keepdim=True)).clamp(min=0, max=1)], dim=1)


class FocalCustomLoss(_Custom, FocalLoss):
    """FocalLoss of labels with a classifier of its own."""

    def __init__(
        self,
        use_sigmoid: bool = True,
        num_classes: int = -1,
        gamma: float = 2.0,
        alpha: float = 0.25,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None:
        FocalLoss.__init__(self, use_sigmoid, gamma, alpha, reduction, loss_weight, activated)
        self._check_classes(num_classes)

    def get_cls_channels(self, num_classes: int) -> int:
        return self._channels(num_classes, 0)

    def get_activation(self, cls_score: torch.Tensor) -> torch.Tensor:
        return cls_score[:, : self.num_classes].sigmoid()

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
        return self.loss_weight * sigmoid_focal_loss(
            pred, target, weight, self.gamma, self.alpha, reduction, avg_factor
        )
