# SPDX-License-Identifier: Apache-2.0
"""Loads, stores and atomics. A copy to shared memory is done when it has begun."""

from __future__ import annotations

import re
from typing import Callable

import numpy as np

from decode import Function, Instruction, Operand, bits_of, constant_place, operand
from execute import Action, makes, put_bits
from machine import LANES, Warp

Place = Callable[[Warp], np.ndarray]


def width(i: Instruction) -> int:
    """Bytes."""
    for flag, size in (("128", 16), ("64", 8), ("U16", 2), ("S16", 2), ("U8", 1), ("S8", 1)):
        if flag in i.flags:
            return size
    return 4


def place_of(o: Operand) -> Place:
    """Addresses of desc[UR4][R2.64+0x10] and [R2+UR4+0x10]."""
    inside = o.text.rsplit("[", 1)[1].rstrip("]")
    offset, terms, wide = 0, [], ".64" in inside
    for part in inside.split("+"):
        if re.match(r"U?R", part):
            terms.append(operand(part.split(".")[0]))
        else:
            offset += int(part, 16)

    def at(w: Warp) -> np.ndarray:
        total = np.full(LANES, offset & 0xFFFFFFFFFFFFFFFF, np.uint64)
        for term in terms:
            file = w.r if term.kind == "R" else w.u
            total = total + file[term.number]
            if wide and term.number not in (63 if term.kind == "U" else 255,):
                total = total + (file[term.number + 1].astype(np.uint64) << np.uint64(32))
        return total if wide else total & np.uint64(0xFFFFFFFF)

    return at


def words(raw: np.ndarray, size: int) -> np.ndarray:
    """Bytes of lanes as words: [lanes, words]."""
    if size >= 4:
        return np.ascontiguousarray(raw).view(np.uint32)
    return np.ascontiguousarray(raw).view({1: np.uint8, 2: np.uint16}[size]).astype(np.uint32)


def area_of(w: Warp, shared: bool, places: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    if shared:
        return w.block.shared, places.astype(np.int64)[:, None] + np.arange(size)
    return w.block.memory.places(places, size)


@makes("LDG", "LDS", "LD")
def load(i: Instruction, _: Function) -> Action:
    size, at, shared = width(i), place_of(i.operands[-1]), i.name == "LDS"
    to = next(o for o in i.operands if o.kind == "R")

    def act(w: Warp, lanes: np.ndarray) -> None:
        area, offsets = area_of(w, shared, at(w)[lanes], size)
        got = words(area[offsets], size)
        for k in range(got.shape[1]):
            if to.number != 255:
                w.r[to.number + k][lanes] = got[:, k]

    return act


@makes("STG", "STS", "ST")
def store(i: Instruction, _: Function) -> Action:
    size, shared, value = width(i), i.name == "STS", i.operands[-1]
    at = place_of(i.operands[0])

    def act(w: Warp, lanes: np.ndarray) -> None:
        area, offsets = area_of(w, shared, at(w)[lanes], size)
        file, none = (w.r, 255) if value.kind == "R" else (w.u, 63)
        columns = [
            np.broadcast_to(file[value.number if value.number == none else value.number + k], LANES)[lanes]
            for k in range(max(size // 4, 1))
        ]
        area[offsets] = np.ascontiguousarray(np.stack(columns, 1)).view(np.uint8)[:, :size]

    return act


@makes("LDGSTS")
def copy(i: Instruction, _: Function) -> Action:
    size, to, at = width(i), place_of(i.operands[0]), place_of(i.operands[1])

    def act(w: Warp, lanes: np.ndarray) -> None:
        area, offsets = w.block.memory.places(at(w)[lanes], size)
        into = to(w)[lanes].astype(np.int64)[:, None] + np.arange(size)
        w.block.shared[into] = area[offsets]

    return act


@makes("LDC")
def constant(i: Instruction, _: Function) -> Action:
    bank, register, offset = constant_place(i.operands[1].text)
    size = width(i)
    index = bits_of(operand(register)) if register else None

    def act(w: Warp, lanes: np.ndarray) -> None:
        table = w.block.banks[bank]
        if index is None or i.operands[0].kind == "U":
            start = offset + (int(index(w)[0]) if index else 0)
            got = table[start : start + size].view(np.uint32)[None, :]
        else:
            places = index(w).astype(np.int64) + offset
            got = table[np.where(lanes, places, 0)[:, None] + np.arange(size)].view(np.uint32)
        for k in range(size // 4):
            put_bits(w, i.operands[0], got[:, k], lanes, k)

    return act


@makes("ATOMS", "ATOMG", "RED")
def atomic(i: Instruction, _: Function) -> Action:
    size, shared = width(i), i.name == "ATOMS"
    at = place_of(next(o for o in i.operands if o.kind == "M"))
    value = i.operands[-1] if i.operands[-1].kind == "R" else None
    to = next((o for o in i.operands if o.kind == "R"), None)

    def act(w: Warp, lanes: np.ndarray) -> None:
        for lane in np.flatnonzero(lanes):
            area, offsets = area_of(w, shared, at(w)[lane : lane + 1], size)
            cell = area[int(offsets[0, 0]) :][:size].view(np.uint64 if size == 8 else np.uint32)
            before, given = int(cell[0]), number_at(w, value, int(lane), size)
            cell[0] = after(i.flags, before, given) & ((1 << 8 * size) - 1)
            if to is not None and to is not value and to.number != 255:
                w.r[to.number][lane] = before & 0xFFFFFFFF

    return act


def number_at(w: Warp, o: Operand | None, lane: int, size: int) -> int:
    if o is None or o.number == 255:
        return 0
    low = int(w.r[o.number][lane])
    return low | int(w.r[o.number + 1][lane]) << 32 if size == 8 else low


def after(flags: frozenset[str], before: int, given: int) -> int:
    if "POPC" in flags:
        return before + 1
    if "ADD" in flags:
        return before + given
    if "MIN" in flags:
        return min(before, given)
    if "MAX" in flags:
        return max(before, given)
    if "INC" in flags:
        return 0 if before >= given else before + 1
    raise NotImplementedError(sorted(flags))
