# SPDX-License-Identifier: Apache-2.0
"""Losses of masks on tensors: values, gradients, graphs, and what is refused."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import tare  # noqa: E402
import tare.torch  # noqa: E402

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def draw(masks=3, pixels=(7, 9), dtype=torch.float32, seed=0, soft=False):
    generator = torch.Generator().manual_seed(seed)
    x = (3 * torch.randn(masks, *pixels, generator=generator) - 1).to(dtype).requires_grad_()
    t = torch.rand(masks, *pixels, generator=generator)
    return x, t if soft else t > 0.6


def formula(x, t, options, parameters):
    """Losses of masks in double, by PyTorch's operators: overlap and focal."""
    p, t = x.double().flatten(1).sigmoid(), t.double().flatten(1)
    squares = options.get("squared", False)
    get = {**tare._masks.DEFAULTS, **parameters}
    hits = (p * t).sum(1)
    if squares:
        fp, fn = ((p - t).clamp(min=0) ** 2).sum(1), ((t - p).clamp(min=0) ** 2).sum(1)
    else:
        fp, fn = (p * (1 - t)).sum(1), ((1 - p) * t).sum(1)
    misses = get["false_positive_weight"] * fp + get["false_negative_weight"] * fn
    index = (hits + get["numerator_smoothing"]) / (hits + misses + get["denominator_smoothing"])
    ce = torch.nn.functional.binary_cross_entropy_with_logits(x.double().flatten(1), t, reduction="none")
    s = p * (1 - t) + (1 - p) * t
    focal = (get["alpha"] * t + (1 - get["alpha"]) * (1 - t)) * s ** get["gamma"] * ce
    return (1 - index) ** get["exponent"], focal.mean(1)


def expected(x, t, options, parameters):
    y = x.detach().double().requires_grad_()
    overlap, focal = formula(y, t, options, parameters)
    get = {**tare._masks.DEFAULTS, **parameters}
    loss = (get["overlap_weight"] * overlap + get["focal_weight"] * focal).sum()
    (gradient,) = torch.autograd.grad(loss, y)
    return loss.detach(), gradient


def near(found, wanted, dtype):
    bound = {torch.float32: 1e-5, torch.float64: 1e-10, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    assert (found.double() - wanted.double()).abs().max() <= bound * wanted.double().abs().max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("soft", (False, True))
@pytest.mark.parametrize("squared", (False, True))
def test_values_and_gradients(dtype, soft, squared):
    x, t = draw(dtype=dtype, soft=soft)
    parameters = {"focal_weight": 2.0, "exponent": 0.75, "false_positive_weight": 0.3, "false_negative_weight": 0.7}
    loss, overlap, focal = tare.torch.mask_loss(x, t, parameters=parameters, squared=squared)
    wanted, gradient = expected(x, t, {"squared": squared}, parameters)
    loss.backward()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    near(loss.detach(), wanted, torch.float64 if dtype == torch.float64 else torch.float32)
    near(x.grad, gradient, dtype)
    torch.testing.assert_close(2 * focal + overlap, loss.detach())
    assert not overlap.requires_grad and not focal.requires_grad


@pytest.mark.parametrize("dtype", DTYPES)
def test_reductions_and_upstream(dtype):
    x, t = draw(dtype=dtype)
    of_masks = tare.torch.dice_loss(x, t, reduction="masks")
    assert of_masks.shape == (3,)
    weights = torch.tensor([1.0, -2.0, 0.0], dtype=of_masks.dtype)
    (of_masks * weights).sum().backward()
    by_masks, x.grad = x.grad, None
    tare.torch.dice_loss(x, t, mask_weights=weights.float()).backward()
    near(by_masks, x.grad, dtype)
    x.grad = None
    (3 * tare.torch.dice_loss(x, t, normalizer="masks")).backward()
    by_mean, x.grad = x.grad, None
    tare.torch.dice_loss(x, t, normalizer=torch.tensor(1.0)).backward()
    near(by_mean, x.grad, dtype)
    x.grad = None
    loss = tare.torch.dice_loss(x, t)
    loss.backward(retain_graph=True)
    first = x.grad.clone()
    loss.backward()
    near(x.grad, 2 * first, dtype)


def test_pair_is_the_sum_of_its_parts():
    x, t = draw()
    loss, dice, focal = tare.torch.focal_dice_loss(x, t, focal_weight=20.0, dice_weight=0.5)
    torch.testing.assert_close(loss.detach(), 20 * focal + 0.5 * dice)
    torch.testing.assert_close(dice, tare.torch.dice_loss(x, t).detach())


def test_dice_is_maskformers():
    x, t = draw()
    p, y = x.detach().double().sigmoid().flatten(1), t.double().flatten(1)
    wanted = (1 - (2 * (p * y).sum(-1) + 1) / (p.sum(-1) + y.sum(-1) + 1)).sum()
    torch.testing.assert_close(tare.torch.dice_loss(x, t).detach().double(), wanted, rtol=1e-6, atol=0)


def test_pixels_that_do_not_count():
    x, t = draw()
    valid = torch.rand(x.shape) > 0.3
    byte = t.to(torch.uint8)
    byte[~valid] = 255
    with torch.no_grad():
        x[~valid] = float("nan")
    loss = tare.torch.dice_loss(x, t, valid=valid)
    loss.backward()
    by_valid, x.grad = x.grad, None
    other = tare.torch.dice_loss(x, byte, ignore_target=255)
    other.backward()
    assert loss == other
    assert torch.equal(by_valid, x.grad)
    assert (by_valid[~valid] == 0).all()


def test_layouts_and_types_of_targets():
    x, t = draw()
    plain = tare.torch.dice_loss(x, t)
    for other in (t.float(), t.half(), t.bfloat16(), t.double(), t.to(torch.uint8), t.long()):
        assert tare.torch.dice_loss(x, other) == plain
    wide = torch.empty(3, 7, 18)[:, :, ::2].copy_(x.detach())
    assert tare.torch.dice_loss(wide, t) == plain
    assert tare.torch.dice_loss(x[:, :, None], t[:, :, None]) == plain
    for shape in ((0, 5), (3, 0), (0, 0)):
        assert tare.torch.dice_loss(torch.zeros(shape), torch.zeros(shape), normalizer="masks") == 0


def test_numpy_is_the_same():
    x, t = draw()
    loss = tare.torch.focal_dice_loss(x, t, normalizer="masks").loss
    loss.backward()
    given = {"focal_weight": 20.0, "normalizer": "masks", "gradient": True}
    result = tare.mask_loss(x.detach().numpy(), t.numpy(), **given)
    assert np.float32(result.loss) == loss.item()
    assert np.array_equal(result.gradient, x.grad.numpy())
    assert result.sums["pixels"].tolist() == [63] * 3
    assert result.mask_losses.shape == (3,)
    torch.testing.assert_close(result.overlap_loss + 20 * result.focal_loss, result.loss)


def test_modules():
    x, t = draw()
    for module, function, options in (
        (tare.torch.nn.DiceLoss, tare.torch.dice_loss, {"smooth": 0.5, "squared": True}),
        (tare.torch.nn.TverskyLoss, tare.torch.tversky_loss, {"false_positive_weight": 0.3, "exponent": 0.75}),
    ):
        made = copy.deepcopy(module(**options))
        assert made(x, t) == function(x, t, **options)
        assert "smooth" in repr(made)
    pair = tare.torch.nn.FocalDiceLoss(focal_weight=3.0)(x, t)
    assert pair.loss == tare.torch.focal_dice_loss(x, t, focal_weight=3.0).loss
    with pytest.raises(TypeError, match="mask_weights is given to the constructor"):
        tare.torch.nn.DiceLoss(mask_weights=torch.ones(3))


def test_compile_and_export():
    x, t = draw()
    plain = tare.torch.dice_loss(x, t)
    plain.backward()
    wanted, x.grad = x.grad, None
    compiled = torch.compile(lambda a, b: tare.torch.dice_loss(a, b), fullgraph=True, backend="aot_eager")
    loss = compiled(x, t)
    loss.backward()
    assert loss == plain
    assert torch.equal(wanted, x.grad)

    class Head(torch.nn.Module):
        def forward(self, a, b):
            return tare.torch.dice_loss(a, b, reduction="masks")

    x.grad = None
    exported = torch.export.export(Head(), (x.detach(), t)).module()
    exported(x, t).sum().backward()
    torch.testing.assert_close(x.grad, wanted)


def test_operators_are_sound():
    x, t = draw()
    numbers = [*tare._masks.numbers_of({"focal_weight": 1.0}), 1.0]
    rows, targets = x.detach().flatten(1).requires_grad_(), t.flatten(1).view(torch.uint8)
    for by_mask in (0, 1):
        arguments = (rows, targets, None, None, None, numbers, [0, 0, -1, by_mask], False)
        torch.library.opcheck(torch.ops.tare.mask_loss.default, arguments)


def test_create_graph():
    x, t = draw(dtype=torch.float64)
    above = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(tare.torch.dice_loss(x, t), x, above, create_graph=True)
    (by_above,) = torch.autograd.grad(gradient.sum(), above, retain_graph=True)
    torch.testing.assert_close(by_above, gradient.detach().sum() / 2)
    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.autograd.grad(gradient.sum(), x)
    assert torch.autograd.gradcheck(lambda y: tare.torch.focal_dice_loss(y, t, squared=True).loss, x)
    assert torch.autograd.gradcheck(lambda y: tare.torch.tversky_loss(y, t, exponent=0.75, reduction="masks"), x)


def test_what_is_refused():
    x, t = draw()
    with pytest.raises(ValueError, match="targets has shape"):
        tare.torch.dice_loss(x, t[:2])
    with pytest.raises(ValueError, match="exponent is 0; it must be in"):
        tare.torch.tversky_loss(x, t, exponent=0)
    with pytest.raises(ValueError, match="target of pixel 0 of mask 1 is 2"):
        other = t.float()
        other[1, 0, 0] = 2
        tare.torch.dice_loss(x, other)
    with pytest.raises(TypeError, match="weight is no option"):
        tare.torch.dice_loss(x, t, weight=3)
    with pytest.raises(TypeError, match="beta is no parameter"):
        tare.torch.mask_loss(x, t, parameters={"beta": 1})
    with pytest.raises(ValueError, match="normalizer is 'rows'"):
        tare.torch.dice_loss(x, t, normalizer="rows")
    with pytest.raises(ValueError, match="asks for a gradient"):
        tare.torch.dice_loss(x, torch.rand(x.shape).requires_grad_())
    with pytest.raises(RuntimeError, match=r"torch\.func"):
        torch.func.grad(lambda y: tare.torch.dice_loss(y, t))(x.detach())
    with pytest.raises(TypeError, match="beta is no parameter"):
        tare.mask_loss(x.detach().numpy(), t.numpy(), beta=1)
    with pytest.raises(ValueError, match="numerator_smoothing is 1; it must be at most denominator_smoothing"):
        tare.mask_loss(x.detach().numpy(), t.numpy(), numerator_smoothing=1.0)
