# SPDX-License-Identifier: Apache-2.0
"""Trains a client's model twice, with its own losses and with Tare's in their place, and compares the two."""

from __future__ import annotations

import contextlib
import importlib
import random
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy
import torch

import tare

LOSS_BOUND, GRADIENT_BOUND, LATER_BOUND = 1e-6, 1e-5, 1e-3
RATE, ROUNDS, REPEATS = 1e-3, 15, 5


class Client(NamedTuple):
    """A model and what trains it. part: "module:Class.method" of the code that is timed, the loss part."""

    build: Callable[[], torch.nn.Module]
    loss: Callable[[torch.nn.Module, torch.dtype], torch.Tensor]
    part: str


class Training(NamedTuple):
    losses: list[float]
    gradient: torch.Tensor
    calls: list[tuple[tuple, dict]]


# ---- one training ---------------------------------------------------------------------------------------------------


def seed(number: int) -> None:
    torch.manual_seed(number)
    numpy.random.seed(number)
    random.seed(number)


def train(client: Client, dtype: torch.dtype, steps: int) -> Training:
    """Losses of all steps, the gradient of the first, and the calls of the loss part in it."""
    seed(0)
    model = client.build().to(dtype).train()
    parameters = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=RATE, momentum=0.9)
    losses: list[float] = []
    gradient, calls = torch.zeros(0), []
    for step in range(steps):
        seed(step + 1)
        optimizer.zero_grad()
        with recorded(client.part, calls) if step == 0 else contextlib.nullcontext():
            loss = client.loss(model, dtype)
        loss.backward()
        losses.append(float(loss))
        if step == 0:
            flat = [one.grad.reshape(-1).double() for one in parameters if one.grad is not None]
            gradient = torch.cat(flat)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return Training(losses, gradient, calls)


# ---- the loss part alone --------------------------------------------------------------------------------------------


def owner_of(part: str) -> tuple[Any, str]:
    module, path = part.split(":")
    owner = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    return owner, name


def mapped(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same structure with another tensor for each."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict) and type(value) is dict:
        return {key: mapped(one, function) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(mapped(one, function) for one in value)
    return value


@contextlib.contextmanager
def recorded(part: str, calls: list) -> Iterator[None]:
    """Adds the arguments of each call of a function to `calls`, detached."""
    owner, name = owner_of(part)
    original = owner.__dict__[name]

    def detached(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().clone().requires_grad_(tensor.requires_grad)

    def function(*arguments: Any, **keywords: Any) -> Any:
        calls.append(mapped((arguments, keywords), detached))
        return original(*arguments, **keywords)

    setattr(owner, name, function)
    try:
        yield
    finally:
        setattr(owner, name, original)


def total(result: Any) -> torch.Tensor:
    found: list[torch.Tensor] = []
    mapped(result, lambda one: found.append(one) or one)
    return sum(one.sum() for one in found if one.requires_grad)


def milliseconds(part: str, calls: list) -> float:
    """CPU time of forward and backward of recorded calls, the mean after a first one, which finds all caches cold."""
    owner, name = owner_of(part)
    function = getattr(owner, name)
    taken = []
    for _ in range(1 + REPEATS):
        fresh = mapped(calls, lambda one: one.detach().requires_grad_(one.requires_grad))
        started = time.process_time()
        for arguments, keywords in fresh:
            total(function(*arguments, **keywords)).backward()
        taken.append(time.process_time() - started)
    return statistics.mean(taken[1:]) * 1e3


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch's threads spin after an operation, and their time would be counted for what comes next."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# ---- both -----------------------------------------------------------------------------------------------------------


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def relative(a: float, b: float) -> float:
    return abs(a - b) / max(abs(b), 1e-30)


class Result(NamedTuple):
    first: float
    gradient: float
    later: float
    theirs: float
    ours: float
    replaced: int

    def holds(self) -> bool:
        return self.first <= LOSS_BOUND and self.gradient <= GRADIENT_BOUND and self.later <= LATER_BOUND


def compare(client: Client, library: str, dtype: torch.dtype = torch.float32, steps: int = 5) -> Result:
    original = train(client, dtype, steps)
    with tare.patch(library) as patched:
        replaced = train(client, dtype, steps)
        count = len(patched.replaced)
    theirs, ours = [], []
    with one_thread():
        for _ in range(ROUNDS):
            theirs.append(milliseconds(client.part, original.calls))
            with tare.patch(library):
                ours.append(milliseconds(client.part, replaced.calls))
    differences = [relative(a, b) for a, b in zip(replaced.losses, original.losses)]
    return Result(
        differences[0],
        distance(replaced.gradient, original.gradient),
        max(differences[1:], default=0.0),
        statistics.median(theirs),
        statistics.median(ours),
        count,
    )
