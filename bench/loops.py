#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts the cycles an element of the CPU's loops by hand, over negatives and dense targets, with llvm-mca.

The loop is taken from the disassembly of the build folder's kernels. llvm-mca counts its cycles and the bound that the
processor's ports set (llvm-mca's "Block RThroughput"). Where the cycles are far above the bound the loop waits for its
own results, and more independent elements a turn may help.

    bench/loops.py build                            # focal loss with gamma 2 and cross-entropy, f32, with gradient
    bench/loops.py build --loss sigmoid-ce --isa avx2 --cpu znver3 --show
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys

CPUS = {"avx2": ["znver3", "znver4", "skylake"], "avx512": ["sapphirerapids", "znver5"]}
# the function with the loop, and divisions a vector
LOSSES = {
    "sigmoid-focal": ("focal_of_negatives", 1),
    "sigmoid-ce": ("ce_of_negatives", 1),
    "sigmoid-focal,dense": ("focal_of_dense", 2),
    "sigmoid-ce,dense": ("ce_of_dense", 1),
}
BYTES = {"xmm": 16, "ymm": 32, "zmm": 64}
ITERATIONS = 200


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path, help="build folder (Release, gcc)")
    parser.add_argument("--loss", action="append", choices=sorted(LOSSES), help="default: all of them")
    parser.add_argument("--isa", action="append", choices=sorted(CPUS), help="default: all of them")
    parser.add_argument("--cpu", action="append", help="llvm-mca's name of a processor; default: some of each set")
    parser.add_argument("--mca", help="the llvm-mca to take; default: llvm-mca-19, or llvm-mca")
    parser.add_argument("--show", action="store_true", help="print each loop")
    return parser.parse_args()


def disassembly(build, isa):
    """objdump's lines of the kernels of an instruction set for f32."""
    kernels = build / f"CMakeFiles/tare_instance_{isa}_f32.dir/cpu/instance.c.o"
    if not kernels.exists():
        sys.exit(f"{build} has no kernels for {isa} (ninja tare_instance_{isa}_f32)")
    dump = ["objdump", "-d", "--no-show-raw-insn", str(kernels)]
    return subprocess.run(dump, check=True, capture_output=True, text=True).stdout.splitlines()


def functions(lines):
    """name, [(address, instruction)] of each function."""
    name, body = "", []
    for line in lines:
        start = re.match(r"[0-9a-f]+ <(.*)>:$", line)
        code = re.match(r" *([0-9a-f]+):\t(.*)$", line)
        if start:
            yield name, body
            name, body = start[1], []
        elif code:
            body.append((int(code[1], 16), re.sub(r"\s*[#<].*", "", code[2])))
    yield name, body


def loops(body):
    """The innermost loops: from a backward jump's target to the jump."""
    at = {address: k for k, (address, _) in enumerate(body)}
    spans = []
    for k, (_, code) in enumerate(body):
        jump = re.match(r"j\w+\s+([0-9a-f]+)$", code)
        if jump and at.get(int(jump[1], 16), k + 1) <= k:
            spans.append((at[int(jump[1], 16)], k))
    for first, last in spans:
        if not any((a, b) != (first, last) and a >= first and b <= last for a, b in spans):
            yield body[first : last + 1]


def stores(loop):
    """The registers that a loop stores elements from."""
    found = (re.match(r"vmov[au]ps\s+%(\wmm)\d+,[^%]*\(%(?!rsp)", code) for _, code in loop)
    return [f[1] for f in found if f]


def find_loop(lines, loss):
    """The loop of a loss with gradient, as assembly, and its elements a turn."""
    function, divisions = LOSSES[loss]
    for name, body in functions(lines):
        for loop in loops(body) if name.split(".")[0] == function else ():
            out = stores(loop)
            if len(out) >= 2 and sum("vdivps" in code for _, code in loop) * 2 == len(out) * divisions:
                code = [re.sub(r"^(j\w+)\s+.*", r"\1 turn", c) for _, c in loop]
                return code, len(out) // 2 * BYTES[out[0]] // 4
    sys.exit(f"{function} has no loop with a gradient")


def count(mca, cpu, code):
    """Cycles a turn, llvm-mca's bound by the ports, and micro-operations a turn."""
    text = "\n".join(["turn:", *code]) + "\n"
    command = [mca, "-mtriple=x86_64", f"-mcpu={cpu}", f"-iterations={ITERATIONS}", "-instruction-info=0"]
    result = subprocess.run(command, input=text, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command)}: {result.stderr.strip()}")

    def value(name):
        return float(re.search(rf"^{name}: +([\d.]+)", result.stdout, re.M)[1])

    return value("Total Cycles") / ITERATIONS, value("Block RThroughput"), value("Total uOps") / ITERATIONS


def main():
    arguments = parse_arguments()
    mca = arguments.mca or shutil.which("llvm-mca-19") or shutil.which("llvm-mca")
    if not mca or not shutil.which("objdump"):
        sys.exit("llvm-mca or objdump is missing (apt-get install llvm-19 binutils)")
    print("| loss | instruction set | processor | instructions a vector | cycles an element | of the ports |")
    print("|---|---|---|--:|--:|--:|")
    for isa in arguments.isa or CPUS:
        lines = disassembly(arguments.build, isa)
        for loss in arguments.loss or LOSSES:
            code, elements = find_loop(lines, loss)
            if arguments.show:
                print("\n".join(f"    {line}" for line in code))
            vectors = elements * 4 / {"avx2": 32, "avx512": 64}[isa]
            for cpu in arguments.cpu or CPUS[isa]:
                cycles, bound, _ = count(mca, cpu, code)
                of_vector = f"{len(code) / vectors:.4g}"
                print(f"| {loss} | {isa} | {cpu} | {of_vector} | {cycles / elements:.2f} | {bound / elements:.2f} |")


if __name__ == "__main__":
    main()
