#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Who may include whom (docs/architecture.md): checks the quoted includes of every file that git knows.

A folder may include its own files and those named below. No file may include itself, by whatever detour.
"""

import pathlib
import re
import subprocess
import sys

# More specific folders first: the first entry that contains a file decides.
ALLOWED = {
    "losses/": ["losses/", "include/tare.h"],
    "core/": ["core/", "losses/", "include/tare.h"],
    "cpu/": ["cpu/", "core/", "losses/", "include/tare.h"],
    "cuda/": ["cuda/", "core/", "losses/", "include/tare.h"],
    "emulator/tests/": ["emulator/", "cuda/device.cuh"],
    "emulator/": ["emulator/"],
    "tool/": ["tool/", "include/tare.h"],
    "examples/": ["examples/", "include/tare.h"],
    "tests/oracle/": ["tests/oracle/", "include/tare.h"],
}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+["<]([^">]+)[">]', re.MULTILINE)


def resolve(file: str, name: str, known: set) -> str:
    """The repository's file that an include means: beside the including file, at the root, or in include/."""
    places = [(pathlib.PurePosixPath(file).parent, name), (pathlib.PurePosixPath(""), name), ("include", name)]
    for folder, rest in places:
        parts = []
        for part in (pathlib.PurePosixPath(folder) / rest).parts:
            if part == ".." and parts:
                parts.pop()
            else:
                parts.append(part)
        if "/".join(parts) in known:
            return "/".join(parts)
    return ""


def is_allowed(file: str, included: str) -> bool:
    for folder, allowed in ALLOWED.items():
        if file.startswith(folder):
            return included.startswith(tuple(allowed))
    return True


def circle(file: str, includes: dict, trail: list, done: set) -> list:
    """The files of a circle that can be reached from `file`, or nothing."""
    if file in trail:
        return [*trail[trail.index(file) :], file]
    if file in done:
        return []
    for included in includes.get(file, []):
        found = circle(included, includes, [*trail, file], done)
        if found:
            return found
    done.add(file)
    return []


def main() -> int:
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split("\n")
    known = {file for file in files if pathlib.Path(file).is_file()}
    sources = sorted(f for f in known if f.endswith((".c", ".h", ".def", ".cpp", ".cu", ".cuh")))
    includes, broken = {}, []
    for file in sources:
        text = pathlib.Path(file).read_text(encoding="utf-8")
        includes[file] = [found for found in (resolve(file, name, known) for name in INCLUDE.findall(text)) if found]
        broken += [f"{file} may not include {target}" for target in includes[file] if not is_allowed(file, target)]
    done: set = set()
    circles = (circle(file, includes, [], done) for file in sources)
    broken += ["a circle of includes: " + " -> ".join(found) for found in circles if found]
    for line in broken:
        print(f"check_includes: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
