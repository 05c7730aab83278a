# SPDX-License-Identifier: Apache-2.0
"""Where a C compiler finds the header and the library that this package uses."""

import os
import sys

from . import _c


def get_include() -> str:
    """The folder of tare.h, for a C compiler's -I: the package's own, the source tree's or the system's.

    Raises FileNotFoundError where there is none.
    """
    packages = list(sys.modules[__package__].__path__)
    folders = [os.path.join(folder, "include") for folder in packages]
    folders += [os.path.join(folder, os.pardir, os.pardir, "include") for folder in packages]
    if os.sep in _c.library._name:
        folders.append(os.path.join(os.path.dirname(_c.library._name), os.pardir, "include"))
    folders.append(os.path.join(sys.base_prefix, "include"))
    for folder in folders:
        if os.path.exists(os.path.join(folder, "tare.h")):
            return os.path.abspath(folder)
    raise FileNotFoundError("tare.h is not installed; on Debian it is in the package libtare-dev")


def get_library() -> str:
    """The shared library that is loaded, to link a C program with: its path, or its name where the system finds it."""
    name = _c.library._name
    return os.path.abspath(name) if os.sep in name else name
