# SPDX-License-Identifier: Apache-2.0
"""Hard negative mining and OHEM: against transcriptions with PyTorch's functions, and what is refused."""

import numpy as np
import pytest
import torch

import tare.torch


def batch(images=3, rows=200, classes=5):
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(images, rows, classes, generator=random)
    labels = torch.where(torch.rand(images, rows, generator=random) < 0.05, 1 + torch.arange(rows) % (classes - 1), 0)
    return logits, labels


def ssd_loss(logits, labels, ratio):
    """Cross-entropy of the positives and of each image's hardest negatives, as in torchvision's SSD."""
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    losses = losses.view(labels.shape)
    positive = labels > 0
    ranked = losses.detach().masked_fill(positive, -float("inf")).sort(dim=1, descending=True, stable=True)[1]
    negative = ranked.argsort(dim=1) < ratio * positive.sum(dim=1, keepdim=True)
    return losses[positive | negative].sum() / positive.sum().clamp(min=1)


def test_ssd():
    logits, labels = batch()
    theirs, ours = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    want = ssd_loss(theirs, labels, 3)
    found = tare.torch.softmax_ce(
        ours, labels, background_label=0, ignore_label=-1, hard_negatives=3, normalizer="positives"
    )
    want.backward()
    found.backward()
    torch.testing.assert_close(found, want)
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert (ours.grad.abs().sum(-1) > 0).sum() == 4 * (labels > 0).sum()


def test_numpy_is_the_same():
    logits, labels = batch()
    options = {"background_label": 0, "ignore_label": -1, "hard_negatives": 3, "normalizer": "rows"}
    found = tare.evaluate("softmax-ce", logits.numpy(), labels.numpy(), **options)
    want = tare.torch.softmax_ce(logits, labels, **options)
    assert found.loss == pytest.approx(want.item(), rel=1e-6)
    assert found.counts["counted"] == labels.numel()  # of the labels, before the selection


def test_least_negatives():
    logits, labels = batch(images=1)
    options = {"background_label": 0, "ignore_label": -1, "hard_negatives": 0.0}
    none = tare.evaluate("softmax-ce", logits.numpy(), labels.numpy() * 0, **options)
    some = tare.evaluate("softmax-ce", logits.numpy(), labels.numpy() * 0, least_negatives=9, **options)
    assert none.loss == 0
    assert np.count_nonzero(np.abs(some.gradient).sum(-1)) == 9


def test_half_types_and_levels():
    maps = [torch.randn(2, 3 * 4, side, side).half().requires_grad_() for side in (6, 3)]
    labels = torch.full((2, 3 * (36 + 9)), -1)
    labels[0, 5] = 2
    loss = tare.torch.sigmoid_focal(maps, labels, classes=4, hard_negatives=3)
    loss.backward()
    rows = sum((one.grad.view(2, 3, 4, -1).abs().amax(2) > 0).sum() for one in maps)
    assert rows <= 4


def test_compiled():
    logits, labels = batch()
    options = {"background_label": 0, "ignore_label": -1, "hard_negatives": 3, "normalizer": "positives"}
    compiled = torch.compile(lambda x: tare.torch.softmax_ce(x, labels, **options), fullgraph=True)
    torch.testing.assert_close(compiled(logits), tare.torch.softmax_ce(logits, labels, **options))


def ohem_loss(logits, labels, count):
    """Focal loss of the rows with the largest loss, over all objects of the batch."""
    flat, classes = logits.flatten(0, 1), labels.flatten()
    targets = torch.nn.functional.one_hot(classes.clamp(min=-1) + 1, logits.shape[-1] + 1)[:, 1:].to(flat.dtype)
    p = flat.sigmoid()
    ce = torch.nn.functional.binary_cross_entropy_with_logits(flat, targets, reduction="none")
    modulator = (1 - (p * targets + (1 - p) * (1 - targets))) ** 2
    rows = ((0.25 * targets + 0.75 * (1 - targets)) * modulator * ce).sum(-1)
    ranked = rows.detach().masked_fill(classes == -2, -float("inf")).sort(descending=True, stable=True)[1]
    return rows[ranked[:count]].sum() / (classes >= 0).sum().clamp(min=1)


@pytest.mark.parametrize("keep", [True, False])
def test_ohem(keep):
    logits, labels = batch()
    labels = labels - 1  # -1 is background
    labels[0, :5] = -2
    theirs, ours = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    want = ohem_loss(theirs, labels, 40)
    found = tare.torch.sigmoid_focal(ours, labels, hard_rows=40, normalizer="positives", keep_gradient=keep)
    (want * 3).backward()
    (found * 3).backward()
    torch.testing.assert_close(found, want)
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert (ours.grad.abs().sum(-1) > 0).sum() == 40


def test_ohem_of_a_fraction():
    logits, labels = batch()
    options = {"background_label": 0, "ignore_label": -1, "hard_fraction": 0.25, "normalizer": "rows"}
    found = tare.evaluate("softmax-ce", logits.numpy(), labels.numpy(), **options)
    assert np.count_nonzero(np.abs(found.gradient).sum(-1)) == labels.numel() // 4
    assert found.loss == pytest.approx(tare.torch.softmax_ce(logits, labels, **options).item(), rel=1e-6)
    module = tare.torch.nn.SoftmaxCELoss(**options)
    assert module(logits, labels).item() == pytest.approx(found.loss, rel=1e-6)


@pytest.mark.parametrize(
    "options, error, text",
    [
        ({"hard_rows": 0}, ValueError, "hard_rows is 0"),
        ({"hard_rows": 1.5}, TypeError, "hard_rows"),
        ({"hard_fraction": 0}, ValueError, r"hard_fraction is 0; it must be in \(0,1\]"),
        ({"hard_fraction": 1.5}, ValueError, "hard_fraction is 1.5"),
        ({"hard_fraction": float("nan")}, ValueError, "hard_fraction"),
        ({"hard_rows": 3, "hard_negatives": 3}, ValueError, "hard_negatives and hard_rows are given"),
        ({"hard_rows": 3, "hard_fraction": 0.5}, ValueError, "hard_rows and hard_fraction are given"),
        ({"hard_rows": 3, "least_negatives": 1}, ValueError, "least_negatives is given without hard_negatives"),
    ],
)
def test_refusals_of_ohem(options, error, text):
    logits, labels = batch()
    with pytest.raises(error, match=text):
        tare.torch.softmax_ce(logits, labels, **options)
    with pytest.raises(error, match=text):
        tare.evaluate("softmax-ce", logits.numpy(), labels.numpy(), **options)


@pytest.mark.parametrize(
    "options, error, text",
    [
        ({"hard_negatives": -1}, ValueError, r"hard_negatives is -1; it must be in \[0,1e9\]"),
        ({"hard_negatives": float("nan")}, ValueError, "hard_negatives"),
        ({"hard_negatives": "3"}, TypeError, "hard_negatives"),
        ({"least_negatives": 3}, ValueError, "least_negatives is given without hard_negatives"),
        ({"hard_negatives": 3, "least_negatives": -1}, ValueError, "least_negatives is -1"),
        ({"hard_negatives": 3, "least_negatives": 1.5}, TypeError, "least_negatives"),
        ({"hard_negatives": 3}, ValueError, "background_label is -1 with 'hard-negatives'"),
    ],
)
def test_refusals(options, error, text):
    logits, labels = batch()
    with pytest.raises(error, match=text):
        tare.torch.softmax_ce(logits, labels, **options)
    with pytest.raises(error, match=text):
        tare.evaluate("softmax-ce", logits.numpy(), labels.numpy(), **options)


def test_refused_losses():
    logits, labels = batch()
    with pytest.raises(ValueError, match="hard_negatives with ghm-c: "):
        tare.torch.ghm_c(logits, labels, bins=10, hard_negatives=3)
    with pytest.raises(ValueError, match="hard_rows or hard_fraction with ghm-c: "):
        tare.torch.ghm_c(logits, labels, bins=10, hard_rows=3)
    with pytest.raises(ValueError, match="hard_negatives with sigmoid-ce and dense targets: "):
        tare.torch.sigmoid_ce(logits, targets=torch.rand_like(logits), hard_negatives=3)
    head = tare.torch.Head(torch.randn(6, 4), torch.randn(5, 4), None)
    with pytest.raises(ValueError, match="hard_negatives with sigmoid-ce: a fused head"):
        tare.torch.sigmoid_ce(head, torch.zeros(6, dtype=torch.int64), hard_negatives=3)
