# SPDX-License-Identifier: Apache-2.0
"""What nvdisasm prints, as instructions with operands, and the constant banks of a cubin."""

from __future__ import annotations

import re
import struct
from typing import Callable, NamedTuple

import numpy as np

from machine import Warp

Getter = Callable[[Warp], np.ndarray]
BITS = np.uint64(0xFFFFFFFF)


class Operand(NamedTuple):
    kind: str  # R, U, P, UP, I, C, M, L, S, B
    number: int = 0
    minus: bool = False
    inverted: bool = False
    absolute: bool = False
    text: str = ""
    half: int = -1


class Instruction(NamedTuple):
    place: int
    text: str
    guard: Operand | None
    name: str
    flags: frozenset[str]
    operands: list[Operand]


NUMBER = re.compile(r"[-+]?(0x[0-9a-f]+|[0-9.]+(e[-+]?\d+)?|INF|QNAN|SNAN)$", re.IGNORECASE)


def operand(text: str) -> Operand:
    """One operand as it is printed."""
    text = text.strip()
    if NUMBER.match(text):
        return Operand("I", text=text)
    if text.startswith("`("):
        return Operand("L", text=text[2:-1])
    minus, text = (True, text[1:]) if text[0] == "-" else (False, text)
    inverted, text = (True, text[1:]) if text[0] in "!~" else (False, text)
    absolute, text = (True, text.strip("|")) if text[0] == "|" else (False, text)
    text = text.replace(".reuse", "")
    half = 1 if ".H1" in text else 0 if ".H0" in text else -1
    if text.startswith("c["):
        return Operand("C", 0, minus, inverted, absolute, text)
    if text.startswith(("desc[", "[")):
        return Operand("M", text=text)
    for pattern, kind, none in ((r"U?P(\d|T)$", "P", 7), (r"R(\d+|Z)", "R", 255), (r"UR(\d+|Z)", "U", 63)):
        found = re.match(pattern, text)
        if found:
            number = none if found[1] in "TZ" else int(found[1])
            kind = "UP" if text.startswith("UP") else kind
            return Operand(kind, number, minus, inverted, absolute, text, half)
    if re.match(r"B\d+$", text):
        return Operand("B", int(text[1:]))
    return Operand("S", text=text)


def split_operands(text: str) -> list[str]:
    return [part for part in re.split(r",\s*(?![^\[(]*[\])])", text) if part.strip()]


def instruction(place: int, text: str) -> Instruction:
    """An instruction without its address and semicolon."""
    text = re.sub(r"\(\*.*\*\)", "", text).strip().rstrip(";").strip()
    guard, rest = None, text
    if text.startswith("@"):
        first, rest = text.split(None, 1)
        guard = operand(first[1:])
    name, _, operands = rest.partition(" ")
    words = name.split(".")
    return Instruction(
        place, text, guard, words[0], frozenset(words[1:]), [operand(x) for x in split_operands(operands)]
    )


class Function(NamedTuple):
    instructions: list[Instruction]
    labels: dict[str, int]  # index of the instruction that follows


def listed_functions(listing: str) -> dict[str, list[str]]:
    """The lines of each function of a listing of nvdisasm -c, by its mangled name."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in listing.splitlines():
        if line.startswith("\t.section\t"):
            name = line.split("\t")[2].split(",")[0]
            lines = found.setdefault(name[6:], []) if name.startswith(".text.") else []
        else:
            lines.append(line)
    return found


def read_function(lines: list[str]) -> Function:
    function = Function([], {})
    for line in lines:
        label = re.match(r"([.$A-Za-z_][^\s:]*):", line)
        code = re.match(r"\s+/\*([0-9a-f]+)\*/\s+(.*)", line)
        if label:
            function.labels[label[1]] = len(function.instructions)
        elif code:
            function.instructions.append(instruction(int(code[1], 16), code[2]))
    return function


def sections(cubin: bytes) -> dict[str, bytes]:
    """The sections of an ELF file of 64 bits, by name."""
    start, size, count, names = struct.unpack_from("<Q10xHHH", cubin, 0x28)
    headers = [struct.unpack_from("<IIQQQQIIQQ", cubin, start + i * size) for i in range(count)]
    table = cubin[headers[names][4] :]
    result = {}
    for header in headers:
        name = table[header[0] : table.index(b"\0", header[0])].decode()
        result[name] = cubin[header[4] : header[4] + header[5]] if header[1] != 8 else b""
    return result


def constant_place(text: str) -> tuple[int, str, int]:
    """Bank, register and offset of c[0x0][R6+-0x90]."""
    bank, place = re.match(r"c\[(0x[0-9a-f]+)\]\[(.*)\]", text).groups()  # type: ignore[union-attr]
    register, offset = "", 0
    for part in place.split("+"):
        if part.startswith(("R", "U")):
            register = part
        else:
            offset += int(part, 16)
    return int(bank, 16), register, offset


def integers(o: Operand) -> Getter:
    """An operand as numbers from 0 to 2^32, in 64 bits: -x is 2^32 - x, which carries as ~x + 1 does."""
    if o.kind == "I":
        bits = immediate_bits(o.text)
        fixed = np.array([bits], np.uint64)
        return lambda w: fixed
    raw = bits_of(o)
    if o.minus:
        return lambda w: np.uint64(1 << 32) - raw(w).astype(np.uint64)
    if o.inverted:
        return lambda w: BITS ^ raw(w).astype(np.uint64)
    if o.absolute:
        return lambda w: np.abs(raw(w).view(np.int32)).astype(np.uint64)
    return lambda w: raw(w).astype(np.uint64)


def immediate_bits(text: str) -> int:
    if re.match(r"[-+]?0x", text):
        return int(text, 16) & 0xFFFFFFFF
    return int(float_immediate(text).view(np.uint32)[0])


def float_immediate(text: str) -> np.ndarray:
    if re.match(r"[-+]?0x", text):
        return np.array([int(text, 16) & 0xFFFFFFFF], np.uint32).view(np.float32)
    return np.array([float(text.replace("QNAN", "nan").replace("SNAN", "nan"))], np.float32)


def bits_of(o: Operand) -> Getter:
    """32 bits of a register or constant, without sign."""
    number = o.number
    if o.kind == "R":
        return lambda w: w.r[number]
    if o.kind == "U":
        return lambda w: w.u[number]
    if o.kind == "C":
        bank, register, offset = constant_place(o.text)
        assert not register, o.text
        return lambda w: w.block.banks[bank][offset : offset + 4].view(np.uint32)
    raise ValueError(f"no number: {o}")


def floats(o: Operand) -> Getter:
    if o.kind == "I":
        fixed = float_immediate(o.text)
        return lambda w: fixed
    raw = bits_of(o)
    return signed(o, lambda w: raw(w).view(np.float32))


def signed(o: Operand, value: Getter) -> Getter:
    if o.absolute and o.minus:
        return lambda w: -np.abs(value(w))
    if o.absolute:
        return lambda w: np.abs(value(w))
    return (lambda w: -value(w)) if o.minus else value


def pairs(o: Operand) -> Getter:
    """64 bits of two registers or of a constant."""
    number = o.number
    if o.kind == "C":
        bank, _, offset = constant_place(o.text)
        return lambda w: w.block.banks[bank][offset : offset + 8].view(np.uint64)
    if number == (255 if o.kind == "R" else 63):
        return lambda w: np.zeros(1, np.uint64)

    def get(w: Warp) -> np.ndarray:
        file = w.r if o.kind == "R" else w.u
        return file[number].astype(np.uint64) | file[number + 1].astype(np.uint64) << np.uint64(32)

    return get


def doubles(o: Operand) -> Getter:
    if o.kind == "I":
        fixed = (
            np.array([float(o.text)]) if "x" not in o.text else np.array([int(o.text, 16) << 32], np.uint64).view(float)
        )
        return lambda w: fixed
    raw = pairs(o)
    return signed(o, lambda w: raw(w).view(np.float64))


def predicates(o: Operand) -> Getter:
    number = o.number
    if o.kind == "UP":
        return (lambda w: ~w.up[number]) if o.inverted else (lambda w: w.up[number])
    return (lambda w: ~w.p[number]) if o.inverted else (lambda w: w.p[number])
