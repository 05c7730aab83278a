# SPDX-License-Identifier: Apache-2.0
"""Scores of labels, and the losses made for them, on NumPy arrays and tensors, against the formulas in double."""

import numpy as np
import pytest

import tare


def reference(x, labels, scores, kind, gamma=2.0, alpha=0.75, detached=False):
    """Element losses and their gradient, of arrays in double."""
    p, softplus = 1 / (1 + np.exp(-x)), np.logaddexp(0, x)
    hit = labels[:, None] == np.arange(x.shape[1])
    q = np.where(hit, np.nan_to_num(scores)[:, None], 0)
    ce, slope = softplus - x * q, p - q
    if kind == "sigmoid-quality-focal":
        s, sign = np.abs(p - q), np.sign(p - q)
        loss = s**gamma * ce
        slope = s**gamma * (p - q) + gamma * s ** (gamma - 1) * sign * p * (1 - p) * ce
    elif kind == "sigmoid-matchability":
        target = np.where(hit, q**gamma, 0)
        loss = np.where(hit, softplus - x * target, p**gamma * softplus)
        slope = np.where(hit, p - target, p ** (gamma + 1))
    elif kind == "sigmoid-iou-aware":
        target = np.maximum(p**0.25 * q**0.75, 0.01)
        loss = np.where(hit, softplus - x * target, p**gamma * softplus)
        slope = np.where(hit, p - target, p**gamma * (p + gamma * (1 - p) * softplus))
    elif kind == "sigmoid-varifocal":
        through = 0 if detached else gamma * (1 - p) * softplus
        loss = np.where(q > 0, q * ce, alpha * p**gamma * softplus)
        slope = np.where(q > 0, q * slope, alpha * p**gamma * (p + through))
    else:
        loss = ce
    counts = (labels != -2)[:, None]
    return np.where(counts, loss, 0), np.where(counts, slope, 0)


KINDS = ["sigmoid-ce", "sigmoid-varifocal", "sigmoid-quality-focal", "sigmoid-matchability", "sigmoid-iou-aware"]


def batch(rows=200, classes=7, dtype=np.float32):
    random = np.random.default_rng(3)
    labels = random.integers(-2, classes, rows)
    scores = random.uniform(0, 1, rows).astype(dtype)
    scores[::7], scores[labels < 0] = 0, np.nan
    return random.normal(-2, 3, (rows, classes)).astype(dtype), labels, scores


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_numpy(kind, dtype):
    x, labels, scores = batch(dtype=dtype)
    gamma = 1.5 if kind == "sigmoid-matchability" else 2.0
    loss, gradient = reference(x.astype(float), labels, scores.astype(float), kind, gamma)
    found = tare.evaluate(kind, x, labels, scores=scores, element_loss=True)
    np.testing.assert_allclose(found.element_loss, loss, rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(found.gradient, gradient, rtol=2e-5, atol=2e-6)
    assert found.counts["positives"] == (labels >= 0).sum()
    half = tare.evaluate(kind, x, labels, scores=scores.astype(np.float16))
    np.testing.assert_allclose(half.loss, found.loss, rtol=1e-2)


def test_numpy_levels():
    x, labels, scores = batch(240)
    whole = tare.evaluate("sigmoid-varifocal", x, labels, scores=scores, normalizer="positives")
    parts = [x[:80].reshape(2, 40, 7), x[80:].reshape(2, 80, 7)]
    rows = [labels[:80].reshape(2, 40), labels[80:].reshape(2, 80)]
    of_rows = [scores[:80].reshape(2, 40), scores[80:].reshape(2, 80)]
    found = tare.evaluate("sigmoid-varifocal", parts, rows, scores=of_rows, normalizer="positives")
    np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-12)
    np.testing.assert_array_equal(np.concatenate([one.reshape(-1, 7) for one in found.gradient]), whole.gradient)
    both = np.concatenate([one.reshape(2, -1) for one in of_rows], 1)
    again = tare.evaluate("sigmoid-varifocal", parts, rows, scores=both, normalizer="positives")
    assert again.loss == found.loss


def test_errors():
    x, labels, scores = batch()
    with pytest.raises(tare.Error, match="takes no scores; these do: sigmoid-ce, sigmoid-focal, sigmoid-varifocal"):
        tare.evaluate("sigmoid-poly1", x, labels, scores=scores)
    with pytest.raises(ValueError, match="f64 scores need f64 logits"):
        tare.evaluate("sigmoid-ce", x, labels, scores=scores.astype(float))
    with pytest.raises(ValueError, match=r"scores has shape \(199,\)"):
        tare.evaluate("sigmoid-ce", x, labels, scores=scores[1:])
    with pytest.raises(ValueError, match="scores are int64"):
        tare.evaluate("sigmoid-ce", x, labels, scores=labels)
    with pytest.raises(tare.Error, match="a score belongs to a label"):
        tare.evaluate("sigmoid-ce", x, targets=np.abs(x) % 1, scores=scores)
    with pytest.raises(ValueError, match="modulator is 'half'"):
        tare.evaluate("sigmoid-varifocal", x, labels, modulator="half")
    scores[labels.tolist().index(3)] = 2
    with pytest.raises(tare.Error, match="score of row [0-9]+, class 3 is 2"):
        tare.evaluate("sigmoid-ce", x, labels, scores=scores)


def test_torch():
    torch = pytest.importorskip("torch")
    import tare.torch

    x, labels, scores = batch()
    for detached in (False, True):
        logits = torch.tensor(x, requires_grad=True)
        loss = tare.torch.sigmoid_varifocal(
            logits,
            torch.tensor(labels),
            torch.tensor(scores),
            gamma=1.5,
            alpha=0.5,
            modulator="detached" if detached else "differentiated",
            normalizer="positives",
        )
        (3 * loss).backward()
        value, gradient = reference(
            x.astype(float), labels, scores.astype(float), "sigmoid-varifocal", 1.5, 0.5, detached
        )
        positives = (labels >= 0).sum()
        np.testing.assert_allclose(loss.item(), value.sum() / positives, rtol=1e-6)
        np.testing.assert_allclose(logits.grad.numpy(), 3 * gradient / positives, rtol=2e-5, atol=2e-7)


def test_torch_losses():
    torch = pytest.importorskip("torch")
    import tare.torch

    x, labels, scores = batch()
    y, q = torch.tensor(labels), torch.tensor(scores)
    losses = {
        "sigmoid-quality-focal": (tare.torch.sigmoid_quality_focal, {"beta": 1.5}),
        "sigmoid-matchability": (tare.torch.sigmoid_matchability, {"gamma": 1.5}),
        "sigmoid-iou-aware": (tare.torch.sigmoid_iou_aware, {"gamma": 1.5}),
    }
    for name, (function, parameters) in losses.items():
        logits = torch.tensor(x, requires_grad=True)
        function(logits, y, q, **parameters).backward()
        _, gradient = reference(x.astype(float), labels, scores.astype(float), name, 1.5)
        np.testing.assert_allclose(logits.grad.numpy(), gradient, rtol=1e-4, atol=4e-6, err_msg=name)
    with pytest.raises(tare.Error, match="a dense target has no label"):
        tare.torch.sigmoid_varifocal(torch.tensor(x), targets=torch.rand(x.shape), positives="by-label")


def test_varifocal_positives():
    x, labels, scores = batch()
    scores[labels >= 0] = 0
    by_label = tare.evaluate("sigmoid-varifocal", x, labels, scores=scores, positives="by-label", element_loss=True)
    by_score = tare.evaluate("sigmoid-varifocal", x, labels, scores=scores, element_loss=True)
    hit = labels[:, None] == np.arange(x.shape[1])
    assert (by_label.element_loss[hit] == 0).all() and (by_label.gradient[hit] == 0).all()
    assert (by_score.element_loss[hit] > 0).all()
    np.testing.assert_array_equal(by_label.gradient[~hit], by_score.gradient[~hit])


def test_torch_forms():
    torch = pytest.importorskip("torch")
    import tare.torch

    x, labels, scores = batch(240)
    logits, y, q = torch.tensor(x), torch.tensor(labels), torch.tensor(scores)
    whole = tare.torch.sigmoid_ce(logits, y, scores=q)
    half = tare.torch.sigmoid_ce(logits, y, scores=torch.nan_to_num(q).to(torch.bfloat16))
    assert abs(half.item() / whole.item() - 1) < 1e-2
    rows = tare.torch.sigmoid_ce(logits, y, scores=q, reduction="rows")
    assert rows.shape == (240,) and abs(rows.sum().item() / whole.item() - 1) < 1e-5
    levels = [logits[:80].reshape(2, 40, 7), logits[80:].reshape(2, 80, 7)]
    both = torch.cat([q[:80].reshape(2, 40), q[80:].reshape(2, 80)], 1)
    mine = torch.cat([y[:80].reshape(2, 40), y[80:].reshape(2, 80)], 1)
    found = tare.torch.sigmoid_ce(levels, mine, scores=both)
    assert abs(found.item() / whole.item() - 1) < 1e-6
    with pytest.raises(ValueError, match="scores asks for a gradient"):
        tare.torch.sigmoid_ce(logits, y, scores=torch.nan_to_num(q).requires_grad_())


def test_compiled():
    torch = pytest.importorskip("torch")
    import tare.torch

    x, labels, scores = batch()
    y, q = torch.tensor(labels), torch.tensor(scores)

    def step(logits):
        return tare.torch.sigmoid_varifocal(logits, y, q, modulator="detached")

    eager, compiled = torch.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    step(eager).backward()
    torch.compile(step, backend="aot_eager", fullgraph=True)(compiled).backward()
    torch.testing.assert_close(compiled.grad, eager.grad, rtol=0, atol=0)
