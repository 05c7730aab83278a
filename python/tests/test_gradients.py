# SPDX-License-Identifier: Apache-2.0
"""EQLv2 and equalized focal loss: against transcriptions of their papers over 20 steps, and when their state steps."""

import copy

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.utils.checkpoint import checkpoint

import tare.torch

CLASSES, ROWS = 7, 120
Eqlv2, Efl = tare.torch.nn.EQLv2Loss, tare.torch.nn.EqualizedFocalLoss


def batch(step, dtype=torch.float64):
    random = torch.Generator().manual_seed(step)
    x = (torch.randn(ROWS, CLASSES, generator=random) * 2 - 1).to(dtype)
    y = (torch.rand(ROWS, generator=random) ** 3 * CLASSES * 1.5).long()
    return x, torch.where(y < CLASSES, y, -1)


def one_hot(y):
    return torch.nn.functional.one_hot(y + 1, CLASSES + 1)[:, 1:].double()


class PaperEqlv2:
    """arXiv 2012.08548, eq. 3 to 7."""

    def __init__(self, exempt=None):
        self.p, self.n = torch.zeros(CLASSES).double(), torch.zeros(CLASSES).double()
        self.g, self.exempt = torch.full((CLASSES,), 100.0).double(), exempt

    def __call__(self, x, y):
        t = one_hot(y)
        f = 1 / (1 + torch.exp(-12 * (self.g - 0.8)))
        positive, negative = 1 + 4 * (1 - f), f.clone()
        if self.exempt is not None:
            positive[self.exempt] = negative[self.exempt] = 1
        w = (positive * t + negative * (1 - t)).float().double()  # the library's weights are float32
        gradient = (w * (x.sigmoid() - t)).abs().detach()
        self.p += (t * gradient).sum(0)
        self.n += ((1 - t) * gradient).sum(0)
        self.g = self.p / (self.n + 1e-10)
        return (w * bce(x, t, reduction="none")).sum()


class PaperEfl:
    """arXiv 2201.02593, eq. 4 to 7."""

    def __init__(self):
        self.p, self.n = torch.zeros(CLASSES).double(), torch.zeros(CLASSES).double()
        self.g = torch.ones(CLASSES).double()

    def __call__(self, x, y):
        t = one_hot(y)
        gamma = (2 + 8 * (1 - self.g)).float().double()
        weight = ((2 + 8 * (1 - self.g)) / 2).float().double()
        leaf = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.value(leaf, t, gamma, weight), leaf)
        self.p += (t * gradient.abs()).sum(0)
        self.n += ((1 - t) * gradient.abs()).sum(0)
        self.g = (self.p / (self.n + 1e-10)).clamp(0, 1)
        return self.value(x, t, gamma, weight)

    @staticmethod
    def value(x, t, gamma, weight):
        p = x.sigmoid()
        p_t = p * t + (1 - p) * (1 - t)
        alpha = 0.25 * t + 0.75 * (1 - t)
        return (alpha * weight * (1 - p_t) ** gamma * bce(x, t, reduction="none")).sum()


@pytest.mark.parametrize(
    "paper, ours",
    [(PaperEqlv2(), Eqlv2(CLASSES)), (PaperEqlv2(exempt=2), Eqlv2(CLASSES, exempt=2)), (PaperEfl(), Efl(CLASSES))],
)
def test_twenty_steps(paper, ours):
    for step in range(20):
        x, y = batch(step)
        theirs, mine = x.clone().requires_grad_(), x.clone().requires_grad_()
        want, found = paper(theirs, y), ours(mine, y)
        want.backward()
        found.backward()
        torch.testing.assert_close(found, want, rtol=1e-6, atol=0)
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(ours.gradients, torch.stack([paper.p, paper.n], 1), rtol=1e-6, atol=1e-12)
    assert ours.steps == 20


@pytest.mark.parametrize("kind", [Eqlv2, Efl])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_types_divisors_and_maps(kind, dtype):
    x, y = batch(0, dtype)
    maps = x.view(2, 10, 6, CLASSES).permute(0, 3, 1, 2).contiguous()
    rows, nchw, plain = (kind(CLASSES, normalizer=one) for one in ("rows", "rows", "sum"))
    for _ in range(3):
        flat, on_map = rows(x, y), nchw(maps, y.view(2, 10, 6, 1), classes=CLASSES)
        plain(x * 1, y)
        torch.testing.assert_close(flat, on_map, rtol=1e-5, atol=0)
    torch.testing.assert_close(rows.gradients, nchw.gradients, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(rows.gradients, plain.gradients, rtol=0, atol=0)  # before the divisor


@pytest.mark.parametrize("kind", [Eqlv2, Efl])
def test_when_the_state_steps(kind):
    module, (x, y) = kind(CLASSES), batch(0)
    x.requires_grad_()
    first = module(x, y)
    assert module.steps == 1
    with torch.no_grad():
        module(x, y)
    module.eval()
    module(x, y).backward()
    assert module.steps == 1
    module.train()
    second, before = module(x, y, keep_gradient=False), x.grad
    module(*batch(1))  # comes between a forward and its backward
    x.grad = None
    second.backward()
    assert module.steps == 3
    again = kind(CLASSES)
    again(x.detach(), y)
    other = x.detach().requires_grad_()
    again(other, y).backward()
    torch.testing.assert_close(x.grad, other.grad)
    assert first.item() != second.item() and not torch.equal(before, x.grad.new_zeros(()))


@pytest.mark.parametrize("kind", [Eqlv2, Efl])
def test_checkpoints_are_refused(kind):
    module, (x, y) = kind(CLASSES), batch(0)
    loss = checkpoint(lambda one: module(one, y), x.requires_grad_(), use_reentrant=False)
    with pytest.raises(RuntimeError, match="checkpoint"):
        loss.backward()


@pytest.mark.parametrize("kind", [Eqlv2, Efl])
def test_what_is_not_finite_adds_nothing(kind):
    module, (x, y) = kind(CLASSES), batch(0)
    x[3, 2] = float("nan")
    y[3] = 1
    module(x, y)
    assert torch.isfinite(module.gradients).all()
    assert module.gradients[2, 1] == 0 and (module.gradients[:2, 1] > 0).all()


@pytest.mark.parametrize("kind", [Eqlv2, Efl])
def test_saved_and_copied(kind):
    module = kind(CLASSES)
    for step in range(3):
        module(*batch(step))
    fresh, copied = kind(CLASSES), copy.deepcopy(module)
    fresh.load_state_dict(module.state_dict())
    want = module(*batch(9))
    assert torch.equal(fresh(*batch(9)), want) and torch.equal(copied(*batch(9)), want)
    wrong = {key: one * -1 for key, one in module.state_dict().items()}
    with pytest.raises(RuntimeError, match="Tare did not write it so"):
        fresh.load_state_dict(wrong)
    with pytest.raises(RuntimeError, match="words"):
        kind(CLASSES + 1).load_state_dict(module.state_dict())


def test_other_results():
    module, (x, y) = Eqlv2(CLASSES, normalizer="rows"), batch(0)
    loss, sums, histogram = module(x, y, class_sums=True, norm_histogram=10)
    assert sums.shape == (CLASSES, 4) and histogram.sum() == ROWS * CLASSES
    loss, histogram = module(x, y, norm_histogram=10)
    assert loss.dim() == 0 and histogram.shape == (10,)


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda: Eqlv2(0), ValueError, "classes is 0"),
        (lambda: Eqlv2(3, exempt=3), ValueError, "exempt is 3"),
        (lambda: Eqlv2(3, gamma=-1), ValueError, "gamma is -1"),
        (lambda: Efl(3, gamma=0), ValueError, "gamma is 0"),
        (lambda: Efl(3, positive_weights=torch.ones(3)), TypeError, "positive_weights is given"),
        (
            lambda: Eqlv2(3)(torch.zeros(2, 3), torch.zeros(2).long(), negative_weights=torch.ones(3)),
            TypeError,
            "forms",
        ),
        (lambda: Eqlv2(3)(torch.zeros(2, 4), torch.zeros(2).long()), ValueError, "3 elements; there are 4 classes"),
    ],
)
def test_refusals(make, error, text):
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize("kind", [tare.torch.nn.EQLv2Loss, tare.torch.nn.EqualizedFocalLoss])
def test_a_head(kind):
    features, layer, labels = torch.randn(20, 5), torch.nn.Linear(5, 4), torch.randint(-1, 4, (20,))
    module, head = kind(4, normalizer="rows"), tare.torch.Head(features, layer.weight, layer.bias)
    module(layer(features), labels).backward()
    module.eval()
    torch.testing.assert_close(module(head, labels), module(layer(features), labels))
    assert module.steps == 1


@pytest.mark.parametrize("workspace", [None, 0])
@pytest.mark.parametrize("kind", [tare.torch.nn.EQLv2Loss, tare.torch.nn.EqualizedFocalLoss])
def test_training_a_head(kind, workspace):
    """The steps of a head are those of its logits, in one chunk and in several."""
    torch.manual_seed(0)
    formed, fused = torch.nn.Linear(5, 30), torch.nn.Linear(5, 30)
    fused.load_state_dict(formed.state_dict())
    modules = [kind(30, normalizer="positives", exempt=2) for _ in range(2)]
    optimizers = [torch.optim.SGD(layer.parameters(), 0.3) for layer in (formed, fused)]
    for step in range(6):
        random = torch.Generator().manual_seed(step)
        features, labels = torch.randn(1200, 5, generator=random), torch.randint(-2, 30, (1200,), generator=random)
        labels = torch.where(labels > 20, -1, labels)
        head = tare.torch.Head(features, fused.weight, fused.bias, workspace)
        losses = [modules[0](formed(features), labels), modules[1](head, labels)]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=0)
        for loss, optimizer in zip(losses, optimizers):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.testing.assert_close(modules[1].gradients, modules[0].gradients, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(fused.weight, formed.weight, rtol=1e-4, atol=1e-5)
    assert modules[1].steps == 6 and (modules[1].gradients[:20] > 0).all()
    with torch.autocast("cpu", torch.bfloat16):
        narrow = tare.torch.Head(*[one.bfloat16() for one in (features, fused.weight, fused.bias)])
        loss, sums = modules[1](narrow, labels, class_sums=True)
    assert sums.shape == (30, 4) and loss.isfinite() and modules[1].steps == 7


def test_columns_of_functions():
    x, y = batch(0)
    vectors = [torch.rand(CLASSES) + 0.5 for _ in range(3)]
    names = ("positive_weights", "negative_weights", "gamma_per_class")
    given = dict(zip(names, vectors))
    theirs, mine = x.clone().requires_grad_(), x.clone().requires_grad_()
    t, (w, v, gamma) = one_hot(y), [one.double() for one in vectors]
    want = PaperEfl.value(theirs, t, gamma, w * t + v * (1 - t))
    found = tare.torch.sigmoid_focal(mine, y, **given)
    want.backward()
    found.backward()
    torch.testing.assert_close(found, want)
    torch.testing.assert_close(mine.grad, theirs.grad)
    arrays = {key: one.numpy() for key, one in given.items()}
    assert tare.evaluate("sigmoid-focal", x.numpy(), y.numpy(), **arrays).loss == pytest.approx(want.item())
    with pytest.raises(ValueError, match="negative_weights with sigmoid-poly1"):
        tare.torch.sigmoid_poly1(x, y, negative_weights=vectors[0])
    with pytest.raises(TypeError, match="gamma_per_class"):
        tare.torch.sigmoid_ce(x, y, gamma_per_class=vectors[0])
