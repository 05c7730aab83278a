# SPDX-License-Identifier: Apache-2.0
"""mmdetection's GHMC and GHMR."""

from __future__ import annotations

import torch

from ... import torch as tare
from .. import NOT_A_LABEL, as_labels, check_tensors, loss_type
from ._layout import broadcast, check_dense, check_labels, chosen, shapes


def _check_reduction(reduction):
    if reduction not in ("none", "mean"):
        raise ValueError(f"reduction is '{reduction}'; a GHM loss has its own divisor and takes 'none' or 'mean'")


class _Checkpoints:
    """The original's buffers `acc_sum` and `edges`: for reading, and from its checkpoints."""

    bins: int
    momentum: float
    state: torch.Tensor
    _last_edge: float

    @property
    def edges(self) -> torch.Tensor:
        """Limits of the bins, float32 [bins + 1]."""
        edges = torch.arange(self.bins + 1, device=self.state.device).float() / self.bins
        edges[-1] = self._last_edge
        return edges

    @property
    def acc_sum(self) -> torch.Tensor:
        """A copy of the momentum sums, float32 [bins]."""
        if not self.momentum > 0:
            raise AttributeError("without momentum there is no acc_sum")
        return self.state[2 + self.bins : 2 + 2 * self.bins].view(torch.float64).to(torch.float32)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
        given = dict(state_dict)
        edges = given.pop(prefix + "edges", None)
        sums = given.pop(prefix + "acc_sum", None) if self.momentum > 0 else None
        if edges is not None and edges.shape != (self.bins + 1,):
            errors.append(f"{prefix}edges has shape {tuple(edges.shape)}; {self.bins} bins have {self.bins + 1}")
            return
        if prefix + "state" not in given and (edges is not None or sums is not None):
            if sums is not None and (fault := self._fault_of(sums)):
                errors.append(f"{prefix}acc_sum {fault}")
                return
            lost = self.momentum > 0 and sums is None
            missing += [prefix + "acc_sum"] if strict and lost else []
            given[prefix + "state"] = self.state.clone() if lost else self._state_of(sums)
        super()._load_from_state_dict(given, prefix, local_metadata, strict, missing, unexpected, errors)

    def _fault_of(self, sums: torch.Tensor) -> str:
        if sums.shape != (self.bins,):
            return f"has shape {tuple(sums.shape)}; there are {self.bins} bins"
        if not sums.is_meta and not bool((sums.isfinite() & (sums >= 0)).all()):
            return "has a sum that is negative or not finite"
        return ""

    def _state_of(self, sums: torch.Tensor | None) -> torch.Tensor:
        """A state with the sums of a checkpoint; the next batch finds the densities."""
        state = tare.ghm_state(self.bins)
        if sums is not None:
            state[0] = int(bool((sums > 0).any()))
            state[2 + self.bins : 2 + 2 * self.bins] = sums.detach().cpu().to(torch.float64).view(torch.int64)
        return state


class GHMC(_Checkpoints, tare.GHMC):
    """GHM-C as mmdetection computes it (not as the paper has it: see variant in the C header). Called with pred [N, C],
    target [N] (0..C-1; anything else is background) and label_weight [N]; or dense, of any shape, with a label_weight
    that broadcasts to it. Where label_weight is not above 0 an element is ignored. Its other values have no effect, as
    in the original. Other keywords, such as avg_factor, have none either."""

    _last_edge = 1 + 1e-6

    def __init__(
        self,
        bins: int = 10,
        momentum: float = 0,
        use_sigmoid: bool = True,
        loss_weight: float = 1.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__(bins, momentum, variant="mmdet")
        if not use_sigmoid:
            raise NotImplementedError("use_sigmoid must be True")
        self.use_sigmoid, self.loss_weight, self.reduction = use_sigmoid, loss_weight, reduction

    def forward(self, pred, target, label_weight, reduction_override=None, **kwargs):
        reduction = chosen(reduction_override, self.reduction)
        check_tensors(pred=pred, target=target, label_weight=label_weight)
        _check_reduction(reduction)
        options = {"reduction": "none"} if reduction == "none" else {}
        if target.dim() == pred.dim():
            check_dense(pred, target)
            mask = _mask(label_weight, pred)
            loss = super().forward(pred.reshape(-1, 1), targets=_column(target), row_weights=mask, **options)
        else:
            mask = self._mask_of_rows(pred, target, label_weight)
            loss = super().forward(pred, self._labels(pred, target), row_weights=mask, **self._marks(pred), **options)
        if reduction == "none":
            counted = mask.sum() * (pred.numel() // max(mask.numel(), 1))
            loss = loss.reshape(pred.shape) * counted.clamp(min=1)
        return self.loss_weight * loss.to(loss_type(pred.device, pred.dtype, torch.float32))

    @staticmethod
    def _mask_of_rows(pred, target, label_weight):
        check_labels(pred, target)
        if label_weight.numel() != len(pred):
            raise shapes("beside labels it is [N]", label_weight=label_weight, logits=pred)
        return (label_weight.detach().reshape(-1) > 0).float()

    @staticmethod
    def _labels(pred, target):
        labels, classes = as_labels(target), pred.shape[1]
        return torch.where(labels < 0, classes, labels.clamp(max=classes))

    @staticmethod
    def _marks(pred):
        return {"background_label": pred.shape[1], "ignore_label": NOT_A_LABEL}


def _column(dense: torch.Tensor) -> torch.Tensor:
    """Elements as rows of one class: GHM's counts know no rows, and a mask is of rows."""
    return dense.to(torch.float32).reshape(-1, 1)


def _mask(label_weight: torch.Tensor, pred: torch.Tensor) -> torch.Tensor:
    """label_weight as one weight an element, 0 or 1. One of rows, [N], may stand beside [N, C] if it cannot be meant
    for columns; the original takes it for these."""
    if pred.dim() == 2 and label_weight.shape == pred.shape[:1] != pred.shape[1:]:
        label_weight = label_weight.unsqueeze(1)
    return (broadcast(label_weight.detach(), pred.shape).reshape(-1) > 0).float()


class GHMR(_Checkpoints, tare.GHMR):
    """GHM-R as mmdetection computes it. Called with pred and target of one shape, [N, 4], and a label_weight that
    broadcasts to it, where 0 is ignored. avg_factor is not used, as in the original."""

    _last_edge = 1e3

    def __init__(
        self, mu: float = 0.02, bins: int = 10, momentum: float = 0, loss_weight: float = 1.0, reduction: str = "mean"
    ) -> None:
        super().__init__(mu, bins, momentum, variant="mmdet")
        self.mu, self.loss_weight, self.reduction = mu, loss_weight, reduction

    def forward(self, pred, target, label_weight, avg_factor=None, reduction_override=None):
        reduction = chosen(reduction_override, self.reduction)
        check_tensors(pred=pred, target=target, label_weight=label_weight)
        _check_reduction(reduction)
        if target.shape != pred.shape:
            raise shapes("they must be of one shape", pred=pred, target=target)
        dtype = loss_type(pred.device, pred.dtype, target.dtype)
        target = target if target.is_floating_point() else target.to(torch.float32)
        if target.requires_grad:  # of the difference alone, whose gradient reaches both
            pred, target = pred - target, torch.zeros_like(target)
        options = {"reduction": "none"} if reduction == "none" else {}
        loss = super().forward(
            pred.reshape(-1, 1), target.reshape(-1, 1), row_weights=_mask(label_weight, pred), **options
        )
        if reduction == "none":
            loss = loss.reshape(pred.shape) * label_weight.detach().float().sum().clamp(min=1)
        return self.loss_weight * loss.to(dtype)
