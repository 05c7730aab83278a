# SPDX-License-Identifier: Apache-2.0
"""Equalization loss: against a transcription of the paper, and its weights of background rows in every loss."""

import copy

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce

import tare.torch
from tare.torch.nn import EqualizationLoss

CLASSES, ROWS, IMAGES = 7, 90, 1000
COUNTS = [500, 1, 2, 20, 0, 1, 300]  # images of each class; the shares 1/1000 and 0 are below 1.77e-3


def batch(dtype=torch.float64, seed=0):
    random = torch.Generator().manual_seed(seed)
    x = (torch.randn(ROWS, CLASSES, generator=random) * 2 - 1).to(dtype)
    return x, torch.randint(-1, CLASSES, (ROWS,), generator=random)


def paper(x, y, rare, beta=1):
    """arXiv 2003.05176, eq. 1 to 3: w = 1 - E(r)*T(f)*(1-y); E is 1 of rows with a class. T may be drawn."""
    t = torch.nn.functional.one_hot(y + 1, CLASSES + 1)[:, 1:].to(x.dtype)
    excluded = (y >= 0).to(x.dtype)[:, None]
    w = 1 - excluded * (rare.to(x.dtype) * beta)[None] * (1 - t)
    return (bce(x, t, reduction="none") * w).sum() / len(x)


RARE = torch.tensor(COUNTS) / IMAGES < 1.77e-3


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_is_the_papers(dtype, bound):
    x, y = batch(dtype)
    loss = EqualizationLoss(COUNTS, IMAGES, normalizer="rows")
    assert int((loss.negative_weights == 0).sum()) == int(RARE.sum()) == 3
    ours, theirs = x.clone().requires_grad_(), x.double().requires_grad_()
    got, want = loss(ours, y), paper(theirs, y, RARE)
    got.backward()
    want.backward()
    assert abs(got - want) <= bound * want
    assert (ours.grad - theirs.grad).abs().max() <= bound * theirs.grad.abs().max()
    rare_negative = ours.grad[(y >= 0) & (y != 1), 1]
    assert (rare_negative == 0).all()
    assert (ours.grad[y == 1, 1] < 0).all() and (ours.grad[y < 0, 1] > 0).all()


def test_shares_are_counts_of_one_image():
    x, y = batch()
    of_shares = EqualizationLoss(torch.tensor(COUNTS) / IMAGES)
    assert torch.equal(of_shares(x, y), EqualizationLoss(COUNTS, IMAGES)(x, y))
    assert "rare=3" in repr(of_shares)


def test_draws():
    """Each batch draws for each rare class; eval() has their mean."""
    x, y = batch()
    loss = EqualizationLoss(COUNTS, IMAGES, gamma=0.5, normalizer="rows")
    random, again = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    for _ in range(4):
        beta = torch.rand(CLASSES, generator=again) < 0.5
        torch.testing.assert_close(loss(x, y, generator=random), paper(x, y, RARE, beta))
    values = torch.stack([loss(x, y, generator=random) for _ in range(2000)])
    assert len(values.unique()) > 4
    mean = loss.eval()(x, y)
    torch.testing.assert_close(mean, paper(x, y, RARE, torch.tensor(0.5)))
    torch.testing.assert_close(values.mean(), mean, rtol=2e-2, atol=0)


def test_module_moves_and_copies():
    x, y = batch(torch.float32)
    loss = EqualizationLoss(COUNTS, IMAGES, positive_weights=torch.full((CLASSES,), 2.0))
    want = loss(x, y)
    loaded = EqualizationLoss([0.5] * CLASSES, positive_weights=torch.ones(CLASSES))
    loaded.load_state_dict(loss.state_dict())
    for one in (copy.deepcopy(loss), loss.half().float(), loaded, torch.jit.script(loss)):
        assert torch.equal(one(x, y), want)
    empty = EqualizationLoss(COUNTS, IMAGES).to("meta").to_empty(device="cpu")
    assert torch.equal(empty(x, y), EqualizationLoss(COUNTS, IMAGES)(x, y))
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x, y), want)


@pytest.mark.parametrize("name", ["sigmoid-ce", "sigmoid-focal"])
def test_weights_of_background_rows(name):
    """Beside negative weights, or alone; in tare.evaluate, too. The label's element has neither."""
    x, y = batch()
    v, u = torch.rand(CLASSES) + 0.5, torch.rand(CLASSES) + 0.5
    for negatives in (v, None):
        given = {"negative_weights": negatives, "background_negative_weights": u}
        plain = tare.torch.loss(name, x, y, reduction="none")
        t = torch.nn.functional.one_hot(y + 1, CLASSES + 1)[:, 1:].bool()
        of_0 = torch.where((y < 0)[:, None], u, torch.ones(CLASSES) if negatives is None else v).double()
        want = plain * torch.where(t, 1, of_0)
        torch.testing.assert_close(tare.torch.loss(name, x, y, reduction="none", **given), want)
        arrays = {key: one.numpy() for key, one in given.items() if one is not None}
        assert tare.evaluate(name, x.numpy(), y.numpy(), **arrays).loss == pytest.approx(want.sum().item())


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda: EqualizationLoss(COUNTS), ValueError, "give images"),
        (lambda: EqualizationLoss(COUNTS, 0), ValueError, "images is 0"),
        (lambda: EqualizationLoss(COUNTS, IMAGES, gamma=2), ValueError, "gamma is 2"),
        (lambda: EqualizationLoss(COUNTS, IMAGES, negative_weights=torch.ones(7)), TypeError, "forms"),
        (lambda: EqualizationLoss(COUNTS, IMAGES, label_smoothing=0.1)(*batch()), ValueError, "label_smoothing"),
        (lambda: EqualizationLoss([0.5] * 3)(*batch()), ValueError, "3 elements; there are 7 classes"),
        (
            lambda: tare.torch.sigmoid_ce(
                batch()[0], targets=torch.rand(ROWS, CLASSES), background_negative_weights=torch.ones(CLASSES)
            ),
            ValueError,
            "background_negative_weights",
        ),
    ],
)
def test_refusals(make, error, text):
    with pytest.raises(error, match=text):
        make()
