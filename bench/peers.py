#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times Tare and the libraries that people use today, in one run, on the same tensors.

Every contender computes loss and gradient by the logits from tensors that lie there, the targets in the form it wants
(made before the clock starts). In every round each runs once, between two plain copies of the logits, on a GPU after
the second-level cache has been flushed, timed by events and without the host's time. What is not installed is named
under "left_out" and on standard error. Before the clock starts, the loss of each is compared with Tare's. Prints one
JSON object in the shape of `tare bench --json`, or a table. On a CPU it also says whether PyTorch's own log_softmax is
oneDNN's or native.

  peers.py --library build/libtare.so [--rows N] [--classes C] [--dtype f32|f16|bf16] [--device cuda|cpu] [--repeat R]
           [--losses sigmoid|softmax|all] [--without TEXT]... [--table] [--plot FILE]
"""

import argparse
import json
import math
import sys
import time
import warnings
from importlib import metadata

import torch
from contenders import DTYPES, Contenders, Tare, add_sigmoid, add_softmax
from cpu_peers import add_onednn, add_optax_sigmoid, add_optax_softmax, log_softmax_by
from peers_report import draw, print_table, pyplot
from times import CONFIDENCE, figures, noise, quantile, relative

# ---- the batch ------------------------------------------------------------------------------------------------------


class Batch:
    """A detector's logits: N(-4.6, 1.5), 0.5 % positives with N(0.5, 2) at their class, the rest background."""

    def __init__(self, rows, classes, dtype, device):
        draw = torch.Generator().manual_seed(1)
        distinct = min(rows, max(1, 2**24 // classes))
        logits = torch.randn(distinct, classes, generator=draw) * 1.5 - 4.6
        positive = torch.rand(distinct, generator=draw) < 0.005
        place = torch.rand(distinct, generator=draw)
        labels = torch.where(positive, (classes * place * place).long(), torch.full_like(place, -1).long())
        at = positive.nonzero().squeeze(1)
        logits[at, labels[at]] = torch.randn(len(at), generator=draw) * 2 + 0.5
        repeats = -(-rows // distinct)
        self.rows, self.classes, self.dtype = rows, classes, dtype
        self.logits = logits.to(device, DTYPES[dtype][1]).repeat(repeats, 1)[:rows].contiguous()
        self.labels = labels.to(device).repeat(repeats)[:rows].contiguous()
        self.labels32 = self.labels.int()
        self.background_last = torch.where(self.labels < 0, torch.full_like(self.labels, classes), self.labels)
        # Softmax losses: background is the last class.
        self.softmax = torch.where(self.labels < 0, torch.full_like(self.labels, classes - 1), self.labels)
        self.softmax32 = self.softmax.int()
        self.leaf = self.logits.detach().clone().requires_grad_(True)
        self._onehot = None

    @property
    def onehot(self):
        if self._onehot is None:
            wide = torch.zeros(self.rows, self.classes + 1, dtype=self.logits.dtype, device=self.logits.device)
            wide.scatter_(1, self.background_last[:, None], 1)
            self._onehot = wide[:, : self.classes].contiguous()
        return self._onehot

    def backward(self, loss):
        (gradient,) = torch.autograd.grad(loss, self.leaf)
        return loss, gradient


# ---- measuring ------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self, device):
        self.gpu = device == "cuda"
        if self.gpu:
            self.cache = torch.cuda.get_device_properties(0).L2_cache_size
            self.scratch = torch.empty(4 * self.cache, dtype=torch.uint8, device=device)
            self.start = torch.cuda.Event(enable_timing=True)
            self.stop = torch.cuda.Event(enable_timing=True)

    def wait(self):
        """Keeps the GPU busy for a millisecond, in which all that a run puts on the stream gets there: what is timed is
        the GPU's work, not the host's, which is in favour of those with many launches."""
        if hasattr(torch.cuda, "_sleep"):
            torch.cuda._sleep(2_000_000)

    def milliseconds(self, run):
        if not self.gpu:
            before = time.perf_counter()
            run()
            return (time.perf_counter() - before) * 1e3
        self.scratch.fill_(90)
        self.scratch.amax()  # reads: what was written leaves the cache before the clock starts
        self.wait()
        self.start.record()
        run()
        self.stop.record()
        self.stop.synchronize()
        return self.start.elapsed_time(self.stop)


def measure(contenders, batch, clock, repeat):
    """Times of each contender, and of the copies before and after them."""
    target = torch.empty_like(batch.logits)

    def copy():
        target.copy_(batch.logits)

    first, last, times = [], [], [[] for _ in contenders]
    for number in range(repeat + 3):
        lane = [clock.milliseconds(copy)] + [clock.milliseconds(c["run"]) for c in contenders]
        after = clock.milliseconds(copy)
        if number < 3:
            continue  # warming up
        first.append(lane[0])
        last.append(after)
        for of, taken in zip(times, lane[1:]):
            of.append(taken)
    return first, last, times


def peak_bytes(run):
    """The most memory that a contender allocates on the GPU."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def finite(value):
    """JSON has no infinity: a sum in f16 overflows."""
    return value if math.isfinite(value) else None


def loss_report(batch, contender, times, copies, rate, reference):
    """`rate` is the copy's in GB/s, `reference` Tare's value of the same loss."""
    median = quantile(times, 0.5)
    gigabytes = (2 * batch.logits.numel() * batch.logits.element_size() + 4 * batch.rows) / median * 1e-6
    value, error = contender["value"], contender["gradient_error"]
    return {
        "label": contender["label"],
        "loss": contender["loss"],
        "family": contender["family"],
        **figures(times),
        "relative_time": relative(times, copies),
        "ns_per_element": median * 1e6 / batch.logits.numel(),
        "gigabytes_per_second": gigabytes,
        "copy_ratio": gigabytes / rate,
        "value": finite(value),
        "differs_from_tare": finite(abs(value - reference) / abs(reference)) if reference else None,
        "gradient_error": finite(error) if error is not None else None,
        "peak_bytes": peak_bytes(contender["run"]) if batch.logits.is_cuda else None,
    }


def versions():
    """Of the libraries that are installed here, whether or not they were loaded."""
    names = ["torch", "torchvision", "kornia", "optax", "jax", "mmcv", "apex", "liger-kernel"]
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def report(options, batch, contenders, clock, tare):
    first, last, times = measure(contenders.of, batch, clock, options.repeat)
    copies = first + last
    of_round = [(before + after) / 2 for before, after in zip(first, last)]
    moved = 2 * batch.logits.numel() * batch.logits.element_size()
    rate = moved / quantile(copies, 0.5) * 1e-6  # GB/s
    tares = {c["family"]: c["value"] for c in contenders.of if c["label"] == "Tare"}
    losses = [loss_report(batch, c, of, of_round, rate, tares.get(c["family"])) for c, of in zip(contenders.of, times)]
    copy = {**figures(copies), "first_ms": quantile(first, 0.5), "last_ms": quantile(last, 0.5)}
    return {
        "program": "peers.py",
        "benchmark": "peers",
        "command": sys.argv,
        "version": tare.version(),
        "build": tare.build(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "torch": torch.__version__,
        "versions": versions(),
        "device": options.device,
        "device_name": torch.cuda.get_device_name() if clock.gpu else cpu_name(),
        "threads": None if clock.gpu else torch.get_num_threads(),
        "dtype": options.dtype,
        "rows": batch.rows,
        "classes": batch.classes,
        "layout": "rows",
        "in_place": False,
        "distribution": "detector",
        "logits_bytes": moved // 2,
        "cache": "cold" if clock.gpu else "warm",
        "rounds": options.repeat,
        "noise": noise(copies),
        "confidence": CONFIDENCE,
        "log_softmax": log_softmax_by(batch),
        "copy": {**copy, "gigabytes_per_second": rate},
        "losses": losses,
        "left_out": contenders.left_out,
    }


def cpu_name():
    """As the kernel has it."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return "cpu"


# ---- the command line -----------------------------------------------------------------------------------------------


def at_least(least):
    def read(text):
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"'{text}': expected a whole number from {least}")
        return int(text)

    return read


def picture(path):
    if not path.endswith((".svg", ".png", ".pdf")):
        raise argparse.ArgumentTypeError(f"'{path}': a picture is .svg, .png or .pdf")
    return path


def read_options():
    parser = argparse.ArgumentParser(prog="peers.py", description=__doc__.splitlines()[0])
    parser.add_argument("--library", required=True, help="libtare.so")
    parser.add_argument("--rows", type=at_least(1), default=100000)
    parser.add_argument("--classes", type=at_least(2), default=80)
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--repeat", type=at_least(1), default=30)
    parser.add_argument("--losses", choices=["sigmoid", "softmax", "all"], default="all")
    parser.add_argument(
        "--without", action="append", default=[], metavar="TEXT", help="leave out labels with this text"
    )
    parser.add_argument("--table", action="store_true", help="print a table instead of JSON")
    parser.add_argument("--plot", type=picture, metavar="FILE", help="draw the times as .svg, .png or .pdf")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("peers.py: torch sees no GPU")
    if options.plot:
        try:
            pyplot()
        except ImportError as error:
            sys.exit(f"peers.py: --plot {options.plot}: {error}; pip install matplotlib")
    return options


def open_library(options):
    try:
        return Tare(options.library, options.device)
    except (OSError, AttributeError, RuntimeError) as error:
        sys.exit(f"peers.py: --library {options.library}: {error}")


def main():
    options = read_options()
    warnings.filterwarnings("ignore")
    tare = open_library(options)
    batch = Batch(options.rows, options.classes, options.dtype, options.device)
    contenders = Contenders(batch, options.losses, options.without)
    for add in (add_sigmoid, add_softmax):
        add(contenders, tare, batch)
    for add in (add_optax_sigmoid, add_optax_softmax, add_onednn):
        add(contenders, batch)
    for text in options.without:
        if not any(text in label for label in contenders.known):
            names = "; ".join(dict.fromkeys(contenders.known))
            sys.exit(f"peers.py: --without '{text}': no label has this text; there are {names}")
    contenders.by_family()
    found = report(options, batch, contenders, Clock(options.device), tare)
    if options.table:
        print_table(found)
    else:
        print(json.dumps(found))
    for entry in found["left_out"] if not options.table else []:
        print(f"peers.py: left out: {entry['family']}: {entry['label']} ({entry['why']})", file=sys.stderr)
    if options.plot:
        draw(found, options.plot)


if __name__ == "__main__":
    main()
