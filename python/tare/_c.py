# SPDX-License-Identifier: Apache-2.0
"""include/tare.h for ctypes: its calls, its statuses as exceptions, and contexts to call them with. See also _structs.

There is no list of losses here: their names and numbers come from the library.
"""

import ctypes
import functools
import glob
import os
import sys
import threading
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_int64, c_uint64, c_void_p

from . import _checks, _wording
from ._structs import (
    Batch,
    ClassBalance,
    ContextDescription,
    ContextOptions,
    GradientBalance,
    Linear,
    Loss,
    LossDescription,
    MaskOutput,
    Masks,
    MaskSpec,
    Output,
    ParameterDescription,
)

VERSION = (0, 1)  # of the header that is mirrored here; the interface may change with the second number

# ---- enumerations ---------------------------------------------------------------------------------------------------

STATUSES = {
    0: "TARE_STATUS_OK",
    1: "TARE_STATUS_INVALID_ARGUMENT",
    2: "TARE_STATUS_INVALID_LABEL",
    3: "TARE_STATUS_UNSUPPORTED",
    4: "TARE_STATUS_WORKSPACE_TOO_SMALL",
    5: "TARE_STATUS_OUT_OF_MEMORY",
    6: "TARE_STATUS_INVALID_TARGET",
    20: "TARE_STATUS_NOT_BUILT",
    21: "TARE_STATUS_NO_DRIVER",
    22: "TARE_STATUS_DRIVER_TOO_OLD",
    23: "TARE_STATUS_NO_DEVICE",
    24: "TARE_STATUS_CUDA_ERROR",
    25: "TARE_STATUS_CAPTURING",
    26: "TARE_STATUS_NO_BLAS",
}
F32, F16, BF16, F64 = range(4)
I32, I64 = range(2)
NORMALIZERS = {"sum": 0, "elements": 1, "rows": 2, "positives": 3, "weights": 4, "targets": 6, "ones": 7}
SCOPES = {"batch": 0, "level": 1}
VALUE = 5  # the normalizer that the caller gives
CPU, CUDA = 1, 2
HARD_NEGATIVES, HARD_ROWS = 1, 2  # selections
CAPTURING = 25  # the status
MAX_LEVELS = 16

# ---- the library ----------------------------------------------------------------------------------------------------

_STATUS = c_int32
_PROTOTYPES = {
    "tare_version": (c_int32, []),
    "tare_build_description": (c_char_p, []),
    "tare_error_text": (c_char_p, [c_void_p]),
    "tare_context_options_init_sized": (None, [POINTER(ContextOptions), c_uint64]),
    "tare_context_create": (_STATUS, [POINTER(c_void_p), POINTER(ContextOptions)]),
    "tare_context_destroy": (None, [c_void_p]),
    "tare_context_describe": (_STATUS, [c_void_p, POINTER(ContextDescription)]),
    "tare_context_synchronize": (_STATUS, [c_void_p, c_void_p]),
    "tare_context_set_workspace": (_STATUS, [c_void_p, c_void_p, c_uint64]),
    "tare_loss_spec_init_sized": (None, [POINTER(Loss), c_int32, c_uint64]),
    "tare_batch_init_sized": (None, [POINTER(Batch), c_uint64, c_uint64]),
    "tare_output_init_sized": (None, [POINTER(Output), c_uint64]),
    "tare_evaluate": (_STATUS, [c_void_p, POINTER(Loss), POINTER(Batch), POINTER(Output), c_void_p]),
    "tare_workspace_size": (_STATUS, [c_void_p, POINTER(Loss), POINTER(Batch), POINTER(Output), POINTER(c_uint64)]),
    "tare_linear_init_sized": (None, [POINTER(Linear), c_int64, c_uint64]),
    "tare_linear_ghm_histogram": (_STATUS, [c_void_p, POINTER(Loss), POINTER(Batch), POINTER(Linear), c_void_p]),
    "tare_linear_evaluate": (
        _STATUS,
        [c_void_p, POINTER(Loss), POINTER(Batch), POINTER(Linear), POINTER(Output), c_void_p],
    ),
    "tare_linear_workspace_size": (
        _STATUS,
        [
            c_void_p,
            POINTER(Loss),
            POINTER(Batch),
            POINTER(Linear),
            POINTER(Output),
            POINTER(c_uint64),
            POINTER(c_uint64),
        ],
    ),
    "tare_label_counts": (_STATUS, [c_void_p, POINTER(Batch), c_void_p, c_void_p, c_void_p]),
    "tare_ghm_state_bytes": (c_uint64, [c_int32]),
    "tare_ghm_histogram": (_STATUS, [c_void_p, POINTER(Loss), POINTER(Batch), c_void_p]),
    "tare_scale_gradients": (_STATUS, [c_void_p, *[c_int32] * 2, POINTER(c_void_p), POINTER(c_int64), *[c_void_p] * 2]),
    "tare_ghm_density_update": (_STATUS, [c_void_p, POINTER(Loss), c_void_p]),
    "tare_class_balance_init_sized": (None, [POINTER(ClassBalance), c_int64, c_uint64]),
    "tare_class_balance_state_bytes": (c_uint64, [c_int64]),
    "tare_class_balance_count": (_STATUS, [c_void_p, POINTER(ClassBalance), POINTER(Batch), c_void_p]),
    "tare_class_balance_step": (_STATUS, [c_void_p, POINTER(ClassBalance), c_void_p]),
    "tare_class_balance_weigh": (_STATUS, [c_void_p, POINTER(ClassBalance), c_void_p]),
    "tare_mask_spec_init_sized": (None, [POINTER(MaskSpec), c_uint64]),
    "tare_masks_init_sized": (None, [POINTER(Masks), c_int64, c_int64, c_uint64]),
    "tare_mask_output_init_sized": (None, [POINTER(MaskOutput), c_int64, c_uint64]),
    "tare_mask_evaluate": (_STATUS, [c_void_p, POINTER(MaskSpec), POINTER(Masks), POINTER(MaskOutput), c_void_p]),
    "tare_mask_workspace_size": (_STATUS, [c_void_p, POINTER(Masks), POINTER(c_uint64)]),
    "tare_gradient_balance_init_sized": (None, [POINTER(GradientBalance), c_int32, c_int64, c_uint64]),
    "tare_gradient_balance_state_bytes": (c_uint64, [c_int64]),
    "tare_gradient_balance_weigh": (_STATUS, [c_void_p, POINTER(GradientBalance), c_void_p]),
    "tare_gradient_balance_collect": (_STATUS, [c_void_p, POINTER(GradientBalance), c_void_p, c_void_p]),
    "tare_gradient_balance_step": (_STATUS, [c_void_p, POINTER(GradientBalance), c_void_p]),
    "tare_effective_number": (_STATUS, [c_double, c_double, POINTER(c_double)]),
    "tare_beta_from_volume": (_STATUS, [c_double, POINTER(c_double)]),
    "tare_class_balanced_weights": (
        _STATUS,
        [c_int64, POINTER(c_int64), c_double, POINTER(c_double), POINTER(c_float)],
    ),
    "tare_ldam_margins": (_STATUS, [c_int64, POINTER(c_double), c_double, c_int32, POINTER(c_float)]),
    "tare_logit_offsets": (_STATUS, [c_int64, POINTER(c_double), c_double, c_int32, POINTER(c_float)]),
    "tare_class_balanced_weights_real": (
        _STATUS,
        [c_int64, POINTER(c_double), c_double, POINTER(c_double), POINTER(c_float)],
    ),
    "tare_use_threads": (None, [c_void_p]),
    "tare_loss_count": (c_int32, []),
    "tare_loss_describe": (_STATUS, [c_int32, POINTER(LossDescription)]),
    "tare_loss_parameter": (_STATUS, [c_int32, c_int32, POINTER(ParameterDescription)]),
    "tare_loss_kind_at": (c_int32, [c_int32]),
    "tare_loss_name": (c_char_p, [c_int32]),
    "tare_loss_kind_from_name": (c_int32, [c_char_p]),
}


def _candidates():
    """Possible places of the library, best first: the requested one, the package's own, the system's."""
    asked = os.environ.get("TARE_LIBRARY")
    if asked:
        return [asked]
    # After `pip install -e` the package is in two folders: its sources here, and what was built in site-packages.
    own = [
        file
        for folder in sys.modules[__package__].__path__
        for file in glob.glob(f"{glob.escape(folder)}/lib/libtare.so*")
    ]
    return [*sorted(own), f"libtare.so.{VERSION[0]}.{VERSION[1]}", "libtare.so"]


def _load():
    tried = []
    for path in _candidates():
        try:
            library = ctypes.CDLL(path)
            break
        except OSError as error:
            tried.append(f"  {error}")
    else:
        raise ImportError(
            "Tare's C library could not be loaded. Install the package with `pip install .` in its source folder, "
            "which builds it, or set TARE_LIBRARY to the path of a libtare.so. Tried:\n" + "\n".join(tried)
        )
    for name, (result, arguments) in _PROTOTYPES.items():
        call = getattr(library, name)
        call.restype, call.argtypes = result, arguments
    version = library.tare_version()
    if (version // 10000, version // 100 % 100) != VERSION:
        raise ImportError(f"{path} has version number {version}; this package needs {VERSION[0]}.{VERSION[1]}.x")
    return library


library = _load()

# ---- errors ---------------------------------------------------------------------------------------------------------


class Error(RuntimeError):
    """An error of the C library: `status` (its number), `name` ("TARE_STATUS_CUDA_ERROR") and `text`."""

    def __init__(self, status, text):
        self.status, self.name, self.text = status, STATUSES.get(status, f"status {status}"), text
        super().__init__(f"{text} ({self.name})")


class ArgumentError(Error, ValueError):
    """A wrong argument, an invalid label or target, or a combination that Tare does not compute."""


def check(status, context=None):
    """Raises the error of `status`, with the text of `context` or, without a context, of this thread."""
    if status:
        text = _wording.reworded(library.tare_error_text(context).decode())
        raise (ArgumentError if status in (1, 2, 3, 6) else Error)(status, text)


# ---- contexts -------------------------------------------------------------------------------------------------------

# (device, index, stream, threads, thread, capture) -> context; never removed, because captured graphs need them
_contexts: dict = {}
_lock = threading.Lock()


def create_context(device, index=-1, threads=0):
    options, context = ContextOptions(), c_void_p()
    library.tare_context_options_init_sized(options, ctypes.sizeof(options))
    options.device = device
    options.device_index = _checks.integer("device index", index, -1, _checks.INT32[1])
    options.threads = _checks.integer("threads", threads, 0, 1024)
    check(library.tare_context_create(context, options))
    return context


@functools.lru_cache(None)
def _driver_call():
    call = ctypes.CDLL("libcuda.so.1").cuStreamGetCaptureInfo_v2
    call.restype = c_int32
    call.argtypes = [c_void_p, POINTER(c_int32), POINTER(c_uint64), c_void_p, c_void_p, c_void_p]
    return call


def capture_of(stream):
    """The number of a stream's capture, unique in this process; 0 if the stream is not being captured."""
    status, number = c_int32(), c_uint64()
    failed = _driver_call()(stream, status, number, None, None, None)
    return number.value if not failed and status.value else 0


def context(device=CPU, index=-1, stream=0, threads=0):
    """This thread's context for a device and stream, made when first asked for.

    A context serves one stream and one thread at a time, so each pair has its own. So does each graph: graphs are often
    captured on one stream and replayed on several at once.
    """
    capture = capture_of(stream) if device == CUDA else 0
    key = (device, index, stream, threads, threading.get_ident(), capture)
    found = _contexts.get(key)
    if found is None:
        with _lock:
            found = _contexts[key] = create_context(device, index, threads)
    return found


def contexts_of(device, index, stream):
    """Every context of a device and stream, on any thread, except those of graphs."""
    with _lock:
        return [made for key, made in _contexts.items() if key[:3] == (device, index, stream) and not key[5]]


def contexts_of_graphs(index):
    """Every context that a graph of a GPU was captured with, on any stream."""
    with _lock:
        return [made for key, made in _contexts.items() if key[:2] == (CUDA, index) and key[5]]
