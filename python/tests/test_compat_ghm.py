# SPDX-License-Identifier: Apache-2.0
"""mmdetection's GHMC and GHMR: reductions, types, and checkpoints with its buffer acc_sum."""

import pytest
import torch
import torch.nn.functional as F

import tare.torch
from tare.compat import mmdet

BINS = 10


class Original:
    """The modules of mmdetection 3.3, in double but for the norms, whose bins are those of float32."""

    def __init__(self, momentum, acc_sum=None):
        self.momentum, self.acc_sum = momentum, torch.zeros(BINS) if acc_sum is None else acc_sum.clone()
        self.edges = torch.arange(BINS + 1).float() / BINS
        self.edges[-1] = 1e3

    def __call__(self, g, loss, valid, total, reduction):
        weights, bins = torch.zeros_like(loss), 0
        for i in range(BINS):
            inside = (g >= self.edges[i]) & (g < self.edges[i + 1]) & valid
            if count := inside.sum().item():
                if self.momentum > 0:
                    self.acc_sum[i] = self.momentum * self.acc_sum[i] + (1 - self.momentum) * count
                weights[inside] = total / (self.acc_sum[i].item() if self.momentum > 0 else count)
                bins += 1
        elements = loss * weights / max(bins, 1)
        return elements if reduction == "none" else elements.sum() / total

    def c(self, pred, target, label_weight, reduction):
        valid = (label_weight > 0).expand(pred.shape)
        loss = F.binary_cross_entropy_with_logits(pred, target.double(), reduction="none")
        g = (pred.detach().float().sigmoid() - target.float()).abs()
        return self(g, loss, valid, max(valid.sum().item(), 1), reduction)

    def r(self, pred, target, label_weight, reduction):
        difference = pred - target
        root = (difference**2 + 0.02**2).sqrt()
        g = (difference.abs() / root).detach().float()
        return self(g, root - 0.02, label_weight > 0, max(label_weight.sum().item(), 1), reduction)


def draw(kind, seed):
    torch.manual_seed(seed)
    if kind == "c":
        return torch.randn(20, 4) * 2, torch.randint(0, 2, (20, 4)).float(), (torch.rand(20, 4) < 0.7).float()
    return torch.randn(20, 4) * 0.05, torch.randn(20, 4) * 0.05, (torch.rand(20, 4) < 0.7).float()


def make(kind, momentum, **options):
    return (mmdet.GHMC if kind == "c" else mmdet.GHMR)(momentum=momentum, **options)


def agree(ours, theirs, x, wide):
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-7)
    above = torch.rand_like(theirs)
    (gradient,) = torch.autograd.grad(ours, x, above.float())
    (exact,) = torch.autograd.grad(theirs, wide, above)
    torch.testing.assert_close(gradient.double(), exact, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["c", "r"])
@pytest.mark.parametrize("momentum", [0, 0.75])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_reductions(kind, momentum, reduction):
    module, original = make(kind, momentum, reduction=reduction, loss_weight=2.0), Original(momentum)
    for seed in range(3):
        pred, target, weight = draw(kind, seed)
        weight = weight * torch.rand(20, 4) * 3 - (weight == 0).float() * (kind == "c")  # below 0 is ignored too
        x, wide = pred.requires_grad_(), pred.detach().double().requires_grad_()
        theirs = 2 * getattr(original, kind)(wide, target, weight, reduction)
        agree(module(x, target, weight), theirs, x, wide)
        if momentum:
            torch.testing.assert_close(module.acc_sum, original.acc_sum)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_labels(reduction):
    pred, _, _ = draw("c", 0)
    label, weight = torch.randint(-1, 6, (20,)), (torch.rand(20) < 0.7).float()
    hot = torch.stack([label == c for c in range(4)], 1).float()
    x, wide = pred.requires_grad_(), pred.detach().double().requires_grad_()
    for masked in (weight, torch.zeros(20)):
        theirs = Original(0).c(wide, hot, masked[:, None], reduction)
        agree(mmdet.GHMC(reduction=reduction)(x, label, masked, avg_factor=3.0), theirs, x, wide)


@pytest.mark.parametrize("kind", ["c", "r"])
def test_a_sum_is_refused_as_there(kind):
    with pytest.raises(ValueError, match="reduction is 'sum'"):
        make(kind, 0)(*draw(kind, 0), reduction_override="sum")
    with pytest.raises(ValueError, match="reduction is 'sum'"):
        make(kind, 0, reduction="sum")(*draw(kind, 0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_are_the_originals(dtype):
    for reduction in ("none", "mean"):
        pred, target, weight = draw("c", 0)
        assert mmdet.GHMC(reduction=reduction)(pred.to(dtype), target, weight).dtype == torch.promote_types(
            dtype, torch.float32
        )
        pred, target, weight = draw("r", 0)
        assert mmdet.GHMR(reduction=reduction)(pred.to(dtype), target.to(dtype), weight).dtype == dtype


def test_a_target_that_asks_for_a_gradient():
    pred, target, weight = draw("r", 0)
    x, t = pred.requires_grad_(), target.requires_grad_()
    loss = mmdet.GHMR()(x, t, weight)
    by_x, by_t = torch.autograd.grad(loss, [x, t])
    torch.testing.assert_close(by_x, -by_t)
    torch.testing.assert_close(loss, mmdet.GHMR()(x, t.detach(), weight), rtol=1e-6, atol=0)


# ---- checkpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["c", "r"])
def test_a_checkpoint_of_the_original_goes_on(kind):
    original = Original(0.75)
    for seed in range(3):
        pred, target, weight = draw(kind, seed)
        getattr(original, kind)(pred.double(), target, weight, "mean")
    model = torch.nn.ModuleDict({"loss": make(kind, 0.75)})
    model.load_state_dict({"loss.edges": original.edges, "loss.acc_sum": original.acc_sum})
    torch.testing.assert_close(model["loss"].acc_sum, original.acc_sum)
    assert model["loss"].edges.shape == (BINS + 1,) and model["loss"].state[0] == 1
    for seed in range(3, 6):
        pred, target, weight = draw(kind, seed)
        theirs = getattr(original, kind)(pred.double(), target, weight, "mean")
        torch.testing.assert_close(model["loss"](pred, target, weight).double(), theirs, rtol=1e-5, atol=1e-7)
    again = torch.nn.ModuleDict({"loss": make(kind, 0.75)})
    again.load_state_dict(model.state_dict())  # Tare's own
    assert torch.equal(again["loss"].state, model["loss"].state)


@pytest.mark.parametrize("kind", ["c", "r"])
def test_checkpoints_that_do_not_fit(kind):
    edges, sums = torch.arange(BINS + 1) / BINS, torch.ones(BINS)
    module = make(kind, 0.75)
    with pytest.raises(RuntimeError, match="Missing key.*acc_sum"):
        module.load_state_dict({"edges": edges})
    for bad, message in ((sums[1:], "shape"), (-sums, "negative"), (sums * float("nan"), "not finite")):
        with pytest.raises(RuntimeError, match=f"acc_sum has .*{message}"):
            module.load_state_dict({"edges": edges, "acc_sum": bad})
    with pytest.raises(RuntimeError, match="edges has shape"):
        module.load_state_dict({"edges": edges[1:], "acc_sum": sums})
    assert not module.state.any()
    with pytest.raises(RuntimeError, match="Unexpected key.*other"):
        module.load_state_dict({"edges": edges, "acc_sum": sums, "other": sums})
    kept = module.state.clone()
    module.load_state_dict({"edges": edges}, strict=False)
    assert torch.equal(module.state, kept)
    plain = make(kind, 0)
    plain.load_state_dict({"edges": edges})
    with pytest.raises(RuntimeError, match="Unexpected key.*acc_sum"):
        plain.load_state_dict({"edges": edges, "acc_sum": sums})
    with pytest.raises(AttributeError, match="acc_sum"):
        plain.acc_sum  # noqa: B018
    assert isinstance(plain, (tare.torch.GHMC, tare.torch.GHMR))
    fresh = make(kind, 0.75)
    fresh.load_state_dict({"edges": edges, "acc_sum": torch.zeros(BINS)})
    assert not fresh.state.any()


# ---- dense targets, and weights of elements ----------------------------------------------------------------------


class OriginalGhm:
    def __init__(self, bins, momentum):
        self.bins, self.momentum, self.sums = bins, momentum, torch.zeros(bins)
        self.edges = torch.arange(bins + 1).float() / bins
        self.edges[-1] = 1e3

    def __call__(self, g, loss, label_weight):
        weights, valid, bins = torch.zeros_like(loss), label_weight > 0, 0
        for i in range(self.bins):
            inside = (g >= self.edges[i]) & (g < self.edges[i + 1]) & valid
            count = inside.sum().item()
            if count > 0:
                if self.momentum > 0:
                    self.sums[i] = self.momentum * self.sums[i] + (1 - self.momentum) * count
                weights[inside] = 1 / (self.sums[i] if self.momentum > 0 else count)
                bins += 1
        return (loss * weights / max(bins, 1)).sum()


@pytest.mark.parametrize("momentum", [0, 0.75])
@pytest.mark.parametrize(
    "shape, mask",
    [
        ((20, 3), (20, 3)),
        ((3, 3), (3, 3)),
        ((20, 3), (20, 1)),
        ((3, 3), (3,)),
        ((4, 3, 5), (4, 3, 5)),
        ((30,), (30,)),
        ((3, 3), (3, 1)),
    ],
)
def test_ghm_c_of_dense_targets_and_weights_of_elements(shape, mask, momentum):
    torch.manual_seed(0)
    module, original = mmdet.GHMC(momentum=momentum), OriginalGhm(10, momentum)
    for _ in range(3):
        pred, target, weight = torch.randn(shape) * 2, torch.randint(0, 2, shape), (torch.rand(mask) < 0.6).float()
        loss = F.binary_cross_entropy_with_logits(pred.double(), target.double(), reduction="none")
        theirs = original((pred.sigmoid() - target.float()).abs(), loss, weight)
        torch.testing.assert_close(module(pred, target, weight).double(), theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("momentum", [0, 0.75])
@pytest.mark.parametrize(
    "shape, mask", [((20, 4), (20, 4)), ((4, 4), (4, 4)), ((20, 4), (20, 1)), ((4, 4), (4,)), ((3, 4, 5), (3, 4, 5))]
)
def test_ghm_r_of_weights_of_elements(shape, mask, momentum):
    """Columns of label_weight that differ: the first alone used to decide."""
    torch.manual_seed(0)
    module, original = mmdet.GHMR(momentum=momentum), OriginalGhm(10, momentum)
    for _ in range(3):
        pred, target, weight = torch.randn(shape) * 0.05, torch.randn(shape) * 0.05, (torch.rand(mask) < 0.6).float()
        difference = pred.double() - target.double()
        root = (difference**2 + 0.02**2).sqrt()
        theirs = original((difference.abs() / root).float(), root - 0.02, weight)
        torch.testing.assert_close(module(pred, target, weight).double(), theirs, rtol=1e-5, atol=1e-7)


def test_ghm_takes_no_layout_for_another():
    y = lambda *shape: torch.zeros(shape, dtype=torch.int64)
    cases = [
        ((3, 3, 5), (3, 3), (3,)),
        ((4, 3), (3,), (4,)),
        ((4, 3), (4,), (3,)),
        ((4, 3), (4, 1), (4,)),
        ((4, 3), (4, 3), (2, 4, 3)),
        ((4, 3), (4,), (4, 3)),
    ]
    for pred, target, weight in cases:
        with pytest.raises(ValueError, match="labels|weight"):
            mmdet.GHMC()(torch.randn(pred), y(*target), torch.ones(weight))
    for target, weight in (((4, 1), (4, 4)), ((4,), (4, 4)), ((4, 4), (3, 4, 4)), ((4, 4), (2,))):
        with pytest.raises(ValueError, match="shape|weight"):
            mmdet.GHMR()(torch.randn(4, 4), torch.zeros(target), torch.ones(weight))
    for module in (mmdet.GHMC(), mmdet.GHMR()):
        assert isinstance(module, (tare.torch.GHMC, tare.torch.GHMR))
        with pytest.raises(ValueError, match="reduction_override"):
            module(torch.randn(4, 4), torch.zeros(4, 4), torch.ones(4, 4), reduction_override="avg")
