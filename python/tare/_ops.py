# SPDX-License-Identifier: Apache-2.0
"""PyTorch's view of Tare: the custom operators tare::loss and tare::gradient, and the autograd function around them.

An operator takes the logits, all other tensors in one list, and a `spec`: a line of key=value that says what these are
and how to evaluate them. It is text so that torch.compile carries it as a constant, and people can read it in a graph.
A normalizer that is a number is a separate argument, because it may change from step to step.
"""

from __future__ import annotations

import contextlib
import functools

import torch
from torch.profiler import record_function

from . import _autograd, _batch, _call, _spec, _tensors, _transforms

is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # an older PyTorch's graphs are as before
KEPT = (torch.float32, torch.float64, torch.bfloat16)  # whose range lets a gradient be kept and scaled later


# ---- the operators --------------------------------------------------------------------------------------------------


def _new_losses(read, logits):
    wide = _tensors.wide(logits[0].dtype)
    if read.reduction == "sum":
        return [logits[0].new_empty((), dtype=wide)]
    if read.reduction == "histogram":
        return []
    if read.reduction == "divisor":
        levels = (len(logits),) if "normalizer_scope" in read.output else ()
        return [logits[0].new_zeros((*levels, 8), dtype=torch.float64)]
    if read.reduction == "rows":
        return [one.new_empty(_batch.row_shape(one.shape, read.classes), dtype=wide) for one in logits]
    return [torch.empty_like(one, dtype=wide) for one in logits]


def _in_profile(name):
    """The name of the loss in a profile, below that of the operator."""
    return record_function(name) if torch._C._autograd._profiler_enabled() else contextlib.nullcontext()


def _loss(logits, inputs, spec, value):
    """The losses that `spec` requests; then, with keep-gradient=1 and a scalar loss, the gradients of the same pass;
    with class-sums=1 the sums of each class; with level-losses=1 the losses of levels; with norm-histogram=N the counts
    of gradient norms in N bins; last the new GHM state, if one was given."""
    read = _spec.read_spec(spec)
    _spec.check_traced(read, logits)
    with _in_profile(f"tare::{read.loss}".replace("-", "_")):
        return losses_of(read, logits, inputs, value)


def losses_of(read, logits, inputs, value, pool=None):
    """_loss by a spec that was read. pool: of _call.run."""
    losses, gradients, states = _new_losses(read, logits), _new_gradients(read, logits), []
    sums = _new_sums(read, logits)
    wanted = dict(zip([name for name in ("sums", "level_losses", "norm_bins") if getattr(read, name)], sums))
    if "state" in read.singles:
        _tensors.check_contents(inputs[-1])
        states = [inputs[-1].clone()]
        inputs = [*inputs[:-1], *states]
    if read.reduction == "sum":
        kept = {"gradient": gradients} if read.keep else {}
        _call.run(read, value, logits, inputs, loss=losses[0], pool=pool, **wanted, **kept)
    elif read.reduction == "histogram":
        _call.count(read, value, logits, inputs)
    elif read.reduction == "divisor":
        _call.sum_normalizers(read, logits, inputs, losses[0])
    else:
        name = "row_loss" if read.reduction == "rows" else "element_loss"
        _call.run(read, value, logits, inputs, pool=pool, **wanted, **{name: losses})
    return losses + gradients + sums + states


def _new_gradients(read, logits):
    return [torch.empty_like(one) for one in logits] if read.keep else []


def _new_sums(read, logits):
    """Of each class, of each level, and of gradient norms: results through which no derivative goes."""
    classes, wide = read.classes or logits[0].shape[-1], _tensors.wide(logits[0].dtype)
    sums = [logits[0].new_empty((classes, 4), dtype=torch.float64)] if read.sums else []
    sums += [logits[0].new_empty((len(logits),), dtype=wide)] if read.level_losses else []
    return sums + ([logits[0].new_empty((read.norm_bins,), dtype=torch.int64)] if read.norm_bins else [])


def _loss_fake(logits, inputs, spec, value):
    read = _spec.read_spec(spec)
    states = inputs[-1:] if "state" in read.singles else []
    new = _new_losses(read, logits) + _new_gradients(read, logits) + _new_sums(read, logits)
    return new + [torch.empty_like(state) for state in states]


def _gradient(logits, inputs, upstream, spec, value):
    """The gradient by the logits of what _loss returned, each loss times its part of `upstream`."""
    read = _spec.read_spec(spec)
    with _in_profile(f"tare::{read.loss}_backward".replace("-", "_")):
        return gradients_of(read, logits, inputs, upstream, value)


def gradients_of(read, logits, inputs, upstream, value, pool=None):
    """_gradient by a spec that was read. pool: of _call.run, for one layout of `upstream`."""
    double = logits[0].dtype == torch.float64
    if double or (read.has_state and read.reduction != "sum"):
        return _multiplied(read, value, logits, inputs, upstream)
    gradients = [torch.empty_like(one) for one in logits]
    if read.reduction == "sum":
        _call.run(read, value, logits, inputs, scale=upstream[0], pool=pool, gradient=gradients)
        return gradients
    if logits[0].device.type == "cpu" and not all(bool(above.isfinite().all()) for above in upstream):
        return _multiplied(read, value, logits, inputs, upstream)
    # What comes from above is one weight more for each row or element. A GPU's kernels leave a gradient of 0 alone
    # under an infinite weight; a row or element of weight 0 must not become one of weight NaN.
    name = "row_weights" if read.reduction == "rows" else "element_weights"
    if name in read.arrays:
        first = read.arrays.index(name) * len(logits)
        own = inputs[first : first + len(logits)]
        own = [_in_shape(name, weight, above, read.classes) for above, weight in zip(upstream, own)]
        scaled = [_autograd.scaled(weight, above) for above, weight in zip(upstream, own)]
        inputs, weights = [*inputs[:first], *scaled, *inputs[first + len(logits) :]], {}
    else:
        weights = {name: upstream}
    _call.run(read, value, logits, inputs, pool=pool, gradient=gradients, **weights)
    return gradients


def _multiplied(read, value, logits, inputs, upstream):
    """Multiplies the gradient where no weight can carry the upstream gradient: GHM takes none, and weights are
    float32."""
    wide = _tensors.wide(logits[0].dtype)
    exact = [one.to(wide) for one in logits]
    gradients = [torch.empty_like(one) for one in exact]
    _call.run(read, value, exact, inputs, gradient=gradients)
    if read.reduction == "sum":
        factors = upstream * len(logits)
    elif read.reduction == "none":
        factors = upstream
    else:
        factors = [_over_classes(above, one.shape, read.classes) for above, one in zip(upstream, logits)]
    products = [_autograd.scaled(gradient, factor) for gradient, factor in zip(gradients, factors)]
    return [product.to(one.dtype) for product, one in zip(products, logits)]


def _in_shape(name, weight, above, classes):
    """The caller's weight in the shape of the upstream gradient."""
    if name == "row_weights" or classes is None or weight.shape == above.shape:
        return weight.reshape(above.shape)
    images, channels, height, width = above.shape
    weight = weight.reshape(images, height, width, channels // classes, classes)
    return weight.permute(0, 3, 4, 1, 2).reshape(above.shape)


def _over_classes(rows, shape, classes):
    """One value a row, in the shape of the logits (or one that broadcasts to it)."""
    if classes is None:
        return rows.unsqueeze(-1)
    return rows.permute(0, 3, 1, 2).repeat_interleave(classes, 1).reshape(shape)


def _gradient_fake(logits, inputs, upstream, spec, value):
    return [torch.empty_like(one) for one in logits]


_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)
torch.library.define("tare::loss", "(Tensor[] logits, Tensor[] inputs, str spec, float value) -> Tensor[]", tags=_TAGS)
torch.library.define(
    "tare::gradient",
    "(Tensor[] logits, Tensor[] inputs, Tensor[] upstream, str spec, float value) -> Tensor[]",
    tags=_TAGS,
)
torch.library.impl("tare::loss", ("cpu", "cuda"), _loss)
torch.library.impl("tare::gradient", ("cpu", "cuda"), _gradient)
torch.library.register_fake("tare::loss", _loss_fake)
torch.library.register_fake("tare::gradient", _gradient_fake)


# ---- derivatives ----------------------------------------------------------------------------------------------------


def _by_upstream(spec, value, count, weights, upstream, constants):
    """The derivative of the sum of weight * gradient by the upstream gradient: the gradients for an upstream of ones,
    times the weights, summed over the elements of each loss."""
    logits, inputs = list(constants[:count]), list(constants[count:])
    read = _spec.read_spec(spec)
    wide = [one.detach().to(_tensors.wide(one.dtype)) for one in logits]
    with torch.no_grad():
        unit = torch.ops.tare.gradient(wide, inputs, [torch.ones_like(above) for above in upstream], spec, value)
    if torch.is_grad_enabled():
        unit = _autograd.as_linear(unit, [], logits, [], None)
    products = [gradient * weight.to(gradient.dtype) for gradient, weight in zip(unit, weights)]
    if read.reduction == "sum":
        return [sum(product.sum() for product in products)]
    if read.reduction == "rows":
        return [_over_rows(product, read.classes) for product in products]
    return products


def _over_rows(elements, classes):
    """The sum over the classes of each row."""
    if classes is None:
        return elements.sum(-1)
    images, channels, height, width = elements.shape
    return elements.reshape(images, channels // classes, classes, height, width).sum(2).permute(0, 2, 3, 1)


class TareLoss(torch.autograd.Function):
    """tare::loss with its gradient. apply(spec, value, whether to keep the gradient of this pass, number of levels,
    whether the last tensor is a state, the number of results without a derivative, *logits, *other tensors)."""

    @staticmethod
    def forward(ctx, spec, value, keeps, count, has_state, has_sums, *tensors):
        asked = _spec.with_setting(spec, _spec.KEEPS_GRADIENT, 1) if keeps else spec
        results = torch.ops.tare.loss(list(tensors[:count]), list(tensors[count:]), asked, value)
        if has_state:  # the density of this pass, whatever becomes of the state until backward
            spec = _spec.with_setting(spec, _spec.STORED_DENSITY, 1)
        return TareLoss.finish(ctx, None, spec, value, keeps, count, has_state, has_sums, tensors, results)

    @staticmethod
    def finish(ctx, call, spec, value, keeps, count, has_state, has_sums, tensors, results):
        """Saves what backward needs, and gives the results of forward. call: of _prepared, or None."""
        gradients = results[1 : 1 + count] if keeps else []
        results = results[:1] + results[1 + count :] if keeps else results
        ctx.call, ctx.spec, ctx.value, ctx.count, ctx.has_state = call, spec, value, count, has_state
        ctx.constants = int(has_state) + int(has_sums)
        ctx.set_materialize_grads(False)
        if ctx.constants:
            ctx.mark_non_differentiable(*results[-ctx.constants :])
        if has_state:
            tensors = (*tensors[:-1], results[-1])
        _autograd.keep(ctx, gradients, tensors)
        return tuple(results)

    @staticmethod
    def backward(ctx, *upstream):
        upstream = upstream[: len(upstream) - ctx.constants]
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            _, inputs, _, gradients = TareLoss.gradients(ctx, upstream)
        else:  # create_graph=True
            with torch.no_grad():
                logits, inputs, upstream, gradients = TareLoss.gradients(ctx, upstream)
            derivative = functools.partial(_by_upstream, ctx.spec, ctx.value, ctx.count)
            gradients = _autograd.as_linear(gradients, upstream, logits, inputs, derivative)
        return (None, None, None, None, None, None, *gradients, *[None] * len(inputs))

    @staticmethod
    def gradients(ctx, upstream):
        """Logits, other tensors, upstream gradients (zeros for missing ones), and the gradients."""
        tensors, gradients = _autograd.take(ctx, upstream[0])
        logits, inputs, upstream = list(tensors[: ctx.count]), list(tensors[ctx.count :]), list(upstream)
        if not gradients:
            if any(above is None for above in upstream):
                losses = torch.ops.tare.loss(logits, inputs, ctx.spec, ctx.value)
                upstream = [torch.zeros_like(one) if above is None else above for above, one in zip(upstream, losses)]
            if not torch.compiler.is_compiling() and any(map(_tensors.is_wrapped, upstream)):  # many at once
                gradients = _multiplied(_spec.read_spec(ctx.spec), ctx.value, logits, inputs, upstream)
            elif ctx.call is not None:
                gradients = ctx.call.gradients(logits, inputs, upstream, ctx.value)
            if not gradients:
                gradients = torch.ops.tare.gradient(logits, inputs, upstream, ctx.spec, ctx.value)
        return logits, inputs, upstream, gradients


def _train(logits, inputs, spec, value):
    """tare::loss where it is called by itself and a gradient is wanted."""
    _tensors.check_constants(inputs)
    read = _spec.read_spec(spec)
    plain = _spec.without_setting(spec, _spec.KEEPS_GRADIENT)
    keeps = keeps_gradient(logits, read.reduction) and not read.keep
    results = list(
        TareLoss.apply(plain, value, keeps, len(logits), "state" in read.singles, read.constants, *logits, *inputs)
    )
    if not read.keep:
        return results
    with torch.no_grad():  # a graph that keeps the gradient has it among the results
        return results[:1] + torch.ops.tare.loss(logits, inputs, spec, value)[1 : 1 + len(logits)] + results[1:]


_autograd.derive(torch.ops.tare.loss.default, _train)
_autograd.derive(torch.ops.tare.gradient.default, _autograd.no_second_derivative)
_transforms.batch(torch.ops.tare.loss.default)
_transforms.batch(torch.ops.tare.gradient.default)


def _is_recorded():
    return torch.jit.is_tracing() or is_exporting()


def keeps_gradient(levels, reduction):
    """Whether forward computes the gradient too, and keeps it."""
    return levels[0].dtype in KEPT and reduction == "sum"


def evaluate(spec, reduction, value, levels, arrays, singles, has_sums=0, keep=True):
    """tare::loss with its gradient: the losses, then `has_sums` results without a derivative (the sums of each class,
    the losses of levels, the counts of gradient norms), then the state, if `singles` has one.

    reduction: the one in the spec, which a compiler cannot read. keep: whether a gradient may be kept.
    """
    inputs = [*arrays, *_tensors.as_c(singles)]
    if _is_recorded():  # a graph of operators, whose own derivatives hold whoever runs it
        return torch.ops.tare.loss(levels, inputs, spec, value)
    if not torch.compiler.is_compiling() and any(map(_tensors.is_wrapped, [*levels, *inputs])):
        return list(_transforms.Loss.apply(spec, value, len(levels), "state" in singles, has_sums, *levels, *inputs))
    if not (torch.is_grad_enabled() and any(level.requires_grad for level in levels)):
        return torch.ops.tare.loss(levels, inputs, spec, value)
    if not torch.compiler.is_compiling():
        _autograd.refuse_forward_mode([*levels, *inputs])
    keeps = keep and keeps_gradient(levels, reduction)
    return TareLoss.apply(spec, value, keeps, len(levels), "state" in singles, has_sums, *levels, *inputs)
