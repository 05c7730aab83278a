# SPDX-License-Identifier: Apache-2.0
"""tare.ClassBalance: running counts of NumPy labels."""

import numpy as np
import pytest

import tare


def counted(labels, classes):
    return np.bincount(labels[labels >= 0], minlength=classes).astype(float)


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_weights_are_those_of_the_counts(decay):
    random, balance = np.random.default_rng(1), tare.ClassBalance(9, beta=0.99, decay=decay)
    assert (balance.weights() == 1).all()
    counts = np.zeros(9)
    for step in range(3):
        labels = random.integers(-2, 5 if step == 0 else 9, (4, 30))
        counts = decay * counts + counted(labels, 9)
        np.testing.assert_allclose(balance.step(labels), tare.class_balanced_weights(counts, 0.99), 1e-6)
        np.testing.assert_allclose(balance.counts, counts)
    assert balance.steps == 3
    before = balance.state.copy()
    np.testing.assert_allclose(balance.weights(), tare.class_balanced_weights(counts, 0.99), 1e-6)
    assert (balance.state == before).all()


def test_ranks_add_the_counts_of_a_step():
    random, ranks, whole = np.random.default_rng(2), [tare.ClassBalance(5) for _ in range(2)], tare.ClassBalance(5)
    parts = [random.integers(-1, 5, 40, dtype=np.int32) for _ in range(2)]
    for rank, labels in zip(ranks, parts):
        rank.count(labels)
    total = sum(rank.state[1:6] for rank in ranks)
    expected = whole.step(np.concatenate(parts))
    for rank in ranks:
        rank.state[1:6] = total
        assert (rank.update() == expected).all() and (rank.counts == whole.counts).all()


def test_least_count_and_conventions():
    balance = tare.ClassBalance(4, beta=0.9, least_count=2.5)
    weights = balance.step(np.array([1, 1, 1, 9, 3, 7]), first_label=1, background_label=9, ignore_label=7)
    np.testing.assert_allclose(weights, tare.class_balanced_weights(np.array([3, 2.5, 2.5, 2.5]), 0.9), 1e-6)
    assert (balance.counts == [3, 0, 1, 0]).all()


def test_what_is_refused():
    for options, text in (
        ({"classes": 0}, "classes is 0"),
        ({"classes": 3, "beta": 1.0}, "beta is 1"),
        ({"classes": 3, "decay": 2.0}, "decay is 2"),
        ({"classes": 3, "least_count": 1e-40}, "least_count is"),
    ):
        with pytest.raises(ValueError, match=text):
            tare.ClassBalance(**options)
    balance = tare.ClassBalance(3)
    with pytest.raises(ValueError, match="label of row 1 is 3"):
        balance.step(np.array([0, 3]))
    with pytest.raises(TypeError, match="labels are float64"):
        balance.step(np.array([0.5]))
    balance.state[-1] = np.array([np.inf]).view(np.int64)[0]
    with pytest.raises(ValueError, match="not finite"):
        balance.weights()
