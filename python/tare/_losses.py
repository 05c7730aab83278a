# SPDX-License-Identifier: Apache-2.0
"""The losses that the library has: their names and numbers, their parameters, and the struct of one."""

import ctypes
import functools
from ctypes import c_int32, c_void_p

from . import _c, _checks


def losses():
    """The names of all losses ("sigmoid-focal"), in the library's order, with their numbers."""
    kinds = [_c.library.tare_loss_kind_at(index) for index in range(_c.library.tare_loss_count())]
    return {_c.library.tare_loss_name(kind).decode(): kind for kind in kinds}


@functools.cache
def _part(name):
    """The union's member that counts: the one that the loss's name carries, `focal` of "softmax-focal"."""
    return next(part for part in name.split("-") if hasattr(_c.Loss, part))


PARAMETERS = {name: dict(dict(_c.Parameters._fields_)[_part(name)]._fields_) for name in losses()}  # C types, by loss


def loss_name(name):
    """The name of a loss as the library has it: "sigmoid_focal" is "sigmoid-focal"."""
    known = name.replace("_", "-") if isinstance(name, str) else name
    if not isinstance(known, str) or known not in PARAMETERS:
        raise ValueError(f"there is no loss {_checks.shown(name)}; there are: {', '.join(PARAMETERS)}")
    return known


def no_parameter(name, key):
    return _checks.WrongType(f"{name} has no parameter '{key}'; it has: {', '.join(PARAMETERS[name])}")


def parameters_of(name, given):
    """The parameters of the loss `name` as C takes them: numbers that fit, words as their numbers, and no pointers."""
    fields, checked = PARAMETERS[name], {}
    for key, value in given.items():
        kind = fields.get(key)
        if kind is None or kind is c_void_p:
            raise no_parameter(name, key)
        checked[key] = _parameter(key, value, kind)
    return checked


def _parameter(key, value, kind):
    words = _c.WORDS.get(key)
    if words:
        if type(value) is int and 0 <= value < len(words):
            return value
        return words[_checks.word(key, value, words)]
    if key == "use_stored_density":
        return int(_checks.flag(key, value))
    if kind is c_int32:
        value = _checks.integer(key, value)
        if not _checks.INT32[0] <= value <= _checks.INT32[1]:
            raise ValueError(f"{key} is {value}; it must be in 1..1024")
        return value
    return _checks.number(key, value)


@functools.cache
def _defaults(name):
    loss = _c.Loss()
    _c.library.tare_loss_spec_init_sized(loss, losses()[name], ctypes.sizeof(_c.Loss))
    return loss


def make_loss(name, parameters, **pointers):
    """A Loss with the library's defaults but for `parameters` and pointers, and the member of its union that counts.

    pointers: addresses of arrays that were checked: alpha_per_class, state.
    """
    name = loss_name(name)
    return fill_loss(name, parameters_of(name, parameters), pointers)


def fill_loss(name, parameters, pointers):
    """make_loss with a name and parameters that were checked."""
    loss = _c.Loss.from_buffer_copy(_defaults(name))
    member = getattr(loss, _part(name))
    for key, value in parameters.items():
        setattr(member, key, value)
    for key, address in pointers.items():
        if key not in PARAMETERS[name]:
            raise no_parameter(name, key)
        setattr(member, key, address)
    _refuse_what_lacks(name, member)
    return loss, member


def _refuse_what_lacks(name, member):
    """Combinations that the library would refuse in the words of its structs."""
    if name == "softmax-ce" and (member.alpha >= 0 or member.alpha_per_class):
        raise ValueError("softmax-ce has no alpha; leave it out, and use class_weights")
    if name.startswith("ghm") and not member.state and (0 < member.momentum < 1 or member.use_stored_density):
        asks = f"momentum is {member.momentum:g}" if member.momentum > 0 else "use_stored_density is True"
        raise ValueError(f"{asks} and state is None; it needs a state, from ghm_state({member.bins})")
