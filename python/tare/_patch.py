# SPDX-License-Identifier: Apache-2.0
"""tare.patch: Tare's losses in the place of an installed library's."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any

_FOCAL = ("sigmoid_focal_loss", "softmax_focal_loss", "SigmoidFocalLoss", "SoftmaxFocalLoss")
_STAR = ("sigmoid_focal_loss", "sigmoid_focal_loss_jit", "sigmoid_focal_loss_star", "sigmoid_focal_loss_star_jit")
_CROSS_ENTROPY = ("CrossEntropyLoss", "CrossEntropyCustomLoss")
_CROSS_ENTROPIES = ("cross_entropy", "binary_cross_entropy", "mask_cross_entropy")
_PROBABILITIES = ("py_sigmoid_focal_loss", "py_focal_loss_with_prob")

# Where a library defines what tare.compat's module of its name has. A pair: its name there, and Tare's.
_LIBRARIES: dict[str, dict[str, tuple]] = {
    "apex": {"apex.contrib.focal_loss.focal_loss": ("focal_loss", "FocalLoss")},
    "fvcore": {"fvcore.nn.focal_loss": _STAR},
    "mmcv": {"mmcv.ops.focal_loss": (*_FOCAL, "SigmoidFocalLossFunction", "SoftmaxFocalLossFunction")},
    "mmdet": {
        "mmdet.models.losses.cross_entropy_loss": (*_CROSS_ENTROPY, *_CROSS_ENTROPIES),
        "mmdet.models.losses.focal_loss": ("FocalLoss", "FocalCustomLoss", "sigmoid_focal_loss", *_PROBABILITIES),
        "mmdet.models.losses.ghm_loss": ("GHMC", "GHMR"),
    },
    "torchvision": {"torchvision.ops.focal_loss": ("sigmoid_focal_loss",)},
    "transformers": {
        "transformers.loss.loss_for_object_detection": ("sigmoid_focal_loss",),
        "transformers.loss.loss_grounding_dino": (("sigmoid_focal_loss", "grounding_dino_sigmoid_focal_loss"),),
    },
}
_LOADED_BEFORE = {"mmdet": ("mmdet.models",), "transformers": ("transformers.loss.loss_utils",)}  # all that import them


class Patch:
    """What tare.patch replaced: `replaced` has the names. undo(), or the end of a with block, puts the originals back.

    A name that was imported from the library while the patch was in place keeps Tare's object.
    """

    def __init__(self, library: str) -> None:
        self.library = library
        self.replaced: list[str] = []
        self._undo: list[Callable[[], None]] = []

    def undo(self) -> None:
        while self._undo:
            self._undo.pop()()
        self.replaced = []

    def __enter__(self) -> Patch:
        return self

    def __exit__(self, *error: object) -> None:
        self.undo()

    def __repr__(self) -> str:
        return f"<tare.patch of {self.library}: {', '.join(self.replaced) or 'nothing'}>"

    def _replace(self, name: str, place: dict[str, Any], key: Any, ours: Any) -> None:
        original = place[key]
        place[key] = ours
        self.replaced.append(name)

        def undo() -> None:
            if place.get(key) is ours:
                place[key] = original

        self._undo.append(undo)

    def _replace_everywhere(self, pairs: dict[int, tuple[Any, Any]]) -> None:
        """Every attribute of a module, and every value of a dictionary in one, that is an original."""
        for name, module in list(sys.modules.items()):
            attributes = getattr(module, "__dict__", None)
            if not isinstance(attributes, dict) or name == "tare" or name.startswith("tare."):
                continue
            for key, value in list(attributes.items()):
                if id(value) in pairs:
                    self._replace(f"{name}.{key}", attributes, key, pairs[id(value)][1])
                elif type(value) is dict and key != "__builtins__":
                    for entry, one in list(value.items()):
                        if id(one) in pairs:
                            self._replace(f"{name}.{key}[{entry!r}]", value, entry, pairs[id(one)][1])

    def _register(self) -> None:
        """mmdetection's registry too."""
        models = sys.modules["mmdet.registry"].MODELS
        for name, original in importlib.import_module("tare.compat.mmdet").register().items():
            self.replaced.append(f"mmdet.registry.MODELS[{name!r}]")
            self._undo.append(functools.partial(models.register_module, name=name, force=True, module=original))


def patch(library: str) -> Patch:
    """Puts Tare's functions and modules in the place of an installed library's, for this process or a with block.

        tare.patch("torchvision")
        with tare.patch("mmdet") as patched:
            print(patched.replaced)

    library: "apex", "fvcore", "mmcv", "mmdet", "torchvision" or "transformers"; tare.compat has what they get. The
    library is imported. Every attribute of a loaded module that is the original object is replaced, and every such
    value of a dictionary of one; for mmdet its registry too. A torch.nn.Module that exists already keeps its losses.
    """
    if library not in _LIBRARIES:
        raise ValueError(f"library is {library!r}; it is one of: {', '.join(_LIBRARIES)}")
    ours = importlib.import_module(f"tare.compat.{library}")
    patched = Patch(library)
    pairs: dict[int, tuple[Any, Any]] = {}
    for module in _LOADED_BEFORE.get(library, ()):
        importlib.import_module(module)
    for module, names in _LIBRARIES[library].items():
        theirs = importlib.import_module(module)
        for name in names:
            there, here = (name, name) if isinstance(name, str) else name
            original = getattr(theirs, there, None)
            if original is not None and original is not getattr(ours, here):
                pairs[id(original)] = original, getattr(ours, here)
    patched._replace_everywhere(pairs)
    if library == "mmdet":
        patched._register()
    return patched
