# SPDX-License-Identifier: Apache-2.0
"""The network: a few convolutions, a feature pyramid of two levels, and RetinaNet's two heads."""

from __future__ import annotations

import math

import torch
from torch import nn

WIDTH, PRIOR = 40, 0.01


def _block(inputs: int, outputs: int, stride: int = 1, side: int = 3) -> nn.Sequential:
    """side: of the kernel. The output is the input's size divided by stride."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, side, stride, (side - stride + 1) // 2, bias=False),
        nn.GroupNorm(8, outputs),
        nn.ReLU(inplace=True),
    )


class Detector(nn.Module):
    """images uint8 [B, 3, H, W] to logits and box differences: for each level [B, anchors*classes, h, w] and
    [B, anchors*4, h, w]. Every class begins with the probability PRIOR, whatever the loss is."""

    def __init__(self, classes: int, per_level: list[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(_block(3, 24, 4, 6), _block(24, WIDTH, 2), _block(WIDTH, WIDTH))
        self.deep = nn.Sequential(_block(WIDTH, 2 * WIDTH, 2), _block(2 * WIDTH, 2 * WIDTH))
        self.lateral = nn.Conv2d(2 * WIDTH, WIDTH, 1)
        self.smooth = _block(WIDTH, WIDTH)
        self.for_classes, self.for_boxes = _block(WIDTH, WIDTH), _block(WIDTH, WIDTH)
        self.logits = nn.ModuleList(nn.Conv2d(WIDTH, count * classes, 3, 1, 1) for count in per_level)
        self.differences = nn.ModuleList(nn.Conv2d(WIDTH, count * 4, 3, 1, 1) for count in per_level)
        for head in self.logits:
            nn.init.normal_(head.weight, std=0.01)
            nn.init.constant_(head.bias, -math.log((1 - PRIOR) / PRIOR))
        for head in self.differences:
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)

    def forward(self, images: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        x = images.to(torch.float32).contiguous(memory_format=torch.channels_last) / 128 - 1
        fine = self.stem(x)
        coarse = self.lateral(self.deep(fine))
        fine = self.smooth(fine + nn.functional.interpolate(coarse, scale_factor=2.0))
        logits, differences = [], []
        for level, head, box_head in zip((fine, coarse), self.logits, self.differences):
            logits.append(head(self.for_classes(level)))
            differences.append(box_head(self.for_boxes(level)))
        return logits, differences


def as_rows(maps: list[torch.Tensor], columns: int) -> torch.Tensor:
    """Maps [B, anchors*columns, h, w] as rows [B, rows, columns], ordered y, x, anchor, level after level."""
    return torch.cat([one.permute(0, 2, 3, 1).reshape(len(one), -1, columns) for one in maps], 1)
