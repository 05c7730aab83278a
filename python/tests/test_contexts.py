# SPDX-License-Identifier: Apache-2.0
"""Which contexts tare.torch keeps for a GPU, and which of them check() asks, with a GPU and its graphs played."""

import threading
from types import SimpleNamespace

import pytest
import torch

import tare
import tare.torch
from tare import _c, _call

STREAM = 7


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that is played: `capture` is the number of the one its stream is in, `looked` what was checked."""
    played = SimpleNamespace(capture=0, looked=[], waited=[], found={})
    look = lambda context, stream: played.looked.append((context, stream)) or played.found.pop(context, 0)
    texts = SimpleNamespace(tare_context_synchronize=look, tare_error_text=lambda context: b"label of row 7")
    monkeypatch.setattr(_c, "_contexts", {})
    monkeypatch.setattr(_c, "create_context", lambda *arguments: object())
    monkeypatch.setattr(_c, "capture_of", lambda stream: played.capture)
    monkeypatch.setattr(_c, "library", texts)
    monkeypatch.setattr(_call, "raw_stream", lambda index: STREAM)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "synchronize", played.waited.append)
    return played


def context_in(gpu, capture, stream=STREAM):
    gpu.capture = capture
    made = _c.context(_c.CUDA, 0, stream)
    gpu.capture = 0
    return made


def test_each_graph_has_a_context_of_its_own(gpu):
    eager, first, second = (context_in(gpu, capture) for capture in (0, 1, 2))
    assert len({eager, first, second}) == 3
    assert (context_in(gpu, 0), context_in(gpu, 2)) == (eager, second)
    of_thread = []
    thread = threading.Thread(target=lambda: of_thread.append(context_in(gpu, 2)))
    thread.start()
    thread.join()
    assert of_thread[0] not in (eager, first, second)


def test_check_asks_this_stream_and_every_graph(gpu):
    eager, other = context_in(gpu, 0), context_in(gpu, 0, stream=8)
    tare.torch.check()
    assert gpu.looked == [(eager, STREAM)] and gpu.waited == []
    graphs = [context_in(gpu, 1, stream=9), context_in(gpu, 2, stream=9)]
    gpu.looked.clear()
    tare.torch.check()
    assert gpu.looked == [(one, STREAM) for one in [eager, *graphs]] and gpu.waited == [0]
    assert other not in [context for context, _ in gpu.looked]
    gpu.found[graphs[1]] = 2
    with pytest.raises(ValueError, match="label of row 7"):
        tare.torch.check()
    tare.torch.check()


def test_check_during_a_capture_waits_for_nothing(gpu):
    context_in(gpu, 1)
    gpu.capture = 3
    with pytest.raises(tare.Error, match="TARE_STATUS_CAPTURING"):
        tare.torch.check()
    assert gpu.looked == [] and gpu.waited == []


@pytest.mark.parametrize("failing", ["tare_evaluate", "tare_linear_evaluate", "tare_context_set_workspace"])
def test_a_call_that_raises_leaves_no_workspace_behind(failing, monkeypatch):
    lent, lend = [], _c.library.tare_context_set_workspace

    def watched(context, start, size):
        lent.append(start)
        return 5 if start and failing == "tare_context_set_workspace" else lend(context, start, size)

    monkeypatch.setattr(_c.library, "tare_context_set_workspace", watched)
    if failing != "tare_context_set_workspace":
        monkeypatch.setattr(_c.library, failing, lambda *arguments: 5)
    x, y = torch.randn(6, 3), torch.randint(0, 3, (6,))
    with pytest.raises(tare.Error, match="TARE_STATUS_OUT_OF_MEMORY"):
        if failing == "tare_linear_evaluate":
            tare.torch.sigmoid_focal(tare.torch.Head(x, torch.randn(4, 3)), y)
        else:
            tare.torch.ghm_c(x, y, density="exact")
    assert len(lent) == 2 and lent[0] and lent[1] is None
