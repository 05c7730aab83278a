# SPDX-License-Identifier: Apache-2.0
"""The fused head for PyTorch: operators that take features, weights and bias of a classifier instead of its logits.

Forward forms the logits one chunk at a time, for the loss only. Backward forms them again, and from each chunk the
gradients. On a CPU the forward pass of float32 gives both, as in _ops: three products, where two passes take four. The
full array of logits, or of their gradient, never exists. Class sums are of the forward pass. `spec` and the other
tensors are those of _ops.
"""

import ctypes
import functools

import torch

from . import _autograd, _c, _call, _checks, _spec, _tensors


def _run(read, value, head, inputs, workspace, scale=None, loss=None, gradients=(None, None, None), sums=None):
    """One call of tare_linear_evaluate: into the scalar `loss`, with the gradients times the scalar `scale`, and with
    `sums` of each class. Or of tare_linear_ghm_histogram, into the state."""
    features, weight, _ = head
    rows, dimensions = features.shape
    problem = _call.problem_of(read, value, _c.F32, [(rows, weight.shape[0])], inputs)
    linear = _c.Linear()
    _c.library.tare_linear_init_sized(linear, dimensions, ctypes.sizeof(linear))
    linear.dtype = _call.DTYPES[features.dtype]
    linear.features, linear.weights, linear.bias = map(_pointer, head)
    linear.features_gradient, linear.weights_gradient, linear.bias_gradient = map(_pointer, gradients)
    problem.output.loss, problem.output.gradient_scale_pointer = _pointer(loss), _pointer(scale)
    problem.output.class_sums = _pointer(sums)

    context, stream = _call.context_of(features.device)
    least, ample = ctypes.c_uint64(), ctypes.c_uint64()
    arguments = (context, problem.loss, problem.batch, linear, problem.output)
    _c.check(_c.library.tare_linear_workspace_size(*arguments, least, ample), context)
    most = ample.value
    if read.has_state and not read.parameters.get(_spec.STORED_DENSITY):
        most += 4 * rows * weight.shape[0]  # there the logits stay between the two passes
    size = ample.value if workspace < 0 else max(least.value, min(most, workspace))
    with _call.lent(context, size, features):
        if read.reduction == "histogram":
            _c.check(_c.library.tare_linear_ghm_histogram(*arguments[:-1], stream), context)
        else:
            _c.check(_c.library.tare_linear_evaluate(*arguments, stream), context)


def _pointer(tensor):
    return None if tensor is None else tensor.data_ptr()


def _new_loss(features):
    return features.new_empty((), dtype=torch.float32)


def _new_gradients(features, weight, wanted):
    sources = [features, weight, weight[:, 0]]
    kinds = [features.dtype, torch.float32, torch.float32]
    return [one.new_empty(one.shape if want else 0, dtype=kind) for one, want, kind in zip(sources, wanted, kinds)]


def _new_sums(read, weight):
    return [weight.new_empty((weight.shape[0], 4), dtype=torch.float64)] if read.sums else []


def _asked(gradients, wanted):
    return [gradient if want else None for gradient, want in zip(gradients, wanted)]


def _loss(features, weight, bias, inputs, wanted, spec, value, workspace):
    """The scalar loss; then the gradients of the same pass, as in _gradient, if any of the three is wanted; with
    class-sums=1 the sums of each class; last the new GHM state, if one was given."""
    read = _spec.read_spec(spec)
    loss, gradients, states = _new_loss(features), _new_gradients(features, weight, wanted), []
    sums = _new_sums(read, weight)
    if "state" in read.singles:
        _tensors.check_contents(inputs[-1])
        states = [inputs[-1].clone()]
        inputs = [*inputs[:-1], *states]
    head, asked = (features, weight, bias), _asked(gradients, wanted)
    _run(read, value, head, inputs, workspace, loss=loss, gradients=asked, sums=sums[0] if sums else None)
    return [loss, *(gradients if any(wanted) else []), *sums, *states]


def _loss_fake(features, weight, bias, inputs, wanted, spec, value, workspace):
    read = _spec.read_spec(spec)
    gradients = _new_gradients(features, weight, wanted) if any(wanted) else []
    states = inputs[-1:] if "state" in read.singles else []
    new = [_new_loss(features), *gradients, *_new_sums(read, weight)]
    return new + [torch.empty_like(state) for state in states]


def _gradient_fake(features, weight, bias, inputs, upstream, wanted, spec, value, workspace):
    return _new_gradients(features, weight, wanted)


def _gradient(features, weight, bias, inputs, upstream, wanted, spec, value, workspace):
    """The gradients by features (of their type), weight and bias (float32); an empty tensor for each that is not
    wanted."""
    results = _new_gradients(features, weight, wanted)
    _run(
        _spec.read_spec(spec),
        value,
        (features, weight, bias),
        inputs,
        workspace,
        scale=upstream,
        gradients=_asked(results, wanted),
    )
    return results


_HEAD = "Tensor features, Tensor weight, Tensor? bias, Tensor[] inputs"
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)
torch.library.define(
    "tare::linear_loss", f"({_HEAD}, bool[] wanted, str spec, float value, int workspace) -> Tensor[]", tags=_TAGS
)
torch.library.define(
    "tare::linear_gradient",
    f"({_HEAD}, Tensor upstream, bool[] wanted, str spec, float value, int workspace) -> Tensor[]",
    tags=_TAGS,
)
torch.library.impl("tare::linear_loss", ("cpu", "cuda"), _loss)
torch.library.impl("tare::linear_gradient", ("cpu", "cuda"), _gradient)
torch.library.register_fake("tare::linear_loss", _loss_fake)
torch.library.register_fake("tare::linear_gradient", _gradient_fake)


class TareLinearLoss(torch.autograd.Function):
    """tare::linear_loss with its gradients. apply(spec, value, workspace, whether the last tensor is a state, for
    features, weight and bias whether their gradient is kept from this pass, these three, *other tensors).

    Dynamo of PyTorch 2.9 wants no tuple among the arguments.
    """

    @staticmethod
    def forward(ctx, spec, value, workspace, has_state, *given):
        keeps, (features, weight, bias), inputs = given[:3], given[3:6], given[6:]
        results = torch.ops.tare.linear_loss(features, weight, bias, list(inputs), list(keeps), spec, value, workspace)
        gradients, results = (results[1:4], results[:1] + results[4:]) if any(keeps) else ([], results)
        ctx.spec, ctx.value, ctx.workspace, ctx.keeps = spec, value, workspace, keeps
        ctx.set_materialize_grads(False)
        if len(results) > 1:
            ctx.mark_non_differentiable(*results[1:])
        if has_state:  # see Evaluation in _ops
            ctx.spec = _spec.with_setting(spec, _spec.STORED_DENSITY, 1)
            inputs = (*inputs[:-1], results[-1])
        _autograd.keep(ctx, gradients, (features, weight, bias, *inputs))
        return tuple(results)

    @staticmethod
    def backward(ctx, upstream, *constants):
        wanted = list(ctx.needs_input_grad[7:10])
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            _, inputs, gradients = TareLinearLoss.gradients(ctx, upstream, wanted)
        else:  # create_graph=True
            with torch.no_grad():
                head, inputs, gradients = TareLinearLoss.gradients(ctx, upstream, wanted)
            derivative = functools.partial(_by_upstream, wanted, ctx.spec, ctx.value, ctx.workspace)
            gradients = _autograd.as_linear(gradients, [upstream], head, inputs, derivative)
        return (*[None] * 7, *gradients, *[None] * len(inputs))

    @staticmethod
    def gradients(ctx, upstream, wanted):
        """Features, weight and bias; the other tensors; and the gradients by the first three, or None."""
        (features, weight, bias, *inputs), gradients = _autograd.take(ctx, upstream)
        if not gradients:
            if not torch.compiler.is_compiling():
                _refuse_wrapped([upstream])
            gradients = torch.ops.tare.linear_gradient(
                features, weight, bias, inputs, upstream, wanted, ctx.spec, ctx.value, ctx.workspace
            )
        kinds = (features.dtype, weight.dtype, weight.dtype)
        gradients = [one.to(kind) if want else None for one, want, kind in zip(gradients, wanted, kinds)]
        return (features, weight, bias), inputs, gradients


def _refuse_wrapped(tensors):
    if any(one is not None and _tensors.is_wrapped(one) for one in tensors):
        raise RuntimeError(
            "a Head takes no part in torch.func, vmap or batched gradients (is_grads_batched, vectorize=True); "
            "give the logits"
        )


def _by_upstream(wanted, spec, value, workspace, weights, upstream, constants):
    """See _ops: the gradients of an upstream of 1, in float32, times the weights."""
    features, weight, bias, *inputs = constants
    wide = [None if one is None else one.detach().float() for one in (features, weight, bias)]
    with torch.no_grad():
        one = torch.ones_like(upstream[0])
        unit = torch.ops.tare.linear_gradient(*wide, inputs, one, wanted, spec, value, workspace)
    unit = [gradient for gradient, want in zip(unit, wanted) if want]
    if torch.is_grad_enabled():
        unit = _autograd.as_linear(unit, [], (features, weight, bias), [], None)
    return [sum((gradient * above).sum() for gradient, above in zip(unit, weights))]


def _train(features, weight, bias, inputs, wanted, spec, value, workspace):
    """tare::linear_loss where it is called by itself and a gradient is wanted."""
    _tensors.check_constants(inputs)
    has_state = "state" in _spec.read_spec(spec).singles
    keeps = (False,) * 3
    results = list(TareLinearLoss.apply(spec, value, workspace, has_state, *keeps, features, weight, bias, *inputs))
    if not any(wanted):
        return results
    with torch.no_grad():
        kept = torch.ops.tare.linear_loss(features, weight, bias, inputs, wanted, spec, value, workspace)
    return results[:1] + kept[1:4] + results[1:]


_autograd.derive(torch.ops.tare.linear_loss.default, _train)
_autograd.derive(torch.ops.tare.linear_gradient.default, _autograd.no_second_derivative)


def _joined(array, front):
    """An array with the axes `front` of rows, and perhaps one of classes, with one axis for all rows."""
    if array.shape == front:
        return array.reshape(-1)
    return array.reshape(-1, array.shape[-1]) if array.shape[:-1] == front else array


def evaluate(spec, reduction, value, head, arrays, singles, keep=True):
    """The loss of a head, with reduction "sum"; then the class sums, if `spec` has them; last the state, if `singles`
    has one."""
    features, weight, bias, workspace = head
    if workspace is not None:
        workspace = _checks.integer("workspace", workspace, 0)
    if weight.dim() != 2 or features.dim() < 1 or not features.shape[-1] == weight.shape[1] > 0:
        shapes = f"features {tuple(features.shape)}, weight {tuple(weight.shape)}"
        raise ValueError(f"{shapes}; they must be [..., D], [C, D], and D at least 1")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}; weight has {tuple(weight.shape)}")
    known = {one.dtype for one in (features, weight, bias) if one is not None}
    if len(known) > 1 or not known <= {torch.float32, torch.float16, torch.bfloat16}:
        raise ValueError(
            f"features, weight and bias are {', '.join(sorted(map(str, known)))}; they must be of one "
            "type: float32, float16 or bfloat16"
        )
    front = features.shape[:-1]  # joined to one axis of rows, here and in what goes with them
    if len(front) != 1:
        arrays = [_joined(one, front) for one in arrays]
    rows = features.flatten(0, -2) if front else features.unsqueeze(0)
    head = (rows.contiguous(), weight.contiguous(), bias)
    inputs, limit = [*arrays, *_tensors.as_c(singles)], -1 if workspace is None else workspace
    if not torch.compiler.is_compiling():
        _autograd.refuse_forward_mode([*head, *inputs])
        _refuse_wrapped([*head, *inputs])
    keeps = keep and torch.is_grad_enabled() and features.device.type == "cpu" and features.dtype == torch.float32
    keeps = tuple(keeps and one is not None and one.requires_grad for one in head)
    return TareLinearLoss.apply(spec, value, limit, "state" in singles, *keeps, *head, *inputs)
