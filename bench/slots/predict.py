#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""predict.py cuda/slots.txt [ROWS]: times that slots and the bytes of a call let one expect. Nothing is measured.

A time is 5 us (launch, first loads, last block) and the larger of two: the bytes at the bandwidth of a copy, and the
slots at 85 % of what the warp schedulers can issue. The name behind it is the larger. Double precision is a third bound
where a formula takes it.

Where the slots of each launch are known, the launches follow each other: each takes the larger of the two, and each
after the first 3 us more. In hard negative mining a block takes an image of 8,192 rows, so most of the GPU is idle.
What the block waits for is added: it reads the image six times, with four rounds of loads each, and a round takes 500
cycles. The 3 us and the 500 cycles are assumptions.

--elements: as many elements in every case as ROWS of 80 have.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Device(NamedTuple):
    """Multiprocessors of 128 lanes, clock in GHz, bytes/s of a copy in TB/s, lanes for doubles of a multiprocessor."""

    name: str
    multiprocessors: int
    clock: float
    copy: float
    doubles: int


DEVICES = (
    Device("H100 SXM", 132, 1.755, 3.0, 64),
    Device("B200", 148, 1.85, 6.9, 64),
    Device("RTX 4090", 128, 2.52, 0.93, 2),
)
FIXED, ISSUED = 5.0, 0.85  # us; share of the slots
FURTHER = 3.0  # us of each launch after the first
ROUNDS, CYCLES = 6 * 4, 500  # of the block that selects an image
DOUBLE_SLOTS = {"ghm-r": 55.0}


class Counted(NamedTuple):
    loss: str
    dtype: str
    layout: str
    classes: int
    extra: str
    slots: float
    launches: list[float]  # empty: not known


def bytes_of(one: Counted) -> float:
    """An element's, read and written; GHM reads the logits twice, and GHM-R its targets, too."""
    size = 4 if one.dtype == "f32" else 2
    total = 2.0 * size + (size if one.loss.startswith("ghm") else 0)
    for part in one.extra.split("+"):
        total += {"element_weights": 4, "targets": 4, "heatmap": 4, "boxes": 8, "element_loss": 4, "loss": -size}.get(
            part, 0
        )
    return total


def bytes_by_launch(one: Counted) -> list[float]:
    """The first that reads all logits, and the last, which reads them again and writes the gradient."""
    size, target = 4 if one.dtype == "f32" else 2, 1 if one.loss == "masks" else 0
    first = 1 if one.extra in ("hard_negatives", "hard_rows") else 0
    found = [0.0] * len(one.launches)
    found[first], found[-1] = size + target, 2 * size + target
    return found


def bound(device: Device, elements: int, size: float, slots: float, double: float = 0.0) -> tuple[float, str]:
    memory = elements * size / device.copy / 1e6
    issue = elements * slots / (device.multiprocessors * 128 * device.clock * ISSUED * 1e3)
    doubles = elements * double / (device.multiprocessors * device.doubles * device.clock * ISSUED * 1e3)
    return max((memory, "memory"), (issue, "issue"), (doubles, "doubles"))


def predict(device: Device, elements: int, one: Counted) -> str:
    if not one.launches:
        spent, by = bound(device, elements, bytes_of(one), one.slots, DOUBLE_SLOTS.get(one.loss, 0.0))
        return f"{FIXED + spent:.0f} {by}"
    bounds = [bound(device, elements, *both) for both in zip(bytes_by_launch(one), one.launches)]
    waits = ROUNDS * CYCLES / device.clock / 1e3 if one.extra == "hard_negatives" else 0.0
    spent = FIXED + FURTHER * (len(bounds) - 1) + sum(spent for spent, _ in bounds) + waits
    return f"{spent:.0f} {max(bounds)[1]}"


def counted(path: Path) -> Iterator[Counted]:
    found: Counted | None = None
    for line in path.read_text().splitlines():
        words = line.split()
        if found and line.startswith("#   by launch:"):
            found.launches.extend(float(word) for word in words[3:])
        if not words or words[0].startswith("#"):
            continue
        if found:
            yield found
        found = Counted(words[0], words[1], words[2], int(words[3]), words[4], float(words[5]), [])
    if found:
        yield found


def main() -> None:
    given = [word for word in sys.argv[1:] if word != "--elements"]
    rows = int(given[1]) if len(given) > 1 else 100000
    print(f"Predicted, not measured: microseconds for {rows} rows, and what binds.\n")
    print("| loss | dtype | layout | classes | what | slots | " + " | ".join(d.name for d in DEVICES) + " |")
    print("|---|---|---|--:|---|--:|" + "--:|" * len(DEVICES))
    for one in counted(Path(given[0])):
        elements = rows * (80 if "--elements" in sys.argv else one.classes)
        times = " | ".join(predict(d, elements, one) for d in DEVICES)
        print(f"| {one.loss} | {one.dtype} | {one.layout} | {one.classes} | {one.extra} | {one.slots} | {times} |")


if __name__ == "__main__":
    main()
