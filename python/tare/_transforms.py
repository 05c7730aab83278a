# SPDX-License-Identifier: Apache-2.0
"""The operators under torch.func: grad, vjp, vmap, jacrev.

Autograd functions as torch.func wants them: they keep nothing outside their results. A batch of calls is one call after
the other, because a call has one divisor. Forward mode and second derivatives raise, as everywhere.
"""

from __future__ import annotations

import functools

import torch

from . import _autograd, _spec


def _at(index, given, dims):
    """One element of a batch: of a tensor, or of each of a list."""
    if isinstance(given, (list, tuple)):
        return given if dims is None else [_at(index, one, dim) for one, dim in zip(given, dims)]
    return given if dims is None else given.select(dims, index)


def _each(function, info, in_dims, *arguments):
    """The results of `function` for each element of a batch, stacked; and their batch axes, all 0."""
    if not info.batch_size:
        raise ValueError("vmap over 0 elements; Tare's losses need one at least")
    results = [function(*_at(index, arguments, in_dims)) for index in range(info.batch_size)]
    stacked = tuple(torch.stack(one) for one in zip(*results))
    return stacked, (0,) * len(stacked)


class Loss(torch.autograd.Function):
    """tare::loss. apply(spec, value, number of levels, whether the last tensor is a state, whether classes are summed,
    *logits, *other tensors)."""

    @staticmethod
    def forward(spec, value, count, has_state, has_sums, *tensors):
        return tuple(torch.ops.tare.loss(list(tensors[:count]), list(tensors[count:]), spec, value))

    @staticmethod
    def setup_context(ctx, inputs, output):
        spec, ctx.value, ctx.count, has_state, has_sums, *tensors = inputs
        constants = int(has_state) + int(has_sums)
        if constants:
            ctx.mark_non_differentiable(*output[-constants:])
        if has_state:  # see TareLoss in _ops
            spec, tensors[-1] = _spec.with_setting(spec, _spec.STORED_DENSITY, 1), output[-1]
        ctx.spec, ctx.losses = spec, len(output) - constants
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx, *upstream):
        tensors = ctx.saved_tensors
        gradients = Gradient.apply(ctx.spec, ctx.value, ctx.count, ctx.losses, *tensors, *upstream[: ctx.losses])
        return (None, None, None, None, None, *gradients, *[None] * (len(tensors) - ctx.count))

    @staticmethod
    def vmap(info, in_dims, *arguments):
        return _each(Loss.apply, info, in_dims, *arguments)

    @staticmethod
    def jvp(ctx, *tangents):
        raise RuntimeError(_autograd.NO_FORWARD_MODE)


class Gradient(torch.autograd.Function):
    """tare::gradient. apply(spec, value, number of levels, number of losses, *logits, *other tensors, *upstream)."""

    @staticmethod
    def forward(spec, value, count, losses, *tensors):
        logits, inputs, upstream = tensors[:count], tensors[count:-losses], tensors[-losses:]
        return tuple(torch.ops.tare.gradient(list(logits), list(inputs), list(upstream), spec, value))

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *weights):
        _autograd.no_second_derivative()

    @staticmethod
    def vmap(info, in_dims, *arguments):
        return _each(Gradient.apply, info, in_dims, *arguments)

    @staticmethod
    def jvp(ctx, *tangents):
        raise RuntimeError(_autograd.NO_FORWARD_MODE)


def batch(operator):
    """Lets vmap around an exported program call `operator`. A PyTorch before 2.5 cannot."""
    if hasattr(torch.library, "register_vmap"):
        torch.library.register_vmap(operator, functools.partial(_each, operator))
