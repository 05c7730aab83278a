# SPDX-License-Identifier: Apache-2.0
"""tare.compat.mmdet.SeesawLoss: mmdetection's own module over 20 steps, where it is installed, or its transcription."""

import pytest
import torch
import torch.nn.functional as F
from support import mmdet_loss

from tare.compat import mmdet

CLASSES = 9


class Transcribed:
    """mmdetection 3.3.0's SeesawLoss in double precision, without its heads' hooks."""

    def __init__(self, num_classes, p=0.8, q=2.0, eps=1e-2, reduction="mean", loss_weight=1.0):
        self.num_classes, self.p, self.q, self.eps = num_classes, p, q, eps
        self.reduction, self.loss_weight = reduction, loss_weight
        self.cum_samples = torch.zeros(num_classes + 1, dtype=torch.float64)

    def __call__(self, cls_score, labels, label_weights=None, avg_factor=None):
        objects = labels < self.num_classes
        for one in labels.unique():
            self.cum_samples[one] += (labels == one).sum()
        weights = torch.ones(len(labels)) if label_weights is None else label_weights
        classes, objectness = cls_score[:, :-2], cls_score[:, -2:]
        of_classes = classes[objects].sum()
        if objects.any():
            of_classes = self.reduced(self.rows(classes[objects], labels[objects]), weights[objects], avg_factor)
        background = (labels == self.num_classes).long()
        of_objectness = self.reduced(F.cross_entropy(objectness, background, reduction="none"), weights, avg_factor)
        return {"loss_cls_objectness": of_objectness, "loss_cls_classes": of_classes}

    def rows(self, scores, labels):
        samples = self.cum_samples[: self.num_classes].clamp(min=1)
        mitigation = (samples[None, :] / samples[:, None]).clamp(max=1).pow(self.p)[labels]
        probabilities = scores.detach().softmax(1)
        own = probabilities.gather(1, labels[:, None]).clamp(min=self.eps)
        factors = mitigation * (probabilities / own).clamp(min=1).pow(self.q)
        hot = F.one_hot(labels, self.num_classes)
        return F.cross_entropy(scores + factors.log() * (1 - hot), labels, reduction="none")

    def reduced(self, losses, weights, avg_factor):
        losses = losses * weights
        if self.reduction == "mean":
            summed = losses.mean() if avg_factor is None else losses.sum() / (avg_factor + 1.1920929e-07)
            return self.loss_weight * summed
        return self.loss_weight * (losses.sum() if self.reduction == "sum" else losses)


def batch(seed, rows=50, classes=CLASSES):
    source = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(rows, classes + 2, generator=source)
    tail = torch.linspace(1, 0.02, classes + 1)
    return x.requires_grad_(), torch.multinomial(tail, rows, replacement=True, generator=source)


def same(ours, theirs, x, wide, rtol=5e-6):
    assert ours.keys() == theirs.keys()
    for name, one in ours.items():
        torch.testing.assert_close(one.double(), theirs[name].double(), rtol=rtol, atol=1e-6)
    (found,) = torch.autograd.grad(sum(one.sum() for one in ours.values()), x)
    (want,) = torch.autograd.grad(sum(one.sum() for one in theirs.values()), wide)
    torch.testing.assert_close(found.double(), want.double(), rtol=5e-5, atol=2e-6)


def steps(ours, theirs, dtype, classes=CLASSES):
    for step in range(20):
        x, labels = batch(step, classes=classes)
        wide = x.detach().to(dtype).requires_grad_()
        weights = torch.rand(50) if step % 3 == 1 else None
        avg_factor = 17.0 if step % 4 == 2 and ours.reduction == "mean" else None
        same(ours(x, labels, weights, avg_factor), theirs(wide, labels, weights, avg_factor), x, wide)
    assert torch.equal(ours.cum_samples.double(), theirs.cum_samples.double())


SETTINGS = [{}, {"p": 0.0}, {"q": 0.0}, {"p": 1.5, "q": 1.0, "eps": 0.1, "loss_weight": 2.0}]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_twenty_steps(settings, reduction):
    given = {"num_classes": CLASSES, "reduction": reduction, **settings}
    steps(mmdet.SeesawLoss(**given), Transcribed(**given), torch.float64)


@pytest.mark.parametrize("classes, settings", [*((CLASSES, one) for one in SETTINGS), (1203, {})])
def test_twenty_steps_of_the_installed_one(classes, settings):
    given = {"num_classes": classes, **settings}
    steps(mmdet.SeesawLoss(**given), mmdet_loss("seesaw_loss", "SeesawLoss")(**given), torch.float64, classes)


def test_no_objects():
    x, _ = batch(1)
    losses = mmdet.SeesawLoss(num_classes=CLASSES)(x, torch.full((50,), CLASSES))
    assert losses["loss_cls_classes"].item() == 0 and losses["loss_cls_objectness"].item() > 0
    assert not torch.autograd.grad(losses["loss_cls_classes"], x)[0].any()


def test_the_originals_checkpoints():
    module = mmdet.SeesawLoss(num_classes=CLASSES, return_dict=False)
    x, labels = batch(2)
    module(x, labels).backward()
    other = mmdet.SeesawLoss(num_classes=CLASSES, return_dict=False)
    other.load_state_dict({"cum_samples": module.cum_samples})
    assert torch.equal(other.counts, module.counts)
    assert torch.equal(other.eval()(x, labels), module.eval()(x, labels))
    with pytest.raises(RuntimeError, match="cum_samples has shape"):
        other.load_state_dict({"cum_samples": torch.zeros(3)})


def test_what_heads_ask_for():
    module = mmdet.SeesawLoss(num_classes=CLASSES)
    x, labels = batch(3)
    assert module.get_cls_channels(CLASSES) == CLASSES + 2
    scores = module.get_activation(x)
    assert scores.shape == (50, CLASSES + 1)
    torch.testing.assert_close(scores.sum(1), torch.ones(50))
    found = module.get_accuracy(x, labels)
    objects = labels < CLASSES
    right = (x[objects, :-2].argmax(1) == labels[objects]).float().mean() * 100
    torch.testing.assert_close(found["acc_classes"], right.reshape(1))


def test_what_is_refused():
    x, labels = batch(4)
    module = mmdet.SeesawLoss(num_classes=CLASSES)
    with pytest.raises(AssertionError, match="9 classes, and two columns"):
        module(x[:, 1:], labels)
    with pytest.raises(AssertionError, match="use_sigmoid"):
        mmdet.SeesawLoss(use_sigmoid=True)
    with pytest.raises(ValueError, match="label of row 0 is 10"):
        module(x, torch.full((50,), CLASSES + 1))
