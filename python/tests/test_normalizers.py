# SPDX-License-Identifier: Apache-2.0
"""Divisors that are formed from targets, of tensors."""

import pytest
import torch

import tare
import tare.torch


def _batch(rows=500, classes=5):
    source = torch.Generator().manual_seed(3)
    logits = torch.randn(rows, classes, generator=source)
    labels = torch.randint(-2, classes, (rows,), generator=source)
    scores = torch.randint(0, 5, (rows,), generator=source) / 4
    return logits, labels, scores


def _loss_and_gradient(logits, *arguments, **options):
    x = logits.clone().requires_grad_()
    loss = tare.torch.loss("sigmoid-varifocal", x, *arguments, **options)
    (2 * loss).backward()
    return loss.detach(), x.grad


@pytest.mark.parametrize("double", [False, True])  # of which no gradient is kept
def test_a_divisor_of_targets(double):
    logits, labels, scores = _batch()
    logits = logits.double() if double else logits
    chosen = scores[labels >= 0]
    for normalizer, divisor in (("targets", chosen.sum()), ("ones", (chosen == 1).sum())):
        options = dict(normalizer=normalizer, normalizer_addend=1, normalizer_minimum=2)
        loss, gradient = _loss_and_gradient(logits, labels, scores=scores, **options)
        expected = _loss_and_gradient(logits, labels, scores=scores, normalizer=(divisor + 1).float())
        torch.testing.assert_close(loss, expected[0])
        torch.testing.assert_close(gradient, expected[1])
        again = _loss_and_gradient(logits, labels, scores=scores, **options)  # a kept call
        assert torch.equal(again[0], loss) and torch.equal(again[1], gradient)


def test_a_minimum():
    logits, labels, scores = _batch()
    options = dict(normalizer="targets", normalizer_minimum=1e6)
    loss, _ = _loss_and_gradient(logits, labels, scores=scores, **options)
    expected, _ = _loss_and_gradient(logits, labels, scores=scores, normalizer=1e6)
    assert torch.equal(loss, expected)


def test_refusals():
    logits, labels, _ = _batch(9)
    with pytest.raises(ValueError, match="normalizer_minimum is 1 with normalizer 'sum'; it must be 0"):
        tare.torch.sigmoid_ce(logits, labels, normalizer_minimum=1)
    with pytest.raises(TypeError, match="normalizer_addend"):
        tare.torch.sigmoid_ce(logits, labels, normalizer="rows", normalizer_addend="1")
