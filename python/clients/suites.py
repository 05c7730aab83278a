# SPDX-License-Identifier: Apache-2.0
"""Runs the tests of another library with Tare's losses in place of its own.

    python python/clients/suites.py LIBRARY FOLDER [--without-tare] [--pretend-cuda] [-- ARGUMENTS OF PYTEST]

LIBRARY: fvcore, mmcv, mmdet or torchvision. FOLDER: a copy of its repository. The library must be installed, except
mmdetection, which is imported from FOLDER and needs mmengine, mmcv-lite and torchvision. mmcv's compiled operators have
stand-ins (compiled_ops.py), and pretrained weights are not fetched. --without-tare runs the same tests on the original,
to tell what fails without Tare too. --pretend-cuda: tests that move tensors to a GPU stay on the CPU. mmcv's tests do
nothing without it.
"""

import argparse
import collections
import os
import pathlib
import sys

import compiled_ops
import pytest
import torch

import tare

SUITES = {
    "fvcore": ["tests/test_focal_loss.py"],
    "mmcv": ["tests/test_ops/test_focal_loss.py"],
    "mmdet": [
        "tests/test_models/test_losses",
        "tests/test_models/test_dense_heads",
        "tests/test_models/test_roi_heads",
        "tests/test_models/test_seg_heads",
        "tests/test_models/test_detectors",
    ],
    "torchvision": ["test/test_ops.py", "-k", "FocalLoss"],
}


class Outcomes:
    """Counts outcomes, and keeps the names of failures."""

    def __init__(self):
        self.counts, self.failures = collections.Counter(), {}

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.failures[report.nodeid] = crash.message.splitlines()[0] if crash else str(report.longrepr)[-200:]

    def pytest_collectreport(self, report):
        if report.failed:
            self.counts["not collected"] += 1
            self.failures[report.nodeid] = str(report.longrepr).strip().splitlines()[-1]


def pretend_cuda():
    """A GPU that is the CPU, as far as tests of losses can tell."""
    import mmcv.utils

    mmcv.utils.IS_CUDA_AVAILABLE = True
    torch.cuda.is_available = lambda: True
    torch.Tensor.cuda = lambda self, *arguments, **keywords: self
    to = torch.Tensor.to
    torch.Tensor.to = lambda self, *arguments, **keywords: self if arguments[:1] == ("cuda",) else to(self, *arguments)


def without_downloads():
    """Pretrained weights are not fetched; the tests run with random ones."""
    from mmengine.model import weight_init

    weight_init.PretrainedInit.__call__ = lambda self, module: None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=SUITES)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--without-tare", action="store_true")
    parser.add_argument("--pretend-cuda", action="store_true")
    parser.add_argument("rest", nargs="*", help="arguments of pytest, in place of the list of tests")
    arguments = parser.parse_args()
    if arguments.library.startswith("mm"):
        compiled_ops.install()
    if arguments.library == "mmdet":
        sys.path.insert(0, str(arguments.folder.resolve()))
        without_downloads()
    if arguments.pretend_cuda:
        pretend_cuda()
    if not arguments.without_tare:
        print(tare.patch(arguments.library))
    os.chdir(arguments.folder)  # tests read files beside them
    outcomes, tests = Outcomes(), arguments.rest or SUITES[arguments.library]
    options = [
        "-q",
        "--no-header",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore",
        "-c",
        os.devnull,
        "--rootdir=.",
        "--tb=no",
    ]
    pytest.main([*options, *tests], plugins=[outcomes])
    print(f"\n{arguments.library}: {dict(outcomes.counts)}")
    for name, message in sorted(outcomes.failures.items()):
        print(f"{name}: {message[:200]}")
    return bool(outcomes.failures) or not outcomes.counts["passed"]


if __name__ == "__main__":
    sys.exit(main())
