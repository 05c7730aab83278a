# SPDX-License-Identifier: Apache-2.0
"""tare.torch with PyTorch's own tools: graphs that train (export, jit.trace, make_fx, aot_function), fake tensors,
checkpoints, autocast, deterministic mode, profiles."""

import io
import warnings

import pytest
import torch
from functorch.compile import aot_function, nop
from support import NAMES, REDUCTIONS, blas, few, make
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import opcheck
from torch.utils.checkpoint import checkpoint

import tare.torch
from tare import _call, _spec
from tare.compat import mmcv, mmdet

LABELS = {"first_label": 0, "background_label": -1, "ignore_label": -2, "background_weight": 1.0, "classes": 0}


class Model(torch.nn.Module):
    """A layer and its loss. kind: what of GHM is in it."""

    def __init__(self, kind="focal"):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.kind = torch.nn.Linear(6, 5), kind

    def forward(self, x, y):
        logits = self.layer(x)
        if self.kind == "ghm":
            return tare.torch.ghm_c(logits, y)
        loss = tare.torch.sigmoid_focal(logits, y, normalizer="positives")
        return loss + tare.torch.softmax_ce(logits, y.clamp(min=0), reduction="rows").mean()


def batch():
    torch.manual_seed(1)
    return torch.randn(20, 6), torch.randint(-1, 5, (20,))


def export(model, given):
    """A program without Dynamo, which is not the default of older versions."""
    return torch.export.export(model, given, strict=False)


def saved_and_loaded(model, given):
    file = io.BytesIO()
    torch.export.save(export(model, given), file)
    file.seek(0)
    return torch.export.load(file).module()


def frozen(model, given):
    program = export(model.requires_grad_(False), given).module()
    model.requires_grad_(True)
    return program.requires_grad_(True)


def exported_for_inference(model, given):
    with torch.no_grad():
        return export(model, given).module()


GRAPHS = {
    "export": lambda model, given: export(model, given).module(),
    "export, strict": lambda model, given: torch.export.export(model, given, strict=True).module(),
    "export, decomposed": lambda model, given: export(model, given).run_decompositions().module(),
    "export, saved": saved_and_loaded,
    "export, frozen": frozen,
    "export, no_grad": exported_for_inference,
    "jit.trace": lambda model, given: torch.jit.trace(model, given, check_trace=False),
}


@pytest.mark.parametrize(
    "graph, kind", [*[(graph, "focal") for graph in GRAPHS], ("export, strict", "ghm"), ("jit.trace", "ghm")]
)
def test_a_graph_trains_as_its_model(graph, kind):
    torch._dynamo.reset()
    model, given = Model(kind), batch()
    expected = model(*given)
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        program = GRAPHS[graph](model, given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as that of an operator without autograd
        for _ in range(2):
            program.zero_grad()
            loss = program(*given)
            loss.backward()
            torch.testing.assert_close(loss, expected)
            for one, other in zip(program.parameters(), gradients, strict=True):
                torch.testing.assert_close(one.grad, other)


def test_an_exported_program_takes_one_pass(monkeypatch):
    calls, run = [], _call.run
    monkeypatch.setattr(_call, "run", lambda *given, **wanted: calls.append(wanted) or run(*given, **wanted))
    x, loss = make("sigmoid-focal", dtype=torch.float32)

    class Loss(torch.nn.Module):
        def forward(self, x):
            return loss(x)

    program = torch.export.export(Loss(), (x,), strict=False).module()
    calls.clear()
    program(x)
    assert [bool("gradient" in call) for call in calls] == [False]  # nobody wants a gradient
    program(x.requires_grad_()).backward()
    assert [bool("gradient" in call) for call in calls[1:]] == [True]


@pytest.mark.parametrize("pre_dispatch", [False, True])
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx_of_a_training_step(mode, pre_dispatch):
    def step(x, y):
        loss = tare.torch.sigmoid_focal(x, y, normalizer="positives") * 3
        return torch.autograd.grad(loss, x)[0]

    x, y = few(dtype=torch.float32)
    x.requires_grad_()
    graph = make_fx(step, tracing_mode=mode, pre_dispatch=pre_dispatch)(x, y)
    assert "tare.loss" in graph.code
    torch.testing.assert_close(graph(x, y), step(x, y))
    other, labels = few(rows=20, seed=3, dtype=torch.float32)
    torch.testing.assert_close(graph(other, labels), step(other.requires_grad_(), labels))


@pytest.mark.parametrize("name", ["sigmoid-focal", "softmax-ce", "ghm-c"])
def test_aot_function(name):
    x, y = few(dtype=torch.float32)
    x.requires_grad_()
    loss = lambda x, y: tare.torch.loss(name, x, y)
    found = aot_function(loss, nop)(x, y)
    torch.testing.assert_close(found, loss(x, y))
    torch.testing.assert_close(torch.autograd.grad(found * 2, x)[0], torch.autograd.grad(loss(x, y) * 2, x)[0])


@pytest.mark.parametrize("name", ["sigmoid-focal", "softmax-ce", "ghm-c"])
def test_opcheck_and_gradcheck_of_the_operator(name):
    x, y = few(rows=6, classes=4)
    x.requires_grad_()
    for reduction in REDUCTIONS:
        chosen = {"loss": name, "reduction": reduction, "normalizer": "sum", **LABELS}
        states = [tare.torch.ghm_state(30)] if name == "ghm-c" else []
        spec = _spec.write_spec(chosen, ["labels"], ["state"] * len(states))
        opcheck(torch.ops.tare.loss.default, ([x], [y, *states], spec, 1.0))
        if name != "ghm-c":  # whose weights are constants of the gradient
            assert torch.autograd.gradcheck(lambda x: torch.ops.tare.loss([x], [y], spec, 1.0)[0], (x,))


# ---- what changes how a step runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("kind", ["focal", "ghm"])
def test_checkpoints(kind, use_reentrant):
    model, (x, y) = Model(kind), batch()
    x.requires_grad_()
    wanted = [x, *model.parameters()]
    model(x, y).backward()
    expected = [one.grad.clone() for one in wanted]
    for one in wanted:
        one.grad = None
    checkpoint(model, x, y, use_reentrant=use_reentrant).backward()
    for one, other in zip(wanted, expected):
        assert torch.equal(one.grad, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_casts_no_logits(dtype):
    model, (x, y) = Model(), batch()
    with torch.autocast("cpu", dtype=dtype):
        logits = model.layer(x)
        logits.retain_grad()
        loss = tare.torch.sigmoid_focal(logits, y)
    assert logits.dtype == dtype and loss.dtype == torch.float32
    loss.backward()
    assert logits.grad.dtype == dtype and model.layer.weight.grad.dtype == torch.float32
    alone = logits.detach().requires_grad_()
    tare.torch.sigmoid_focal(alone, y).backward()
    assert torch.equal(alone.grad, logits.grad)


def test_deterministic_mode_changes_nothing():
    x, loss = make("sigmoid-focal", dtype=torch.float32)
    x.requires_grad_()
    expected = loss(x), torch.autograd.grad(loss(x), x)[0]
    torch.use_deterministic_algorithms(True)
    try:
        found = loss(x), torch.autograd.grad(loss(x), x)[0]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(one, other) for one, other in zip(found, expected))


def test_a_profile_names_the_loss():
    x, loss = make("sigmoid-focal", dtype=torch.float16)  # two passes
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        loss(x.requires_grad_()).backward()
    names = {event.key for event in profile.key_averages()}
    assert {"TareLoss", "TareLossBackward", "tare::loss", "tare::gradient"} <= names
    assert {"tare::sigmoid_focal", "tare::sigmoid_focal_backward"} <= names


# ---- graphs and tensors without values ------------------------------------------------------------------------------

TRACED = {
    "positives": lambda x, y: tare.torch.sigmoid_focal(x, y, normalizer="positives"),
    "number": lambda x, y: tare.torch.sigmoid_focal(x, y, normalizer=float(len(x))),
    "tensor": lambda x, y: tare.torch.sigmoid_ce(x, y, normalizer=(y >= 0).sum()),
    "rows": lambda x, y: tare.torch.softmax_ce(x, y, reduction="rows"),
    "none": lambda x, y: tare.torch.sigmoid_ce(x, y, reduction="none"),
    "levels": lambda x, y: tare.torch.sigmoid_focal([x[:3], x[3:]], y),
    "ghm": lambda x, y: tare.torch.ghm_c(x, y),
    "mmdet": lambda x, y: mmdet.CrossEntropyLoss()(x, y),
    "focal": lambda x, y: mmdet.FocalLoss()(x, y),
    "mmcv": lambda x, y: mmcv.sigmoid_focal_loss(x, y),
    "head": lambda x, y: tare.torch.sigmoid_focal(tare.torch.Head(x, torch.ones(4, x.shape[1])), y),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("name", TRACED)
def test_a_traced_graph_is_right_for_another_shape_or_raises(name, asks):
    loss = TRACED[name]
    if name == "head":
        blas()
        with pytest.raises(RuntimeError, match="bool"):
            torch.jit.trace(loss, few(dtype=torch.float32))
        return
    given = lambda *shape: (lambda x, y: (x.requires_grad_(asks), y))(*few(*shape, dtype=torch.float32))
    traced = torch.jit.trace(loss, given(6, 4), check_trace=False)
    for shape in ((6, 4), (9, 4), (6, 7)):
        x, y = given(*shape)
        try:
            found = traced(x, y)
        except RuntimeError as error:
            assert shape != (6, 4) and "trace it again" in str(error)
            continue
        expected = loss(x, y)
        assert torch.equal(found, expected)
        if asks:
            for one, other in zip(torch.autograd.grad(found.sum(), x), torch.autograd.grad(expected.sum(), x)):
                assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_a_training_step_of_fake_tensors(name, dtype):
    with FakeTensorMode():
        for reduction in REDUCTIONS:
            x, loss = make(name, reduction, dtype)
            x.requires_grad_()
            found = loss(x)
            (found.sum() * 3).backward()
            assert x.grad.shape == x.shape and x.grad.dtype == dtype
            rows = name.startswith("softmax") and reduction != "sum"
            assert found.shape == {"sum": (), "rows": (20,), "none": (20,) if rows else (20, 5)}[reduction]


def test_a_training_step_of_a_fake_model():
    with FakeTensorMode():
        body, head = torch.nn.Linear(6, 6), torch.nn.Linear(6, 5)
        ghm = tare.torch.GHMC(momentum=0.5)
        optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], 0.1)
        features, y = body(torch.randn(20, 6)), torch.randint(0, 5, (20,))
        loss = tare.torch.sigmoid_focal(tare.torch.Head(features, head.weight, head.bias), y, normalizer="positives")
        weights = torch.rand(20, dtype=torch.float64)
        loss = loss + ghm(head(features), y) + tare.torch.softmax_ce(head(features), y, row_weights=weights)
        loss = loss + mmdet.CrossEntropyLoss(class_weight=[1.0] * 5)(head(features), y, avg_factor=y.sum())
        loss.backward()
        optimizer.step()
        assert body.weight.grad.shape == (6, 6) and head.bias.grad.shape == (5,)
    meta = torch.randn(20, 5, device="meta", requires_grad=True)
    tare.torch.sigmoid_focal(meta, torch.zeros(20, dtype=torch.int64, device="meta")).backward()
    assert meta.grad.shape == (20, 5)
