#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check_names.py BUILD: ctags finds a definition of every function and type of losses/, core/ and cpu/.

The preprocessor's output has every function and type that there is. Each must stand in the sources by the same name: a
name that a macro puts together does not, and no tool finds its definition.
"""

import json
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

FOLDERS = ("losses/", "core/", "cpu/")
ROOT = pathlib.Path(__file__).resolve().parent.parent


def tags(arguments: list) -> set:
    """Names of functions, structs, unions and typedefs."""
    kinds = ["--kinds-C=fstu", "--kinds-C++=fstu"]
    text = subprocess.run(["ctags", "-f", "-", *kinds, *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    names = (line.split("\t", 1)[0] for line in text.decode().splitlines())
    return {name for name in names if not name.startswith(("!", "__anon", "operator "))}


def compilations(build: str) -> list:
    """Command and folder of each of the library's compilations; one for files that several targets compile alike."""
    found = {}
    for entry in json.loads((pathlib.Path(build) / "compile_commands.json").read_text()):
        file = pathlib.Path(entry["file"])
        if not file.is_relative_to(ROOT) or not str(file.relative_to(ROOT)).startswith(FOLDERS) or file.suffix != ".c":
            continue
        command = shlex.split(entry["command"])
        kernels = next((word for word in command if word.startswith("-DTARE_KERNELS=")), "")
        found.setdefault((file, kernels), (command, entry["directory"]))
    return list(found.values())


def preprocessed(command: list, folder: str) -> str:
    """The lines of one compilation that come from our own files."""
    output = command.index("-o")
    command = [*command[:output], *command[output + 2 :], "-E"]
    text = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE).stdout.decode()
    lines, ours = [], False
    for line in text.splitlines():
        marker = re.match(r'# \d+ "([^"]*)"', line)
        if marker:
            path = pathlib.Path(folder, marker[1]).resolve()
            ours = path.is_relative_to(ROOT) and str(path.relative_to(ROOT)).startswith((*FOLDERS, "include/"))
        elif ours:
            lines.append(line)
    return "\n".join(lines)


def main() -> int:
    found = compilations(sys.argv[1])
    in_source = tags(["-R", "include", *FOLDERS])
    with tempfile.NamedTemporaryFile("w", suffix=".c") as file:
        file.write("\n".join(preprocessed(*each) for each in found))
        file.flush()
        there = tags([file.name])
    lost = sorted(there - in_source)
    for name in lost:
        print(f"check_names: ctags finds no definition of {name}; does a macro put the name together?")
    if len(there) < 100:
        print(f"check_names: only {len(there)} names in {len(found)} compilations of {sys.argv[1]}")
        return 1
    return 1 if lost else 0


sys.exit(main())
