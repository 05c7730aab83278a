# SPDX-License-Identifier: Apache-2.0
"""The threads of CPU calls beside PyTorch: PyTorch's own.

PyTorch's OpenMP threads spin for some milliseconds after each operation, and would take the processors from threads of
the library's pool. TARE_THREADS=pool in the environment keeps the pool.
"""

from __future__ import annotations

import ctypes
import os

import torch

from . import _c


def openmp_of_torch():
    """GOMP_parallel of the OpenMP runtime that PyTorch computes with; None if it computes with something else."""
    if "parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    try:  # a search in libtorch_cpu.so and what it is linked with, so that no other runtime is found
        library = ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so"))
        return library.GOMP_parallel
    except (OSError, AttributeError):
        return None


def choose():
    wanted = os.environ.get("TARE_THREADS", "")
    if wanted not in ("", "pool"):
        raise ValueError(f'TARE_THREADS is "{wanted}"; it must be "pool", or not set: PyTorch\'s threads')
    parallel = None if wanted else openmp_of_torch()
    _c.library.tare_use_threads(ctypes.cast(parallel, ctypes.c_void_p) if parallel else None)
