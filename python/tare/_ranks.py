# SPDX-License-Identifier: Apache-2.0
"""One batch on several ranks: what decides a divisor or a gradient density is added by torch.distributed.

Every rank makes the same collectives, also one without rows: an all-reduce of a count or of a sum, or of GHM's counts,
and one of class sums and of gradient norms. They are on the current stream.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from . import _c, _call, _checks, _losses, _spec, _tensors
from ._structs import NORMALIZER_SUMS

_COUNTS = ("elements", "rows", "positives", "ones")  # which are whole numbers
_OF_A_RESULT = (
    *("reduction", "normalizer", "normalizer_addend", "normalizer_minimum"),
    *("class_sums", "norm_histogram", "level_losses", "level_divisors", "level_weights"),
)


def size(group: Any) -> int:
    """The number of ranks in a process group."""
    if dist.is_available() and group is dist.GroupMember.NON_GROUP_MEMBER:  # what new_group gives the others
        raise ValueError("process_group does not contain this process; call the loss without it, or not at all")
    if not dist.is_available() or not isinstance(group, dist.ProcessGroup):
        raise _checks.WrongType(
            f"process_group is {_checks.shown(group)}; it must be one of torch.distributed, such as dist.group.WORLD"
        )
    return dist.get_world_size(group)


def evaluate(loss, name, logits, labels, options):
    """`loss` of this rank's rows, with the divisor or the density of the rows of all ranks. options: the keywords of
    `loss`."""
    group, gradients = options.pop("process_group"), options.pop("gradients", "averaged")
    share = size(group) if _checks.word("gradients", gradients, ("averaged", "summed")) == "averaged" else 1
    name = _losses.loss_name(name)
    options = {key: one for key, one in options.items() if one is not None}
    reduction = options.get("reduction", "sum")
    if _losses.DESCRIPTIONS[name].has_state:
        result = _by_density(loss, name, logits, labels, group, options)
        return _of_all_ranks(result, share if reduction == "sum" else 1, group, options)
    if reduction != "sum":
        raise ValueError(f"process_group is given with reduction '{reduction}'; only a sum is divided")
    result = loss(name, logits, labels, **_divided(loss, name, logits, labels, group, share, options))
    return _of_all_ranks(result, 1, group, options)


def _of_all_ranks(result, factor, group, options):
    """Losses times `factor`; class sums and gradient norms added over the ranks, in place."""
    wanted = [key for key in ("class_sums", "level_losses", "norm_histogram") if options.get(key)]
    losses, *others = result if wanted else (result,)
    for index, key in enumerate(wanted):
        if key == "level_losses":
            others[index] = others[index] * factor
        else:
            dist.all_reduce(others[index], group=group)
    losses = losses if factor == 1 else losses * factor
    return (losses, *others) if wanted else losses


def _divided(loss, name, logits, labels, group, share, options):
    """The options of this rank's call, with the divisors of the whole batch over `share`."""
    options = dict(options)
    divisor = _divisor(loss, name, logits, labels, group, options)
    levels = options.get("level_divisors")
    if isinstance(levels, (list, tuple)):
        levels = [_number_or_tensor(f"level_divisors[{index}]", one) for index, one in enumerate(levels)]
        levels = [one if one is None else one / share for one in levels]
    if isinstance(divisor, torch.Tensor) and divisor.dim():
        formed = list((divisor / share).unbind())
        if levels is None or len(levels) == len(formed):  # otherwise the call finds what is wrong
            levels = [one if own is None else own for own, one in zip(levels or [None] * len(formed), formed)]
    else:
        options["normalizer"] = divisor / share
    return {**options, "level_divisors": levels}


def _number_or_tensor(name, given):
    return given if given is None or isinstance(given, torch.Tensor) else _checks.number(name, given)


def _divisor(loss, name, logits, labels, group, options):
    """The divisor of the whole batch, or one for each level: max(minimum, sum + addend), and 1 for 0. Takes its options
    out."""
    normalizer = options.pop("normalizer", "sum")
    scope = options.pop("normalizer_scope", "batch")
    addend, minimum = options.pop("normalizer_addend", 0.0), options.pop("normalizer_minimum", 0.0)
    formed = isinstance(normalizer, str)
    formed = formed and _checks.word("normalizer", normalizer, ("sum", *NORMALIZER_SUMS)) != "sum"
    if not formed:
        if _checks.word("normalizer_scope", scope, _c.SCOPES) == "level":
            raise ValueError("normalizer_scope is 'level' with a normalizer that is not formed from the batch")
        if isinstance(normalizer, str):
            return 1.0
        return normalizer if isinstance(normalizer, torch.Tensor) else _checks.number("normalizer", normalizer)
    with torch.no_grad():
        found = sums(loss, name, logits, labels, {**options, "normalizer_scope": scope})[normalizer]
        found = found.to(torch.int64) if normalizer in _COUNTS else found.clone()
        dist.all_reduce(found, group=group)
        divisor = (found + _checks.number("normalizer_addend", addend)).to(torch.float64)
        divisor = divisor.clamp(min=_checks.number("normalizer_minimum", minimum))
        return torch.where(divisor == 0, 1.0, divisor)


def sums(loss, name, logits, labels, options):
    """What each normalizer gives of this rank's rows: scalars, or one number for each level."""
    given = {key: one for key, one in options.items() if key not in _OF_A_RESULT}
    scope = given.get("normalizer_scope", "batch")
    given["normalizer"] = "rows" if scope == "level" else "sum"  # any that is formed from the batch
    found = loss(name, _as_logits(logits), labels, reduction="divisor", **given)
    return dict(zip(NORMALIZER_SUMS, found.movedim(-1, 0).contiguous()))  # a collective wants dense tensors


def _as_logits(logits):
    """Logits of the shape that a Head makes, without memory: a divisor depends on none."""
    if not hasattr(logits, "features"):
        return logits
    features = _tensors.check_tensor("features", logits.features)
    return features.new_zeros(()).expand(*features.shape[:-1], logits.weight.shape[0])


def _by_density(loss, name, logits, labels, group, options):
    """A GHM loss: counts, their sum over the ranks, the density of that, and this rank's part of the loss."""
    if options.get("density") == "exact":
        raise ValueError("density is 'exact' with a process_group; it is not a sum over ranks. Take 'unit-region'")
    stored = _checks.flag("use_stored_density", options.pop(_spec.STORED_DENSITY, False))
    state, momentum = options.pop("state", None), options.pop("momentum", 0.0)
    bins = _losses.value_of(name, _losses.parameters_of(name, _numbers(name, options)), "bins")
    if not stored:
        if state is None:
            state = torch.zeros(2 + 3 * bins, dtype=torch.int64, device=_device_of(logits))
        given = {key: one for key, one in options.items() if key not in _OF_A_RESULT}
        with torch.no_grad():
            loss(name, logits, labels, state=state, reduction="histogram", **given)
            dist.all_reduce(state[1 : 2 + bins], group=group)
            own = {key: options[key] for key in ("variant",) if key in options}
            _call.update_density(name, state, {"bins": bins, "momentum": momentum, **own})
    return loss(name, logits, labels, state=state, **{_spec.STORED_DENSITY: True}, **options)


def _numbers(name, options):
    return {key: options[key] for key in _losses.DESCRIPTIONS[name].parameters if key in options}


def _device_of(logits):
    return (logits[0] if isinstance(logits, (list, tuple)) else logits).device
