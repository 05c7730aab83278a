#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every loss by two builds, old and new: instructions, llvm-mca's cycles and ns an element, as a table.

    bench/before_after.py OLD_BUILD NEW_BUILD > table.md

Both are build folders with a libtare.so of gcc, Release. Needs gcc, valgrind, llvm-mca and objdump; takes 20 minutes.
Instructions are those of the library in one call: by callgrind, and with AVX-512 by single steps, on a smaller batch.
Cycles are those of the innermost loops that were run, each alone: what lies between them is left out, and every load
hits the first-level cache. Times: the two libraries and a copy of the same bytes by turns in one process, on one
thread; the least of the rounds. Then the same of 8 million elements on two threads, by the clock on the wall.
"""

import argparse
import collections
import functools
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CPUS = {"baseline": "znver3", "avx2": "znver3", "avx512": "sapphirerapids"}
CALLED, STEPPED = 7680, 2560  # elements, as in before_after.c
LEAST_SHARE = 0.02  # of all instructions: smaller loops are left out


def run(command, **more):
    result = subprocess.run(command, capture_output=True, text=True, **more)
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {result.stderr}{result.stdout[-300:]}")
    return result.stdout


def build_program(folder, build):
    program = folder / "before_after"
    link = [f"-L{build}", "-ltare", "-ldl", "-lm", f"-Wl,-rpath,{build}"]
    run(["gcc", "-O2", f"-I{HERE.parent}/include", HERE / "before_after.c", "-o", program, *link])
    return program


@functools.cache
def code_of(library):
    """address: (instruction, where it jumps to)"""
    code = {}
    for line in run(["objdump", "-d", "--no-show-raw-insn", library]).splitlines():
        found = re.match(r" *([0-9a-f]+):\t(.*)$", line)
        if found:
            text = re.sub(r"\s*[#<].*", "", found[2])
            jump = re.match(r"j\w+\s+([0-9a-f]+)$", text)
            code[int(found[1], 16)] = text, int(jump[1], 16) if jump else None
    return code


@functools.cache
def cycles_of(lines, cpu):
    """Of a turn, by llvm-mca."""
    mca = shutil.which("llvm-mca-19") or shutil.which("llvm-mca") or sys.exit("llvm-mca is missing")
    command = [mca, "-mtriple=x86_64", f"-mcpu={cpu}", "-iterations=100", "-instruction-info=0", "-resource-pressure=0"]
    text = "turn:\n" + "\n".join(lines) + "\n"
    result = run(command, input=text)
    return float(re.search(r"^Total Cycles: +([\d.]+)", result, re.M)[1]) / 100


def loops_of(steps, code):
    """The innermost loops that were run: their addresses, and how often."""
    jumps = [(code[a][1], a) for a in steps if a in code and code[a][1] is not None and code[a][1] <= a]
    taken = [(first, last) for first, last in jumps if first in steps]
    for first, last in taken:
        if not any(f >= first and e <= last and (f, e) != (first, last) for f, e in taken):
            turns = steps[last]
            body = [a for a in range(first, last + 1) if a in code and not code[a][0].startswith("call")]
            yield [a for a in body if steps.get(a, 0) * 2 > turns], turns


def cycles(steps, library, cpu, elements):
    """Cycles an element of the loops, and their share of all instructions."""
    code, total, sum_of, inside = code_of(library), sum(steps.values()), 0.0, 0
    for body, turns in loops_of(steps, code):
        if turns * len(body) < LEAST_SHARE * total:
            continue
        lines = tuple(re.sub(r"^(j\w+)\s+.*", r"\1 turn", code[a][0]) for a in body)
        sum_of += cycles_of(lines, cpu) * turns
        inside += turns * len(body)
    return sum_of / elements, inside / total


def steps_of_callgrind(file):
    """How often each address of libtare.so was run, of a dump with --dump-instr=yes --compress-pos=no."""
    steps, is_library, skip = collections.Counter(), False, False
    for line in file.read_text().splitlines():
        if line.startswith("ob="):
            is_library = "libtare" in line
        elif line.startswith("calls="):
            skip = True
        elif re.match(r"0x[0-9a-f]+ ", line):
            if is_library and not skip:
                address, _, count = line.split()
                steps[int(address, 16)] += int(count)
            skip = False
    return steps


def moved(steps, code):
    """With the addresses of the file: the offset, whole pages, is the one that fits the most addresses."""
    lowest = min(steps)
    known = set(code)
    sample = list(steps)[:200]
    base = lowest & ~0xFFF
    best = max((base - page for page in range(0, max(known) + 0x1000, 0x1000)), key=lambda b: fit(sample, b, known))
    return {address - best: count for address, count in steps.items()}


def fit(sample, base, known):
    return sum(address - base in known for address in sample)


def by_callgrind(program, isa, library, folder):
    """loss: how often each address was run."""
    out = folder / f"{isa}.{library.parent.name}"
    tool = ["valgrind", "--tool=callgrind", "--toggle-collect=tare_evaluate", "--dump-after=tare_evaluate"]
    form = ["--dump-instr=yes", "--compress-pos=no", "--compress-strings=no", f"--callgrind-out-file={out}"]
    names = run([*tool, *form, program, "calls", "-", library], env=environment(isa)).split()
    code = code_of(library)
    dumps = {name: steps_of_callgrind(pathlib.Path(f"{out}.{2 * k + 2}")) for k, name in enumerate(names)}
    return {name: moved(steps, code) for name, steps in dumps.items()}


def environment(isa):
    return {"TARE_ISA": isa, "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}


def by_steps(program, isa, libraries, folder):
    run([program, "count", folder, *libraries], env=environment(isa))
    found = [{}, {}]
    for file in sorted(folder.glob("*.[01]")):
        pairs = (line.split() for line in file.read_text().splitlines())
        number = int(file.suffix[1:])
        steps = {int(at, 16): int(count) for at, count in pairs}
        code = code_of(libraries[number])  # other libraries may lie behind it
        found[number][file.stem] = {at: count for at, count in steps.items() if at in code}
    return found


def times_of(program, way, isa, libraries):
    """loss: ns an element of each library and of a copy"""
    lines = run([program, way, "-", *libraries], env=environment(isa)).splitlines()
    return {line.split()[0]: [float(part) for part in line.split()[1:]] for line in lines}


def rows(program, isa, libraries, folder):
    steps_folder = folder / f"steps-{isa}"
    steps_folder.mkdir()
    times, many = (times_of(program, way, isa, libraries) for way in ("times", "many"))
    if isa == "avx512":
        steps, elements = by_steps(program, isa, libraries, steps_folder), STEPPED
    else:
        steps, elements = [by_callgrind(program, isa, library, folder) for library in libraries], CALLED
    for name, (old, new, copy) in times.items():
        counts = [sum(s[name].values()) / elements for s in steps]
        found = [cycles(s[name], library, CPUS[isa], elements) for s, library in zip(steps, libraries, strict=True)]
        of_code = f"{counts[0]:.1f} → {counts[1]:.1f} | {found[0][0]:.2f} → {found[1][0]:.2f} | {found[1][1]:.0%}"
        one, two = f"{old:.3f} → {new:.3f} | {copy:.3f}", "{:.3f} → {:.3f} | {:.3f}".format(*many[name])
        yield f"| {name} | {of_code} | {one} | {two} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builds", nargs=2, type=pathlib.Path, help="old and new build folder")
    parser.add_argument("--isa", action="append", choices=sorted(CPUS), help="default: all")
    arguments = parser.parse_args()
    libraries = [(build / "libtare.so").resolve() for build in arguments.builds]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        program = build_program(folder, libraries[1].parent)
        for isa in arguments.isa or CPUS:
            print(f"### {isa}; cycles by {CPUS[isa]}\n")
            columns = ["loss", "instructions", "cycles", "in loops", "ns", "copy", "ns, 8 M on 2 threads", "copy"]
            print(f"| {' | '.join(columns)} |\n|---{'|--:' * (len(columns) - 1)}|")
            for row in rows(program, isa, libraries, folder):
                print(row)
            print(flush=True)


if __name__ == "__main__":
    main()
