# SPDX-License-Identifier: Apache-2.0
"""Detections of a trained network, and their average precision by pycocotools."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from . import anchors, model, voc

CANDIDATES, KEPT, SAME = 300, 100, 0.5


def _without_doubles(boxes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Greedy non-maximum suppression within each class of boxes that are sorted by score: which ones stay."""
    same = (anchors.overlap(boxes, boxes) > SAME) & (labels[:, None] == labels)
    doubles, stays = same.numpy(), np.ones(len(boxes), bool)
    for i in range(len(boxes)):
        if stays[i]:
            stays[i + 1 :] &= ~doubles[i, i + 1 :]
    return torch.from_numpy(stays)


def detections(network: model.Detector, grid: anchors.Grid, images: torch.Tensor, classes: int) -> list[np.ndarray]:
    """For each image float32 [n, 6]: x1 y1 x2 y2, score, class. No score is too low: the best CANDIDATES of an image go
    on, so that losses whose probabilities are small or large are treated alike."""
    network.eval()
    found, limit = [], torch.tensor([images.shape[3], images.shape[2]] * 2)
    with torch.no_grad():
        for some in images.split(16):
            maps, boxes = network(some)
            scores, differences = model.as_rows(maps, classes).sigmoid(), model.as_rows(boxes, 4)
            for one, difference in zip(scores, differences):
                best, place = one.flatten().topk(min(CANDIDATES, one.numel()))
                row, label = place // classes, place % classes
                box = anchors.decode(grid.boxes[row], difference[row]).clamp(min=0).minimum(limit)
                stays = _without_doubles(box, label).nonzero().flatten()[:KEPT]
                found.append(torch.cat([box, best[:, None], label[:, None]], 1)[stays].numpy())
    return found


def _ground_truth(split: voc.Split, classes: list[str]) -> COCO:
    """Difficult objects are neither found nor missed, as pycocotools treats crowds."""
    objects = []
    for image in range(len(split)):
        for box, label, difficult in zip(split.boxes[image], split.labels[image], split.difficult[image]):
            x1, y1, x2, y2 = box.tolist()
            one = dict(image_id=image, category_id=int(label), bbox=[x1, y1, x2 - x1, y2 - y1], iscrowd=int(difficult))
            objects.append(dict(one, id=len(objects) + 1, area=(x2 - x1) * (y2 - y1)))
    coco = COCO()
    images = [dict(id=i) for i in range(len(split))]
    coco.dataset = dict(images=images, annotations=objects, categories=[dict(id=i) for i in range(len(classes))])
    coco.createIndex()
    return coco


def compared(found: list[np.ndarray], split: voc.Split, classes: list[str]) -> COCOeval:
    """pycocotools' comparison of the detections with the objects of the split, image by image."""
    rows = np.concatenate([np.column_stack([np.full(len(one), i), one]) for i, one in enumerate(found)])
    rows[:, 3:5] -= rows[:, 1:3]  # width and height instead of the second corner
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _ground_truth(split, classes)
        compare = COCOeval(truth, truth.loadRes(rows[:, [0, 1, 2, 3, 4, 5, 6]]), "bbox")
        compare.params.maxDets = [KEPT]
        compare.params.areaRng, compare.params.areaRngLbl = [[0, 1e10]], ["all"]
        compare.evaluate()
        compare.accumulate()
    return compare


def average_precision(compare: COCOeval, classes: list[str]) -> dict[str, float]:
    """AP at IoU 0.5 to 0.95 and AP50: the mean over classes, and each class's. NaN for a class without objects."""
    precision = compare.eval["precision"][:, :, :, 0, 0]
    precision = np.where(precision < 0, np.nan, precision)
    of_class = {"AP": precision.mean((0, 1)), "AP50": precision[0].mean(0)}
    with np.errstate(all="ignore"):
        table = {
            key: float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
            for key, values in of_class.items()
        }
    for key, values in of_class.items():
        table |= {f"{key} {name}": float(value) for name, value in zip(classes, values)}
    return table
