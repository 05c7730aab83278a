# SPDX-License-Identifier: Apache-2.0
"""Losses with the signatures, defaults and reductions of other libraries, to be put in their place.

    from tare.compat.torchvision import sigmoid_focal_loss

One module a library: torchvision, fvcore, mmcv, mmdet, apex. None of them imports the library that it is named after.
Common to all: logits in float16 or bfloat16 are computed in float32, and losses are float32 (float64 for float64);
nothing waits for a GPU; a mean over nothing is 0, not NaN; a second derivative raises; targets and weights that ask for
a gradient are refused. Where a module differs otherwise, its docstring says so.

Dense targets outside [0,1] (of softmax: below 0) go as far as the original's: on a CPU, eagerly, PyTorch then computes
its formula. Those within 1e-3 of [0,1] are taken as 0 or 1. In a graph of torch.compile they raise; on a GPU, where
nobody can look without waiting, such a row adds nothing, and tare.torch.check() finds it.
"""

from __future__ import annotations

from typing import Callable

import torch
import torch.nn.functional as F

from .. import _c, _checks, _tensors

NOT_A_LABEL = _c.NOT_A_LABEL


_INVALID_TARGET = 6


def or_original(ours: Callable[[], torch.Tensor], theirs: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What Tare computes, or, where targets are out of its range, the original's formula."""
    try:
        return ours()
    except _c.ArgumentError as error:
        if error.status != _INVALID_TARGET:
            raise
    return theirs()


def check_tensors(**given: torch.Tensor | None) -> None:
    """Tensors of real numbers, by the names of the original's arguments; `weight` may be None."""
    for name, tensor in given.items():
        if tensor is None and name == "weight":
            continue
        if _tensors.check_tensor(name, tensor).is_complex():
            raise _checks.WrongType(f"{name} is {tensor.dtype}; it must be of real numbers")


def widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)


def focal_elements(inputs: torch.Tensor, targets: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    """Sigmoid focal loss of elements, as torchvision and mmdetection write it; alpha negative: off."""
    inputs, targets = widened(inputs), targets.to(widened(inputs).dtype)
    p = inputs.sigmoid()
    q = p * (1 - targets) + (1 - p) * targets
    losses = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none") * q**gamma
    return losses if alpha < 0 else losses * (alpha * targets + (1 - alpha) * (1 - targets))


def reduce_plainly(losses: torch.Tensor, options: dict) -> torch.Tensor:
    """Losses of elements (softmax: of rows) with the weights, divisor and reduction of tare.torch.loss's keywords."""
    if "element_weights" in options:
        losses = losses * options["element_weights"].reshape(losses.shape)
    if "row_weights" in options:
        rows = options["row_weights"]
        losses = losses * (rows.reshape(losses.shape) if rows.numel() == losses.numel() else rows.unsqueeze(-1))
    if options.get("reduction") == "none":
        return losses
    divisor = options.get("normalizer", 1)
    return losses.sum() / (max(losses.numel(), 1) if divisor == "elements" else divisor)


def reduced(reduction, mean):
    """The keywords of tare.torch.loss for "none", "sum" or "mean", the last divided by `mean`."""
    known = {"none": {"reduction": "none"}, "sum": {}, "mean": {"normalizer": mean}}
    if reduction not in known:
        raise ValueError(f"reduction is '{reduction}'; it is one of: none, mean, sum")
    return known[reduction]
