# SPDX-License-Identifier: Apache-2.0
"""Calls that tare.torch makes again: nothing of an earlier call is left in a later one."""

import threading

import pytest
import torch

import tare
import tare.torch
from tare import _c, _call, _prepared


@pytest.fixture(autouse=True)
def fresh():
    _prepared.forget()
    torch.manual_seed(0)


def draw(rows=12, classes=5, dtype=torch.float32):
    return torch.randn(rows, classes, dtype=dtype, requires_grad=True), torch.randint(-1, classes, (rows,))


def evaluate(x, *given, upstream=1.0, name="sigmoid-focal", **options):
    loss = tare.torch.loss(name, x, *given, **options)
    return loss.detach(), *torch.autograd.grad(loss.sum() * upstream, x)


def alone(*given, **options):
    """The same call where none was made before."""
    kept = (_prepared._calls, _prepared._guarded, _prepared._found)
    before = [dict(one) for one in kept]
    _prepared.forget()
    found = evaluate(*given, **options)
    for one, other in zip(kept, before):
        one.clear()
        one.update(other)
    return found


def same(found, expected):
    for one, other in zip(found, expected):
        assert torch.equal(one, other) and one.dtype == other.dtype and one.shape == other.shape


VARIANTS = [
    lambda: (draw(), {}),
    lambda: (draw(13), {}),
    lambda: (draw(12, 4), {}),
    lambda: (draw(dtype=torch.float64), {}),
    lambda: (draw(dtype=torch.float16), {}),
    lambda: (draw(dtype=torch.bfloat16), {}),
    lambda: (draw(), {"gamma": 1}),
    lambda: (draw(), {"gamma": 1.5}),
    lambda: (draw(), {"alpha": 0.75}),
    lambda: (draw(), {"alpha": torch.rand(5)}),
    lambda: (draw(), {"alpha": torch.tensor(0.5)}),
    lambda: (draw(), {"name": "softmax-ce"}),
    lambda: (draw(), {"name": "ghm-c"}),
    lambda: (draw(), {"normalizer": 3}),
    lambda: (draw(), {"normalizer": 7.5}),
    lambda: (draw(), {"normalizer": torch.tensor(4)}),
    lambda: (draw(), {"normalizer": torch.tensor(5)}),
    lambda: (draw(), {"normalizer": "positives"}),
    lambda: (draw(), {"row_weights": torch.rand(12)}),
    lambda: (draw(), {"row_weights": torch.rand(12, dtype=torch.float64)}),
    lambda: (draw(), {"row_weights": torch.rand(24)[::2]}),
    lambda: (draw(), {"class_weights": torch.rand(5)}),
    lambda: (draw(), {"class_weights": torch.randint(1, 4, (5,))}),
    lambda: (draw(), {"background_weight": torch.tensor(0.5)}),
    lambda: (draw(), {"background_weight": 2}),
    lambda: (draw(), {"hard_negatives": 2.0}),
    lambda: (draw(), {"reduction": "rows"}),
    lambda: (draw(), {"reduction": "none"}),
    lambda: (draw(), {"upstream": 0.5}),
    lambda: (draw(), {"upstream": float("inf")}),
]


def test_calls_of_many_kinds_in_turn():
    for _ in range(3):
        for variant in VARIANTS:
            arguments, options = variant()
            found = evaluate(*arguments, **options)
            same(torch.nan_to_num(found[1], 1.0)[None], torch.nan_to_num(alone(*arguments, **options)[1], 1.0)[None])
            same(found[:1], alone(*arguments, **options)[:1])


def test_a_number_in_a_tensor_is_read_in_every_call():
    x, y = draw()
    weight, alpha = torch.tensor(2.0), torch.tensor(0.25)
    first = evaluate(x, y, background_weight=weight, alpha=alpha)
    weight.fill_(3.0), alpha.fill_(0.75)
    second = evaluate(x, y, background_weight=weight, alpha=alpha)
    same(second, evaluate(x, y, background_weight=3.0, alpha=0.75))
    assert first[0] != second[0]


def test_levels_with_a_tensor_each_or_one_for_all():
    for _ in range(3):
        levels = [torch.randn(2, rows, 5, requires_grad=True) for rows in (6, 4, 1)]
        labels = torch.randint(-1, 5, (2, 11))
        one = tare.torch.sigmoid_focal(levels, labels)
        each = tare.torch.sigmoid_focal(levels, [part.contiguous() for part in labels.split([6, 4, 1], -1)])
        assert torch.equal(one, each)
        for found, level, part in zip(torch.autograd.grad(one, levels), levels, labels.split([6, 4, 1], -1)):
            torch.testing.assert_close(found, evaluate(level, part)[1])
        rows = tare.torch.sigmoid_focal(levels, labels, reduction="rows")
        assert [tuple(row.shape) for row in rows] == [(2, 6), (2, 4), (2, 1)]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.uint32, torch.int32])
def test_labels_of_any_integer_type(dtype):
    x, y = draw()
    y = y.where(y >= 0, 7)
    options = {"background_label": 7}
    expected, given = evaluate(x, y, **options), y.to(dtype)
    levels = [x.detach()[None, :5].requires_grad_(), x.detach()[None, 5:].requires_grad_()]
    for _ in range(2):
        same(evaluate(x, given, **options), expected)
        for labels in (given[None], [given[None, :5], given[None, 5:]]):
            loss = tare.torch.sigmoid_focal(levels, labels, **options)
            torch.testing.assert_close(loss, expected[0])
            torch.testing.assert_close(torch.cat(torch.autograd.grad(loss, levels), 1)[0], expected[1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64])
def test_weights_of_levels_in_another_type(dtype):
    x, y = draw()
    levels, weights = [x.detach()[None, :5], x.detach()[None, 5:]], torch.randint(0, 3, (1, 12)).float()
    expected = tare.torch.sigmoid_ce(levels, y[None], row_weights=weights)
    for _ in range(2):
        assert torch.equal(tare.torch.sigmoid_ce(levels, y[None], row_weights=weights.to(dtype)), expected)


def test_one_tensor_in_two_roles():
    x, both = draw()[0], torch.rand(12, 5)
    first = evaluate(x, targets=both, element_weights=both)
    other = torch.rand(12, 5)
    second = evaluate(x, targets=both, element_weights=other)
    same(evaluate(x, targets=both, element_weights=other.clone()), second)
    same(evaluate(x, targets=both, element_weights=both), first)


def test_changed_strides_and_a_resize_in_place():
    x, y = draw(12, 12)
    evaluate(x, y)
    turned = x.detach().t().requires_grad_()
    same(evaluate(turned, y), alone(turned, y))
    data = torch.randn(12, 12)
    for _ in range(2):
        evaluate(data.requires_grad_(), y)
    small = data.detach().resize_(6, 12).requires_grad_()
    same(evaluate(small, y[:6]), alone(small, y[:6]))
    x.data = torch.randn(12, 12).t()
    same(evaluate(x, y), alone(x, y))


def test_data_that_changes_before_a_second_backward():
    x, y = draw(12, 12)
    x.data = x.data.half()
    loss = tare.torch.sigmoid_focal(x, y)
    x.data = torch.randn(12, 12, dtype=torch.float16).t()
    same(torch.autograd.grad(loss, x), alone(x, y)[1:])


def test_backward_again_and_on_another_thread():
    x, y = draw()
    for dtype in (torch.float32, torch.float16):
        logits = x.detach().to(dtype).requires_grad_()
        loss = tare.torch.sigmoid_focal(logits, y)
        first = torch.autograd.grad(loss, logits, retain_graph=True)[0].clone()
        found = []
        thread = threading.Thread(target=lambda: found.extend(torch.autograd.grad(loss, logits)))
        thread.start()
        thread.join()
        assert torch.equal(found[0], first)


def test_threads_at_once():
    expected, wrong = {}, []
    arguments = [draw(40, 7) for _ in range(4)]
    for index, given in enumerate(arguments):
        expected[index] = evaluate(*given, normalizer=index + 1.0)

    def work(index):
        for _ in range(200):
            found = evaluate(*arguments[index], normalizer=index + 1.0)
            if not all(map(torch.equal, found, expected[index])):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_call_that_fails_leaves_the_next_one_right(monkeypatch):
    x, y = draw()
    expected = evaluate(x, y)
    wrong = y.clone()
    wrong[3] = 77
    for _ in range(2):
        with pytest.raises(ValueError, match="77"):
            tare.torch.sigmoid_focal(x, wrong)
        same(evaluate(x, y), expected)
    with monkeypatch.context() as patch:
        patch.setattr(_c.library, "tare_evaluate", lambda *arguments: 5)
        with pytest.raises(tare.Error, match="TARE_STATUS_OUT_OF_MEMORY"):
            tare.torch.sigmoid_focal(x, y)
    same(evaluate(x, y), expected)
    for bad in ({"gamma": True}, {"normalizer": True}, {"normalizer": None}, {"first_label": 0.0}):
        with pytest.raises(ValueError):
            tare.torch.sigmoid_focal(x, y, **bad)
    with pytest.raises(ValueError, match="finite"):
        for number in (2.0, float("nan")):
            tare.torch.sigmoid_focal(x, y, normalizer=number)


def test_a_gradient_that_is_asked_for_later_is_refused():
    x, y = draw()
    weights = torch.rand(12)
    evaluate(x, y, row_weights=weights)
    with pytest.raises(ValueError, match="row_weights"):
        evaluate(x, y, row_weights=weights.requires_grad_())


def test_a_state_goes_on_from_call_to_call():
    x, y = draw()
    states = [tare.torch.ghm_state(30), tare.torch.ghm_state(30)]
    for _ in range(3):
        found = evaluate(x, y, name="ghm-c", momentum=0.5, state=states[0])
        same(found, alone(x, y, name="ghm-c", momentum=0.5, state=states[1]))
        assert torch.equal(*states)
    states[0].fill_(-1)
    with pytest.raises(ValueError, match="state"):
        evaluate(x, y, name="ghm-c", momentum=0.5, state=states[0])


def test_a_call_that_is_made_again_builds_nothing(monkeypatch):
    built, make = [], _call.problem_of
    monkeypatch.setattr(_call, "problem_of", lambda *given, **arrays: built.append(1) or make(*given, **arrays))
    for _ in range(3):
        evaluate(*draw())
    assert len(built) == 1


@pytest.mark.parametrize("reduction", ["rows", "none"])
@pytest.mark.parametrize("weights", [None, "row_weights", "element_weights"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_losses_of_rows_and_elements_with_any_layout_from_above(reduction, weights, dtype):
    def given(shape, kind):
        wide = torch.rand(*shape[:-1], 2 * shape[-1])
        turned = torch.rand(shape[::-1]).permute(*reversed(range(len(shape))))
        kinds = [torch.ones(()).expand(shape), torch.rand(shape), wide[..., ::2], turned]
        return [*kinds, torch.rand(1, *shape[1:]).expand(shape)][kind]

    x, labels = draw(dtype=dtype)
    options = {"reduction": reduction}
    if weights:
        options[weights] = torch.rand(12, 5) if weights == "element_weights" else torch.rand(12)
    for kind in (0, 1, 0, 2, 3, 4, 1, 2, 0):
        loss = tare.torch.sigmoid_focal(x, labels, **options)
        above = given(loss.shape, kind).to(loss.dtype)
        (found,) = torch.autograd.grad(loss, x, above)
        (one,) = torch.autograd.grad((tare.torch.sigmoid_focal(x.double(), labels, **options) * above).sum(), x)
        torch.testing.assert_close(found, one)


def test_a_backward_of_elements_that_is_made_again_builds_nothing(monkeypatch):
    x, labels = draw()
    options = {"reduction": "none", "element_weights": torch.rand(12, 5)}
    first = evaluate(x, labels, **options)
    evaluate(x, labels, **options)
    monkeypatch.setattr(_call, "problem_of", None)
    same(evaluate(x, labels, **options), first)


def test_kept_calls_do_not_keep_tensors_alive_nor_grow_without_end(monkeypatch):
    monkeypatch.setattr(_prepared, "_MOST", 4)
    for rows in range(1, 12):
        evaluate(*draw(rows))
        assert len(_prepared._calls) <= 4
    for call in _prepared._calls.values():
        for pool in call.pools:
            assert all(problem.levels is None for problem in pool)


def test_a_profile_shows_the_operator():
    x, y = draw()
    tare.torch.sigmoid_focal(x, y)
    with torch.profiler.profile() as profile:
        tare.torch.sigmoid_focal(x, y)
    assert "tare::loss" in {event.key for event in profile.key_averages()}
