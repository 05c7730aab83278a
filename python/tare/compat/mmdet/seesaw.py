# SPDX-License-Identifier: Apache-2.0
"""mmdetection's SeesawLoss: Seesaw loss of the classes, and cross-entropy of objectness in two columns more."""

from __future__ import annotations

from typing import Any

import torch

from ... import torch as tare
from .. import NOT_A_LABEL, Refused, as_labels, check_tensors, loss_type
from ._layout import chosen, finished, reduction_options, shapes
from .cross_entropy import cross_entropy


def _accuracy(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Per cent of rows whose largest score is the label's."""
    if not len(scores):
        return scores.new_tensor(0.0)
    return (scores.argmax(1) == labels).float().sum(0, keepdim=True) * (100.0 / len(scores))


class SeesawLoss(tare.SeesawLoss):
    """Called with cls_score [N, C + 2], labels [N] (C is background), label_weights [N] and avg_factor. The last two
    columns are the objectness of an object and of the background, with a softmax of their own.

    Samples are counted as integers, in training with gradients alone; the original counts in float32, in every call.
    With a `process_group` they are added over its ranks. `cum_samples` is a copy for reading. load_state_dict takes the
    original's checkpoints too.
    """

    def __init__(
        self,
        use_sigmoid: bool = False,
        p: float = 0.8,
        q: float = 2.0,
        num_classes: int = 1203,
        eps: float = 1e-2,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        return_dict: bool = True,
        process_group: Any = None,
    ) -> None:
        if use_sigmoid:
            raise Refused(f"use_sigmoid is {use_sigmoid!r}; it must be False: Seesaw loss has a softmax")
        options = {} if process_group is None else {"process_group": process_group}
        super().__init__(num_classes + 1, p, q, eps, **options)  # the background is counted, too
        self.use_sigmoid, self.p, self.q, self.eps, self.num_classes = False, p, q, eps, num_classes
        self.reduction, self.loss_weight, self.return_dict = reduction, loss_weight, return_dict
        self.custom_cls_channels = self.custom_activation = self.custom_accuracy = True

    @property
    def cum_samples(self) -> torch.Tensor:
        """A copy of the samples of each class and of the background, float32 [C + 1]."""
        return self.counts.to(torch.float32)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
        given = dict(state_dict)
        samples = given.pop(prefix + "cum_samples", None)
        if samples is not None and prefix + "state" not in given:
            if samples.shape != (self.classes,):
                errors.append(f"{prefix}cum_samples has shape {tuple(samples.shape)}; there are {self.classes} counts")
                return
            state = torch.zeros_like(self.state, device="cpu")
            state[0] = int(bool((samples > 0).any()))
            state[1 + self.classes :] = samples.detach().cpu().to(torch.float64).view(torch.int64)
            given[prefix + "state"] = state
        super()._load_from_state_dict(given, prefix, local_metadata, strict, missing, unexpected, errors)

    def _split_cls_score(self, cls_score: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if cls_score.dim() < 2 or cls_score.size(-1) != self.num_classes + 2:
            raise shapes(f"there are {self.num_classes} classes, and two columns of objectness", cls_score=cls_score)
        return cls_score[..., :-2], cls_score[..., -2:]

    def get_cls_channels(self, num_classes: int) -> int:
        if num_classes != self.num_classes:
            raise ValueError(f"num_classes is {num_classes}; the loss has {self.num_classes}")
        return num_classes + 2

    def get_activation(self, cls_score: torch.Tensor) -> torch.Tensor:
        """Probabilities [N, C + 1], the background last."""
        classes, objectness = self._split_cls_score(cls_score)
        is_object = objectness.softmax(-1)
        return torch.cat([classes.softmax(-1) * is_object[..., :1], is_object[..., 1:]], -1)

    def get_accuracy(self, cls_score: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        classes, objectness = self._split_cls_score(cls_score)
        objects = labels < self.num_classes
        return {
            "acc_objectness": _accuracy(objectness, (labels == self.num_classes).long()),
            "acc_classes": _accuracy(classes[objects], labels[objects]),
        }

    def forward(self, cls_score, labels, label_weights=None, avg_factor=None, reduction_override=None):
        reduction = chosen(reduction_override, self.reduction)
        check_tensors(cls_score=cls_score, labels=labels, weight=label_weights)
        classes, objectness = self._split_cls_score(cls_score)
        if cls_score.dim() != 2 or labels.shape != cls_score.shape[:1]:
            raise shapes("labels are [N] beside [N, C + 2]", cls_score=cls_score, labels=labels)
        labels = as_labels(labels)
        losses = {
            "loss_cls_objectness": self.loss_weight
            * cross_entropy(objectness, (labels == self.num_classes).long(), label_weights, reduction, avg_factor),
            "loss_cls_classes": self.loss_weight * self._classes(classes, labels, label_weights, reduction, avg_factor),
        }
        return losses if self.return_dict else sum(losses.values())

    def _classes(self, scores, labels, weight, reduction, avg_factor):
        """Of rows with a class; "mean" is over them."""
        nothing = {"background_label": NOT_A_LABEL, "ignore_label": NOT_A_LABEL + 1}
        logs = self.weights(labels, {**self.options, **nothing})[: self.num_classes]
        options = reduction_options(reduction, avg_factor, "positives")
        if weight is not None:
            options["row_weights"] = weight.reshape(-1)
        marks = {"background_label": self.num_classes, "ignore_label": NOT_A_LABEL}
        parameters = {"p": self.p, "q": self.q, "epsilon": self.eps, "log_counts": logs}
        loss = tare.softmax_seesaw(scores, labels, **parameters, **marks, **options)
        if reduction == "none":
            loss = loss[labels < self.num_classes]
        given = [] if weight is None else [torch.float32]
        return finished(loss, loss_type(scores.device, scores.dtype, *given), reduction, avg_factor)
