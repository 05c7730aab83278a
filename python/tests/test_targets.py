# SPDX-License-Identifier: Apache-2.0
"""Dense targets out of range: tare.evaluate and tare.torch refuse them, the drop-ins go as far as their originals."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tare
import tare.torch
from tare.compat import fvcore, mmdet, torchvision

NAMES = ["sigmoid-ce", "sigmoid-focal", "sigmoid-poly1", "ghm-c", "softmax-ce"]
X = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
OUT = [1.5, -0.5, 1e30, -np.inf, np.inf, np.nan, 1.002, -0.002]


def targets(value, dtype=np.float64):
    t = np.random.default_rng(1).integers(0, 2, (5, 3)).astype(dtype)
    t[3, 1] = value
    return t


def out_of_range(name):
    return [value for value in OUT if name != "softmax-ce" or not 0 <= value < np.inf]


@pytest.mark.parametrize("name", NAMES)
def test_numpy(name):
    for value in out_of_range(name):
        with pytest.raises(tare.ArgumentError, match="row 3, class 1 is .*; it must be") as caught:
            tare.evaluate(name, X, targets=targets(value))
        assert (caught.value.status, caught.value.name) == (6, "TARE_STATUS_INVALID_TARGET")
        mask = np.float32([1, 1, 1, 0, 1])
        tare.evaluate(name, X, targets=targets(value), row_weights=mask)  # a row that does not count
        labels = np.array([0, 0, 0, -2, 0])
        tare.evaluate(name, X, labels, targets=targets(value))


@pytest.mark.parametrize("reduction", ["sum", "rows", "none"])
@pytest.mark.parametrize("name", NAMES)
def test_torch(name, reduction):
    x = torch.from_numpy(X).requires_grad_()
    state = tare.torch.ghm_state(30)
    options = {"state": state, "momentum": 0.5} if name == "ghm-c" else {}
    for value in out_of_range(name):
        for dtype in (torch.float32, torch.float64):
            t = torch.from_numpy(targets(value)).to(dtype)
            with pytest.raises(ValueError, match="row 3, class 1 is .*; it must be"):
                tare.torch.loss(name, x, targets=t, reduction=reduction, **options)
    assert not state.any()  # it did not take a step


def test_within_rounding_they_are_the_ends():
    for value, end in ((1 + 1e-7, 1), (1.0005, 1), (-1e-7, 0), (-5e-4, 0)):
        for name in NAMES[:4]:
            assert (
                tare.evaluate(name, X, targets=targets(value)).loss == tare.evaluate(name, X, targets=targets(end)).loss
            )
    tare.evaluate("ghm-r", X, targets=targets(1e30))  # regression: any


def focal(x, t, alpha, gamma):
    p = x.sigmoid()
    loss = F.binary_cross_entropy_with_logits(x, t, reduction="none") * (p * (1 - t) + (1 - p) * t) ** gamma
    return loss if alpha < 0 else loss * (alpha * t + (1 - alpha) * (1 - t))


def agree(call, original, t):
    x = torch.from_numpy(X).requires_grad_()
    wide = x.detach().double().requires_grad_()
    ours, theirs = call(x, t.float()), original(wide, t)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6, equal_nan=True)
    (gradient,), (exact,) = torch.autograd.grad(ours.sum(), x), torch.autograd.grad(theirs.sum(), wide)
    torch.testing.assert_close(gradient.double(), exact, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("value", [1.5, -0.5, 3.0, -7.0, np.nan])
def test_a_drop_in_keeps_its_originals_range(value):
    t = torch.from_numpy(targets(value))
    for gamma in (2.0, 1.0, 3.0):
        for alpha in (0.25, -1):
            for reduction, reduce in (("none", lambda a: a), ("sum", torch.sum), ("mean", torch.mean)):
                original = lambda x, t: reduce(focal(x, t, alpha, gamma))
                for function in (torchvision.sigmoid_focal_loss, fvcore.sigmoid_focal_loss):
                    agree(lambda x, t: function(x, t, alpha, gamma, reduction), original, t)
    rows, elements = torch.rand(5), torch.rand(5, 3)
    for weight, factor in ((rows, rows[:, None]), (elements, elements), (None, torch.ones(5, 3))):
        cases = [
            ("none", None, lambda a: a),
            ("sum", None, torch.sum),
            ("mean", None, torch.mean),
            ("mean", 7, lambda a: a.sum() / 7),
        ]
        for reduction, avg_factor, reduce in cases:
            agree(
                lambda x, t: mmdet.FocalLoss(loss_weight=2.0)(x, t, weight, avg_factor, reduction),
                lambda x, t: 2 * reduce(focal(x, t, 0.25, 2.0) * factor),
                t,
            )


@pytest.mark.parametrize("classes", [None, [0.5, 0.4, 3.0]])
@pytest.mark.parametrize("value", [1.5, 2.0, 3.0, 1.0 + 2**-7, np.inf])
def test_cross_entropy_of_dense_labels_keeps_its_originals_range(value, classes):
    positive = None if classes is None else torch.tensor(classes).double()
    t = torch.from_numpy(targets(value))
    weight = torch.rand(5, 3)
    for reduction, reduce in (("none", lambda a: a), ("sum", torch.sum), ("mean", torch.mean)):
        agree(
            lambda x, t: mmdet.CrossEntropyLoss(True, class_weight=classes)(x, t, weight, None, reduction),
            lambda x, t: reduce(
                weight * F.binary_cross_entropy_with_logits(x, t, pos_weight=positive, reduction="none")
            ),
            t,
        )
    t = torch.from_numpy(targets(-0.5))
    rows = torch.rand(5)
    for reduction, reduce in (("none", lambda a: a), ("sum", torch.sum), ("mean", torch.mean)):
        agree(
            lambda x, t: mmdet.CrossEntropyLoss(class_weight=classes)(x, t, rows, None, reduction),
            lambda x, t: reduce(rows * F.cross_entropy(x, t, positive, reduction="none")),
            t,
        )
