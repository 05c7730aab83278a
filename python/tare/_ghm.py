# SPDX-License-Identifier: Apache-2.0
"""Checks of a GHM state, so that one that was averaged, cast or never initialized is refused."""

from __future__ import annotations

import numpy as np


def _fault(state: np.ndarray, bins: int) -> str:
    floats = state[2 + bins :].view(np.float64)
    sums, inverse = floats[:bins], floats[bins:]
    if state[: 2 + bins].min() < 0:
        return "a negative count"
    if not (np.isfinite(sums).all() and (floats >= 0).all()):
        return "a momentum sum or a density that is negative or not finite"
    if inverse[sums == 0].any():
        return "a density without a sum"
    present = (inverse > 0) & (sums > 1e-290)  # below, 1/GD overflows
    products = (sums * np.where(present, inverse, 1))[present]
    if len(products):
        regions = round(1 / products[0]) if products[0] * (2 * bins) > 1 else 0
        if not 1 <= regions <= bins or abs(products * regions - 1).max() > 1e-9:
            return "densities that do not go with their sums"
    return ""


def check_state(state: np.ndarray, bins: int) -> None:
    """Raises ValueError if `state`, int64 [2 + 3*bins], is not a state. The C header describes its words.

    1/GD times S is 1/k with one k in 1..bins, whatever the variant: the number of regions that share the loss. The
    average of two states, word by word, has no such k.
    """
    with np.errstate(all="ignore"):  # garbage may overflow, and the caller may have made that an error
        fault = _fault(state, bins) if state.any() else ""
    if fault:
        raise ValueError(
            f"state holds {fault}: Tare did not write it so. It is an average of states, was cast, or was "
            f"never initialized. Start from ghm_state({bins})"
        )
