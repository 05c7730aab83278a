# SPDX-License-Identifier: Apache-2.0
"""detectron2's RetinaNet, and Faster R-CNN with the federated loss of LVIS, for run.py, on ResNet-18.

Neither needs detectron2's compiled operators: RoIAlign and NMS are torchvision's.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable

import detectron2
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from training import Client

SIZE, CLASSES = 96, 7
STORAGE = EventStorage(0).__enter__()  # where a model in training writes its counts


def build(base: str, change: Callable[[CfgNode], None]) -> torch.nn.Module:
    settings = get_cfg()
    configs = pathlib.Path(detectron2.__file__).resolve().parents[1] / "configs"
    settings.merge_from_file(str(configs / base))
    settings.MODEL.DEVICE, settings.MODEL.WEIGHTS = "cpu", ""
    settings.MODEL.RESNETS.DEPTH, settings.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    change(settings)
    return build_model(settings)


def retinanet(settings: CfgNode) -> None:
    settings.MODEL.RETINANET.NUM_CLASSES = CLASSES


def federated(settings: CfgNode) -> None:
    """LVIS's way: each step looks at the classes of its images and at a few others, drawn by how frequent they are."""
    counts = [{"id": i + 1, "image_count": 3**i} for i in range(CLASSES)]
    MetadataCatalog.get("few_classes").set(class_image_count=counts)
    settings.DATASETS.TRAIN = ("few_classes",)
    settings.MODEL.ROI_HEADS.NUM_CLASSES, settings.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = CLASSES, 64
    head = settings.MODEL.ROI_BOX_HEAD
    head.USE_SIGMOID_CE, head.USE_FED_LOSS, head.FED_LOSS_NUM_CLASSES = True, True, 5


def loss(model: torch.nn.Module, dtype: torch.dtype) -> torch.Tensor:
    batch = []
    for count in (3, 5):
        corner, extent = 50 * torch.rand(count, 2), 15 + 30 * torch.rand(count, 2)
        objects = Instances((SIZE, SIZE), gt_boxes=Boxes(torch.cat([corner, corner + extent], 1).to(dtype)))
        objects.gt_classes = torch.randint(CLASSES, (count,))
        batch.append({"image": (255 * torch.rand(3, SIZE, SIZE)).to(dtype), "instances": objects})
    return sum(model(batch).values())


def client(base: str, change: Callable[[CfgNode], None], part: str) -> Client:
    return Client(functools.partial(build, base, change), loss, f"detectron2.modeling.{part}")


CLIENTS = {
    "RetinaNet": client("Base-RetinaNet.yaml", retinanet, "meta_arch.retinanet:RetinaNet.losses"),
    "Faster R-CNN, federated loss": client(
        "Base-RCNN-FPN.yaml", federated, "roi_heads.fast_rcnn:FastRCNNOutputLayers.losses"
    ),
}
