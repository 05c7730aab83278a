# SPDX-License-Identifier: Apache-2.0
"""What instructions do: a table of makers, by the first word of an instruction's name."""

from __future__ import annotations

from typing import Callable

import numpy as np

from decode import Function, Instruction, Operand, predicates
from machine import Fragment, Step, Warp

Action = Callable[[Warp, np.ndarray], None]  # on these lanes; then the next instruction
Maker = Callable[[Instruction, Function], Action]
MAKERS: dict[str, Maker] = {}


def makes(*names: str) -> Callable[[Maker], Maker]:
    """Puts a maker into the table, for vector and uniform registers alike."""

    def put(maker: Maker) -> Maker:
        for name in names:
            MAKERS[name] = MAKERS["U" + name] = maker
        return maker

    return put


def put_bits(w: Warp, to: Operand, value: np.ndarray, lanes: np.ndarray, offset: int = 0) -> None:
    """Writes 32 bits of each lane to a register."""
    if to.kind == "U":
        if to.number != 63:
            w.u[to.number + offset] = value.astype(np.uint32)[0]
    elif to.number != 255:
        np.copyto(w.r[to.number + offset], value.astype(np.uint32, copy=False), where=lanes)


def put_pair(w: Warp, to: Operand, value: np.ndarray, lanes: np.ndarray) -> None:
    if to.number != (63 if to.kind == "U" else 255):
        put_bits(w, to, value & np.uint64(0xFFFFFFFF), lanes)
        put_bits(w, to, value >> np.uint64(32), lanes, 1)


def put_predicate(w: Warp, to: Operand, value: np.ndarray, lanes: np.ndarray) -> None:
    if to.number == 7:
        return
    if to.kind == "UP":
        w.up[to.number] = value[0]
    else:
        np.copyto(w.p[to.number], value, where=lanes)


def split_predicates(operands: list[Operand]) -> tuple[list[Operand], list[Operand], list[Operand]]:
    """Predicates that are written, values, predicates that are read, of the operands after the first."""
    first = next((i for i, o in enumerate(operands) if o.kind not in ("P", "UP")), len(operands))
    last = len(operands)
    while last > first and operands[last - 1].kind in ("P", "UP"):
        last -= 1
    return operands[:first], operands[first:last], operands[last:]


def step_of(i: Instruction, number: int, function: Function) -> Step:
    """An instruction with its guard. Control flow has makers of its own."""
    control = CONTROL.get(i.name)
    if control:
        return Step(i.text, control(i, number, function))
    if i.name not in MAKERS:
        return Step(i.text, unknown)
    try:
        action = MAKERS[i.name](i, function)
    except NotImplementedError:  # an error where it is executed
        return Step(i.text, unknown)
    if i.guard is None:

        def always(w: Warp, f: Fragment) -> int:
            action(w, f.mask)
            return number + 1

        return Step(i.text, always)
    guard = predicates(i.guard)

    def guarded(w: Warp, f: Fragment) -> int:
        lanes = f.mask & guard(w)
        if lanes.any():
            action(w, lanes)
        return number + 1

    return Step(i.text, guarded)


def unknown(w: Warp, f: Fragment) -> int:
    raise NotImplementedError


ControlMaker = Callable[[Instruction, int, Function], Callable[[Warp, Fragment], int]]
CONTROL: dict[str, ControlMaker] = {}


def assemble(function: Function) -> list[Step]:
    """A function, ready to run."""
    return [step_of(i, number, function) for number, i in enumerate(function.instructions)]
