# SPDX-License-Identifier: Apache-2.0
"""Logit-adjusted softmax from Python: NumPy arrays, PyTorch tensors, the module, and the offsets from counts."""

import numpy as np
import pytest
import torch

import tare
import tare.torch

COUNTS = [4155, 372, 361, 0, 12]
ROWS, CLASSES = 60, len(COUNTS)
PRIORS = np.maximum(np.array(COUNTS, float), 1) / np.maximum(np.array(COUNTS, float), 1).sum()


def batch(dtype=torch.float32, shape=(ROWS, CLASSES)):
    generator = torch.Generator().manual_seed(7)
    x = (3 * torch.randn(*shape, generator=generator)).to(dtype).requires_grad_()
    return x, torch.randint(0, CLASSES, shape[:-1], generator=generator)


def expected(x, y, tau, reduction="sum"):
    """Cross-entropy of the adjusted logits by PyTorch, in float64, and its gradient by x."""
    wide = x.detach().double().requires_grad_()
    prior = torch.from_numpy(tau * np.log(PRIORS))
    loss = torch.nn.functional.cross_entropy((wide + prior).flatten(0, -2), y.flatten(), reduction=reduction)
    return loss, torch.autograd.grad(loss.sum(), wide)[0]


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, -1.0])
def test_offsets_are_log_priors(tau):
    found = tare.logit_adjustment(COUNTS, tau)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, tau * np.log(PRIORS), 1e-7)
    np.testing.assert_array_equal(tare.logit_adjustment(np.array(COUNTS, np.int32), tau), found)
    np.testing.assert_array_equal(tare.logit_adjustment(np.array(COUNTS, np.float64), tau), found)


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_numpy(tau):
    x, y = batch()
    found = tare.evaluate(
        "softmax-logit-adjusted",
        x.detach().numpy(),
        y.numpy(),
        offset=tare.logit_adjustment(COUNTS, tau),
        row_loss=True,
    )
    loss, gradient = expected(x, y, tau)
    np.testing.assert_allclose(found.loss, loss.item(), 1e-6)
    np.testing.assert_allclose(found.gradient, gradient, 1e-4, 1e-7)
    np.testing.assert_allclose(found.row_loss, expected(x, y, tau, "none")[0].detach(), 1e-5, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(ROWS, CLASSES), (2, 30, CLASSES)])
def test_torch(dtype, shape):
    x, y = batch(dtype, shape)
    offset = torch.from_numpy(tare.logit_adjustment(COUNTS))
    loss = tare.torch.softmax_logit_adjusted(x, y, offset=offset)
    loss.backward()
    want, gradient = expected(x, y, 1.0)
    torch.testing.assert_close(loss.double(), want, rtol=1e-6, atol=0)
    narrow = {torch.float16: 1e-3, torch.bfloat16: 1e-2}.get(dtype, 1e-5)
    torch.testing.assert_close(x.grad.double(), gradient, rtol=narrow, atol=1e-6)


def test_rows_and_targets():
    x, y = batch()
    offset = torch.from_numpy(tare.logit_adjustment(COUNTS))
    rows = tare.torch.softmax_logit_adjusted(x, y, offset=offset, reduction="rows")
    torch.testing.assert_close(rows.double(), expected(x, y, 1.0, "none")[0], rtol=1e-5, atol=1e-6)
    dense = torch.nn.functional.one_hot(y, CLASSES).float()
    same = tare.torch.softmax_logit_adjusted(x, targets=dense, offset=offset, reduction="rows")
    assert torch.equal(rows, same)


def test_module():
    x, y = batch()
    module = tare.torch.LogitAdjustedLoss(COUNTS, tau=1.0, normalizer="rows")
    loss = module(x, y)
    torch.testing.assert_close(loss.double() * ROWS, expected(x, y, 1.0)[0], rtol=1e-6, atol=0)
    assert torch.equal(tare.torch.LogitAdjustedLoss(torch.tensor(COUNTS)).offset, module.offset)
    exact = module.offset.clone()
    assert torch.equal(module.half().double().offset, exact), "a cast of the model rounds no offset"
    assert "tau=1.0" in repr(module) and "classes=5" in repr(module)
    other = tare.torch.LogitAdjustedLoss([1, 1, 1, 1, 1])
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.offset, exact)


def test_without_offsets_it_is_cross_entropy():
    x, y = batch()
    assert torch.equal(tare.torch.loss("softmax-logit-adjusted", x, y), tare.torch.softmax_ce(x, y))


def test_an_excluded_class():
    x, y = batch()
    y[y == 2] = 0
    offset = torch.tensor([0.0, 0.0, -torch.inf, 0.0, 0.0])
    tare.torch.softmax_logit_adjusted(x, y, offset=offset).backward()
    assert torch.all(x.grad[:, 2] == 0) and torch.all(x.grad[:, 0] != 0)
    array = x.detach().numpy()
    found = tare.evaluate("softmax-logit-adjusted", array, y.numpy(), offset=offset.numpy())
    np.testing.assert_array_equal(found.gradient, x.grad)
    y[3] = 2
    with pytest.raises(ValueError, match="label of row 3 is 2 .* excludes with an offset of -inf"):
        tare.torch.softmax_logit_adjusted(x, y, offset=offset)
    with pytest.raises(ValueError, match="label of row 3 is 2 "):
        tare.evaluate("softmax-logit-adjusted", array, y.numpy(), offset=offset.numpy())
    targets = np.eye(CLASSES, dtype=np.float32)[y]
    with pytest.raises(ValueError, match="target of row 3, class 2 is 1 .* must be 0"):
        tare.evaluate("softmax-logit-adjusted", array, targets=targets, offset=offset.numpy())


@pytest.mark.parametrize(
    "counts, tau, text",
    [
        ([1, -2], 1.0, r"counts\[1\] is -2"),
        ([1, float("nan")], 1.0, r"counts\[1\] is -?nan"),
        ([0.5, 0], 1.0, r"counts\[1\] is 0, which counts as 1 sample"),
        ([], 1.0, "at least one"),
        ([[1, 2]], 1.0, "must be"),
        (["a"], 1.0, "counts is of type"),
        ([1, 2], float("inf"), "tau"),
        ([1, 2], "1", "tau"),
    ],
)
def test_counts_that_are_refused(counts, tau, text):
    with pytest.raises(ValueError, match=text):
        tare.logit_adjustment(counts, tau)


def test_offsets_that_are_refused():
    x, y = batch()
    array, labels = x.detach().numpy(), y.numpy()
    with pytest.raises(ValueError, match="offset is None"):
        tare.torch.softmax_logit_adjusted(x, y, offset=None)
    with pytest.raises(ValueError, match="offset has 3 elements; there are 5 classes"):
        tare.torch.softmax_logit_adjusted(x, y, offset=torch.ones(3))
    with pytest.raises(ValueError, match="offset asks for a gradient"):
        tare.torch.softmax_logit_adjusted(x, y, offset=torch.ones(CLASSES, requires_grad=True))
    with pytest.raises(ValueError, match=r"offset has shape \(3,\); it must be \[5\]"):
        tare.evaluate("softmax-logit-adjusted", array, labels, offset=np.ones(3, np.float32))
    with pytest.raises(TypeError, match="softmax-ce has no parameter 'offset'"):
        tare.evaluate("softmax-ce", array, labels, offset=np.ones(CLASSES, np.float32))
    with pytest.raises(TypeError, match="softmax-focal has no parameter 'offset'"):
        tare.torch.softmax_focal(x, y, offset=torch.ones(CLASSES))
    with pytest.raises(TypeError, match="has no alpha; use class_weights. As parameters it has: offset"):
        tare.torch.softmax_logit_adjusted(x, y, offset=torch.ones(CLASSES), alpha=0.5)


def test_head():
    torch.manual_seed(0)
    features, layer = torch.randn(ROWS, 8), torch.nn.Linear(8, CLASSES)
    y = torch.randint(0, CLASSES, (ROWS,))
    offset = torch.from_numpy(tare.logit_adjustment(COUNTS))
    try:
        fused = tare.torch.softmax_logit_adjusted(tare.torch.Head(features, layer.weight, layer.bias), y, offset=offset)
    except tare.Error as error:
        pytest.skip(str(error))
    plain = tare.torch.softmax_logit_adjusted(layer(features), y, offset=offset)
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-6)
    fused.backward()
    gradient = layer.weight.grad.clone()
    layer.weight.grad = None
    plain.backward()
    torch.testing.assert_close(gradient, layer.weight.grad, rtol=1e-4, atol=1e-5)
