# SPDX-License-Identifier: Apache-2.0
"""Floats, doubles and conversions. The device's approximations are rounded exactly here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from decode import Function, Instruction, Operand, bits_of, doubles, floats, integers, pairs, predicates, signed
from execute import Action, makes, put_bits, put_pair, put_predicate
from machine import Warp

UNORDERED = {"LTU": "GE", "GTU": "LE", "LEU": "GT", "GEU": "LT", "EQU": "NE", "NEU": "EQ"}


def put_float(w: Warp, to: Operand, value: np.ndarray, lanes: np.ndarray) -> None:
    put_bits(w, to, value.astype(np.float32, copy=False).view(np.uint32), lanes)


def put_double(w: Warp, to: Operand, value: np.ndarray, lanes: np.ndarray) -> None:
    put_pair(w, to, np.ascontiguousarray(value, np.float64).view(np.uint64), lanes)


@makes("FADD", "FMUL", "FFMA")
def arithmetic(i: Instruction, _: Function) -> Action:
    values = [floats(o) for o in i.operands[1:] if o.kind not in ("P", "UP")]

    def act(w: Warp, lanes: np.ndarray) -> None:
        x = [v(w) for v in values]
        if i.name == "FADD":
            result = x[0] + x[1]
        elif i.name == "FMUL":
            result = x[0] * x[1]
        else:
            result = (x[0].astype(np.float64) * x[1] + x[2]).astype(np.float32)
        if "SAT" in i.flags:
            result = np.fmin(np.fmax(result, np.float32(0)), np.float32(1))
        put_float(w, i.operands[0], result, lanes)

    return act


@makes("DADD", "DMUL", "DFMA")
def double_arithmetic(i: Instruction, _: Function) -> Action:
    values = [doubles(o) for o in i.operands[1:] if o.kind not in ("P", "UP")]

    def act(w: Warp, lanes: np.ndarray) -> None:
        x = [v(w) for v in values]
        if i.name == "DADD":
            result = x[0] + x[1]
        elif i.name == "DMUL":
            result = x[0] * x[1]
        else:
            result = (x[0].astype(np.longdouble) * x[1] + x[2]).astype(np.float64)
        put_double(w, i.operands[0], result, lanes)

    return act


@makes("HFMA2")
def halves(i: Instruction, _: Function) -> Action:
    if [o.text for o in i.operands[1:3]] != ["RZ", "RZ"]:
        raise NotImplementedError(i.text)
    high, low = (int(np.float16(float(o.text)).view(np.uint16)) for o in i.operands[3:5])
    value = np.array([high << 16 | low], np.uint64)
    return lambda w, lanes: put_bits(w, i.operands[0], value, lanes)


@makes("HADD2")
def from_half(i: Instruction, _: Function) -> Action:
    o = i.operands[2]
    raw = bits_of(o)

    def act(w: Warp, lanes: np.ndarray) -> None:
        half = (raw(w) >> np.uint32(16 * max(o.half, 0))).astype(np.uint16).view(np.float16).astype(np.float32)
        put_float(w, i.operands[0], signed(o, lambda _: half)(w), lanes)

    return act


def compared(i: Instruction, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """With NaN: ordered comparisons are false, unordered ones true."""
    name = next((f for f in i.flags if f in UNORDERED), "")
    plain = UNORDERED.get(name) or next(f for f in ("LT", "GT", "LE", "GE", "EQ", "NE", "NAN", "NUM") if f in i.flags)
    if plain in ("NAN", "NUM"):
        nan = np.isnan(a) | np.isnan(b)
        return nan if plain == "NAN" else ~nan
    by = {"LT": np.less, "GT": np.greater, "LE": np.less_equal, "GE": np.greater_equal, "EQ": np.equal}
    result = by[plain](a, b) if plain in by else (a != b) & ~np.isnan(a) & ~np.isnan(b)
    return ~result if name and name != "EQU" else result


@makes("FSETP", "DSETP")
def compare(i: Instruction, _: Function) -> Action:
    of = floats if i.name == "FSETP" else doubles
    a, b, more = of(i.operands[2]), of(i.operands[3]), predicates(i.operands[4])
    if {"MAX", "MIN"} & set(i.flags):
        return larger_or_smaller(i, a, b)

    def act(w: Warp, lanes: np.ndarray) -> None:
        result = compared(i, a(w), b(w))
        for o, r in zip(i.operands[:2], (result, ~result)):
            put_predicate(w, o, r & more(w) if "AND" in i.flags else r | more(w), lanes)

    return act


def larger_or_smaller(i: Instruction, a: Callable, b: Callable) -> Action:
    """Whether the first is the maximum or minimum, which no NaN is; and whether both are NaN."""
    chosen = np.greater_equal if "MAX" in i.flags else np.less_equal

    def act(w: Warp, lanes: np.ndarray) -> None:
        first, second = a(w), b(w)
        put_predicate(w, i.operands[0], chosen(first, second) | np.isnan(second), lanes)
        put_predicate(w, i.operands[1], np.isnan(first) & np.isnan(second), lanes)

    return act


@makes("FSET")
def compare_to_float(i: Instruction, _: Function) -> Action:
    a, b, more = floats(i.operands[1]), floats(i.operands[2]), predicates(i.operands[3])

    def act(w: Warp, lanes: np.ndarray) -> None:
        put_float(w, i.operands[0], (compared(i, a(w), b(w)) & more(w)).astype(np.float32), lanes)

    return act


@makes("FSEL")
def select(i: Instruction, _: Function) -> Action:
    a, b, which = floats(i.operands[1]), floats(i.operands[2]), predicates(i.operands[3])
    return lambda w, lanes: put_float(w, i.operands[0], np.where(which(w), a(w), b(w)), lanes)


@makes("FMNMX")
def extreme(i: Instruction, _: Function) -> Action:
    a, b, least = floats(i.operands[1]), floats(i.operands[2]), predicates(i.operands[3])
    low, high = (np.minimum, np.maximum) if "NAN" in i.flags else (np.fmin, np.fmax)
    return lambda w, lanes: put_float(w, i.operands[0], np.where(least(w), low(a(w), b(w)), high(a(w), b(w))), lanes)


@makes("MUFU")
def approximation(i: Instruction, _: Function) -> Action:
    if {"RCP64H", "RSQ64H"} & set(i.flags):
        high = integers(i.operands[1])

        def act(w: Warp, lanes: np.ndarray) -> None:
            x = (high(w) << np.uint64(32)).view(np.float64)
            inverse = 1 / (x if "RCP64H" in i.flags else np.sqrt(x))
            put_bits(w, i.operands[0], inverse.view(np.uint64) >> np.uint64(32), lanes)

        return act
    value = floats(i.operands[1])
    by = {
        "EX2": np.exp2, "LG2": np.log2, "RCP": np.reciprocal, "SQRT": np.sqrt, "RSQ": lambda x: 1 / np.sqrt(x),
    }  # fmt: skip
    function = by[next(f for f in i.flags if f in by)]
    return lambda w, lanes: put_float(w, i.operands[0], function(value(w).astype(np.float64)), lanes)


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + np.uint64(0x7FFF) + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)
    return np.where(np.isnan(x), np.uint64(0x7FFF), rounded)


def to_half(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float16).view(np.uint16).astype(np.uint64)


@makes("F2FP")
def pack(i: Instruction, _: Function) -> Action:
    high, low = floats(i.operands[1]), floats(i.operands[2])
    by = to_bfloat16 if "BF16" in i.flags else to_half
    return lambda w, lanes: put_bits(w, i.operands[0], by(high(w)) << np.uint64(16) | by(low(w)), lanes)


@makes("F2F")
def convert(i: Instruction, _: Function) -> Action:
    to, source = i.text.split()[0 if i.guard is None else 1].split(".")[1:3]
    if source == "F64":
        wide = doubles(i.operands[1])
        return lambda w, lanes: put_float(w, i.operands[0], wide(w).astype(np.float32), lanes)
    value = floats(i.operands[1])
    if to == "F64":
        return lambda w, lanes: put_double(w, i.operands[0], value(w).astype(np.float64), lanes)
    by = to_bfloat16 if to == "BF16" else to_half
    return lambda w, lanes: put_bits(w, i.operands[0], by(value(w)), lanes)


@makes("I2F", "I2FP")
def from_integer(i: Instruction, _: Function) -> Action:
    if i.flags & {"S64", "U64"}:
        wide = pairs(i.operands[1])
        kind = np.int64 if "S64" in i.flags else np.uint64
        if "F64" not in i.flags:
            raise NotImplementedError(i.text)
        return lambda w, lanes: put_double(w, i.operands[0], wide(w).view(kind).astype(np.float64), lanes)
    value = integers(i.operands[1])

    def act(w: Warp, lanes: np.ndarray) -> None:
        number = value(w) if "U32" in i.flags else value(w).astype(np.uint32).view(np.int32)
        if "F64" in i.flags:
            put_double(w, i.operands[0], number.astype(np.float64), lanes)
        else:
            put_float(w, i.operands[0], number.astype(np.float32), lanes)

    return act


@makes("FRND")
def whole_double(i: Instruction, _: Function) -> Action:
    if not {"F64", "CEIL"} <= i.flags:
        raise NotImplementedError(i.text)
    value = doubles(i.operands[1])
    return lambda w, lanes: put_double(w, i.operands[0], np.ceil(value(w)), lanes)


@makes("F2I")
def to_integer(i: Instruction, _: Function) -> Action:
    if "F64" in i.flags:
        return wide_to_integer(i)
    value = floats(i.operands[1])
    least, most = (0, 2**32 - 1) if "U32" in i.flags else (-(2**31), 2**31 - 1)

    def act(w: Warp, lanes: np.ndarray) -> None:
        whole = np.trunc(np.nan_to_num(value(w).astype(np.float64), nan=0.0))
        put_bits(
            w, i.operands[0], np.clip(whole, least, most).astype(np.int64).view(np.uint64) & np.uint64(2**32 - 1), lanes
        )

    return act


def wide_to_integer(i: Instruction) -> Action:
    if {"S64", "F64", "TRUNC"} - i.flags:
        raise NotImplementedError(i.text)
    value = doubles(i.operands[1])

    def act(w: Warp, lanes: np.ndarray) -> None:
        whole = np.trunc(np.nan_to_num(value(w), nan=0.0))
        put_pair(w, i.operands[0], np.clip(whole, -(2.0**63), 2.0**63 - 1024).astype(np.int64).view(np.uint64), lanes)

    return act


@makes("FCHK")
def check_division(i: Instruction, _: Function) -> Action:
    """Whether a quotient needs the slow way: never, for the numbers of these inputs."""
    return lambda w, lanes: put_predicate(w, i.operands[0], np.array([False]), lanes)
