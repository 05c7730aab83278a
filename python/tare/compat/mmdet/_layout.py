# SPDX-License-Identifier: Apache-2.0
"""What mmdetection's losses share: layouts of labels and weights, and its weight_reduce_loss."""

from __future__ import annotations

import torch

from ... import _checks, _tensors
from .. import Refused, check_tensors, reduced, torchvision

_EPSILON = torch.finfo(torch.float32).eps


def chosen(override: str | None, reduction: str) -> str:
    if override is not None and (not isinstance(override, str) or override not in ("none", "mean", "sum")):
        raise Refused(f"reduction_override is {override!r}; it is one of: None, none, mean, sum")
    return override or reduction


def reduction_options(reduction, avg_factor, mean):
    """What weight_reduce_loss does: avg_factor, if any, instead of the mean's divisor."""
    if avg_factor is None or reduction == "none":
        return reduced(reduction, mean)
    if reduction == "sum":
        raise ValueError("avg_factor is given with reduction 'sum'; it goes with 'mean'")
    if isinstance(avg_factor, torch.Tensor):
        check_tensors(avg_factor=avg_factor)
    elif not isinstance(avg_factor, (int, float)):
        avg_factor = _checks.number("avg_factor", avg_factor)
    return reduced(reduction, avg_factor + _EPSILON)


def finished(loss, dtype, reduction, avg_factor):
    """The loss in the original's type, and in the shape that division by avg_factor gives it."""
    if reduction == "mean" and isinstance(avg_factor, torch.Tensor):
        divisor = avg_factor.dtype if avg_factor.is_floating_point() else torch.float32
        dtype = divisor if avg_factor.dim() else torch.promote_types(dtype, divisor)
        loss = loss.reshape(avg_factor.shape)
    return loss.to(dtype)


def shapes(wanted: str, **tensors: torch.Tensor) -> Refused:
    given = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
    return Refused(f"{given}; {wanted}")


def check_labels(pred: torch.Tensor, label: torch.Tensor) -> None:
    if pred.dim() != 2 or label.shape != pred.shape[:1]:
        raise shapes("labels are [N] beside [N, C], dense ones have the shape of the logits", logits=pred, labels=label)


def check_dense(pred: torch.Tensor, label: torch.Tensor) -> None:
    if label.shape != pred.shape:
        raise shapes("dense labels have the shape of the logits", logits=pred, labels=label)


def weights_of(weight, pred):
    """Weights [N], [N, 1], [N, C] or flat beside logits [N, C], or of their shape, as the keywords they are."""
    if weight is None:
        return {}
    if weight.shape == pred.shape:
        return {"element_weights": weight}
    if pred.dim() != 2:
        raise shapes("a weight of more than two axes has the shape of the logits", weight=weight, logits=pred)
    if weight.shape == pred.shape[:1] or weight.shape == (len(pred), 1):
        return {"row_weights": weight.reshape(-1)}
    if weight.shape != (pred.numel(),):
        raise shapes("it is [N], [N, 1], [N, C] or flat", weight=weight, logits=pred)
    return {"element_weights": weight.reshape(pred.shape)}


def broadcast(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A weight as loss * weight takes it, but never one that makes more losses than there are."""
    try:
        return weight.broadcast_to(shape)
    except RuntimeError:
        raise Refused(f"weight has shape {tuple(weight.shape)}; the losses have {tuple(shape)}") from None


def row_options(weight, reduction, avg_factor, rows):
    """Keywords for a loss of rows: weights that broadcast to the shape `rows`, and the divisor, which counts rows."""
    options = reduction_options(reduction, avg_factor, float(max(rows.numel(), 1)))
    if weight is not None:
        options["row_weights"] = broadcast(weight, rows).to(torch.float32)
    if reduction == "none":
        options["reduction"] = "rows"
    return options


def types_of(weight: torch.Tensor | None) -> list[torch.dtype]:
    return [] if weight is None else [weight.dtype]


def one_hot(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Rows of a class as bool [N, C]; a label that is none of 0..C-1 is background."""
    return labels.unsqueeze(1) == torch.arange(classes, device=labels.device)


def dense_loss(loss, pred, target, options):
    """A sigmoid loss of dense targets, of any shape."""
    rows = torchvision.as_rows(pred)
    if "element_weights" in options:
        options = {**options, "element_weights": options["element_weights"].reshape(rows.shape)}
    result = loss(rows, targets=target.to(_tensors.wide(pred.dtype)).reshape(rows.shape), **options)
    return result.reshape(pred.shape) if options.get("reduction") == "none" else result
