# SPDX-License-Identifier: Apache-2.0
"""A folder in Pascal VOC's layout: ImageSets/Main/*.txt, Annotations/*.xml and JPEGImages/*.jpg. Images are reduced to
one size when they are read, boxes with them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image


@dataclass
class Split:
    """images: uint8 [N, 3, height, width]. boxes: of each image float32 [n, 4], x1 y1 x2 y2 in reduced pixels.
    labels: of each image int64 [n]. difficult: of each image bool [n], objects that evaluation leaves out."""

    names: list[str]
    images: torch.Tensor
    boxes: list[torch.Tensor]
    labels: list[torch.Tensor]
    difficult: list[torch.Tensor]

    def __len__(self) -> int:
        return len(self.names)


def names_of(folder: Path, split: str) -> list[str]:
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; {folder} is not a folder in Pascal VOC's layout")
    return [line.split()[0] for line in path.read_text().splitlines() if line.strip()]


def _annotation(folder: Path, name: str) -> ET.Element:
    return ET.parse(folder / "Annotations" / f"{name}.xml").getroot()


def classes_of(folder: Path) -> list[str]:
    """The classes of the training split, the most frequent first; equally frequent ones by name."""
    counts: dict[str, int] = {}
    for name in names_of(folder, "train"):
        for found in _annotation(folder, name).iter("object"):
            key = found.findtext("name", "").strip()
            counts[key] = counts.get(key, 0) + 1
    return sorted(counts, key=lambda key: (-counts[key], key))


def _objects(root: ET.Element, classes: list[str], scale: tuple[float, float]) -> tuple[list, list, list]:
    """Boxes, labels and marks of one image. Classes that the training split lacks are left out, and empty boxes."""
    boxes, labels, difficult = [], [], []
    for found in root.iter("object"):
        name, box = found.findtext("name", "").strip(), found.find("bndbox")
        x1, y1, x2, y2 = (float(box.findtext(side, "0")) for side in ("xmin", "ymin", "xmax", "ymax"))
        x1, y1 = x1 - 1, y1 - 1  # VOC counts pixels from 1, and the last one belongs to the box
        if name not in classes or x2 <= x1 or y2 <= y1:
            continue
        boxes.append([x1 * scale[0], y1 * scale[1], x2 * scale[0], y2 * scale[1]])
        labels.append(classes.index(name))
        difficult.append(found.findtext("difficult", "0").strip() == "1")
    return boxes, labels, difficult


def read(folder: Path, split: str, classes: list[str], size: tuple[int, int], limit: int | None = None) -> Split:
    """The images of a split, reduced to size, (height, width). limit: the first so many."""
    names = names_of(folder, split)[:limit]
    height, width = size
    images = np.empty((len(names), 3, height, width), np.uint8)
    boxes, labels, difficult = [], [], []
    for i, name in enumerate(names):
        with Image.open(folder / "JPEGImages" / f"{name}.jpg") as image:
            scale = (width / image.width, height / image.height)
            reduced = image.convert("RGB").resize((width, height), Image.Resampling.BOX)
        images[i] = np.asarray(reduced).transpose(2, 0, 1)
        found = _objects(_annotation(folder, name), classes, scale)
        boxes.append(torch.tensor(found[0], dtype=torch.float32).reshape(-1, 4))
        labels.append(torch.tensor(found[1], dtype=torch.int64))
        difficult.append(torch.tensor(found[2], dtype=torch.bool))
    return Split(names, torch.from_numpy(images), boxes, labels, difficult)


def class_counts(split: Split, classes: list[str]) -> list[int]:
    """Objects of each class."""
    return torch.bincount(torch.cat(split.labels), minlength=len(classes)).tolist()
