# SPDX-License-Identifier: Apache-2.0
"""Tare: loss kernels for class-imbalanced dense detection, from Python.

tare.evaluate takes NumPy arrays. tare.torch takes PyTorch tensors, with autograd, on CPU and GPU. tare.compat has the
signatures of torchvision, fvcore, mmcv, mmdetection, apex and transformers; tare.patch puts them into an installed
library. The C library's header, include/tare.h, is the manual.
"""

from ._balance import ClassBalance
from ._c import ArgumentError, Error
from ._c import library as _library
from ._evaluate import Result, evaluate, ghm_state
from ._losses import losses
from ._masks import MaskResult, mask_loss
from ._patch import Patch, patch
from ._paths import get_include, get_library
from ._weights import beta_from_volume, class_balanced_weights, effective_number, ldam_margins, logit_adjustment

__version__ = "{}.{}.{}".format(*(lambda v: (v // 10000, v // 100 % 100, v % 100))(_library.tare_version()))


def build_description() -> str:
    """A text on how the C library was built: version, compiler, CUDA, CBLAS."""
    return _library.tare_build_description().decode()


__all__ = [
    "ArgumentError",
    "ClassBalance",
    "Error",
    "MaskResult",
    "Patch",
    "Result",
    "beta_from_volume",
    "build_description",
    "class_balanced_weights",
    "effective_number",
    "evaluate",
    "get_include",
    "get_library",
    "ghm_state",
    "ldam_margins",
    "logit_adjustment",
    "losses",
    "mask_loss",
    "patch",
]
