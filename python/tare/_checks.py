# SPDX-License-Identifier: Apache-2.0
"""Checks of single arguments, for NumPy and PyTorch.

ctypes truncates an integer that is too long and takes any integer for a pointer. So every argument is checked here or
by the checks of arrays before it reaches C. Nothing here needs the library: torch.compile traces it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

INT32 = (-(2**31), 2**31 - 1)
INT64 = (-(2**63), 2**63 - 1)


class WrongType(TypeError, ValueError):
    """An argument of a wrong type, or a keyword that does not exist. A ValueError too: `except ValueError` catches
    everything that is wrong with an argument."""


def _kind(value: Any) -> str:
    """The type of an array's or a tensor's elements, "torch.bool" as "bool"; "" for what has no such type."""
    return str(getattr(value, "dtype", "")).rsplit(".", 1)[-1]


def shown(value: Any) -> str:
    """A value for a message; for an array, only its shape."""
    shape = getattr(value, "shape", ())
    return f"{type(value).__name__} of shape {tuple(shape)}" if shape else repr(value)


def integer(name: str, value: Any, low: int = INT64[0], high: int = INT64[1]) -> int:
    """`value` as an int in low..high. A float is refused even if it is whole, and so is a bool."""
    if not isinstance(value, int) or isinstance(value, bool):
        if isinstance(value, bool) or _kind(value) == "bool":
            raise WrongType(f"{name} is {value}; it must be an integer")
        try:
            value = operator.index(value)
        except TypeError:
            raise WrongType(f"{name} is {shown(value)}; it must be an integer") from None
    if value < low or value > high:
        raise ValueError(f"{name} is {value}; it must be in {low}..{high}")
    return value


def number(name: str, value: Any, finite: bool = True) -> float:
    """`value` as a float. Refused: a bool, a text, a complex number, an array, and what is not finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        _check_real(name, value)
    try:
        value = float(value)
    except OverflowError:
        raise ValueError(f"{name} is {value}; it must be finite") from None
    except (TypeError, ValueError):
        raise WrongType(f"{name} is {shown(value)}; it must be a number") from None
    if finite and not -math.inf < value < math.inf:
        raise ValueError(f"{name} is {value}; it must be finite")
    return value


def _check_real(name: str, value: Any) -> None:
    """Refuses values that float() would convert with a loss."""
    kinds = ("bool", "complex", "datetime", "timedelta", "<", ">", "|", "object")
    other = isinstance(value, (bool, str, bytes, complex)) or _kind(value).startswith(kinds)
    if other or tuple(getattr(value, "shape", ())):
        raise WrongType(f"{name} is {shown(value)}; it must be a number")
    if getattr(value, "requires_grad", False):
        raise ValueError(f"{name} asks for a gradient, and none would reach it; give a number, or detach() it")


def flag(name: str, value: Any) -> bool:
    """`value` as a bool: True, False, 1 or 0."""
    scalar = isinstance(value, int) or (_kind(value) == "bool" and not getattr(value, "shape", ()))
    if scalar and value in (0, 1):
        return bool(value)
    raise WrongType(f"{name} is {shown(value)}; it must be True or False")


def word(name: str, value: Any, known: Iterable[str], otherwise: str = "") -> str:
    """`value`, which is one of the words `known`. otherwise: what else it may be, for the message."""
    if isinstance(value, str):
        if value in known:
            return value
        raise ValueError(f"{name} is {value!r}; it is one of: {', '.join(known)}{otherwise}")
    raise WrongType(f"{name} is {shown(value)}; it is one of: {', '.join(known)}{otherwise}")
