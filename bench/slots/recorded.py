# SPDX-License-Identifier: Apache-2.0
"""Launches that the emulator kept (TARE_EMULATOR_RECORD), and blocks of them on the machine code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np

import accesses  # noqa: F401  each fills the table of instructions
import control  # noqa: F401
import floating  # noqa: F401
import integer  # noqa: F401
from decode import listed_functions, read_function, sections
from execute import assemble
from machine import Block, Memory, Step


class Launch(NamedTuple):
    """A kernel's mangled name, its grid, and what it was given."""

    kernel: str
    grid: int
    arguments: list[bytes]
    memory: dict[int, np.ndarray]


class Program:
    """The symbols of the program that recorded."""

    def __init__(self, path: Path) -> None:
        listing = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
        lines = [line.split() for line in listing.splitlines()]
        self.names = {int(x[0], 16): x[2] for x in lines if len(x) == 3}


def read_launch(path: Path, program: Program) -> Launch:
    data = path.read_bytes()
    head, _, rest = data.partition(b"\n\n")
    kernel, grid, sizes, areas = "", 0, [], []
    for line in head.decode().splitlines():
        word = line.split()
        if word[0] == "program":
            kernel = program.names[int(word[2], 16)]
        elif word[0] == "grid":
            grid = int(word[1])
        elif word[0] == "argument":
            sizes.append(int(word[1]))
        else:
            areas.append((int(word[1], 16), int(word[2])))
    arguments, memory = [], {}
    for size in sizes:
        arguments.append(rest[:size])
        rest = rest[size:]
    at = 0
    for address, size in areas:
        memory[address] = np.frombuffer(rest, np.uint8, size, at).copy()
        at += size
    return Launch(kernel, grid, arguments, memory)


def plain_name(name: str) -> str:
    """A mangled name where an anonymous namespace is one of the host's: nvcc's has the name and a hash of the file."""
    found = re.search(r"(\d+)_GLOBAL__N_", name)
    if not found:
        return name
    return name[: found.start()] + "12_GLOBAL__N_1" + name[found.end(1) + int(found[1]) :]


def packed(arguments: list[bytes]) -> bytes:
    """Arguments as a kernel finds them: a number lies where its own size fits, a struct where 8 bytes do."""
    room = bytearray()
    for one in arguments:
        room += bytes(-len(room) % (len(one) if len(one) in (1, 2, 4, 8) else 8))
        room += one
    return bytes(room)


class Code:
    """The kernels of cubins, as nvdisasm lists them; assembled when they are asked for."""

    parameters = 0x210  # where sm_90 puts them in constant bank 0

    def __init__(self, cubins: list[Path], disassembler: str) -> None:
        self.functions: dict[str, tuple[str, list[str], Path]] = {}
        for cubin in cubins:
            kept = cubin.with_suffix(".sass")
            if not kept.exists() or kept.stat().st_mtime < cubin.stat().st_mtime:
                listing = subprocess.run([disassembler, "-c", cubin], capture_output=True, text=True, check=True).stdout
                kept.write_text(listing)
            for name, lines in listed_functions(kept.read_text()).items():
                self.functions[plain_name(name)] = name, lines, cubin
        self.steps: dict[str, list[Step]] = {}

    def steps_of(self, kernel: str) -> list[Step]:
        if kernel not in self.steps:
            self.steps[kernel] = assemble(read_function(self.functions[kernel][1]))
        return self.steps[kernel]

    def banks_of(self, launch: Launch, grid: int) -> dict[int, np.ndarray]:
        head = np.zeros(self.parameters, np.uint8)
        head[:24].view(np.uint32)[:] = [256, 1, 1, grid, 1, 1]
        arguments = np.frombuffer(packed(launch.arguments), np.uint8)
        banks = {0: np.concatenate([head, arguments, np.zeros(64, np.uint8)])}
        name, _, cubin = self.functions[launch.kernel]
        jumps = sections(cubin.read_bytes()).get(f".nv.constant2.{name}", b"")
        banks[2] = np.frombuffer(jumps, np.uint8)
        return banks

    def run_block(self, launch: Launch, memory: Memory, number: int, grid: int) -> np.ndarray:
        """How often each instruction is issued by the warps of a block of a grid."""
        return Block(memory, self.banks_of(launch, grid), number).run(self.steps_of(launch.kernel))
