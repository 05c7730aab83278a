# SPDX-License-Identifier: Apache-2.0
"""`python -m tare` is the command-line tool `tare`: the one beside the library that is loaded, or on the PATH."""

from __future__ import annotations

import os
import shutil
import sys

from . import __version__, _c


def find() -> str | None:
    """The path of the tool: in the library's build folder, in its prefix, or on the PATH."""
    folder = os.path.dirname(os.path.abspath(_c.library._name))
    places = [os.path.join(folder, "bin"), os.path.join(folder, os.pardir, "bin")] if os.sep in _c.library._name else []
    return shutil.which("tare", path=os.pathsep.join(places)) or shutil.which("tare")


def main() -> None:
    tool = find()
    if tool is None:
        sys.exit(
            f"tare {__version__}: the command-line tool is not installed here, and a wheel has none. Build and install "
            "it from the sources: cmake --preset release, cmake --build build-release, cmake --install build-release"
        )
    os.execv(tool, ["tare", *sys.argv[1:]])


if __name__ == "__main__":
    main()
