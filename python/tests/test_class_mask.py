# SPDX-License-Identifier: Apache-2.0
"""Class masks: NumPy, PyTorch, the fused head, torch.compile and detectron2's federated loss."""

import numpy as np
import pytest

import tare


def problem(images=3, rows=20, classes=12, seed=0):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(images, rows, classes)).astype(np.float32)
    labels = random.integers(-2, classes, (images, rows)).astype(np.int32)
    return logits, labels, random.random((images, classes)) < 0.5


def weights_of(logits, mask):
    return np.broadcast_to(mask[..., None, :], logits.shape).astype(np.float32)


@pytest.mark.parametrize("name", ["sigmoid-ce", "sigmoid-focal", "sigmoid-poly1", "sigmoid-varifocal"])
def test_is_a_weight_of_0_that_is_not_counted(name):
    logits, labels, mask = problem()
    got = tare.evaluate(name, logits, labels, class_mask=mask, normalizer="elements", normalizer_sums=True)
    want = tare.evaluate(name, logits, labels, element_weights=weights_of(logits, mask))
    counted = int(((labels != -2)[..., None] & mask[:, None]).sum())
    assert got.normalizer_sums["elements"] == counted
    assert got.loss == pytest.approx(want.loss / counted)
    np.testing.assert_allclose(got.gradient, want.gradient / counted, rtol=2e-6, atol=1e-12)
    assert got.counts == want.counts


def test_ghm_of_one_mask_is_ghm_without_these_columns():
    logits, labels, mask = problem()
    keep = np.flatnonzero(mask[0])
    places = np.full(12, -1, np.int32)
    places[keep] = np.arange(len(keep))
    fewer = np.where(labels >= 0, places[labels], labels)
    got = tare.evaluate("ghm-c", logits, labels, class_mask=mask[0])
    want = tare.evaluate("ghm-c", np.ascontiguousarray(logits[..., keep]), fewer)
    assert got.loss == pytest.approx(want.loss)
    np.testing.assert_array_equal(got.gradient[..., keep], want.gradient)
    assert not got.gradient[..., ~mask[0]].any()


def test_strides_and_types():
    logits, labels, mask = problem()
    want = tare.evaluate("sigmoid-focal", logits, labels, class_mask=mask)
    wide = np.zeros((12, 6), np.uint8)
    wide[::-1, ::2] = 7 * mask.T
    got = tare.evaluate("sigmoid-focal", logits, labels, class_mask=wide[::-1, ::2].T)
    np.testing.assert_array_equal(got.gradient, want.gradient)


def test_refusals():
    logits, labels, mask = problem()
    with pytest.raises(ValueError, match=r"class_mask has shape \(3, 11\); it must be \[12\] or"):
        tare.evaluate("sigmoid-ce", logits, labels, class_mask=mask[:, :11])
    with pytest.raises(TypeError, match="class_mask is float64; it must be bool or uint8"):
        tare.evaluate("sigmoid-ce", logits, labels, class_mask=mask * 1.0)
    with pytest.raises(tare.Error, match="class_mask"):
        tare.evaluate("softmax-ce", logits, np.abs(labels), class_mask=mask)


def tensors(**options):
    torch = pytest.importorskip("torch")
    logits, labels, mask = (torch.from_numpy(one) for one in problem(**options))
    return torch, logits.requires_grad_(), labels, mask


def gradient_of(torch, loss, logits):
    return torch.autograd.grad(loss, logits)[0].numpy()


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("reduction", ["sum", "rows", "none"])
def test_torch_is_numpy(keep, reduction):
    torch, logits, labels, mask = tensors()
    from tare import torch as losses

    for given in (mask, mask.to(torch.uint8) * 3, mask.T.contiguous().T, mask[0]):
        for _ in range(3):  # the second call is a kept one
            options = {"normalizer": "elements"} if reduction == "sum" else {}
            loss = losses.sigmoid_focal(
                logits, labels, class_mask=given, reduction=reduction, keep_gradient=keep, **options
            )
            want = tare.evaluate(
                "sigmoid-focal", logits.detach().numpy(), labels.numpy(), class_mask=given.numpy(), **options
            )
            assert loss.sum().item() == pytest.approx(want.loss, rel=1e-5)
            np.testing.assert_allclose(gradient_of(torch, loss.sum(), logits), want.gradient, rtol=1e-6, atol=1e-12)
        mask = ~mask  # other values in the same kind of tensor
        given.copy_(~given if given.dtype == torch.bool else 1 - given.clamp(max=1))


def test_module_takes_it_in_the_call():
    _, logits, labels, mask = tensors()
    from tare.torch import nn

    with pytest.raises(TypeError, match="class_mask is given to the constructor"):
        nn.SigmoidFocalLoss(class_mask=mask)
    loss = nn.SigmoidFocalLoss()(logits, labels, class_mask=mask)
    want = tare.evaluate("sigmoid-focal", logits.detach().numpy(), labels.numpy(), class_mask=mask.numpy())
    assert loss.item() == pytest.approx(want.loss, rel=1e-6)


def test_compiled():
    torch, logits, labels, mask = tensors()
    from tare import torch as losses

    def loss(x, y, m):
        return losses.sigmoid_focal(x, y, class_mask=m, normalizer="elements")

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for given in (mask, ~mask):
        want, got = loss(logits, labels, given), compiled(logits, labels, given)
        assert got.item() == want.item()
        np.testing.assert_array_equal(gradient_of(torch, got, logits), gradient_of(torch, want, logits))


def test_refusals_of_torch():
    _, logits, labels, mask = tensors()
    from tare import torch as losses

    with pytest.raises(TypeError, match="bool or uint8"):
        losses.sigmoid_ce(logits, labels, class_mask=mask.float())
    with pytest.raises(ValueError, match="class_mask has shape"):
        losses.sigmoid_ce(logits, labels, class_mask=mask[:2])
    with pytest.raises(ValueError, match="class_mask has shape"):
        losses.sigmoid_ce(logits, labels, class_mask=mask[None])


def test_head():
    torch, _, labels, mask = tensors(images=1)
    from tare import torch as losses

    features, weight = torch.randn(20, 5, requires_grad=True), torch.randn(12, 5, requires_grad=True)
    try:
        got = losses.sigmoid_focal(losses.Head(features, weight), labels[0], class_mask=mask[0], normalizer="elements")
    except tare.Error as error:
        pytest.skip(str(error))
    want = losses.sigmoid_focal(features @ weight.T, labels[0], class_mask=mask[0], normalizer="elements")
    assert got.item() == pytest.approx(want.item(), rel=1e-5)
    for one, other in zip(torch.autograd.grad(got, [features, weight]), torch.autograd.grad(want, [features, weight])):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-6)
