# SPDX-License-Identifier: Apache-2.0
"""The comparison: a grid for each loss on val, more seeds of the best setting, and then one look at test."""

from __future__ import annotations

import contextlib
import csv
import multiprocessing
import queue
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from tqdm import tqdm

from . import bootstrap, data, score, train, voc


@dataclass(frozen=True)
class Comparison:
    """losses: keys of losses.SETTINGS. The grid of rates and weights is trained with the first seed, chosen on val, and
    what won is trained with the other seeds. jobs: trainings at a time, one thread each; no result depends on it."""

    losses: list[str]
    rates: list[float]
    weights: list[float]
    seeds: list[int]
    plan: train.Plan
    folder: Path
    jobs: int = 2
    reference: str = "focal-2"  # of the differences; the first loss if it is not among them
    resamples: int = 1000

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def grid(self) -> list[train.Run]:
        return [train.Run(*one, self.seeds[0]) for one in product(self.losses, self.rates, self.weights)]


_epochs: Any = None  # of a worker: a queue that gets a 1 after each epoch


def _start_worker(epochs: Any) -> None:
    global _epochs
    _epochs = epochs
    train.deterministic()


def _work(run: train.Run, plan: train.Plan, folder: Path) -> None:
    train.train(run, plan, folder, report=lambda: _epochs.put(1))


def _epochs_done(run: train.Run, folder: Path) -> int:
    path = folder / run.name / "log.csv"
    return len(read_csv(path)) if path.exists() else 0


def train_all(runs: list[train.Run], comparison: Comparison, title: str) -> None:
    """Trains what is not trained yet. Ctrl-C is safe: the next call goes on after the last epoch of each run."""
    plan, folder = comparison.plan, comparison.runs
    done = {run: _epochs_done(run, folder) for run in runs}
    rest = [run for run in runs if done[run] < plan.epochs]
    with tqdm(total=plan.epochs * len(runs), initial=sum(done.values()), desc=title, unit="epoch") as bar:
        if comparison.jobs > 1 and len(rest) > 1:
            _train_at_a_time(rest, comparison, bar)
            return
        for run in rest:
            train.train(run, plan, folder, report=bar.update)


def _train_at_a_time(rest: list[train.Run], comparison: Comparison, bar: tqdm) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        epochs = manager.Queue()
        with ProcessPoolExecutor(comparison.jobs, context, _start_worker, (epochs,)) as pool:
            _follow([pool.submit(_work, run, comparison.plan, comparison.runs) for run in rest], epochs, bar)


def _follow(futures: list[Any], epochs: Any, bar: tqdm) -> None:
    """Until all are done, or one has failed."""
    try:
        for future in futures:
            while not future.done():
                with contextlib.suppress(queue.Empty):
                    bar.update(epochs.get(timeout=1))
            future.result()  # raises what the worker raised
        bar.update(bar.total - bar.n)  # what is still in the queue
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def on_val(run: train.Run, comparison: Comparison) -> dict[str, float]:
    """The last line of a run's log."""
    last = read_csv(comparison.runs / run.name / "log.csv")[-1]
    return {key: float(value) for key, value in last.items() if value}


def chosen(comparison: Comparison) -> dict[str, train.Run]:
    """Of each loss the run of the grid with the highest AP on val; the first of equals."""
    best: dict[str, train.Run] = {}
    for run in comparison.grid():
        if run.loss not in best or on_val(run, comparison)["AP"] > on_val(best[run.loss], comparison)["AP"]:
            best[run.loss] = run
    return best


def _with_seeds(best: dict[str, train.Run], comparison: Comparison) -> list[train.Run]:
    return [train.Run(run.loss, run.rate, run.weight, seed) for run in best.values() for seed in comparison.seeds]


def _tested(runs: list[train.Run], comparison: Comparison) -> Iterator[tuple[train.Run, Any]]:
    """The comparison of each run's detections with the test split."""
    source = comparison.plan.source
    known = data.load(source)
    split = voc.read(source.folder, "test", known.classes, source.size, source.limit)
    for run in tqdm(runs, desc="test", unit="run"):
        network = train.Training(run, comparison.plan, comparison.runs).network
        found = score.detections(network, known.grid, split.images, len(known.classes))
        yield run, score.compared(found, split, known.classes)


def _gathered(runs: list[train.Run], name: str, comparison: Comparison) -> list[dict[str, Any]]:
    """A CSV file of each run as one table."""
    return [
        {"loss": run.loss, "seed": run.seed, **row}
        for run in runs
        for row in read_csv(comparison.runs / run.name / name)
    ]


def _write_training(best: dict[str, train.Run], runs: list[train.Run], comparison: Comparison) -> None:
    """The whole grid, the logs of what was chosen, and the gradients of the first seed, which the pictures show."""
    grid, folder = comparison.grid(), comparison.folder
    rows = [{**vars(run), "chosen": int(best[run.loss] == run), **on_val(run, comparison)} for run in grid]
    train.write_csv(folder / "grid.csv", rows)
    train.write_csv(folder / "log.csv", _gathered(runs, "log.csv", comparison))
    first = [run for run in runs if run.seed == comparison.seeds[0]]
    rows = _gathered(first, "gradients.csv", comparison)
    for row in rows:
        row |= {key: f"{float(value):.6g}" for key, value in row.items() if key.endswith("_gradient")}
    train.write_csv(folder / "gradients.csv", rows)


def _write_test(runs: list[train.Run], comparison: Comparison) -> None:
    classes = data.load(comparison.plan.source).classes
    table, matches = [], {}
    for run, found in _tested(runs, comparison):
        table.append({**vars(run), **score.average_precision(found, classes)})
        matches[run] = bootstrap.matches(found)
    train.write_csv(comparison.folder / "test.csv", table)
    by_loss = {loss: [matches[run] for run in runs if run.loss == loss] for loss in comparison.losses}
    reference = comparison.reference if comparison.reference in by_loss else comparison.losses[0]
    rows = bootstrap.differences(by_loss, reference, classes, comparison.resamples)
    train.write_csv(comparison.folder / "differences.csv", rows)


def compare(comparison: Comparison) -> None:
    """Everything. Test is read after every choice has been made on val."""
    train.deterministic()
    comparison.folder.mkdir(parents=True, exist_ok=True)
    train_all(comparison.grid(), comparison, "grid")
    best = chosen(comparison)
    runs = _with_seeds(best, comparison)
    train_all(runs, comparison, "seeds")
    _write_training(best, runs, comparison)
    _write_test(runs, comparison)
