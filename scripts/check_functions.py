#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Functions of the library have 40 lines and 7 parameters at most; casts may not drop const (-Wcast-qual does that).

More is allowed with a reason: the comment directly above the function says "Many parameters: ..." or "Long: ...".
Functions that include/tare.h declares are documented there and may have as many parameters as their users want.
"""

import json
import pathlib
import re
import subprocess
import sys

FOLDERS = ["core", "cpu", "cuda", "losses"]
LINES, PARAMETERS = 40, 7


def functions(files: list) -> list:
    """Every function definition of the files, as ctags has it."""
    kinds = ["--fields=+neS", "--kinds-C=f", "--kinds-C++=f", "--langmap=C++:+.cu.cuh"]
    command = ["ctags", "--output-format=json", *kinds, "-f", "-", *files]
    tags = subprocess.run(command, check=True, capture_output=True, text=True)
    return [tag for tag in map(json.loads, tags.stdout.splitlines()) if "end" in tag]


def comment_above(lines: list, line: int) -> str:
    """The comment that ends directly above a line (counted from 1), past the lines of a template's head."""
    last = line - 2
    while last >= 0 and lines[last].lstrip().startswith(("template", "__global__", "static", "TARE_")):
        last -= 1
    first = last
    while first >= 0 and lines[first].lstrip().startswith(("/*", "*", "//")):
        first -= 1
    return re.sub(r"[\s*]+", " ", " ".join(lines[first + 1 : last + 1]))


def parameter_count(tag: dict) -> int:
    inside = re.sub(r"<[^<>]*>", "", tag.get("signature", "()")).strip()[1:-1].strip()
    return 0 if inside in ("", "void") else inside.count(",") + 1


def main() -> int:
    files = subprocess.run(["git", "ls-files", *FOLDERS], check=True, capture_output=True, text=True).stdout.split()
    files = [file for file in files if file.endswith((".c", ".h", ".cu", ".cuh"))]
    public = pathlib.Path("include/tare.h").read_text()
    wrong = 0
    for tag in functions(files):
        lines = pathlib.Path(tag["path"]).read_text().splitlines()
        above = comment_above(lines, tag["line"])
        length, parameters = tag["end"] - tag["line"] + 1, parameter_count(tag)
        place = f"{tag['path']}:{tag['line']}: {tag['name']}"
        if length > LINES and "Long:" not in above:
            print(f"{place} has {length} lines; {LINES} at most, or a comment with the reason: 'Long: ...'")
            wrong += 1
        if parameters > PARAMETERS and "Many parameters:" not in above and f" {tag['name']}(" not in public:
            print(f"{place} has {parameters} parameters; {PARAMETERS} at most, or the reason: 'Many parameters: ...'")
            wrong += 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
