#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Source files have 400 lines at most. Lines of C, C++ and CUDA have 120 columns: clang-format does not wrap comments.

The public header is one file, because it is the manual.
"""

import pathlib
import subprocess
import sys

WRAPPED = (".c", ".h", ".cpp", ".cu", ".cuh")
SUFFIXES = (*WRAPPED, ".py", ".sh", ".cmake")
LONGER = {"include/tare.h"}
LINES, COLUMNS = 400, 120


def main() -> int:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\n")
    wrong = []
    for name in sorted(file for file in files if file.endswith(SUFFIXES) and pathlib.Path(file).exists()):
        lines = pathlib.Path(name).read_text(encoding="utf-8").split("\n")[:-1]
        if len(lines) > LINES and name not in LONGER:
            wrong.append(f"{name} has {len(lines)} lines; {LINES} at most: split it by what its parts are about")
        for number, line in enumerate(lines, 1):
            if len(line) > COLUMNS and name.endswith(WRAPPED):
                wrong.append(f"{name}:{number} has {len(line)} columns; {COLUMNS} at most")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
