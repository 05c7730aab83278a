# SPDX-License-Identifier: Apache-2.0
"""The one function behind tare.torch's losses: from its arguments to a kept call, or to the operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from . import _batch, _c, _checks, _linear, _losses, _ops, _prepared, _ranks, _spec, _tensors

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from typing_extensions import Unpack

    from ._types import (
        AllOptions,
        Alpha,
        Gradients,
        LevelNumbers,
        Levels,
        LossName,
        Normalizer,
        Parameters,
        Reduction,
        Scope,
    )


_INTERNAL = ("histogram", "divisor")  # reductions of ghm_histogram and _ranks


class Head(NamedTuple):
    """A classifier that a loss takes instead of logits: features @ weight.T + bias.

    All logits never exist at one time. The loss forms them one chunk of rows at a time. Backward forms them again, with
    the gradients by all three. In float32 on a CPU one pass does both and keeps the gradients until backward.

        loss = tare.torch.sigmoid_focal(tare.torch.Head(features, layer.weight, layer.bias), labels)

    features: [..., D]; weight: [C, D]; bias: [C] or None; all float32, float16 or bfloat16.
    workspace: the most bytes that a pass may take; None: a size for large chunks (96 MB on a CPU). A GHM loss takes up
    to 4 bytes more for each logit, and then forms no logit twice.

    It needs OpenBLAS on a CPU (libopenblas.so.0, or the library that TARE_BLAS names), and cuBLAS on a GPU, which
    PyTorch has loaded. Otherwise it raises tare.Error. It gives scalar losses and class sums, and no other results. It
    has no exact density of GHM. The gradients by weight and bias are summed in float32.
    """

    features: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None = None
    workspace: int | None = None


def ghm_state(bins: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """A fresh GHM state for `bins` unit regions: int64 [2 + 3*bins], all zero. The header says what it holds."""
    bins = _checks.integer("bins", bins, 1, 1024)
    return torch.zeros(2 + 3 * bins, dtype=torch.int64, device=device)


def loss(name: LossName, logits: Levels | Head, labels: Levels | None = None, **options: Unpack[AllOptions]) -> Any:
    """The loss of this name ("sigmoid-focal"; tare.losses() has them all), differentiable by the logits.

    logits: float32, float16, bfloat16, on the CPU also float64. Rows [..., C] with one to four axes in front; or, with
        `classes`, maps [images, anchors*classes, height, width]; or a list of up to 16 of either, the levels of a head,
        in one launch. Any strides are accepted. Nothing is permuted, concatenated or copied. Or a Head.
    labels: integers, one a row: [...], or for maps [images, height, width, anchors]. Neighbouring axes may be
        joined ([images, rows of an image]). [images, anchors, height, width] is refused. For levels: a list of these,
        or one tensor [images, rows of an image]. The class is label - first_label. background_label marks a row without
        a class, ignore_label a row that adds nothing. Any other label is an error. The CPU reports it at once. On a GPU
        its row adds nothing, and check() reports it.
    targets: dense targets in [0,1] of the logits' shape, instead of labels. softmax-ce takes any non-negative rows.
        ghm-r: the values that the predictions should have. Labels beside targets only say which rows are ignored.
    scores: one a row, in [0,1], such as the IoU of a box: the target of the label's element, instead of 1. A score of a
        row without a class is not read. The sigmoid losses take scores, but for poly1 and heatmap-focal. Of
        softmax-distribution-focal: the target between bins, one a row; labels may then be None. Of softmax-two-hot:
        two a row [..., 2], the weights of the label's bin and of the next one.
    reduction: "sum": a scalar, divided by the normalizer. "rows": one loss a row, [...] or [images, height, width,
        anchors]. "none": one loss an element, of the logits' shape; in a softmax loss one a row. Losses are float32
        (float64 for float64).
    normalizer: "sum" (no divisor), "elements", "rows", "positives", "weights", "targets" (the sum of the targets of
        rows that count, unweighted; a label's is its score, or 1), "ones" (the number of these that are 1), a number,
        or a tensor with one element on the logits' device. The tensor is read there, without a wait, and not clamped.
        A divisor that is formed from the batch is max(normalizer_minimum, sum + normalizer_addend).
    normalizer_scope: "batch" forms one divisor of all levels; "level" forms one for each, with addend and minimum.
        level_divisors: for each level a number, a tensor with one element, or None: what divides it instead.
        level_weights: for each level a number, a factor of its loss and gradient. The loss is the sum of the levels'.
    row_weights, element_weights: float32 of the rows' or the logits' shape. class_weights, positive_weights,
        negative_weights, background_negative_weights: float32 [C]; the last two only for sigmoid_ce and sigmoid_focal.
        background_negative_weights are the negative weights of rows without a class. background_weight: a number.
        weighting of sigmoid_ce: what positive and negative weights are at a target t between 0 and 1: "blended",
        t*w + (1-t)*v; or "terms", w of -log p and v of -log(1-p), as pos_weight of PyTorch.
    class_mask: bool or uint8, [images, C] or [C] for all images: 0 where an element does not count, because nobody
        looked for this class in the image of its row (partial or federated labels). Such an element adds nothing,
        has a gradient of 0, and is left out of the normalizers "elements", "targets" and "ones", of class sums, of
        norm_histogram and of GHM. Its row, and a label of a masked class, still count as such. The sigmoid losses and
        ghm_c; with a Head [C]. Images are as for hard_negatives.
    hard_negatives: a number r, for hard negative mining as in SSD. Of each image's background rows, only the ceil(r*P)
        with the largest loss count. P is the number of the image's rows with a class. least_negatives is the least
        number of negatives of an image. Images are the first axis of [images, rows, C] and of maps; [rows, C] is one
        image.
    hard_rows: a number k, for online hard example mining (OHEM). Only the k rows with the largest loss count, of all
        rows of the batch that count, with a class or without. hard_fraction: instead their share, in (0,1]; k is
        ceil(hard_fraction * rows that count). A loss ranks without weights. The normalizer "positives" is of all rows
        with a class; the others are of the selected rows. On several ranks each selects among its own rows.
        Backward uses the rows that forward selected.
    process_group: of torch.distributed, where each rank has some rows of one batch, or none. The divisor, or the
        density of a GHM loss, is the whole batch's, and so are class sums: they are added over the ranks. A number or a
        tensor as normalizer, or in level_divisors, is the whole batch's already. gradients: "averaged", as
        DistributedDataParallel and FSDP do over this group, or "summed". The mean (averaged) or the sum (summed) of the
        ranks' losses is the loss of the whole batch. Reductions "rows" and "none": GHM losses alone, and not scaled.
    class_sums: True to return (loss, sums): the sums of each class, float64 [C, 4], in this order: loss; t*|g| and
        (1-t)*|g|, where g is the derivative by a logit and t its target; rows that count. They include every weight,
        but no normalizer and nothing from above, and are formed before a gradient is rounded. In a softmax loss, loss
        and count are of the rows with this label. No derivative goes through them. Ranks may add theirs. Not for ghm-r,
        or for softmax losses with targets.
    level_losses: True to return (loss, losses of the levels), divided and weighted, [levels]; with class_sums they come
        after the sums. No derivative goes through them. Not for a Head. With a process_group they are the rank's
        shares, as the loss is.
    norm_histogram: a number of bins up to 1024, to return (loss, counts), int64 [bins]: how many elements have a
        gradient norm |p-t| in each of so many equal bins of [0,1], the bins of GHM-C. It comes after the results of
        class_sums and level_losses. Elements whose row, class or element weight is 0 are left out. The sigmoid losses
        alone, but not ghm-c, whose state has its counts, nor with a Head. Added over a process_group.
    keep_gradient: True: forward computes the gradient in the same pass and keeps it, and backward multiplies it by the
        gradient from above (float32, bfloat16, float64; reduction "sum"). On a GPU the multiplication reads that number
        where it is, waits for nothing, and returns at once where it is 1. A bfloat16 gradient is then rounded twice,
        unless the number is a power of two. A second backward (retain_graph=True) evaluates again. False: backward
        computes the gradient, and nothing is kept in between.
    alpha: a number, or float32 [C] (then also called alpha_per_class). None: the loss's default. Other parameters
        have the names of the C structs: gamma, epsilon, bins, density ("unit-region", "exact"), variant ("paper",
        "mmdet"), momentum, use_stored_density, mu; offset: float32 [C], of softmax-logit-adjusted;
        margins: float32 [C], of softmax-ldam; gamma_per_class: float32 [C], of sigmoid-focal.
    state: the state of a GHM loss, from ghm_state(bins). It is updated in place. The CPU refuses a state that Tare did
        not write (an average, a cast). A GPU does not check it, because that would wait.

    Returns a tensor. For levels and a reduction other than "sum" it returns a list of tensors. With class_sums,
    level_losses or norm_histogram it returns a tuple of this and what they ask for.
    Raises ValueError (tare.ArgumentError) for a wrong argument; for a wrong type or keyword this is a TypeError too.
    Raises tare.Error for anything else.

    Derivatives: backward mode, once, also by torch.func (grad, vjp, vmap, jacrev; a batch is one call after the other)
    and batched gradients (vectorize=True, is_grads_batched). With create_graph=True the gradient can be differentiated
    by the upstream gradient (GradNorm; torch.autograd.functional.jvp). These raise: a second derivative by the logits,
    forward mode (torch.func.jvp, jacfwd, forward_ad), and torch.func around a Head or an exported program. A graph of
    torch.jit.trace raises if its numbers may be wrong for the shape of the call.
    """
    if options.get("process_group") is not None:
        return _ranks.evaluate(loss, name, logits, labels, dict(options))
    key = tensors = None
    if _prepared.is_eager():
        call, key, tensors = _prepared.find(name, logits, labels, options)
        if call is not None:
            normalizer = options.get("normalizer")
            value = _checks.number("normalizer", normalizer) if type(normalizer) in (int, float) else 1.0
            return call(tensors, value, options.get("state"))
    return first_call(key, tensors, name, logits, labels, **options)


def first_call(
    key: Any,
    tensors: Any,
    name: LossName,
    logits: Levels | Head,
    labels: Levels | None,
    *,
    targets: Levels | None = None,
    scores: Levels | None = None,
    classes: int | None = None,
    reduction: Reduction = "sum",
    normalizer: Normalizer | float | torch.Tensor = "sum",
    normalizer_addend: float = 0.0,
    normalizer_minimum: float = 0.0,
    normalizer_scope: Scope = "batch",
    level_divisors: LevelNumbers = None,
    level_weights: LevelNumbers = None,
    row_weights: Levels | None = None,
    element_weights: Levels | None = None,
    class_weights: torch.Tensor | None = None,
    background_weight: float = 1.0,
    hard_negatives: float | None = None,
    least_negatives: int | None = None,
    hard_rows: int | None = None,
    hard_fraction: float | None = None,
    positive_weights: torch.Tensor | None = None,
    negative_weights: torch.Tensor | None = None,
    background_negative_weights: torch.Tensor | None = None,
    class_mask: torch.Tensor | None = None,
    first_label: int = 0,
    background_label: int = -1,
    ignore_label: int = -2,
    class_sums: bool = False,
    level_losses: bool = False,
    norm_histogram: int = 0,
    keep_gradient: bool = True,
    process_group: ProcessGroup | None = None,
    gradients: Gradients = "averaged",
    alpha: Alpha = None,
    state: torch.Tensor | None = None,
    **parameters: Unpack[Parameters],
) -> Any:
    """A call that was not made before. Its keywords are those of `loss`. key, tensors: of _prepared, or None."""
    name, classes = _losses.loss_name(name), _batch.check_classes(classes)
    fused, several, levels = _levels_of(logits)
    bins = _losses.DESCRIPTIONS[name].takes_bins
    _check_what_is_wanted(labels, scores if bins == 1 and targets is None else targets, reduction, normalizer)
    if bins == 2 and several and isinstance(scores, torch.Tensor):
        raise ValueError("scores is one tensor with several levels; give a list of one [..., 2] for each level")
    if fused and (reduction not in ("sum", "histogram") or classes):
        raise ValueError("a Head has reduction 'sum' alone, and no maps")
    if gradients != "averaged":
        raise ValueError(f"gradients is {_checks.shown(gradients)} without a process_group; they go together")
    flags = {"class_sums": class_sums, "level_losses": level_losses}
    wanted = [key for key, flag in flags.items() if _checks.flag(key, flag)]
    constants = {key.replace("_", "-"): 1 for key in wanted}  # as _spec has them
    if norm_bins := _checks.integer("norm_histogram", norm_histogram, 0, 1024):
        wanted.append("norm_histogram")
        constants[_spec.NORM_BINS] = norm_bins
    which = "histogram" if reduction in _INTERNAL else "Head"
    refused = wanted if reduction in _INTERNAL else [one for one in wanted if fused and one != "class_sums"]
    if refused:
        asked = flags.get(refused[0], norm_bins)
        raise ValueError(f"{refused[0]} is {asked} with a {which}, which has none; leave it out")
    if level_losses and reduction != "sum":
        raise ValueError(f"level_losses is True with reduction '{reduction}'; only a sum is divided")
    keep = _checks.flag("keep_gradient", keep_gradient)
    given = {
        "labels": labels,
        "targets": targets,
        "scores": scores,
        "row_weights": row_weights,
        "element_weights": element_weights,
    }
    given = {key: one for key, one in given.items() if one is not None}
    arrays = [
        (key, array) for key, one in given.items() for array in _tensors.per_level(key, one, levels, several, classes)
    ]
    singles = {
        "class_weights": class_weights,
        "positive_weights": positive_weights,
        "negative_weights": negative_weights,
        "background_negative_weights": background_negative_weights,
    }
    own: dict[str, Any] = dict(parameters)
    per_class = own.pop("alpha_per_class", None)
    if per_class is not None and alpha is not None:
        raise ValueError("alpha and alpha_per_class are two names of one argument; give one of them")
    if per_class is not None or (isinstance(alpha, torch.Tensor) and alpha.dim()):
        singles["alpha_per_class"] = alpha if per_class is None else per_class
    elif alpha is not None:
        own["alpha"] = alpha
    singles.update({key: own.pop(key) for key in _losses.vectors_of(name) if key in own})
    own = _losses.parameters_of(name, own)
    singles = {key: _tensors.real_tensor(key, one) for key, one in singles.items() if one is not None}
    if class_mask is not None:
        singles["class_mask"] = _tensors.mask_tensor(class_mask)
    divisor, normalizer, value = _divisor(normalizer, levels[0].device)
    singles.update({} if divisor is None else {"normalizer": divisor})
    divisors, apart = _level_divisors(level_divisors, len(levels))
    singles.update(apart)
    singles.update(_state_of(name, state, own, levels[0].device))
    sources = [one for one in logits[:3] if one is not None] if fused else levels
    _tensors.check_arguments(sources, arrays, singles)

    settings = {
        "loss": name,
        "reduction": reduction,
        "normalizer": normalizer,
        **_bounds(normalizer_addend=normalizer_addend, normalizer_minimum=normalizer_minimum),
        **_of_levels(normalizer_scope, divisors, _batch.per_level("level_weights", level_weights, len(levels))),
        "classes": classes or 0,
        **_batch.label_options(
            first_label,
            background_label,
            ignore_label,
            background_weight,
            hard_negatives=hard_negatives,
            least_negatives=least_negatives,
            hard_rows=hard_rows,
            hard_fraction=hard_fraction,
        ),
        **own,
        **constants,
    }
    if torch.jit.is_tracing():
        settings["traced"] = _spec.traced_shapes(levels, fixed=normalizer == "value" and divisor is None)
    spec, arrays = _spec.write_spec(settings, list(given), list(singles)), [array for _, array in arrays]
    if key is not None and not fused and reduction not in _INTERNAL:
        recipe = _prepared.recipe_of(tensors, levels, arrays, list(given.values()), singles)
        if recipe is not None:
            results = len(levels) if several and reduction != "sum" else None
            call = _prepared.Call(spec, reduction, keep, levels, arrays, singles, recipe, results)
            result = call(tensors, value, state)
            _prepared.keep(key, call)  # which passed the library's checks too
            return result
    if fused:
        results = _linear.evaluate(spec, reduction, value, logits, arrays, singles, keep)
    else:
        results = _ops.evaluate(spec, reduction, value, levels, arrays, singles, len(constants), keep)
    if state is not None:
        _write_state(state, results[-1], own)
    losses = list(results[: len(levels)]) if several and reduction in ("rows", "none") else results[0]
    first = 1 if reduction == "sum" else len(levels)
    return (losses, *results[first : first + len(constants)]) if constants else losses


def _levels_of(logits):
    """Whether `logits` is a Head, whether it is a list of levels, and the tensors, level by level."""
    if isinstance(logits, Head):
        for place, one in zip(("features", "weight", "bias"), logits):
            if one is not None or place != "bias":
                _tensors.check_tensor(place, one)
        return True, False, [logits.features]
    if isinstance(logits, (list, tuple)):
        if not logits:
            raise ValueError("logits is an empty list; there must be 1 to 16 levels")
        return False, True, [_tensors.check_tensor(f"logits[{index}]", one) for index, one in enumerate(logits)]
    return False, False, [_tensors.check_tensor("logits", logits)]


def _check_what_is_wanted(labels, targets, reduction, normalizer):
    if labels is None and targets is None:
        raise ValueError("labels and targets are None; one of them is needed")
    if reduction not in _INTERNAL:
        _checks.word("reduction", reduction, ("sum", "rows", "none"))
    if reduction not in ("sum", "divisor") and not (isinstance(normalizer, str) and normalizer == "sum"):
        raise ValueError(f"normalizer is given with reduction '{reduction}'; only a sum is divided")


def _state_of(name, state, parameters, device):
    """The GHM state of a call, if it has one: the caller's or a fresh one."""
    if state is not None:
        if not _losses.DESCRIPTIONS[name].has_state:
            raise _losses.no_parameter(name, "state")
        return {"state": _tensors.state_tensor(state)}
    if not _spec.keeps_state(name, parameters):
        return {}
    bins = _losses.value_of(name, parameters, "bins")
    return {"state": ghm_state(bins, device)}  # backward finds the density of this pass in it


def _write_state(state, result, parameters):
    if not torch.compiler.is_compiling() and _tensors.is_wrapped(result):
        if parameters.get(_spec.STORED_DENSITY):
            return  # it is as it was
        raise RuntimeError(
            "state is written by a GHM loss, and torch.func allows no writing; leave it out, or update it before with "
            "ghm_histogram and ghm_density and give use_stored_density=True"
        )
    state.copy_(result)


def _bounds(**given):
    """What is not 0 of a divisor's addend and minimum."""
    numbers = {name: _checks.number(name, one) for name, one in given.items()}
    return {name: one for name, one in numbers.items() if one}


def _of_levels(scope, divisors, weights):
    """The settings of levels that are not the defaults."""
    settings = {"normalizer_scope": _checks.word("normalizer_scope", scope, _c.SCOPES)} if scope != "batch" else {}
    for name, numbers in (("level_divisors", divisors), ("level_weights", weights)):
        if numbers:
            settings[name] = ",".join(map(repr, numbers))
    return settings


def _level_divisors(given, count):
    """Those that are numbers, 0 where there is none, and those that are tensors, by name."""
    if not isinstance(given, (list, tuple)):
        return _batch.per_level("level_divisors", given, count), {}
    apart = {index: one for index, one in enumerate(given) if isinstance(one, torch.Tensor)}
    numbers = _batch.per_level("level_divisors", [None if i in apart else one for i, one in enumerate(given)], count)
    names = {f"{_spec.LEVEL_DIVISOR}{index}": one for index, one in apart.items()}
    return numbers if any(numbers) else (), {name: _tensors.real_tensor(name, one) for name, one in names.items()}


def _divisor(normalizer, device):
    """A normalizer's tensor or None, its word in the spec, and its number or 1."""
    if torch.compiler.is_compiling() and isinstance(normalizer, (int, float)):  # a number would be part of the graph
        normalizer = torch.full((), float(normalizer), device=device)
    if isinstance(normalizer, torch.Tensor):
        return _tensors.real_tensor("normalizer", normalizer), "value", 1.0
    if isinstance(normalizer, str):
        return None, _checks.word("normalizer", normalizer, _c.NORMALIZERS, ", a number or a tensor"), 1.0
    return None, "value", _checks.number("normalizer", normalizer)
