# SPDX-License-Identifier: Apache-2.0
"""CPU losses between operations of PyTorch: on the library's pool, and on PyTorch's own threads.

    PYTHONPATH=python TARE_LIBRARY=build/libtare.so python3 bench/beside_torch.py [--busy N] [--rounds N]

Prints milliseconds of loss and gradient of 100,000 x 80 float32 logits, after 20 ms of sleep and right after a product
and a sum by PyTorch. Blocks of 20 calls take turns. --busy: other processes that compute all the time.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import torch

import tare.torch
from tare import _threads

CALLS = 20  # in a block
LOSSES = {"sigmoid focal": tare.torch.sigmoid_focal, "softmax CE": tare.torch.softmax_ce, "GHM-C": tare.torch.ghm_c}


def block(loss, logits, labels, after):
    weights, taken = torch.ones(1000, 1000), []
    for _ in range(CALLS):
        if after == "PyTorch":
            (torch.mm(torch.ones(400, 1000), weights) + 1).sum()
        else:
            time.sleep(0.02)
        start = time.perf_counter()
        loss(logits, labels)
        taken.append(1e3 * (time.perf_counter() - start))
    return taken


def measure(rounds):
    torch.manual_seed(0)
    logits = (torch.randn(100_000, 80) * 1.5 - 4.6).requires_grad_()
    labels = torch.where(torch.rand(100_000) < 0.4, torch.randint(0, 80, (100_000,)), -1)
    taken = {}
    for _ in range(rounds):
        for name, loss in LOSSES.items():
            for threads in ("pool", "PyTorch"):
                os.environ["TARE_THREADS"] = threads
                _threads.choose()
                for after in ("sleep", "PyTorch"):
                    taken.setdefault((name, threads, after), []).extend(block(loss, logits, labels, after))
    return taken


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", type=int, default=0, help="other processes that compute all the time")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.busy)]
    try:
        taken = measure(options.rounds)
    finally:
        for other in others:
            other.kill()
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, {options.busy} other processes")
    print(f"{'loss':14}{'threads of':12}{'after':10}{'median':>9}{'90 %':>9}{'mean':>9}")
    for (name, threads, after), times in taken.items():
        tenth = statistics.quantiles(times, n=10)
        print(f"{name:14}{threads:12}{after:10}{tenth[4]:9.2f}{tenth[8]:9.2f}{statistics.mean(times):9.2f}")


if __name__ == "__main__":
    main()
