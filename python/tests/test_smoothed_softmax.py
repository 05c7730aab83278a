# SPDX-License-Identifier: Apache-2.0
"""Label smoothing and z-loss of softmax losses beside torch.nn.functional.cross_entropy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tare
import tare.torch


def draw(dtype, classes=17):
    source = torch.Generator().manual_seed(2)
    x = (3 * torch.randn(90, classes, generator=source, dtype=torch.float64)).to(dtype).requires_grad_()
    return x, torch.randint(classes, (90,), generator=source)


def close(found, theirs, dtype):
    bound = 1e-10 if dtype == torch.float64 else 1e-5
    assert (found - theirs).abs().max() <= bound * theirs.abs().max()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("s", [0.1, 0.5, 0.99])
def test_cross_entropy(dtype, s):
    x, y = draw(dtype)
    theirs = F.cross_entropy(x, y, label_smoothing=s)
    ours = tare.torch.softmax_ce(x, y, label_smoothing=s, normalizer="rows")
    close(ours.detach(), theirs.detach(), dtype)
    close(*(torch.autograd.grad(one, x)[0] for one in (ours, theirs)), dtype)
    found = tare.evaluate("softmax-ce", x.detach().numpy(), y.numpy(), label_smoothing=s, normalizer="rows")
    assert found.loss == pytest.approx(float(theirs.detach()), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("s", [0.0, 0.1])
@pytest.mark.parametrize("adjusts", [False, True])
def test_z_loss(dtype, s, adjusts):
    x, y = draw(dtype)
    weights, offset = torch.linspace(0.5, 2, 17), -torch.linspace(0, 4, 17) * adjusts
    z = x.double() + offset.double()
    theirs = F.cross_entropy(z, y, label_smoothing=0 if adjusts else s, reduction="none") + 0.02 * z.logsumexp(-1) ** 2
    theirs = (theirs * weights.double()[y]).sum()
    options = {"z_loss": 0.02, "class_weights": weights}
    if adjusts:
        ours = tare.torch.softmax_logit_adjusted(x, y, offset=offset, **options)
    else:
        ours = tare.torch.softmax_ce(x, y, label_smoothing=s, **options)
    close(ours.detach(), theirs.detach(), dtype)
    close(*(torch.autograd.grad(one, x)[0] for one in (ours, theirs)), dtype)


@pytest.mark.parametrize("smoothed", ["cross-entropy", "all"])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal(smoothed, gamma):
    x, y = draw(torch.float64)
    s, p = 0.2, x.softmax(-1)
    targets = F.one_hot(y, 17).double() * (1 - s) + s / 17
    hit = p.gather(1, y[:, None])[:, 0] if smoothed == "cross-entropy" else (targets * p).sum(-1)
    theirs = ((1 - hit) ** gamma * F.cross_entropy(x, targets, reduction="none")).sum()
    ours = tare.torch.softmax_focal(x, y, gamma=gamma, label_smoothing=s, smoothed=smoothed)
    close(ours.detach(), theirs.detach(), torch.float64)
    close(*(torch.autograd.grad(one, x)[0] for one in (ours, theirs)), torch.float64)


def test_class_weights_are_those_of_the_label():
    """torch weighs the smoothed part with the weights of all classes."""
    x, y = draw(torch.float64)
    weights = torch.linspace(0.5, 2, 17)
    rows = F.cross_entropy(x, y, label_smoothing=0.1, reduction="none")
    ours = tare.torch.softmax_ce(x, y, label_smoothing=0.1, class_weights=weights)
    close(ours, (rows * weights[y]).sum(), torch.float64)
    theirs = F.cross_entropy(x, y, weights.double(), label_smoothing=0.1, reduction="sum")
    assert not np.isclose(float(ours), float(theirs), rtol=1e-3)
