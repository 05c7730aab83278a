# SPDX-License-Identifier: Apache-2.0
"""Branches, convergence barriers, calls and barriers of a block."""

from __future__ import annotations

from typing import Callable

import numpy as np

from decode import Function, Instruction, Operand, bits_of, predicates
from execute import CONTROL, ControlMaker
from machine import LANES, Fragment, Waiting, Warp

Flow = Callable[[Warp, Fragment], int]


def flows(*names: str) -> Callable[[ControlMaker], ControlMaker]:
    def put(maker: ControlMaker) -> ControlMaker:
        for name in names:
            CONTROL[name] = maker
        return maker

    return put


def lanes_of(i: Instruction, more: list[Operand]) -> Callable[[Warp, Fragment], np.ndarray]:
    """The lanes of a fragment for which the guard and further predicates hold."""
    conditions = [predicates(o) for o in ([i.guard] if i.guard else []) + more]

    def lanes(w: Warp, f: Fragment) -> np.ndarray:
        mask = f.mask
        for condition in conditions:
            mask = mask & condition(w)
        return mask

    return lanes


def split(w: Warp, f: Fragment, lanes: np.ndarray, there: int, here: int) -> int:
    """Sends these lanes there, and the rest here."""
    if not lanes.any():
        return here
    rest = f.mask & ~lanes
    if not rest.any():
        return there
    w.ready.append(Fragment(there, lanes))
    f.mask = rest
    return here


@flows("BRA")
def branch(i: Instruction, number: int, function: Function) -> Flow:
    target = function.labels[i.operands[-1].text]
    if "DIV" in i.flags:  # around a shuffle by a part of a warp
        return lambda w, f: meet(w, f, number)
    lanes = lanes_of(i, [o for o in i.operands[:-1] if o.kind in ("P", "UP")])
    return lambda w, f: split(w, f, lanes(w, f), target, number + 1)


def meet(w: Warp, f: Fragment, number: int) -> int:
    if (f.mask == w.live).all():
        return number + 1
    w.park("warp", 0, f)
    raise Waiting


@flows("WARPSYNC")
def warp_barrier(i: Instruction, number: int, function: Function) -> Flow:
    return lambda w, f: meet(w, f, number)


@flows("BRX", "BRXU")
def jump(i: Instruction, number: int, function: Function) -> Flow:
    value = bits_of(i.operands[0])
    offset = int(i.operands[0].text.split()[-1].replace("+", ""), 16) if " " in i.operands[0].text else 0

    def go(w: Warp, f: Fragment) -> int:
        places = np.broadcast_to(value(w), LANES).view(np.int32) + i.place + 16 + offset
        for place in np.unique(places[f.mask])[1:]:
            w.ready.append(Fragment(int(place) // 16, f.mask & (places == place)))
        least = places[f.mask].min()
        f.mask = f.mask & (places == least)
        return int(least) // 16

    return go


@flows("CALL")
def call(i: Instruction, number: int, function: Function) -> Flow:
    target = function.labels[i.operands[-1].text]
    lanes = lanes_of(i, [])
    return lambda w, f: split(w, f, lanes(w, f), target, number + 1)


@flows("RET")
def give_back(i: Instruction, number: int, function: Function) -> Flow:
    register = i.operands[0].number
    return lambda w, f: int(w.r[register][int(np.argmax(f.mask))]) // 16


@flows("EXIT")
def leave(i: Instruction, number: int, function: Function) -> Flow:
    lanes = lanes_of(i, [])

    def go(w: Warp, f: Fragment) -> int:
        gone = lanes(w, f)
        w.leave(gone)
        f.mask = f.mask & ~gone
        return number + 1 if f.mask.any() else -1

    return go


@flows("BSSY")
def open_join(i: Instruction, number: int, function: Function) -> Flow:
    register = i.operands[0].number

    def go(w: Warp, f: Fragment) -> int:
        masks = w.joins.setdefault(register, [None] * 32)
        for lane in np.flatnonzero(f.mask):
            masks[lane] = f.mask
        return number + 1

    return go


@flows("BSYNC")
def join(i: Instruction, number: int, function: Function) -> Flow:
    register = i.operands[0].number
    lanes = lanes_of(i, [])

    def go(w: Warp, f: Fragment) -> int:
        if not lanes(w, f).any():
            return number + 1
        if (f.mask == w.wanted("join", register, f.mask)).all():
            return number + 1
        w.park("join", register, f)
        raise Waiting

    return go


@flows("BREAK")
def leave_join(i: Instruction, number: int, function: Function) -> Flow:
    register = i.operands[-1].number
    lanes = lanes_of(i, [])

    def go(w: Warp, f: Fragment) -> int:
        gone = lanes(w, f)
        masks = w.joins[register]
        for lane in range(32):
            mask = masks[lane]
            if mask is not None:
                masks[lane] = mask & ~gone
        return number + 1

    return go


@flows("BAR")
def block_barrier(i: Instruction, number: int, function: Function) -> Flow:
    vote = predicates(i.operands[-1]) if "RED" in i.flags else None

    def go(w: Warp, f: Fragment) -> int:
        if vote:
            w.block.voting += int((vote(w) & f.mask).sum())
        w.park("block", 0, f)
        raise Waiting

    return go


@flows("NOP", "YIELD", "MEMBAR", "ERRBAR", "CGAERRBAR", "CCTL", "LDGDEPBAR", "DEPBAR", "NANOSLEEP", "ENDCOLLECTIVE")
def nothing(i: Instruction, number: int, function: Function) -> Flow:
    return lambda w, f: number + 1
