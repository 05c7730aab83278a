# SPDX-License-Identifier: Apache-2.0
"""The paired bootstrap over test images: how far the difference of two losses depends on which images were drawn.

pycocotools says which detection is right. Its AP is formed here once more with a weight for each image, because
drawing images with replacement is the same as weighing each by how often it was drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

RECALLS = np.linspace(0, 1, 101)


@dataclass
class Matches:
    """Of one class, detections sorted by score. image [n]; right, counts bool [10, n]: at IoU 0.5, 0.55, ..., 0.95
    whether a detection is right, and whether it counts. objects [images]: how many there are in each image."""

    image: np.ndarray
    right: np.ndarray
    counts: np.ndarray
    objects: np.ndarray


def matches(compare: Any) -> list[Matches]:
    """The matches of each class in pycocotools' comparison, COCOeval."""
    images = len(compare.params.imgIds)
    found = []
    for k in range(len(compare.params.catIds)):
        each = compare.evalImgs[k * images : (k + 1) * images]
        objects = np.array([0 if one is None else int(np.sum(np.asarray(one["gtIgnore"]) == 0)) for one in each])
        here = [(i, one) for i, one in enumerate(each) if one is not None and len(one["dtScores"])]
        if not here:
            found.append(Matches(np.zeros(0, int), np.zeros((10, 0), bool), np.zeros((10, 0), bool), objects))
            continue
        scores = np.concatenate([one["dtScores"] for _, one in here])
        order = np.argsort(-scores, kind="mergesort")
        image = np.concatenate([np.full(len(one["dtScores"]), i) for i, one in here])[order]
        right = np.concatenate([one["dtMatches"] for _, one in here], 1)[:, order] > 0
        counts = ~np.concatenate([one["dtIgnore"] for _, one in here], 1)[:, order].astype(bool)
        found.append(Matches(image, right, counts, objects))
    return found


def average_precision(one: Matches, weights: np.ndarray) -> np.ndarray:
    """AP at each IoU [10], if image i was drawn weights[i] times. NaN without objects. As pycocotools: precision is the
    highest one at this recall or above, its mean over 101 recalls."""
    objects = float(one.objects @ weights)
    if objects == 0:
        return np.full(len(one.right), np.nan)
    drawn = weights[one.image].astype(float)
    right, wrong = (np.cumsum(drawn * mask, 1) for mask in (one.right & one.counts, ~one.right & one.counts))
    recall, precision = right / objects, right / np.maximum(right + wrong, np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    found = np.zeros(len(one.right))
    for t in range(len(found)):
        place = np.searchsorted(recall[t], RECALLS, side="left")
        inside = place[place < recall.shape[1]]
        found[t] = precision[t, inside].sum() / len(RECALLS)
    return found


def _table(classes: list[Matches], weights: np.ndarray) -> np.ndarray:
    """[2, classes + 1]: AP and AP50, the mean over classes first."""
    each = np.array([average_precision(one, weights) for one in classes])
    both = np.stack([each.mean(1), each[:, 0]])
    return np.concatenate([np.nanmean(both, 1, keepdims=True), both], 1)


def _columns(classes: list[str]) -> list[str]:
    return [f"{kind}{name}" for kind in ("AP", "AP50") for name in ("", *(f" {one}" for one in classes))]


def differences(
    by_loss: dict[str, list[list[Matches]]], reference: str, classes: list[str], resamples: int
) -> list[dict[str, Any]]:
    """For each loss and column: the mean over seeds, its difference from the reference's, and the 95 % interval of that
    difference over resamples of the images. All losses and seeds see the same resamples."""
    images = len(next(iter(by_loss.values()))[0][0].objects)
    random = np.random.default_rng(0)
    draws = [np.ones(images, int)]
    draws += [np.bincount(random.integers(0, images, images), minlength=images) for _ in range(resamples)]
    drawn = {
        loss: np.array([np.mean([_table(seed, weights) for seed in seeds], 0).ravel() for weights in draws])
        for loss, seeds in by_loss.items()
    }
    rows = []
    for loss, found in drawn.items():
        low, high = np.nanpercentile(found[1:] - drawn[reference][1:], [2.5, 97.5], axis=0)
        for k, column in enumerate(_columns(classes)):
            row = {"loss": loss, "column": column, "mean_of_seeds": found[0, k]}
            row |= {"difference": found[0, k] - drawn[reference][0, k], "low": low[k], "high": high[k]}
            rows.append({**row, "differs": int(low[k] > 0 or high[k] < 0)})
    return rows
