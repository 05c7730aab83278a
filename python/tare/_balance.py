# SPDX-License-Identifier: Apache-2.0
"""Running counts of positives, and the class-balanced weights that follow from them: on NumPy arrays."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _arrays, _batch, _c, _checks, _structs

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

NUMBERS = ("beta", "decay", "least_count")


def words_of(classes: int) -> int:
    """Length of a state in words of 8 bytes."""
    classes = _checks.integer("classes", classes, 1, _checks.INT32[1] - 1)
    return _c.library.tare_class_balance_state_bytes(classes) // 8


def settings_of(beta: float, decay: float, least_count: float) -> dict[str, float]:
    """The numbers, in range."""
    given = dict(zip(NUMBERS, (beta, decay, least_count)))
    found = {name: _checks.number(name, one) for name, one in given.items()}
    if not 0 <= found["beta"] < 1:
        raise ValueError(f"beta is {found['beta']:.17g}; it must be in [0,1)")
    if not 0 < found["decay"] <= 1:
        raise ValueError(f"decay is {found['decay']:.17g}; it must be in (0,1]")
    if found["least_count"] and not 1e-30 <= found["least_count"] <= 2**53:
        raise ValueError(f"least_count is {found['least_count']:.17g}; it must be 0, or in [1e-30,2**53]")
    return found


def make(
    classes: int, settings: dict[str, float], state: int, weights: int | None = None, log_counts: int | None = None
) -> Any:
    """The C struct. state, weights, log_counts: addresses."""
    balance = _structs.ClassBalance()
    _c.library.tare_class_balance_init_sized(balance, classes, ctypes.sizeof(balance))
    for name, value in settings.items():
        setattr(balance, name, value)
    balance.state, balance.weights, balance.log_counts = state, weights, log_counts
    return balance


def check_state(state: np.ndarray, classes: int) -> None:
    """Raises ValueError if `state`, int64 [1 + 2*classes], is not a state: it was averaged, cast or never written."""
    counts = state[1 + classes :].view(np.float64)
    with np.errstate(all="ignore"):
        sound = state[: 1 + classes].min() >= 0 and np.isfinite(counts).all() and (counts >= 0).all()
    if not sound:
        raise ValueError("state holds a count that is negative or not finite: Tare did not write it so")


class ClassBalance:
    """Class weights of Cui et al. (arXiv 1901.05555) that follow the data: 1/E of the positives seen so far.

        balance = tare.ClassBalance(classes=80)
        for logits, labels in batches:
            weights = balance.step(labels)  # counts this batch, then forms the weights
            tare.evaluate("sigmoid-focal", logits, labels, class_weights=weights)

    A step counts the rows of each class and adds them to the running counts: n = decay*n + counts. The weights are
    proportional to 1/E_n, E_n = (1-beta^n)/(1-beta), and add up to the number of classes seen. A class that was never
    seen has weight 0, or with a least_count that of so many rows. Before any class was seen every weight is 1.

    Several ranks add `state[1 : 1 + classes]`, int64, between `count` and `update`.

    classes: C. beta: in [0,1). decay: in (0,1]; 1 adds up all rows. least_count: 0, or in [1e-30,2**53].
    """

    def __init__(self, classes: int, beta: float = 0.999, decay: float = 1.0, least_count: float = 0.0) -> None:
        self.state = np.zeros(words_of(classes), np.int64)
        self.classes, self._settings = int(classes), settings_of(beta, decay, least_count)

    @property
    def steps(self) -> int:
        """How many batches were counted."""
        return int(self.state[0])

    @property
    def counts(self) -> np.ndarray:
        """A copy of the running counts, float64 [C]."""
        return self.state[1 + self.classes :].view(np.float64).copy()

    def count(
        self, labels: ArrayLike, *, first_label: int = 0, background_label: int = -1, ignore_label: int = -2
    ) -> None:
        """Counts the labels of one batch, of any shape, into `state[1 : 1 + classes]`."""
        array = np.ascontiguousarray(_arrays.as_array("labels", labels)).reshape(1, -1)
        if array.dtype.name not in _arrays.LABEL_DTYPES:
            raise _checks.WrongType(f"labels are {array.dtype}; they must be int32 or int64")
        level = _batch.Level(_arrays.library, (*array.shape, self.classes))
        level.rows("labels", array)
        options = _batch.label_options(first_label, background_label, ignore_label, 1.0)
        batch = _batch.make_batch([level], _c.F32, _arrays.LABEL_DTYPES[array.dtype.name], **options)
        context = _c.context()
        _c.check(_c.library.tare_class_balance_count(context, self._struct(), batch, None), context)

    def update(self) -> np.ndarray:
        """Adds the counts of `count` to the running ones, and returns the weights, float32 [C]."""
        return self._weigh(_c.library.tare_class_balance_step)

    def step(self, labels: ArrayLike, **options: int) -> np.ndarray:
        """`count` and `update`. options: those of `count`."""
        self.count(labels, **options)
        return self.update()

    def weights(self) -> np.ndarray:
        """The weights of the running counts as they are, float32 [C]: for an evaluation beside training."""
        return self._weigh(_c.library.tare_class_balance_weigh)

    def _struct(self, weights: np.ndarray | None = None) -> Any:
        check_state(self.state, self.classes)
        address = None if weights is None else weights.ctypes.data
        return make(self.classes, self._settings, self.state.ctypes.data, address)

    def _weigh(self, call: Any) -> np.ndarray:
        weights = np.empty(self.classes, np.float32)
        context = _c.context()
        _c.check(call(context, self._struct(weights), None), context)
        return weights
