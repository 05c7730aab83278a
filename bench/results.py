#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the tables of bench/results/<device>-<date>/ from the JSON that ./dev gpu-check leaves there.

  results.py FOLDER             prints FOLDER's README.md: what missed its target, all losses, and the peers
  results.py FOLDER --slowest N prints the arguments of `tare bench` for the N furthest from their targets, one a line

FOLDER holds bench-*.json (tare bench --json), head-*.json (tare bench --head), peers-*.json (bench/peers.py) and
check-*.json (device, driver, toolkit, commit). Figures of an emulated GPU are refused unless --dry-run is given, and
are marked then.
"""

import argparse
import glob
import json
import os
import sys

# The design's targets. A time in microseconds, or a fraction of a plain copy, or a multiple of another time.
SINGLE, HALF = ("f32",), ("f16", "bf16")


def load(folder, pattern):
    found = []
    for path in sorted(glob.glob(os.path.join(folder, pattern))):
        with open(path, encoding="utf-8") as file:
            found.append(json.load(file))
    return found


def layout_of(table):
    """The layout, the file if the logits are a real detector's, and on a CPU what it ran on."""
    words = [table["layout"]]
    if table["distribution"] != "detector":
        words.append(os.path.basename(table["distribution"]))
    if table["device"] == "cpu":
        words.append(f"{table['isa']}, {table['threads']} thread{'s' if table['threads'] > 1 else ''}")
    return ", ".join(words)


class Lane:
    """One loss of one bench-*.json."""

    def __init__(self, table, loss):
        self.table, self.loss = table, loss
        self.kind, self.label, self.dtype = loss["loss"], loss["label"], table["dtype"]
        self.rows, self.classes, self.layout = table["rows"], table["classes"], layout_of(table)
        self.microseconds, self.ratio = loss["median_ms"] * 1e3, loss["copy_ratio"]
        self.balanced = loss["class_balanced"]

    def key(self, **changes):
        own = {
            "label": self.label,
            "dtype": self.dtype,
            "rows": self.rows,
            "classes": self.classes,
            "layout": self.layout,
            **changes,
        }
        return tuple(own.values())

    def arguments(self):
        words = [
            "--loss",
            "cb-focal" if self.balanced else self.kind,
            "--rows",
            self.rows,
            "--classes",
            self.classes,
            "--dtype",
            self.dtype,
            "--layout",
            self.layout,
        ]
        if "gamma" in self.loss:
            words += ["--gamma", self.loss["gamma"]]
        if "bins" in self.loss:
            words += ["--bins", self.loss["bins"]]
        return " ".join(str(word) for word in words)


def target_of(lane, lanes):
    """(what is wanted, how far over it this is: 1 or less is met), or None where the design names no target."""
    if lane.kind == "ghm-r" or lane.table["device"] == "cpu":
        return None
    if lane.layout == "levels":
        flat = lanes.get(lane.key(layout="rows"))
        if lane.rows == 1600000:  # maps of an odd number of positions
            return ("at most 1.35 x flat rows", lane.microseconds / flat.microseconds / 1.35) if flat else None
        return ("within 10 % of flat rows", lane.microseconds / flat.microseconds / 1.1) if flat else None
    if lane.kind in ("sigmoid-ce", "sigmoid-focal") and lane.classes == 80:
        if lane.rows == 100000:
            wanted = 26 if lane.dtype in SINGLE else 15
            return f"at most {wanted} us", lane.microseconds / wanted
        if lane.rows == 1600000:
            wanted = 0.9 if lane.dtype in SINGLE else 0.8
            return f"{wanted:.0%} of copy", wanted / lane.ratio
    if lane.kind in ("sigmoid-ce", "sigmoid-focal", "ghm-c") and lane.classes in (81, 91, 1203):
        of_80 = lanes.get(lane.key(classes=80))
        if of_80 is None:
            return None
        ratio = lane.microseconds / of_80.microseconds * 80 / lane.classes
        return "an element at most 1.35 x that of 80 classes", ratio / 1.35
    if lane.kind in ("softmax-ce", "softmax-focal") and lane.rows == 100000 and lane.classes in (81, 1203):
        return "85% of copy", 0.85 / lane.ratio
    if lane.kind == "ghm-c" and lane.classes == 80 and lane.rows in (100000, 1600000):
        wanted = 1.5 if lane.rows == 100000 else 1.6
        focal = lanes.get(lane.key(label="sigmoid-focal, gamma 2"))
        return (f"at most {wanted} x focal", lane.microseconds / focal.microseconds / wanted) if focal else None
    return None


def place_of(lane):
    return f"{lane.rows:,} x {lane.classes:,} {lane.dtype}, {lane.layout}"


def judged(lanes):
    """(lane, what is wanted, how far over it), the furthest first."""
    found = [(lane, *target) for lane in lanes.values() if (target := target_of(lane, lanes))]
    return sorted(found, key=lambda entry: -entry[2])


def print_table(heading, rows):
    print("| " + " | ".join(heading) + " |")
    print("|" + "---|" * len(heading))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def print_head(checks, tables, dry_run):
    check = checks[0] if checks else {}
    on_gpu = any(table["device"] == "cuda" for table in tables)
    print(f"# {tables[0]['device_name'] if tables else 'no device'}\n")
    if dry_run:
        print("**A dry run on an emulated GPU: these are no measurements.**\n")
    if on_gpu:
        print("Loss and gradient in one call. The second-level cache is flushed before each run; times are the")
        print("device's own, the median and the 20th to 80th percentile. *of copy*: bytes a second over those of a")
        print("plain device copy of the logits in the same run.\n")
    else:
        print(
            "Loss and gradient in one call, caches warm; the median and the 20th to 80th percentile. *of copy*: bytes"
        )
        print("a second over those of a plain copy of the logits by the same number of threads in the same run.\n")
    for name in ("gpu", "nvcc", "machine", "compiler", "commit", "date"):
        if name in check:
            print(f"- {name}: {check[name]}")
    print()


def print_targets(lanes):
    entries = judged(lanes)
    if not entries:
        return
    missed = [entry for entry in entries if entry[2] > 1]
    print(f"## Targets\n\n{len(entries) - len(missed)} of {len(entries)} met. Missed:\n")
    print_table(
        ["loss", "on", "wanted", "us", "of copy", "over by"],
        [
            [lane.label, place_of(lane), wanted, f"{lane.microseconds:.1f}", f"{lane.ratio:.2f}", f"{over - 1:.0%}"]
            for lane, wanted, over in missed
        ]
        or [["none", "", "", "", "", ""]],
    )


def cell(times, ratio):
    return f"{times['median_ms'] * 1e3:.1f} ({times['p20_ms'] * 1e3:.1f}-{times['p80_ms'] * 1e3:.1f}), {ratio:.2f}"


def print_losses(tables):
    groups = {}
    for table in tables:
        groups.setdefault((layout_of(table), table["classes"], table["dtype"]), {})[table["rows"]] = table
    for (layout, classes, dtype), by_rows in sorted(
        groups.items(), key=lambda item: (not item[0][0].startswith("rows"), item[0])
    ):
        sizes = sorted(by_rows)
        print(f"## {classes:,} classes, {dtype}, {layout}\n")
        labels = []
        for size in sizes:
            labels += [loss["label"] for loss in by_rows[size]["losses"] if loss["label"] not in labels]
        rows = [["plain copy"] + [cell(by_rows[size]["copy"], 1) for size in sizes]]
        for label in labels:
            found = [next((loss for loss in by_rows[size]["losses"] if loss["label"] == label), None) for size in sizes]
            rows.append([label] + [cell(loss, loss["copy_ratio"]) if loss else "" for loss in found])
        print_table(["us (p20-p80), of copy"] + [f"{size:,} rows" for size in sizes], rows)


def print_heads(heads):
    if not heads:
        return
    print("## The fused head\n")
    print("Classifier, loss and gradients without the logits, beside a product, the loss, and two products by the same")
    print("BLAS. *of products*: the time of the three products alone over the fused time. MB: measured peaks of")
    print("memory beyond inputs and outputs.\n")
    rows = [
        [
            f"{table['rows']:,} x {table['dimensions']:,} x {table['classes']:,} {table['dtype']}",
            loss["label"],
            f"{loss['fused']['median_ms']:.2f}",
            f"{loss['unfused']['median_ms']:.2f}",
            f"{loss['of_products']:.2f}",
            f"{loss['fused']['peak_bytes'] / 1e6:,.1f}",
            f"{loss['unfused']['peak_bytes'] / 1e6:,.1f}",
        ]
        for table in heads
        for loss in table["losses"]
    ]
    heading = ["rows x features x classes", "loss", "fused ms", "unfused ms", "of products", "fused MB", "unfused MB"]
    print_table(heading, rows)


def print_peers(peers):
    if not peers:
        return
    print("## Beside others\n")
    print("Same process, same tensors, same clock. Targets are made before it starts.")
    print("*differs*: the difference from Tare's loss, as a fraction. (mmdetection divides by the number of non-empty")
    print("bins. The sum of a half type has few digits.)")
    print("*gradient off by*: the worst relative error of an element, against the formula in double.\n")
    for table in peers:
        print(f"### {table['rows']:,} x {table['classes']:,} {table['dtype']}, torch {table['torch']}\n")
        tares = {loss["family"]: loss["median_ms"] for loss in table["losses"] if loss["label"] == "Tare"}
        rows = [["", "plain copy", cell(table["copy"], 1), "", "", "", ""]]
        for loss in table["losses"]:
            times = loss["median_ms"] / tares[loss["family"]] if loss["family"] in tares else None
            differs, peak = loss["differs_from_tare"], loss["peak_bytes"]
            rows.append(
                [
                    loss["family"],
                    loss["label"],
                    cell(loss, loss["copy_ratio"]),
                    f"{times:.2f}" if times else "",
                    "inf" if differs is None else f"{differs:.1e}",
                    f"{error:.1e}" if (error := loss.get("gradient_error")) is not None else "",
                    f"{peak / 1e6:,.0f}" if peak is not None else "",
                ]
            )
        print_table(["loss", "by", "us (p20-p80), of copy", "x Tare", "differs", "gradient off by", "peak MB"], rows)
        for entry in table["left_out"]:
            print(f"- left out: {entry['label']} ({entry['why']})")
        print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--slowest", type=int, metavar="N")
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    tables = load(options.folder, "bench-*.json")
    if not options.dry_run and any("emulated" in table["device_name"].lower() for table in tables):
        sys.exit("results.py: these are figures of an emulated GPU")
    if not tables:
        sys.exit(f"results.py: no bench-*.json in {options.folder}")
    every = [Lane(table, loss) for table in tables for loss in table["losses"]]
    lanes = {lane.key(): lane for lane in every}
    if options.slowest is None:
        print_head(load(options.folder, "check-*.json"), tables, options.dry_run)
        print_targets(lanes)
        print_losses(tables)
        print_heads(load(options.folder, "head-*.json"))
        print_peers(load(options.folder, "peers-*.json"))
        return
    order = [lane for lane, _, _ in judged(lanes) if "," not in lane.layout]
    order = order or sorted(every, key=lambda lane: lane.ratio)
    for lane in order[: options.slowest]:
        print(lane.arguments())


if __name__ == "__main__":
    main()
