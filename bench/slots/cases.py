# SPDX-License-Identifier: Apache-2.0
"""The calls whose slots are counted, and their inputs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from floating import to_bfloat16

CLASSES = (1, 3, 20, 80, 81, 90, 91, 100, 365, 1203)
TYPES = ("f32", "bf16", "f16")
TILES = 6
MOST_NCHW = 100  # classes; a tile of more takes minutes


class Case(NamedTuple):
    """`extra`: further arrays and outputs, joined by +, or a distribution. A case of masks has pixels as classes."""

    loss: str
    dtype: str
    layout: str  # rows, nchw: a map of a whole number of vectors, odd: one that is not
    classes: int
    extra: str = "plain"
    times: int = 1  # as many rows, of a case whose growth is counted

    def name(self) -> str:
        return f"{self.loss} {self.dtype} {self.layout} {self.classes} {self.extra}"

    def parts(self) -> list[str]:
        return self.extra.split("+")

    def grows(self) -> bool:
        """Whether its launches differ in their grids, so that calls of two sizes are compared."""
        return self.loss == "masks" or bool({"class_sums", "hard_negatives", "hard_rows"} & set(self.parts()))


def all_cases() -> list[Case]:
    cases = []
    for dtype in TYPES[:2]:
        for classes in CLASSES:
            losses = ("sigmoid-focal", "sigmoid-ce", "sigmoid-poly1", "ghm-c", "softmax-ce")
            cases += [Case(loss, dtype, "rows", classes) for loss in losses]
        for layout in ("nchw", "odd"):
            cases += [Case(x, dtype, layout, 80) for x in ("sigmoid-focal", "ghm-c", "softmax-ce")]
            cases += [Case("sigmoid-focal", dtype, layout, c) for c in (3, 91)]
        for extra in EXTRAS:
            cases += [Case("sigmoid-focal", dtype, "rows", c, extra) for c in (80, 91)]
        cases += [
            Case(x, dtype, "rows", 80, y) for x in ("sigmoid-focal", "ghm-c") for y in ("trained", "loss", "gradient")
        ]
        cases += [Case(x, dtype, "rows", c, "scores") for x in SCORED for c in (80, 91)]
        cases += [Case("sigmoid-focal", dtype, "odd", 80, x) for x in ("element_weights", "scores")]
    cases += [Case("sigmoid-focal", "f16", "rows", c) for c in (80, 81, 91)]
    cases += [Case(loss, "f32", "rows", 80, extra) for loss, extra in TABLE]
    cases += [Case("softmax-ce", x, "rows", c, "labelled") for x in TYPES[:2] for c in (20, 81, 91, 365, 1203)]
    cases += [Case("softmax-seesaw", "f32", "rows", 1203, "labelled+log_counts")]
    cases += [Case("softmax-distribution-focal", x, "rows", 17, "between") for x in TYPES[:2]]
    cases += [Case("softmax-two-hot", x, "rows", 33, "labelled+pairs") for x in TYPES[:2]]
    cases += [Case("ghm-r", "f32", "rows", 4, "boxes")]
    cases += [Case("masks", "f32", "rows", 25000, extra) for extra in ("dice", "tversky", "exponent", "focal_weight")]
    return cases


TABLE = (  # the other losses of docs/guide/losses.md, as bench/costs.py has them
    ("sigmoid-asymmetric", "plain"),
    ("sigmoid-heatmap-focal", "heatmap"),
    ("sigmoid-reduced-focal", "plain"),
    ("sigmoid-focal-star", "plain"),
    ("softmax-ce", "labelled"),
    ("softmax-ce", "labelled+z_loss"),
    ("softmax-focal", "labelled"),
    ("softmax-logit-adjusted", "labelled+offset"),
    ("softmax-ldam", "labelled+margins"),
    ("softmax-seesaw", "labelled+log_counts"),
    ("sigmoid-focal", "class_weights"),
    ("sigmoid-ce", "negative_weights+background_negative_weights"),
    ("sigmoid-ce", "positive_weights+negative_weights+class_sums"),
    ("sigmoid-focal", "positive_weights+negative_weights+gamma_per_class+class_sums"),
    ("sigmoid-focal", "hard_negatives"),
    ("sigmoid-focal", "hard_rows"),
)


SCORED = (
    "sigmoid-varifocal",
    "sigmoid-quality-focal",
    "sigmoid-matchability",
    "sigmoid-iou-aware",
    "sigmoid-ce",
)
OF_CLASSES = (
    "alpha_per_class",
    "positive_weights",
    "negative_weights",
    "background_negative_weights",
    "gamma_per_class",
    "class_weights",
    "offset",
    "margins",
    "log_counts",
)
EXTRAS = (
    "element_weights",
    "alpha_per_class",
    "positive_weights",
    "row_weights",
    "scores",
    "targets",
    "sparse_targets",
    "row_loss",
    "element_loss",
)


def rows_of_tile(case: Case) -> int:
    """Of the kernels' tiles, as cuda/call.cu cuts them; a whole number of them is counted."""
    if case.loss.startswith("softmax"):
        return 256
    if case.loss == "ghm-r":
        return 1024
    if "negative_weights" in case.parts():
        return 256
    if case.layout != "rows":
        return 256
    if "row_loss" in case.parts():
        return 4096 // case.classes // 4 * 4 if case.classes % 4 else 4096 // case.classes
    return min(max(8192 // case.classes // 8 * 8, 8), 1024)


def rows_that_grow(case: Case) -> int:
    """So many that several blocks have work; hard negative mining: those of an image."""
    of_part = {"hard_negatives": 8192, "hard_rows": 2048, "class_sums": 512}
    rows = next((of_part[part] for part in case.parts() if part in of_part), 4)  # masks
    return rows * case.times


def rows_of(case: Case) -> int:
    if case.grows():
        return rows_that_grow(case)
    tiles = TILES
    if case.loss == "ghm-c":  # beyond the second-level cache of the emulated GPU: two launches
        tiles = 16 if case.dtype != "f32" else 8
    if case.loss == "ghm-r":  # the same: one launch of both would wait for blocks that do not run
        tiles = 16
    if case.layout != "rows":
        tiles = max(2, 24576 // case.classes // 256 + 2)
    return rows_of_tile(case) * tiles + (3 if case.layout == "odd" else 0)


def rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "f32":
        return x.astype(np.float32)
    return x.astype(np.float16) if dtype == "f16" else to_bfloat16(x).astype(np.uint16)


def inputs(case: Case, data: Path | None) -> dict[str, np.ndarray]:
    """Logits N(-4.6,1.5), as RetinaNet's bias begins with, and 0.5 % of rows with a class; or a trained detector's."""
    rows, classes = rows_of(case), case.classes
    rng = np.random.default_rng(1)
    logits = rng.normal(-4.6, 1.5, (rows, classes))
    labels = np.where(
        rng.random(rows) < (1 if "labelled" in case.parts() else 0.005), rng.integers(0, classes, rows), -1
    )
    if "trained" in case.parts():
        if data is None:
            raise FileNotFoundError("a trained detector's logits: give --data")
        numbers = np.load(data / "late_logits.npy").ravel()
        logits = np.resize(numbers[len(numbers) // 2 :], (rows, classes))
        labels = np.resize(np.load(data / "labels.npy"), rows)
    arrays: dict[str, np.ndarray] = {}
    by_rows = [
        ("element_weights", (rows, classes)),
        ("row_weights", rows),
        ("scores", rows),
        ("targets", (rows, classes)),
    ]
    for name, shape in [*by_rows, *((name, classes) for name in OF_CLASSES)]:
        if name in case.parts():
            arrays[name] = rng.uniform(0.1, 0.9, shape).astype(np.float32)
    if "gamma_per_class" in case.parts():
        arrays["gamma_per_class"] += 2
    if case.loss == "masks":
        logits += 4.6
        return {"logits": rounded(logits, case.dtype), "targets": (rng.random(logits.shape) < 0.3).astype(np.uint8)}
    if "sparse_targets" in case.parts():  # one target of a row with a class
        arrays["targets"] = np.zeros((rows, classes), np.float32)
        arrays["targets"][labels >= 0, labels[labels >= 0]] = 0.7
    if "heatmap" in case.parts():  # one element in 2,000 is a peak, and ten are near one
        near = rng.random((rows, classes))
        arrays["targets"] = np.where(near < 0.0005, 1, np.where(near < 0.005, near * 150, 0)).astype(np.float32)
    if "between" in case.parts():
        arrays["scores"] = rng.uniform(0, classes - 2, rows).astype(np.float32)
    if "pairs" in case.parts():
        labels = np.minimum(labels, classes - 2)
        left = rng.random(rows)
        arrays["pairs"] = np.stack([left, 1 - left], 1).astype(np.float32)
    if "boxes" in case.parts():
        arrays["targets"] = (logits + rng.normal(0, 0.05, logits.shape)).astype(np.float32)
    if case.layout != "rows":
        logits = logits.T
        arrays = {k: v.T if v.ndim == 2 else v for k, v in arrays.items()}
    arrays["logits"] = rounded(np.ascontiguousarray(logits), case.dtype)
    if "targets" not in arrays and "between" not in case.parts():
        arrays["labels"] = labels.astype(np.int32)
    return {k: np.ascontiguousarray(v) for k, v in arrays.items()}


def outputs(case: Case) -> list[str]:
    """What is asked for: loss and gradient, if not one of them alone."""
    wanted = ["loss_out", "gradient"]
    if "loss" in case.parts():
        wanted = ["loss_out"]
    if "gradient" in case.parts():
        wanted = ["gradient"]
    return wanted + [x for x in ("row_loss", "element_loss", "class_sums") if x in case.parts()]


def numbers(case: Case) -> list[str]:
    """What record_call is told besides arrays, by part."""
    rows = rows_of(case)
    of_part = {
        "z_loss": ["z_loss=0.001"],
        "hard_negatives": ["hard_negatives=3", f"images={case.times}"],
        "hard_rows": [f"hard_rows={rows * 512 // 100000}"],
        "tversky": ["false_positive_weight=0.3", "false_negative_weight=0.7"],
        "exponent": ["exponent=0.75"],
        "focal_weight": ["focal_weight=20"],
    }
    return [word for part in case.parts() for word in of_part.get(part, [])]
