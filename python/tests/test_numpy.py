# SPDX-License-Identifier: Apache-2.0
"""tare.evaluate on NumPy arrays against the papers' formulas in double precision."""

import numpy as np
import pytest
import reference

import tare

SIGMOID = {
    "sigmoid-ce": {"alpha": 0.3},
    "sigmoid-focal": {"gamma": 2.0, "alpha": 0.25},
    "sigmoid-poly1": {"gamma": 1.5, "alpha": 0.6, "epsilon": 0.5},
}
SOFTMAX = {"softmax-ce": {}, "softmax-focal": {"gamma": 2.0, "alpha": 0.7}}


def draw(rows=300, classes=7, seed=0, spread=4.0):
    random = np.random.default_rng(seed)
    x = (random.standard_normal((rows, classes)) * spread).astype(np.float32)
    y = random.integers(-1, classes, rows)
    return x, y


def near(ours, exact, relative=3e-6, absolute=1e-30):
    np.testing.assert_allclose(np.asarray(ours, np.float64), exact, relative, absolute)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("name", SIGMOID)
def test_sigmoid_losses(name, dtype):
    x, y = draw()
    x = x.astype(dtype)
    found = tare.evaluate(name, x, y, element_loss=True, row_loss=True, **SIGMOID[name])
    loss, gradient = reference.sigmoid(x.astype(float), reference.one_hot(y, 7), **SIGMOID[name])
    tolerance = {"float32": 3e-6, "float16": 1e-3, "float64": 1e-13}[dtype]
    smallest = 6e-8 if dtype == "float16" else 1e-30
    near(found.gradient, gradient, tolerance, smallest)
    near(found.element_loss, loss, max(tolerance, 1e-13) if dtype == "float64" else 3e-6)
    near(found.row_loss, loss.sum(1), 3e-6)
    near(found.loss, loss.sum(), 1e-6)
    assert found.gradient.dtype == dtype
    assert found.element_loss.dtype == (np.float64 if dtype == "float64" else np.float32)


@pytest.mark.parametrize("name", SOFTMAX)
def test_softmax_losses(name):
    x, y = draw()
    y = np.abs(y)
    found = tare.evaluate(name, x, y, row_loss=True, **SOFTMAX[name])
    loss, gradient = reference.softmax(x.astype(float), y, **SOFTMAX[name])
    near(found.row_loss, loss, 1e-5)
    near(found.gradient, gradient, 1e-5)
    near(found.loss, loss.sum(), 1e-6)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 1.5, 2, 5])
def test_every_power(gamma):
    x, y = draw()
    found = tare.evaluate("sigmoid-focal", x, y, gamma=gamma, alpha=-1, element_loss=True)
    loss, gradient = reference.sigmoid(x.astype(float), reference.one_hot(y, 7), gamma)
    near(found.element_loss, loss, 1e-5)
    near(found.gradient, gradient, 1e-5)


@pytest.mark.parametrize("name", SIGMOID)
def test_soft_targets(name):
    x, _ = draw(spread=2.0)
    t = np.random.default_rng(1).random(x.shape).astype(np.float32)
    t[::3], t[1::3] = 0, 1
    found = tare.evaluate(name, x, targets=t, element_loss=True, **SIGMOID[name])
    loss, gradient = reference.sigmoid(x.astype(float), t.astype(float), **SIGMOID[name])
    near(found.element_loss, loss, 1e-5, 1e-6)
    near(found.gradient, gradient, 1e-5, 1e-6)


def test_normalizers_and_counts():
    x, y = draw()
    y[5:9] = -2
    total = tare.evaluate("sigmoid-ce", x, y).loss
    positives, ignored = int((y >= 0).sum()), 4
    divisors = {"sum": 1, "elements": 296 * 7, "rows": 296, "positives": positives, "weights": 296, 2.5: 2.5}
    for normalizer, divisor in divisors.items():
        found = tare.evaluate("sigmoid-ce", x, y, normalizer=normalizer, gradient_scale=3.0)
        near(found.loss, total / divisor, 1e-12)
        near(found.gradient.astype(float), tare.evaluate("sigmoid-ce", x, y).gradient * (3.0 / divisor), 1e-6)
    assert found.counts == {
        "rows": 300,
        "counted": 296,
        "positives": positives,
        "background": 296 - positives,
        "ignored": ignored,
        "invalid": 0,
    }


def test_weights():
    x, y = draw()
    random = np.random.default_rng(2)
    rows, elements = random.random(300), random.random((300, 7))
    classes, positive = random.random(7), random.random(7)
    found = tare.evaluate(
        "sigmoid-ce",
        x,
        y,
        row_weights=rows,
        element_weights=elements,
        class_weights=classes,
        background_weight=0.5,
        positive_weights=positive,
    )
    t = reference.one_hot(y, 7)
    loss, gradient = reference.sigmoid(x.astype(float), t)
    weight = np.where(y >= 0, classes[y], 0.5)[:, None] * rows[:, None] * elements * np.where(t == 1, positive, 1)
    near(found.loss, (loss * weight).sum(), 1e-6)
    near(found.gradient, gradient * weight, 1e-5)
    per_class = tare.evaluate("sigmoid-ce", x, y, alpha=classes)
    near(per_class.loss, (loss * np.where(t == 1, classes, 1 - classes)).sum(), 1e-6)


def test_maps_and_strides_are_rows():
    random = np.random.default_rng(3)
    maps = [random.standard_normal((2, 3 * 5, side, side)).astype(np.float32) for side in (6, 3)]
    labels = [random.integers(-1, 5, (2, side, side, 3)) for side in (6, 3)]
    rows = [one.reshape(2, 3, 5, *one.shape[2:]).transpose(0, 3, 4, 1, 2).reshape(-1, 5) for one in maps]
    flat = tare.evaluate(
        "sigmoid-focal", np.concatenate(rows), np.concatenate([y.ravel() for y in labels]), normalizer="positives"
    )
    whole = np.concatenate([y.reshape(2, -1) for y in labels], 1)  # image by image, as detectors assign them
    for given in (labels, [y.reshape(2, -1) for y in labels], whole):
        found = tare.evaluate("sigmoid-focal", maps, given, classes=5, normalizer="positives", row_loss=True)
        assert found.loss == pytest.approx(flat.loss, rel=1e-12)
        assert [one.shape for one in found.row_loss] == [y.shape for y in labels]
        gradients = [
            one.reshape(2, 3, 5, *one.shape[2:]).transpose(0, 3, 4, 1, 2).reshape(-1, 5) for one in found.gradient
        ]
        np.testing.assert_array_equal(np.concatenate(gradients), flat.gradient)
    turned = [y.transpose(0, 3, 1, 2) for y in labels]
    with pytest.raises(ValueError, match=r"labels has shape \(2, 3, 6, 6\).* rows \(2, 6, 6, 3\)"):
        tare.evaluate("sigmoid-focal", maps, turned, classes=5)
    x = np.concatenate(rows)
    spaced = np.zeros((len(x), 5, 2), np.float32)
    spaced[..., 0] = x
    view = spaced[::-1, :, 0]
    labels = np.concatenate([y.ravel() for y in labels])
    found = tare.evaluate("sigmoid-focal", view, labels[::-1], normalizer="positives")
    np.testing.assert_array_equal(found.gradient[::-1], flat.gradient)


def test_label_conventions():
    x, y = draw()
    plain = tare.evaluate("sigmoid-focal", x, y)
    last = tare.evaluate("sigmoid-focal", x, np.where(y < 0, 7, y), background_label=7, ignore_label=-1)
    first = tare.evaluate(
        "sigmoid-focal", x, (y + 1).astype(np.int32), first_label=1, background_label=0, ignore_label=-1
    )
    assert plain.loss == last.loss == first.loss


def test_ghm_c_with_momentum():
    state, sums = tare.ghm_state(8), None
    for step in range(5):
        x, y = draw(seed=step)
        t = reference.one_hot(y, 7)
        _, slope = reference.sigmoid(x.astype(float), t)
        counts = reference.unit_regions(np.abs(slope), 8, np.ones(x.shape, bool))[1]
        sums = counts if sums is None else 0.75 * sums + 0.25 * counts
        found = tare.evaluate("ghm-c", x, y, bins=8, momentum=0.75, state=state)
        loss, gradient = reference.ghm_c(x.astype(float), t, 8, sums=sums)
        near(found.loss, loss.sum(), 1e-6)
        near(found.gradient, gradient, 1e-5)
    assert state[0] == 5
    np.testing.assert_array_equal(state[2:10], counts)
    np.testing.assert_allclose(state[10:18].view(np.float64), sums, 1e-12)


def test_ghm_r_and_the_exact_density():
    random = np.random.default_rng(4)
    prediction, target = random.standard_normal((2, 200, 4)).astype(np.float32) * 0.1
    loss, gradient = reference.ghm_r((prediction - target).astype(float), 0.02, 10)
    found = tare.evaluate("ghm-r", prediction, targets=target)
    near(found.loss, loss.sum(), 1e-6)
    near(found.gradient, gradient, 1e-5, 1e-9)
    x, y = draw(rows=60)
    loss, gradient = reference.sigmoid(x.astype(float), reference.one_hot(y, 7))
    density = reference.exact_density(np.abs(gradient).ravel(), 0.2).reshape(x.shape)
    found = tare.evaluate("ghm-c", x, y, density="exact", epsilon=0.2)
    near(found.loss, (loss / density).sum(), 1e-6)
    near(found.gradient, gradient / density, 1e-5)


def test_nothing_to_count():
    x, y = draw()
    for name in ("sigmoid-focal", "softmax-ce", "ghm-c"):
        empty = tare.evaluate(name, x[:0], y[:0])
        ignored = tare.evaluate(name, x, np.full(300, -2))
        assert empty.loss == ignored.loss == 0
        assert not ignored.gradient.any() and empty.gradient.shape == (0, 7)
    assert tare.evaluate("softmax-ce", x[:, :1], np.zeros(300, np.int64)).loss == 0


def test_limits():
    x = np.array([[np.inf, -np.inf, np.nan, 125, -125]], np.float32).T
    found = tare.evaluate("sigmoid-ce", x, np.zeros(5, np.int64), element_loss=True)
    np.testing.assert_array_equal(found.element_loss[:4].ravel(), np.float32([0, np.inf, np.nan, 5.166421e-55]))
    np.testing.assert_allclose(found.element_loss[4], 125)
    np.testing.assert_array_equal(found.gradient.ravel()[:2], [0, -1])
    assert np.isnan(found.gradient[2, 0]) and found.gradient[4, 0] == -1


def test_wrong_arguments():
    x, y = draw()
    cases = [
        (dict(loss="focal"), "there is no loss 'focal'; there are: sigmoid-ce"),
        (dict(gama=1.0), "has no parameter 'gama'; it has: alpha, alpha_per_class, gamma"),
        (dict(gamma="high"), "gamma is 'high'"),
        (dict(gamma=-1.0), "gamma is -1"),
        (dict(normalizer="mean"), "normalizer is 'mean'; it is one of: sum"),
        (dict(normalizer=0.0), "normalizer is 0; it must be finite and not 0"),
        (dict(labels=y[:7]), r"labels has shape \(7,\); logits of shape \(300, 7\) have rows"),
        (dict(labels=None, targets=x.T), r"targets has shape \(7, 300\); logits have \(300, 7\)"),
        (dict(labels=None, targets=x.reshape(-1)), r"targets has shape \(2100,\)"),
        (dict(labels=y.astype(float)), "labels are float64; they must be one of: int32"),
        (dict(labels=y + 9), "label of row 0"),
        (dict(logits=x.astype(int)), "logits are int64"),
        (dict(logits=x[0]), "rows are"),
        (dict(classes=2), "classes=2 each level is a map"),
        (dict(class_weights=np.ones(3)), r"class_weights has shape \(3,\); it must be \[7\]"),
        (dict(logits=[x, x], labels=[y]), "labels has 1 levels, logits have 2"),
        (dict(logits=[x, x[:, :2]], labels=[y, y]), "the same images and classes"),
        (dict(logits=[x, x[:, :2]], labels=np.concatenate([y, y])), "need `classes`"),
        (dict(logits=[x] * 17, labels=[y] * 17), "17 levels"),
        (dict(state=np.zeros(3)), "state"),
    ]
    for change, text in cases:
        arguments = {"loss": "sigmoid-focal", "logits": x, "labels": y, **change}
        with pytest.raises(ValueError, match=text):
            tare.evaluate(**arguments)
    packed = np.zeros(300, [("flag", "i1"), ("x", "f4", 7)])["x"]
    with pytest.raises(ValueError, match="no multiples of its element's size"):
        tare.evaluate("sigmoid-focal", packed, y)
    with pytest.raises(ValueError, match="logits are >f4"):
        tare.evaluate("sigmoid-focal", x.astype(">f4"), y)
    with pytest.raises(ValueError, match=r"state has shape \(5,\); for 4 bins it is \[14\]"):
        tare.evaluate("ghm-c", x, y, bins=4, state=np.zeros(5, np.int64))


def test_class_balanced_weights():
    counts, beta = np.array([5000, 500, 50, 0]), 0.999
    effective = (1 - beta ** counts[:3].astype(float)) / (1 - beta)
    weights = 1 / effective
    np.testing.assert_allclose(tare.class_balanced_weights(counts, beta), [*(weights / weights.sum() * 3), 0], 1e-6)
    np.testing.assert_allclose(tare.class_balanced_weights(counts, [beta] * 4)[:3], weights / weights.sum() * 3, 1e-6)
    assert tare.effective_number(50, beta) == pytest.approx(effective[2])
    assert tare.beta_from_volume(1000) == pytest.approx(beta)
    with pytest.raises(ValueError, match="beta"):
        tare.class_balanced_weights(counts, 1.0)


def test_class_balanced_weights_of_real_counts():
    counts, beta = np.array([0.5, 2.25, 1e3, 0]), 0.999
    weights = 1 / ((1 - beta ** counts[:3]) / (1 - beta))
    want = [*(weights / weights.sum() * 3), 0]
    for given in (counts, list(counts), counts.astype(np.float32), counts[::-1].copy()[::-1]):
        np.testing.assert_allclose(tare.class_balanced_weights(given, beta), want, 1e-6)
    np.testing.assert_allclose(tare.class_balanced_weights(counts, [beta] * 4), want, 1e-6)
    whole = [5000, 500, 50, 0]
    for dtype in ("i1", "u1", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">i4", ">f8"):
        small = np.minimum(whole, 100).astype(dtype)
        np.testing.assert_array_equal(
            tare.class_balanced_weights(small, beta), tare.class_balanced_weights(np.minimum(whole, 100), beta)
        )
    huge = tare.class_balanced_weights([2**63, 1], beta)  # as uint64 beyond int64
    np.testing.assert_array_equal(huge, tare.class_balanced_weights([2.0**63, 1.0], beta))
    np.testing.assert_array_equal(tare.class_balanced_weights([1e-300, 0], 1 - 1e-16), [1, 0])


@pytest.mark.parametrize(
    "counts, text",
    [
        ([1.0, float("nan")], r"counts\[1\] is nan"),
        ([float("inf"), 1.0], r"counts\[0\] is inf"),
        ([3.0, -0.5], r"counts\[1\] is -0.5"),
        ([3, -1], r"counts\[1\] is -1"),
        ([0.0, 0.0], "counts are all 0"),
        ([1 + 2j, 3], "counts is of type complex128"),
        ([2**70, 1], "counts is of type object"),
        (["5", "7"], "counts is of type <U1"),
        ([True, False], "counts is of type bool"),
        (5, r"counts has shape \(\)"),
        ([], r"counts has shape \(0,\)"),
        ([[1, 2]], r"counts has shape \(1, 2\)"),
        (np.ma.masked_array([5, 7], [0, 1]), "masked array"),
    ],
)
def test_class_balanced_weights_refuses(counts, text):
    with pytest.raises(ValueError, match=text):
        tare.class_balanced_weights(counts, 0.9)


def test_class_balanced_weights_refuses_betas():
    for beta, text in [
        ([0.9, 1.0], r"beta\[1\] is 1;"),
        ([float("nan"), 0.5], r"beta\[0\] is nan"),
        ([0.9], "beta has 1 numbers; counts has 2"),
        ([0.9 + 1j, 0.5], "beta is of type complex128"),
        ([[0.9, 0.5]], "beta has shape"),
        (1.5, "beta is 1.5"),
    ]:
        with pytest.raises(ValueError, match=text):
            tare.class_balanced_weights([1, 2], beta)
