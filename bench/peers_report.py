# SPDX-License-Identifier: Apache-2.0
"""What peers.py prints and draws for people."""


def title(report, times):
    shape = f"{report['rows']:,} {times} {report['classes']:,} {report['dtype']}"
    return f"Loss and gradient of {shape} on {report['device_name']}"


def milliseconds(times):
    return f"{times['median_ms']:10.3f}{times['p20_ms']:10.3f}{times['p80_ms']:10.3f}"


def print_table(report):
    print(title(report, "x"))
    print(f"{report['rounds']} rounds", end="")
    if report["threads"]:
        print(f", {report['threads']} threads of PyTorch; JAX takes all cores", end="")
    print("\n")
    print(f"{'loss':<14}{'by':<52}{'ms':>10}{'p20':>10}{'p80':>10}{'x Tare':>9}{'gradient off by':>17}")
    copy = report["copy"]
    print(f"{'':<14}{'a plain copy of the logits':<52}{milliseconds(copy)}")
    tares = {loss["family"]: loss["median_ms"] for loss in report["losses"] if loss["label"] == "Tare"}
    for loss in report["losses"]:
        ours = tares.get(loss["family"])
        times = f"{loss['median_ms'] / ours:.2f}" if ours else ""
        error = "" if loss["gradient_error"] is None else f"{loss['gradient_error']:.1e}"
        print(f"{loss['family']:<14}{loss['label']:<52}{milliseconds(loss)}{times:>9}{error:>17}")
    print()
    if report["log_softmax"]:
        print(f"PyTorch's own log_softmax is {report['log_softmax']} here.")
    for entry in report["left_out"]:
        print(f"left out: {entry['family']}: {entry['label']} ({entry['why']})")
    if not report["noise"]["trusted"]:
        print(
            "The copies vary a lot from round to round: other work keeps this machine busy. Do not trust these times."
        )


def pyplot():
    """matplotlib, for files alone."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw(report, path):
    """A bar for each contender, by loss; a line for the plain copy; below, who is left out."""
    plt = pyplot()
    families = list(dict.fromkeys(loss["family"] for loss in report["losses"]))
    places, names, place = [], [], 0.0
    figure, axes = plt.subplots(figsize=(9, 1.6 + 0.3 * len(report["losses"]) + 0.3 * len(families)))
    for family in families:
        for loss in (loss for loss in report["losses"] if loss["family"] == family):
            median = loss["median_ms"]
            whisker = [[median - loss["p20_ms"]], [loss["p80_ms"] - median]]
            axes.barh(place, median, color="#7b3fa0" if loss["label"] == "Tare" else "#bbbbbb")
            axes.errorbar(median, place, xerr=whisker, color="black", linewidth=1)
            axes.text(loss["p80_ms"] * 1.06, place, f"{median:.3g}", va="center", fontsize=8)
            places.append(place)
            names.append(f"{family}: {loss['label']}")
            place += 1
        place += 0.6
    axes.axvline(report["copy"]["median_ms"], color="#777777", linestyle="--", linewidth=1)
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("milliseconds: median, and 20th to 80th percentile; dashed: a plain copy of the logits", fontsize=8)
    axes.set_title(title(report, "\N{MULTIPLICATION SIGN}"), fontsize=11)
    left_out = ", ".join(dict.fromkeys(entry["label"] for entry in report["left_out"]))
    if left_out:
        figure.text(0.01, 0.005, f"Left out: {left_out}.", fontsize=7, wrap=True)
    figure.savefig(path, bbox_inches="tight", dpi=150)
