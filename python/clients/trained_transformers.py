# SPDX-License-Identifier: Apache-2.0
"""transformers' detectors with a focal loss and its kin for run.py: small ones, built from their configurations."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from training import Client
from transformers.loss import loss_utils

SIZE, CLASSES = 64, 6
STAGES = ["stage2", "stage3", "stage4"]
WIDTHS = [16, 32, 64, 128]


def targets_of(dtype: torch.dtype) -> list[dict[str, torch.Tensor]]:
    """Random objects of two images, as centre and extent."""
    made = []
    for count in (2, 4):
        boxes = torch.cat([0.3 + 0.4 * torch.rand(count, 2), 0.1 + 0.3 * torch.rand(count, 2)], 1)
        made.append({"class_labels": torch.randint(CLASSES, (count,)), "boxes": boxes.to(dtype)})
    return made


def loss(model: torch.nn.Module, dtype: torch.dtype) -> torch.Tensor:
    images = torch.rand(2, 3, SIZE, SIZE).to(dtype)
    return model(pixel_values=images, labels=targets_of(dtype)).loss


def grounded(model: torch.nn.Module, dtype: torch.dtype) -> torch.Tensor:
    """The same with a text: six words, each a class of its own, between full stops (token 1012)."""
    words = [101, *(token for word in range(CLASSES) for token in (2000 + word, 1012)), 102]
    text = torch.tensor([words, words])
    given = {"input_ids": text, "attention_mask": torch.ones_like(text), "token_type_ids": torch.zeros_like(text)}
    images = torch.rand(2, 3, SIZE, SIZE).to(dtype)
    return model(pixel_values=images, labels=targets_of(dtype), **given).loss


def masked(model: torch.nn.Module, dtype: torch.dtype) -> torch.Tensor:
    """Random masks in the place of boxes."""
    labels = [torch.randint(CLASSES, (count,)) for count in (2, 4)]
    masks = [(torch.rand(len(one), SIZE, SIZE) < 0.3).to(dtype) for one in labels]
    images = torch.rand(2, 3, SIZE, SIZE).to(dtype)
    return model(pixel_values=images, mask_labels=masks, class_labels=labels).loss


def mask2_former() -> torch.nn.Module:
    config = transformers.Mask2FormerConfig(
        backbone_config=resnet(stages=["stage1", *STAGES]),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=64,
        dim_feedforward=64,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=4,
        num_queries=10,
        train_num_points=64,
        num_labels=CLASSES,
    )
    return transformers.Mask2FormerForUniversalSegmentation(config)


def mask_former() -> torch.nn.Module:
    backbone = resnet(stages=["stage1", *STAGES])
    decoder = transformers.DetrConfig(
        d_model=32, encoder_layers=1, decoder_layers=2, num_queries=10, dropout=0.0, **HEADS
    )
    config = transformers.MaskFormerConfig(
        backbone_config=backbone, decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32, num_labels=CLASSES
    )
    return transformers.MaskFormerForInstanceSegmentation(config)


def resnet(kind: str = "ResNetConfig", stages: list[str] = STAGES) -> Any:
    config = getattr(transformers, kind)
    return config(embedding_size=16, hidden_sizes=WIDTHS, depths=[1] * 4, layer_type="basic", out_features=stages)


def hgnet() -> Any:
    """A narrow HGNetV2."""
    return transformers.HGNetV2Config(
        stem_channels=[3, 8, 16],
        stage_in_channels=[16, 16, 32, 64],
        stage_mid_channels=[8, 8, 16, 16],
        stage_out_channels=WIDTHS,
        stage_num_blocks=[1] * 4,
        stage_numb_of_layers=[1] * 4,
        stage_downsample=[False, True, True, True],
        stage_light_block=[False, False, True, True],
        stage_kernel_size=[3, 3, 5, 5],
        hidden_sizes=WIDTHS,
        depths=[1] * 4,
        out_features=STAGES,
    )


def vit() -> Any:
    return transformers.LwDetrViTConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=SIZE,
        pretrain_image_size=SIZE,
        num_windows=4,
        window_block_indices=[0, 2],
        out_features=["stage1", "stage3"],
    )


def dino() -> Any:
    return transformers.RfDetrDinov2Config(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=56,
        patch_size=16,
        num_windows=2,
        out_features=["stage1", "stage3"],
    )


def bert() -> Any:
    """Its vocabulary is the usual one, because the model knows some tokens by number."""
    return transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=3000
    )


HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
SMALL = {**HEADS, "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "num_queries": 20, "auxiliary_loss": True}
HYBRID = {
    **SMALL,
    "encoder_hidden_dim": 32,
    "encoder_in_channels": WIDTHS[1:],
    "decoder_in_channels": [32] * 3,
    "num_denoising": 10,
}
GROUPS = {
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_ffn_dim": 64,
    "decoder_self_attention_heads": 4,
    "decoder_cross_attention_heads": 4,
    "num_queries": 10,
    "group_detr": 3,
}
FINE = {"depth_mult": 0.34, "lqe_hidden_dim": 16, "hidden_expansion": 0.5, "freeze_backbone_batch_norms": False}
DABBED = {**HEADS, "hidden_size": 32, "encoder_layers": 1, "decoder_layers": 2, "num_queries": 20}
MODELS = {  # name: its backbone, and settings
    "DeformableDetr": (resnet, {**SMALL, "num_feature_levels": 4}),
    "ConditionalDetr": (lambda: resnet(stages=STAGES[-1:]), SMALL),
    "DabDetr": (lambda: resnet(stages=STAGES[-1:]), {**DABBED, "auxiliary_loss": True}),
    "RTDetr": (lambda: resnet("RTDetrResNetConfig"), HYBRID),
    "RTDetrV2": (lambda: resnet("RTDetrResNetConfig"), HYBRID),
    "DFine": (hgnet, {**HYBRID, **FINE}),
    "Deimv2": (hgnet, {**HYBRID, **FINE}),
    "LwDetr": (vit, {**GROUPS, "projector_scale_factors": [1.0]}),
    "RfDetr": (dino, GROUPS),
    "GroundingDino": (resnet, {**SMALL, "num_feature_levels": 4}),
    "MMGroundingDino": (resnet, {**SMALL, "num_feature_levels": 4}),
}


def build(name: str) -> Any:
    def made() -> torch.nn.Module:
        backbone, settings = MODELS[name]
        more = {"text_config": bert()} if "Grounding" in name else {}
        config = getattr(transformers, f"{name}Config")(
            backbone_config=backbone(), num_labels=CLASSES, **settings, **more
        )
        return getattr(transformers, f"{name}ForObjectDetection")(config)

    return made


def part_of(name: str) -> str:
    """The method of the classification loss, in the class that defines it."""
    of_model = loss_utils.LOSS_MAPPING[f"{name}ForObjectDetection"].__module__.rsplit(".", 1)[1]
    return {
        "loss_deformable_detr": "transformers.loss.loss_deformable_detr:DeformableDetrImageLoss.loss_labels",
        "loss_rt_detr": "transformers.loss.loss_rt_detr:RTDetrLoss.loss_labels_vfl",
        "loss_d_fine": "transformers.loss.loss_rt_detr:RTDetrLoss.loss_labels_vfl",
        "loss_deimv2": "transformers.loss.loss_deimv2:Deimv2Loss.loss_labels_mal",
        "loss_lw_detr": "transformers.loss.loss_lw_detr:LwDetrImageLoss.loss_labels",
        "loss_grounding_dino": "transformers.loss.loss_grounding_dino:GroundingDinoImageLoss.loss_labels",
    }[of_model]


CLIENTS = {
    name: Client(build(name), grounded if "Grounding" in name else loss, part_of(name))
    for name in MODELS
    if f"{name}ForObjectDetection" in loss_utils.LOSS_MAPPING and hasattr(transformers, f"{name}Config")
}
CLIENTS["MaskFormer"] = Client(
    mask_former, masked, "transformers.models.maskformer.modeling_maskformer:MaskFormerLoss.loss_masks"
)
CLIENTS["Mask2Former"] = Client(
    mask2_former, masked, "transformers.models.mask2former.modeling_mask2former:Mask2FormerLoss.loss_masks"
)
