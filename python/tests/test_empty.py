# SPDX-License-Identifier: Apache-2.0
"""A batch without rows, or without one that counts: losses of 0, gradients of 0, and no step of GHM's momentum."""

import numpy as np
import pytest
import torch

import tare
import tare.torch
from tare.compat import mmdet

NAMES = ["sigmoid-ce", "sigmoid-focal", "softmax-ce", "softmax-focal", "softmax-logit-adjusted", "ghm-c"]


def zeros(gradients, sources):
    for gradient, source in zip(gradients, sources):
        assert gradient.shape == source.shape and gradient.dtype == source.dtype
        assert not gradient.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_a_fused_head_without_rows(name, dtype):
    head = [torch.ones(shape, dtype=dtype, requires_grad=True) for shape in ((0, 7), (5, 7), (5,))]
    try:
        loss = tare.torch.loss(name, tare.torch.Head(*head), torch.zeros(0, dtype=torch.int64))
    except tare.Error as error:
        if error.name == "TARE_STATUS_NO_BLAS":
            pytest.skip(error.text)
        raise
    assert loss == 0
    zeros(torch.autograd.grad(loss, head, torch.tensor(3.0), retain_graph=True), head)
    zeros(torch.autograd.grad(loss, head), head)  # evaluates anew
    with torch.no_grad():
        assert tare.torch.loss(name, tare.torch.Head(*head, workspace=0), torch.zeros(0, dtype=torch.int64)) == 0


def test_ghm_r_of_a_fused_head_without_rows():
    head = [torch.ones(shape, requires_grad=True) for shape in ((0, 7), (4, 7), (4,))]
    loss = tare.torch.ghm_r(tare.torch.Head(*head), torch.zeros(0, 4))
    assert loss == 0
    zeros(torch.autograd.grad(loss, head), head)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("rows", [(0,), (2, 0), (0, 3, 4)])
def test_the_exact_density_without_rows(rows, dtype):
    x = torch.zeros(*rows, 5, dtype=dtype, requires_grad=True)
    for reduction in ("sum", "rows", "none"):
        loss = tare.torch.ghm_c(x, torch.zeros(rows, dtype=torch.int32), density="exact", reduction=reduction)
        assert not loss.any()
        zeros(torch.autograd.grad(loss, [x], torch.ones_like(loss)), [x])
    loss = tare.torch.ghm_r(x, torch.zeros(*rows, 5, dtype=dtype), density="exact")
    assert loss == 0
    zeros(torch.autograd.grad(loss, [x]), [x])


@pytest.mark.parametrize("density", ["unit-region", "exact"])
def test_arrays_of_no_rows(density):
    result = tare.evaluate("ghm-c", np.zeros((0, 5)), np.zeros(0, np.int64), density=density, row_loss=True)
    assert result.loss == 0 and result.gradient.shape == (0, 5) and result.row_loss.shape == (0,)
    state = tare.ghm_state(30)
    tare.evaluate("ghm-c", np.zeros((0, 5)), np.zeros(0, np.int64), state=state, momentum=0.75)
    assert not state.any()


def paper_c(rows):
    return [torch.randn(rows, 5, requires_grad=True), torch.full((rows,), -2)]


def mmdet_c(rows):
    return [torch.randn(rows, 5, requires_grad=True), torch.zeros(rows, dtype=torch.int64), torch.zeros(rows)]


def paper_r(rows):
    return [torch.randn(rows, 4, requires_grad=True), torch.zeros(rows, 4), torch.full((rows,), -1)]


def mmdet_r(rows):
    return [torch.randn(rows, 4, requires_grad=True), torch.zeros(rows, 4), torch.zeros(rows, 4)]


MODULES = [(tare.torch.GHMC, paper_c), (tare.torch.GHMR, paper_r), (mmdet.GHMC, mmdet_c), (mmdet.GHMR, mmdet_r)]


@pytest.mark.parametrize("rows", [0, 60])  # of which none counts
@pytest.mark.parametrize("make, draw", MODULES)
def test_nothing_is_no_step_of_a_module(make, draw, rows):
    torch.manual_seed(0)
    module, other = make(bins=12, momentum=0.75), make(bins=12, momentum=0.75)
    batch = draw(90)
    for place, value in ((1, 0) if len(batch[1].shape) == 1 else (2, 0), (-1, 1)):
        batch[place] = torch.full_like(batch[place], value)  # labels of a class, or weights, of what counts
    for _ in range(2):
        nothing = draw(rows)
        before = module.state.clone()
        loss = module(*nothing)
        assert loss == 0
        loss.backward()
        assert not nothing[0].grad.any()
        assert not module.state[1:14].any()
        module.state[1:14] = before[1:14]
        assert torch.equal(module.state, before)
        assert torch.equal(module(*batch), other(*batch))
        assert torch.equal(module.state, other.state)
