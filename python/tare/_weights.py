# SPDX-License-Identifier: Apache-2.0
"""Class weights, offsets and margins from counts, as NumPy arrays."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np

from . import _c, _checks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ._types import EmptyClasses


def _numbers(name, given, kinds, wanted):
    """A one-dimensional array of real numbers; what would lose a part of itself on its way to C is refused."""
    if isinstance(given, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array, whose mask would be lost; fill it first: x.filled(0)")
    array = np.asarray(given)
    if array.dtype.kind not in kinds:
        raise ValueError(f"{name} is of type {array.dtype}; it must be {wanted}")
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name} has shape {array.shape}; it must be [classes], at least one")
    return array


def _counts(given):
    """The counts as C takes them, and the call that takes them: int64 where they are whole, else float64."""
    counts = _numbers("counts", given, "iuf", "integers below 2**63, or floats")
    if counts.dtype.kind == "f" or (counts.dtype == np.uint64 and counts.max() > np.iinfo(np.int64).max):
        return np.ascontiguousarray(counts, np.float64), ctypes.c_double, _c.library.tare_class_balanced_weights_real
    return np.ascontiguousarray(counts, np.int64), ctypes.c_int64, _c.library.tare_class_balanced_weights


def _betas(given, classes):
    """One beta a class, float64."""
    betas = np.ascontiguousarray(_numbers("beta", given, "iuf", "floats"), np.float64)
    if len(betas) != classes:
        raise ValueError(f"beta has {len(betas)} numbers; counts has {classes}")
    outside = np.flatnonzero(~((betas >= 0) & (betas < 1)))
    if len(outside):
        raise ValueError(f"beta[{outside[0]}] is {betas[outside[0]]:.17g}; it must be in [0,1)")
    return betas


def _typed(array, kind):
    return None if array is None else array.ctypes.data_as(ctypes.POINTER(kind))


def class_balanced_weights(counts: ArrayLike, beta: ArrayLike = 0.999) -> np.ndarray:
    """Class weights of Cui et al., arXiv 1901.05555: w_c is proportional to (1-beta)/(1-beta^n_c).

    The weights add up to the number of classes present. A class with n_c = 0 gets 0.

    counts: rows of each class [C], finite and >= 0. They are integers, or floats where a row counts in part (soft
    labels, weighted samples). beta: a number in [0,1), or one for each class. Returns float32 [C].
    """
    given, kind, call = _counts(counts)
    weights, betas = np.empty(len(given), np.float32), None
    if np.ndim(beta):
        betas, beta = _betas(beta, len(given)), 0.0
    beta = _checks.number("beta", beta)
    arrays = _typed(given, kind), beta, _typed(betas, ctypes.c_double), _typed(weights, ctypes.c_float)
    _c.check(call(len(given), *arrays))
    return weights


_EMPTY = ("one", "excluded")  # tare_empty_classes


def _of_counts(call, counts, name, number, empty):
    """float32 [C] of a C function of counts, a number and what empty classes are."""
    if empty not in _EMPTY:
        raise ValueError(f"empty is {empty!r}; it must be one of {', '.join(_EMPTY)}")
    counts = np.ascontiguousarray(_numbers("counts", counts, "iuf", "integers or floats"), np.float64)
    result = np.empty(len(counts), np.float32)
    given, number = _typed(counts, ctypes.c_double), _checks.number(name, number)
    _c.check(call(len(counts), given, number, _EMPTY.index(empty), _typed(result, ctypes.c_float)))
    return result


def logit_adjustment(counts: ArrayLike, tau: float = 1.0, empty: EmptyClasses = "one") -> np.ndarray:
    """Offsets tau*log(n_c/sum n) of softmax-logit-adjusted (Menon et al., arXiv 2007.07314, eq. 10). tau 1 is balanced
    softmax (arXiv 2007.10740); -tau adjusts logits after training instead.

    counts: samples of each class [C], finite and >= 0. tau: in [-1e30,1e30]. empty: a count of 0 counts as 1 ("one"),
    or its class is left out of the softmax ("excluded"), by an offset of -inf. A label of it is then an
    error. Returns float32 [C].
    """
    return _of_counts(_c.library.tare_logit_offsets, counts, "tau", tau, empty)


def ldam_margins(counts: ArrayLike, max_margin: float = 0.5, empty: EmptyClasses = "one") -> np.ndarray:
    """Margins max_margin*(n_c/n_min)^(-1/4) of softmax-ldam (Cao et al., arXiv 1906.07413). The rarest class has
    max_margin.

    counts: samples of each class [C], finite and >= 0. max_margin: in [0,1e6]. empty: a count of 0 counts as 1 ("one"),
    or its class is left out of the softmax ("excluded"), by a margin of inf. A label of it is then an error.
    Returns float32 [C].
    """
    return _of_counts(_c.library.tare_ldam_margins, counts, "max_margin", max_margin, empty)


def effective_number(n: float, beta: float) -> float:
    """E_n = (1-beta^n)/(1-beta) of `n` samples, beta in [0,1) (Cui et al., eq. 2)."""
    value, n, beta = ctypes.c_double(), _checks.number("n", n, finite=False), _checks.number("beta", beta)
    _c.check(_c.library.tare_effective_number(n, beta, value))
    return value.value


def beta_from_volume(volume: float) -> float:
    """beta = (N-1)/N of a class whose prototypes fill a volume of N, 1 to 2^52 (Cui et al., section 3.2)."""
    value = ctypes.c_double()
    _c.check(_c.library.tare_beta_from_volume(_checks.number("volume", volume), value))
    return value.value
