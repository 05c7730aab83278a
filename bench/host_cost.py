# SPDX-License-Identifier: Apache-2.0
"""The host's time of small losses: tare.torch beside PyTorch's own, forward and backward, one thread.

    PYTHONPATH=python TARE_LIBRARY=build/libtare.so python3 bench/host_cost.py [ROUNDS]

It prints the medians of interleaved rounds in microseconds a call, CPU time of this thread: work of others on the
machine moves it less than it moves time on the wall. Each ratio is to binary_cross_entropy_with_logits.
"""

import statistics
import sys
import time

import torch
import torch.nn.functional as F

import tare.torch

CALLS = 50  # in a round


def bce(x, targets):
    return lambda: F.binary_cross_entropy_with_logits(x, targets, reduction="sum")


def cases():
    torch.manual_seed(0)
    x, labels = torch.randn(50, 8, requires_grad=True), torch.randint(-1, 8, (50,))
    targets = F.one_hot(labels.clamp(min=0), 8).float() * (labels >= 0).unsqueeze(1)
    levels = [torch.randn(1, 50, 8, requires_grad=True) for _ in range(5)]
    level_labels = [torch.randint(-1, 8, (1, 50)) for _ in levels]
    weights = torch.rand(50)
    maps, map_labels = torch.randn(1, 16, 5, 5, requires_grad=True), torch.randint(-1, 8, (1, 5, 5, 2))
    return {
        "BCE with logits (PyTorch)": ([x], bce(x, targets)),
        "cross entropy (PyTorch)": ([x], lambda: F.cross_entropy(x, labels.clamp(min=0), reduction="sum")),
        "sigmoid_ce": ([x], lambda: tare.torch.sigmoid_ce(x, labels)),
        "sigmoid_focal": ([x], lambda: tare.torch.sigmoid_focal(x, labels)),
        "sigmoid_focal, dense targets": ([x], lambda: tare.torch.sigmoid_focal(x, targets=targets)),
        "sigmoid_focal, weights, positives": (
            [x],
            lambda: tare.torch.sigmoid_focal(x, labels, row_weights=weights, normalizer="positives"),
        ),
        "sigmoid_focal, rows": ([x], lambda: tare.torch.sigmoid_focal(x, labels, reduction="rows").sum()),
        "sigmoid_focal, maps": ([maps], lambda: tare.torch.sigmoid_focal(maps, map_labels, classes=8)),
        "sigmoid_focal, five levels": (levels, lambda: tare.torch.sigmoid_focal(levels, level_labels)),
        "softmax_ce": ([x], lambda: tare.torch.softmax_ce(x, labels, background_label=-1)),
        "ghm_c": ([x], lambda: tare.torch.ghm_c(x, labels)),
        "no_grad sigmoid_focal": ([], lambda: tare.torch.sigmoid_focal(x.detach(), labels)),
    }


def measure(sources, loss):
    """Seconds of this thread's CPU time for one call."""
    start = time.thread_time()
    for _ in range(CALLS):
        result = loss()
        if sources:
            result.backward()
            for one in sources:
                one.grad = None
    return (time.thread_time() - start) / CALLS


def main(rounds):
    torch.set_num_threads(1)
    taken = {name: [] for name in cases()}
    chosen = cases()
    for _ in range(rounds):
        for name, case in chosen.items():
            taken[name].append(measure(*case))
    medians = {name: statistics.median(times) * 1e6 for name, times in taken.items()}
    first = next(iter(medians.values()))
    print(f"{'':36}{'us':>8}{'ratio':>8}")
    for name, median in medians.items():
        print(f"{name:36}{median:8.1f}{median / first:8.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
