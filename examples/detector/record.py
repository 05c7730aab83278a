# SPDX-License-Identifier: Apache-2.0
"""What a reader needs to repeat a comparison: command, commit, versions, machine; and the table as Markdown."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import tare

from . import data, experiment


def _commit() -> str:
    done = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _described(comparison: experiment.Comparison, words: list[str]) -> dict[str, Any]:
    source = comparison.plan.source
    known = data.load(source)
    return {
        "command": ["python", "examples/train_detector.py", *words],
        "commit": _commit(),
        "seeds": comparison.seeds,
        "size": list(source.size),
        "epochs": comparison.plan.epochs,
        "batch": comparison.plan.batch,
        "rates": comparison.rates,
        "weights": comparison.weights,
        "training_images": len(known.train),
        "objects_in_training": dict(zip(known.classes, known.counts)),
        "anchors_of_an_image": len(known.grid.boxes),
        "processor": _processor(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "tare": tare.__version__,
        "versions": {name: _version(name) for name in ("torch", "numpy", "pycocotools", "pillow")},
    }


def _cell(rows: list[dict[str, str]], column: str) -> str:
    """The mean of the seeds, and each seed."""
    values = [100 * float(row[column]) for row in rows if row[column] not in ("", "nan")]
    if not values:
        return "–"
    mean = f"{sum(values) / len(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({', '.join(f'{one:.1f}' for one in values)})"


def _against(differences: list[dict[str, str]], loss: str, column: str) -> str:
    row = next(row for row in differences if row["loss"] == loss and row["column"] == column)
    low, high = 100 * float(row["low"]), 100 * float(row["high"])
    if low == high == 0:
        return "–"
    return f"{low:+.1f} to {high:+.1f}" + (" *" if row["differs"] == "1" else "")


def table(folder: Path) -> str:
    """The table of a results folder as Markdown."""
    test, found = (experiment.read_csv(folder / name) for name in ("test.csv", "differences.csv"))
    columns = [column for column in test[0] if column.startswith("AP")]
    head = ["loss", "rate", "weight", *columns, "AP − reference, 95 %", "AP50 − reference, 95 %"]
    lines = ["| " + " | ".join(head) + " |", "|---" * 3 + "|--:" * (len(head) - 3) + "|"]
    for loss in dict.fromkeys(row["loss"] for row in test):
        rows = [row for row in test if row["loss"] == loss]
        cells = [loss, rows[0]["rate"], rows[0]["weight"], *(_cell(rows, column) for column in columns)]
        cells += [_against(found, loss, column) for column in ("AP", "AP50")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write(comparison: experiment.Comparison, words: list[str]) -> None:
    text = json.dumps(_described(comparison, words), indent=2, ensure_ascii=False)
    (comparison.folder / "record.json").write_text(text + "\n")
    (comparison.folder / "table.md").write_text(table(comparison.folder))
