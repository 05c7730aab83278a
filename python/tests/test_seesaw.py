# SPDX-License-Identifier: Apache-2.0
"""Seesaw loss: the paper's formula in double, when samples are counted, and what backward takes."""

import copy

import numpy as np
import pytest
import torch
from support import blas
from torch.utils.checkpoint import checkpoint

import tare
import tare.torch
from tare.torch import nn

CLASSES = 7


def batch(seed, classes=CLASSES, rows=60):
    source = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(rows, classes, generator=source)
    return x.requires_grad_(), torch.randint(-2, classes, (rows,), generator=source)


def formula(x, labels, counts, p=0.8, q=2.0, epsilon=0.01):
    """Equations 4 to 6 of the paper, with a matrix of classes by classes. Of rows with a class."""
    n = torch.as_tensor(counts, dtype=torch.float64).clamp(min=1)
    ratio = (n[None, :] / n[:, None]).clamp(max=1) ** p
    scores = x.detach().softmax(1)
    own = scores.gather(1, labels[:, None]).clamp(min=epsilon)
    factors = ratio[labels] * (scores / own).clamp(min=1) ** q
    factors.scatter_(1, labels[:, None], 1.0)
    return torch.nn.functional.cross_entropy(x + factors.log(), labels, reduction="none")


def expected(x, labels, counts, **options):
    keep = labels >= 0
    wide = x.detach().double().requires_grad_()
    losses = formula(wide[keep], labels[keep], counts, **options)
    return losses.sum(), torch.autograd.grad(losses.sum(), wide)[0]


def counts_of(*labels, classes=CLASSES):
    return sum(np.bincount(one[one >= 0].numpy(), minlength=classes) for one in labels)


def check(loss, x, labels, counts, **options):
    want, gradient = expected(x, labels, counts, **options)
    torch.testing.assert_close(loss.double(), want, rtol=2e-6, atol=0)
    found = torch.autograd.grad(loss, x)[0]
    torch.testing.assert_close(found.double(), gradient, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"p": 0.0}, {"q": 0.0}, {"p": 2.0, "q": 1.0, "epsilon": 0.5}])
@pytest.mark.parametrize("classes", [1, 2, 7, 91, 1203])
def test_the_formula(classes, options):
    x, labels = batch(1, classes)
    counts = np.random.default_rng(2).integers(0, 10**6, classes)
    logs = torch.from_numpy(np.log(np.maximum(counts, 1)).astype(np.float32))
    check(tare.torch.softmax_seesaw(x, labels, log_counts=logs, **options), x, labels, counts, **options)
    check(tare.torch.softmax_seesaw(x, labels, **options), x, labels, np.ones(classes), **options)
    found = tare.evaluate("softmax-seesaw", x.detach().numpy(), labels.numpy(), log_counts=logs.numpy(), **options)
    assert found.loss == pytest.approx(expected(x, labels, counts, **options)[0].item(), rel=2e-6)


def test_counts_come_first_and_add_up():
    module = tare.torch.SeesawLoss(CLASSES)
    seen = []
    for step in range(20):
        x, labels = batch(step)
        seen.append(labels)
        check(module(x, labels), x, labels, counts_of(*seen))
    assert module.counts.dtype == torch.int64 and (module.counts.numpy() == counts_of(*seen)).all()
    assert module.state[0] == 20


def test_rows_count_whatever_they_weigh():
    module = tare.torch.SeesawLoss(CLASSES)
    x, labels = batch(3)
    module(x, labels, row_weights=torch.zeros(60))
    assert (module.counts.numpy() == counts_of(labels)).all()


def test_a_step_is_taken_in_training_alone():
    module = tare.torch.SeesawLoss(CLASSES)
    (x, labels), (other, others) = batch(4), batch(5)
    module(x, labels).backward()
    before = module.state.clone()
    check(module.eval()(other, others), other, others, counts_of(labels))
    with torch.no_grad():
        module.train()(other, others)
    assert torch.equal(module.state, before)
    for reentrant in (False, True):
        with pytest.raises(RuntimeError, match="count its labels twice"):
            checkpoint(module, x, labels, use_reentrant=reentrant).backward()


@pytest.mark.parametrize("keep_gradient", [True, False])
def test_backward_takes_the_counts_of_its_forward(keep_gradient):
    module = tare.torch.SeesawLoss(CLASSES, keep_gradient=keep_gradient)
    x, labels = batch(6)
    loss = module(x, labels)
    module(*batch(7))
    found = torch.autograd.grad(loss, x, retain_graph=True)[0]
    torch.testing.assert_close(found.double(), expected(x, labels, counts_of(labels))[1], rtol=2e-5, atol=1e-6)


def test_saved_with_the_model():
    module = tare.torch.SeesawLoss(CLASSES, p=1.0, normalizer="positives")
    module(*batch(8))
    fresh = tare.torch.SeesawLoss(CLASSES, p=1.0, normalizer="positives")
    fresh.load_state_dict(module.state_dict())
    x, labels = batch(9)
    for other in (fresh, copy.deepcopy(module)):
        assert torch.equal(other.eval()(x, labels), module.eval()(x, labels))
    assert "p=1.0" in repr(module)
    with pytest.raises(RuntimeError, match="7 classes need"):
        fresh.load_state_dict({"state": torch.zeros(3, dtype=torch.int64)})


def test_a_head():
    blas()
    torch.manual_seed(0)
    features, layer = torch.randn(40, 16, requires_grad=True), torch.nn.Linear(16, 1203)
    labels = torch.randint(0, 1203, (40,))
    module, plain = tare.torch.SeesawLoss(1203), tare.torch.SeesawLoss(1203)
    fused = torch.autograd.grad(module(tare.torch.Head(features, layer.weight, layer.bias), labels), features)[0]
    whole = torch.autograd.grad(plain(layer(features), labels), features)[0]
    torch.testing.assert_close(fused, whole, rtol=1e-4, atol=1e-5)


def test_what_is_refused():
    x, labels = batch(10)
    module = tare.torch.SeesawLoss(CLASSES)
    with pytest.raises(ValueError, match="background_label is 6, a class"):
        module(x, labels, background_label=6)
    with pytest.raises(TypeError, match="log_counts is given"):
        tare.torch.SeesawLoss(CLASSES, log_counts=torch.zeros(CLASSES))
    with pytest.raises(ValueError, match="epsilon"):
        nn.SeesawLoss(CLASSES, epsilon=0.0)(x, labels)
    with pytest.raises(ValueError, match="labels is None"):
        module(x, None)
    with pytest.raises(tare.Error, match="targets"):
        tare.torch.softmax_seesaw(x, targets=torch.rand_like(x))
