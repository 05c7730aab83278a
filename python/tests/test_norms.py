# SPDX-License-Identifier: Apache-2.0
"""The histogram of gradient norms beside a loss, of tensors and of NumPy arrays."""

import numpy as np
import pytest
import torch

import tare
import tare.torch


def batch():
    source = torch.Generator().manual_seed(3)
    logits = [2 * torch.randn(2, rows, 5, generator=source) for rows in (40, 7)]
    labels = [torch.randint(-2, 5, one.shape[:-1], generator=source) for one in logits]
    scores = [torch.rand(one.shape[:-1], generator=source) for one in logits]
    return logits, labels, scores


def counted(logits, labels, scores, bins):
    """In double, element by element."""
    counts = np.zeros(bins, np.int64)
    for x, y, q in zip(logits, labels, scores):
        targets = torch.nn.functional.one_hot(y.clamp(min=0), 5) * (y >= 0)[..., None] * q[..., None]
        norms = (x.double().sigmoid() - targets).abs()[y != -2]
        counts += np.histogram(norms.numpy(), bins, (0, 1))[0]
    return counts


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_tensors(reduction):
    logits, labels, scores = batch()
    for one in logits:
        one.requires_grad_()
    for _ in range(3):  # the second call is one that was made before
        result = tare.torch.sigmoid_quality_focal(logits, labels, scores, reduction=reduction, norm_histogram=20)
        loss, counts = result
        assert counts.dtype == torch.int64 and not counts.requires_grad
        assert (counts.numpy() == counted([one.detach() for one in logits], labels, scores, 20)).all()
        plain = tare.torch.sigmoid_quality_focal(logits, labels, scores, reduction=reduction)
        total, theirs = (one if reduction == "sum" else sum(part.sum() for part in one) for one in (loss, plain))
        assert total == theirs
        for ours, expected in zip(*(torch.autograd.grad(one, logits) for one in (total, theirs))):
            assert torch.equal(ours, expected)


def test_with_the_other_results():
    logits, labels, _ = batch()
    loss, sums, levels, counts = tare.torch.sigmoid_focal(
        logits, labels, class_sums=True, level_losses=True, norm_histogram=7
    )
    assert sums.shape == (5, 4) and levels.sum() == pytest.approx(float(loss)) and counts.shape == (7,)
    assert (counts.numpy() == counted(logits, labels, [torch.ones_like(y, dtype=torch.float) for y in labels], 7)).all()


def test_compiled():
    logits, labels, _ = batch()
    x, y = logits[0].requires_grad_(), labels[0]

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(a, b):
        return tare.torch.sigmoid_focal(a, b, norm_histogram=9)

    loss, counts = step(x, y)
    loss.backward()
    assert torch.equal(counts, tare.torch.sigmoid_focal(x, y, norm_histogram=9)[1])


def test_numpy():
    logits, labels, scores = ([one.numpy() for one in level] for level in batch())
    result = tare.evaluate("sigmoid-varifocal", logits, labels, scores=scores, norm_histogram=33)
    assert (result.norm_histogram == counted(*batch(), 33)).all()
    assert tare.evaluate("sigmoid-varifocal", logits, labels, scores=scores).norm_histogram is None


def test_what_is_refused():
    logits, labels, _ = batch()
    for options, text in (
        ({"norm_histogram": 2000}, "norm_histogram is 2000"),
        ({"norm_histogram": 1.5}, "norm_histogram"),
    ):
        with pytest.raises(ValueError, match=text):
            tare.torch.sigmoid_ce(logits, labels, **options)
    with pytest.raises(tare.Error, match="norm_histogram with a softmax loss"):
        tare.torch.softmax_ce(logits[0], labels[0].clamp(min=0), norm_histogram=5)
    with pytest.raises(tare.Error, match="norm_histogram with a GHM loss"):
        tare.torch.ghm_c(logits, labels, norm_histogram=5)
