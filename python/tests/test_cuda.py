# SPDX-License-Identifier: Apache-2.0
"""tare.torch on a GPU: the CPU's results, no waits, streams, graphs, and errors that check() finds."""

import pytest
import torch

import tare
import tare.torch


@pytest.fixture(autouse=True)
def gpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU: PyTorch sees none")
    if "no CUDA" in tare.build_description():
        pytest.skip("no GPU: this library was built without CUDA")
    torch.manual_seed(0)


def draw(rows=3000, classes=20, dtype=torch.float32):
    x = (torch.randn(rows, classes) * 3).to(dtype)
    return x, torch.randint(0, classes, (rows,))


def both(name, x, y, **options):
    """Loss and gradient on the CPU and on the GPU."""
    answers = []
    for device in ("cpu", "cuda"):
        logits = x.to(device).requires_grad_()
        given = {key: one.to(device) if isinstance(one, torch.Tensor) else one for key, one in options.items()}
        loss = tare.torch.loss(name, logits, y.to(device), **given)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        answers.append((loss.detach().cpu(), gradient.cpu()))
    return answers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_loss_is_the_cpus(dtype):
    x, y = draw(dtype=dtype)
    for name in tare.losses():
        for reduction in ("sum", "rows", "none"):
            options = {"targets": torch.randn_like(x)} if name == "ghm-r" else {}
            (loss, gradient), (theirs, other) = both(name, x, y, reduction=reduction, **options)
            relative = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2}.get(dtype, 1e-5)
            torch.testing.assert_close(theirs, loss, rtol=1e-5, atol=1e-7)
            torch.testing.assert_close(other, gradient, rtol=relative, atol=1e-7)


def test_nothing_waits_and_maps_go_in_one_call():
    maps = [torch.randn(2, 3 * 20, side, side, device="cuda", requires_grad=True) for side in (32, 16)]
    labels = torch.randint(-1, 20, (2, 3 * (1024 + 256)), device="cuda")
    module = tare.torch.GHMC(momentum=0.5).cuda()
    module(maps, labels, classes=20).backward()  # makes this stream's contexts
    torch.cuda.set_sync_debug_mode("error")
    try:
        positives = (labels >= 0).sum().clamp(min=1)
        loss = tare.torch.sigmoid_focal(maps, labels, classes=20, normalizer=positives)
        (loss + module(maps, labels, classes=20)).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.isfinite() and maps[0].grad.isfinite().all()


def test_streams():
    x, y = (one.cuda() for one in draw(rows=200000))
    expected = tare.torch.sigmoid_focal(x, y)
    streams, losses = [torch.cuda.Stream() for _ in range(3)], []
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            losses += [tare.torch.sigmoid_focal(x, y) for _ in range(4)]
    torch.cuda.synchronize()
    assert all(torch.equal(loss, expected) for loss in losses)


def test_a_graph_with_backward():
    x, y = (one.cuda() for one in draw())
    x.requires_grad_()
    warm = torch.cuda.Stream()
    warm.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm):
        tare.torch.sigmoid_focal(x, y, normalizer="positives").backward()
    torch.cuda.current_stream().wait_stream(warm)
    x.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = tare.torch.sigmoid_focal(x, y, normalizer="positives")
        loss.backward()
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
    graph.replay()
    fresh = x.detach().clone().requires_grad_()
    expected = tare.torch.sigmoid_focal(fresh, y, normalizer="positives")
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(x.grad, fresh.grad)


def capture(x, y, **options):
    """A graph of a call that nothing like was made before, and its loss."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = tare.torch.sigmoid_focal(x, y, normalizer="positives", **options)
    return graph, loss


def test_graphs_replayed_at_once():
    """PyTorch captures every graph on the same stream; replays on two streams must not share a context."""
    inputs = [[one.cuda() for one in draw(rows=100000)] for _ in range(2)]
    graphs = [capture(*one) for one in inputs]
    streams = [torch.cuda.Stream() for _ in graphs]
    torch.cuda.synchronize()
    for _ in range(20):
        for (graph, _), stream in zip(graphs, streams):
            with torch.cuda.stream(stream):
                graph.replay()
    torch.cuda.synchronize()
    for (_, loss), one in zip(graphs, inputs):
        assert torch.equal(loss, tare.torch.sigmoid_focal(*one, normalizer="positives"))


def test_a_graph_of_the_fused_head():
    features, weight = (torch.randn(n, 64, device="cuda", dtype=torch.bfloat16) for n in (1000, 20))
    labels = torch.randint(-1, 20, (1000,), device="cuda")
    head = tare.torch.Head(features, weight)
    expected = tare.torch.sigmoid_focal(head, labels)  # starts cuBLAS
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = tare.torch.sigmoid_focal(head, labels)
    graph.replay()
    assert torch.equal(loss, expected)


def test_check_finds_a_label_that_is_none():
    x, y = (one.cuda() for one in draw())
    tare.torch.check()
    y[5] = 20
    assert tare.torch.sigmoid_focal(x, y).isfinite()
    with pytest.raises(ValueError, match="label of row 5 is neither a class"):
        tare.torch.check()
    tare.torch.check()


def test_check_finds_what_a_graph_found():
    x, y = (one.cuda() for one in draw())
    graph, _ = capture(x, y)
    y[7] = 99
    other = torch.cuda.Stream()
    other.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(other):
        graph.replay()
    with pytest.raises(ValueError, match="label of row 7 is neither a class"):
        tare.torch.check()
    tare.torch.check()


def test_check_during_a_capture_leaves_it_alone():
    x, y = (one.cuda() for one in draw())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        with pytest.raises(tare.Error, match="TARE_STATUS_CAPTURING"):
            tare.torch.check()
        loss = tare.torch.sigmoid_focal(x, y)
    graph.replay()
    assert torch.equal(loss, tare.torch.sigmoid_focal(x, y))


def test_amp():
    x, y = (one.cuda() for one in draw(dtype=torch.float16))
    weight = torch.ones(20, device="cuda", requires_grad=True)
    optimizer, scaler = torch.optim.SGD([weight], 0.1), torch.amp.GradScaler("cuda")
    with torch.autocast("cuda", dtype=torch.float16):
        loss = tare.torch.sigmoid_focal(x * weight.half(), y, normalizer=1e6)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    assert loss.dtype == torch.float32 and (weight != 1).all()


def test_compiled():
    x, y = (one.cuda() for one in draw())
    x.requires_grad_()
    compiled = torch.compile(lambda x, y: tare.torch.ghm_c(x, y) * 2, fullgraph=True)
    assert torch.equal(torch.autograd.grad(compiled(x, y), x)[0], torch.autograd.grad(tare.torch.ghm_c(x, y) * 2, x)[0])


def test_the_exact_density():
    x, y = draw(rows=500)
    (loss, gradient), (theirs, other) = both("ghm-c", x, y, density="exact")
    torch.testing.assert_close(theirs, loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(other, gradient, rtol=1e-5, atol=1e-9)


def test_devices_must_agree():
    x, y = draw()
    with pytest.raises(ValueError, match="all must be on one device"):
        tare.torch.sigmoid_focal(x.cuda(), y)
    with pytest.raises(ValueError, match="F64|f64|dtype"):
        tare.torch.sigmoid_focal(x.double().cuda(), y.cuda())
