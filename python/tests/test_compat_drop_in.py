# SPDX-License-Identifier: Apache-2.0
"""tare.compat.mmdet in place of the original: masks, probabilities, types and shapes of results, attributes, the
registry. The originals are transcribed on PyTorch's own in double precision."""

import inspect
import sys
import types

import pytest
import torch
import torch.nn.functional as F

from tare.compat import mmdet

EPSILON = torch.finfo(torch.float32).eps


def agree(ours, theirs, x, wide):
    """A loss and its gradient are those of the double."""
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-7)
    above = torch.rand_like(theirs)
    (gradient,) = torch.autograd.grad(ours, x, above.to(ours.dtype))
    (exact,) = torch.autograd.grad(theirs, wide, above, retain_graph=True)
    torch.testing.assert_close(gradient.double(), exact, rtol=1e-4, atol=1e-7)


def drawn(*shape):
    x = torch.randn(shape)
    return x.requires_grad_(), x.detach().double().requires_grad_()


# ---- masks ----------------------------------------------------------------------------------------------------------


def original_masks(pred, target, label, class_weight=None):
    chosen = pred[torch.arange(len(pred)), label]
    chosen = chosen.squeeze(1) if chosen.dim() > 1 else chosen
    return F.binary_cross_entropy_with_logits(chosen, target.to(pred.dtype), weight=class_weight)[None]


@pytest.mark.parametrize("places", [(4, 5), (9,), (1, 5), (), (2, 3, 4), (1, 1)])
@pytest.mark.parametrize("classes", [1, 3])
def test_masks(places, classes):
    torch.manual_seed(0)
    x, wide = drawn(6, classes, *places)
    label = torch.randint(0, classes, (6,))
    target = torch.rand(6, *places)
    of_original = target.squeeze(1) if places else target
    module = mmdet.CrossEntropyLoss(use_mask=True, loss_weight=1.5)
    for given in {target.shape: target, of_original.shape: of_original}.values():
        for one in (given, given.round(), given.round().long()):
            theirs = 1.5 * original_masks(wide, one.reshape(of_original.shape), label)
            agree(module(x, one, label), theirs, x, wide)
            agree(1.5 * mmdet.mask_cross_entropy(x, one, label, avg_non_ignore=True), theirs, x, wide)


def test_weights_of_masks():
    x, wide = drawn(6, 3, 4, 5)
    target, label, factors = torch.rand(6, 4, 5), torch.randint(0, 3, (6,)), [0.5, 1.0, 2.0, 0.0, 3.0]
    theirs = original_masks(wide, target, label, torch.tensor(factors).double())
    agree(mmdet.CrossEntropyLoss(use_mask=True, class_weight=factors)(x, target, label), theirs, x, wide)


def test_masks_that_are_refused_and_no_masks():
    module, x = mmdet.CrossEntropyLoss(use_mask=True), torch.randn(6, 3, 4, 5, requires_grad=True)
    target, label = torch.rand(6, 4, 5), torch.zeros(6, dtype=torch.int64)
    for options in ({"ignore_index": 255}, {"reduction_override": "sum"}, {"avg_factor": 3.0}):
        with pytest.raises(AssertionError, match="a loss of masks"):
            module(x, target, label, **options)
    for bad in ((x, target[:, 1:], label), (x, target, label[1:]), (x[:, 0, 0, 0], label.float(), label)):
        with pytest.raises(ValueError, match="masks"):
            module(*bad)
    with pytest.raises(AssertionError, match="one of them must be False"):
        mmdet.CrossEntropyLoss(use_sigmoid=True, use_mask=True)
    loss = module(x[:0], target[:0], label[:0])
    assert loss.shape == (1,) and loss == 0
    loss.sum().backward()
    assert not x.grad.any()


# ---- probabilities --------------------------------------------------------------------------------------------------


def original_focal(p, t, weight, reduction, avg_factor):
    away = (1 - p) * t + p * (1 - t)
    loss = F.binary_cross_entropy(p, t, reduction="none") * (0.25 * t + 0.75 * (1 - t)) * away**2
    loss = loss if weight is None else loss * weight
    if reduction == "mean" and avg_factor is not None:
        return loss.sum() / (avg_factor + EPSILON)
    return {"none": lambda a: a, "sum": torch.sum, "mean": torch.mean}[reduction](loss)


@pytest.mark.parametrize("reduction, avg_factor", [("none", None), ("sum", None), ("mean", None), ("mean", 7.0)])
def test_probabilities(reduction, avg_factor):
    torch.manual_seed(0)
    p = torch.rand(8, 3)
    p[0] = torch.tensor([0.0, 1.0, 0.5])
    p, wide = p.requires_grad_(), p.double().requires_grad_()
    label = torch.randint(0, 4, (8,))
    hot = F.one_hot(label, 4)[:, :3]
    module = mmdet.FocalLoss(activated=True)
    rows, elements = torch.rand(8), torch.rand(8, 3)
    for weight, factor in ((None, None), (rows, rows[:, None]), (elements, elements), (elements.ravel(), elements)):
        factor = None if factor is None else factor.double()
        for target in (label, hot, hot.float()):
            theirs = original_focal(wide, hot.double(), factor, reduction, avg_factor)
            agree(module(p, target, weight, avg_factor, reduction), theirs, p, wide)
            agree(mmdet.py_focal_loss_with_prob(p, target, weight, 2.0, 0.25, reduction, avg_factor), theirs, p, wide)


# ---- types and shapes of results ------------------------------------------------------------------------------------

HALVES = (torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_types_are_the_originals(dtype, reduction):
    x, y = torch.randn(6, 3).to(dtype).requires_grad_(), torch.randint(0, 3, (6,))
    dense, wide = torch.rand(6, 3), torch.promote_types(dtype, torch.float32)
    found = {
        "focal": mmdet.FocalLoss()(x, y, reduction_override=reduction),
        "focal, dense": mmdet.FocalLoss()(x, dense, reduction_override=reduction),
        "probabilities": mmdet.FocalLoss(activated=True)(x.sigmoid(), y, reduction_override=reduction),
        "softmax": mmdet.CrossEntropyLoss()(x, y, reduction_override=reduction),
        "soft": mmdet.CrossEntropyLoss()(x, dense.to(dtype), reduction_override=reduction),
        "sigmoid": mmdet.CrossEntropyLoss(use_sigmoid=True)(x, y, reduction_override=reduction),
        "weighted focal": mmdet.FocalLoss()(x, y, torch.rand(6), reduction_override=reduction),
        "weighted softmax": mmdet.CrossEntropyLoss()(x, y, torch.rand(6), reduction_override=reduction),
    }
    narrow = ("focal", "focal, dense", "probabilities", "softmax", "soft")
    for name, loss in found.items():
        assert loss.dtype == (dtype if name in narrow else wide), name
        (gradient,) = torch.autograd.grad(loss.sum(), x)
        assert gradient.dtype == dtype and gradient.any()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert mmdet.FocalLoss()(x, y, reduction_override=reduction).dtype == wide
        assert mmdet.CrossEntropyLoss()(x, y, reduction_override=reduction).dtype == wide
    masks = mmdet.CrossEntropyLoss(use_mask=True)(x.reshape(2, 3, 3), torch.rand(2, 3).to(dtype), y[:2])
    assert masks.dtype == dtype and masks.shape == (1,)


def test_shapes_of_avg_factor():
    x, y, dense = torch.randn(6, 3, requires_grad=True), torch.randint(0, 3, (6,)), torch.rand(6, 3)
    for given in (torch.tensor([4.0]), torch.tensor([[4]]), torch.tensor(4), torch.tensor([4.0], dtype=torch.float64)):
        for module, target in (
            (mmdet.FocalLoss(), y),
            (mmdet.FocalLoss(), dense),
            (mmdet.FocalLoss(activated=True), y),
            (mmdet.CrossEntropyLoss(), y),
            (mmdet.CrossEntropyLoss(), dense),
            (mmdet.CrossEntropyLoss(use_sigmoid=True), y),
            (mmdet.CrossEntropyLoss(use_sigmoid=True), dense),
        ):
            pred = x.sigmoid() if getattr(module, "activated", False) else x
            found, exact = module(pred, target, avg_factor=given), module(pred, target, avg_factor=4.0)
            assert found.shape == given.shape
            assert found.dtype == (torch.zeros((), dtype=torch.float32) / (given + EPSILON)).dtype
            torch.testing.assert_close(found.reshape(()).float(), exact)
            torch.testing.assert_close(
                torch.autograd.grad(found.sum(), x, retain_graph=True), torch.autograd.grad(exact, x, retain_graph=True)
            )
        assert mmdet.FocalLoss()(x, y, avg_factor=given, reduction_override="none").shape == (6, 3)


def test_weights_that_broadcast_and_odd_class_weights():
    """YOLOv3's maps [B, N, C] with [B, N, 1], one weight for all images, and class weights of one number."""
    for shape in ((1, 5, 3), (2, 5, 3)):
        x, wide = drawn(*shape)
        target = torch.rand(shape)
        for weight in (torch.rand(*shape[:2], 1), torch.rand(1, 5, 1), torch.rand(1, 1, 3), torch.rand(())):
            loss = F.binary_cross_entropy_with_logits(wide, target.double(), reduction="none") * weight.double()
            agree(mmdet.CrossEntropyLoss(use_sigmoid=True)(x, target, weight), loss.mean(), x, wide)
    x, wide = drawn(6, 3)
    y, weight = torch.randint(-1, 4, (6,)), torch.rand(6)
    hot, valid = F.one_hot(y.clamp(min=0), 4)[:, :3].double(), (y >= 0).double()[:, None]
    hot = hot * valid
    for factors in (2.0, [2.0], torch.rand(6, 3).tolist(), torch.rand(6, 1).tolist()):
        exact = torch.tensor(factors).double()
        loss = F.binary_cross_entropy_with_logits(wide, hot, pos_weight=exact, reduction="none")
        module = mmdet.CrossEntropyLoss(use_sigmoid=True, class_weight=factors)
        agree(module(x, y, weight), (loss * valid * weight.double()[:, None]).mean(), x, wide)
        for dense in (hot.float(), torch.where(valid > 0, hot, -1.0).float()):
            kept = (dense >= 0).double()
            loss = F.binary_cross_entropy_with_logits(wide, dense.double() * kept, pos_weight=exact, reduction="none")
            agree(module(x, dense), (loss * kept).mean(), x, wide)


# ---- what asks for a gradient, integers, keywords, attributes -------------------------------------------------------


def test_targets_and_weights_that_ask_for_a_gradient():
    """PyTorch computes the loss: its gradients by all of them are the formula's."""
    torch.manual_seed(0)
    calls = [
        (mmdet.FocalLoss(), torch.randint(0, 4, (6,)), (6,)),
        (mmdet.FocalLoss(), torch.rand(6, 3).requires_grad_(), (6, 3)),
        (mmdet.CrossEntropyLoss(), torch.randint(0, 3, (6,)), (6,)),
        (mmdet.CrossEntropyLoss(avg_non_ignore=True), torch.tensor([0, 1, -100, 2, 1, 0]), (6,)),
        (mmdet.CrossEntropyLoss(), torch.rand(6, 3).requires_grad_(), (6,)),
        (mmdet.CrossEntropyLoss(use_sigmoid=True, class_weight=[1.0, 2.0, 3.0]), torch.randint(-1, 4, (6,)), (6,)),
        (mmdet.CrossEntropyLoss(use_sigmoid=True), torch.rand(6, 3).requires_grad_(), (6, 3)),
    ]
    for module, target, shape in calls:
        x, weight = torch.randn(6, 3, requires_grad=True), torch.rand(shape)
        plain = module(x, target.detach(), weight)
        asks = weight.clone().requires_grad_()
        loss = module(x, target, asks)
        torch.testing.assert_close(loss, plain)
        constants = [asks, *([target] if target.requires_grad else [])]
        gradients = torch.autograd.grad(loss, [x, *constants])
        torch.testing.assert_close(gradients[0], torch.autograd.grad(plain, x)[0], rtol=1e-4, atol=1e-7)
        elements = module(x, target.detach(), torch.ones(shape), reduction_override="none")
        expected = elements if elements.shape == shape else elements.sum(1)
        if not module.__dict__.get("avg_non_ignore"):
            torch.testing.assert_close(gradients[1], expected.detach() / elements.numel(), rtol=1e-4, atol=1e-7)
        with torch.no_grad():
            torch.testing.assert_close(module(x, target, asks), plain)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_of_any_integer_type(dtype):
    x, y = torch.randn(6, 3), torch.randint(0, 3, (6,))
    for module in (mmdet.FocalLoss(), mmdet.CrossEntropyLoss(), mmdet.CrossEntropyLoss(use_sigmoid=True)):
        assert module(x, y.to(dtype)) == module(x, y)
    assert mmdet.GHMC()(x, y.to(dtype), torch.ones(6)) == mmdet.GHMC()(x, y, torch.ones(6))


def test_signatures_of_functions():
    names = {
        mmdet.cross_entropy: "pred label weight reduction avg_factor class_weight ignore_index avg_non_ignore",
        mmdet.binary_cross_entropy: "pred label weight reduction avg_factor class_weight ignore_index avg_non_ignore",
        mmdet.mask_cross_entropy: "pred target label reduction avg_factor class_weight ignore_index kwargs",
        mmdet.sigmoid_focal_loss: "pred target weight gamma alpha reduction avg_factor",
        mmdet.py_sigmoid_focal_loss: "pred target weight gamma alpha reduction avg_factor",
        mmdet.py_focal_loss_with_prob: "pred target weight gamma alpha reduction avg_factor",
    }
    for function, expected in names.items():
        assert " ".join(inspect.signature(function).parameters) == expected
    for options, criterion in (
        ({}, mmdet.cross_entropy),
        ({"use_sigmoid": True}, mmdet.binary_cross_entropy),
        ({"use_mask": True}, mmdet.mask_cross_entropy),
    ):
        assert mmdet.CrossEntropyLoss(**options).cls_criterion is criterion
    assert mmdet.GHMR(mu=0.05).mu == 0.05


def test_functions_are_the_modules():
    x, y, dense, weight = torch.randn(6, 3), torch.randint(0, 3, (6,)), torch.rand(6, 3), torch.rand(6)
    factors, ignored = torch.tensor([1.0, 2.0, 3.0]), torch.where(y == 1, 255, y)
    given = {"class_weight": factors, "ignore_index": 255, "avg_non_ignore": True}
    for function, options in ((mmdet.cross_entropy, {}), (mmdet.binary_cross_entropy, {"use_sigmoid": True})):
        module = mmdet.CrossEntropyLoss(class_weight=[1.0, 2.0, 3.0], ignore_index=255, avg_non_ignore=True, **options)
        assert function(x, ignored, weight, **given) == module(x, ignored, weight)
        assert function(x, y, ignore_index=None) == mmdet.CrossEntropyLoss(**options)(x, y)
    single, one = torch.randn(()), torch.rand(())  # a tensor without axes
    exact = F.binary_cross_entropy_with_logits(single, one)
    torch.testing.assert_close(mmdet.binary_cross_entropy(single, one), exact)
    assert mmdet.py_sigmoid_focal_loss(single, one).shape == ()
    assert mmdet.sigmoid_focal_loss(x, y, weight) == mmdet.FocalLoss()(x, y, weight)
    assert mmdet.py_sigmoid_focal_loss(x, dense) == mmdet.FocalLoss()(x, dense)


def test_what_is_refused_as_the_original_refuses():
    x, y, ones = torch.randn(6, 4), (torch.rand(6, 4),), None
    for module in (mmdet.CrossEntropyLoss(), mmdet.FocalLoss(), mmdet.GHMC(), mmdet.GHMR()):
        with pytest.raises(AssertionError, match="reduction_override is True"):
            module(x, y, ones, reduction_override=True)
        if not isinstance(module, mmdet.GHMC):  # which takes any keyword, as the original
            with pytest.raises(TypeError):
                module(x, torch.rand(6, 4), torch.rand(6, 4), foo=1)
    for module in (mmdet.CrossEntropyLoss, mmdet.FocalLoss, mmdet.GHMC, mmdet.GHMR):
        with pytest.raises(TypeError):
            module(foo=1)
    with pytest.raises(AssertionError, match="use_sigmoid"):
        mmdet.FocalLoss(use_sigmoid=False)
    with pytest.raises(AssertionError):
        mmdet.FocalLoss()(x, torch.rand(6, 4), torch.rand(6, 4, 1))


# ---- losses with a classifier of their own --------------------------------------------------------------------------


def test_custom_losses():
    x, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 1, 3])
    softmax, sigmoid = mmdet.CrossEntropyCustomLoss(num_classes=3), mmdet.FocalCustomLoss(num_classes=3)
    assert softmax.get_cls_channels(3) == 4 and sigmoid.get_cls_channels(3) == 3
    assert mmdet.CrossEntropyCustomLoss(use_sigmoid=True, num_classes=3).get_cls_channels(3) == 3
    assert softmax.custom_activation and softmax.custom_accuracy and sigmoid.custom_cls_channels
    assert softmax(x, y) == mmdet.CrossEntropyLoss()(x, y)
    assert sigmoid(x[:, :3], y) == mmdet.FocalLoss()(x[:, :3], y)
    torch.testing.assert_close(softmax.get_activation(x), x.softmax(1))
    torch.testing.assert_close(sigmoid.get_activation(x), x[:, :3].sigmoid())
    scores = mmdet.CrossEntropyCustomLoss(use_sigmoid=True, num_classes=3).get_activation(x)
    torch.testing.assert_close(scores[:, 3], (1 - x[:, :3].sigmoid().sum(1)).clamp(0, 1))
    right = (x[:, :3].argmax(1) == y)[y < 3].float().mean() * 100
    assert softmax.get_accuracy(x, y)["acc_classes"].tolist() == [right.item()]
    assert sigmoid.get_accuracy(x[:0], y[:0])["acc_classes"] == 0
    for make in (mmdet.CrossEntropyCustomLoss, mmdet.FocalCustomLoss):
        with pytest.raises(AssertionError, match="num_classes"):
            make()
    with pytest.raises(AssertionError, match="num_classes is 4"):
        softmax.get_cls_channels(4)


# ---- the registry ---------------------------------------------------------------------------------------------------


class Registry:
    """As much of mmengine's registry as registering needs."""

    def __init__(self, **modules):
        self.modules = dict(modules)

    def get(self, name):
        return self.modules.get(name)

    def register_module(self, name, force, module):
        assert force or name not in self.modules
        self.modules[name] = module


def test_registration(monkeypatch):
    originals = {name: type(name, (), {}) for name in ("FocalLoss", "CrossEntropyLoss", "GHMC", "L1Loss")}
    registry = Registry(**originals)
    package = types.ModuleType("mmdet")
    package.__path__ = []
    for name, module in (
        ("mmdet", package),
        ("mmdet.models", types.ModuleType("mmdet.models")),
        ("mmdet.registry", types.SimpleNamespace(MODELS=registry)),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    replaced = mmdet.register()
    assert replaced["FocalLoss"] is originals["FocalLoss"] and replaced["GHMC"] is originals["GHMC"]
    assert registry.get("FocalLoss") is mmdet.FocalLoss and registry.get("GHMR") is mmdet.GHMR
    assert registry.get("L1Loss") is originals["L1Loss"]
    assert mmdet.register() == {}
    registry.modules.update(originals)
    monkeypatch.delitem(sys.modules, "tare.compat.mmdet.replace", raising=False)
    __import__("tare.compat.mmdet.replace")
    assert registry.get("CrossEntropyLoss") is mmdet.CrossEntropyLoss
