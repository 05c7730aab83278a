# SPDX-License-Identifier: Apache-2.0
"""Sums of each class, of NumPy arrays."""

import numpy as np
import pytest

import tare


def _batch(rows=3000, classes=5, seed=7):
    source = np.random.default_rng(seed)
    logits = source.normal(-1, 3, (rows, classes)).astype(np.float32)
    labels = source.integers(-2, classes, rows).astype(np.int32)
    return logits, labels


def _expected(logits, labels):
    """Of sigmoid cross-entropy, without weights."""
    x = logits.astype(np.float64)
    counts, t = labels != -2, labels[:, None] == np.arange(x.shape[1])
    gradient = np.abs(1 / (1 + np.exp(-x)) - t) * counts[:, None]
    loss = (np.logaddexp(0, x) - x * t) * counts[:, None]
    parts = loss, gradient * t, gradient * ~t, np.broadcast_to(counts[:, None], x.shape)
    return np.stack([part.sum(0) for part in parts], 1)


def test_numpy():
    logits, labels = _batch()
    result = tare.evaluate("sigmoid-ce", logits, labels, normalizer="positives", gradient_scale=8, class_sums=True)
    assert result.class_sums.shape == (5, 4) and result.class_sums.dtype == np.float64
    np.testing.assert_allclose(result.class_sums, _expected(logits, labels), rtol=1e-6)
    without = tare.evaluate("sigmoid-ce", logits, labels, normalizer="positives", gradient_scale=8)
    assert without.class_sums is None and without.loss == result.loss
    assert (without.gradient == result.gradient).all()


def test_threads_and_half_types_do_not_change_them():
    logits, labels = _batch()
    narrow = logits.astype(np.float16)
    first = tare.evaluate("sigmoid-focal", narrow, labels, class_sums=True, threads=1).class_sums
    again = tare.evaluate("sigmoid-focal", narrow, labels, class_sums=True, threads=5).class_sums
    wide = tare.evaluate("sigmoid-focal", narrow.astype(np.float32), labels, class_sums=True).class_sums
    assert (first == again).all() and (first == wide).all()


def test_refusals():
    logits, labels = _batch(9, 4)
    with pytest.raises(tare.Error, match="class_sums with ghm-r: its columns are not classes"):
        tare.evaluate("ghm-r", logits, targets=logits, class_sums=True)
    with pytest.raises(tare.Error, match="a row's loss belongs to no class; use labels"):
        tare.evaluate("softmax-ce", logits, targets=np.abs(logits), class_sums=True)
    with pytest.raises(TypeError, match="class_sums is 2"):
        tare.evaluate("sigmoid-ce", logits, labels, class_sums=2)
