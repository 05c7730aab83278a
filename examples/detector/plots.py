# SPDX-License-Identifier: Apache-2.0
"""The pictures of a results folder. Blue is objects (target 1), orange is background (target 0)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from . import experiment

OBJECTS, BACKGROUND = "#1f6fb4", "#d9730d"
LOOKS = ("#b3cde3", "#6fa8dc", "#0b3d6b")  # early, middle, late
COLOURS = {
    "ce": "#8a8a8a",
    "alpha-ce": "#444444",
    "focal-0.5": "#8fc3a3",
    "focal-2": "#2f7d4f",
    "focal-5": "#123d24",
    "cb-focal-2": "#c0392b",
    "poly1": "#a08a1a",
    "ghm-c": "#7b3fa0",
    "ghm-c+r": "#3d1a57",
    "quality-focal": "#1f9aa8",
    "varifocal": "#d1609b",
}
OUTLIER = 0.9  # a gradient norm from which on an element is called an outlier here

Rows = list[dict[str, str]]


def _axes(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _epochs_on(axes: Any) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=9, frameon=False)


def _of(rows: Rows, **wanted: Any) -> Rows:
    return [row for row in rows if all(row[key] == str(value) for key, value in wanted.items())]


def _names(rows: Rows, column: str) -> list[str]:
    return list(dict.fromkeys(row[column] for row in rows))


def _numbers(rows: Rows, column: str) -> np.ndarray:
    return np.array([float(row[column]) for row in rows])


def precision_over_training(log: Rows) -> Any:
    """AP50 of each class on val: the mean of the seeds, and each seed as a pale line. The classes have axes of their
    own, since they lie far apart."""
    classes = [column for column in log[0] if column.startswith("AP50 ")]
    figure, panels = plt.subplots(1, len(classes), figsize=(8.6, 4.2), constrained_layout=True, squeeze=False)
    for axes, column in zip(panels[0], classes):
        for loss in _names(log, "loss"):
            colour = COLOURS.get(loss, "black")
            rows = [row for row in _of(log, loss=loss) if row[column]]
            epochs = np.array([int(epoch) for epoch in _names(rows, "epoch")])
            seeds = [100 * _numbers(_of(rows, seed=seed), column) for seed in _names(rows, "seed")]
            for values in seeds if len(seeds) > 1 else []:
                axes.plot(epochs, values, color=colour, linewidth=0.6, alpha=0.35)
            axes.plot(epochs, np.mean(seeds, 0), color=colour, linewidth=1.6, label=loss)
        axes.set_title(column.removeprefix("AP50 "), loc="left", fontsize=10)
        _axes(axes, "epoch", "AP50 on val, %" if column == classes[0] else "")
        axes.set_ylim(bottom=_lowest(log, column), top=100)
        _epochs_on(axes)
    _legend(figure, panels[0][0])
    return figure


def _lowest(log: Rows, column: str) -> float:
    """Where an axis begins: below all of a class but what is far below the rest, in steps of 10."""
    values = 100 * _numbers([row for row in log if row[column]], column)
    return max(0.0, 10 * np.floor(np.quantile(values, 0.03) / 10))


def _draw_elements(axes: Any, rows: Rows) -> None:
    """How many elements have which gradient norm, early, in the middle and late."""
    epochs = _names(rows, "epoch")
    places = sorted({min(1, len(epochs) - 1), len(epochs) // 2, len(epochs) - 1})
    for place, colour in zip(places, LOOKS[-len(places) :]):
        some = _of(rows, epoch=epochs[place])
        counts = _numbers(some, "objects_elements") + _numbers(some, "background_elements")
        edges = [*_numbers(some, "g_from"), 1]
        axes.stairs(np.maximum(counts, 0.5), edges, color=colour, linewidth=1.4, label=f"epoch {epochs[place]}")
    axes.set_yscale("log")
    axes.set_xlim(0, 1)


def _draw_shares(axes: Any, rows: Rows) -> None:
    """Which gradient norms the gradient comes from at the end."""
    some = _of(rows, epoch=_names(rows, "epoch")[-1])
    objects, background = (_numbers(some, f"{name}_gradient") for name in ("objects", "background"))
    total, start = (objects + background).sum(), _numbers(some, "g_from")
    width = 1 / len(start)
    axes.bar(start, 100 * background / total, 0.9 * width, align="edge", color=BACKGROUND, label="background")
    axes.bar(
        start,
        100 * objects / total,
        0.9 * width,
        100 * background / total,
        align="edge",
        color=OBJECTS,
        label="objects",
    )
    axes.set_xlim(0, 1)


def gradient_norms(table: Rows) -> Any:
    """Each loss in a row: its elements by gradient norm over training, and where its gradient comes from at the end.
    The first seed alone."""
    names = _names(table, "loss")
    figure, grid = plt.subplots(
        len(names), 2, figsize=(8.6, 1.9 * len(names) + 0.5), constrained_layout=True, squeeze=False, sharex=True
    )
    for loss, (left, right) in zip(names, grid):
        rows = _of(table, loss=loss, seed=_names(_of(table, loss=loss), "seed")[0])
        _draw_elements(left, rows)
        _draw_shares(right, rows)
        last = loss == names[-1]
        _axes(left, "gradient norm g = |p − t|" if last else "", "elements")
        _axes(right, "gradient norm g = |p − t|" if last else "", "share, %")
        left.set_title(loss, loc="left", fontsize=10, fontweight="bold")
    grid[0][0].legend(fontsize=8, frameon=False)
    grid[0][1].legend(fontsize=8, frameon=False)
    grid[0][0].set_title("elements by gradient norm, log scale", loc="right", fontsize=9)
    grid[0][1].set_title("share of the gradient at the end", loc="right", fontsize=9)
    return figure


def _share(rows: Rows, epoch: str, wanted: Any) -> float:
    """The part of the gradient at an epoch that is in `wanted`, a function of a row, in percent."""
    some = _of(rows, epoch=epoch)
    total = sum(float(row["objects_gradient"]) + float(row["background_gradient"]) for row in some)
    return 100 * sum(wanted(row) for row in some) / total if total else float("nan")


def _of_objects(row: dict[str, str]) -> float:
    return float(row["objects_gradient"])


def _of_outliers(row: dict[str, str]) -> float:
    if float(row["g_from"]) < OUTLIER - 1e-9:
        return 0.0
    return float(row["objects_gradient"]) + float(row["background_gradient"])


def who_gets_the_gradient(table: Rows) -> Any:
    """The share of the gradient that objects have, and the one that outliers have, over training. First seed. Before
    training nearly all of the gradient is of outliers: the axis of their share leaves that out, if more is there."""
    figure, panels = plt.subplots(1, 2, figsize=(8.6, 3.4), constrained_layout=True)
    titles = ("gradient of objects, %", f"gradient of elements with g ≥ {OUTLIER}, %")
    for axes, wanted, title in zip(panels, (_of_objects, _of_outliers), titles):
        later = 0.0
        for loss in _names(table, "loss"):
            rows = _of(table, loss=loss, seed=_names(_of(table, loss=loss), "seed")[0])
            epochs = _names(rows, "epoch")
            shares = [_share(rows, epoch, wanted) for epoch in epochs]
            axes.plot([int(one) for one in epochs], shares, color=COLOURS.get(loss, "black"), label=loss, linewidth=1.3)
            later = max([later, *shares[1:]])
        _axes(axes, "epoch", title)
        axes.set_ylim(0, min(100, 1.2 * later) if wanted is _of_outliers and later else 100)
        _epochs_on(axes)
    _legend(figure, panels[0])
    return figure


def _reference(differences: Rows) -> str:
    """The loss that does not differ from itself."""
    return next(
        loss
        for loss in _names(differences, "loss")
        if not any(abs(float(row[key])) > 0 for row in _of(differences, loss=loss) for key in ("low", "high"))
    )


def test_table(test: Rows, differences: Rows) -> Any:
    """Above, AP50 on test, a dot for each seed. Below, its difference from the reference, with the 95 % interval."""
    columns = [column for column in test[0] if column.startswith("AP50 ")]
    names = _names(test, "loss")
    reference = _reference(differences)
    figure, panels = plt.subplots(
        2, len(columns), figsize=(8.6, 0.62 * len(names) + 1.9), constrained_layout=True, sharey=True, squeeze=False
    )
    for column, (above, below) in zip(columns, panels.T):
        for place, loss in enumerate(names):
            values = 100 * _numbers(_of(test, loss=loss), column)
            above.plot(
                values, np.full(len(values), place), "o", color=COLOURS.get(loss, "black"), markersize=4, alpha=0.8
            )
            row = _of(differences, loss=loss, column=column)[0]
            low, middle, high = (100 * float(row[key]) for key in ("low", "difference", "high"))
            below.plot([low, high], [place, place], color=COLOURS.get(loss, "black"), linewidth=2)
            below.plot(middle, place, "o", color=COLOURS.get(loss, "black"), markersize=4)
        below.axvline(0, color="black", linewidth=0.8)
        above.set_title(column.removeprefix("AP50 "), loc="left", fontsize=10)
        _axes(above, "AP50 on test, %", "")
        _axes(below, f"AP50 − AP50 of {reference}, %", "")
        for axes in (above, below):
            axes.set_yticks(range(len(names)), names, fontsize=8)
            axes.margins(y=0.12)
    panels[0][0].invert_yaxis()
    return figure


def draw(folder: Path) -> None:
    """Writes the pictures beside the CSV files they are made of."""
    log, gradients, test, differences = (
        experiment.read_csv(folder / f"{name}.csv") for name in ("log", "gradients", "test", "differences")
    )
    pictures = {
        "precision": precision_over_training(log),
        "gradient-norms": gradient_norms(gradients),
        "who-gets-the-gradient": who_gets_the_gradient(gradients),
        "test": test_table(test, differences),
    }
    plt.rcParams["svg.hashsalt"] = "tare"
    for name, figure in pictures.items():
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)
