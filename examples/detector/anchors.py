# SPDX-License-Identifier: Apache-2.0
"""Anchors: their shapes, fitted to the training boxes; which object each one belongs to; boxes as differences to them.
Rows are ordered y, x, anchor, and then level after level, as Tare reads feature maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from . import voc

BACKGROUND, IGNORED = -1, -2
STRIDES = (8, 16)


def _shape_overlap(shapes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """IoU of boxes with a common centre, [n, m]."""
    both = torch.minimum(shapes[:, None], others).prod(2)
    return both / (shapes.prod(1)[:, None] + others.prod(1) - both)


def fitted_shapes(split: voc.Split, count: int = 8, rounds: int = 30) -> torch.Tensor:
    """Width and height of `count` shapes: k-means over the boxes by IoU. Every class weighs the same."""
    boxes, labels = torch.cat(split.boxes), torch.cat(split.labels)
    sizes = boxes[:, 2:] - boxes[:, :2]
    weights = (1.0 / torch.bincount(labels).clamp(min=1))[labels]
    order = sizes.prod(1).argsort(stable=True)
    place = weights[order].cumsum(0) / weights.sum()
    starts = torch.searchsorted(place, (torch.arange(count) + 0.5) / count).clamp(max=len(order) - 1)
    shapes = sizes[order[starts]]
    for _ in range(rounds):
        nearest = _shape_overlap(sizes, shapes).argmax(1)
        for k in range(count):
            mine = nearest == k
            if mine.any():
                shapes[k] = (sizes[mine] * weights[mine, None]).sum(0) / weights[mine].sum()
    return shapes[shapes.prod(1).argsort(stable=True)]


@dataclass
class Grid:
    """Anchors of one image size. boxes: float32 [rows, 4]. per_level: anchors at a position of each level.
    rows: the rows of each level."""

    boxes: torch.Tensor
    per_level: list[int]
    sides: list[tuple[int, int]]


def grid(shapes: torch.Tensor, size: tuple[int, int]) -> Grid:
    """A shape belongs to the first level if its side is below five strides."""
    small = shapes.prod(1).sqrt() < 5 * STRIDES[0]
    small[0], small[-1] = True, False  # no level is empty
    boxes, per_level, sides = [], [], []
    for stride, mine in zip(STRIDES, (shapes[small], shapes[~small])):
        height, width = size[0] // stride, size[1] // stride
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centres = (torch.stack([x, y], 2).reshape(-1, 1, 2) + 0.5) * stride
        boxes.append(torch.cat([centres - mine / 2, centres + mine / 2], 2).reshape(-1, 4))
        per_level.append(len(mine))
        sides.append((height, width))
    return Grid(torch.cat(boxes), per_level, sides)


def overlap(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """IoU, [n, m]."""
    corner = torch.maximum(boxes[:, None, :2], others[:, :2])
    both = (torch.minimum(boxes[:, None, 2:], others[:, 2:]) - corner).clamp(min=0).prod(2)
    areas = [(one[:, 2:] - one[:, :2]).prod(1) for one in (boxes, others)]
    return both / (areas[0][:, None] + areas[1] - both)


def assign(anchors: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Label and box of each anchor, as in RetinaNet: an object from IoU 0.5, ignored from 0.4, else background. An
    object also has the anchor that fits it best, from IoU 0.2 on. Else objects smaller than a stride had none."""
    if not len(boxes):
        return torch.full((len(anchors),), BACKGROUND), torch.zeros_like(anchors)
    found = overlap(anchors, boxes)
    best, whose = found.max(1)
    of_rows = torch.where(best >= 0.5, labels[whose], torch.where(best >= 0.4, IGNORED, BACKGROUND))
    highest = found.max(0).values
    rows, objects = torch.nonzero((found == highest) & (found >= 0.2), as_tuple=True)
    whose[rows], of_rows[rows] = objects, labels[objects]
    return of_rows, boxes[whose]


def encode(anchors: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """RetinaNet's differences: of the centre in sides of the anchor, of the sides as a logarithm."""
    sides, box_sides = anchors[..., 2:] - anchors[..., :2], boxes[..., 2:] - boxes[..., :2]
    centres = (anchors[..., 2:] + anchors[..., :2]) / 2
    shift = ((boxes[..., 2:] + boxes[..., :2]) / 2 - centres) / sides
    return torch.cat([shift, (box_sides / sides).log()], -1)


def decode(anchors: torch.Tensor, differences: torch.Tensor) -> torch.Tensor:
    sides = anchors[..., 2:] - anchors[..., :2]
    centres = (anchors[..., 2:] + anchors[..., :2]) / 2 + differences[..., :2] * sides
    half = sides * differences[..., 2:].clamp(-4, 4).exp() / 2
    return torch.cat([centres - half, centres + half], -1)


def overlap_of_pairs(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """IoU of each box with the one in its place, [n]."""
    corner = torch.maximum(boxes[:, :2], others[:, :2])
    both = (torch.minimum(boxes[:, 2:], others[:, 2:]) - corner).clamp(min=0).prod(1)
    areas = [(one[:, 2:] - one[:, :2]).prod(1) for one in (boxes, others)]
    return both / (areas[0] + areas[1] - both).clamp(min=1e-6)
