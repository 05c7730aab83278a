#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains a small detector, of RetinaNet's kind, with each of Tare's losses, and compares them on real images.

    pip install . torch -r examples/detector/requirements.txt
    python examples/train_detector.py VOC --quick           four losses, one seed: minutes on two cores
    python examples/train_detector.py VOC                   eleven losses, three seeds: an hour or two on two cores
    python examples/train_detector.py VOC --losses focal-2 --rates 0.004 --weights 1 --seeds 0    one training

VOC is a folder in Pascal VOC's layout. The results are CSV files and pictures in the folder --out. The same command
again goes on with a comparison that was interrupted. On one machine the losses are the same bit for bit each time,
however many trainings run at a time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

QUICK = ["ce", "focal-2", "cb-focal-2", "ghm-c"]


def parsed(words: list[str], known: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voc", type=Path, metavar="VOC", help="folder with ImageSets, Annotations and JPEGImages")
    parser.add_argument("--out", type=Path, default=Path("detector-results"), help="folder of the results")
    parser.add_argument("--quick", action="store_true", help=f"the losses {', '.join(QUICK)}, and one seed")
    parser.add_argument("--losses", nargs="+", choices=known, metavar="LOSS", help=f"some of {', '.join(known)}")
    parser.add_argument("--seeds", nargs="+", type=int, help="the first trains the grid (default 0 1 2; quick: 0)")
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-3, 3e-3], help="learning rates of the grid")
    parser.add_argument("--weights", nargs="+", type=float, default=[1.0, 4.0], help="loss weights of the grid")
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        default=[144, 192],
        metavar=("HEIGHT", "WIDTH"),
        help="images are reduced to this; multiples of 16",
    )
    parser.add_argument("--epochs", type=int, help="of each training (default 24; quick: 8)")
    parser.add_argument("--batch", type=int, default=4, help="images in a step")
    parser.add_argument("--limit", type=int, help="only so many images of each split, to try it")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, one thread each")
    parser.add_argument("--resamples", type=int, default=1000, help="of the test images, for the intervals")
    parser.add_argument("--plots-only", action="store_true", help="draw the results that are there")
    given = parser.parse_args(words)
    if any(side < 16 or side % 16 for side in given.size):
        parser.error(f"--size is {given.size[0]} {given.size[1]}; both must be multiples of 16")
    for name in ("epochs", "batch", "jobs", "limit", "resamples"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            parser.error(f"--{name} is {getattr(given, name)}; it must be 1 or more")
    return given


def main(words: list[str]) -> int:
    try:
        from detector import data, experiment, losses, plots, record, train
    except ModuleNotFoundError as error:
        print(f"{error.name} is missing: pip install . torch -r examples/detector/requirements.txt", file=sys.stderr)
        return 1
    given = parsed(words, list(losses.SETTINGS))
    source = data.Source(given.voc, tuple(given.size), given.limit)
    comparison = experiment.Comparison(
        losses=given.losses or (QUICK if given.quick else list(losses.SETTINGS)),
        rates=given.rates,
        weights=given.weights,
        seeds=given.seeds or ([0] if given.quick else [0, 1, 2]),
        plan=train.Plan(source, given.epochs or (8 if given.quick else 24), given.batch),
        folder=given.out,
        jobs=given.jobs,
        resamples=given.resamples,
    )
    if not given.plots_only:
        experiment.compare(comparison)
        folders = {str(given.voc): "VOC", str(given.out): "RESULTS"}
        record.write(comparison, [folders.get(word, word) for word in words])
    plots.draw(given.out)
    print(record.table(given.out))
    print(f"{given.out}: this table as table.md, CSV files, and pictures as SVG")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
