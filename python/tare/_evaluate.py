# SPDX-License-Identifier: Apache-2.0
"""tare.evaluate and its companions: the C library's calls on NumPy arrays, on the CPU."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _arrays, _batch, _c, _checks, _ghm, _losses, _structs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from ._types import LossName, Normalizer, Scope


class Result(NamedTuple):
    """What evaluate returns. Where the logits were a list of levels, so are gradient, row_loss and element_loss."""

    loss: float
    gradient: Any
    row_loss: Any
    element_loss: Any
    counts: dict[str, int]
    class_sums: np.ndarray | None = None
    normalizer_sums: dict[str, float] | list[dict[str, float]] | None = None
    level_losses: np.ndarray | None = None
    norm_histogram: np.ndarray | None = None


def evaluate(
    loss: LossName,
    logits: Any,
    labels: Any = None,
    *,
    targets: Any = None,
    scores: Any = None,
    classes: int | None = None,
    row_weights: Any = None,
    element_weights: Any = None,
    class_weights: ArrayLike | None = None,
    background_weight: float = 1.0,
    hard_negatives: float | None = None,
    least_negatives: int | None = None,
    hard_rows: int | None = None,
    hard_fraction: float | None = None,
    positive_weights: ArrayLike | None = None,
    negative_weights: ArrayLike | None = None,
    background_negative_weights: ArrayLike | None = None,
    class_mask: ArrayLike | None = None,
    first_label: int = 0,
    background_label: int = -1,
    ignore_label: int = -2,
    normalizer: Normalizer | float = "sum",
    normalizer_addend: float = 0.0,
    normalizer_minimum: float = 0.0,
    normalizer_scope: Scope = "batch",
    level_divisors: Sequence[float | None] | None = None,
    level_weights: Sequence[float] | None = None,
    gradient: bool = True,
    gradient_scale: float = 1.0,
    row_loss: bool = False,
    element_loss: bool = False,
    class_sums: bool = False,
    normalizer_sums: bool = False,
    level_losses: bool = False,
    norm_histogram: int = 0,
    alpha: ArrayLike | None = None,
    state: np.ndarray | None = None,
    threads: int = 0,
    **parameters: Any,
) -> Result:
    """Loss, gradient and counts of NumPy arrays.

    loss: its name, "sigmoid-focal" (tare.losses() has them all).
    logits: float32, float16, float64 (or ml_dtypes' bfloat16). Rows [..., C] with one to four axes in front; or, with
        `classes`, maps [images, anchors*classes, height, width]; or a list of such arrays, the levels of a head. Any
        strides are accepted, and nothing is copied. GHM-R: the predictions, [..., 4] for boxes.
    labels: int32 or int64, one per row: [...], or for maps [images, height, width, anchors]. Neighbouring axes may be
        joined ([images, rows of an image]). [images, anchors, height, width] is refused. For levels: a list of these,
        or one array [images, rows of an image]. The class is label - first_label. background_label marks a row without
        a class, ignore_label a row that adds nothing. Any other label is an error.
    targets: dense targets in [0,1] of the logits' shape, instead of labels. softmax-ce takes any non-negative rows.
        GHM-R: the values that the predictions should have. Labels beside targets only say which rows are ignored.
    scores: one per row, in [0,1], such as the IoU of a box: the target of the label's element, instead of 1. A score of
        a row without a class is not read. The sigmoid losses take scores, except poly1 and heatmap-focal. For
        softmax-distribution-focal: the target between bins, one per row; labels may then be None. For softmax-two-hot:
        two per row [..., 2], the weights of the label's bin and of the next bin.
    row_weights, element_weights: float32 of the rows' or the logits' shape. class_weights, positive_weights,
        negative_weights, background_negative_weights: float32 [C]; the last two only for sigmoid-ce and sigmoid-focal.
        background_negative_weights are the negative weights of rows without a class. background_weight: a number.
        weighting of sigmoid-ce: what positive and negative weights are at a target t between 0 and 1: "blended",
        t*w + (1-t)*v; or "terms", w of -log p and v of -log(1-p), as in PyTorch's pos_weight.
    class_mask: bool or uint8, [images, C] or [C] for all images: 0 where an element does not count, because nobody
        looked for this class in the image of its row (partial or federated labels). Such an element adds nothing,
        has a gradient of 0, and is left out of the normalizers "elements", "targets" and "ones", of class sums, of
        norm_histogram and of GHM. Its row, and a label of a masked class, still count as such. The sigmoid losses and
        ghm-c.
    normalizer: the divisor of the loss and its gradient: "sum" (none), "elements", "rows", "positives", "weights",
        "targets" (the sum of the targets of rows that count, unweighted; a label's is its score, or 1), "ones" (the
        number of these that are 1), or a number. A divisor that is not a number is max(normalizer_minimum, sum +
        normalizer_addend).
    normalizer_scope: "batch" forms one divisor of all levels; "level" forms one for each, with addend and minimum.
        level_divisors: for each level a number that divides it instead, or None. level_weights: for each level a factor
        of its loss and gradient. The loss is the sum of the levels' losses.
    gradient: True to compute it. gradient_scale multiplies it before it is rounded to the logits' type.
    row_loss, element_loss: True to compute them: float32 (float64 for float64), not normalized.
    class_sums: True for sums of each class, float64 [C, 4], in this order: loss; t*|g| and (1-t)*|g|, where g is the
        derivative by a logit and t its target; rows that count. They include every weight, but neither divisor nor
        gradient_scale, and are formed before a gradient is rounded. In a softmax loss, loss and count are of the rows
        with this label. Not for ghm-r, and not for softmax losses with targets.
    normalizer_sums: True for a dict of what each normalizer gives, before addend and minimum. Ranks may add theirs.
        With normalizer_scope="level" it is a list of these. Not for a GHM loss.
    level_losses: True for the loss of each level, divided and weighted: float64 [levels].
    norm_histogram: a number of bins up to 1024. The result says how many elements have a gradient norm |p-t| in each of
        these equal bins of [0,1], the bins of GHM-C: int64 [bins]. Elements whose row, class or element weight is 0 are
        left out. Only for sigmoid losses, but not for ghm-c, whose state has the counts.
    hard_negatives: a number r, for hard negative mining as in SSD. In each image only the ceil(r*P) background rows
        with the largest loss count. P is the number of the image's rows with a class. least_negatives is the least
        number of negatives of an image. Images are the first axis of [images, rows, C] and of maps; [rows, C] is one
        image.
    hard_rows: a number k, for online hard example mining (OHEM). Only the k rows of the batch with the largest loss
        count, also background rows. hard_fraction: instead their share of the rows that count, in
        (0,1]; k is ceil(hard_fraction * rows that count). Rows are ranked by their loss without weights. The normalizer
        "positives" counts all rows with a class; the others count the selected rows.
    alpha: a number, or float32 [C] (then also called alpha_per_class). None: the loss's default. Other parameters
        have the names of the C structs: gamma, epsilon, bins, density ("unit-region", "exact"), variant ("paper",
        "mmdet"), momentum, use_stored_density, mu; offset: float32 [C], of softmax-logit-adjusted, from
        logit_adjustment(counts); margins: the same of softmax-ldam, from ldam_margins(counts); gamma_per_class: float32
        [C], of sigmoid-focal.
    state: the state of a GHM loss, from ghm_state(bins). It is updated in place; use_stored_density=True only reads it.
    threads: CPU threads, up to 1024; 0: OMP_NUM_THREADS, or all processors.

    Masked arrays, complex numbers, text, floats or large numbers in place of integers, and numbers that are not
    finite are refused.

    Returns a Result: loss (a Python float, formed in double), gradient (of the logits' type and layout), row_loss,
    element_loss (None if not computed), counts of rows, class_sums, normalizer_sums, level_losses and
    norm_histogram (None if not computed).
    Raises ValueError (tare.ArgumentError) for a wrong argument; for a wrong type or keyword this is a TypeError too.
    Raises tare.Error for anything else.
    """
    several, classes = isinstance(logits, (list, tuple)), _batch.check_classes(classes)
    maps = [_arrays.as_array("logits", one) for one in (logits if several else [logits])]
    if not maps:
        raise ValueError("logits is an empty list; there must be 1 to 16 levels")
    loss = _losses.loss_name(loss)
    bins = _losses.DESCRIPTIONS[loss].takes_bins
    if labels is None and targets is None and (scores is None or bins != 1):
        raise ValueError("labels and targets are None; one of them is needed")
    options = _batch.label_options(
        first_label,
        background_label,
        ignore_label,
        background_weight,
        hard_negatives=hard_negatives,
        least_negatives=least_negatives,
        hard_rows=hard_rows,
        hard_fraction=hard_fraction,
    )
    options["dtype"] = _dtype("logits", maps, _arrays.DTYPES)
    levels = [_batch.Level(_arrays.library, one.shape, classes) for one in maps]
    for level, one in zip(levels, maps):
        level.elements("logits", one)
    _add_inputs(
        levels,
        several,
        options,
        bins == 2,
        labels=labels,
        targets=targets,
        scores=scores,
        row_weights=row_weights,
        element_weights=element_weights,
    )
    flags = {"gradient": gradient, "row_loss": row_loss, "element_loss": element_loss}
    wanted = _add_outputs(levels, maps, classes, **{name: _checks.flag(name, want) for name, want in flags.items()})

    per_class = parameters.pop("alpha_per_class", None)
    name = "alpha" if per_class is None else "alpha_per_class"
    if per_class is not None and alpha is not None:
        raise ValueError("alpha and alpha_per_class are two names of one argument; give one of them")
    alpha = alpha if per_class is None else per_class
    if name == "alpha" and alpha is not None and not np.ndim(alpha):
        parameters["alpha"], alpha = alpha, None
    of_loss = {key: parameters.pop(key, None) for key in _losses.vectors_of(loss)} | {name: alpha}
    of_batch = {
        "class_weights": class_weights,
        "positive_weights": positive_weights,
        "negative_weights": negative_weights,
        "background_negative_weights": background_negative_weights,
    }
    vectors = _vectors(levels, **of_batch, **of_loss)
    pointers = {
        "alpha_per_class" if key == "alpha" else key: _arrays.library.pointer(vectors.pop(key))
        for key in of_loss
        if key in vectors
    }
    options.update({name: _arrays.library.pointer(vector) for name, vector in vectors.items()})
    mask = None if class_mask is None else _mask(class_mask, levels[0], options)
    if state is not None:
        pointers["state"] = _state(loss, state, parameters, levels)
    c_loss, _ = _losses.make_loss(loss, parameters, **pointers)
    output = _batch.make_output(normalizer, gradient_scale, normalizer_addend, normalizer_minimum, normalizer_scope)
    value, counts = ctypes.c_double(), _structs.Counts()
    by_level = output.normalizer_scope == _c.SCOPES["level"]
    wants_sums = _checks.flag("normalizer_sums", normalizer_sums)
    divisors = (_structs.NormalizerSums * (len(levels) if by_level else 1))() if wants_sums else None
    output.normalizer_sums = None if divisors is None else ctypes.addressof(divisors)
    sums = np.empty((levels[0].lengths[4], 4)) if _checks.flag("class_sums", class_sums) else None
    output.class_sums = None if sums is None else _arrays.library.pointer(sums)
    output.loss, output.loss_dtype = ctypes.addressof(value), _c.F64
    output.counts = ctypes.addressof(counts)
    losses = np.empty(len(levels)) if _checks.flag("level_losses", level_losses) else None
    norm_bins = _checks.integer("norm_histogram", norm_histogram, 0, 1024)
    norms = np.empty(norm_bins, np.int64) if norm_bins else None
    output.norm_bins, output.norm_histogram = norm_bins, None if norms is None else norms.ctypes.data
    batch = _batch.make_batch(levels, **options)
    scalars = {"level_divisors": level_divisors, "level_weights": level_weights}
    places = [batch.levels[index] for index in range(len(levels))]
    _batch.divide_levels(places, *[_batch.per_level(key, one, len(levels)) for key, one in scalars.items()])
    if losses is not None:
        for index, place in enumerate(places):
            place.loss = losses.ctypes.data + losses.itemsize * index
    _run(c_loss, batch, output, threads)
    del mask  # it was read until here
    by_element, by_row, elements = [one if several or one is None else one[0] for one in wanted]
    listed = [{name: getattr(one, name) for name in _structs.NORMALIZER_SUMS} for one in divisors or []]
    of_normalizers = None if divisors is None else listed if by_level else listed[0]
    rows = {str(name): getattr(counts, name) for name, *_ in counts._fields_}
    return Result(value.value, by_element, by_row, elements, rows, sums, of_normalizers, losses, norms)


def _add_inputs(levels, several, options, has_pairs, **given):
    """Labels, targets, scores and weights into the levels; the types of the first three into the batch's options.
    has_pairs: there are two scores for each row."""
    for name, array in given.items():
        arrays = _per_level(name, array, levels, several)
        if arrays and name in ("labels", "targets", "scores"):
            options[name[:-1] + "_dtype"] = _dtype(
                name, arrays, _arrays.LABEL_DTYPES if name == "labels" else _arrays.DTYPES
            )
        elif arrays:
            arrays = [_arrays.as_float32(name, one) for one in arrays]
        for level, one in zip(levels, arrays):
            if name == "scores" and has_pairs:
                level.pairs(name, one)
                continue
            (level.rows if name in ("labels", "scores", "row_weights") else level.elements)(name, one)


def _add_outputs(levels, maps, classes, gradient, row_loss, element_loss):
    """New arrays for what is wanted, in the levels and returned; None for the others."""
    wide = np.float64 if maps[0].dtype == np.float64 else np.float32
    gradients = [np.empty_like(one, subok=False) for one in maps] if gradient else None
    rows = [np.empty(_batch.row_shape(one.shape, classes), wide) for one in maps] if row_loss else None
    elements = [np.empty_like(one, dtype=wide, subok=False) for one in maps] if element_loss else None
    for i, level in enumerate(levels):
        if gradient:
            level.elements("gradient", gradients[i])
        if row_loss:
            level.rows("row_loss", rows[i])
        if element_loss:
            level.elements("element_loss", elements[i])
    return gradients, rows, elements


def _run(loss, batch, output, threads):
    context = _c.context(threads=_checks.integer("threads", threads, 0, 1024))
    size = ctypes.c_uint64()
    _c.check(_c.library.tare_workspace_size(context, loss, batch, output, size), context)
    workspace = (ctypes.c_uint64 * (size.value // 8 + 3))() if size.value else None
    if workspace:
        start = -(-ctypes.addressof(workspace) // 16) * 16
        _c.check(_c.library.tare_context_set_workspace(context, start, size.value), context)
    try:
        _c.check(_c.library.tare_evaluate(context, loss, batch, output, None), context)
    finally:
        if workspace:
            _c.library.tare_context_set_workspace(context, None, 0)


def _dtype(name, arrays, known):
    kinds = {array.dtype.name if array.dtype.isnative else array.dtype.str for array in arrays}
    if len(kinds) != 1 or not kinds <= known.keys():
        raise ValueError(f"{name} are {', '.join(sorted(kinds))}; they must be one of: {', '.join(known)}")
    return known[kinds.pop()]


def _per_level(name, given, levels, several):
    """One array a level, of what was given for all of them."""
    if given is None:
        return []
    if not several:
        return [_arrays.as_array(name, given)]
    if not isinstance(given, (list, tuple)):
        return _batch.shares(_arrays.as_array(name, given), [level.lengths for level in levels], _split)
    if len(given) != len(levels):
        raise ValueError(f"{name} has {len(given)} levels, logits have {len(levels)}")
    return [_arrays.as_array(name, array) for array in given]


def _split(array, rows):
    return np.split(array, np.cumsum(rows)[:-1], axis=-1)


def _mask(given, level, options):
    """A class mask as an array, whose pointer and strides go into the batch's options."""
    mask = _arrays.as_array("class_mask", given)
    if mask.dtype not in (np.bool_, np.uint8):
        raise _checks.WrongType(f"class_mask is {mask.dtype}; it must be bool or uint8, 0 where a class is masked")
    options.update(_batch.mask_options(mask.shape, _arrays.library.strides(mask), level))
    options["class_mask"] = _arrays.library.pointer(mask)
    return mask


def _vectors(levels, **given):
    """Those that were given and have one value a class, as float32."""
    classes, vectors = levels[0].lengths[4], {}
    for name, value in given.items():
        if value is None:
            continue
        vectors[name] = np.ascontiguousarray(_arrays.as_float32(name, value))
        if np.shape(value) != (classes,):
            raise ValueError(f"{name} has shape {np.shape(value)}; it must be [{classes}]")
    return vectors


def _state_words(bins):
    """Length of a state in words of 8 bytes."""
    return _c.library.tare_ghm_state_bytes(_checks.integer("bins", bins, 1, 1024)) // 8


def ghm_state(bins: int) -> np.ndarray:
    """A fresh GHM state for `bins` unit regions: int64 [2 + 3*bins], all zero. The header says what it holds."""
    return np.zeros(_state_words(bins), np.int64)


def _state(loss, state, parameters, levels):
    """The address of a state. Its words are checked, and it is writable if the call writes it."""
    name = _losses.loss_name(loss)
    if not _losses.DESCRIPTIONS[name].has_state:
        raise _losses.no_parameter(name, "state")
    bins = _losses.value_of(name, parameters, "bins")
    if (
        not isinstance(state, np.ndarray)
        or _arrays.is_masked(state)
        or state.dtype != np.int64
        or not state.flags.c_contiguous
    ):
        raise _checks.WrongType("state must be a contiguous int64 array, as ghm_state makes it")
    if state.shape != (_state_words(bins),):
        raise ValueError(f"state has shape {state.shape}; for {bins} bins it is [{_state_words(bins)}]")
    if not state.flags.writeable and not _checks.flag(
        "use_stored_density", parameters.get("use_stored_density", False)
    ):
        raise ValueError("state is read-only, and would be written; give a copy of it")
    for level in levels:
        if any(np.may_share_memory(state, array) for array in level.kept):
            raise ValueError("state shares memory with another argument; give it memory of its own")
    _ghm.check_state(state, bins)
    return _arrays.library.pointer(state)
