# SPDX-License-Identifier: Apache-2.0
"""Autograd around operators whose gradient is linear in the upstream gradient. There is no second derivative.

The losses of logits (_ops) and of a fused head (_linear) use it.
"""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

from . import _call, _tensors

_SECOND = "Tare computes no second derivatives"
NO_FORWARD_MODE = (
    "Tare's losses have no derivative in forward mode (torch.func.jvp, jacfwd, forward_ad); "
    "use backward(), torch.autograd.grad, or torch.autograd.functional.jvp"
)
NO_TRANSFORM = (
    "torch.func (grad, vjp, jacrev) differentiates tare.torch's functions of logits; it was called with an exported "
    "program, a graph, or a Head"
)
_library = torch.library.Library("tare", "FRAGMENT")
_transforms_active = torch._C._are_functorch_transforms_active


def derive(operator, train):
    """What autograd does with an operator that is called by itself, as in an exported program.

    Forward mode raises, because PyTorch would take the result for a constant. In backward mode `train` gives the
    results. Under torch.func it raises; _transforms is for those who call the Python functions.
    """

    def kernel(keyset, *arguments):
        tensors = [one for given in arguments for one in (given if isinstance(given, list) else [given])]
        tensors = [one for one in tensors if isinstance(one, torch.Tensor)]
        refuse_forward_mode(tensors)
        if torch.is_grad_enabled() and any(one.requires_grad for one in tensors):
            if _transforms_active():  # torch.compile of PyTorch 2.9 falls back to eager calls for this error alone
                raise NotImplementedError(NO_TRANSFORM)
            return train(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return operator.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)

    _library.impl(operator._schema.name.split("::")[1], kernel, "Autograd", with_keyset=True)


def refuse_forward_mode(tensors):
    """Raises if one of these has a tangent, which would be lost. The operators also call it while a graph is traced."""
    if forward_ad._current_level >= 0 and any(
        one is not None and forward_ad.unpack_dual(one).tangent is not None for one in tensors
    ):
        raise RuntimeError(NO_FORWARD_MODE)


def no_second_derivative(*arguments):
    raise RuntimeError(_SECOND)


class _Refused(torch.autograd.Function):
    """A tensor whose further derivatives raise. Autograd runs a node only if its result is wanted, so this raises only
    if that derivative is requested."""

    @staticmethod
    def forward(ctx, tensor):
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, above):
        raise RuntimeError(_SECOND)


class _Linear(torch.autograd.Function):
    """Gradients as linear functions of the upstream gradients.

    apply(derivative, number of gradients, number of upstream gradients, *gradients, *upstream, *constants):
    derivative(weights, upstream, constants) is the derivative of the sum of weight * gradient by `upstream`.
    """

    @staticmethod
    def forward(ctx, derivative, count, aboves, *tensors):
        ctx.derivative, ctx.count, ctx.aboves = derivative, count, aboves
        ctx.save_for_backward(*tensors[count:])
        return tuple(gradient.view_as(gradient) for gradient in tensors[:count])

    @staticmethod
    def backward(ctx, *weights):
        saved, aboves = ctx.saved_tensors, ctx.aboves
        by_above = ctx.derivative(weights, saved[:aboves], saved[aboves:]) if aboves else []
        return (None, None, None, *[None] * ctx.count, *by_above, *[None] * (len(saved) - aboves))


def as_linear(gradients, upstream, sources, constants, derivative):
    """The same gradients (or None), for create_graph=True: they can be differentiated by `upstream`, and a derivative
    by `sources` raises. derivative: see _Linear; its constants are the sources (or None) and `constants`."""
    given = [gradient for gradient in gradients if gradient is not None]
    sources = [None if one is None else _Refused.apply(one) for one in sources]
    results = iter(_Linear.apply(derivative, len(given), len(upstream), *given, *upstream, *sources, *constants))
    return [None if gradient is None else next(results) for gradient in gradients]


def scaled(gradient: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """gradient * factor, but 0 where the gradient is 0, for every factor, as in the C library."""
    return torch.where(gradient == 0, gradient, gradient * factor)


def _check_upstream(above):
    if above is None:
        return
    if not torch.compiler.is_compiling():
        refuse_forward_mode([above])  # a kept gradient is multiplied by a number


def keep(ctx, gradients, tensors):
    """Saves `tensors` for backward, and any gradients, which backward multiplies by its upstream gradient.

    Eagerly only `ctx` holds the gradients, so that `take` can give them away. While compiling they are saved like other
    tensors, because a graph changes nothing in place.
    """
    ctx.in_graph = len(gradients) if torch.compiler.is_compiling() else 0
    if not ctx.in_graph:
        ctx.kept, gradients = gradients, []
    ctx.save_for_backward(*tensors, *gradients)


def take(ctx, upstream):
    """The tensors that `keep` saved, and its gradients times `upstream`; without these (any more) an empty list.

    The first backward takes them out of `ctx`. Nothing else refers to them, so they may be changed in place here and by
    their receiver (a hook, or .grad, to which autograd adds). A second backward evaluates again.
    """
    tensors = ctx.saved_tensors  # in any case: PyTorch checks here that they are still there, and unchanged
    if ctx.in_graph:
        split = len(tensors) - ctx.in_graph
        return tensors[:split], [scaled(gradient, upstream) for gradient in tensors[split:]]
    if torch.compiler.is_compiling():
        return tensors, []
    _check_upstream(upstream)
    if upstream is None:
        return tensors, []
    gradients = vars(ctx).pop("kept", [])
    if not gradients:
        return tensors, []
    if not _tensors.has_value(upstream) or upstream.dtype != torch.float32:
        upstream = upstream if _tensors.is_wrapped(upstream) else upstream.detach()
        return tensors, [scaled(gradient, upstream) for gradient in gradients]
    _call.scale_gradients(gradients, upstream)
    return tensors, gradients
