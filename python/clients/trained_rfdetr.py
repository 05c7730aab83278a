# SPDX-License-Identifier: Apache-2.0
"""RF-DETR's nano model for run.py, on small images, with each of its classification losses and with masks."""

from __future__ import annotations

import dataclasses
import functools

import torch
from rfdetr.config import RFDETRNanoConfig, RFDETRSegNanoConfig, SegmentationTrainConfig, TrainConfig
from rfdetr.models._defaults import MODEL_DEFAULTS
from rfdetr.models.lwdetr import build_criterion_from_config, build_model_from_config
from rfdetr.utilities.tensors import NestedTensor
from training import Client

CLASSES, QUERIES, CELLS = 7, 20, 6
SWITCHES = ("ia_bce_loss", "use_varifocal_loss", "use_position_supervised_loss")


class Detector(torch.nn.Module):
    """The model with its criterion. Weights are random: a file of weights is named, and not read."""

    def __init__(self, switch: str, has_masks: bool) -> None:
        super().__init__()
        kind = RFDETRSegNanoConfig if has_masks else RFDETRNanoConfig
        patch = kind.model_fields["patch_size"].default
        self.size = patch * kind.model_fields["num_windows"].default * CELLS
        chosen = {one: one == switch for one in SWITCHES}
        of_model = {name: on for name, on in chosen.items() if name in kind.model_fields}
        settings = kind(
            num_classes=CLASSES, num_queries=QUERIES, num_select=QUERIES, group_detr=2, resolution=self.size,
            positional_encoding_size=self.size // patch, pretrain_weights="none.pth", device="cpu", **of_model,
        )  # fmt: skip
        of_defaults = {name: on for name, on in chosen.items() if hasattr(MODEL_DEFAULTS, name)}
        defaults = dataclasses.replace(MODEL_DEFAULTS, **of_defaults)
        training = (SegmentationTrainConfig if has_masks else TrainConfig)(dataset_dir=".", output_dir=".", **{
            name: on for name, on in chosen.items() if name in TrainConfig.model_fields
        })  # fmt: skip
        self.model = build_model_from_config(settings, training, defaults)
        self.criterion, _ = build_criterion_from_config(settings, training, defaults)
        taken = [name for name in SWITCHES if getattr(self.criterion, name)]
        assert taken == [switch] * bool(switch), taken
        self.has_masks = has_masks


def targets_of(model: Detector, dtype: torch.dtype) -> list[dict[str, torch.Tensor]]:
    targets = []
    for count in (3, 5):
        boxes = torch.cat([0.3 + 0.4 * torch.rand(count, 2), 0.1 + 0.3 * torch.rand(count, 2)], 1).to(dtype)
        target = {"labels": torch.randint(CLASSES, (count,)), "boxes": boxes}
        if model.has_masks:
            target["masks"] = torch.rand(count, model.size, model.size) > 0.5
        targets.append(target)
    return targets


def loss(model: Detector, dtype: torch.dtype) -> torch.Tensor:
    images = torch.rand(2, 3, model.size, model.size).to(dtype)
    targets = targets_of(model, dtype)
    outputs = model.model(NestedTensor(images, torch.zeros(2, model.size, model.size, dtype=torch.bool)), targets)
    parts = model.criterion(outputs, targets)
    weights = model.criterion.weight_dict
    return sum(weights[name] * part for name, part in parts.items() if name in weights)


def client(switch: str, has_masks: bool = False) -> Client:
    build = functools.partial(Detector, switch, has_masks)
    return Client(build, loss, "rfdetr.models.criterion:SetCriterion.loss_labels")


CLIENTS = {
    "RF-DETR nano": client("ia_bce_loss"),
    "RF-DETR nano, varifocal": client("use_varifocal_loss"),
    "RF-DETR nano, position-supervised": client("use_position_supervised_loss"),
    "RF-DETR nano, focal": client(""),
    "RF-DETR nano with masks": client("ia_bce_loss", True),
}
