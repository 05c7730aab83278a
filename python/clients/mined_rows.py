# SPDX-License-Identifier: Apache-2.0
"""Hard negative mining: Tare's rows are those of torchvision's SSD.

    python mined_rows.py

Random images go through torchvision's SSD.compute_loss, with a detector's other parts left out. The rows with a
gradient and the loss must be those of tare.torch.softmax_ce. Where three times an image's objects are more than its
background anchors, torchvision adds objects a second time. There the script says by how much, and does not compare.
"""

from __future__ import annotations

import types

import torch
from torchvision.models.detection.ssd import SSD

import tare.torch


class Coder:
    def encode_single(self, boxes: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
        return boxes - anchors


def theirs(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The classification loss of SSD.compute_loss."""
    images, anchors, _ = logits.shape
    model = types.SimpleNamespace(box_coder=Coder(), neg_to_pos_ratio=3)
    matched = [torch.where(one > 0, torch.arange(anchors), -1) for one in labels]
    boxes = torch.zeros(images, anchors, 4)
    targets = [{"boxes": boxes[0], "labels": one} for one in labels]
    outputs = {"cls_logits": logits, "bbox_regression": boxes}
    return SSD.compute_loss(model, targets, outputs, list(boxes), matched)["classification"]


def with_gradient(loss, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits, labels)
    return value.detach(), torch.autograd.grad(value, logits)[0]


def ours(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    marks = {"background_label": 0, "ignore_label": -1}
    return tare.torch.softmax_ce(logits, labels, hard_negatives=3, normalizer="positives", **marks)


def main() -> None:
    compared = counted_twice = 0
    for seed in range(400):
        random = torch.Generator().manual_seed(seed)
        images, anchors, classes = 1 + seed % 4, 20 + seed, 2 + seed % 30
        logits = torch.randn(images, anchors, classes, generator=random) * 3
        share = (0.0, 0.01, 0.1, 0.24, 0.5)[seed % 5]
        objects = torch.rand(images, anchors, generator=random) < share
        labels = torch.where(objects, torch.randint(1, classes, (images, anchors), generator=random), 0)
        (their_loss, their_gradient), (loss, gradient) = (with_gradient(one, logits, labels) for one in (theirs, ours))
        if bool((3 * objects.sum(1) > (~objects).sum(1)).any()):
            counted_twice += bool(their_loss > loss * 1.0001)
            continue
        assert torch.equal(their_gradient.abs().sum(-1) > 0, gradient.abs().sum(-1) > 0), seed
        torch.testing.assert_close(loss, their_loss, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient, their_gradient, rtol=1e-4, atol=1e-7)
        compared += 1
    print(f"{compared} batches have the same rows; in {counted_twice} others torchvision counts objects twice")


if __name__ == "__main__":
    main()
