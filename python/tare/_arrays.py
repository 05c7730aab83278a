# SPDX-License-Identifier: Apache-2.0
"""What callers give as NumPy arrays, checked."""

from types import SimpleNamespace

import numpy as np

from . import _c, _checks

DTYPES = {"float32": _c.F32, "float16": _c.F16, "bfloat16": _c.BF16, "float64": _c.F64}  # bfloat16: as ml_dtypes has it
LABEL_DTYPES = {"int32": _c.I32, "int64": _c.I64}


def _strides(array):
    """Strides in elements; those of axes without a second element mean nothing and are 0."""
    steps = [step if length > 1 else 0 for step, length in zip(array.strides, array.shape)]
    if any(step % array.itemsize for step in steps):
        raise ValueError(f"an array's strides {array.strides} are no multiples of its element's size; copy it first")
    return tuple(step // array.itemsize for step in steps)


def _pointer(array):
    if not array.flags.aligned:
        raise ValueError("an array is not aligned to its element's size; copy it first")
    return array.__array_interface__["data"][0]


library = SimpleNamespace(strides=_strides, pointer=_pointer)


def is_masked(given):
    return isinstance(given, np.ma.MaskedArray) or (isinstance(given, (list, tuple)) and any(map(is_masked, given)))


def as_array(name, given):
    """`given` as an array that has lost nothing on the way."""
    if is_masked(given):
        raise _checks.WrongType(
            f"{name} is a masked array, whose mask would be lost; fill it (x.filled(0)), and mark "
            "rows that shall not count by ignore_label or a row weight of 0"
        )
    try:
        return np.asarray(given)
    except Exception as error:  # a ragged list, a tensor that asks for a gradient or lies on a GPU
        raise _checks.WrongType(f"{name} cannot be taken as an array: {error}") from None


def as_float32(name, given):
    """Weights as float32; what this type cannot hold is refused."""
    array = as_array(name, given)
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise _checks.WrongType(f"{name} are {array.dtype}; they must be real numbers")
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32, copy=False)
    if array.dtype.itemsize > 4 and (lost := np.isinf(narrow) & ~np.isinf(array)).any():
        raise ValueError(f"{name} hold {array[lost].flat[0]:g}, which is not finite in float32")
    return narrow
