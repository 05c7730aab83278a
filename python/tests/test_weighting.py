# SPDX-License-Identifier: Apache-2.0
"""Positive and negative weights of cross-entropy's terms: PyTorch's pos_weight at targets between 0 and 1."""

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce

import tare
import tare.torch

ROWS, CLASSES = 60, 9
DTYPES = [(torch.float64, 1e-10), (torch.float32, 1e-5)]


def inputs(dtype, seed=0):
    random = torch.Generator().manual_seed(seed)
    x = (torch.randn(ROWS, CLASSES, generator=random) * 4).to(dtype)
    t = torch.rand(ROWS, CLASSES, generator=random).to(dtype)
    t[torch.rand(ROWS, CLASSES, generator=random) < 0.3] = 0
    t[torch.rand(ROWS, CLASSES, generator=random) < 0.2] = 1
    w = torch.rand(CLASSES, generator=random) * 5
    w[0], w[1] = 0, 100
    y = torch.randint(-1, CLASSES, (ROWS,), generator=random)
    return x, t, w, y


def check(ours, theirs, x, bound):
    """Losses and gradients agree to `bound` of the largest element."""
    given, exact = x.detach().requires_grad_(), x.double().requires_grad_()
    got, want = ours(given), theirs(exact)
    assert (got - want).abs().max() <= bound * want.abs().max()
    above = torch.rand_like(want)
    (dx,), (exact_dx,) = torch.autograd.grad(got, given, above.to(got)), torch.autograd.grad(want, exact, above)
    assert (dx - exact_dx).abs().max() <= bound * exact_dx.abs().max()


@pytest.mark.parametrize("dtype, bound", DTYPES)
def test_dense_targets_are_pytorchs(dtype, bound):
    x, t, w, _ = inputs(dtype)
    elements = torch.rand(ROWS, CLASSES)
    options = {"positive_weights": w, "weighting": "terms", "element_weights": elements, "reduction": "none"}
    check(
        lambda x: tare.torch.sigmoid_ce(x, targets=t, **options),
        lambda x: bce(x, t.double(), elements.double(), reduction="none", pos_weight=w.double()),
        x,
        bound,
    )
    blended = tare.torch.sigmoid_ce(x, targets=t, positive_weights=w, reduction="none")
    torch.testing.assert_close(blended, bce(x, t, reduction="none") * (t * w + 1 - t).to(dtype))


@pytest.mark.parametrize("dtype, bound", DTYPES)
def test_scores_are_pytorchs(dtype, bound):
    """BCE of task-aligned learning: the label's target is its score, the others' 0."""
    x, _, w, y = inputs(dtype)
    score = torch.rand(ROWS).to(dtype)
    t = torch.zeros(ROWS, CLASSES + 1).double()
    t[torch.arange(ROWS), y] = score.double()  # of label -1 the last column, which is left out
    check(
        lambda x: tare.torch.sigmoid_ce(x, y, scores=score, positive_weights=w, weighting="terms", reduction="none"),
        lambda x: bce(x, t[:, :-1], reduction="none", pos_weight=w.double()),
        x,
        bound,
    )


@pytest.mark.parametrize("dtype, bound", DTYPES)
@pytest.mark.parametrize("smoothed", ["cross-entropy", "all"])
def test_smoothed_labels_are_pytorchs(dtype, bound, smoothed):
    """Every element has a target of 1's part, so each has a positive and a negative weight."""
    x, _, w, y = inputs(dtype)
    v = torch.rand(CLASSES) + 0.5
    t = torch.nn.functional.one_hot(y + 1, CLASSES + 1)[:, 1:].double() * 0.9 + 0.05
    options = {"positive_weights": w, "negative_weights": v, "weighting": "terms", "smoothed": smoothed}
    check(
        lambda x: tare.torch.sigmoid_ce(x, y, label_smoothing=0.1, reduction="none", **options),
        lambda x: v.double() * bce(x, t, reduction="none", pos_weight=w.double() / v.double()),
        x,
        bound,
    )


def test_ways_agree_at_labels():
    x, _, w, y = inputs(torch.float32)
    blended = tare.torch.sigmoid_ce(x, y, positive_weights=w, reduction="none")
    assert torch.equal(tare.torch.sigmoid_ce(x, y, positive_weights=w, weighting="terms", reduction="none"), blended)


def test_finite_differences():
    x, t, w, y = inputs(torch.float64)
    v = torch.rand(CLASSES)
    options = {"positive_weights": w, "negative_weights": v, "weighting": "terms"}
    x = x[:8].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: tare.torch.sigmoid_ce(x, targets=t[:8], alpha=0.3, **options), x)
    assert torch.autograd.gradcheck(lambda x: tare.torch.sigmoid_ce(x, y[:8], label_smoothing=0.2, **options), x)


def test_numpy_and_modules():
    x, t, w, _ = inputs(torch.float32)
    want = bce(x, t, reduction="sum", pos_weight=w)
    result = tare.evaluate("sigmoid-ce", x.numpy(), targets=t.numpy(), positive_weights=w.numpy(), weighting="terms")
    np.testing.assert_allclose(result.loss, want.item(), rtol=1e-6)
    module = tare.torch.nn.SigmoidCELoss(positive_weights=w, weighting="terms")
    torch.testing.assert_close(module(x, targets=t), want, rtol=1e-6, atol=0)


def test_other_losses_have_no_terms():
    x, t, w, y = inputs(torch.float32)
    with pytest.raises(TypeError, match="weighting"):
        tare.torch.sigmoid_focal(x, targets=t, positive_weights=w, weighting="terms")
    with pytest.raises(TypeError, match="weighting"):
        tare.torch.softmax_ce(x, y, weighting="terms")
    with pytest.raises(ValueError, match="weighting"):
        tare.torch.sigmoid_ce(x, y, weighting="both")
