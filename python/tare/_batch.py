# SPDX-License-Identifier: Apache-2.0
"""Converts arrays with shape and strides to the C library's levels and batch, for NumPy and PyTorch.

A level is described by five lengths, (images, height, width, anchors, classes). An array with a class axis is either
rows `[..., classes]` with one to four axes in front, or a map `[images, anchors*classes, height, width]` as a head's
convolution wrote it. Arrays with one value a row (labels, row weights, row losses) have the rows in the order
image, y, x, anchor. Neighbouring axes may be joined.
"""

import ctypes
import functools
import itertools
import math
import operator

from . import _c, _checks, _structs


def lengths(shape, classes=None):
    """The five lengths of logits of this shape. `classes` is given for maps."""
    if classes is None:
        if not 2 <= len(shape) <= 5:
            raise ValueError(
                f"logits have shape {tuple(shape)}; rows are [..., classes] with 2 to 5 axes, and maps "
                "[images, anchors*classes, height, width] need `classes`"
            )
        *front, last = shape
        front = [1] * (2 - len(front)) + front
        return (front[0], *[1] * (4 - len(front)), *front[1:], last)
    if len(shape) != 4 or classes < 1 or shape[1] % classes:
        raise ValueError(
            f"logits have shape {tuple(shape)}; with classes={classes} each level is a map "
            f"[images, anchors*{classes}, height, width]"
        )
    images, channels, height, width = shape
    return images, height, width, channels // classes, classes


def row_shape(shape, classes=None):
    """The shape of an array with one value a row: [...] for rows [..., classes], [images, height, width, anchors] for
    maps."""
    return tuple(shape[:-1]) if classes is None else lengths(shape, classes)[:4]


def element_strides(strides, classes=None):
    """(image, y, x, anchor, class) strides of an array with a class axis, from its own."""
    if classes is None:
        *front, last = strides
        front = [0] * (2 - len(front)) + list(front)
        return (front[0], *[0] * (4 - len(front)), *front[1:], last)
    image, channel, y, x = strides
    return image, y, x, channel * classes, channel


@functools.lru_cache(1024)
def _joins(shape, axes):
    """Whether `shape` is `axes` with some neighbours joined, so that the elements have the same order."""
    ends = list(itertools.accumulate(shape, operator.mul, initial=1))
    return ends[-1] == math.prod(axes) and set(ends) <= {1, *itertools.accumulate(axes, operator.mul)}


class Level:
    """A level under construction: its lengths, and pointer and strides of each array, which it keeps alive.

    `library` names what NumPy and PyTorch call differently: strides(array) in elements, and pointer(array). `shape` is
    that of the logits.
    """

    def __init__(self, library, shape, classes=None):
        self.library, self.classes, self.shape = library, classes, tuple(shape)
        self.lengths = lengths(self.shape, classes)
        self.kept = []
        _, height, width, anchors, _ = self.lengths
        self.c = _structs.Level(height, width, anchors, loss_weight=1)

    def _set(self, name, array, strides):
        self.kept.append(array)
        setattr(self.c, name, self.library.pointer(array))
        setattr(self.c, name + "_strides", _structs.Strides(*strides))

    def rows(self, name, array):
        """An array with one value a row, in any shape."""
        if not _joins(array.shape, self.lengths[:4]):
            rows = row_shape(self.shape, self.classes)
            raise ValueError(
                f"{name} has shape {tuple(array.shape)}; logits of shape {self.shape} have rows {rows}, "
                "and neighbouring axes may be joined"
            )
        array = array.reshape(self.lengths[:4])  # a view wherever strides can express it
        self._set(name, array, self.library.strides(array))

    def pairs(self, name, array):
        """An array with two values a row, on its last axis."""
        if array.shape[-1:] != (2,) or not _joins(array.shape[:-1], self.lengths[:4]):
            rows = row_shape(self.shape, self.classes)
            raise ValueError(
                f"{name} has shape {tuple(array.shape)}; logits of shape {self.shape} have two for each row, "
                f"{(*rows, 2)}"
            )
        array = array.reshape((*self.lengths[:4], 2))
        self._set(name, array, self.library.strides(array))

    def elements(self, name, array):
        """An array with a class axis: of the logits' shape, or of rows."""
        if tuple(array.shape) == self.shape:
            self._set(name, array, element_strides(self.library.strides(array), self.classes))
            return
        if array.shape[-1:] != self.lengths[4:] or not _joins(array.shape[:-1], self.lengths[:4]):
            raise ValueError(
                f"{name} has shape {tuple(array.shape)}; logits have {self.shape}, and rows of classes "
                f"{(*row_shape(self.shape, self.classes), self.lengths[4])}"
            )
        array = array.reshape(self.lengths)
        self._set(name, array, self.library.strides(array))


def check_alike(level_lengths):
    """Levels of one batch have the same images and classes. In a trace these are tensors; the call looks again."""
    pairs = [(lengths[0], lengths[4]) for lengths in level_lengths]
    if all(isinstance(number, int) for pair in pairs for number in pair) and len(set(pairs)) > 1:
        hint = ""
        if len({classes for _, classes in pairs}) > 1:  # with `classes` they would be the same
            hint = "; maps [images, anchors*classes, height, width] need `classes`"
        theirs = ", ".join(f"{images} and {classes}" for images, classes in pairs)
        raise ValueError(f"levels must have the same images and classes; theirs are {theirs}{hint}")


def make_batch(levels, dtype, label_dtype=_c.I32, target_dtype=_c.F32, score_dtype=_c.F32, **options):
    """The C batch of these levels (which it does not keep alive, but for their C structs)."""
    if not 1 <= len(levels) <= _c.MAX_LEVELS:
        raise ValueError(f"{len(levels)} levels of logits; there must be 1 to {_c.MAX_LEVELS}")
    check_alike([level.lengths for level in levels])
    batch = _c.Batch()
    _c.library.tare_batch_init_sized(batch, ctypes.sizeof(_c.Batch), ctypes.sizeof(_structs.Level))
    array = (_structs.Level * len(levels))(*[level.c for level in levels])
    batch.levels, batch.level_count = array, len(levels)
    batch.dtype, batch.label_dtype = dtype, label_dtype
    batch.target_dtype, batch.score_dtype = target_dtype, score_dtype
    batch.images, batch.classes = levels[0].lengths[0], levels[0].lengths[4]
    if "hard_negatives" in options:
        select(batch, options.pop("hard_negatives"), options.pop("least_negatives", 0))
    if "hard_rows" in options or "hard_fraction" in options:
        batch.selection = _c.HARD_ROWS
        batch.selection_count = options.pop("hard_rows", 0)
        batch.selection_fraction = options.pop("hard_fraction", 0.0)
    for name, value in options.items():
        setattr(batch, name, value)
    return batch


def mask_options(shape, strides, level):
    """The batch's strides of a class mask, [classes] or [images, classes], with strides in bytes."""
    images, classes = level.lengths[0], level.lengths[4]
    if tuple(shape) not in ((classes,), (images, classes)):
        raise ValueError(
            f"class_mask has shape {tuple(shape)}; it must be [{classes}] or, one for each image, [{images}, {classes}]"
        )
    image = strides[0] if len(shape) == 2 else 0
    return {"class_mask_image_stride": image, "class_mask_class_stride": strides[-1]}


def per_level(name, given, count):
    """One number for each level, as a tuple; () for None."""
    if given is None:
        return ()
    if not isinstance(given, (list, tuple)):
        raise _checks.WrongType(f"{name} is of type {type(given).__name__}; it must be a list with one number a level")
    if len(given) != count:
        raise ValueError(f"{name} has {len(given)} numbers; there are {count} levels")
    return tuple(0.0 if one is None else _checks.number(f"{name}[{index}]", one) for index, one in enumerate(given))


def divide_levels(levels, divisors=(), weights=()):
    """Divisors (0: the normalizer's) and loss weights into the C structs of levels."""
    for level, divisor in zip(levels, divisors):
        level.divisor = divisor
    for level, weight in zip(levels, weights):
        level.loss_weight = weight


def make_output(
    normalizer="sum", gradient_scale=1.0, normalizer_addend=0.0, normalizer_minimum=0.0, normalizer_scope="batch"
):
    """The C output with its normalizer: a name, a number, or (later) a pointer."""
    output = _c.Output()
    _c.library.tare_output_init_sized(output, ctypes.sizeof(_c.Output))
    output.gradient_scale = _checks.number("gradient_scale", gradient_scale)
    output.normalizer_addend = _checks.number("normalizer_addend", normalizer_addend)
    output.normalizer_minimum = _checks.number("normalizer_minimum", normalizer_minimum)
    output.normalizer_scope = _c.SCOPES[_checks.word("normalizer_scope", normalizer_scope, _c.SCOPES)]
    if isinstance(normalizer, str):
        output.normalizer = _c.NORMALIZERS[_checks.word("normalizer", normalizer, _c.NORMALIZERS, ", or a number")]
    else:
        output.normalizer, output.normalizer_value = _c.VALUE, _checks.number("normalizer", normalizer)
    return output


def check_classes(classes):
    """`classes` of maps as an int, or None."""
    return None if classes is None else _checks.integer("classes", classes, 1, _checks.INT32[1])


def label_options(first_label, background_label, ignore_label, background_weight, **selection):
    """The batch's options of labels and selection, checked. selection: see _selection."""
    labels = {"first_label": first_label, "background_label": background_label, "ignore_label": ignore_label}
    options = {name: _checks.integer(name, label) for name, label in labels.items()}
    options["background_weight"] = _checks.number("background_weight", background_weight)
    return {**options, **_selection(**selection)}


def _selection(hard_negatives=None, least_negatives=None, hard_rows=None, hard_fraction=None):
    given = {"hard_negatives": hard_negatives, "hard_rows": hard_rows, "hard_fraction": hard_fraction}
    given = {name: one for name, one in given.items() if one is not None}
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are given; each selects rows in its own way, so give one of them")
    options = {}
    if hard_rows is not None:
        options["hard_rows"] = _checks.integer("hard_rows", hard_rows, 1)
    if hard_fraction is not None:
        options["hard_fraction"] = _checks.number("hard_fraction", hard_fraction)
        if options["hard_fraction"] <= 0:
            raise ValueError(f"hard_fraction is {_checks.shown(hard_fraction)}; it must be in (0,1]")
    if hard_negatives is not None:
        options["hard_negatives"] = _checks.number("hard_negatives", hard_negatives)
    elif least_negatives is not None:
        raise ValueError("least_negatives is given without hard_negatives; they go together")
    if least_negatives is not None:
        options["least_negatives"] = _checks.integer("least_negatives", least_negatives)
    return options


def select(batch, hard_negatives, least_negatives=0):
    """Makes the batch one of hard negative mining."""
    batch.selection = _c.HARD_NEGATIVES
    batch.selection_ratio, batch.selection_minimum = hard_negatives, least_negatives


def shares(labels, level_lengths, split):
    """One array for all levels, [images, rows of an image] or [rows] of one image, as one view a level."""
    check_alike(level_lengths)
    images = level_lengths[0][0]
    rows = [height * width * anchors for _, height, width, anchors, _ in level_lengths]
    if labels.shape[-1] != sum(rows) or (len(labels.shape) > 1 and tuple(labels.shape[:-1]) != (images,)):
        raise ValueError(
            f"one array for {len(rows)} levels must be [{images}, {sum(rows)}], rows of an image "
            f"level after level; it has shape {tuple(labels.shape)}"
        )
    return split(labels, rows)
