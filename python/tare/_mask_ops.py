# SPDX-License-Identifier: Apache-2.0
"""The loss of masks for PyTorch: operators, and their gradients.

For types whose range allows it, the gradient of a scalar loss is computed with it and kept until the first backward, as
in _ops. Other gradients are evaluated in backward, with the upstream gradient as a scale or as weights.
"""

from __future__ import annotations

import torch

from . import _autograd, _call, _masks, _ops, _tensors

_INPUTS = "Tensor logits, Tensor targets, Tensor? valid, Tensor? weights, Tensor? divisor"
# numbers: those of the spec, then the divisor. choices: squared, normalizer, ignore_target, and whether the losses of
# the masks have the derivative, instead of the scalar loss.
_SETTINGS = "float[] numbers, int[] choices"
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)
LOGITS = _call.DTYPES
_TARGETS = {**_call.DTYPES, torch.uint8: _masks.U8}


def _pointer(tensor):
    return None if tensor is None else tensor.data_ptr()


def _run(inputs, numbers, choices, **outputs):
    """One call of tare_mask_evaluate. outputs: fields of tare_mask_output, addresses."""
    logits, targets, valid, weights, divisor = inputs
    squared, normalizer, ignore_target, _ = choices
    masks = _masks.make_masks(
        *logits.shape,
        logits=logits.data_ptr(),
        targets=targets.data_ptr(),
        valid=_pointer(valid),
        mask_weights=_pointer(weights),
        dtype=_call.DTYPES[logits.dtype],
        target_dtype=_TARGETS[targets.dtype],
        ignore_target=ignore_target,
        logits_stride=logits.stride(0) if len(logits) > 1 else logits.shape[1],
        targets_stride=targets.stride(0) if len(logits) > 1 else logits.shape[1],
    )
    output = _masks.make_output(
        logits.shape[1],
        normalizer,
        numbers[-1],
        loss_dtype=_call.DTYPES[_tensors.wide(logits.dtype)],
        normalizer_pointer=_pointer(divisor),
        **outputs,
    )
    context, stream = _call.context_of(logits.device)
    with _call.lent(context, _masks.workspace_size(context, masks), logits):
        spec = _masks.make_spec(numbers[:-1], squared)
        status = _call._c.library.tare_mask_evaluate(context, spec, masks, output, stream)
        _call._c.check(status, context)


def _new_gradient(logits):
    return logits.new_empty(logits.shape)


def _new_results(logits, keep):
    wide = _tensors.wide(logits.dtype)
    results = [logits.new_empty((), dtype=wide) for _ in range(3)] + [logits.new_empty(len(logits), dtype=wide)]
    return results + ([_new_gradient(logits)] if keep else [])


def _loss(logits, targets, valid, weights, divisor, numbers, choices, keep):
    """The loss, its two parts, the losses of the masks (undivided), and with `keep` the gradient."""
    results = _new_results(logits, keep)
    loss, overlap, focal, of_masks = (one.data_ptr() for one in results[:4])
    _run(
        (logits, targets, valid, weights, divisor),
        numbers,
        choices,
        loss=loss,
        overlap_loss=overlap,
        focal_loss=focal,
        mask_loss=of_masks,
        gradient=results[4].data_ptr() if keep else None,
    )
    return results


def _gradient(logits, targets, valid, weights, divisor, upstream, numbers, choices):
    """The gradient of the loss times `upstream` [], or of the masks' losses times `upstream` [masks]."""
    gradient, inputs = _new_gradient(logits), (logits, targets, valid, weights, divisor)
    if upstream.dim():  # undivided
        numbers, choices, inputs = [*numbers[:-1], 1.0], [choices[0], 0, *choices[2:]], (*inputs[:4], None)
    if logits.dtype == torch.float64:  # scale and weights are float32
        _run(inputs, numbers, choices, gradient=gradient.data_ptr())
        return _autograd.scaled(gradient, upstream.unsqueeze(-1) if upstream.dim() else upstream)
    if not upstream.dim():
        scale = upstream.to(torch.float32)
        _run(inputs, numbers, choices, gradient=gradient.data_ptr(), gradient_scale_pointer=scale.data_ptr())
        return gradient
    above = upstream.to(torch.float32).contiguous()
    above = above if weights is None else _autograd.scaled(weights, above)
    _run((*inputs[:3], above, None), numbers, choices, gradient=gradient.data_ptr())
    return gradient


torch.library.define("tare::mask_loss", f"({_INPUTS}, {_SETTINGS}, bool keep) -> Tensor[]", tags=_TAGS)
torch.library.define("tare::mask_gradient", f"({_INPUTS}, Tensor upstream, {_SETTINGS}) -> Tensor", tags=_TAGS)
torch.library.impl("tare::mask_loss", ("cpu", "cuda"), _loss)
torch.library.impl("tare::mask_gradient", ("cpu", "cuda"), _gradient)
torch.library.register_fake(
    "tare::mask_loss",
    lambda logits, targets, valid, weights, divisor, numbers, choices, keep: _new_results(logits, keep),
)
torch.library.register_fake("tare::mask_gradient", lambda logits, *rest: _new_gradient(logits))


class TareMaskLoss(torch.autograd.Function):
    """tare::mask_loss with its gradient. One of its results has a derivative."""

    @staticmethod
    def forward(ctx, numbers, choices, keeps, *inputs):
        results = torch.ops.tare.mask_loss(*inputs, numbers, choices, keeps)
        gradients, ctx.place = results[4:], 3 if choices[3] else 0
        ctx.numbers, ctx.choices = numbers, choices
        ctx.set_materialize_grads(False)
        given = results[:4]
        ctx.mark_non_differentiable(*[one for index, one in enumerate(given) if index != ctx.place])
        _autograd.keep(ctx, gradients, inputs)
        return tuple(given)

    @staticmethod
    def backward(ctx, *upstream):
        above = upstream[ctx.place]
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            _, gradient = TareMaskLoss.gradient(ctx, above)
        else:  # create_graph=True
            with torch.no_grad():
                inputs, gradient = TareMaskLoss.gradient(ctx, above)
            if gradient is not None:
                derivative = _by_upstream(ctx.numbers, ctx.choices)
                (gradient,) = _autograd.as_linear([gradient], [above], inputs[:1], inputs[1:], derivative)
        return (None, None, None, gradient, None, None, None, None)

    @staticmethod
    def gradient(ctx, above):
        inputs, gradients = _autograd.take(ctx, above)
        if gradients or above is None:
            return inputs, (gradients or [None])[0]
        return inputs, torch.ops.tare.mask_gradient(*inputs, above, ctx.numbers, ctx.choices)


def _by_upstream(numbers, choices):
    """See _ops: the gradient of an upstream of 1 times the weight, summed."""

    def derivative(weights, upstream, constants):
        with torch.no_grad():
            unit = torch.ops.tare.mask_gradient(*constants, torch.ones_like(upstream[0]), numbers, choices)
        product = unit * weights[0]
        return [product.sum(-1) if upstream[0].dim() else product.sum()]

    return derivative


def _train(logits, targets, valid, weights, divisor, numbers, choices, keep):
    """tare::mask_loss where it is called by itself and a gradient is wanted."""
    inputs = (logits, targets, valid, weights, divisor)
    _tensors.check_constants([one for one in inputs[1:] if one is not None])
    results = list(TareMaskLoss.apply(numbers, choices, False, *inputs))
    if keep:
        with torch.no_grad():
            results += torch.ops.tare.mask_loss(*inputs, numbers, choices, True)[4:]
    return results


_autograd.derive(torch.ops.tare.mask_loss.default, _train)
_autograd.derive(torch.ops.tare.mask_gradient.default, _autograd.no_second_derivative)


def evaluate(inputs, numbers, choices):
    """The loss, its two parts, and the losses of the masks. inputs: logits and targets [masks, pixels], then valid,
    weights and divisor, or None."""
    logits = inputs[0]
    if _ops._is_recorded():
        return torch.ops.tare.mask_loss(*inputs, numbers, choices, False)[:4]
    given = [one for one in inputs if one is not None]
    if not torch.compiler.is_compiling():
        if any(map(_tensors.is_wrapped, given)):
            raise RuntimeError("masks take no part in torch.func and vmap; use backward() or torch.autograd.grad")
        _autograd.refuse_forward_mode(given)
    if not (torch.is_grad_enabled() and logits.requires_grad):
        return torch.ops.tare.mask_loss(*inputs, numbers, choices, False)[:4]
    keeps = not choices[3] and _ops.keeps_gradient([logits], "sum")
    return TareMaskLoss.apply(numbers, choices, keeps, *inputs)
