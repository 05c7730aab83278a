# SPDX-License-Identifier: Apache-2.0
"""tare.compat: signatures, and values and gradients against what the other libraries publish, in double precision."""

import inspect

import pytest
import torch
import torch.nn.functional as F

from tare.compat import apex, fvcore, mmcv, mmdet, torchvision

N, C = 120, 6


def draw(seed=0):
    torch.manual_seed(seed)
    return (torch.randn(N, C) * 3).requires_grad_(), torch.randint(0, C + 1, (N,))  # C is background


def one_hot(y):
    return F.one_hot(y, C + 1)[:, :C].double()


def focal(x, t, alpha, gamma):
    """Elements of sigmoid focal loss as everybody writes it."""
    p = x.sigmoid()
    loss = F.binary_cross_entropy_with_logits(x, t, reduction="none") * (p * (1 - t) + (1 - p) * t) ** gamma
    return loss if alpha < 0 else loss * (alpha * t + (1 - alpha) * (1 - t))


def agree(ours, theirs, x, wide):
    """A loss and a gradient, that of x against that of its double."""
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-9)
    above = torch.rand_like(theirs)
    (gradient,) = torch.autograd.grad(ours, x, above.float())
    (exact,) = torch.autograd.grad(theirs, wide, above, retain_graph=True)
    torch.testing.assert_close(gradient.double(), exact, rtol=1e-4, atol=1e-8)


def doubled(x):
    return x.detach().double().requires_grad_()


REDUCTIONS = {"none": lambda loss: loss, "sum": torch.sum, "mean": torch.mean}


def test_signatures():
    def names(function):
        return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}

    none = inspect.Parameter.empty
    assert names(torchvision.sigmoid_focal_loss) == {
        "inputs": none,
        "targets": none,
        "alpha": 0.25,
        "gamma": 2,
        "reduction": "none",
    }
    assert names(fvcore.sigmoid_focal_loss)["alpha"] == -1 and names(fvcore.sigmoid_focal_loss_star_jit)["gamma"] == 1
    for function in (mmcv.sigmoid_focal_loss, mmcv.softmax_focal_loss):
        assert names(function) == {
            "input": none,
            "target": none,
            "gamma": 2.0,
            "alpha": 0.25,
            "weight": None,
            "reduction": "mean",
        }
    assert names(mmcv.SigmoidFocalLoss) == {"gamma": none, "alpha": none, "weight": None, "reduction": "mean"}
    assert names(mmdet.FocalLoss) == {
        "use_sigmoid": True,
        "gamma": 2.0,
        "alpha": 0.25,
        "reduction": "mean",
        "loss_weight": 1.0,
        "activated": False,
    }
    assert names(mmdet.CrossEntropyLoss) == {
        "use_sigmoid": False,
        "use_mask": False,
        "reduction": "mean",
        "class_weight": None,
        "ignore_index": None,
        "loss_weight": 1.0,
        "avg_non_ignore": False,
    }
    assert names(mmdet.GHMC) == {
        "bins": 10,
        "momentum": 0,
        "use_sigmoid": True,
        "loss_weight": 1.0,
        "reduction": "mean",
    }
    assert names(mmdet.GHMR) == {"mu": 0.02, "bins": 10, "momentum": 0, "loss_weight": 1.0, "reduction": "mean"}
    assert list(names(apex.focal_loss)) == [
        "cls_output",
        "cls_targets_at_level",
        "num_positive_sum",
        "num_real_classes",
        "alpha",
        "gamma",
        "label_smoothing",
    ]


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_torchvision_and_fvcore(reduction):
    x, y = draw()
    for t in (one_hot(y), torch.rand(N, C, dtype=torch.float64)):
        for alpha, gamma in ((0.25, 2), (-1, 2), (0.7, 1.5)):
            wide = doubled(x)
            theirs = REDUCTIONS[reduction](focal(wide, t, alpha, gamma))
            agree(torchvision.sigmoid_focal_loss(x, t.float(), alpha, gamma, reduction), theirs, x, wide)
            agree(fvcore.sigmoid_focal_loss_jit(x, t, alpha, gamma, reduction), theirs, x, wide)
    wide, t = doubled(x), one_hot(y)
    star = -F.logsigmoid(1.5 * wide * (2 * t - 1)) / 1.5
    agree(fvcore.sigmoid_focal_loss_star(x, t, gamma=1.5, reduction=reduction), REDUCTIONS[reduction](star), x, wide)
    balanced = star * (0.3 * t + 0.7 * (1 - t))
    agree(fvcore.sigmoid_focal_loss_star(x, t, 0.3, 1.5, reduction), REDUCTIONS[reduction](balanced), x, wide)


def test_torchvision_takes_any_shape():
    for shape in ((), (5,), (3, 4), (2, 3, 4, 5), (2, 1, 2, 3, 2, 3)):
        x, t = torch.randn(shape, requires_grad=True), torch.randint(0, 2, shape)
        wide = doubled(x)
        agree(torchvision.sigmoid_focal_loss(x, t), focal(wide, t.double(), 0.25, 2), x, wide)
    with pytest.raises(ValueError, match="reduction is 'avg'"):
        torchvision.sigmoid_focal_loss(x, t, reduction="avg")
    with pytest.raises(ValueError, match="inputs have shape"):
        torchvision.sigmoid_focal_loss(torch.zeros(2), torch.zeros(3))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_mmcv(reduction):
    x, y = draw()
    weight = torch.rand(C)
    y[3] = -1  # no class either
    wide, labels = doubled(x), torch.where(y < 0, C, y)
    rows = torch.cat([weight, torch.ones(1)])[labels].double()[:, None]
    divisor = N if reduction == "mean" else 1
    for w, factor in ((None, 1.0), (weight, rows)):
        loss = focal(wide, one_hot(labels), 0.25, 2.0) * factor
        theirs = loss if reduction == "none" else loss.sum() / divisor
        agree(mmcv.sigmoid_focal_loss(x, y, 2.0, 0.25, w, reduction), theirs, x, wide)
        agree(mmcv.SigmoidFocalLoss(2.0, 0.25, w, reduction)(x, y), theirs, x, wide)
    y = y.clamp(max=C - 1)
    log_p = wide.log_softmax(1)[torch.arange(N), y.clamp(min=0)]
    loss = torch.where(y < 0, 0.0, -0.25 * (1 - log_p.exp()) ** 2 * log_p * weight.double()[y.clamp(min=0)])
    theirs = loss if reduction == "none" else loss.sum() / divisor
    agree(mmcv.softmax_focal_loss(x, y, 2.0, 0.25, weight, reduction), theirs, x, wide)
    agree(mmcv.SoftmaxFocalLoss(2.0, 0.25, weight, reduction)(x, y), theirs, x, wide)


def reduced(loss, weight, reduction, avg_factor):
    loss = loss if weight is None else loss * weight
    if reduction == "mean" and avg_factor is not None:
        return loss.sum() / (float(avg_factor) + torch.finfo(torch.float32).eps)
    return REDUCTIONS[reduction](loss)


@pytest.mark.parametrize("avg_factor", [None, 30, torch.tensor(30.0)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_mmdet_focal_loss(reduction, avg_factor):
    x, y = draw()
    wide, module = doubled(x), mmdet.FocalLoss(loss_weight=1.5, reduction="mean")
    loss = focal(wide, one_hot(y), 0.25, 2.0)
    if reduction == "sum" and avg_factor is not None:
        with pytest.raises(ValueError, match="avg_factor"):
            module(x, y, avg_factor=avg_factor, reduction_override="sum")
        return
    rows, elements = torch.rand(N), torch.rand(N, C)
    for weight, factor in ((None, None), (rows, rows[:, None]), (elements, elements), (elements.ravel(), elements)):
        theirs = 1.5 * reduced(loss, factor, reduction, avg_factor)
        for target in (y, one_hot(y)):
            agree(module(x, target, weight, avg_factor, reduction), theirs, x, wide)
    with pytest.raises(ValueError, match="use_sigmoid"):
        mmdet.FocalLoss(use_sigmoid=False)


@pytest.mark.parametrize("avg_non_ignore", [False, True])
@pytest.mark.parametrize("reduction, avg_factor", [("none", None), ("sum", None), ("mean", None), ("mean", 30)])
def test_mmdet_cross_entropy(reduction, avg_factor, avg_non_ignore):
    x, y = draw()
    y[:5] = -100
    wide, rows, classes = doubled(x), torch.rand(N), [0.5, 1.0, 2.0, 1.0, 1.0, 3.0]
    options = {"class_weight": classes, "avg_non_ignore": avg_non_ignore, "loss_weight": 2.0}
    exact = torch.tensor(classes).double()
    y = y.clamp(max=C - 1)
    loss = F.cross_entropy(wide, y, exact, reduction="none", ignore_index=-100)
    divisor = N - 5 if avg_non_ignore and reduction == "mean" and avg_factor is None else avg_factor
    theirs = 2 * reduced(loss, rows.double(), reduction, divisor)
    agree(mmdet.CrossEntropyLoss(**options)(x, y, rows, avg_factor, reduction), theirs, x, wide)

    y[5:9], y[9:14] = C, -1  # background, and ignored like all that is negative
    valid = (y >= 0).double()[:, None]
    t = one_hot(y.clamp(min=0)) * valid
    loss = F.binary_cross_entropy_with_logits(wide, t, pos_weight=exact, reduction="none")
    divisor = (N - 10) * C if avg_non_ignore and reduction == "mean" and avg_factor is None else avg_factor
    theirs = 2 * reduced(loss, rows.double()[:, None] * valid, reduction, divisor)
    module = mmdet.CrossEntropyLoss(use_sigmoid=True, **options)
    agree(module(x, y, rows, avg_factor, reduction), theirs, x, wide)


class GhmOfMmdetection:
    """Its weights, bin by bin: total over the bin's count (or sum), over the number of bins that are not empty."""

    def __init__(self, bins, momentum):
        self.momentum, self.sums = momentum, torch.zeros(bins, dtype=torch.float64)
        self.edges = torch.arange(bins + 1).float() / bins

    def weights(self, g, valid):
        place = torch.bucketize(g.float(), self.edges[1:-1], right=True)
        weights, bins = torch.zeros_like(g), 0
        for k in place[valid].unique():
            inside = (place == k) & valid
            self.sums[k] = self.momentum * self.sums[k] + (1 - self.momentum) * inside.sum()
            weights[inside] = 1 / self.sums[k]
            bins += 1
        return weights / max(bins, 1)


@pytest.mark.parametrize("momentum", [0, 0.75])
def test_mmdet_ghm_c(momentum):
    module, exact = mmdet.GHMC(bins=10, momentum=momentum, loss_weight=0.5), GhmOfMmdetection(10, momentum)
    for step in range(6):
        x, y = draw(step)
        if step % 2:  # bins that stay empty keep their sums
            x = (x.detach() * 0.1 + 4).requires_grad_()
        wide, mask, t = doubled(x), (torch.rand(N) < 0.8).float(), one_hot(y)
        valid = (mask > 0)[:, None].expand(N, C)
        weights = exact.weights((wide.detach().sigmoid() - t).abs(), valid)
        theirs = 0.5 * (F.binary_cross_entropy_with_logits(wide, t, reduction="none") * weights).sum()
        ours = module(x, y if step < 3 else t, mask)
        agree(ours, theirs, x, wide)
    with pytest.raises(ValueError, match="reduction is 'sum'"):
        module(x, y, mask, reduction_override="sum")


@pytest.mark.parametrize("momentum", [0, 0.7])
def test_mmdet_ghm_r(momentum):
    module, exact = mmdet.GHMR(momentum=momentum, loss_weight=10.0), GhmOfMmdetection(10, momentum)
    for step in range(4):
        torch.manual_seed(step)
        x, target = (torch.randn(N, 4) * 0.05).requires_grad_(), torch.randn(N, 4) * 0.05
        mask = (torch.rand(N, 1) < 0.8).float().expand(N, 4)
        wide = doubled(x)
        difference = wide - target.double()
        root = (difference**2 + 0.02**2).sqrt()
        weights = exact.weights((difference / root).abs().detach(), mask > 0)
        agree(module(x, target, mask, avg_factor=7), 10 * ((root - 0.02) * weights).sum(), x, wide)


def test_apex():
    x, y = draw()
    labels = torch.where(y == C, -1, y)
    labels[:4] = -2
    padded = torch.cat([x, torch.full((N, 2), 100.0)], 1).detach().view(2, 3, 20, C + 2).requires_grad_()
    wide = padded.detach()[..., :C].double().requires_grad_()
    positives = torch.tensor([17.0])
    kept = (labels != -2).double()[:, None]
    theirs = (focal(wide.view(N, C), one_hot(y), 0.25, 2.0) * kept).sum() / 17
    ours = apex.focal_loss(padded, labels.view(2, 3, 20), positives, C, 0.25, 2.0)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(ours, padded)
    torch.testing.assert_close(gradient[..., :C].double(), torch.autograd.grad(theirs, wide)[0], rtol=1e-4, atol=1e-8)
    assert not gradient[..., C:].any()
    assert apex.FocalLoss.apply(padded, labels.view(2, 3, 20), positives, C, 0.25, 2.0) == ours


def test_drop_ins_compile_whole():
    x, y = draw()
    module = mmdet.GHMC(momentum=0.5)

    def everything(x, y):
        loss = mmdet.FocalLoss()(x, y, avg_factor=(y < C).sum()) + mmcv.softmax_focal_loss(x, y.clamp(max=C - 1))
        return loss + mmdet.CrossEntropyLoss(use_sigmoid=True)(x, y) + module(x, y, torch.ones(N))

    expected = everything(x, y)
    module.state.zero_()
    found = torch.compile(everything, fullgraph=True, backend="aot_eager")(x, y)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, x), torch.autograd.grad(expected, x))
