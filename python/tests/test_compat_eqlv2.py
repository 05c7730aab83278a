# SPDX-License-Identifier: Apache-2.0
"""tare.compat.mmdet.EQLV2Loss: mmdetection's own module over 20 steps, where it is installed, or its transcription."""

import pytest
import torch
import torch.nn.functional as F
from support import mmdet_loss

import tare.torch
from tare.compat import mmdet

CLASSES, ROWS = 9, 50


class Transcribed:
    """mmdetection 3.3.0's EQLV2Loss in double precision. Its weight, avg_factor and reduction are ignored there."""

    def __init__(self, num_classes, mu=0.8, alpha=4.0, gamma=12, loss_weight=1.0):
        self.mu, self.alpha, self.gamma, self.loss_weight = mu, alpha, gamma, loss_weight
        self.pos_grad, self.neg_grad = torch.zeros(2, num_classes, dtype=torch.float64)
        self.pos_neg = torch.full((num_classes,), 100.0, dtype=torch.float64)

    def __call__(self, cls_score, label):
        target = F.one_hot(label, cls_score.shape[1]).to(cls_score.dtype)
        one = torch.ones(1, dtype=torch.float64)
        negative = torch.cat([1 / (1 + torch.exp(-self.gamma * (self.pos_neg - self.mu))), one])
        positive = 1 + self.alpha * (1 - negative)
        weight = positive * target + negative * (1 - target)
        losses = F.binary_cross_entropy_with_logits(cls_score, target, reduction="none") * weight
        size = (cls_score.detach().sigmoid() - target).abs() * weight
        self.pos_grad += (size * target).sum(0)[:-1]
        self.neg_grad += (size * (1 - target)).sum(0)[:-1]
        self.pos_neg = self.pos_grad / (self.neg_grad + 1e-10)
        return self.loss_weight * losses.sum() / len(label)


def batch(seed, classes=CLASSES):
    source = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(ROWS, classes + 1, generator=source) - 2
    return x.requires_grad_(), torch.multinomial(
        torch.linspace(1, 0.02, classes + 1), ROWS, replacement=True, generator=source
    )


def steps(ours, theirs, dtype, classes=CLASSES):
    for step in range(20):
        x, label = batch(step, classes)
        wide = x.detach().to(dtype).requires_grad_()
        found, want = ours(x, label), theirs(wide, label)
        torch.testing.assert_close(found.double(), want.double(), rtol=2e-6, atol=0)
        (ours_x,), (theirs_x,) = torch.autograd.grad(found, x), torch.autograd.grad(want, wide)
        torch.testing.assert_close(ours_x.double(), theirs_x.double(), rtol=2e-5, atol=1e-7)
        for name in ("pos_grad", "neg_grad"):
            torch.testing.assert_close(getattr(ours, name).double(), getattr(theirs, name).double(), rtol=2e-5, atol=0)
        torch.testing.assert_close(ours.pos_neg.double(), theirs.pos_neg.double(), rtol=4e-5, atol=0)


SETTINGS = [{}, {"mu": 0.3, "alpha": 2.0, "gamma": 5, "loss_weight": 2.0}]


@pytest.mark.parametrize("settings", SETTINGS)
def test_twenty_steps(settings):
    given = {"num_classes": CLASSES, **settings}
    steps(mmdet.EQLV2Loss(**given), Transcribed(**given), torch.float64)


@pytest.mark.parametrize("classes, settings", [*((CLASSES, one) for one in SETTINGS), (1203, {})])
def test_twenty_steps_of_the_installed_one(classes, settings):
    given = {"num_classes": classes, **settings}
    theirs = mmdet_loss("eqlv2_loss", "EQLV2Loss")(**given)
    ours = mmdet.EQLV2Loss(**given)
    names = {name for name in vars(theirs) if not name.startswith("_")} | {"pos_grad", "neg_grad", "pos_neg"}
    x, label = batch(99, classes)
    assert all(hasattr(ours, name) for name in names)
    assert ours.get_channel_num(classes) == theirs.get_channel_num(classes)
    torch.testing.assert_close(ours.get_activation(x.detach()), theirs.get_activation(x.detach()))
    steps(ours, theirs, torch.float32, classes)
    after = mmdet.EQLV2Loss(**given)
    after.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(after(x, label), theirs(x, label), rtol=2e-6, atol=0)


def test_weights_and_reductions_that_the_original_ignores():
    x, label = batch(1)
    weight = torch.arange(ROWS) % 3 / 2.0
    elements = mmdet.EQLV2Loss(num_classes=CLASSES, reduction="none")(x, label)
    assert elements.shape == x.shape

    def loss(*arguments, **settings):
        return mmdet.EQLV2Loss(num_classes=CLASSES, **settings)(x, label, *arguments)

    want = (elements * weight[:, None]).sum()
    torch.testing.assert_close(loss(weight), want / ROWS)
    torch.testing.assert_close(loss(weight, 17.0), want / 17)
    torch.testing.assert_close(loss(weight, None, "sum"), want)
    torch.testing.assert_close(loss(weight, reduction="sum"), want)
    torch.testing.assert_close(loss(None, float(ROWS)), loss())
    half, rest = mmdet.EQLV2Loss(num_classes=CLASSES), mmdet.EQLV2Loss(num_classes=CLASSES)
    half(x, label, (weight > 0).float())
    rest(x[weight > 0], label[weight > 0])
    torch.testing.assert_close(half.gradients, rest.gradients)  # rows of weight 0 add nothing


def test_when_gradients_are_added():
    module, (x, label) = mmdet.EQLV2Loss(num_classes=CLASSES), batch(2)
    assert torch.equal(module.pos_neg, torch.full((CLASSES,), 100.0))
    with torch.no_grad():
        module(x, label)
    module.eval()(x, label)
    assert module.steps == 0
    module.train()(x, label)
    assert module.steps == 1 and (module.neg_grad > 0).all()
    empty = mmdet.EQLV2Loss(num_classes=CLASSES)(x[:0], label[:0])
    assert empty.item() == 0 and empty.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types(dtype):
    x, label = batch(3)
    found = mmdet.EQLV2Loss(num_classes=CLASSES)(x.detach().to(dtype).requires_grad_(), label.to(torch.int32))
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)  # its weights are float32
    want = Transcribed(CLASSES)(x.detach().to(dtype).double(), label)
    torch.testing.assert_close(found.double(), want, rtol=2e-6, atol=0)


def test_checkpoints():
    module, (x, label) = mmdet.EQLV2Loss(num_classes=CLASSES), batch(4)
    for step in range(3):
        module(*batch(step))
    fresh, ours = (mmdet.EQLV2Loss(num_classes=CLASSES) for _ in range(2))
    fresh.load_state_dict({"pos_grad": module.pos_grad, "neg_grad": module.neg_grad, "pos_neg": module.pos_neg})
    ours.load_state_dict(module.state_dict())
    want = module.eval()(x, label)
    assert torch.equal(ours.eval()(x, label), want)
    torch.testing.assert_close(fresh.eval()(x, label), want, rtol=2e-6, atol=0)
    never = mmdet.EQLV2Loss(num_classes=CLASSES)
    zeros = torch.zeros(CLASSES)
    never.load_state_dict({"pos_grad": zeros, "neg_grad": zeros, "pos_neg": zeros + 100})
    assert never.steps == 0
    with pytest.raises(RuntimeError, match="pos_grad and neg_grad have shapes"):
        never.load_state_dict({"pos_grad": torch.zeros(3), "neg_grad": torch.zeros(3)})
    with pytest.raises(RuntimeError, match="state"):
        never.load_state_dict({"pos_grad": zeros})


def test_it_is_the_module_of_tare():
    module = mmdet.EQLV2Loss(num_classes=CLASSES, reduction="sum")
    plain = tare.torch.nn.EQLv2Loss(CLASSES + 1, exempt=CLASSES)
    for step in range(3):
        torch.testing.assert_close(module(*batch(step)), plain(*batch(step)))
    assert torch.equal(module.state, plain.state)


def test_what_is_refused():
    x, label = batch(6)
    module = mmdet.EQLV2Loss(num_classes=CLASSES)
    with pytest.raises(AssertionError, match="9 classes, and a column of objectness"):
        module(x[:, 1:], label)
    with pytest.raises(AssertionError, match="labels are"):
        module(x, label[1:])
    with pytest.raises(AssertionError, match="use_sigmoid"):
        mmdet.EQLV2Loss(use_sigmoid=False)
    with pytest.raises(AssertionError, match="class_weight"):
        mmdet.EQLV2Loss(class_weight=torch.ones(CLASSES))
    with pytest.raises(ValueError, match="label of row 0 is -1"):
        module(x, torch.full((ROWS,), -1))
    with pytest.raises(AssertionError, match="reduction_override"):
        module(x, label, reduction_override="average")
