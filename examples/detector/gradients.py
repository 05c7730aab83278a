# SPDX-License-Identifier: Apache-2.0
"""Who gets the gradient: of fixed training images, the size of the gradient by gradient norm and by target."""

from __future__ import annotations

import torch

from . import anchors, losses, model

BINS = 20


def histogram(logits: torch.Tensor, gradient: torch.Tensor, labels: torch.Tensor) -> list[dict[str, float]]:
    """For each bin of g = |p - t|: elements with target 1 (objects) and 0 (background), and the sums of |gradient| of
    both. logits, gradient: [rows, classes]; labels: [rows]. Ignored rows are left out."""
    counts = labels != anchors.IGNORED
    target = torch.zeros_like(logits)
    rows = torch.nonzero(labels >= 0).flatten()
    target[rows, labels[rows]] = 1
    logits, gradient, target = logits[counts], gradient[counts], target[counts]
    norm = (logits.sigmoid() - target).abs()
    place = (norm * BINS).long().clamp(max=BINS - 1)
    table = [{"g_from": k / BINS, "g_to": (k + 1) / BINS} for k in range(BINS)]
    for name, mine in (("objects", target == 1), ("background", target == 0)):
        elements = torch.bincount(place[mine], minlength=BINS)
        sizes = torch.bincount(place[mine], weights=gradient[mine].abs().double(), minlength=BINS)
        for k in range(BINS):
            table[k] |= {f"{name}_elements": int(elements[k]), f"{name}_gradient": float(sizes[k])}
    return table


def measure(
    network: model.Detector, loss: losses.DetectionLoss, grid: anchors.Grid, batch: tuple[torch.Tensor, ...]
) -> list[dict[str, float]]:
    """The histogram of a batch of images, labels and boxes. GHM's momentum sums stay as they are."""
    images, labels, boxes = batch
    network.eval()
    with torch.no_grad():
        maps, differences = network(images)
    maps = [one.detach().requires_grad_() for one in maps]
    saved = {key: value.clone() for key, value in loss.state_dict().items()}
    scores = losses.scores_of(model.as_rows(differences, 4), grid, labels, boxes)
    loss.classification(maps, labels, scores).backward()
    loss.load_state_dict(saved)
    classes = loss.classes
    rows, gradient = (model.as_rows(some, classes).detach() for some in (maps, [one.grad for one in maps]))
    return histogram(rows.flatten(0, 1), gradient.flatten(0, 1), labels.flatten())
