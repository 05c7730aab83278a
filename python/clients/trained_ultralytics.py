# SPDX-License-Identifier: Apache-2.0
"""Ultralytics' YOLOv8, YOLO11, YOLO26 and RT-DETR for run.py, built from their own configurations."""

from __future__ import annotations

from typing import Any

import torch
from training import Client
from ultralytics.cfg import get_cfg
from ultralytics.nn import tasks
from ultralytics.utils import loss as losses

from tare.compat.ultralytics import replace_bce

CLASSES, SIZE = 6, 128
LOSSES = "ultralytics.utils.loss"
FILES = {  # a configuration, its class, and the method whose time is taken
    "YOLOv8": ("yolov8n.yaml", "DetectionModel", f"{LOSSES}:v8DetectionLoss.__call__"),
    "YOLO11": ("yolo11n.yaml", "DetectionModel", f"{LOSSES}:v8DetectionLoss.__call__"),
    "YOLO26": ("yolo26n.yaml", "DetectionModel", f"{LOSSES}:E2ELoss.__call__"),
    "RTDETR": ("rtdetr-l.yaml", "RTDETRDetectionModel", "ultralytics.models.utils.loss:DETRLoss._get_loss_class"),
}


def build(file: str, kind: str) -> Any:
    def made() -> torch.nn.Module:
        model = getattr(tasks, kind)(file, ch=3, nc=CLASSES, verbose=False)
        model.args, model.nc = get_cfg(), CLASSES
        return model

    return made


def batch_of(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Two images with random objects, as centre and extent."""
    images = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    boxes = torch.cat([0.3 + 0.4 * torch.rand(len(images), 2), 0.2 + 0.3 * torch.rand(len(images), 2)], 1)
    labels = torch.randint(CLASSES, (len(images), 1))
    return {
        "img": torch.rand(2, 3, SIZE, SIZE).to(dtype),
        "batch_idx": images.float(),
        "cls": labels.to(dtype),
        "bboxes": boxes.to(dtype),
    }


def loss(model: torch.nn.Module, dtype: torch.dtype) -> torch.Tensor:
    if getattr(model, "criterion", None) is None:
        model.criterion = model.init_criterion()
        patched = losses.DFLoss.__module__.startswith("tare")
        if patched and not isinstance(model, tasks.RTDETRDetectionModel):
            replace_bce(model.criterion)  # which is an attribute of an object, that tare.patch cannot see
    return model(batch_of(dtype))[0].sum()


CLIENTS = {name: Client(build(file, kind), loss, part) for name, (file, kind, part) in FILES.items()}
