#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""count.py: issue slots an element of the CUDA kernels, counted for warps by executing the machine code for sm_90.

    python bench/slots/count.py --build build --data ../shared/data/bccd >cuda/slots.txt
    python bench/slots/count.py --build build --check cuda/slots.txt --only quick

The emulator records a call (tests/harness/record_call.c). Blocks of its launches are executed here, instruction by
instruction, and what their warps issue is counted: both sides of a branch that the lanes of a warp disagree on, and
instructions that a predicate switches off. A figure is that of further tiles of a block. What a launch costs once is
not in it. Of class sums, selections and masks, whose launches cut their work in different ways, whole launches are
counted, of a call and of one with twice the rows. The figure is the difference. The gradient is compared with the
emulator's.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from cases import Case, all_cases, inputs, numbers, outputs, rows_of
from recorded import Code, Launch, Memory, Program, read_launch

UNWRITTEN = 0xA5
MANY = 1 << 20  # blocks of a grid in which each has one tile
QUICK = (
    "sigmoid-focal f32 rows 80 plain",
    "sigmoid-focal bf16 rows 91 plain",
    "sigmoid-focal f32 odd 3 plain",
    "ghm-c f32 rows 80 plain",
)


def record(case: Case, program: Path, data: Path | None, folder: Path) -> None:
    """Has the emulator evaluate a case, with its launches in the folder."""
    words = [f"loss={case.loss}", f"dtype={case.dtype}", f"rows={rows_of(case)}", f"classes={case.classes}"]
    words.append(f"layout={'rows' if case.layout == 'rows' else 'nchw'}")
    words += numbers(case)
    for name, array in inputs(case, data).items():
        array.tofile(folder / name)
        words.append(f"{name}={folder / name}")
    words += [f"{name}={folder / name}" for name in outputs(case)]
    environment = dict(os.environ, TARE_EMULATOR_RECORD=str(folder))
    subprocess.run([program, *words], env=environment, check=True)


def gradient_in(launch: Launch, size: int) -> int | None:
    """The address of the gradient: behind the logits, which have its size."""
    found = sorted(k for k, v in launch.memory.items() if len(v) == size)
    return found[-1] if len(found) > 1 else None


def count_launch(code: Code, launch: Launch, grid: int, case: Case, gradient: int | None) -> tuple[int, int, Memory]:
    """Slots of a block's warps, and how many elements of the gradient it wrote."""
    memory = Memory({k: v.copy() for k, v in launch.memory.items()})
    element = 4 if case.dtype == "f32" else 2
    area = None
    if gradient is not None:
        area = memory.find(gradient)[1]
        area[:] = UNWRITTEN
    slots = int(code.run_block(launch, memory, 0, grid).sum())
    if area is None:
        return slots, 0, memory
    written = (area.reshape(-1, element) != UNWRITTEN).any(1)
    return slots, int(written.sum()), memory


def check_gradient(case: Case, memory: Memory, gradient: int, folder: Path) -> None:
    kind = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16}[case.dtype]
    got, want = memory.find(gradient)[1].view(kind), np.fromfile(folder / "gradient", kind)
    there = got.view(np.uint8) != UNWRITTEN
    there = there.reshape(len(got), -1).any(1)
    if case.dtype == "bf16":
        got, want = ((x.astype(np.uint32) << 16).view(np.float32) for x in (got, want))
    got, want = got[there].astype(np.float64), want[there].astype(np.float64)
    error = np.abs(got - want) - (2e-6 if case.dtype == "f32" else 1e-2) * np.abs(want)
    if len(got) and not error.max() < 1e-7:
        raise RuntimeError(f"{case.name()}: the machine code's gradient is not the emulator's, by {error.max()}")


def launches_in(folder: Path, symbols: Program) -> list[Launch]:
    return [read_launch(p, symbols) for p in sorted(folder.glob("launch-*"), key=lambda p: int(p.name[7:]))]


def gradient_bytes(case: Case) -> int:
    return rows_of(case) * case.classes * (4 if case.dtype == "f32" else 2)


def count_whole(case: Case, code: Code, program: Path, symbols: Program) -> np.ndarray:
    """Slots of each launch of a call, of all its blocks."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record(case, program, None, folder)
        slots, written = [], False
        for launch in launches_in(folder, symbols):
            memory = Memory({k: v.copy() for k, v in launch.memory.items()})
            gradient = gradient_in(launch, gradient_bytes(case))
            area = memory.find(gradient)[1] if gradient else np.zeros(0, np.uint8)
            area[:] = UNWRITTEN
            slots.append(sum(int(code.run_block(launch, memory, i, launch.grid).sum()) for i in range(launch.grid)))
            if (area != UNWRITTEN).any():
                check_gradient(case, memory, gradient or 0, folder)
                written = True
        if not written:
            raise RuntimeError(f"{case.name()}: no launch writes the gradient")
        return np.array(slots)


def count_growth(case: Case, code: Code, program: Path, symbols: Program) -> np.ndarray:
    """Slots an element, of each launch of a call."""
    small, large = (count_whole(case._replace(times=times), code, program, symbols) for times in (1, 2))
    return (large - small) * 32 / (rows_of(case) * case.classes)


def count(case: Case, code: Code, program: Path, symbols: Program, data: Path | None) -> np.ndarray:
    """Slots an element, of each launch of a call, or of all of them."""
    if case.grows():
        return count_growth(case, code, program, symbols)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record(case, program, data, folder)
        size = gradient_bytes(case)
        extra = elements = 0
        for launch in launches_in(folder, symbols):
            gradient = gradient_in(launch, size)
            several, wrote, memory = count_launch(code, launch, max(launch.grid // 3, 1), case, gradient)
            one, wrote_one, _ = count_launch(code, launch, MANY, case, gradient)
            extra += several - one
            elements = max(elements, wrote - wrote_one)
            if wrote:
                check_gradient(case, memory, gradient or 0, folder)
        return np.array([extra * 32 / elements if elements else np.nan])


def held(path: Path) -> dict[str, float]:
    lines = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {" ".join(words[:-1]): float(words[-1]) for words in lines}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=Path("build"), help="build folder with record_call")
    parser.add_argument("--cubins", type=Path, help="folder of cubins for sm_90 (BUILD/cuda_report)")
    parser.add_argument("--disassembler", default="nvdisasm")
    parser.add_argument("--data", type=Path, help="folder with late_logits.npy and labels.npy of a trained detector")
    parser.add_argument("--only", default="", help="cases whose names match this pattern; quick: a few")
    parser.add_argument(
        "--launches", action="store_true", help="print the slots of each launch, too, where they are known"
    )
    parser.add_argument("--check", type=Path, help="compare with this file, and fail where a figure is larger")
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> list[Case]:
    cases = [case for case in all_cases() if options.data or "trained" not in case.parts()]
    if options.only == "quick":
        return [case for case in cases if case.name() in QUICK]
    return [case for case in cases if re.search(options.only, case.name())]


def main() -> int:
    options = parse()
    program = options.build / "tests" / "record_call"
    cubins = sorted((options.cubins or options.build / "cuda_report").glob("*.cubin"))
    code, symbols = Code(cubins, options.disassembler), Program(program)
    limits = held(options.check) if options.check else {}
    failures = 0
    for case in chosen(options):
        launches = count(case, code, program, symbols, options.data)
        slots = float(launches.sum())
        print(f"{case.name()} {slots:.1f}", flush=True)
        if options.launches and len(launches) > 1:
            print("#   by launch:", *(f"{one:.2f}" for one in launches), flush=True)
        if case.name() in limits and slots > limits[case.name()] * 1.01 + 0.05:
            print(f"over budget: {case.name()}: {slots:.1f} slots an element, allowed {limits[case.name()]}")
            failures += 1
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
