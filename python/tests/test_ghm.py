# SPDX-License-Identifier: Apache-2.0
"""GHM in tare.torch: densities, momentum, state, modules."""

import copy
import io
import pickle

import numpy as np
import pytest
import reference
import torch
from torch.optim import swa_utils

import tare.torch
from tare.compat import mmdet

BINS, MOMENTUM = 12, 0.75


def draw(seed, rows=150, classes=5):
    torch.manual_seed(seed)
    return (torch.randn(rows, classes) * 2).requires_grad_(), torch.randint(-1, classes, (rows,))


def exact(x, y, sums=None):
    wide, t = x.detach().double().numpy(), reference.one_hot(y.numpy(), x.shape[1])
    return reference.ghm_c(wide, t, BINS, sums=sums)


def counts_of(x, y):
    _, slope = reference.sigmoid(x.detach().double().numpy(), reference.one_hot(y.numpy(), x.shape[1]))
    return reference.unit_regions(np.abs(slope), BINS, np.ones(slope.shape, bool))[1]


def near(ours, theirs, relative=1e-5):
    np.testing.assert_allclose(torch.as_tensor(ours).detach().double().numpy(), theirs, relative, 1e-12)


@pytest.mark.parametrize("reduction", ["sum", "rows", "none"])
def test_ghm_c(reduction):
    x, y = draw(0)
    loss, gradient = exact(x, y)
    for dtype in (torch.float32, torch.float64, torch.float16):
        logits = x.detach().to(dtype).requires_grad_()
        if dtype == torch.float16:
            loss, gradient = exact(logits, y)
        found = tare.torch.ghm_c(logits, y, bins=BINS, reduction=reduction)
        weight = torch.rand_like(found)
        (ours,) = torch.autograd.grad(found, logits, weight)
        w = weight.double().numpy()
        near(found, {"sum": loss.sum(), "rows": loss.sum(1), "none": loss}[reduction])
        tolerance = 2e-3 if dtype == torch.float16 else 1e-5
        np.testing.assert_allclose(
            ours.double().numpy(), gradient * (w[:, None] if reduction == "rows" else w), tolerance, 1e-7
        )


def test_row_weights_mask():
    x, y = draw(1)
    mask = (torch.rand(150) < 0.5).float() * 3
    found = tare.torch.ghm_c(x, y, bins=BINS, row_weights=mask)
    kept = mask > 0
    assert torch.equal(found, tare.torch.ghm_c(x[kept], y[kept], bins=BINS))


def test_momentum_over_twenty_steps_and_a_saved_state():
    module, sums = tare.torch.GHMC(bins=BINS, momentum=MOMENTUM), None
    for step in range(20):
        x, y = draw(step)
        counts = counts_of(x, y)
        sums = counts if sums is None else MOMENTUM * sums + (1 - MOMENTUM) * counts
        loss, gradient = exact(x, y, sums)
        found = module(x, y)
        found.backward()
        near(found, loss.sum(), 1e-6)
        near(x.grad, gradient)
        if step == 10:  # on from here with another module
            saved = io.BytesIO()
            torch.save(module.state_dict(), saved)
            saved.seek(0)
            module = tare.torch.GHMC(bins=BINS, momentum=MOMENTUM)
            module.load_state_dict(torch.load(saved))
    assert module.state[0] == 20
    assert list(module.state_dict()) == ["state"]
    assert module.half().state.dtype == torch.int64
    assert "bins=12, momentum=0.75" in repr(module)


def test_backward_uses_the_density_of_its_forward():
    module = tare.torch.GHMC(bins=BINS, momentum=MOMENTUM)
    x, y = draw(0)
    loss = module(x, y)
    (at_once,) = torch.autograd.grad(loss, x, retain_graph=True)
    module(*draw(7))  # the state has moved on
    steps = module.state[0].item()
    (later,) = torch.autograd.grad(loss, x)
    assert torch.equal(at_once, later)
    assert module.state[0] == steps == 2


def test_given_density():
    state = tare.torch.ghm_state(BINS)
    x, y = draw(0)
    first = tare.torch.ghm_c(x, y, bins=BINS, state=state)
    other, labels = draw(1)
    given = tare.torch.ghm_c(other, labels, bins=BINS, state=state, use_stored_density=True)
    loss, _ = exact(other, labels, counts_of(x, y))
    near(given, loss.sum(), 1e-6)
    assert torch.equal(first, tare.torch.ghm_c(x, y, bins=BINS, state=state, use_stored_density=True))


def test_the_exact_density():
    x, y = draw(3, rows=40)
    loss, gradient = reference.sigmoid(x.detach().double().numpy(), reference.one_hot(y.numpy(), 5))
    density = reference.exact_density(np.abs(gradient).ravel(), 0.1).reshape(loss.shape)
    found = tare.torch.ghm_c(x, y, density="exact", epsilon=0.1)
    near(found, (loss / density).sum(), 1e-6)
    near(torch.autograd.grad(found, x, torch.tensor(2.0))[0], 2 * gradient / density)


def test_ghm_r():
    torch.manual_seed(0)
    prediction, target = (torch.randn(2, 120, 4) * 0.1).unbind()
    prediction.requires_grad_()
    loss, gradient = reference.ghm_r((prediction - target).detach().double().numpy(), 0.02, 10)
    found = tare.torch.GHMR()(prediction, target)
    near(found, loss.sum(), 1e-6)
    near(torch.autograd.grad(found, prediction)[0], gradient, 1e-4)
    labels = torch.randint(-1, 2, (120,))
    masked = tare.torch.ghm_r(prediction, target, labels)
    assert torch.equal(masked, tare.torch.ghm_r(prediction[labels >= 0], target[labels >= 0]))


def test_one_batch_on_two_ranks():
    states, whole = [tare.torch.ghm_state(BINS) for _ in range(2)], tare.torch.ghm_state(BINS)
    for step in range(3):
        x, y = draw(step)
        parts = [(x[:40], y[:40]), (x[40:], y[40:])]
        for state, (logits, labels) in zip(states, parts):
            tare.torch.ghm_histogram("ghm-c", logits, labels, bins=BINS, state=state)
        total = sum(state[1 : 2 + BINS] for state in states)
        loss = 0
        for state, (logits, labels) in zip(states, parts):
            state[1 : 2 + BINS] = total
            tare.torch.ghm_density("ghm-c", state, bins=BINS, momentum=MOMENTUM)
            loss = loss + tare.torch.ghm_c(logits, labels, bins=BINS, state=state, use_stored_density=True)
        expected = tare.torch.ghm_c(x, y, bins=BINS, momentum=MOMENTUM, state=whole)
        assert torch.equal(states[0], whole) and torch.equal(states[1], whole)
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
        assert torch.equal(torch.autograd.grad(loss, x)[0], torch.autograd.grad(expected, x)[0])
    with pytest.raises(ValueError, match="5 words; 12 bins need 38"):
        tare.torch.ghm_density("ghm-c", states[0][:5], bins=BINS)


# ---- the state in a model -------------------------------------------------------------------------------------------


class Model(torch.nn.Module):
    def __init__(self, ghm=tare.torch.GHMC):
        super().__init__()
        self.layer, self.ghm = torch.nn.Linear(3, 5), ghm(bins=BINS, momentum=MOMENTUM)

    def forward(self, x, y):
        logits = self.layer(x)
        if isinstance(self.ghm, mmdet.GHMC):
            return self.ghm(logits, y, torch.ones(len(y)))
        return self.ghm(logits, y)


def trained(ghm=tare.torch.GHMC, steps=3, seed=0):
    torch.manual_seed(seed)
    model = Model(ghm)
    for _ in range(steps):
        model(torch.randn(40, 3) * (seed + 1), torch.randint(-1, 5, (40,)))
    return model


MODULES = pytest.mark.parametrize("ghm", [tare.torch.GHMC, mmdet.GHMC])


@MODULES
def test_to_empty_leaves_no_garbage(ghm):
    model = trained(ghm)
    state = model.ghm.state.clone()
    model.to_empty(device="cpu")
    assert torch.equal(model.ghm.state, state)
    model.to("meta")
    assert model.ghm.state.is_meta
    model.to_empty(device="cpu")  # there is nothing to keep
    assert not model.ghm.state.any() and len(model.ghm.state) == len(state)
    with torch.device("meta"):
        model = Model(ghm)
    model.to_empty(device="cpu")
    assert not model.ghm.state.any()
    [torch.nn.init.ones_(one) for one in model.parameters()]
    assert model(torch.randn(40, 3), torch.randint(-1, 5, (40,))).isfinite()
    model = trained(ghm).to("meta")
    model.load_state_dict(trained(ghm).state_dict(), assign=True)
    assert torch.equal(model.ghm.state, state)


@MODULES
@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("average", [None, swa_utils.get_ema_avg_fn(0.9)])
def test_averages_of_a_model_leave_the_state_alone(ghm, use_buffers, average):
    model = trained(ghm)
    averaged = swa_utils.AveragedModel(model, avg_fn=average, use_buffers=use_buffers)
    state = model.ghm.state.clone()
    averaged.update_parameters(model)
    for _ in range(3):
        model(torch.randn(40, 3) * 5, torch.randint(-1, 5, (40,)))
        averaged.update_parameters(model)
    assert not torch.equal(model.ghm.state, state) and torch.equal(averaged.module.ghm.state, state)
    other = trained(ghm)
    x, y = torch.randn(40, 3), torch.randint(-1, 5, (40,))
    averaged.module.layer.load_state_dict(other.layer.state_dict())
    assert torch.equal(averaged(x, y), other(x, y))
    assert "ghm.state" not in dict(model.named_buffers()) and "ghm.state" in model.state_dict()


@MODULES
def test_averages_of_state_dicts_and_ranks_leave_the_state_alone(ghm):
    models = [trained(ghm, seed=seed) for seed in (0, 1)]
    states = [model.ghm.state.clone() for model in models]
    for ours, theirs in zip(models[0].state_dict().values(), models[1].state_dict().values()):  # in place, as timm does
        ours.copy_(0.9 * ours + 0.1 * theirs)
    for ours, theirs in zip(models[0].buffers(), models[1].buffers()):  # over ranks
        ours.copy_((ours + theirs) / 2)
    assert torch.equal(models[0].ghm.state, states[0]) and torch.equal(models[1].ghm.state, states[1])
    pair = [model.state_dict() for model in models]
    averaged = {key: ((pair[0][key].double() + pair[1][key].double()) / 2).to(pair[0][key].dtype) for key in pair[0]}
    before = models[0].ghm.state.clone()
    with pytest.raises(RuntimeError, match="ghm.state: state holds .* average of states.*ghm_state"):
        models[0].load_state_dict(averaged)
    assert torch.equal(models[0].ghm.state, before)
    averaged["ghm.state"] = tare.torch.ghm_state(BINS)  # what the message says
    models[0].load_state_dict(averaged)
    assert not models[0].ghm.state.any()


@MODULES
def test_what_is_loaded_is_a_state(ghm):
    model, saved = trained(ghm), trained(ghm, seed=1).state_dict()
    good = saved["ghm.state"]
    for bad in (
        good.float(),
        good.double(),
        good[:5],
        torch.full_like(good, -1),
        torch.full_like(good, 2**62),
        3,
        None,
    ):
        with pytest.raises(RuntimeError, match="ghm.state: state"):
            model.load_state_dict({**saved, "ghm.state": bad})
    with pytest.raises(RuntimeError, match="Missing key.*ghm.state"):
        model.load_state_dict({key: one for key, one in saved.items() if key != "ghm.state"})
    with pytest.raises(RuntimeError, match="Unexpected key.*ghm.other"):
        model.load_state_dict({**saved, "ghm.other": good})
    kept = model.ghm.state
    model.load_state_dict(saved)
    assert model.ghm.state is kept and torch.equal(kept, good)
    result = model.load_state_dict({"layer.bias": torch.zeros(5)}, strict=False)
    assert "ghm.state" in result.missing_keys and not result.unexpected_keys
    model.ghm.state.random_()
    with pytest.raises(ValueError, match="state holds"):
        model(torch.randn(40, 3), torch.randint(-1, 5, (40,)))


@MODULES
def test_a_copy_and_a_cast_of_a_model(ghm):
    model = trained(ghm)
    state = model.ghm.state.clone()
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied.ghm.state, state) and copied.ghm.state is not model.ghm.state
    for cast in (
        model.half,
        model.double,
        lambda: model.to(torch.bfloat16),
        lambda: model.type(torch.float32),
        lambda: model.float().share_memory(),
    ):
        assert torch.equal(cast().ghm.state, state) and model.ghm.state.dtype == torch.int64
    assert model.ghm.state.is_shared()
