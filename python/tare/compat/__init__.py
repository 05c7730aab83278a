# SPDX-License-Identifier: Apache-2.0
"""Losses with the signatures, defaults and reductions of other libraries, as replacements.

    from tare.compat.torchvision import sigmoid_focal_loss

There is one module for each library: torchvision, fvcore, detectron2, mmcv, mmdet, apex, transformers, rfdetr,
ultralytics, sam3, timm, kornia, monai, segmentation_models_pytorch. Only registering in mmdetection imports the
library. tare.patch puts the functions, modules and methods into an installed one.

These differences are common to all. Logits in float16 or bfloat16 are computed in float32; the loss then has the
type that the original's has, also under autocast. Nothing waits for a GPU. A mean over nothing is 0, not NaN. A second
derivative raises. Labels may be of any integer type.

What Tare's kernels do not compute, PyTorch computes by the original's formula: targets and weights that require a
gradient, probabilities instead of logits.

Dense targets outside [0,1] (softmax: below 0) work as in the original: on a CPU, eagerly, PyTorch then computes the
original's formula. Targets within 1e-3 of [0,1] are clamped. In a graph of torch.compile such targets raise. On a GPU
they cannot be seen without waiting: such a row adds nothing, and tare.torch.check() reports it.
"""

from __future__ import annotations

import functools
from typing import Callable

import torch
import torch.nn.functional as F

from .. import _c, _checks, _tensors, _wording

NOT_A_LABEL = _wording.NOT_A_LABEL


_INVALID_TARGET = 6


class Refused(AssertionError, ValueError):
    """A refusal where the original has an assert: what catches either catches this."""


def or_original(
    ours: Callable[[], torch.Tensor], theirs: Callable[[], torch.Tensor], *constants: torch.Tensor | None
) -> torch.Tensor:
    """Tare's loss; or the original's formula if targets are out of Tare's range, or a constant asks for a gradient."""
    if any(one is not None and one.requires_grad for one in constants):
        return theirs()
    try:
        return ours()
    except _c.ArgumentError as error:
        if error.status != _INVALID_TARGET:
            raise
    return theirs()


def loss_type(device: torch.device, *dtypes: torch.dtype) -> torch.dtype:
    """The type of a loss that PyTorch's operators make of tensors of these types; autocast makes it float32."""
    dtype = functools.reduce(torch.promote_types, dtypes)
    if not dtype.is_floating_point:
        return torch.float32
    narrow = dtype in (torch.float16, torch.bfloat16)
    return torch.float32 if narrow and torch.is_autocast_enabled(device.type) else dtype


def as_labels(labels: torch.Tensor) -> torch.Tensor:
    """Labels of any integer type, as one that the library takes."""
    whole = not (labels.is_floating_point() or labels.dtype == torch.bool)
    return labels.long() if whole and labels.dtype not in (torch.int32, torch.int64) else labels


def check_tensors(**given: torch.Tensor | None) -> None:
    """Tensors of real numbers, by the names of the original's arguments; `weight` may be None."""
    for name, tensor in given.items():
        if tensor is None and name == "weight":
            continue
        checked = _tensors.check_tensor(name, tensor)
        if checked.is_complex():
            raise _checks.WrongType(f"{name} is {checked.dtype}; it must be of real numbers")


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
        raise Refused(f"Invalid: reduction is '{reduction}'; it is one of: none, mean, sum")
    return known[reduction]
