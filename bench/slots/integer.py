# SPDX-License-Identifier: Apache-2.0
"""Integers, bits, predicates and registers."""

from __future__ import annotations

from typing import Callable

import numpy as np

from decode import BITS, Function, Instruction, integers, pairs, predicates
from execute import Action, makes, put_bits, put_pair, put_predicate, split_predicates
from machine import LANES, Warp

ONE, WORD = np.uint64(1), np.uint64(32)
COMPARE: dict[str, Callable[..., np.ndarray]] = {
    "LT": np.less, "GT": np.greater, "LE": np.less_equal, "GE": np.greater_equal, "EQ": np.equal, "NE": np.not_equal,
}  # fmt: skip


def signed(x: np.ndarray) -> np.ndarray:
    return (x & BITS).astype(np.uint32).view(np.int32).astype(np.int64)


@makes("MOV")
def move(i: Instruction, _: Function) -> Action:
    value = integers(i.operands[1])
    return lambda w, lanes: put_bits(w, i.operands[0], value(w), lanes)


@makes("IADD3", "VIADD")
def add(i: Instruction, _: Function) -> Action:
    written, values, read = split_predicates(i.operands[1:])
    terms = [integers(o) for o in values]
    carries = [predicates(o) for o in read] if "X" in i.flags else []

    def act(w: Warp, lanes: np.ndarray) -> None:
        total = np.uint64(0)
        for term in terms:
            total = total + term(w)
        for carry in carries:
            total = total + carry(w)
        put_bits(w, i.operands[0], total & BITS, lanes)
        for k, o in enumerate(written):
            put_predicate(w, o, total >> WORD > np.uint64(k), lanes)

    return act


def product(i: Instruction, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """64 bits."""
    if "U32" in i.flags:
        return (a & BITS) * (b & BITS)
    return (signed(a) * signed(b)).view(np.uint64)


@makes("IMAD")
def multiply(i: Instruction, _: Function) -> Action:
    written, values, read = split_predicates(i.operands[1:])
    a, b = integers(values[0]), integers(values[1])
    carry = predicates(read[0]) if "X" in i.flags else None
    wide = "WIDE" in i.flags or "HI" in i.flags
    if not wide:
        c = integers(values[2])

        def act(w: Warp, lanes: np.ndarray) -> None:
            total = a(w) * b(w) + c(w)
            put_bits(w, i.operands[0], (total + carry(w) if carry else total) & BITS, lanes)

        return act
    c64 = pairs(values[2]) if values[2].kind != "I" else integers(values[2])

    def act_wide(w: Warp, lanes: np.ndarray) -> None:
        first = product(i, a(w), b(w))
        total = first + c64(w)
        over = total < first
        if carry:
            total = total + carry(w)
        if "HI" in i.flags:
            put_bits(w, i.operands[0], total >> WORD, lanes)
        else:
            put_pair(w, i.operands[0], total, lanes)
        if written:
            put_predicate(w, written[0], over, lanes)

    return act_wide


@makes("LEA")
def shift_and_add(i: Instruction, _: Function) -> Action:
    written, values, read = split_predicates(i.operands[1:])
    a, b, shift = integers(values[0]), integers(values[1]), np.uint64(int(values[-1].text, 16))
    high = integers(values[2]) if len(values) == 4 else None
    carry = predicates(read[0]) if "X" in i.flags else None

    def act(w: Warp, lanes: np.ndarray) -> None:
        low = a(w) & BITS
        if "HI" in i.flags:
            above = signed(low).view(np.uint64) << WORD if "SX32" in i.flags else np.uint64(0)
            whole = signed(low).view(np.uint64) if "SX32" in i.flags else low | (high(w) if high else above) << WORD
            low = (whole >> (WORD - shift)) & BITS
        else:
            low = (low << shift) & BITS
        total = low + b(w) + (carry(w) if carry else np.uint64(0))
        put_bits(w, i.operands[0], total & BITS, lanes)
        for o in written:
            put_predicate(w, o, total >> WORD != 0, lanes)

    return act


@makes("SHF")
def shift(i: Instruction, _: Function) -> Action:
    low, by, high = (integers(o) for o in i.operands[1:4])
    left, is_signed = "L" in i.flags, bool(i.flags & {"S32", "S64"})
    wide = bool(i.flags & {"U64", "S64"})

    def act(w: Warp, lanes: np.ndarray) -> None:
        n = by(w)
        n = np.minimum(n, np.uint64(63)) if wide else np.minimum(n, WORD)
        whole = low(w) | (high(w) << WORD)
        if left:
            result = whole << n if wide else low(w) << n
            result = result >> WORD if "HI" in i.flags else result
        elif "HI" in i.flags:
            top = high(w)
            result = (signed(top) >> n.astype(np.int64)).view(np.uint64) if is_signed else top >> n
        else:
            result = whole.view(np.int64) >> n.astype(np.int64) if is_signed else whole >> n
            result = result.view(np.uint64)
        put_bits(w, i.operands[0], result & BITS, lanes)

    return act


@makes("LOP3")
def logic(i: Instruction, _: Function) -> Action:
    written = i.operands[:1] if i.operands[0].kind in ("P", "UP") else []
    to = i.operands[len(written)]
    a, b, c, table = (integers(o) for o in i.operands[len(written) + 1 : len(written) + 5])

    def act(w: Warp, lanes: np.ndarray) -> None:
        result = lookup(int(table(w)[0]), a(w), b(w), c(w), BITS)
        put_bits(w, to, result, lanes)
        for o in written:
            put_predicate(w, o, result != 0, lanes)

    return act


def lookup(table: int, a: np.ndarray, b: np.ndarray, c: np.ndarray, all_bits: np.uint64) -> np.ndarray:
    """A bit of the table for each bit of three words."""
    shape = np.broadcast(a, b, c).shape
    result = np.zeros(shape, np.uint64)
    for k in range(8):
        if table >> k & 1:
            x, y, z = (v if k >> n & 1 else v ^ all_bits for v, n in ((a, 2), (b, 1), (c, 0)))
            result |= x & y & z
    return result


@makes("PLOP3")
def predicate_logic(i: Instruction, _: Function) -> Action:
    values = [predicates(o) for o in i.operands[2:5]]
    tables = [int(o.text, 16) for o in i.operands[5:7]]

    def act(w: Warp, lanes: np.ndarray) -> None:
        a, b, c = (v(w).astype(np.uint64) for v in values)
        for o, table in zip(i.operands[:2], tables):
            put_predicate(w, o, lookup(table, a, b, c, ONE) != 0, lanes)

    return act


@makes("ISETP")
def compare(i: Instruction, _: Function) -> Action:
    by = next(COMPARE[f] for f in COMPARE if f in i.flags)
    a, b = integers(i.operands[2]), integers(i.operands[3])
    more = predicates(i.operands[4])
    low = predicates(i.operands[5]) if "EX" in i.flags else None

    def act(w: Warp, lanes: np.ndarray) -> None:
        x, y = a(w) & BITS, b(w) & BITS
        if "U32" not in i.flags:
            x, y = signed(x), signed(y)
        result = by(x, y)
        if low:
            below, equal = low(w), x == y
            result = result | below if "NE" in i.flags else (result & ~equal) | (equal & below)
        combined = [result, ~result]
        for o, r in zip(i.operands[:2], combined):
            put_predicate(w, o, r & more(w) if "AND" in i.flags else r | more(w), lanes)

    return act


@makes("SEL")
def select(i: Instruction, _: Function) -> Action:
    a, b, which = integers(i.operands[1]), integers(i.operands[2]), predicates(i.operands[3])
    return lambda w, lanes: put_bits(w, i.operands[0], np.where(which(w), a(w), b(w)) & BITS, lanes)


@makes("VIMNMX", "VIADDMNMX", "VIMNMX3", "IMNMX")
def extreme(i: Instruction, _: Function) -> Action:
    values, least = [integers(o) for o in i.operands[1:-1]], predicates(i.operands[-1])

    def act(w: Warp, lanes: np.ndarray) -> None:
        numbers = [v(w) & BITS for v in values]
        if "ADD" in i.name:
            numbers = [(numbers[0] + numbers[1]) & BITS, numbers[2]]
        if "U32" not in i.flags:
            numbers = [signed(x) for x in numbers]
        low = high = numbers[0]
        for x in numbers[1:]:
            low, high = np.minimum(low, x), np.maximum(high, x)
        result = np.where(least(w), low, high)
        put_bits(w, i.operands[0], result.astype(np.int64).view(np.uint64) & BITS, lanes)

    return act


@makes("PRMT")
def permute(i: Instruction, _: Function) -> Action:
    a, which, b = (integers(o) for o in i.operands[1:4])

    def act(w: Warp, lanes: np.ndarray) -> None:
        both = (a(w) & BITS) | b(w) << WORD
        choice, result = which(w), np.uint64(0)
        for k in range(4):
            nibble = choice >> np.uint64(4 * k) & np.uint64(15)
            byte = both >> ((nibble & np.uint64(7)) * np.uint64(8)) & np.uint64(255)
            sign = np.where(byte >> np.uint64(7) != 0, np.uint64(255), np.uint64(0))
            result = result | np.where(nibble >= 8, sign, byte) << np.uint64(8 * k)
        put_bits(w, i.operands[0], result, lanes)

    return act


@makes("IABS", "POPC", "FLO")
def of_one(i: Instruction, _: Function) -> Action:
    value = integers(i.operands[1])
    by = {
        "IABS": lambda x: np.abs(signed(x)).view(np.uint64),
        "POPC": lambda x: np.array([bin(int(v)).count("1") for v in x], np.uint64),
        "FLO": lambda x: np.array([int(v).bit_length() - 1 & 0xFFFFFFFF for v in x], np.uint64),
    }[i.name.removeprefix("U")]
    return lambda w, lanes: put_bits(w, i.operands[0], by(value(w)), lanes)


@makes("R2UR")
def to_uniform(i: Instruction, _: Function) -> Action:
    value = integers(i.operands[1])
    return lambda w, lanes: put_bits(w, i.operands[0], value(w)[np.argmax(lanes) :][:1], lanes)


@makes("CS2R")
def clear(i: Instruction, _: Function) -> Action:
    return lambda w, lanes: put_pair(w, i.operands[0], np.zeros(1, np.uint64), lanes)


SHARED_WINDOW = 0x7F00


@makes("S2R", "S2UR")
def special(i: Instruction, _: Function) -> Action:
    name = i.operands[1].text

    def act(w: Warp, lanes: np.ndarray) -> None:
        value = np.zeros(LANES, np.uint64)
        if name == "SR_TID.X":
            value = np.arange(LANES, dtype=np.uint64) + np.uint64(LANES * w.number)
        elif name == "SR_CTAID.X":
            value += np.uint64(w.block.number)
        elif name == "SR_LANEID":
            value = np.arange(LANES, dtype=np.uint64)
        elif name == "SR_SWINHI":  # the high half of a shared address among all addresses
            value += np.uint64(SHARED_WINDOW)
        elif name not in ("SR_TID.Y", "SR_TID.Z", "SR_CTAID.Y", "SR_CTAID.Z", "SR_CgaCtaId"):
            raise NotImplementedError(name)
        put_bits(w, i.operands[0], value, lanes)

    return act


@makes("P2R")
def from_predicates(i: Instruction, _: Function) -> Action:
    mask = int(i.operands[3].text, 16)

    def act(w: Warp, lanes: np.ndarray) -> None:
        value = sum(
            (w.p[k].astype(np.uint64) << np.uint64(k) for k in range(7) if mask >> k & 1), np.zeros(1, np.uint64)
        )
        put_bits(w, i.operands[0], value, lanes)

    return act


@makes("R2P")
def to_predicates(i: Instruction, _: Function) -> Action:
    value, mask = integers(i.operands[1]), int(i.operands[2].text, 16)

    def act(w: Warp, lanes: np.ndarray) -> None:
        for k in range(7):
            if mask >> k & 1:
                np.copyto(w.p[k], value(w) >> np.uint64(k) & ONE != 0, where=lanes)

    return act


@makes("B2R")
def barrier_result(i: Instruction, _: Function) -> Action:
    def act(w: Warp, lanes: np.ndarray) -> None:
        put_bits(w, i.operands[0], np.full(32, w.block.voted), lanes)
        for o in i.operands[1:]:
            put_predicate(w, o, np.array([w.block.voted > 0]), lanes)

    return act


@makes("VOTE", "VOTEU")
def vote(i: Instruction, _: Function) -> Action:
    given = predicates(i.operands[-1])

    def act(w: Warp, lanes: np.ndarray) -> None:
        value = given(w) & lanes
        for o in i.operands[:-1]:
            if o.kind in ("P", "UP"):
                put_predicate(w, o, np.array([value.any() if "ANY" in i.flags else (value == lanes).all()]), lanes)
            else:
                word = sum(1 << int(k) for k in np.flatnonzero(value))
                put_bits(w, o, np.array([word], np.uint64), lanes)

    return act


@makes("SHFL")
def shuffle(i: Instruction, _: Function) -> Action:
    """As PTX's shfl.sync: `limit` has the segments of lanes that shuffle among themselves, and their last lane."""
    value, by, limit = (integers(o) for o in i.operands[2:5])
    lane = np.arange(LANES)

    def act(w: Warp, lanes: np.ndarray) -> None:
        k, c = (np.broadcast_to(x(w), LANES).astype(np.int64) for x in (by, limit))
        k, segment, last = k & 31, c >> 8 & 31, c & 31
        first = lane & segment
        last = first | last & ~segment & 31
        way = next(iter(i.flags))
        source = {"BFLY": lane ^ k, "IDX": first | k & ~segment & 31, "DOWN": lane + k, "UP": lane - k}[way]
        inside = source >= last if way == "UP" else source <= last
        put_bits(w, i.operands[1], np.broadcast_to(value(w), LANES)[np.where(inside, source, lane)], lanes)
        put_predicate(w, i.operands[0], inside, lanes)

    return act
