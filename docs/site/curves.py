# SPDX-License-Identifier: Apache-2.0
"""The numbers of the pictures, computed by Tare: loss and gradient of one row for each loss, and a detector's batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

import tare
from tare import _losses

SIGMOID, SOFTMAX, REGRESSION = range(3)
RESULTS = Path(__file__).parents[2] / "bench" / "results"


class Curve(NamedTuple):
    """Loss and size of the gradient along `at`, of one kind of element."""

    name: str
    at: np.ndarray
    loss: np.ndarray
    gradient: np.ndarray


def family_of(loss: str) -> int:
    return _losses.DESCRIPTIONS[loss].family


def probabilities(count: int = 400) -> np.ndarray:
    """Probabilities that the loss sees, denser at both ends."""
    return 1 / (1 + np.exp(-np.linspace(-7, 7, count)))


def positive(loss: str, p: np.ndarray, **options) -> Curve:
    """A row of one class (softmax: of two), labelled with it; p is the probability of the class."""
    x = np.log(p) - np.log1p(-p)
    logits = x[:, None] if family_of(loss) == SIGMOID else np.stack([x, np.zeros_like(x)], 1)
    found = tare.evaluate(loss, logits, np.zeros(len(p), np.int32), row_loss=True, **needed(loss), **options)
    return Curve("positive, t = 1", p, found.row_loss, np.abs(found.gradient[:, 0]))


def negative(loss: str, p: np.ndarray, **options) -> Curve | None:
    """A background row; p is the probability of the absent class. A softmax loss has none."""
    if family_of(loss) != SIGMOID:
        return None
    x = np.log(p) - np.log1p(-p)
    found = tare.evaluate(loss, x[:, None], np.full(len(p), -1, np.int32), row_loss=True, **needed(loss), **options)
    return Curve("negative, t = 0", p, found.row_loss, np.abs(found.gradient[:, 0]))


def needed(loss: str) -> dict:
    """What a loss cannot do without: offsets of a class with a tenth of the samples, the density of a batch."""
    if loss == "softmax-logit-adjusted":
        return {"offset": np.log(np.float32([0.1, 0.9]))}
    if loss == "softmax-seesaw":
        return {"log_counts": np.log(np.float32([1, 9]))}
    if loss == "softmax-ldam":
        return {"margins": np.float32([0.5, 0.3]), "scale": 1.0}
    if loss != "ghm-c":
        return {}
    state = tare.ghm_state(10)
    tare.evaluate(loss, *batch(), bins=10, state=state)
    return {"bins": 10, "state": state, "use_stored_density": True}


def differences(loss: str) -> Curve:
    """A regression loss along prediction - target, with the density of a batch of boxes that nearly fit."""
    random = np.random.default_rng(5)
    boxes = np.concatenate([random.normal(0, 0.02, (4000, 4)), random.normal(0, 0.3, (80, 4))])
    state = tare.ghm_state(10)
    tare.evaluate(loss, boxes, np.zeros(len(boxes), np.int32), targets=np.zeros_like(boxes), state=state)
    d = np.linspace(-0.2, 0.2, 801)[:, None]
    found = tare.evaluate(
        loss,
        d,
        np.zeros(len(d), np.int32),
        targets=np.zeros_like(d),
        state=state,
        use_stored_density=True,
        row_loss=True,
    )
    return Curve("prediction - target", d[:, 0], found.row_loss, np.abs(found.gradient[:, 0]))


def batch(rows: int = 20_000, classes: int = 20, objects: int = 100, wrong: int = 10) -> tuple:
    """Logits and labels like a young detector's: background around -4.6, objects around 0, some labels hopeless."""
    random = np.random.default_rng(7)
    logits = random.normal(-4.6, 1.5, (rows, classes))
    labels = np.full(rows, -1, np.int32)
    labels[:objects] = random.integers(0, classes, objects)
    logits[np.arange(objects), labels[:objects]] = random.normal(0, 2, objects)
    logits[np.arange(wrong), labels[:wrong]] = -8  # an object that the detector is sure is none: a wrong label?
    return logits, labels


def gradient_norms(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """|p - t| of every element, from the gradient of cross-entropy."""
    return np.abs(tare.evaluate("sigmoid-ce", logits, labels).gradient)


def share_by_norm(loss: str, logits: np.ndarray, labels: np.ndarray, bins: int, **options) -> np.ndarray:
    """Which part of the whole gradient comes from each bin of gradient norms."""
    sizes = np.abs(tare.evaluate(loss, logits, labels, **options).gradient)
    place = np.minimum((gradient_norms(logits, labels) * bins).astype(int), bins - 1)
    return np.bincount(place.ravel(), sizes.ravel(), bins) / sizes.sum()


def measured(name: str) -> dict:
    """One file of the newest results in bench/results."""
    return json.loads(sorted(RESULTS.glob(f"*/{name}"))[-1].read_text())


def long_tail() -> np.ndarray:
    """Made-up counts of 1,203 classes, split as in LVIS: 405 above 100, 461 of 11 to 100, 337 of 1 to 10."""
    order = np.arange(1203)
    return np.floor(np.exp(np.interp(order, [0, 405, 866, 1202], np.log([50_000, 100.99, 10.99, 1])))).astype(np.int64)
