# SPDX-License-Identifier: Apache-2.0
"""tare.torch under torch.compile without a graph break, and its operators under PyTorch's own checks."""

import os
import sysconfig

import pytest
import torch
from torch.library import opcheck

import tare.torch
from tare import _call, _spec


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    torch.manual_seed(0)


def head(maps, labels, weight):
    positives = (labels >= 0).sum().clamp(min=1)
    focal = tare.torch.sigmoid_focal(maps, labels, classes=4, normalizer=positives)
    rows = tare.torch.sigmoid_ce(maps, labels, classes=4, reduction="rows")
    return 2 * focal + sum(row.mean() for row in rows) * weight


def inputs(sides=(6, 3)):
    maps = [torch.randn(2, 3 * 4, side, side, requires_grad=True) for side in sides]
    return maps, torch.randint(-1, 4, (2, 3 * sum(side * side for side in sides)))


@pytest.mark.parametrize("backend, dynamic", [("aot_eager", None), ("aot_eager", True), ("inductor", None)])
def test_a_head_compiles_whole(backend, dynamic):
    if backend == "inductor" and not os.path.exists(sysconfig.get_path("include") + "/Python.h"):
        pytest.skip("no Python.h, which inductor compiles against (apt-get install python3-dev)")
    compiled = torch.compile(head, fullgraph=True, backend=backend, dynamic=dynamic)
    for sides in ((6, 3), (8, 4))[: 1 if backend == "inductor" else 2]:  # which takes its time for each
        maps, labels = inputs(sides)
        expected, found = head(maps, labels, 0.5), compiled(maps, labels, 0.5)
        torch.testing.assert_close(found, expected)
        for one, other in zip(torch.autograd.grad(found, maps), torch.autograd.grad(expected, maps)):
            torch.testing.assert_close(one, other)


def test_ghm_with_its_state_compiles_whole():
    eager, module = tare.torch.GHMC(momentum=0.5), tare.torch.GHMC(momentum=0.5)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        x, y = torch.randn(50, 5, requires_grad=True), torch.randint(-1, 5, (50,))
        expected, found = eager(x, y), compiled(x, y)
        assert torch.equal(found, expected) and torch.equal(module.state, eager.state)
        assert torch.equal(torch.autograd.grad(found, x)[0], torch.autograd.grad(expected, x)[0])
    plain = torch.compile(lambda x, y: tare.torch.ghm_c(x, y), fullgraph=True, backend="aot_eager")
    assert torch.equal(plain(x, y), tare.torch.ghm_c(x, y))


@pytest.mark.parametrize("dtype, passes", [(torch.float32, 1), (torch.bfloat16, 1), (torch.float16, 3)])
@pytest.mark.parametrize("name", ["softmax-ce", "ghm-c"])
def test_a_graph_keeps_the_gradient_of_its_only_pass(name, dtype, passes, monkeypatch):
    calls, run = [], _call.run
    monkeypatch.setattr(_call, "run", lambda *given, **wanted: calls.append(wanted) or run(*given, **wanted))
    x, y = torch.randn(50, 5, dtype=dtype, requires_grad=True), torch.randint(0, 5, (50,))
    loss = lambda x, y: tare.torch.loss(name, x, y)
    expected = torch.autograd.grad(loss(x, y) * 3, x)[0]
    calls.clear()
    found = torch.compile(loss, fullgraph=True, backend="aot_eager")(x, y) * 3
    first = torch.autograd.grad(found, x, retain_graph=True)[0]
    assert torch.equal(first, expected)
    first.zero_()
    assert torch.equal(torch.autograd.grad(found, x)[0], expected) and len(calls) == passes


@pytest.mark.parametrize("kind", [int, float])
def test_a_number_that_changes_is_no_new_graph(kind):
    if kind is float and tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        pytest.skip("PyTorch before 2.6 makes a graph of every float, whoever it is for")
    x, y = torch.randn(50, 5, requires_grad=True), torch.randint(-1, 5, (50,))
    graphs = []
    compiled = torch.compile(
        lambda n: tare.torch.sigmoid_focal(x, y, normalizer=n),
        fullgraph=True,
        backend=lambda graph, _: graphs.append(graph) or graph,
    )
    for n in range(2, 12):
        torch.testing.assert_close(compiled(kind(n)), tare.torch.sigmoid_focal(x, y, normalizer=n))
    assert len(graphs) <= 2


def test_opcheck():
    settings = {"first_label": 0, "background_label": -1, "ignore_label": -2, "background_weight": 1.0}
    x, y = torch.randn(50, 5), torch.randint(0, 5, (50,))
    maps = [torch.randn(2, 10, 4, 4), torch.randn(2, 10, 2, 2)]
    labels = [torch.randint(0, 5, (2, 4, 4, 2)), torch.randint(0, 5, (2, 2, 2, 2))]
    for logits, inputs, classes in (([x], [y], 0), (maps, labels, 5)):
        for reduction in ("sum", "rows", "none"):
            chosen = {"loss": "sigmoid-focal", "reduction": reduction, "normalizer": "sum", "classes": classes}
            spec = _spec.write_spec({**chosen, **settings}, ["labels"], [])
            losses = torch.ops.tare.loss(logits, inputs, spec, 1.0)
            opcheck(torch.ops.tare.loss.default, (logits, inputs, spec, 1.0))
            if reduction == "sum":
                opcheck(torch.ops.tare.loss.default, (logits, inputs, spec + " keep-gradient=1", 1.0))
            opcheck(torch.ops.tare.gradient.default, (logits, inputs, losses, spec, 1.0))
    chosen = {"loss": "ghm-c", "reduction": "sum", "normalizer": "sum", "classes": 0, "momentum": 0.5, **settings}
    spec = _spec.write_spec(chosen, ["labels"], ["state"])
    opcheck(torch.ops.tare.loss.default, ([x], [y, tare.torch.ghm_state(30)], spec, 1.0))
    opcheck(torch.ops.tare.loss.default, ([x], [y, tare.torch.ghm_state(30)], spec + " keep-gradient=1", 1.0))
    loss, state = torch.ops.tare.loss([x], [y, tare.torch.ghm_state(30)], spec, 1.0)
    opcheck(torch.ops.tare.gradient.default, ([x], [y, state], [loss], spec + " use_stored_density=1", 1.0))
