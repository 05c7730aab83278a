# SPDX-License-Identifier: Apache-2.0
"""mmdetection's EQLV2Loss: equalization loss v2 with a column of objectness."""

from __future__ import annotations

from typing import Any

import torch

from ...torch.nn import EQLv2Loss
from .. import NOT_A_LABEL, Refused, as_labels, check_tensors, loss_type
from ._layout import chosen, finished, row_options, shapes

_NO_MARKS = {"background_label": NOT_A_LABEL, "ignore_label": NOT_A_LABEL + 1}
_BUFFERS = ("pos_grad", "neg_grad", "pos_neg")


class EQLV2Loss(EQLv2Loss):
    """Called with cls_score [N, C + 1], label [N] (C is background), weight [N], avg_factor and reduction_override. The
    last column is objectness; its weights stay 1.

    Sums of gradients are double, and added in training with gradients alone; the original's are float32, and each call
    adds. `pos_grad`, `neg_grad` and `pos_neg` are copies for reading. load_state_dict takes the original's checkpoints
    too.

    The original ignores weight, avg_factor, reduction and reduction_override, and divides by N. Here they work as in
    mmdetection's other losses; with weights of 1 and their number as avg_factor the loss is the original's. A row of
    weight 0 adds nothing. The original ignores class_weight and use_sigmoid=False; here they are refused, and so is a
    label of -1, which it takes for objectness.

    use_distributed: the gradients of a step are added over all ranks, or over process_group. Each rank divides by its
    own rows, as the original does.

    mmdetection's box heads predict with a softmax, since the original does not offer them get_activation.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        reduction: str = "mean",
        class_weight: torch.Tensor | None = None,
        loss_weight: float = 1.0,
        num_classes: int = 1203,
        use_distributed: bool = False,
        mu: float = 0.8,
        alpha: float = 4.0,
        gamma: float = 12,
        vis_grad: bool = False,
        test_with_obj: bool = True,
        process_group: Any = None,
    ) -> None:
        if not use_sigmoid:
            raise Refused(f"use_sigmoid is {use_sigmoid!r}; it must be True: EQLv2 has a sigmoid")
        if class_weight is not None:
            raise Refused("class_weight is given; EQLv2 forms the weights of classes")
        super().__init__(num_classes + 1, gamma, mu, alpha, exempt=num_classes)
        self.use_sigmoid, self.reduction, self.loss_weight = True, reduction, loss_weight
        self.class_weight, self.num_classes, self.group = None, num_classes, True
        self.vis_grad, self.mu, self.alpha, self.gamma = vis_grad, mu, alpha, gamma
        self.use_distributed, self.test_with_obj = use_distributed, test_with_obj
        if process_group is not None:
            self.options["process_group"] = process_group

    @property
    def pos_grad(self) -> torch.Tensor:
        """A copy of the sums of positive gradients, float32 [C]."""
        return self.gradients[:-1, 0].to(torch.float32)

    @property
    def neg_grad(self) -> torch.Tensor:
        """A copy of the sums of negative gradients, float32 [C]."""
        return self.gradients[:-1, 1].to(torch.float32)

    @property
    def pos_neg(self) -> torch.Tensor:
        """Their ratio, float32 [C]; 100 before the first step."""
        if self.steps == 0:
            return torch.full((self.num_classes,), 100.0, device=self.state.device)
        positive, negative = self.gradients[:-1].unbind(1)
        return (positive / (negative + 1e-10)).to(torch.float32)

    def map_func(self, x: torch.Tensor) -> torch.Tensor:
        return 1 / (1 + torch.exp(-self.gamma * (x - self.mu)))

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
        given = dict(state_dict)
        found = [given.pop(prefix + name, None) for name in _BUFFERS][:2]
        if prefix + "state" not in given and all(one is not None for one in found):
            if any(one.shape != (self.num_classes,) for one in found):
                shape = " and ".join(str(tuple(one.shape)) for one in found)
                errors.append(
                    f"{prefix}pos_grad and neg_grad have shapes {shape}; there are {self.num_classes} classes"
                )
                return
            sums = torch.zeros(self.classes, 2, dtype=torch.float64)
            sums[:-1] = torch.stack([one.detach().cpu().to(torch.float64) for one in found], 1)
            state = torch.zeros_like(self.state, device="cpu")
            state[0] = int(bool((sums > 0).any()))
            state[1 + 2 * self.classes :] = sums.reshape(-1).view(torch.int64)
            given[prefix + "state"] = state
        super()._load_from_state_dict(given, prefix, local_metadata, strict, missing, unexpected, errors)

    def get_channel_num(self, num_classes: int) -> int:
        return num_classes + 1

    def get_activation(self, pred: torch.Tensor) -> torch.Tensor:
        """Probabilities [N, C + 1]; test_with_obj: those of classes times that of an object."""
        found = pred.sigmoid()
        if not self.test_with_obj:
            return found
        return torch.cat([found[:, :-1] * (1 - found[:, -1:]), found[:, -1:]], 1)

    def forward(self, cls_score, label, weight=None, avg_factor=None, reduction_override=None):
        reduction = chosen(reduction_override, self.reduction)
        check_tensors(cls_score=cls_score, label=label, weight=weight)
        if cls_score.dim() != 2 or cls_score.size(1) != self.classes or label.shape != cls_score.shape[:1]:
            wanted = (
                f"labels are [N] beside [N, {self.classes}]: {self.num_classes} classes, and a column of objectness"
            )
            raise shapes(wanted, cls_score=cls_score, label=label)
        options = row_options(weight, reduction, avg_factor, label.shape)
        if reduction == "none":
            options["reduction"] = "none"  # of elements
        if self.use_distributed and "process_group" not in self.options:
            options["process_group"] = torch.distributed.group.WORLD
        if "process_group" in {**self.options, **options}:
            options["gradients"] = "summed"
        loss = self.loss_weight * super().forward(cls_score, as_labels(label), **_NO_MARKS, **options)
        return finished(loss, loss_type(cls_score.device, cls_score.dtype, torch.float32), reduction, avg_factor)
