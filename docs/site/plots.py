# SPDX-License-Identifier: Apache-2.0
"""The pictures of the site. A page names one by the directive `picture`. They are drawn when the site is built.
draw.py draws one into a file.

One meaning a colour, as in the tool's pictures (tool/base/picture.h): blue for objects (positives), orange for
background (negatives), grey for cross-entropy and other libraries, green for focal loss, purple for the loss that the
picture is about.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import tare

sys.path.insert(0, str(Path("site").resolve()))
import curves

OBJECTS, BACKGROUND, GREY = "#1f6fb4", "#d9730d", "#8a8a8a"
FOCAL, LOSS = "#2f7d4f", "#7b3fa0"
RAMP = ["#b3cde3", "#6fa8dc", "#1f6fb4", "#0b3d6b", "#000000"]


def _axes(axes, x, y):
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _pair(width=8.6, height=3.2):
    figure, pair = plt.subplots(1, 2, figsize=(width, height), constrained_layout=True)
    return figure, pair


def _row_of(axes, loss):
    """Loss and gradient of one loss beside those of its family's cross-entropy."""
    p = curves.probabilities()
    if curves.family_of(loss) == curves.REGRESSION:
        curve = curves.differences(loss)
        for one, values in zip(axes, (curve.loss / curve.loss.max(), curve.gradient / curve.gradient.max())):
            one.plot(curve.at, values, color=OBJECTS)
        _axes(axes[0], "prediction − target", "loss, largest = 1")
        _axes(axes[1], "prediction − target", "size of the gradient, largest = 1")
        return
    plain = "softmax-ce" if curves.family_of(loss) == curves.SOFTMAX else "sigmoid-ce"
    reference = curves.positive(plain, p)
    found = [curve for curve in (curves.positive(loss, p), curves.negative(loss, p)) if curve is not None]
    scale = 1 / found[0].gradient.max() if loss == "ghm-c" else 1.0  # its size depends on the number of elements
    for one, field in zip(axes, ("loss", "gradient")):
        one.plot(p, getattr(reference, field), color=GREY, linestyle="--", linewidth=1, label="cross-entropy, t = 1")
        for curve, colour in zip(found, (OBJECTS, BACKGROUND)):
            one.plot(curve.at, scale * getattr(curve, field), color=colour, label=curve.name)
        one.set_xlim(0, 1)
    axes[0].set_ylim(0, 5)
    axes[1].set_ylim(0, 1.7)
    _axes(axes[0], "p, the probability of the class", "loss")
    _axes(axes[1], "p, the probability of the class", "size of the gradient")


def every_loss():
    """One row of pictures for each loss of the library, with its default parameters."""
    names = list(tare.losses())
    _, grid = plt.subplots(len(names), 2, figsize=(8.6, 2.7 * len(names)), constrained_layout=True)
    for axes, name in zip(grid, names):
        try:
            _row_of(axes, name)
        except ValueError as error:  # a loss that needs more than one row with a label; curves.needed says what
            axes[0].text(0.02, 0.5, f"no picture: {error}", wrap=True, fontsize=8)
        axes[0].set_title(name, loc="left", fontweight="bold")
        if axes[0].get_legend_handles_labels()[0]:
            axes[0].legend(fontsize=7, loc="upper center", frameon=False)


def focal_gammas():
    p = curves.probabilities()
    _, (left, right) = _pair()
    for gamma, colour in zip((0.0, 0.5, 1.0, 2.0, 5.0), RAMP):
        curve = curves.positive("sigmoid-focal", p, gamma=gamma, alpha=-1.0)
        name = f"γ = {gamma:g}" + (", cross-entropy" if gamma == 0 else "")
        left.plot(p, curve.loss, color=colour, label=name)
        right.plot(p, curve.gradient, color=colour)
    left.set_ylim(0, 5)
    left.legend(fontsize=8)
    _axes(left, "p, the probability of the right answer", "loss")
    _axes(right, "p, the probability of the right answer", "size of the gradient")


def scored():
    """Where the losses with scores are at rest: the gradient of a label with score 0.7."""
    p = curves.probabilities()
    names = [name for name in tare.losses() if name in SCORED]
    _, axes = plt.subplots(figsize=(6.4, 3.4), constrained_layout=True)
    score = np.full(len(p), 0.7)
    for name, colour in zip(names, (LOSS, "#00838f", "#c0392b", "#000000")):
        x = np.log(p) - np.log1p(-p)
        found = tare.evaluate(name, x[:, None], np.zeros(len(p), np.int32), scores=score)
        axes.plot(p, found.gradient[:, 0], color=colour, label=name)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axvline(0.7, color=GREY, linestyle=":", linewidth=1)
    axes.set_xlim(0, 1)
    axes.legend(fontsize=8)
    _axes(axes, "p, the probability of the class", "gradient of the label's element")


SCORED = ("sigmoid-varifocal", "sigmoid-quality-focal", "sigmoid-matchability", "sigmoid-iou-aware")


def ghm_batch():
    """A batch's gradient norms, and which norms the whole gradient comes from."""
    logits, labels = curves.batch()
    bins, norms = 10, curves.gradient_norms(logits, labels)
    centres = (np.arange(bins) + 0.5) / bins
    figure, (left, right) = _pair(9.2, 3.6)
    is_object = np.zeros(logits.shape, bool)
    is_object[labels >= 0, labels[labels >= 0]] = True
    for mask, colour, name in ((~is_object, BACKGROUND, "target 0"), (is_object, OBJECTS, "target 1")):
        counts = np.histogram(norms[mask], bins, (0, 1))[0]
        shift = 0.02 if mask is is_object else -0.02
        left.bar(centres + shift, counts, 0.038, color=colour, label=name)
    left.set_yscale("log")
    left.legend(fontsize=8)
    _axes(left, "gradient norm g = |p − t|", "elements, log scale")
    drawn = (("sigmoid-ce", GREY, "s"), ("sigmoid-focal", FOCAL, "^"), ("ghm-c", LOSS, "o"))
    for name, colour, marker in drawn:
        share = 100 * curves.share_by_norm(name, logits, labels, bins)
        right.plot(centres, share, color=colour, marker=marker, label=name)
    left.set_xlim(0, 1)
    right.set_xlim(0, 1)
    right.set_ylim(0)
    right.legend(fontsize=8)
    _axes(right, "gradient norm g = |p − t|", "share of the whole gradient, %")
    figure.align_ylabels()


def class_weights():
    """Class-balanced weights of a long tail for some beta."""
    counts = curves.long_tail()
    _, (left, right) = _pair()
    left.plot(np.arange(1, len(counts) + 1), counts, color=OBJECTS)
    left.set_yscale("log")
    _axes(left, "class, the most frequent first", "samples, log scale")
    for beta, colour in zip((0.9, 0.99, 0.999, 0.9999), RAMP[1:]):
        right.plot(counts, tare.class_balanced_weights(counts, beta), color=colour, label=f"β = {beta:g}")
    right.set_xscale("log")
    right.set_yscale("log")
    right.legend(fontsize=8)
    _axes(right, "samples of the class, log scale", "weight, log scale")


def speed():
    """Loss and gradient beside PyTorch, as bench/results has them."""
    results = curves.measured("peers-100000x80-f32.json")
    families = list(dict.fromkeys(one["family"] for one in results["losses"]))
    _, axes = plt.subplots(figsize=(8.0, 4.2), constrained_layout=True)
    place, ticks, names = 0, [], []
    for family in families:
        found = [one for one in results["losses"] if one["family"] == family and one.get("median_ms")]
        if len(found) == 1:
            continue  # nothing to compare with
        for one in found:
            ours = one["label"] == "Tare"
            axes.barh(place, one["median_ms"], color=LOSS if ours else GREY)
            axes.text(one["median_ms"] * 1.06, place, f"{one['median_ms']:.1f}", va="center", fontsize=8)
            ticks.append(place)
            names.append(f"{family}: {one['label']}")
            place += 1
        place += 0.6
    axes.axvline(results["copy"]["median_ms"], color="black", linestyle=":", linewidth=1)
    axes.text(results["copy"]["median_ms"] * 1.05, -1.0, "a plain copy of the logits", fontsize=8)
    axes.set_yticks(ticks, names, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(1, 600)
    axes.set_xticks([1, 10, 100], ["1", "10", "100"])
    axes.invert_yaxis()
    _axes(axes, "milliseconds for loss and gradient, log scale", "")
