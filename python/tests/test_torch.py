# SPDX-License-Identifier: Apache-2.0
"""tare.torch: values and gradients against the papers' formulas and PyTorch's own losses in double precision."""

import threading

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from support import LOSSES, draw, near

import tare
import tare.torch


def exact(name, x, y, **parameters):
    """Element or row losses and gradient, by the reference."""
    x, y = x.detach().double().numpy(), y.numpy()
    if name.startswith("softmax"):
        return reference.softmax(x, y, **parameters)
    return reference.sigmoid(x, reference.one_hot(y, x.shape[1]), **parameters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients(name, dtype):
    x, y = draw(dtype=dtype)
    y = y.abs() if name.startswith("softmax") else y
    loss, gradient = exact(name, x, y, **LOSSES[name])
    relative = {torch.float16: 1e-3, torch.bfloat16: 8e-3}.get(dtype, 1e-5)
    for reduction, upstream in (("sum", 1.0), ("sum", -3.0), ("none", None), ("rows", None)):
        found = tare.torch.loss(name, x, y, reduction=reduction, **LOSSES[name])
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        weight = torch.rand_like(found) if upstream is None else torch.tensor(upstream).to(found)
        (ours,) = torch.autograd.grad(found, x, weight)
        rows = reduction != "sum" and found.dim() == 1
        near(found, loss.sum(-1) if rows and loss.ndim > 1 else loss.sum() if reduction == "sum" else loss)
        near(ours, gradient * (weight.double().numpy()[:, None] if rows else weight.double().numpy()), relative, 1e-7)
        assert ours.dtype == dtype and ours.stride() == x.stride()


@pytest.mark.parametrize("reduction", ["sum", "rows", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name, reduction):
    x, y = draw(rows=9, classes=4, dtype=torch.float64)
    y = y.abs() if name.startswith("softmax") else y
    parameters = {**LOSSES[name], "row_weights": torch.rand(9)}
    assert torch.autograd.gradcheck(lambda a: tare.torch.loss(name, a, y, reduction=reduction, **parameters), (x,))


def test_pytorchs_cross_entropies():
    x, y = draw()
    wide, t = x.detach().double().requires_grad_(), torch.rand(200, 7)
    weights, positive = torch.rand(7), torch.rand(7)
    pairs = [
        (
            tare.torch.softmax_ce(x, y.abs(), class_weights=weights, normalizer="weights"),
            F.cross_entropy(wide, y.abs(), weights.double()),
        ),
        (tare.torch.softmax_ce(x, targets=t, normalizer="rows"), F.cross_entropy(wide, t.double())),
        (
            tare.torch.softmax_ce(x, y, ignore_label=-1, background_label=-2, normalizer="rows"),
            F.cross_entropy(wide, y, ignore_index=-1),
        ),
        (
            tare.torch.sigmoid_ce(x, targets=t, normalizer="elements"),
            F.binary_cross_entropy_with_logits(wide, t.double()),
        ),
        (
            tare.torch.sigmoid_ce(x, y, positive_weights=positive, element_weights=t),
            F.binary_cross_entropy_with_logits(
                wide,
                torch.from_numpy(reference.one_hot(y.numpy(), 7)),
                t.double(),
                reduction="sum",
                pos_weight=positive.double(),
            ),
        ),
    ]
    for ours, theirs in pairs:
        near(ours, theirs.item(), 1e-6)
        near(torch.autograd.grad(ours, x)[0], torch.autograd.grad(theirs, wide)[0], 1e-4, 1e-8)


@pytest.mark.parametrize("reduction", ["sum", "rows", "none"])
@pytest.mark.parametrize("name", ["sigmoid-focal", "softmax-ce", "ghm-c"])
def test_maps_are_rows(name, reduction):
    torch.manual_seed(0)
    images, anchors, classes, sides = 2, 3, 5, (6, 3)
    maps = [torch.randn(images, anchors * classes, s, s, requires_grad=True) for s in sides]
    labels = torch.randint(0, classes, (images, anchors * sum(s * s for s in sides)))
    weights = torch.rand(labels.shape).ceil() if name == "ghm-c" else torch.rand(labels.shape)
    split = [s * s * anchors for s in sides]

    def rows_of(maps):
        return [m.unflatten(1, (anchors, classes)).permute(0, 3, 4, 1, 2).flatten(1, 3) for m in maps]

    flat = torch.cat(rows_of(maps), 1)  # [images, rows of an image, classes]
    expected = tare.torch.loss(name, flat, labels, row_weights=weights, reduction=reduction)
    upstream = torch.rand_like(expected)
    theirs = torch.autograd.grad(expected, maps, upstream)
    for given in (labels, list(labels.split(split, 1))):
        found = tare.torch.loss(name, maps, given, classes=classes, row_weights=weights, reduction=reduction)
        if reduction == "sum":
            near(found, expected.detach(), 1e-6)
            ours = torch.autograd.grad(found, maps, upstream)
        elif found[0].shape == maps[0].shape:
            torch.testing.assert_close(torch.cat(rows_of(found), 1), expected, rtol=1e-6, atol=0)
            parts = upstream.split(split, 1)
            above = [u.unflatten(1, (s, s, anchors)).permute(0, 3, 4, 1, 2).flatten(1, 2) for u, s in zip(parts, sides)]
            ours = torch.autograd.grad(found, maps, above)
        else:
            torch.testing.assert_close(torch.cat([f.flatten(1) for f in found], 1), expected, rtol=1e-6, atol=0)
            parts = upstream.split(split, 1)
            ours = torch.autograd.grad(found, maps, [u.reshape(f.shape) for u, f in zip(parts, found)])
        for one, other in zip(ours, theirs):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_strides_and_layouts(reduction):
    x, y = draw()
    expected = tare.torch.sigmoid_focal(x, y, reduction=reduction)
    (theirs,) = torch.autograd.grad(expected.sum(), x)
    wide = torch.zeros(200, 7, 2).index_copy(2, torch.tensor([1]), x.detach()[..., None])
    for view, back in (
        (x.detach().t().contiguous().t(), lambda g: g),
        (wide[..., 1], lambda g: g),
        (x.detach().flip(0), lambda g: g.flip(0)),
        (x.detach().reshape(2, 4, 5, 5, 7), lambda g: g.reshape(200, 7)),
    ):
        view = view.requires_grad_()
        labels = y.flip(0) if view.shape == x.shape and not torch.equal(view, x) else y
        found = tare.torch.sigmoid_focal(view, labels, reduction=reduction)
        (ours,) = torch.autograd.grad(found.sum(), view)
        torch.testing.assert_close(back(ours), theirs, rtol=1e-6, atol=0)
        assert found.shape == (() if reduction == "sum" else view.shape)
    channels_last = torch.randn(2, 10, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    found = tare.torch.sigmoid_focal(channels_last, torch.zeros(2, 4, 4, 2, dtype=torch.int32), classes=5)
    (ours,) = torch.autograd.grad(found, channels_last)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_backward_may_run_twice_and_leaves_arguments_alone():
    x, y = draw()
    loss = tare.torch.sigmoid_focal(x, y, normalizer="positives")
    before = x.detach().clone()
    first = torch.autograd.grad(loss, x, retain_graph=True)[0].clone()
    second = torch.autograd.grad(loss, x, torch.tensor(2.0))[0]
    torch.testing.assert_close(second, 2 * first, rtol=1e-6, atol=0)
    assert torch.equal(x, before)
    loss = tare.torch.sigmoid_focal(x, y, reduction="none")
    (loss.sum() + (loss * loss).sum()).backward()  # used twice: 1 + 2*loss comes from above
    weighted = tare.torch.sigmoid_focal(x, y, element_weights=1 + 2 * loss.detach())
    near(x.grad, torch.autograd.grad(weighted, x)[0])


def test_second_derivatives_are_refused():
    x, y = draw()
    (gradient,) = torch.autograd.grad(tare.torch.sigmoid_focal(x, y), x, create_graph=True)
    assert torch.equal(gradient, torch.autograd.grad(tare.torch.sigmoid_focal(x, y), x)[0])
    with pytest.raises(RuntimeError, match="second derivatives"):
        gradient.sum().backward()


def test_logits_changed_in_place_are_noticed():
    x, y = draw()
    logits = x * 1
    loss = tare.torch.sigmoid_focal(logits, y)
    logits.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_half_gradients_survive_a_large_normalizer_and_a_loss_scale():
    x, y = draw(rows=5000, dtype=torch.float16)
    scale = 65536.0
    loss = tare.torch.sigmoid_focal(x, y, normalizer=1e6) * scale
    (ours,) = torch.autograd.grad(loss, x)
    _, gradient = exact("sigmoid-focal", x, y, gamma=2.0, alpha=0.25)
    near(ours, gradient * (scale / 1e6), 1e-3, 6e-8)
    overflow = torch.autograd.grad(tare.torch.sigmoid_focal(x, y), x, torch.tensor(float("inf")))[0]
    assert not overflow.isfinite().all()  # as a GradScaler wants to see it
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert tare.torch.sigmoid_focal(x, y).dtype == torch.float32


def test_normalizer_as_tensor():
    x, y = draw()
    plain = tare.torch.sigmoid_focal(x, y)
    for normalizer in (torch.tensor(12.0), torch.tensor([12]), torch.tensor(12, dtype=torch.float64), 12):
        found = tare.torch.sigmoid_focal(x, y, normalizer=normalizer)
        near(found * 12, plain.item(), 1e-6)
        near(torch.autograd.grad(found, x)[0] * 12, torch.autograd.grad(plain, x, retain_graph=True)[0], 1e-6)
    positives = tare.torch.sigmoid_focal(x, y, normalizer=(y >= 0).sum())
    assert torch.equal(positives, tare.torch.sigmoid_focal(x, y, normalizer="positives"))


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 1.5, 2, 5])
def test_limits(gamma):
    x = torch.tensor([[torch.inf], [-torch.inf], [torch.nan], [125.0], [-125.0]], requires_grad=True)
    for label, name in ((0, "at"), (-1, "off")):
        y = torch.full((5,), label)
        found = tare.torch.sigmoid_focal(x, y, gamma=gamma, alpha=-1, reduction="none")
        (ours,) = torch.autograd.grad(found, x, torch.ones_like(found))
        right, wrong = (0, 1) if name == "at" else (1, 0)
        assert found[right] == 0 and ours[right] == 0
        assert found[wrong] == torch.inf and ours[wrong].abs() == 1
        assert found[2].isnan() and ours[2].isnan()
        assert found[3:].isfinite().all() and ours[3:].isfinite().all()
        near(found[4 if name == "at" else 3], [125.0], 1e-6)
    weights = torch.tensor([0.0, 0, 0, 1, 1])
    masked = tare.torch.sigmoid_focal(x, torch.zeros(5, dtype=torch.int64), gamma=gamma, row_weights=weights)
    assert masked.isfinite() and torch.autograd.grad(masked, x)[0].isfinite().all()


def test_nothing_to_count():
    x, _ = draw()
    for name in tare.losses():
        given = {"targets": torch.zeros_like(x)} if name == "ghm-r" else {}
        for rows in (x, x[:0]):
            labels = torch.full((len(rows),), -2)
            given = {key: one[: len(rows)] for key, one in given.items()}
            loss = tare.torch.loss(name, rows, labels, **given)
            (gradient,) = torch.autograd.grad(loss, x)
            assert loss == 0 and not gradient.any(), name
    one = torch.randn(5, 1, requires_grad=True)
    loss = tare.torch.softmax_focal(one, torch.zeros(5, dtype=torch.int64))
    assert loss == 0 and not torch.autograd.grad(loss, one)[0].any()


def test_weights_of_classes_and_soft_targets():
    x, y = draw()
    weights, t = torch.rand(7), torch.rand(200, 7)
    loss, gradient = exact("sigmoid-focal", x, y, gamma=2.0, alpha=0.25)
    factor = np.where(y.numpy() >= 0, weights.double().numpy()[y.numpy()], 0.5)[:, None]
    found = tare.torch.sigmoid_focal(x, y, class_weights=weights, background_weight=0.5)
    near(found, (loss * factor).sum(), 1e-6)
    near(torch.autograd.grad(found, x)[0], gradient * factor)
    wide = x.detach().double().numpy()
    loss, gradient = reference.sigmoid(wide, t.double().numpy(), 2.0, 0.25)
    found = tare.torch.sigmoid_focal(x, targets=t)
    near(found, loss.sum(), 1e-6)
    near(torch.autograd.grad(found, x)[0], gradient, 1e-4, 1e-6)
    found = tare.torch.sigmoid_ce(x, y, alpha=weights)
    labels = reference.one_hot(y.numpy(), 7)
    loss, _ = reference.sigmoid(wide, labels)
    near(found, (loss * np.where(labels == 1, weights.numpy(), 1 - weights.numpy())).sum(), 1e-6)


def test_defaults_are_the_librarys():
    x, y = draw()
    for name in tare.losses():
        thin = getattr(tare.torch, name.replace("-", "_"))
        given = {"targets": torch.zeros_like(x)} if name == "ghm-r" else {"labels": y.abs()}
        given |= {"offset": torch.randn(x.shape[-1])} if name == "softmax-logit-adjusted" else {}
        assert torch.equal(thin(x, **given), tare.torch.loss(name, x, **given)), name


def test_wrong_arguments():
    x, y = draw()
    loss = tare.torch.sigmoid_focal
    with pytest.raises(tare.ArgumentError, match="label of row 3 is 7 .*it must be in 0..6"):
        loss(x, y.index_fill(0, torch.tensor([3]), 7))
    cases = [
        (dict(gama=1), "has no parameter 'gama'"),
        (dict(gamma=-1), "gamma is -1"),
        (dict(density="a b"), "no parameter 'density'"),
        (dict(normalizer="mean"), "normalizer is 'mean'"),
        (dict(reduction="mean"), "reduction is 'mean'"),
        (dict(reduction="none", normalizer="rows"), "only a sum is divided"),
        (dict(normalizer=torch.ones(2)), r"normalizer has shape \(2,\)"),
        (dict(labels=y.float()), "labels are torch.float32"),
        (dict(labels=y[:5]), "labels has shape"),
        (dict(class_weights=torch.ones(3)), "class_weights has 3 elements"),
        (dict(class_weights=torch.ones(7, 1)), "class_weights has shape"),
        (dict(classes=2), "classes=2 each level"),
        (dict(row_weights=torch.ones(200, requires_grad=True)), r"detach\(\)"),
        (dict(logits=x.int()), "logits are"),
        (dict(logits=[]), "empty list"),
        (dict(logits=[x, x], labels=[y]), "labels has 1 levels"),
        (dict(logits=[x] * 17, labels=[y] * 17), "17 levels"),
        (dict(labels=y.to("meta")), "on cpu and meta"),
        (dict(state=torch.zeros(3)), "has no parameter 'state'"),
    ]
    for change, text in cases:
        with pytest.raises(ValueError, match=text):
            loss(**{"logits": x, "labels": y, **change})
    with pytest.raises(ValueError, match="there is no loss 'focal'; there are: sigmoid-ce"):
        tare.torch.loss("focal", x, y)
    with pytest.raises(ValueError, match="7 words; 30 bins need 92"):
        tare.torch.ghm_c(x, y, state=torch.zeros(7, dtype=torch.int64))
    with pytest.raises(ValueError, match="state must be a contiguous int64"):
        tare.torch.ghm_c(x, y, state=torch.zeros(92))
    with pytest.raises(ValueError, match="momentum is 0.5 and state is None"):
        tare.torch.ghm_c(x, y, momentum=0.5)


def test_threads_and_forks_of_pytorch():
    x, y = draw(rows=4000)
    expected = tare.torch.sigmoid_focal(x, y)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert torch.equal(tare.torch.sigmoid_focal(x, y), expected)
    finally:
        torch.set_num_threads(threads)
    results = [None] * 4

    def work(i):
        results[i] = tare.torch.sigmoid_focal(x.detach(), y)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    assert all(torch.equal(result, expected) for result in results)
