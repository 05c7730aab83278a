# SPDX-License-Identifier: Apache-2.0
"""What several tests of tare.torch share: random logits and labels, losses with parameters, a comparison."""

import importlib
import importlib.util
import pathlib
import sys
import types

import numpy as np
import pytest
import torch

import tare
import tare.torch

LOSSES = {
    "sigmoid-ce": {"alpha": 0.3},
    "sigmoid-focal": {"gamma": 2.0, "alpha": 0.25},
    "sigmoid-poly1": {"gamma": 1.5, "alpha": 0.6, "epsilon": 0.5},
    "softmax-ce": {},
    "softmax-focal": {"gamma": 2.0, "alpha": 0.7},
}
NAMES = [*LOSSES, "softmax-logit-adjusted", "softmax-seesaw", "softmax-ldam", "ghm-c", "ghm-r"]
REDUCTIONS = ["sum", "rows", "none"]


def draw(rows=200, classes=7, seed=0, dtype=torch.float32):
    """Logits that want a gradient, and labels, of which some are background."""
    torch.manual_seed(seed)
    x = (torch.randn(rows, classes) * 3).to(dtype).requires_grad_()
    return x, torch.randint(0, classes, (rows,)).where(torch.rand(rows) < 0.7, torch.tensor(-1))


def few(rows=20, classes=5, dtype=torch.float64, seed=0):
    """A few logits, and labels without background."""
    torch.manual_seed(seed)
    return torch.randn(rows, classes, dtype=dtype), torch.randint(0, classes, (rows,))


def make(name, reduction="sum", dtype=torch.float64, **options):
    """A few logits, and a loss as a function of them."""
    x, y = few(dtype=dtype)
    if name == "ghm-r":
        options["targets"] = torch.randn_like(x)
    return x, lambda x: tare.torch.loss(name, x, y, reduction=reduction, **options)


def near(ours, theirs, relative=1e-5, absolute=1e-30):
    np.testing.assert_allclose(torch.as_tensor(ours).detach().double().numpy(), np.asarray(theirs), relative, absolute)


def blas():
    """Skips a test of a Head where no BLAS can be loaded."""
    try:
        tare.torch.sigmoid_ce(tare.torch.Head(torch.ones(1, 1), torch.ones(1, 1)), torch.zeros(1, dtype=torch.int32))
    except tare.Error as error:
        if error.name == "TARE_STATUS_NO_BLAS":
            pytest.skip(error.text)
        raise


def mmdet_loss(file, name):
    """A loss of the installed mmdetection; where its own dependencies are missing, from its file alone."""
    found = importlib.util.find_spec("mmdet")
    if found is None:
        pytest.skip("mmdet is not installed")
    try:
        return getattr(importlib.import_module("mmdet.models.losses"), name)
    except ImportError:
        pass
    stubs = {one: types.ModuleType(one) for one in ("mmdet", "mmdet.registry", "mmdet_losses")}
    stubs["mmdet.registry"].MODELS = types.SimpleNamespace(register_module=lambda: lambda module: module)
    stubs["mmdet_losses"].__path__ = [str(pathlib.Path(found.origin).parent / "models" / "losses")]
    before = {one: sys.modules.get(one) for one in stubs}
    sys.modules.update(stubs)
    try:
        return getattr(importlib.import_module(f"mmdet_losses.{file}"), name)
    finally:
        for one, module in before.items():
            sys.modules.pop(one) if module is None else sys.modules.update({one: module})
