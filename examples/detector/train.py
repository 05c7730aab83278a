# SPDX-License-Identifier: Apache-2.0
"""One training, which can be interrupted after any epoch and goes on bit for bit as if it had not been."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from . import anchors, data, gradients, losses, model, score

PROBE = 16  # training images whose gradient is looked at


@dataclass(frozen=True)
class Run:
    """What is trained. loss: a key of losses.SETTINGS. weight: of the classification loss, beside the boxes' loss."""

    loss: str
    rate: float
    weight: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.loss}-rate{self.rate:g}-weight{self.weight:g}-seed{self.seed}"


@dataclass(frozen=True)
class Plan:
    """How every run is trained. looks: how often AP on val and the gradient are measured."""

    source: data.Source
    epochs: int
    batch: int = 4
    looks: int = 4


class Training:
    """Network, loss and optimizer of one run, and what was logged."""

    def __init__(self, run: Run, plan: Plan, folder: Path) -> None:
        self.run, self.plan, self.folder = run, plan, folder / run.name
        self.data = data.load(plan.source)
        torch.manual_seed(run.seed)
        self.network = model.Detector(len(self.data.classes), self.data.grid.per_level)
        self.network.to(memory_format=torch.channels_last)
        self.loss = losses.DetectionLoss(run.loss, self.data.counts, run.weight)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), run.rate, weight_decay=1e-4)
        self.epoch, self.log, self.histograms = 0, [], []
        self._load()

    # ---- steps ------------------------------------------------------------------------------------------------------

    def _set_rate(self, step: int, steps: int) -> None:
        """A linear start over the first twentieth, then half a cosine to 0."""
        start = max(1, steps // 20)
        factor = (step + 1) / start if step < start else (1 + math.cos(math.pi * (step - start) / (steps - start))) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.run.rate * factor

    def _step(self, images: torch.Tensor, labels: torch.Tensor, boxes: torch.Tensor) -> tuple[float, float]:
        """Classification and box loss of a batch."""
        maps, box_maps = self.network(images)
        differences = model.as_rows(box_maps, 4)
        scores = losses.scores_of(differences, self.data.grid, labels, boxes)
        of_classes = self.loss.classification(maps, labels, scores)
        image, row = torch.nonzero(labels >= 0, as_tuple=True)
        targets = anchors.encode(self.data.grid.boxes[row], boxes[image, row])
        of_boxes = self.loss.boxes(differences[image, row], targets)
        self.optimizer.zero_grad()
        (self.run.weight * of_classes + of_boxes).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        self.optimizer.step()
        return of_classes.item(), of_boxes.item()

    def train_epoch(self) -> None:
        self.network.train()
        images, flips = data.order(self.run.seed, self.epoch, len(self.data.train))
        parts = list(zip(images.split(self.plan.batch), flips.split(self.plan.batch)))
        sums = [0.0, 0.0]
        for k, (rows, flip) in enumerate(parts):
            self._set_rate(self.epoch * len(parts) + k, self.plan.epochs * len(parts))
            found = self._step(*data.batch(self.data, rows, flip))
            sums = [one + other / len(parts) for one, other in zip(sums, found)]
        self.epoch += 1
        self.log.append({"epoch": self.epoch, "class_loss": sums[0], "box_loss": sums[1]})

    # ---- looks ------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """AP on val, and the gradient's histogram, at the present epoch."""
        found = score.detections(self.network, self.data.grid, self.data.val.images, len(self.data.classes))
        compare = score.compared(found, self.data.val, self.data.classes)
        self.log[-1] |= score.average_precision(compare, self.data.classes)
        self._look_at_gradient()

    def _look_at_gradient(self) -> None:
        rows = torch.arange(min(PROBE, len(self.data.train)))
        probe = data.batch(self.data, rows, torch.zeros_like(rows))
        table = gradients.measure(self.network, self.loss, self.data.grid, probe)
        self.histograms += [{"epoch": self.epoch, **row} for row in table]

    def is_time_to_look(self) -> bool:
        """The last epoch, and others spread evenly."""
        before, now = ((epoch * self.plan.looks) // self.plan.epochs for epoch in (self.epoch - 1, self.epoch))
        return now > before

    # ---- files ------------------------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        return {
            **asdict(self.run),
            "epochs": self.plan.epochs,
            "batch": self.plan.batch,
            "looks": self.plan.looks,
            "size": list(self.plan.source.size),
            "limit": self.plan.source.limit,
        }

    def _load(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        saved = torch.load(path, weights_only=True)
        if saved["settings"] != self._settings():
            raise ValueError(f"{path} is of a training with other settings: {saved['settings']}; give another --out")
        self.network.load_state_dict(saved["network"])
        self.loss.load_state_dict(saved["loss"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.epoch, self.log, self.histograms = saved["epoch"], saved["log"], saved["histograms"]

    def save(self) -> None:
        """The checkpoint is replaced as a whole; the CSV files follow from it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        saved = dict(
            network=self.network.state_dict(),
            loss=self.loss.state_dict(),
            log=self.log,
            optimizer=self.optimizer.state_dict(),
            epoch=self.epoch,
            histograms=self.histograms,
            settings=self._settings(),
        )
        torch.save(saved, self.folder / "checkpoint.tmp")
        os.replace(self.folder / "checkpoint.tmp", self.folder / "checkpoint.pt")
        write_csv(self.folder / "log.csv", self.log)
        write_csv(self.folder / "gradients.csv", self.histograms)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Columns are those of all rows, in the order in which they come."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def deterministic() -> None:
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # another number of threads adds in another order
    torch.utils.deterministic.fill_uninitialized_memory = False  # a guard for code that reads such memory; slow


def train(run: Run, plan: Plan, folder: Path, report: Callable[[], object] = lambda: None) -> Training:
    """Trains to the end, or returns what was trained before. report is called after each epoch."""
    deterministic()
    training = Training(run, plan, folder)
    if not training.histograms:
        training._look_at_gradient()
    for _ in range(training.epoch, plan.epochs):
        training.train_epoch()
        if training.is_time_to_look():
            training.look()
        training.save()
        report()
    return training
