# SPDX-License-Identifier: Apache-2.0
"""The losses as the library describes them: names, families, parameters, what each takes; and the spec of one for C.

There is no list of losses here: a new loss of the library needs no change.
"""

import ctypes
from ctypes import c_double, c_int32, c_void_p
from typing import NamedTuple

from . import _c, _checks

_TYPES = (c_double, c_int32, c_int32, c_void_p, c_void_p)  # of a value, by tare_parameter_type
_PER_CLASS, _STATE = 3, 4


class Parameter(NamedTuple):
    """One parameter of a loss, by tare_parameter_description."""

    name: str
    type: int
    offset: int
    low: float
    high: float
    limits: str
    default: float
    choices: tuple  # of words, by value; empty for what is no choice
    is_pointer: bool  # a field, like has_state below: Dynamo of PyTorch 2.4 traces no property of a named tuple


class Description(NamedTuple):
    """One loss, by tare_loss_description."""

    kind: int
    family: int
    takes_class_weights: bool
    gives_element_loss: bool
    takes_bins: int  # numbers of a row's scores, where these are a target between bins
    parameters: dict  # by name
    has_state: bool


def _parameter_at(kind, index):
    found = _c.ParameterDescription()
    found.struct_size = ctypes.sizeof(found)
    _c.check(_c.library.tare_loss_parameter(kind, index, found))
    words = []
    while found.choices and found.choices[len(words)]:
        words.append(found.choices[len(words)].decode())
    name, limits = found.name.decode(), found.limits.decode()
    default = found.default_value if _TYPES[found.type] is c_double else int(found.default_value)
    is_pointer = found.type in (_PER_CLASS, _STATE)
    return Parameter(name, found.type, found.offset, found.low, found.high, limits, default, tuple(words), is_pointer)


def _described(kind):
    found = _c.LossDescription()
    found.struct_size = ctypes.sizeof(found)
    _c.check(_c.library.tare_loss_describe(kind, found))
    parameters = [_parameter_at(kind, index) for index in range(found.parameters)]
    return found.name.decode(), Description(
        kind,
        found.family,
        bool(found.takes_class_weights),
        bool(found.gives_element_loss),
        found.takes_bins,
        {parameter.name: parameter for parameter in parameters},
        any(parameter.type == _STATE for parameter in parameters),
    )


DESCRIPTIONS = dict(
    _described(_c.library.tare_loss_kind_at(index)) for index in range(_c.library.tare_loss_count())
)  # by name, in the library's order


def losses() -> dict[str, int]:
    """The names of all losses ("sigmoid-focal"), in the library's order, with their numbers."""
    return {name: description.kind for name, description in DESCRIPTIONS.items()}


def loss_name(name):
    """The name of a loss as the library has it: "sigmoid_focal" is "sigmoid-focal"."""
    known = name.replace("_", "-") if isinstance(name, str) else name
    if not isinstance(known, str) or known not in DESCRIPTIONS:
        raise ValueError(f"there is no loss {_checks.shown(name)}; there are: {', '.join(DESCRIPTIONS)}")
    return known


def vectors_of(name):
    """The parameters of a loss that are one value a class, behind a pointer: alpha_per_class, offset."""
    return [key for key, parameter in DESCRIPTIONS[name].parameters.items() if parameter.type == _PER_CLASS]


def no_parameter(name, key):
    description = DESCRIPTIONS[name]
    known = f"it has: {', '.join(description.parameters)}"
    if key in ("alpha", "alpha_per_class") and description.takes_class_weights:
        return _checks.WrongType(f"{name} has no alpha; use class_weights. As parameters {known}")
    return _checks.WrongType(f"{name} has no parameter '{key}'; {known}")


def parameters_of(name, given):
    """The parameters of the loss `name` as C takes them: numbers that fit, words as their numbers, and no pointers."""
    known, checked = DESCRIPTIONS[name].parameters, {}
    for key, value in given.items():
        if key not in known or known[key].is_pointer:
            raise no_parameter(name, key)
        checked[key] = _value(known[key], value)
    return checked


def _value(parameter, value):
    key = parameter.name
    if parameter.choices:
        if type(value) is int and 0 <= value < len(parameter.choices):
            return value
        return parameter.choices.index(_checks.word(key, value, parameter.choices))
    if _TYPES[parameter.type] is c_double:
        return _checks.number(key, value)
    if (parameter.low, parameter.high) == (0, 1):
        return int(_checks.flag(key, value))
    value = _checks.integer(key, value)
    if not _checks.INT32[0] <= value <= _checks.INT32[1]:
        raise ValueError(f"{key} is {value}; it must be in {parameter.low:.0f}..{parameter.high:.0f}")
    return value


def value_of(name, parameters, key):
    """A checked parameter or its default; of a choice its word; None for a loss that has no such parameter."""
    parameter = DESCRIPTIONS[name].parameters.get(key)
    if parameter is None:
        return None
    value = parameters.get(key, parameter.default)
    if parameter.choices:
        return parameter.choices[value]
    return value


def make_loss(name, parameters, **pointers):
    """The struct of a loss with the library's defaults but for `parameters` and pointers; and the parameters, checked.

    pointers: addresses of arrays that were checked: those of vectors_of, and state.
    """
    name = loss_name(name)
    checked = parameters_of(name, parameters)
    return fill_loss(name, checked, pointers), checked


def fill_loss(name, parameters, pointers):
    """The struct of a loss with parameters that were checked."""
    description, loss = DESCRIPTIONS[name], _c.Loss()
    _c.library.tare_loss_spec_init_sized(loss, description.kind, ctypes.sizeof(loss))
    for key, value in (parameters | pointers).items():
        parameter = description.parameters.get(key)
        if parameter is None:
            raise no_parameter(name, key)
        _TYPES[parameter.type].from_buffer(loss, parameter.offset).value = value
    _refuse_what_lacks(name, parameters, pointers)
    return loss


def _refuse_what_lacks(name, parameters, pointers):
    """Refuses what the library would refuse in the words of its structs."""
    if not DESCRIPTIONS[name].has_state or "state" in pointers:
        return
    momentum, stored = (value_of(name, parameters, key) for key in ("momentum", "use_stored_density"))
    if 0 < momentum < 1 or stored:
        asks = f"momentum is {momentum:g}" if momentum > 0 else "use_stored_density is True"
        bins = value_of(name, parameters, "bins")
        raise ValueError(f"{asks} and state is None; it needs a state, from ghm_state({bins})")
