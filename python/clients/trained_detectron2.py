# SPDX-License-Identifier: Apache-2.0
"""detectron2's RetinaNet for run.py, on ResNet-18. Its loss needs none of detectron2's compiled operators."""

from __future__ import annotations

import pathlib

import detectron2
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from training import Client

SIZE, CLASSES = 96, 7
STORAGE = EventStorage(0).__enter__()  # where a model in training writes its counts


def build() -> torch.nn.Module:
    settings = get_cfg()
    configs = pathlib.Path(detectron2.__file__).resolve().parents[1] / "configs"
    settings.merge_from_file(str(configs / "Base-RetinaNet.yaml"))
    settings.MODEL.DEVICE, settings.MODEL.WEIGHTS = "cpu", ""
    settings.MODEL.RESNETS.DEPTH, settings.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    settings.MODEL.RETINANET.NUM_CLASSES = CLASSES
    return build_model(settings)


def loss(model: torch.nn.Module, dtype: torch.dtype) -> torch.Tensor:
    batch = []
    for count in (3, 5):
        corner, extent = 50 * torch.rand(count, 2), 15 + 30 * torch.rand(count, 2)
        objects = Instances((SIZE, SIZE), gt_boxes=Boxes(torch.cat([corner, corner + extent], 1).to(dtype)))
        objects.gt_classes = torch.randint(CLASSES, (count,))
        batch.append({"image": (255 * torch.rand(3, SIZE, SIZE)).to(dtype), "instances": objects})
    return sum(model(batch).values())


CLIENTS = {"RetinaNet": Client(build, loss, "detectron2.modeling.meta_arch.retinanet:RetinaNet.losses")}
