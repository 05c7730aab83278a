# SPDX-License-Identifier: Apache-2.0
"""CPU calls on PyTorch's threads: which they are, that results do not depend on them, and forks."""

import ctypes
import os
import signal

import pytest
import torch
from support import draw

import tare.torch
from tare import _c, _threads

OPENMP = "parallel backend: OpenMP" in torch.__config__.parallel_info()


def address(function):
    return ctypes.cast(function, ctypes.c_void_p).value


@pytest.fixture
def chosen(monkeypatch):
    """What the library is told from now on; in the end PyTorch's threads again."""
    told = []
    use = _c.library.tare_use_threads

    def record(parallel):
        told.append(parallel.value if parallel else None)
        use(parallel)

    monkeypatch.setattr(_c.library, "tare_use_threads", record)
    yield told
    monkeypatch.delenv("TARE_THREADS", raising=False)
    _threads.choose()


@pytest.mark.skipif(not OPENMP, reason="this PyTorch computes without OpenMP")
def test_threads_are_those_of_pytorch(chosen):
    _threads.choose()
    assert chosen == [address(_threads.openmp_of_torch())]
    assert chosen[0]


def test_the_environment_keeps_the_pool(chosen, monkeypatch):
    monkeypatch.setenv("TARE_THREADS", "pool")
    _threads.choose()
    assert chosen == [None]


def test_an_unknown_choice_of_threads_is_refused(chosen, monkeypatch):
    monkeypatch.setenv("TARE_THREADS", "Pool")
    with pytest.raises(ValueError, match='TARE_THREADS is "Pool"; it must be "pool"'):
        _threads.choose()
    assert chosen == []


@pytest.mark.parametrize("text", ["ATen parallel backend: native thread pool", ""])
def test_without_openmp_the_pool_is_used(chosen, monkeypatch, text):
    monkeypatch.setattr(torch.__config__, "parallel_info", lambda: text)
    _threads.choose()
    assert chosen == [None]


def test_results_do_not_depend_on_whose_threads(chosen, monkeypatch):
    x, y = draw(rows=9000)
    results = []
    for pool in ("", "pool", ""):
        monkeypatch.setenv("TARE_THREADS", pool)
        _threads.choose()
        for _ in range(3):
            (x + 1).sum()
            loss = tare.torch.sigmoid_focal(x, y)
            results.append((loss.detach(), *torch.autograd.grad(loss, x)))
    for loss, gradient in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(gradient, results[0][1])


def test_a_forked_child_does_not_wait_for_threads_of_pytorch():
    x, y = draw(rows=9000)
    torch.mm(torch.ones(300, 300), torch.ones(300, 300))  # PyTorch's threads exist from here on
    expected = tare.torch.sigmoid_focal(x.detach(), y)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if torch.equal(tare.torch.sigmoid_focal(x.detach(), y), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
