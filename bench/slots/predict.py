#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""predict.py cuda/slots.txt [ROWS]: times that slots and the bytes of a call let one expect. Nothing is measured.

A time is 5 us (launch, first loads, last block) and the larger of two: the bytes at the bandwidth of a copy, and the
slots at 85 % of what the warp schedulers can issue. The name behind it is the larger.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple


class Device(NamedTuple):
    """Multiprocessors of 128 lanes, clock in GHz, bytes/s of a copy in TB/s."""

    name: str
    multiprocessors: int
    clock: float
    copy: float


DEVICES = (Device("H100 SXM", 132, 1.755, 3.0), Device("B200", 148, 1.85, 6.9), Device("RTX 4090", 128, 2.52, 0.93))
FIXED, ISSUED = 5.0, 0.85  # us; share of the slots


def bytes_of(loss: str, dtype: str, extra: str) -> float:
    """An element's, read and written; GHM reads the logits twice."""
    size = 4 if dtype == "f32" else 2
    total = 2.0 * size + (size if loss.startswith("ghm") else 0)
    for part in extra.split("+"):
        total += {"element_weights": 4, "targets": 4, "heatmap": 4, "element_loss": 4, "loss": -size}.get(part, 0)
    return total


def predict(device: Device, elements: int, size: float, slots: float) -> str:
    memory = elements * size / device.copy / 1e6
    issue = elements * slots / (device.multiprocessors * 128 * device.clock * ISSUED * 1e3)
    return f"{FIXED + max(memory, issue):.0f} {'memory' if memory > issue else 'issue'}"


def main() -> None:
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else 100000
    print(f"Predicted, not measured: microseconds for {rows} rows, and what binds.\n")
    print("| loss | dtype | layout | classes | what | slots | " + " | ".join(d.name for d in DEVICES) + " |")
    print("|---|---|---|--:|---|--:|" + "--:|" * len(DEVICES))
    for line in Path(sys.argv[1]).read_text().splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        loss, dtype, layout, classes, extra, slots = words
        size, elements = bytes_of(loss, dtype, extra), rows * int(classes)
        times = [predict(d, elements, size, float(slots)) for d in DEVICES]
        print(f"| {loss} | {dtype} | {layout} | {classes} | {extra} | {slots} | {' | '.join(times)} |")


if __name__ == "__main__":
    main()
