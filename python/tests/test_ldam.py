# SPDX-License-Identifier: Apache-2.0
"""LDAM: the authors' loss in float64, margins from counts, the module with its deferred weights."""

import numpy as np
import pytest
import torch

import tare
import tare.torch

COUNTS = [5000, 372, 361, 1, 12]
ROWS, CLASSES = 60, len(COUNTS)


class AuthorsLoss(torch.nn.Module):
    """LDAMLoss of kaidic/LDAM-DRW, in float64 and without a GPU."""

    def __init__(self, counts, max_m=0.5, weight=None, s=30):
        super().__init__()
        m_list = 1.0 / np.sqrt(np.sqrt(counts))
        self.m_list = torch.tensor(m_list * (max_m / np.max(m_list)))
        self.s, self.weight = s, weight

    def forward(self, x, target):
        index = torch.nn.functional.one_hot(target, x.shape[1]).bool()
        batch_m = self.m_list[target].view((-1, 1))
        output = torch.where(index, x - batch_m, x)
        return torch.nn.functional.cross_entropy(self.s * output, target, weight=self.weight)


def batch(dtype=torch.float32, classes=CLASSES, seed=7):
    generator = torch.Generator().manual_seed(seed)
    features = torch.nn.functional.normalize(torch.randn(ROWS, 8, generator=generator, dtype=torch.float64))
    weights = torch.nn.functional.normalize(torch.randn(8, classes, generator=generator, dtype=torch.float64), dim=0)
    return (features @ weights).to(dtype).requires_grad_(), torch.randint(0, classes, (ROWS,), generator=generator)


def expected(x, y, counts=COUNTS, **options):
    wide = x.detach().double().requires_grad_()
    loss = AuthorsLoss(np.array(counts, float), **options)(wide, y)
    return loss.item(), torch.autograd.grad(loss, wide)[0].numpy()


def drw_weights(counts, beta=0.9999):
    """per_cls_weights of the authors' cifar_train.py."""
    effective = (1.0 - np.power(beta, counts)) / (1.0 - beta)
    return torch.tensor(1 / effective / np.sum(1 / effective) * len(counts))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_the_authors_loss(dtype):
    x, y = batch(dtype)
    loss = tare.torch.LDAMLoss(COUNTS)(x, y)
    loss.backward()
    wanted, gradient = expected(x, y)
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-5}.get(dtype, 1e-2)
    np.testing.assert_allclose(loss.item(), wanted, 1e-5 if tolerance < 1e-2 else 1e-4)
    np.testing.assert_allclose(x.grad.double(), gradient, tolerance, 1e-6 if tolerance < 1e-2 else 1e-4)


def test_deferred_weights():
    x, y = batch(torch.float64)
    module = tare.torch.LDAMLoss(COUNTS, max_margin=0.3, scale=20.0)
    np.testing.assert_allclose(module(x, y).item(), expected(x, y, max_m=0.3, s=20)[0], 1e-6)
    module.reweight(0.9999)
    wanted, gradient = expected(x, y, max_m=0.3, s=20, weight=drw_weights(COUNTS))
    loss = module(x, y)
    np.testing.assert_allclose(loss.item(), wanted, 1e-6)
    np.testing.assert_allclose(torch.autograd.grad(loss, x)[0], gradient, 1e-5, 1e-9)
    other = tare.torch.LDAMLoss(COUNTS, max_margin=0.3, scale=20.0)
    other.load_state_dict(module.state_dict())
    assert other(x, y).item() == loss.item()
    module.reweight(None)
    np.testing.assert_allclose(module(x, y).item(), expected(x, y, max_m=0.3, s=20)[0], 1e-6)


def test_many_classes():
    counts = np.maximum(1, 5000 // np.arange(1, 1204))
    x, y = batch(torch.float32, 1203)
    wanted, gradient = expected(x, y, counts)
    loss = tare.torch.LDAMLoss(counts)(x, y)
    np.testing.assert_allclose(loss.item(), wanted, 1e-6)
    np.testing.assert_allclose(torch.autograd.grad(loss, x)[0], gradient, 1e-4, 1e-9)


def test_numpy():
    x, y = batch()
    margins = tare.ldam_margins(COUNTS)
    found = tare.evaluate("softmax-ldam", x.detach().numpy(), y.numpy(), margins=margins, normalizer="weights")
    np.testing.assert_allclose(found.loss, expected(x, y)[0], 1e-6)
    np.testing.assert_allclose(found.gradient, expected(x, y)[1], 1e-4, 1e-8)


def test_margins():
    found = tare.ldam_margins(COUNTS, 0.4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 0.4 / np.sqrt(np.sqrt(COUNTS)), 1e-7)
    np.testing.assert_array_equal(tare.ldam_margins([4, 0, 64]), tare.ldam_margins([4, 1, 64]))
    np.testing.assert_array_equal(tare.ldam_margins([4, 0, 64], empty="excluded"), np.float32([0.5, np.inf, 0.25]))
    np.testing.assert_allclose(tare.logit_adjustment([1, 0, 3], empty="excluded"), [-np.log(4), -np.inf, np.log(0.75)])


def test_a_class_that_is_excluded():
    x, y = batch(torch.float64)
    counts, y = [5000, 372, 0, 1, 12], torch.where(y == 2, 0, y)
    loss = tare.torch.LDAMLoss(counts, empty="excluded")(x, y)
    (gradient,) = torch.autograd.grad(loss, x)
    kept = [0, 1, 3, 4]
    wanted, rest = expected(x[:, kept], torch.tensor([0, 1, -1, 2, 3])[y], [counts[c] for c in kept])
    np.testing.assert_allclose(loss.item(), wanted, 1e-6)
    np.testing.assert_allclose(gradient[:, kept], rest, 1e-5, 1e-9)
    assert (gradient[:, 2] == 0).all()
    y[3] = 2
    with pytest.raises(ValueError, match="label of row 3 is 2 .* excludes with a margin of \\+inf"):
        tare.torch.LDAMLoss(counts, empty="excluded")(x, y)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: tare.ldam_margins([1, 2], -1.0), "max_margin is -1"),
        (lambda: tare.ldam_margins([1, 2], empty="two"), "empty is 'two'"),
        (lambda: tare.ldam_margins([0, 0], empty="excluded"), "every count is 0"),
        (lambda: tare.ldam_margins([1, -2]), r"counts\[1\] is -2"),
        (lambda: tare.torch.LDAMLoss(COUNTS, scale=0.0)(*batch()), "scale is 0"),
    ],
)
def test_wrong_arguments(call, said):
    with pytest.raises((ValueError, tare.Error), match=said):
        call()


def test_dense_targets_are_refused():
    x, _ = batch()
    with pytest.raises((ValueError, tare.Error), match="targets"):
        tare.torch.softmax_ldam(x, targets=torch.rand(ROWS, CLASSES))


def test_head():
    torch.manual_seed(0)
    weight = torch.nn.functional.normalize(torch.randn(CLASSES, 8)).requires_grad_()
    features, y = torch.nn.functional.normalize(torch.randn(ROWS, 8)), torch.randint(0, CLASSES, (ROWS,))
    criterion = tare.torch.LDAMLoss(COUNTS)
    criterion.reweight(0.999)
    try:
        fused = criterion(tare.torch.Head(features, weight), y)
    except tare.Error as error:
        pytest.skip(str(error))
    plain = criterion(features @ weight.T, y)
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-6)
    found, wanted = (torch.autograd.grad(one, weight)[0] for one in (fused, plain))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
