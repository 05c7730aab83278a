# SPDX-License-Identifier: Apache-2.0
"""What each loss costs beside sigmoid focal loss: loss and gradient on one thread of a CPU, from NumPy.

    PYTHONPATH=python TARE_LIBRARY=build/libtare.so python3 bench/costs.py [ROUNDS [LOSS ...]]

All batches have 1.6 million float32 elements. A call's gradient takes the memory of the one before, which the C library
keeps: a new page costs more than its elements do. The last column says how many pages a round of the loss took all the
same. Every round calls every loss once, with focal loss before it. The figures are this thread's processor time, since
others may share the machine: the least and the median of the rounds, in ns an element, and the least over focal loss's.
Sigmoid losses: 20,000 rows of 80, N(-4.6, 1.5), 0.5 % of the rows with a class. Softmax losses: every row has a class.
Losses between bins: rows of 17 or 33 bins. GHM-R: rows of 4, differences N(0, 0.05). Masks: 64 of 25,000 pixels.
Equalization loss: three of four classes are rare.
"""

from __future__ import annotations

import ctypes
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import tare
from tare import _losses

ELEMENTS, CLASSES, MASKS = 1_600_000, 80, 64
FOCAL = "sigmoid-focal"
SCORED = ("sigmoid-varifocal", "sigmoid-quality-focal", "sigmoid-matchability", "sigmoid-iou-aware")
RANDOM = np.random.default_rng(0)
ONES = np.ones(CLASSES, np.float32)
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def logits(columns: int = CLASSES, mean: float = -4.6) -> np.ndarray:
    return RANDOM.normal(mean, 1.5, (ELEMENTS // columns, columns)).astype(np.float32)


def labels(rows: int, columns: int, share: float) -> np.ndarray:
    found = RANDOM.integers(0, columns, rows)
    return np.where(RANDOM.random(rows) < share, found, -1)


def heatmap(shape: tuple[int, ...]) -> np.ndarray:
    """One element in 2,000 is a peak, and ten are near one."""
    near = RANDOM.random(shape)
    return np.where(near < 0.0005, 1, np.where(near < 0.005, near * 150, 0)).astype(np.float32)


def of_batch(name: str, **more: Any) -> Callable[[], Any]:
    """A loss of tare.losses(), with what it needs."""
    about = _losses.DESCRIPTIONS[name]
    if name == "ghm-r":
        x = logits(4, 0.0)
        t = x + RANDOM.normal(0, 0.05, x.shape).astype(np.float32)
        return lambda: tare.evaluate(name, x, targets=t, threads=1)
    if name == "sigmoid-heatmap-focal":
        x, t = logits(), heatmap((ELEMENTS // CLASSES, CLASSES))
        return lambda: tare.evaluate(name, x, targets=t, threads=1)
    columns = {1: 17, 2: 33}.get(about.takes_bins, CLASSES)
    softmax = name.startswith("softmax")
    x = logits(columns, 0.0 if softmax else -4.6)
    y = labels(len(x), columns - 1, 1.0 if softmax else 0.005)
    given = {key: ONES for key in _losses.vectors_of(name) if key not in ("alpha", "gamma_per_class")}
    if about.takes_bins:
        y = None if about.takes_bins == 1 else y
        between = RANDOM.random(len(x)).astype(np.float32)
        given["scores"] = between * 15 if y is None else np.stack([between, 1 - between], 1)
    elif name in SCORED:
        given["scores"] = RANDOM.random(len(x)).astype(np.float32)
    return lambda: tare.evaluate(name, x, y, threads=1, **given, **more)


def of_masks(**parameters: float) -> Callable[[], Any]:
    x = logits(ELEMENTS // MASKS, 0.0)
    t = RANDOM.random(x.shape) < 0.3
    return lambda: tare.mask_loss(x, t, gradient=True, threads=1, **parameters)


def cases() -> dict[str, Callable[[], Any]]:
    columns = {"positive_weights": ONES, "negative_weights": ONES, "class_sums": True}
    return {
        **{name: of_batch(name) for name in tare.losses()},
        "softmax-ce, label smoothing": of_batch("softmax-ce", label_smoothing=0.1),
        "softmax-ce, z-loss": of_batch("softmax-ce", z_loss=1e-4),
        "class-balanced": of_batch(FOCAL, class_weights=ONES),
        "EqualizationLoss": of_batch(
            "sigmoid-ce", negative_weights=(np.arange(CLASSES) % 4 == 0) * ONES, background_negative_weights=ONES
        ),
        "EQLv2Loss": of_batch("sigmoid-ce", **columns),
        "EqualizedFocalLoss": of_batch(FOCAL, gamma_per_class=ONES * 2.5, **columns),
        "hard_negatives": of_batch(FOCAL, hard_negatives=3.0),
        "hard_rows": of_batch(FOCAL, hard_rows=512),
        "dice_loss": of_masks(),
        "tversky_loss": of_masks(false_positive_weight=0.3, false_negative_weight=0.7),
        "tversky_loss, exponent 0.75": of_masks(exponent=0.75),
        "focal_dice_loss": of_masks(focal_weight=20.0),
    }


def keep_freed_memory() -> None:
    """Has glibc take arrays of up to 32 MiB from memory that was freed before, and give none of it back."""
    mallopt = ctypes.CDLL(None).mallopt
    if not (mallopt(MMAP_THRESHOLD, 32 << 20) and mallopt(TRIM_THRESHOLD, 1 << 30)):
        raise RuntimeError("mallopt refuses: each gradient would take new pages")


def seconds(call: Callable[[], Any]) -> tuple[float, int]:
    """Of processor time, and pages taken."""
    pages = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    start = time.thread_time()
    call()
    return time.thread_time() - start, resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - pages


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 31
    keep_freed_memory()
    calls = cases()
    wanted = sys.argv[2:] or list(calls)
    calls = {name: call for name, call in calls.items() if name in (FOCAL, *wanted)}
    times: dict[str, list[tuple[float, int]]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            times[FOCAL].append(seconds(calls[FOCAL]))
            times[name].append(seconds(call))
    focal = min(times[FOCAL])[0]
    print("| loss | least, ns | median, ns | least beside focal | pages |\n|---|--:|--:|--:|--:|")
    for name, found in times.items():
        spent, pages = [one[0] for one in found], statistics.median(one[1] for one in found)
        least, median = (1e9 * one / ELEMENTS for one in (min(spent), statistics.median(spent)))
        print(f"| {name} | {least:.2f} | {median:.2f} | {min(spent) / focal:.2f} | {pages:.0f} |")


if __name__ == "__main__":
    main()
