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


# ---- levels ---------------------------------------------------------------------------------------------------------


def _levels():
    parts = [_batch(rows) for rows in (300, 40, 7)]
    return [list(tensors) for tensors in zip(*parts)]


@pytest.mark.parametrize("double", [False, True])
def test_levels_are_calls_of_their_own(double):
    logits, labels, scores = _levels()
    logits = [one.double() if double else one for one in logits]
    count = torch.tensor(19.0)
    options = dict(level_divisors=[count, 3.5, None], level_weights=[1, 0.5, 2], level_losses=True, normalizer=7)
    for _ in range(3):  # the second is a kept call, and the third has another divisor
        leaves = [one.clone().requires_grad_() for one in logits]
        loss, losses = tare.torch.loss("sigmoid-varifocal", leaves, labels, scores=scores, **options)
        loss.backward()
        assert losses.shape == (3,) and not losses.requires_grad
        torch.testing.assert_close(losses.sum(), loss.detach())
        for level, (divisor, weight) in enumerate(((count, 1), (3.5, 0.5), (7, 2))):
            own, gradient = _loss_and_gradient(logits[level], labels[level], scores=scores[level], normalizer=divisor)
            torch.testing.assert_close(losses[level], weight * own)
            torch.testing.assert_close(leaves[level].grad, weight * gradient / 2)
        count.mul_(2)


def test_a_divisor_for_each_level():
    logits, labels, scores = _levels()
    options = dict(normalizer="targets", normalizer_scope="level", level_losses=True, class_sums=True)
    _, sums, losses = tare.torch.loss("sigmoid-varifocal", logits, labels, scores=scores, **options)
    assert sums.shape == (5, 4)
    for level in range(3):
        own = tare.torch.loss(
            "sigmoid-varifocal", logits[level], labels[level], scores=scores[level], normalizer="targets"
        )
        torch.testing.assert_close(losses[level], own, rtol=0, atol=0)


def test_levels_in_a_graph():
    logits, labels, _ = _levels()

    @torch.compile(backend="aot_eager", fullgraph=True)
    def step(*levels):
        loss, losses = tare.torch.sigmoid_focal(
            list(levels), labels, normalizer="positives", level_divisors=[None, torch.tensor(2.0), 3], level_losses=True
        )
        return loss, losses

    leaves = [one.clone().requires_grad_() for one in logits]
    loss, losses = step(*leaves)
    loss.backward()
    options = dict(normalizer="positives", level_divisors=[None, 2.0, 3.0], level_losses=True)
    expected, parts = tare.torch.sigmoid_focal(logits, labels, **options)
    torch.testing.assert_close(loss.detach(), expected)
    torch.testing.assert_close(losses, parts)
    assert all(one.grad is not None for one in leaves)


def test_refusals_of_levels():
    logits, labels, _ = _levels()
    with pytest.raises(ValueError, match="level_losses is True with reduction 'rows'"):
        tare.torch.sigmoid_ce(logits, labels, reduction="rows", level_losses=True)
    with pytest.raises(ValueError, match="level_divisors has 2 numbers; there are 3 levels"):
        tare.torch.sigmoid_ce(logits, labels, level_divisors=[1, 2])
    with pytest.raises(ValueError, match="it must have one element"):
        tare.torch.sigmoid_ce(logits, labels, level_divisors=[torch.ones(2), None, None])


def test_refusals_of_sums():
    logits, labels, _ = _batch()
    with pytest.raises(TypeError, match="normalizer_sums has no reduction"):
        tare.torch.normalizer_sums("sigmoid-focal", logits, labels, reduction="rows")
    with pytest.raises(TypeError, match="its sums are this rank's; add them with torch.distributed.all_reduce"):
        tare.torch.normalizer_sums("sigmoid-focal", logits, labels, process_group=object())
    with pytest.raises(TypeError, match="normalizer_sums has no process_group"):
        tare.torch.normalizer_sums("sigmoid-focal", logits, labels, gradients="summed")
