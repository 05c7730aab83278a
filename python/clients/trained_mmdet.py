# SPDX-License-Identifier: Apache-2.0
"""mmdetection's RetinaNet, GHM, FCOS and others for run.py: its own configurations, on ResNet-18."""

from __future__ import annotations

import pathlib
from typing import Any

import compiled_ops
import torch
from training import Client

compiled_ops.install()

SIZE, CLASSES = 128, 80
FILES = {  # a configuration, and the method whose time is taken
    "RetinaNet": ("retinanet/retinanet_r50_fpn_1x_coco.py", "anchor_head:AnchorHead.loss_by_feat_single"),
    "GHM": ("ghm/retinanet_r50_fpn_ghm-1x_coco.py", "anchor_head:AnchorHead.loss_by_feat_single"),
    "FCOS": ("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py", "fcos_head:FCOSHead.loss_by_feat"),
    "GFL": ("gfl/gfl_r50_fpn_1x_coco.py", "gfl_head:GFLHead.loss_by_feat_single"),
    "CenterNet": (
        "centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py",
        "centernet_update_head:CenterNetUpdateHead.loss_by_feat",
    ),
}


def smaller(backbone: dict[str, Any], neck: dict[str, Any]) -> None:
    """ResNet-18 without weights."""
    backbone.update(depth=18, init_cfg=None, style="pytorch")
    neck["in_channels"] = [64, 128, 256, 512]


def build(file: str) -> Any:
    def made() -> torch.nn.Module:
        import mmdet
        from mmdet.registry import MODELS
        from mmdet.utils import register_all_modules
        from mmengine.config import Config

        register_all_modules(init_default_scope=True)
        folder = pathlib.Path(mmdet.__file__).parent / ".mim" / "configs"
        model = Config.fromfile(folder / file).model
        smaller(model.backbone, model.neck)
        detector = MODELS.build(model)
        detector.init_weights()
        return detector

    return made


def loss(model: torch.nn.Module, dtype: torch.dtype) -> torch.Tensor:
    from mmdet.testing import demo_mm_inputs

    data = demo_mm_inputs(2, [[3, SIZE, SIZE]] * 2, num_items=[3, 4], num_classes=CLASSES, use_box_type=True)
    data = model.data_preprocessor(data, True)
    data["inputs"] = data["inputs"].to(dtype)
    for sample in data["data_samples"]:
        sample.gt_instances.bboxes = sample.gt_instances.bboxes.to(dtype)
    return model.parse_losses(model(**data, mode="loss"))[0]


CLIENTS = {name: Client(build(file), loss, f"mmdet.models.dense_heads.{part}") for name, (file, part) in FILES.items()}
