# SPDX-License-Identifier: Apache-2.0
"""mmdetection's detectors and mask heads for run.py: its own configurations, on ResNet-18."""

from __future__ import annotations

import pathlib
from typing import Any

import compiled_ops
import torch
from training import Client

compiled_ops.install()

SIZE, CLASSES = 128, 80
DENSE, BOXES = "mmdet.models.dense_heads", "mmdet.models.roi_heads.bbox_heads"
EQLV2 = {"roi_head": {"bbox_head": {"loss_cls": {"type": "EQLV2Loss", "num_classes": CLASSES}}}}
NARROW = {"feat_channels": 32, "out_channels": 32}
SMALL = {"mask_head": {"feat_channels": 64, "num_grids": [12, 10, 8, 6, 4], "mask_feature_head": NARROW}}
FILES: dict[str, tuple[str, str, dict[str, Any]]] = {  # a configuration, the timed method, and what is changed
    "RetinaNet": ("retinanet/retinanet_r50_fpn_1x_coco.py", f"{DENSE}.anchor_head:AnchorHead.loss_by_feat_single", {}),
    "GHM": ("ghm/retinanet_r50_fpn_ghm-1x_coco.py", f"{DENSE}.anchor_head:AnchorHead.loss_by_feat_single", {}),
    "FCOS": ("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py", f"{DENSE}.fcos_head:FCOSHead.loss_by_feat", {}),
    "GFL": ("gfl/gfl_r50_fpn_1x_coco.py", f"{DENSE}.gfl_head:GFLHead.loss_by_feat_single", {}),
    "VFNet": ("vfnet/vfnet_r50_fpn_1x_coco.py", f"{DENSE}.vfnet_head:VFNetHead.loss_by_feat", {}),
    "CenterNet": (
        "centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py",
        f"{DENSE}.centernet_update_head:CenterNetUpdateHead.loss_by_feat",
        {},
    ),
    "Seesaw": (
        "seesaw_loss/mask-rcnn_r101_fpn_seesaw-loss_random-ms-2x_lvis-v1.py",
        f"{BOXES}.bbox_head:BBoxHead.loss",
        {},
    ),
    "EQLv2": ("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", f"{BOXES}.bbox_head:BBoxHead.loss", EQLV2),
    "SOLOv2": ("solov2/solov2_r50_fpn_1x_coco.py", f"{DENSE}.solov2_head:SOLOV2Head.loss_by_feat", SMALL),
    "CondInst": (
        "condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py",
        f"{DENSE}.condinst_head:CondInstMaskHead.loss_by_feat",
        {},
    ),
}


def smaller(backbone: dict[str, Any], neck: dict[str, Any]) -> None:
    """ResNet-18 without weights."""
    backbone.update(depth=18, init_cfg=None, style="pytorch")
    neck["in_channels"] = [64, 128, 256, 512]


def changed(settings: Any, changes: dict[str, Any]) -> None:
    """Puts values into a configuration; a dictionary with a type takes the place of the one that is there."""
    for key, value in changes.items():
        if isinstance(value, dict) and "type" not in value:
            changed(settings[key], value)
        else:
            settings[key] = value


def build(file: str, changes: dict[str, Any]) -> Any:
    def made() -> torch.nn.Module:
        import mmdet
        from mmdet.registry import MODELS
        from mmdet.utils import register_all_modules
        from mmengine.config import Config

        register_all_modules(init_default_scope=True)
        folder = pathlib.Path(mmdet.__file__).parent / ".mim" / "configs"
        model = Config.fromfile(folder / file).model
        smaller(model.backbone, model.neck)
        changed(model, changes)
        detector = MODELS.build(model)
        detector.init_weights()
        return detector

    return made


def loss(model: torch.nn.Module, dtype: torch.dtype) -> torch.Tensor:
    from mmdet.testing import demo_mm_inputs

    masks = model.with_mask or hasattr(model, "mask_head")
    shapes = [[3, SIZE, SIZE]] * 2
    data = demo_mm_inputs(2, shapes, num_items=[3, 4], num_classes=CLASSES, use_box_type=True, with_mask=masks)
    data = model.data_preprocessor(data, True)
    data["inputs"] = data["inputs"].to(dtype)
    for sample in data["data_samples"]:
        sample.gt_instances.bboxes = sample.gt_instances.bboxes.to(dtype)
    return model.parse_losses(model(**data, mode="loss"))[0]


CLIENTS = {name: Client(build(file, changes), loss, part) for name, (file, part, changes) in FILES.items()}
