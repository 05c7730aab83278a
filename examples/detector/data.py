# SPDX-License-Identifier: Apache-2.0
"""What a training needs of the images: the splits, the anchors, and the targets of every image in four flips."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from . import anchors, voc

FLIPS = ((), (3,), (2,), (2, 3))  # the axes of [B, 3, height, width]


@dataclass(frozen=True)
class Source:
    """folder: Pascal VOC's layout. size: height and width that images are reduced to, multiples of the largest stride.
    limit: the first so many images of each split."""

    folder: Path
    size: tuple[int, int]
    limit: int | None = None


@dataclass
class Data:
    """labels [4, N, rows] and boxes [4, N, rows, 4] are the training targets of each flip."""

    classes: list[str]
    counts: list[int]
    train: voc.Split
    val: voc.Split
    grid: anchors.Grid
    labels: torch.Tensor
    boxes: torch.Tensor


def _flipped(boxes: torch.Tensor, axes: tuple[int, ...], size: tuple[int, int]) -> torch.Tensor:
    x1, y1, x2, y2 = boxes.unbind(1)
    if 3 in axes:
        x1, x2 = size[1] - x2, size[1] - x1
    if 2 in axes:
        y1, y2 = size[0] - y2, size[0] - y1
    return torch.stack([x1, y1, x2, y2], 1)


def _targets(split: voc.Split, grid: anchors.Grid, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.empty(len(FLIPS), len(split), len(grid.boxes), dtype=torch.int64)
    boxes = torch.empty(len(FLIPS), len(split), len(grid.boxes), 4)
    for f, axes in enumerate(FLIPS):
        for i, mine in enumerate(split.boxes):
            labels[f, i], boxes[f, i] = anchors.assign(grid.boxes, _flipped(mine, axes, size), split.labels[i])
    return labels, boxes


@lru_cache(maxsize=1)
def load(source: Source) -> Data:
    """Read once in a process. Nothing of the test split is read here."""
    classes = voc.classes_of(source.folder)
    train, val = (voc.read(source.folder, name, classes, source.size, source.limit) for name in ("train", "val"))
    grid = anchors.grid(anchors.fitted_shapes(train), source.size)
    labels, boxes = _targets(train, grid, source.size)
    return Data(classes, voc.class_counts(train, classes), train, val, grid, labels, boxes)


def order(seed: int, epoch: int, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The order of the images in an epoch, and a flip for each place. They follow from seed and epoch alone, so that a
    training that was interrupted goes on as if it had not been."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    return torch.randperm(images, generator=generator), torch.randint(len(FLIPS), (images,), generator=generator)


def batch(data: Data, rows: torch.Tensor, flips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images [B, 3, height, width], labels [B, rows] and boxes [B, rows, 4]."""
    images = [data.train.images[i].flip([axis - 1 for axis in FLIPS[f]]) for i, f in zip(rows.tolist(), flips.tolist())]
    return torch.stack(images), data.labels[flips, rows], data.boxes[flips, rows]
