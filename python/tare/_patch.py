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

_LOSSES = "mmdet.models.losses"
_SMP = "segmentation_models_pytorch.losses"
_DETECTION = "torchvision.models.detection"
_TRITON = (
    "triton_sigmoid_focal_loss",
    "triton_sigmoid_focal_loss_reduce",
    "SigmoidFocalLoss",
    "SigmoidFocalLossReduced",
)
_RF_DETR = ("sigmoid_focal_loss", "sigmoid_varifocal_loss", "position_supervised_loss", "sigmoid_ce_loss")
_KORNIA = ("focal_loss", "FocalLoss", "binary_focal_loss_with_logits", "BinaryFocalLossWithLogits")

# Where a library defines what tare.compat's module of its name has. A pair: its name there, and Tare's. A name with a
# dot is a method of a class. A module that the installed version lacks is left out.
_LIBRARIES: dict[str, dict[str, tuple]] = {
    "apex": {"apex.contrib.focal_loss.focal_loss": ("focal_loss", "FocalLoss")},
    "detectron2": {
        "fvcore.nn.focal_loss": _STAR,
        "detectron2.modeling.roi_heads.fast_rcnn": (
            ("FastRCNNOutputLayers.sigmoid_cross_entropy_loss", "sigmoid_cross_entropy_loss"),
        ),
    },
    "fvcore": {"fvcore.nn.focal_loss": _STAR},
    "kornia": {"kornia.losses.focal": _KORNIA},
    "mmcv": {"mmcv.ops.focal_loss": (*_FOCAL, "SigmoidFocalLossFunction", "SoftmaxFocalLossFunction")},
    "mmdet": {
        f"{_LOSSES}.cross_entropy_loss": (*_CROSS_ENTROPY, *_CROSS_ENTROPIES),
        f"{_LOSSES}.dice_loss": ("DiceLoss", "dice_loss"),
        f"{_LOSSES}.eqlv2_loss": ("EQLV2Loss",),
        f"{_LOSSES}.focal_loss": ("FocalLoss", "FocalCustomLoss", "sigmoid_focal_loss", *_PROBABILITIES),
        f"{_LOSSES}.gaussian_focal_loss": ("GaussianFocalLoss",),
        f"{_LOSSES}.gfocal_loss": ("QualityFocalLoss", "DistributionFocalLoss"),
        f"{_LOSSES}.ghm_loss": ("GHMC", "GHMR"),
        f"{_LOSSES}.seesaw_loss": ("SeesawLoss",),
        f"{_LOSSES}.varifocal_loss": ("VarifocalLoss",),
    },
    "monai": {
        "monai.losses.dice": ("DiceLoss",),
        "monai.losses.focal_loss": ("FocalLoss",),
        "monai.losses.tversky": ("TverskyLoss",),
    },
    "rfdetr": {
        "rfdetr.models.criterion": (
            *_RF_DETR,
            ("sigmoid_ce_loss_jit", "sigmoid_ce_loss"),
            ("SetCriterion.loss_labels", "loss_labels"),
        )
    },
    "sam3": {
        "sam3.train.loss.loss_fns": ("dice_loss",),
        "sam3.train.loss.sigmoid_focal_loss": _TRITON,
    },
    "segmentation_models_pytorch": {
        f"{_SMP}.dice": ("DiceLoss",),
        f"{_SMP}.focal": ("FocalLoss",),
        f"{_SMP}.tversky": ("TverskyLoss",),
    },
    "timm": {"timm.loss.asymmetric_loss": ("AsymmetricLossMultiLabel",)},
    "torchvision": {
        "torchvision.ops.focal_loss": ("sigmoid_focal_loss",),
        f"{_DETECTION}.retinanet": (("RetinaNetClassificationHead.compute_loss", "retinanet_classification_loss"),),
        f"{_DETECTION}.ssd": (("SSD.compute_loss", "ssd_loss"),),
    },
    "transformers": {
        "transformers.loss.loss_for_object_detection": (
            "dice_loss",
            "sigmoid_focal_loss",
            ("ImageLoss.loss_labels", "detr_loss_labels"),
        ),
        "transformers.loss.loss_grounding_dino": (("sigmoid_focal_loss", "grounding_dino_sigmoid_focal_loss"),),
        "transformers.loss.loss_deformable_detr": (
            ("DeformableDetrImageLoss.loss_labels", "deformable_detr_loss_labels"),
        ),
        "transformers.loss.loss_rt_detr": (
            ("RTDetrLoss.loss_labels_vfl", "rt_detr_loss_labels_vfl"),
            ("RTDetrLoss.loss_labels_bce", "rt_detr_loss_labels_bce"),
            ("RTDetrLoss.loss_labels_focal", "rt_detr_loss_labels_focal"),
        ),
        "transformers.loss.loss_d_fine": (
            ("DFineLoss.unimodal_distribution_focal_loss", "d_fine_unimodal_distribution_focal_loss"),
        ),
        "transformers.loss.loss_deimv2": (("Deimv2Loss.loss_labels_mal", "deimv2_loss_labels_mal"),),
        "transformers.loss.loss_lw_detr": (("LwDetrImageLoss.loss_labels", "lw_detr_loss_labels"),),
        "transformers.loss.loss_rf_detr": (("sigmoid_cross_entropy_loss", "rf_detr_sigmoid_cross_entropy_loss"),),
        "transformers.models.mask2former.modeling_mask2former": (("dice_loss", "maskformer_dice_loss"),),
        "transformers.models.oneformer.modeling_oneformer": (("dice_loss", "maskformer_dice_loss"),),
        "transformers.models.maskformer.modeling_maskformer": (
            ("dice_loss", "maskformer_dice_loss"),
            ("sigmoid_focal_loss", "maskformer_sigmoid_focal_loss"),
        ),
    },
    "ultralytics": {
        "ultralytics.utils.loss": ("VarifocalLoss", "FocalLoss", "DFLoss"),
        "ultralytics.models.utils.loss": (("DETRLoss._get_loss_class", "rt_detr_loss_class"),),
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

    def _replace_method(self, owner: type, name: str, ours: Any) -> None:
        original = owner.__dict__.get(name)
        if original is None or original is ours:
            return
        setattr(owner, name, ours)
        self.replaced.append(f"{owner.__module__}.{owner.__qualname__}.{name}")

        def undo() -> None:
            if owner.__dict__.get(name) is ours:
                setattr(owner, name, original)

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

    library: "apex", "detectron2", "fvcore", "kornia", "mmcv", "mmdet", "monai", "rfdetr", "sam3",
    "segmentation_models_pytorch", "timm", "torchvision", "transformers" or "ultralytics"; tare.compat has what they
    get. The library is imported. Every attribute of a loaded module that is the original object is replaced, and every
    such value of a dictionary of one; methods of criteria in their classes; for mmdet its registry too. A
    torch.nn.Module that exists already keeps its losses.
    """
    if library not in _LIBRARIES:
        raise ValueError(f"library is {library!r}; it is one of: {', '.join(_LIBRARIES)}")
    ours = importlib.import_module(f"tare.compat.{library}")
    patched = Patch(library)
    pairs: dict[int, tuple[Any, Any]] = {}
    importlib.import_module(library)
    for module in _LOADED_BEFORE.get(library, ()):
        importlib.import_module(module)
    for module, names in _LIBRARIES[library].items():
        theirs = _module_of(module)
        for name in names:
            there, here = (name, name) if isinstance(name, str) else name
            owner, _, attribute = there.rpartition(".")
            if owner:
                if hasattr(theirs, owner):
                    patched._replace_method(getattr(theirs, owner), attribute, getattr(ours, here))
                continue
            original = getattr(theirs, there, None)
            if original is not None and original is not getattr(ours, here):
                pairs[id(original)] = original, getattr(ours, here)
    patched._replace_everywhere(pairs)
    if library == "mmdet":
        patched._register()
    return patched


def _module_of(name: str) -> Any:
    """A module of an installed library, or None where its version has none of this name, or cannot import it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
