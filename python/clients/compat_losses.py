# SPDX-License-Identifier: Apache-2.0
"""Compares the functions, modules and methods of tare.compat with the installed libraries' own.

    python python/clients/compat_losses.py [--only TEXT] [--detectron2 FOLDER]

It takes what is installed of transformers, ultralytics, rfdetr, mmdet, kornia, monai, segmentation_models_pytorch,
timm and torchvision, and says what is missing. detectron2 is not on PyPI; FOLDER is a copy of its repository. Each is
called as its users call it, with random inputs, in float64 and float32, alone and under tare.patch. The table has the
difference of the losses, relative to the loss, and of the gradients, relative to the largest element. Exit status 1: a
difference is above its bound, 1e-10 in float64 and 1e-5 in float32, or above what a row says.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import pathlib
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from score_losses import CLASSES, QUERIES, Batch, import_mmdet

import tare

BOUNDS = {torch.float64: 1e-10, torch.float32: 1e-5}


class Case(NamedTuple):
    """call: from a dtype and logits to a loss, which looks the library's code up each time. wide: the bound in float64,
    where the library computes in float32, or has an epsilon."""

    library: str
    call: Callable[[torch.dtype, torch.Tensor], torch.Tensor]
    shape: tuple[int, ...]
    wide: float = 1e-10
    probabilities: bool = False


def find(path: str) -> Any:
    module, name = path.split(":")
    owner = importlib.import_module(module)
    for one in name.split("."):
        owner = getattr(owner, one)
    return owner


def random(shape: tuple[int, ...], seed: int = 3) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def integers(high: int, shape: tuple[int, ...], seed: int = 4) -> torch.Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


# ---- criteria -------------------------------------------------------------------------------------------------------

SHAPE = (3, QUERIES, CLASSES)


def criterion(path: str, key: str, logits_key: str = "logits", **attributes: Any) -> Callable:
    """A method of a criterion, called on the matches of a Batch."""

    def call(dtype: torch.dtype, logits: torch.Tensor) -> torch.Tensor:
        owner = find(path.rsplit(".", 1)[0])
        self = types.SimpleNamespace(**{"num_classes": CLASSES, **attributes})
        for name in ("_get_source_permutation_idx", "_get_src_permutation_idx"):
            if hasattr(owner, name):
                setattr(self, name, types.MethodType(getattr(owner, name), self))
        if hasattr(owner, "_matched_valid_mask"):
            self._matched_valid_mask = owner._matched_valid_mask
        batch = Batch(dtype)
        targets = [{**one, "labels": one["class_labels"]} for one in batch.targets]
        outputs = {**batch.outputs, logits_key: logits}
        return find(path)(self, outputs, targets, batch.indices, torch.tensor(7.0, dtype=dtype))[key]

    return call


def detr(dtype: torch.dtype, logits: torch.Tensor) -> torch.Tensor:
    weights = torch.ones(CLASSES, dtype=dtype)
    weights[-1] = 0.125
    call = criterion(
        "transformers.loss.loss_for_object_detection:ImageLoss.loss_labels",
        "loss_ce",
        empty_weight=weights,
        num_classes=CLASSES - 1,
    )
    return call(dtype, logits)


def ultralytics_rt_detr(kind: str) -> Callable:
    def call(dtype: torch.dtype, logits: torch.Tensor) -> torch.Tensor:
        batch = Batch(dtype)
        modules = importlib.import_module("ultralytics.utils.loss")
        labels = torch.where(batch.labels < 0, CLASSES, batch.labels)
        focal = modules.FocalLoss() if kind != "bce" else None
        self = types.SimpleNamespace(nc=CLASSES, loss_gain={"class": 1.0}, fl=focal)
        self.vfl = modules.VarifocalLoss() if kind == "vfl" else None
        method = find("ultralytics.models.utils.loss:DETRLoss._get_loss_class")
        scores = random(labels.shape).to(dtype) * (labels < CLASSES)
        return method(self, logits, labels, scores, 9)["loss_class"]

    return call


def yolo(dtype: torch.dtype, logits: torch.Tensor) -> torch.Tensor:
    """As v8DetectionLoss has it; under tare.patch replace_bce does what a user does."""
    self = types.SimpleNamespace(bce=torch.nn.BCEWithLogitsLoss(reduction="none"))
    if find("ultralytics.utils.loss:VarifocalLoss").__module__.startswith("tare"):
        importlib.import_module("tare.compat.ultralytics").replace_bce(self)
    targets = (random(SHAPE) * (random(SHAPE, 5) < 0.1)).to(dtype)
    losses = self.bce(logits, targets)
    losses *= torch.linspace(0.5, 2, CLASSES, dtype=torch.float32).to(dtype).view(1, 1, -1)
    return losses.sum() / targets.sum().clamp(min=1)


def module(path: str, *targets: Callable[[], torch.Tensor], **options: Any) -> Callable:
    """A module of these options, called with logits and targets; floating targets get the logits' type."""

    def call(dtype: torch.dtype, logits: torch.Tensor) -> torch.Tensor:
        package, name = path.split(":")
        if package.startswith("mmdet"):
            import_mmdet(package.rsplit(".", 1)[1])
        given = [one() for one in targets]
        given = [one.to(dtype) if one.is_floating_point() else one for one in given]
        return getattr(importlib.import_module(package), name)(**options)(logits, *given).sum()

    return call


def scored(dtype: torch.dtype, logits: torch.Tensor) -> torch.Tensor:
    import_mmdet("gfocal_loss")
    loss = find("mmdet.models.losses.gfocal_loss:QualityFocalLoss")()
    given = integers(CLASSES + 1, (90,)), random((90,)).to(dtype)
    return loss(logits, given, (random((90,), 6) < 0.7).to(dtype), avg_factor=17.0)


def fast_rcnn(dtype: torch.dtype, logits: torch.Tensor) -> torch.Tensor:
    self = types.SimpleNamespace(use_fed_loss=True, fed_loss_num_classes=5, fed_loss_cls_weights=None)
    self.get_fed_loss_classes = lambda *arguments, **keywords: torch.tensor([1, 4, 7, 9, 12])
    path = "detectron2.modeling.roi_heads.fast_rcnn:FastRCNNOutputLayers.sigmoid_cross_entropy_loss"
    return find(path)(self, logits, integers(CLASSES, (90,)))


def heat() -> torch.Tensor:
    map_ = random(MAP)
    return torch.where(map_ > 0.9, 1.0, map_)


def hard() -> torch.Tensor:
    return (random(MAP) < 0.3).double()


def labels() -> torch.Tensor:
    return integers(4, (2, 9, 8))


def function(path: str, target: Callable[[], torch.Tensor], *rest: Any) -> Callable:
    return lambda dtype, logits: find(path)(logits, target().to(dtype), *rest)


def of_one() -> torch.Tensor:
    return hard()[:, :1]


HF, LOSSES, MAP = "transformers.loss", "mmdet.models.losses", (2, 4, 9, 8)
FLAGS = {"ia_bce_loss": False, "use_position_supervised_loss": False, "use_varifocal_loss": False}
RF = "rfdetr.models.criterion:SetCriterion.loss_labels"
SMP, KORNIA = "segmentation_models_pytorch.losses.focal:FocalLoss", "kornia.losses.focal"


def monai_overlap(path: str, target: Callable[[], torch.Tensor], **options: Any) -> Case:
    return Case("monai", module(f"monai.losses.{path}", target, **options), MAP)


def smp_overlap(path: str, mode: str, target: Callable[[], torch.Tensor], **options: Any) -> Case:
    shape = (2, 1, 9, 8) if mode == "binary" else MAP
    path = f"segmentation_models_pytorch.losses.{path}"
    return Case("segmentation_models_pytorch", module(path, target, mode=mode, **options), shape)


def rf_detr(**flags: bool) -> Case:
    return Case("rfdetr", criterion(RF, "loss_ce", "pred_logits", focal_alpha=0.25, **{**FLAGS, **flags}), SHAPE)


def smp(mode: str, target: Callable[[], torch.Tensor], **options: Any) -> Case:
    return Case("segmentation_models_pytorch", module(SMP, target, mode=mode, **options), MAP)


def monai(target: Callable[[], torch.Tensor], **options: Any) -> Case:
    return Case("monai", module("monai.losses.focal_loss:FocalLoss", target, **options), MAP, 1e-5)


CASES = {
    "transformers ImageLoss": Case("transformers", detr, SHAPE),
    "transformers DeformableDetrImageLoss": Case(
        "transformers",
        criterion(f"{HF}.loss_deformable_detr:DeformableDetrImageLoss.loss_labels", "loss_ce", focal_alpha=0.25),
        SHAPE,
    ),
    "transformers RTDetrLoss, varifocal": Case(
        "transformers",
        criterion(f"{HF}.loss_rt_detr:RTDetrLoss.loss_labels_vfl", "loss_vfl", alpha=0.75, gamma=2.0),
        SHAPE,
    ),
    "transformers RTDetrLoss, cross-entropy": Case(
        "transformers", criterion(f"{HF}.loss_rt_detr:RTDetrLoss.loss_labels_bce", "loss_bce"), SHAPE, 1e-7
    ),
    "transformers Deimv2Loss": Case(
        "transformers",
        criterion(f"{HF}.loss_deimv2:Deimv2Loss.loss_labels_mal", "loss_mal", gamma=1.5, mal_alpha=None),
        SHAPE,
    ),
    "transformers LwDetrImageLoss": Case(
        "transformers",
        criterion(f"{HF}.loss_lw_detr:LwDetrImageLoss.loss_labels", "loss_ce", focal_alpha=0.25),
        SHAPE,
    ),
    "transformers RF-DETR's masks": Case(
        "transformers", function(f"{HF}.loss_rf_detr:sigmoid_cross_entropy_loss", hard, 5.0), MAP
    ),
    "transformers MaskFormer's masks": Case(
        "transformers",
        function("transformers.models.maskformer.modeling_maskformer:sigmoid_focal_loss", hard, 5),
        MAP,
    ),
    "rfdetr, IoU-aware": rf_detr(ia_bce_loss=True),
    "rfdetr, position-supervised": rf_detr(use_position_supervised_loss=True),
    "rfdetr, varifocal": rf_detr(use_varifocal_loss=True),
    "rfdetr, focal": rf_detr(),
    "ultralytics YOLO, BCE": Case("ultralytics", yolo, SHAPE),
    "ultralytics RT-DETR, varifocal": Case("ultralytics", ultralytics_rt_detr("vfl"), SHAPE, 1e-5),
    "ultralytics RT-DETR, focal": Case("ultralytics", ultralytics_rt_detr("fl"), SHAPE, 1e-7),
    "ultralytics RT-DETR, BCE": Case("ultralytics", ultralytics_rt_detr("bce"), SHAPE),
    "ultralytics FocalLoss": Case("ultralytics", module("ultralytics.utils.loss:FocalLoss", hard), MAP),
    "mmdet QualityFocalLoss": Case("mmdet", scored, (90, CLASSES)),
    "mmdet QualityFocalLoss, dense": Case("mmdet", module(f"{LOSSES}.gfocal_loss:QualityFocalLoss", heat), MAP),
    "mmdet VarifocalLoss": Case("mmdet", module(f"{LOSSES}.varifocal_loss:VarifocalLoss", heat), MAP),
    "mmdet GaussianFocalLoss": Case(
        "mmdet", module(f"{LOSSES}.gaussian_focal_loss:GaussianFocalLoss", heat), MAP, 1e-7, probabilities=True
    ),
    "kornia focal_loss": Case("kornia", module(f"{KORNIA}:FocalLoss", labels, alpha=0.25), MAP),
    "kornia binary, hard": Case("kornia", module(f"{KORNIA}:BinaryFocalLossWithLogits", hard, alpha=0.25), MAP),
    "kornia binary, soft": Case("kornia", module(f"{KORNIA}:BinaryFocalLossWithLogits", heat, alpha=0.3), MAP),
    "monai sigmoid": monai(hard, alpha=0.3),
    "monai sigmoid, soft": monai(heat, alpha=0.3),
    "monai softmax, labels": monai(
        lambda: labels()[:, None], alpha=0.25, use_softmax=True, to_onehot_y=True, reduction="sum"
    ),
    "smp multiclass": smp("multiclass", labels, alpha=0.3, ignore_index=3),
    "smp multilabel, reduced": smp("multilabel", hard, reduced_threshold=0.5, reduction="sum"),
    "smp binary, normalized": smp("binary", hard, normalized=True, alpha=0.3),
    "monai DiceLoss": monai_overlap("dice:DiceLoss", hard, sigmoid=True, squared_pred=True, include_background=False),
    "monai DiceLoss, labels": monai_overlap(
        "dice:DiceLoss",
        lambda: labels()[:, None],
        sigmoid=True,
        to_onehot_y=True,
        jaccard=True,
        batch=True,
        weight=[1.0, 2.0, 0.5, 0.0],
        reduction="sum",
    ),
    "monai DiceLoss, softmax": monai_overlap("dice:DiceLoss", hard, softmax=True),
    "monai DiceLoss, soft": monai_overlap("dice:DiceLoss", heat, sigmoid=True, soft_label=True),
    "monai TverskyLoss": monai_overlap("tversky:TverskyLoss", hard, sigmoid=True, alpha=0.3, beta=0.7),
    "smp DiceLoss, binary": smp_overlap("dice:DiceLoss", "binary", of_one, smooth=1.0),
    "smp DiceLoss, multilabel": smp_overlap("dice:DiceLoss", "multilabel", hard, class_weights=[1.0, 0.5, 2.0, 1.0]),
    "smp DiceLoss, multiclass": smp_overlap("dice:DiceLoss", "multiclass", labels, log_loss=True, ignore_index=3),
    "smp TverskyLoss": smp_overlap(
        "tversky:TverskyLoss", "multilabel", hard, alpha=0.3, beta=0.7, gamma=0.75, classes=[0, 2], ignore_index=7
    ),
    "timm AsymmetricLossMultiLabel": Case(
        "timm", module("timm.loss.asymmetric_loss:AsymmetricLossMultiLabel", hard, reduction="sum"), MAP, 1e-5
    ),
    "torchvision sigmoid_focal_loss": Case(
        "torchvision", function("torchvision.ops.focal_loss:sigmoid_focal_loss", heat, 0.25, 2, "sum"), MAP
    ),
    "detectron2, federated": Case("detectron2", fast_rcnn, (90, CLASSES + 1)),
}


# ---- comparison -----------------------------------------------------------------------------------------------------


def gradient_of(case: Case, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    leaf = (3 * torch.randn(case.shape, generator=generator, dtype=torch.float64) - 2).to(dtype).requires_grad_()
    loss = case.call(dtype, leaf.sigmoid() if case.probabilities else leaf)
    loss.sum().backward()
    return loss.detach().double().sum(), leaf.grad.double()


def compare(name: str, dtype: torch.dtype) -> str:
    """A row of the table is printed. Returns what is wrong, or an empty text."""
    case = CASES[name]
    row = f"| {name} | {str(dtype)[6:]} |"
    try:
        theirs = gradient_of(case, dtype)
    except ImportError as error:
        print(f"{row} not installed: {str(error)[:80]} | |", flush=True)
        return ""
    except Exception as error:
        print(f"{row} the original fails: {type(error).__name__}: {str(error)[:80]} | |", flush=True)
        return ""
    try:
        with tare.patch(case.library):
            ours = gradient_of(case, dtype)
    except Exception as error:
        return f"{name}, {dtype}: {type(error).__name__}: {error}"
    of_loss = float(((ours[0] - theirs[0]) / theirs[0]).abs())
    of_gradient = float((ours[1] - theirs[1]).abs().max() / theirs[1].abs().max())
    bound = max(BOUNDS[dtype], case.wide if dtype == torch.float64 else 0.0)
    print(f"{row} {of_loss:.1e} | {of_gradient:.1e} |", flush=True)
    worst = max(of_loss, of_gradient)
    return "" if worst <= bound else f"{name}, {dtype}: {worst:.2g} is above {bound:g}"


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a part of a row's name")
    parser.add_argument("--detectron2", type=pathlib.Path, help="a copy of detectron2's repository")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if arguments.detectron2:
        sys.path.insert(0, str(arguments.detectron2.resolve()))
    print("| library's code | type | loss | gradient |\n|---|---|--:|--:|")
    names = [name for name in CASES if arguments.only in name]
    wrong = [compare(name, dtype) for name in names for dtype in BOUNDS]
    print("\n".join(filter(None, wrong)), file=sys.stderr)
    return any(wrong)


if __name__ == "__main__":
    sys.exit(main())
