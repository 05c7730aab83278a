# SPDX-License-Identifier: Apache-2.0
"""Calls that are found by a guard of their tensors: one that differs in anything but values is another call."""

import weakref

import pytest
import torch

import tare.torch
from tare import _guards, _prepared

COUNT, CLASSES = 5, 6
needs_guards = pytest.mark.skipif(_guards.make is None, reason="this PyTorch has no guards of tensors")


@pytest.fixture(autouse=True)
def fresh():
    _prepared.forget()
    torch.manual_seed(0)


def draw(dtype=torch.float32):
    levels = [torch.randn(2, 3 + rows, CLASSES, dtype=dtype, requires_grad=True) for rows in range(COUNT)]
    return levels, [torch.randint(-1, CLASSES, level.shape[:-1]) for level in levels]


def attempt(levels, labels, **options):
    """Loss and gradients, or the error's text. Nothing of the call stays in the tensors."""
    try:
        loss = tare.torch.sigmoid_focal(levels, labels, **options)
        sources = [level for level in levels if level.requires_grad]
        return [loss.detach(), *torch.autograd.grad(loss, sources)]
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def alone(*given, **options):
    _prepared.forget()
    return attempt(*given, **options)


def same(found, expected):
    if isinstance(expected, str):
        assert found == expected
        return
    assert not isinstance(found, str), found
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert torch.equal(one, other) and one.dtype == other.dtype and one.stride() == other.stride()


def guard(monkeypatch, *given, **options):
    """Makes a call until it is found by its guard."""
    for _ in range(3):
        attempt(*given, **options)
    with monkeypatch.context() as patch:
        patch.setattr(_prepared, "_layout", None)
        return attempt(*given, **options)


class Mine(torch.Tensor):
    pass


def _spread(tensor):
    wide = torch.zeros(*tensor.shape[:-1], 2 * tensor.shape[-1], dtype=tensor.dtype)
    wide[..., ::2] = tensor.detach()
    return wide[..., ::2]


def _turned(tensor):
    return tensor.detach().transpose(0, 1).contiguous().transpose(0, 1)


CHANGES = {
    "spread": _spread,
    "turned": _turned,
    "one row less": lambda tensor: tensor.detach()[:, 1:].contiguous(),
    "one image less": lambda tensor: tensor.detach()[:1].contiguous(),
    "joined": lambda tensor: tensor.detach().flatten(0, 1),
    "float64": lambda tensor: tensor.detach().double(),
    "int32": lambda tensor: tensor.detach().int(),
    "int16": lambda tensor: tensor.detach().short(),
    "on no device": lambda tensor: tensor.detach().to("meta"),
    "sparse": lambda tensor: tensor.detach().to_sparse(),
    "negated": lambda tensor: torch._neg_view(-tensor.detach()),
    "of a class": lambda tensor: tensor.detach().as_subclass(Mine),
    "no tensor": lambda tensor: None,
    "as it was": lambda tensor: tensor.detach().clone(),
}


@needs_guards
@pytest.mark.parametrize("change", CHANGES)
def test_one_of_ten_tensors_changes(change, monkeypatch):
    levels, labels = draw()
    for role in (levels, labels):
        for index in range(COUNT):
            _prepared.forget()
            first = guard(monkeypatch, levels, labels)
            before, role[index] = role[index], CHANGES[change](role[index])
            if role is levels and role[index] is not None and role[index].is_floating_point():
                role[index].requires_grad_()
            found = attempt(levels, labels)
            same(found, alone(levels, labels))
            assert change != "as it was" or torch.equal(found[0], first[0])
            role[index] = before


@pytest.mark.parametrize("make", [_guards.make, None])
def test_data_that_changes_before_backward(make, monkeypatch):
    monkeypatch.setattr(_guards, "make", make)
    levels, labels = draw(torch.float16)  # backward evaluates
    for _ in range(3):
        expected = attempt(levels, labels)
    for level in levels:
        for change in ("spread", "turned", "negated"):
            loss, before = tare.torch.sigmoid_focal(levels, labels), level.data
            level.data = CHANGES[change](before)
            found = torch.autograd.grad(loss, levels)
            assert all(map(torch.equal, found, expected[1:]))
            level.data = before
            same(attempt(levels, labels), expected)
    labels[2] = labels[2].clone()
    loss = tare.torch.sigmoid_focal(levels, labels)
    labels[2].data = labels[2].data.int()
    with pytest.raises(ValueError, match="int32, torch.int64"):
        torch.autograd.grad(loss, levels)


@needs_guards
def test_a_gradient_is_wanted_of_others(monkeypatch):
    levels, labels = draw()
    expected = guard(monkeypatch, levels, labels)
    for index in range(COUNT):
        levels[index].requires_grad_(False)
        same(attempt(levels, labels), [one for place, one in enumerate(expected) if place != index + 1])
        levels[index].requires_grad_()
        same(attempt(levels, labels), expected)
    weights = [torch.ones(level.shape[:-1]) for level in levels]
    guard(monkeypatch, levels, labels, row_weights=weights)
    weights[3].requires_grad_()
    assert "row_weights" in attempt(levels, labels, row_weights=weights)


@needs_guards
def test_without_grad_mode(monkeypatch):
    levels, labels = draw()
    weights = [torch.ones(level.shape[:-1]) for level in levels]
    expected = guard(monkeypatch, levels, labels, row_weights=weights)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            for _ in range(5):
                loss = tare.torch.sigmoid_focal(levels, labels, row_weights=weights)
                assert torch.equal(loss, expected[0]) and not loss.requires_grad
    asking = [*weights[:4], weights[4].clone().requires_grad_()]
    with torch.no_grad(), pytest.raises(ValueError, match="row_weights"):
        tare.torch.sigmoid_focal(levels, labels, row_weights=asking)
    plain = [level.detach() for level in levels]
    with torch.no_grad():
        for _ in range(5):
            tare.torch.sigmoid_focal(plain, labels, row_weights=weights)
    same(attempt(levels, labels, row_weights=weights), expected)


@needs_guards
def test_states_of_pytorch_take_turns(monkeypatch):
    levels, labels = draw()
    expected = guard(monkeypatch, levels, labels)
    for _ in range(4):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            same(attempt(levels, labels), expected)
        with torch.autograd.set_multithreading_enabled(False):
            same(attempt(levels, labels), expected)
        same(attempt(levels, labels), expected)
    assert all(len(known) <= _prepared._MOST_GUARDED for known in _prepared._guarded.values())


@needs_guards
def test_one_tensor_in_two_roles(monkeypatch):
    levels = [torch.randn(2, 4, CLASSES, requires_grad=True) for _ in range(2)]
    labels = [torch.randint(-1, CLASSES, (2, 4)) for _ in levels]
    guard(monkeypatch, levels, labels)
    for given in (([levels[0]] * 2, labels), (levels, [labels[1]] * 2), (levels[::-1], labels)):
        found = attempt(*given)
        same(found, alone(*given))
        guard(monkeypatch, levels, labels)


@needs_guards
def test_values_beside_tensors(monkeypatch):
    levels, labels = draw()
    one = torch.tensor(2.0)
    cases = [
        {"level_weights": [1.0, 2.0, 3.0, 4.0, 5.0]},
        {"level_weights": [1.0, 2.0, 3.0, 4.0, 6.0]},
        {"level_weights": (1.0, 2.0, 3.0, 4.0, 5.0)},
        {"level_weights": [1, 2, 3, 4, 5]},
        {"level_weights": [True, 2, 3, 4, 5]},
        {"level_weights": []},
        {"level_divisors": [None, one, None, 3.0, None]},
        {"level_divisors": [None, one, None, 4.0, None]},
        {"level_divisors": [one, None, None, 3.0, None]},
        {"level_divisors": [one, None, None, 4.0, None]},
        {"level_divisors": [None, one, one, 3.0, None]},
        {"gamma": 1.0},
        {"gamma": True},
        {"normalizer": 3},
        {"normalizer": 4.0},
        {"normalizer": one},
    ]
    expected = [alone(levels, labels, **case) for case in cases]
    _prepared.forget()
    for _ in range(5):
        for case, right in zip(cases, expected):
            same(attempt(levels, labels, **case), right)
            same(attempt(tuple(levels), labels, **case), right)
    guard(monkeypatch, levels, labels, **cases[0])
    guard(monkeypatch, levels, labels, **cases[6])


@needs_guards
def test_wrappers_of_torch_func_that_outlive_it():
    x, dead = torch.randn(4, CLASSES), []
    torch.func.grad(lambda one: dead.append(one) or one.sum())(x)
    torch.func.vmap(lambda one: dead.append(one) or one)(x[None])
    assert _guards.make([x])(x) and not any(map(_guards.make([x]), dead))
    parameter = torch.nn.Parameter(x)
    assert not _guards.make([x])(parameter) and not _guards.make([parameter])(x)


@needs_guards
def test_guards_keep_no_tensor(monkeypatch):
    levels, labels = draw()
    guard(monkeypatch, levels, labels)
    assert any(_prepared._guarded.values())
    loss = tare.torch.sigmoid_focal(levels, labels)
    loss.backward()
    gone = [weakref.ref(one) for one in (*levels, *labels)]
    levels.clear(), labels.clear()
    del loss
    assert not any(one() is not None for one in gone)


@needs_guards
def test_backward_lets_labels_go():
    levels, labels = draw()
    for _ in range(4):
        loss = tare.torch.sigmoid_focal(levels, labels)
        loss.backward()
    gone = [weakref.ref(one) for one in labels]
    labels.clear()
    assert not any(one() is not None for one in gone) and loss.grad_fn is not None


@needs_guards
def test_of_many_layouts_few_have_guards(monkeypatch):
    x, y = torch.randn(40, CLASSES, requires_grad=True), torch.randint(-1, CLASSES, (40,))
    for _ in range(2):
        for rows in range(1, 40):
            attempt([x.detach()[:rows].requires_grad_()], [y[:rows]])
    assert [len(known) for known in _prepared._guarded.values()] == [_prepared._MOST_GUARDED]
    guard(monkeypatch, [x], [y])  # one that comes again and again takes a place


def test_levels_without_guards(monkeypatch):
    levels, labels = draw()
    expected = alone(levels, labels)
    monkeypatch.setattr(_guards, "make", None)
    _prepared.forget()
    for _ in range(4):
        same(attempt(levels, labels), expected)
        with torch.no_grad():
            assert torch.equal(tare.torch.sigmoid_focal(levels, labels), expected[0])
    assert len(_prepared._calls) == 1 and not _prepared._guarded
    turned = [_turned(level).requires_grad_() for level in levels]
    same(attempt(turned, labels), alone(turned, labels))


@needs_guards
def test_guards_that_changed_are_not_used(monkeypatch):
    known, place = torch._C._dynamo.guards.TensorGuards, torch._C._dynamo.guards

    class Changed:
        def __init__(self, *tensors, answer=None, **options):
            self.made = known(*tensors, **options)

        def check(self, *tensors):
            raise TypeError("another interface")

    class Careless(Changed):
        def check(self, *tensors):
            return True

    class OverlooksStrides(Changed):
        def check(self, *tensors):
            return self.made.check(*tensors) or self.made.check(*(one.contiguous() for one in tensors))

    for kind in (Changed, Careless, OverlooksStrides, object, None):
        monkeypatch.setattr(place, "TensorGuards", kind)
        assert _guards._find() is None
    monkeypatch.delattr(place, "TensorGuards")
    assert _guards._find() is None
    monkeypatch.undo()
    assert _guards._find()
