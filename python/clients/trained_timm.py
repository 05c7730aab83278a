# SPDX-License-Identifier: Apache-2.0
"""A small ResNet of timm for run.py, trained with timm's asymmetric loss on images with any number of classes each."""

from __future__ import annotations

import timm
import timm.loss
import torch
from training import Client

SIZE, CLASSES = 64, 80


class Classifier(torch.nn.Module):
    """The criterion is made anew in each step: a module that exists already keeps its loss."""

    def __init__(self, **options: float) -> None:
        super().__init__()
        self.model = timm.create_model("resnet18", pretrained=False, num_classes=CLASSES)
        self.options = options


def loss(model: Classifier, dtype: torch.dtype) -> torch.Tensor:
    images, targets = torch.rand(4, 3, SIZE, SIZE).to(dtype), (torch.rand(4, CLASSES) < 0.04).to(dtype)
    criterion = timm.loss.AsymmetricLossMultiLabel(**model.options)
    return part(criterion, model.model(images), targets)


def part(criterion: torch.nn.Module, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return criterion(logits, targets)


PART = "timm.loss.asymmetric_loss:AsymmetricLossMultiLabel.forward"
CLIENTS = {
    "ResNet-18, ASL": Client(Classifier, loss, PART),
    "ResNet-18, ASL without margin": Client(lambda: Classifier(gamma_neg=2, gamma_pos=1, clip=0), loss, PART),
}
