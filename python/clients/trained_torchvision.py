# SPDX-License-Identifier: Apache-2.0
"""torchvision's RetinaNet, FCOS and SSD for run.py, with small backbones."""

from __future__ import annotations

import torch
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from training import Client

CLASSES, SIZE = 7, 96


def inputs(dtype: torch.dtype) -> tuple[list, list]:
    """Two images with random objects; label 0 is background in SSD."""
    images = [torch.rand(3, SIZE, SIZE).to(dtype) for _ in range(2)]
    targets = []
    for count in (3, 5):
        corner, extent = 50 * torch.rand(count, 2), 15 + 30 * torch.rand(count, 2)
        boxes = torch.cat([corner, corner + extent], 1).to(dtype)
        targets.append({"boxes": boxes, "labels": torch.randint(1, CLASSES, (count,))})
    return images, targets


def loss(model: torch.nn.Module, dtype: torch.dtype) -> torch.Tensor:
    return sum(model(*inputs(dtype)).values())


def pyramid(model: type) -> torch.nn.Module:
    """A detector on ResNet-18 with three levels."""
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, returned_layers=[2, 3, 4])
    sizes = {"min_size": SIZE, "max_size": SIZE}
    if model is detection.FCOS:
        anchors = detection.anchor_utils.AnchorGenerator(((8,), (16,), (32,), (64,)), ((1.0,),) * 4)
    else:
        anchors = detection.anchor_utils.AnchorGenerator(((8, 10, 12), (16, 20, 25), (32, 40, 50), (64, 80, 99)))
        anchors.aspect_ratios = ((0.5, 1.0, 2.0),) * 4
        anchors.cell_anchors = [anchors.generate_anchors(*one) for one in zip(anchors.sizes, anchors.aspect_ratios)]
    return model(backbone, num_classes=CLASSES, anchor_generator=anchors, **sizes)


def ssd() -> torch.nn.Module:
    return detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES)


CLIENTS = {
    "RetinaNet": Client(
        lambda: pyramid(detection.RetinaNet),
        loss,
        "torchvision.models.detection.retinanet:RetinaNetClassificationHead.compute_loss",
    ),
    "FCOS": Client(lambda: pyramid(detection.FCOS), loss, "torchvision.models.detection.fcos:FCOSHead.compute_loss"),
    "SSDlite": Client(ssd, loss, "torchvision.models.detection.ssd:SSD.compute_loss"),
}
