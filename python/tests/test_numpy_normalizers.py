# SPDX-License-Identifier: Apache-2.0
"""Divisors that are formed from targets, of NumPy arrays, and the sums of all normalizers."""

import numpy as np
import pytest

import tare


def _batch(rows=500, classes=5, seed=7):
    source = np.random.default_rng(seed)
    logits = source.normal(-1, 3, (rows, classes)).astype(np.float32)
    labels = source.integers(-2, classes, rows).astype(np.int32)
    scores = source.integers(0, 5, rows).astype(np.float32) / 4
    return logits, labels, scores


def test_scores_are_summed():
    logits, labels, scores = _batch()
    arguments = ("sigmoid-varifocal", logits, labels)
    whole = tare.evaluate(*arguments, scores=scores)
    found = tare.evaluate(*arguments, scores=scores, normalizer="targets", normalizer_sums=True)
    chosen = scores[labels >= 0]
    assert found.loss == pytest.approx(whole.loss / chosen.sum(), rel=1e-12)
    assert found.normalizer_sums == {
        "elements": 5.0 * (labels != -2).sum(),
        "rows": (labels != -2).sum(),
        "positives": len(chosen),
        "weights": (labels != -2).sum(),
        "targets": chosen.sum(),
        "ones": (chosen == 1).sum(),
    }
    ones = tare.evaluate(*arguments, scores=scores, normalizer="ones")
    assert ones.loss == pytest.approx(whole.loss / (chosen == 1).sum(), rel=1e-12)
    np.testing.assert_allclose(found.gradient, whole.gradient / chosen.sum(), rtol=1e-5)
    assert whole.normalizer_sums is None


def test_dense_targets_are_summed():
    logits, _, _ = _batch()
    targets = np.random.default_rng(1).integers(0, 5, logits.shape).astype(np.float32) / 4
    whole = tare.evaluate("sigmoid-ce", logits, targets=targets)
    found = tare.evaluate("sigmoid-ce", logits, targets=targets, normalizer="targets", normalizer_sums=True)
    assert found.loss == pytest.approx(whole.loss / targets.sum(), rel=1e-12)
    assert found.normalizer_sums["ones"] == (targets == 1).sum()


@pytest.mark.parametrize("addend, minimum, divisor", [(1, 0, 3), (0, 10, 10), (1, 10, 10), (9, 10, 11), (0, 0, 2)])
def test_addend_and_minimum(addend, minimum, divisor):
    logits, labels = np.ones((4, 2), np.float32), np.array([0, 1, -1, -2])
    whole = tare.evaluate("sigmoid-ce", logits, labels).loss
    options = dict(normalizer="positives", normalizer_addend=addend, normalizer_minimum=minimum)
    assert tare.evaluate("sigmoid-ce", logits, labels, **options).loss == whole / divisor


@pytest.mark.parametrize(
    "options, text",
    [
        (dict(normalizer="rows", normalizer_addend=-1), r"normalizer_addend is -1; it must be in \[0,1e30\]"),
        (dict(normalizer_minimum=1), "normalizer_minimum is 1 with normalizer 'sum'; it must be 0"),
        (dict(normalizer=2.0, normalizer_addend=1), "normalizer_addend is 1 with normalizer 'value'; it must be 0"),
        (dict(normalizer="rows", normalizer_minimum=float("nan")), "normalizer_minimum"),
    ],
)
def test_refusals(options, text):
    logits, labels, _ = _batch(9)
    with pytest.raises(ValueError, match=text):
        tare.evaluate("sigmoid-ce", logits, labels, **options)


def test_ghm_has_its_own():
    logits, labels, _ = _batch(9)
    with pytest.raises(tare.Error, match="normalizer_sums with ghm-c, which has its own normalizer"):
        tare.evaluate("ghm-c", logits, labels, normalizer_sums=True)


# ---- levels ---------------------------------------------------------------------------------------------------------


def _levels(seed=7):
    parts = [_batch(rows, seed=seed + rows) for rows in (300, 40, 7)]
    return [list(arrays) for arrays in zip(*parts)]


def test_a_level_is_a_call_of_its_own():
    logits, labels, scores = _levels()
    divisors, weights = [None, 3.5, 2.0], [1, 1, 0.5]
    found = tare.evaluate(
        "sigmoid-varifocal",
        logits,
        labels,
        scores=scores,
        normalizer="targets",
        normalizer_scope="level",
        normalizer_addend=1,
        level_divisors=divisors,
        level_weights=weights,
        level_losses=True,
        normalizer_sums=True,
    )
    assert found.level_losses.shape == (3,) and found.loss == found.level_losses.sum()
    for level, (divisor, weight) in enumerate(zip(divisors, weights)):
        own = dict(normalizer="targets", normalizer_addend=1) if divisor is None else dict(normalizer=divisor)
        one = tare.evaluate(
            "sigmoid-varifocal", logits[level], labels[level], scores=scores[level], gradient_scale=weight, **own
        )
        assert found.level_losses[level] == weight * one.loss
        assert (found.gradient[level] == one.gradient).all()
        assert found.normalizer_sums[level]["targets"] == scores[level][labels[level] >= 0].sum()


def test_losses_of_levels_alone():
    logits, labels, _ = _levels()
    whole = tare.evaluate("sigmoid-focal", logits, labels, normalizer="positives")
    found = tare.evaluate("sigmoid-focal", logits, labels, normalizer="positives", level_losses=True)
    assert found.loss == pytest.approx(whole.loss, rel=1e-14)
    assert all((a == b).all() for a, b in zip(found.gradient, whole.gradient))
    assert whole.level_losses is None


@pytest.mark.parametrize(
    "options, text",
    [
        (dict(level_weights=[1, 2]), "level_weights has 2 numbers; there are 3 levels"),
        (dict(level_weights=2.0), "level_weights is of type float; it must be a list"),
        (dict(level_divisors=[1, float("inf"), 1]), r"level_divisors\[1\]"),
        (dict(normalizer_scope="image"), "normalizer_scope is 'image'"),
        (dict(normalizer_scope="level"), "normalizer_scope is 'level' with normalizer"),
    ],
)
def test_refusals_of_levels(options, text):
    logits, labels, _ = _levels()
    with pytest.raises(ValueError, match=text):
        tare.evaluate("sigmoid-ce", logits, labels, **options)
