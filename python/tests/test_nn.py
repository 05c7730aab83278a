# SPDX-License-Identifier: Apache-2.0
"""tare.torch.nn: every loss as a module; settings that are saved, copied, moved, cast and scripted; types."""

import copy
import inspect
import pickle
import typing

import pytest
import torch
from support import draw

import tare
import tare.torch
from tare import _loss, _losses, _types
from tare.torch import nn

GHM = {"ghm-c": nn.GHMC, "ghm-r": nn.GHMR}
PLAIN = {cls.name: cls for cls in nn.Loss.__subclasses__() if hasattr(cls, "name")}
X, Y = draw()


def make(name, **settings):
    extra = {"offset": torch.randn(7)} if name == "softmax-logit-adjusted" else {}
    return {**PLAIN, **GHM}[name](**extra, **settings)


def call(module, x=X, y=Y):
    given = {"targets": torch.zeros_like(x)} if isinstance(module, nn.GHMR) else {}
    y = y.abs() if "softmax" in getattr(module, "name", "") else y
    return module(x, labels=y, **given)


def test_every_loss_has_a_module():
    assert {*PLAIN, *GHM} == {*tare.losses()}
    assert all(cls.__doc__ and getattr(nn, cls.__name__) is cls for cls in PLAIN.values())
    assert str(inspect.signature(nn.SigmoidFocalLoss)).startswith("(*, gamma: 'float' = 2.0, alpha: ")


@pytest.mark.parametrize("name", tare.losses())
def test_a_module_is_its_function(name):
    module = make(name)
    given = {"targets": torch.zeros_like(X)} if name == "ghm-r" else {}
    given |= {"offset": module.offset} if name == "softmax-logit-adjusted" else {}
    labels = Y.abs() if name.startswith("softmax") else Y
    expected = getattr(tare.torch, name.replace("-", "_"))(X, labels=labels, **given)
    assert torch.equal(call(module), expected)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(call(other), expected)


WITH_TENSORS = [
    lambda: nn.SigmoidFocalLoss(gamma=1.5, alpha=torch.rand(7), class_weights=torch.rand(7).double()),
    lambda: nn.ClassBalancedLoss([100, 3, 0, 20, 5, 1000, 1], normalizer="positives"),
    lambda: nn.ClassBalancedLoss(torch.arange(1, 8), 0.99, loss="softmax-focal", gamma=1.0),
    lambda: nn.LogitAdjustedLoss([100, 3, 0, 20, 5, 1000, 1], tau=0.5),
]


@pytest.mark.parametrize("index", range(len(WITH_TENSORS)))
def test_settings_that_are_tensors(index):
    torch.manual_seed(0)
    module = WITH_TENSORS[index]()
    expected = call(module)
    saved = {key: one.clone() for key, one in module.state_dict().items()}
    assert saved and all(one.dtype == torch.float32 for one in saved.values())
    for change in (module.half, module.double, lambda: module.to_empty(device="cpu"), lambda: module.to("cpu")):
        change()
        assert torch.equal(call(module), expected)
    moved = copy.deepcopy(module).to("meta")
    assert all(one.is_meta for one in moved.buffers())
    moved.to_empty(device="cpu")
    if index:  # it follows from counts
        assert torch.equal(call(moved), expected)
    else:
        assert call(moved).isnan()
    moved.load_state_dict(saved)
    assert torch.equal(call(moved), expected)


def test_a_module_compiles_whole():
    torch._dynamo.reset()
    module = WITH_TENSORS[0]()
    assert torch.equal(torch.compile(module, backend="eager", fullgraph=True)(X, Y), module(X, Y))


def test_class_balanced_weights():
    counts = [100, 3, 0, 20, 5, 1000, 1]
    module = nn.ClassBalancedLoss(counts, 0.99, gamma=1.0)
    weights = torch.from_numpy(tare.class_balanced_weights(counts, 0.99))
    assert torch.equal(call(module), tare.torch.sigmoid_focal(X, Y, gamma=1.0, class_weights=weights))
    assert repr(module) == "ClassBalancedLoss(loss='sigmoid-focal', classes=7, beta=0.99, gamma=1.0)"
    with pytest.raises(ValueError, match="ghm-c.*no class weights"):
        nn.ClassBalancedLoss(counts, loss="ghm-c")


def test_options_of_the_call_and_of_the_constructor():
    module = nn.SigmoidCELoss(normalizer="positives", reduction="sum")
    assert repr(module) == "SigmoidCELoss(normalizer=positives, reduction=sum)"
    weights = torch.rand(200)
    found = module(X, Y, row_weights=weights, normalizer="rows")
    assert torch.equal(found, tare.torch.sigmoid_ce(X, Y, row_weights=weights, normalizer="rows"))
    scored = nn.SigmoidVarifocalLoss(positives="by-label")
    scores = torch.rand(200)
    assert torch.equal(scored(X, Y, scores=scores), tare.torch.sigmoid_varifocal(X, Y, scores, positives="by-label"))
    for cls, options, text in (
        (nn.SigmoidCELoss, {"gamma": 2.0}, "no parameter 'gamma'"),
        (nn.SigmoidFocalLoss, {"gama": 2.0}, "no parameter 'gama'"),
        (nn.SigmoidFocalLoss, {"gamma": "2"}, "gamma is '2'"),
        (nn.SigmoidFocalLoss, {"labels": Y}, "labels is given to the constructor"),
        (nn.SigmoidVarifocalLoss, {"positives": "all"}, "positives is 'all'"),
    ):
        with pytest.raises(ValueError, match=text):
            cls(**options)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript():
    if not hasattr(torch.jit, "script"):
        pytest.skip("this PyTorch has no torch.jit.script")
    for module in (nn.SoftmaxCELoss(reduction="rows"), *[make() for make in WITH_TENSORS]):
        x, y = X.detach().clone().requires_grad_(), Y.abs()
        scripted = torch.jit.script(module)
        expected = module(x, y)
        assert torch.equal(scripted(x, y), expected)
        (ours,) = torch.autograd.grad(scripted(x, y).sum(), x)
        assert torch.equal(ours, torch.autograd.grad(expected.sum(), x)[0])
    with pytest.raises(TypeError, match="settings are words, numbers"):
        torch.jit.script(nn.SigmoidCELoss(normalizer=torch.tensor(2.0)))
    with pytest.raises(TypeError, match="no state of a loss"):
        torch.jit.script(nn.GHMC())


# ---- the words in _types --------------------------------------------------------------------------------------------


def test_types_have_the_librarys_words():
    assert list(typing.get_args(_types.LossName)) == list(tare.losses())
    known = {key: one for loss in _losses.DESCRIPTIONS.values() for key, one in loss.parameters.items()}
    kinds = {"density": _types.Density, "variant": _types.Variant}
    kinds |= {"modulator": _types.Modulator, "positives": _types.Positives, "smoothed": _types.Smoothed}
    kinds |= {"weighting": _types.Weighting}
    for key, parameter in known.items():
        assert parameter.choices == (typing.get_args(kinds[key]) if key in kinds else ())
    assert set(known) == {*_types.Parameters.__annotations__, "alpha", "state"}
    assert list(typing.get_args(_types.Normalizer)) == list(tare._c.NORMALIZERS)
    given = {"key", "tensors", "name", "logits", "labels", "alpha", "state", "parameters"}
    assert set(inspect.signature(_loss.first_call).parameters) - given == set(_types.Options.__annotations__)
