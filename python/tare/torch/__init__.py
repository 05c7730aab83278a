# SPDX-License-Identifier: Apache-2.0
"""Tare's losses on PyTorch tensors, with autograd, on CPU and GPU, eagerly and under torch.compile.

    loss = tare.torch.sigmoid_focal(logits, labels, normalizer="positives")
    loss.backward()

A scalar loss of float32, float64 or bfloat16 logits is computed together with its gradient, in one pass, on a CPU and
on a GPU. The gradient is kept until the first backward and takes as much memory as the logits. Backward multiplies it
by the upstream gradient, which is read on the device, and does nothing where that is 1. So bfloat16 gradients are
rounded twice where it is another number. keep_gradient=False does without this memory.

float16, and the reductions "rows" and "none", are evaluated a second time in backward, with the upstream gradient as a
scale. It is applied in single precision before the gradient is rounded to the logits' type. So float16 gradients under
AMP's loss scale are rounded once. In both cases backward may run twice. Nothing waits for a GPU.

Every function takes the arguments of `loss`. Arguments other than the logits are constants. They get no gradient, and
an argument that requires one is refused. Autocast has no effect: half types are computed in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from .. import _c, _call, _checks, _losses, _ranks, _tensors
from .._loss import Head, ghm_state, loss
from . import _functions, nn
from ._functions import (
    ghm_c,
    ghm_r,
    sigmoid_asymmetric,
    sigmoid_ce,
    sigmoid_focal,
    sigmoid_focal_star,
    sigmoid_heatmap_focal,
    sigmoid_iou_aware,
    sigmoid_matchability,
    sigmoid_poly1,
    sigmoid_quality_focal,
    sigmoid_reduced_focal,
    sigmoid_varifocal,
    softmax_ce,
    softmax_distribution_focal,
    softmax_focal,
    softmax_ldam,
    softmax_logit_adjusted,
    softmax_seesaw,
    softmax_two_hot,
)
from ._masks import MaskLosses, dice_loss, focal_dice_loss, mask_loss, tversky_loss
from .nn import GHMC, GHMR, LDAMLoss, LogitAdjustedLoss, SeesawLoss

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._types import AllOptions, Levels, LossName, Parameters, Reduction


def __getattr__(name: str) -> Any:
    """A loss of the library that is not listed above yet."""
    if name.replace("_", "-") in _losses.DESCRIPTIONS:
        return _functions.by_name(name.replace("_", "-"))
    raise AttributeError(f"module 'tare.torch' has no attribute {name!r}")


# ---- GHM ------------------------------------------------------------------------------------------------------------


def ghm_histogram(
    name: LossName,
    logits: Levels | Head,
    labels: Levels | None = None,
    *,
    state: torch.Tensor,
    **options: Unpack[Parameters],
) -> None:
    """Counts the gradient norms of this rank's part of a batch into words [1, 2+bins) of `state` ("ghm-c" or "ghm-r").

    This is one step of process_group=, for ranks that communicate in another way. They count, add these words over the
    ranks, update the density, and evaluate with it:

        tare.torch.ghm_histogram("ghm-c", logits, labels, bins=30, state=state)
        torch.distributed.all_reduce(state[1:32])
        tare.torch.ghm_density("ghm-c", state, bins=30, momentum=0.75)
        loss = world_size * tare.torch.ghm_c(logits, labels, bins=30, state=state, use_stored_density=True)

    The factor world_size is for gradients that are averaged over the ranks, as DistributedDataParallel does. The
    arguments are those of `loss`. Unit regions only.
    """
    if "reduction" in options:
        raise _checks.WrongType("a histogram has no reduction")
    loss(name, logits, labels, state=_tensors.state_tensor(state), reduction=cast("Reduction", "histogram"), **options)


def ghm_density(name: LossName, state: torch.Tensor, **parameters: Unpack[Parameters]) -> None:
    """Computes momentum sums and 1/GD from the counts in `state` and adds one step, in place. Not in torch.compile.

    parameters: bins, momentum, variant, as the loss has them.
    """
    _call.update_density(name, state, parameters)


# ---- normalizers ----------------------------------------------------------------------------------------------------


def normalizer_sums(
    name: LossName, logits: Levels | Head, labels: Levels | None = None, **options: Unpack[AllOptions]
) -> dict[str, torch.Tensor]:
    """What each normalizer gives of this rank's rows: "elements", "rows", "positives", "weights", "targets", "ones".

    This is one step of process_group=, for ranks that communicate in another way. They add what they need, and give the
    sum as the divisor:

        boxes = tare.torch.normalizer_sums("sigmoid-focal", logits, labels)["positives"]
        torch.distributed.all_reduce(boxes)
        divisor = boxes.clamp(min=1) / world_size
        loss = tare.torch.sigmoid_focal(logits, labels, normalizer=divisor)

    The factor world_size is for gradients that are averaged over the ranks, as DistributedDataParallel does. The
    arguments are those of `loss`, but for reduction and process_group. No logits are read, unless rows are selected.
    Not for ghm-c and ghm-r.

    Returns float64 tensors on the logits' device, without a wait: scalars, or [levels] with normalizer_scope="level".
    They are without normalizer_addend and normalizer_minimum. `weights` and `targets` may have fractions.
    """
    given = {key: one for key, one in options.items() if one is not None}
    if "reduction" in given:
        raise _checks.WrongType("normalizer_sums has no reduction")
    if "process_group" in given or "gradients" in given:
        raise _checks.WrongType(
            "normalizer_sums has no process_group: its sums are this rank's; add them with torch.distributed.all_reduce"
        )
    with torch.no_grad():
        return _ranks.sums(loss, name, logits, labels, given)


# ---- a GPU's errors -------------------------------------------------------------------------------------------------


def check(device: torch.device | str | int | None = None) -> None:
    """Raises the errors that evaluations on a GPU found since the last check.

    A label that is neither a class, nor background, nor ignore raises ValueError. An error of the device raises
    tare.Error. It waits for the GPU's current stream and checks the evaluations on it. If a graph was captured, it
    waits for the whole GPU and checks every graph.

    device: a GPU; None: the current one. Without a GPU it does nothing, because the CPU raises at once. While the
    current stream is being captured it raises tare.Error, and the capture goes on.
    """
    gpu = torch.device("cuda" if device is None else device)
    if gpu.type != "cuda" or not torch.cuda.is_available():
        return
    index = torch.cuda.current_device() if gpu.index is None else gpu.index
    stream = _call.raw_stream(index)
    if _c.capture_of(stream):
        raise _c.Error(_c.CAPTURING, "the current stream is being captured; check after its graph has run")
    graphs = _c.contexts_of_graphs(index)
    if graphs:  # whose replays may be on any stream
        torch.cuda.synchronize(index)
    for context in [*_c.contexts_of(_c.CUDA, index, stream), *graphs]:
        _c.check(_c.library.tare_context_synchronize(context, stream), context)


__all__ = [
    "GHMC",
    "GHMR",
    "Head",
    "LDAMLoss",
    "LogitAdjustedLoss",
    "MaskLosses",
    "SeesawLoss",
    "check",
    "dice_loss",
    "focal_dice_loss",
    "ghm_c",
    "ghm_density",
    "ghm_histogram",
    "ghm_r",
    "ghm_state",
    "loss",
    "mask_loss",
    "nn",
    "normalizer_sums",
    "sigmoid_asymmetric",
    "sigmoid_ce",
    "sigmoid_focal",
    "sigmoid_focal_star",
    "sigmoid_heatmap_focal",
    "sigmoid_iou_aware",
    "sigmoid_matchability",
    "sigmoid_poly1",
    "sigmoid_quality_focal",
    "sigmoid_reduced_focal",
    "sigmoid_varifocal",
    "softmax_ce",
    "softmax_distribution_focal",
    "softmax_focal",
    "softmax_ldam",
    "softmax_logit_adjusted",
    "softmax_seesaw",
    "softmax_two_hot",
    "tversky_loss",
]
