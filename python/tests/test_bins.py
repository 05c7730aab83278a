# SPDX-License-Identifier: Apache-2.0
"""Targets between bins, against PyTorch's cross-entropies: distribution focal loss and two-hot cross-entropy."""

import numpy as np
import pytest

import tare

torch = pytest.importorskip("torch")
import tare.torch  # noqa: E402

BINS = 17


def two_entropies(logits, left, left_weight, right_weight):
    """As mmdetection, Ultralytics and D-FINE compute it, for each row."""
    flat = logits.reshape(-1, logits.shape[-1])
    right = (left + 1).clamp(max=logits.shape[-1] - 1)
    ce = torch.nn.functional.cross_entropy
    one = ce(flat, left.reshape(-1), reduction="none") * left_weight.reshape(-1)
    return (one + ce(flat, right.reshape(-1), reduction="none") * right_weight.reshape(-1)).reshape(left.shape)


def drawn(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(*shape, BINS, generator=generator, dtype=dtype) * 3
    target = torch.rand(*shape, generator=generator, dtype=dtype) * (BINS - 1)
    return logits.requires_grad_(), target


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("delta", [0, 0.01])
def test_distribution_focal_is_two_cross_entropies(dtype, tolerance, delta):
    logits, target = drawn(40, 4, dtype=dtype)
    clamped = target.clamp(0, BINS - 1 - delta)
    left = clamped.floor().long()
    want = two_entropies(logits, left, left + 1 - clamped, clamped - left)
    (expected,) = torch.autograd.grad(want.sum(), logits)
    rows = tare.torch.softmax_distribution_focal(logits, scores=target, delta=delta, reduction="rows")
    torch.testing.assert_close(rows, want, rtol=tolerance, atol=tolerance)
    (gradient,) = torch.autograd.grad(tare.torch.softmax_distribution_focal(logits, scores=target, delta=delta), logits)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=tolerance)


def test_labels_of_objects_say_which_rows_count():
    logits, target = drawn(30)
    labels = torch.arange(30) % 80 + 50
    labels[3], labels[7], target[7] = -1, -2, torch.nan
    loss = tare.torch.softmax_distribution_focal(logits, labels, target, normalizer="positives")
    kept = [row for row in range(30) if row not in (3, 7)]
    rows = tare.torch.softmax_distribution_focal(logits[kept], scores=target[kept], reduction="rows")
    torch.testing.assert_close(loss.item(), rows.mean().item())


def test_a_map_of_four_sides():
    sides = torch.randn(2, 4 * BINS, 5, 3, dtype=torch.float64)
    target = torch.rand(2, 5, 3, 4, dtype=torch.float64) * (BINS - 1)
    rows = sides.reshape(2, 4, BINS, 5, 3).permute(0, 3, 4, 1, 2)
    of_map = tare.torch.softmax_distribution_focal(sides, scores=target, classes=BINS)
    torch.testing.assert_close(of_map, tare.torch.softmax_distribution_focal(rows, scores=target))


def test_two_hot_takes_two_weights():
    logits, target = drawn(50)
    left = target.floor().long().clamp(max=BINS - 2)
    weights = torch.rand(50, 2, dtype=torch.float64)
    weights[::5] *= 3
    want = two_entropies(logits, left, weights[:, 0], weights[:, 1]).sum()
    (expected,) = torch.autograd.grad(want, logits)
    for scores in (weights, weights.T.contiguous().T):  # side by side, and apart
        loss = tare.torch.softmax_two_hot(logits, left, scores)
        torch.testing.assert_close(loss.item(), want.item(), rtol=1e-12, atol=0)
        (gradient,) = torch.autograd.grad(loss, logits)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)
    found = tare.evaluate("softmax-two-hot", logits.detach().numpy(), left.numpy(), scores=weights.numpy())
    np.testing.assert_allclose(found.loss, want.item(), rtol=1e-12)
    np.testing.assert_allclose(found.gradient, expected.numpy(), atol=1e-12)


def test_numpy_takes_targets_without_labels():
    logits, target = (one.detach().numpy() for one in drawn(20))
    found = tare.evaluate("softmax-distribution-focal", logits, None, scores=target, normalizer="positives")
    assert found.counts["positives"] == found.counts["counted"] == 20
    target[4] = np.inf
    with pytest.raises(ValueError, match="score of row 4, its target between bins, is inf.*finite"):
        tare.evaluate("softmax-distribution-focal", logits, None, scores=target)


def test_compiled_and_prepared_calls_agree():
    logits, target = drawn(8, dtype=torch.float32)
    module = tare.torch.nn.SoftmaxDistributionFocalLoss(delta=0.01)
    first, second = module(logits, scores=target), module(logits, scores=target)
    assert first.item() == second.item()
    levels = tare.torch.softmax_distribution_focal([logits[:5], logits[5:]], scores=target, delta=0.01)
    torch.testing.assert_close(levels, first)


def test_refusals():
    logits, target = drawn(6)
    with pytest.raises(ValueError, match="two for each row"):
        tare.torch.softmax_two_hot(logits, torch.zeros(6, dtype=torch.long), target)
    with pytest.raises(ValueError, match="list of one"):
        tare.torch.softmax_two_hot([logits[:3], logits[3:]], torch.zeros(6, dtype=torch.long), torch.ones(6, 2))
    with pytest.raises(ValueError, match="labels and targets are None"):
        tare.torch.softmax_two_hot(logits, scores=torch.ones(6, 2))
    with pytest.raises(ValueError, match="delta"):
        tare.torch.softmax_distribution_focal(logits, scores=target, delta=2)
