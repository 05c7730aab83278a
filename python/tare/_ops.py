# SPDX-License-Identifier: Apache-2.0
"""PyTorch's view of Tare: the custom operators tare::loss and tare::gradient, and the autograd function around them.

An operator takes the logits, all other tensors in one list, and a `spec`: a line of key=value that says what these are
and how to evaluate them. It is text so that torch.compile carries it as a constant, and people can read it in a graph.
A number that normalises comes beside it, since it may differ from step to step.
"""

from __future__ import annotations

import functools
import math
from types import SimpleNamespace
from typing import Any

import torch
from torch.autograd import forward_ad

from . import _batch, _c, _checks, _ghm

DTYPES = {torch.float32: _c.F32, torch.float16: _c.F16, torch.bfloat16: _c.BF16, torch.float64: _c.F64}
KEPT = (torch.float32, torch.float64, torch.bfloat16)  # whose range lets a gradient be kept and scaled later
LABEL_DTYPES = {torch.int32: _c.I32, torch.int64: _c.I64}
_ROWS = ("labels", "row_weights", "row_loss")  # per-level arrays without a class axis
_BATCH = ("first_label", "background_label", "ignore_label", "background_weight")

_torch = SimpleNamespace(strides=torch.Tensor.stride, pointer=torch.Tensor.data_ptr)

# ---- arguments ------------------------------------------------------------------------------------------------------


def check_tensor(name: str, given: Any) -> torch.Tensor:
    """`given`, which must be a tensor that lies in memory as its strides say."""
    if not isinstance(given, torch.Tensor):
        raise _checks.WrongType(f"{name} is of type {type(given).__name__}; it must be a tensor")
    if torch.compiler.is_compiling():
        return given
    if given.layout != torch.strided or given.is_quantized or given.is_nested:
        raise _checks.WrongType(f"{name} is a sparse, quantized or nested tensor; it must be a dense one (to_dense(), "
                                "dequantize(), to_padded_tensor())")  # fmt: skip
    if _wrapped(given):
        raise RuntimeError(f"{name} is a tensor of torch.func (vmap, grad, jvp or what is made of them); Tare's losses "
                           "are differentiated by backward() or torch.autograd.grad alone")  # fmt: skip
    return given


def _wrapped(tensor: torch.Tensor) -> bool:
    functorch = torch._C._functorch
    return functorch.is_functorch_wrapped_tensor(tensor) or functorch.is_legacy_batchedtensor(tensor)


def per_level(name, given, levels, several, classes):
    """One tensor a level, of what was given for all of them; weights as float32."""
    if not several:
        arrays = [given]
    elif isinstance(given, (list, tuple)):
        arrays = [check_tensor(f"{name}[{index}]", one) for index, one in enumerate(given)]
    else:
        lengths = [_batch.lengths(level.shape, classes) for level in levels]
        arrays = _batch.shares(check_tensor(name, given), lengths, lambda whole, rows: torch.split(whole, rows, -1))
    if len(arrays) != len(levels):
        raise ValueError(f"{name} has {len(arrays)} levels, logits have {len(levels)}")
    return [_float32(name, array) if name.endswith("weights") else check_tensor(name, array) for array in arrays]


def _float32(name: str, given: Any) -> torch.Tensor:
    """Weights as float32; what this type cannot hold is refused (on the CPU, where it can be seen)."""
    given = check_tensor(name, given)
    if given.is_complex():
        raise _checks.WrongType(f"{name} are {given.dtype}; they must be real numbers")
    narrow = given.to(torch.float32)
    if given.dtype == torch.float64 and _is_plain(given) and (lost := narrow.isinf() & ~given.isinf()).any():
        raise ValueError(f"{name} hold {given[lost][0].item():g}, which is not finite in float32")
    return narrow


def real_tensor(name: str, given: Any) -> torch.Tensor:
    """A tensor of one value a class, or of one value, which becomes float32 behind this check."""
    given = check_tensor(name, given)
    if given.is_complex():
        raise _checks.WrongType(f"{name} is {given.dtype}; it must be of real numbers")
    return given


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is on the CPU and has values now: it is not fake and not in a graph."""
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.device.type == "cpu"
    return plain and not torch.compiler.is_compiling() and not torch.jit.is_tracing()


def check_arguments(sources, arrays, singles):
    """Tensors of one device, and no gradient asked for but by the sources (the logits, or what they are made of).

    arrays: pairs of a name and a tensor; singles: tensors by name.
    """
    device = sources[0].device
    constants = [*arrays, *singles.items()]
    for name, tensor in [*[("logits", source) for source in sources], *constants]:
        if tensor.device != device:
            raise ValueError(f"tensors are on {device} and {tensor.device} ({name}); all must be on one device")
    for name, tensor in constants:
        if tensor.requires_grad:
            raise ValueError(f"{name} asks for a gradient, and only logits get one; detach() it")
    classes = None
    for name, tensor in singles.items():
        if name == "normalizer" and tensor.numel() != 1:
            raise ValueError(f"normalizer has shape {tuple(tensor.shape)}; it must have one element")
        if name not in ("normalizer", "state"):
            if tensor.dim() != 1 or classes not in (None, tensor.numel()):
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must be [classes]")
            classes = tensor.numel()


def keeps_state(name, parameters):
    """Whether a loss has a density that backward can take from a state of this call instead of counting again."""
    unit_regions = parameters.get("density", 0) == _c.WORDS["density"]["unit-region"]
    return name.startswith("ghm") and unit_regions and not parameters.get("momentum") and not parameters.get("given")


@torch.compiler.assume_constant_result
def default_bins(name):
    _, member = _c.make_loss(name, {})
    return member.bins


# ---- the spec -------------------------------------------------------------------------------------------------------


def write_spec(settings, arrays, singles):
    """settings, the names of the per-level arrays, and those of the single tensors, as one line."""
    words = [f"{key}={value}" for key, value in settings.items()]
    return " ".join([*words, f"arrays={','.join(arrays)}", f"singles={','.join(singles)}"])


def _number(text):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


@functools.lru_cache(256)
def read_spec(spec):
    settings = dict(word.split("=", 1) for word in spec.split(" "))
    take = lambda key: settings.pop(key)  # noqa: E731
    listed = lambda key: tuple(name for name in take(key).split(",") if name)  # noqa: E731
    read = SimpleNamespace(
        loss=take("loss"), reduction=take("reduction"), normalizer=take("normalizer"),
        classes=int(take("classes")) or None, arrays=listed("arrays"), singles=listed("singles"),
        batch=_batch.label_options(**{key: _number(take(key)) for key in _BATCH}))  # fmt: skip
    read.traced = settings.pop("traced", None)
    parameters = {key: _number(value) for key, value in settings.items()}
    read.keep = bool(parameters.pop("keep-gradient", 0))  # no name that a caller can give
    read.loss = _c.loss_name(read.loss)
    read.parameters = _c.parameters_of(read.loss, parameters)
    if read.reduction not in ("sum", "rows", "none", "histogram"):  # the last is of ghm_histogram alone
        raise ValueError(f"reduction is '{read.reduction}'; it is one of: sum, rows, none")
    read.ghm = read.loss.startswith("ghm")
    if read.reduction == "none" and read.loss.startswith("softmax"):
        read.reduction = "rows"
    return read


def traced_shapes(levels, fixed):
    """torch.jit.trace freezes numbers: the classes, or all lengths if `fixed`, that go with them."""
    shapes = [level.shape if fixed else level.shape[-1:] for level in levels]
    return "/".join("x".join(str(int(length)) for length in shape) for shape in shapes)


def check_traced(read, levels):
    if read.traced is None:
        return
    for level, shape in zip(levels, read.traced.split("/")):
        shape = tuple(map(int, shape.split("x")))
        if tuple(level.shape[-len(shape) :]) != shape:
            raise ValueError(f"logits of shape {tuple(level.shape)} in a graph of torch.jit.trace that was made for "
                             f"{shape}: it has numbers that may depend on the shape; trace it again, or normalise by a "
                             "name or a tensor")  # fmt: skip


# ---- calling the library --------------------------------------------------------------------------------------------


def raw_stream(index):
    return torch._C._cuda_getCurrentRawStream(index)


def context_of(device):
    """This thread's context for the current stream of a device, and that stream."""
    if device.type == "cpu":
        return _c.context(threads=min(torch.get_num_threads(), 1024)), None
    stream = raw_stream(device.index)  # now: the current stream is another one tomorrow
    return _c.context(_c.CUDA, device.index, stream), stream


def _one_dtype(name, tensors, known):
    kinds = {tensor.dtype for tensor in tensors}
    if len(kinds) != 1 or not kinds <= known.keys():
        raise ValueError(f"{name} are {', '.join(sorted(map(str, kinds)))}; they must be one of: "
                         f"{', '.join(map(str, known))}")  # fmt: skip
    return known[kinds.pop()]


def _pointers(singles, classes):
    """The single tensors' pointers: those of the loss, and those of batch and output, by name."""
    for name in ("class_weights", "positive_weights", "alpha_per_class"):
        if name in singles and singles[name].numel() != classes:
            raise ValueError(f"{name} has {singles[name].numel()} elements; there are {classes} classes")
    pointers = {name: tensor.data_ptr() for name, tensor in singles.items()}
    of_loss = {name: pointers.pop(name) for name in ("alpha_per_class", "state") if name in pointers}
    return of_loss, pointers


def problem_of(read, value, dtype, shapes, inputs, **arrays):
    """What a call takes: the library's loss, batch and output, and the levels, which keep alive what these point to.

    shapes: of the logits, level by level; dtype: the library's number of theirs. arrays: per-level arrays besides those
    among `inputs`, or instead of them.
    """
    count = len(shapes)
    arrays = {name: inputs[i * count : (i + 1) * count] for i, name in enumerate(read.arrays)} | arrays
    singles = dict(zip(read.singles, inputs[count * len(read.arrays) :]))
    levels = [_batch.Level(_torch, shape, read.classes) for shape in shapes]
    for name, tensors in arrays.items():
        place = _batch.Level.rows if name in _ROWS else _batch.Level.elements
        for level, tensor in zip(levels, tensors):
            place(level, name, tensor)
    label_dtype = _one_dtype("labels", arrays["labels"], LABEL_DTYPES) if "labels" in arrays else _c.I32
    target_dtype = _one_dtype("targets", arrays["targets"], DTYPES) if "targets" in arrays else _c.F32

    of_loss, pointers = _pointers(singles, levels[0].lengths[4])
    loss, member = _c.fill_loss(read.loss, read.parameters, of_loss)
    if "state" in singles:
        check_state(singles["state"], getattr(member, "bins", 0))
    output = _batch.make_output(value if read.normalizer == "value" else read.normalizer)
    output.normalizer_pointer = pointers.pop("normalizer", None)
    batch = _batch.make_batch(levels, dtype, label_dtype, target_dtype, **read.batch, **pointers)
    exact = getattr(member, "density", 0) == _c.WORDS["density"]["exact"]
    return SimpleNamespace(loss=loss, batch=batch, output=output, levels=levels, exact=exact)


def _run(read, value, logits, inputs, scale=None, loss=None, **arrays):
    """One call of tare_evaluate: into the scalar `loss`, with the gradient times the scalar `scale`."""
    shapes = [one.shape for one in logits]
    problem = problem_of(read, value, _one_dtype("logits", logits, DTYPES), shapes, inputs, logits=logits, **arrays)
    if loss is not None:
        problem.output.loss, problem.output.loss_dtype = loss.data_ptr(), DTYPES[loss.dtype]
    if scale is not None:
        problem.output.gradient_scale_pointer = scale.data_ptr()
    context, stream = context_of(logits[0].device)
    workspace = _lend_workspace(context, problem, logits[0]) if problem.exact else None
    try:
        _c.check(_c.library.tare_evaluate(context, problem.loss, problem.batch, problem.output, stream), context)
    finally:
        if problem.exact:  # its memory goes back to PyTorch, which gives it out again only behind this work
            _c.library.tare_context_set_workspace(context, None, 0)
            del workspace


def _count(read, value, logits, inputs):
    """tare_ghm_histogram: into the state, which is the last of `inputs`."""
    shapes = [one.shape for one in logits]
    problem = problem_of(read, value, _one_dtype("logits", logits, DTYPES), shapes, inputs, logits=logits)
    context, stream = context_of(logits[0].device)
    _c.check(_c.library.tare_ghm_histogram(context, problem.loss, problem.batch, stream), context)


def update_density(name, state, parameters):
    """tare_ghm_density_update: in place."""
    state = state_tensor(state)
    loss, member = _c.make_loss(name, parameters, state=state.data_ptr())
    check_state(state, member.bins)
    check_contents(state)
    context, stream = context_of(state.device)
    _c.check(_c.library.tare_ghm_density_update(context, loss, stream), context)


def state_tensor(state: Any) -> torch.Tensor:
    """A state as the caller gave it, which is written in place."""
    state = check_tensor("state", state)
    if state.dtype != torch.int64 or not state.is_contiguous():
        raise ValueError("state must be a contiguous int64 tensor, as ghm_state makes it")
    return state


def check_state(state, bins):
    state = state_tensor(state)
    if state.numel() != 2 + 3 * bins:
        raise ValueError(f"state has {state.numel()} words; {bins} bins need {2 + 3 * bins}")


def loaded_state(state, bins):
    """A copy of a state from a checkpoint, of whatever device, which is sound."""
    check_state(state, bins)
    if not state.is_meta and type(state) is torch.Tensor:
        _ghm.check_state(state.cpu().numpy(), bins)
    return state.clone()


def check_contents(state):
    """Refuses a state on the CPU that Tare did not write. A GPU's is not looked at: that would wait."""
    bins = (state.numel() - 2) // 3
    if state.device.type == "cpu" and state.dtype == torch.int64 and bins > 0 and state.shape == (2 + 3 * bins,):
        _ghm.check_state(state.detach().contiguous().numpy(), bins)


def _lend_workspace(context, problem, like):
    size = _c.c_uint64()
    _c.check(_c.library.tare_workspace_size(context, problem.loss, problem.batch, problem.output, size), context)
    return lend(context, size.value, like)


def lend(context, size, like):
    """A new workspace of so many bytes on the device of `like`, lent to the context; None if the call needs none."""
    if not size:
        return None
    workspace = like.new_empty(size + 16, dtype=torch.uint8)
    start = -(-workspace.data_ptr() // 16) * 16
    _c.check(_c.library.tare_context_set_workspace(context, start, size), context)
    return workspace


# ---- the operators --------------------------------------------------------------------------------------------------


def _wide(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def _new_losses(read, logits):
    wide = _wide(logits[0].dtype)
    if read.reduction == "sum":
        return [logits[0].new_empty((), dtype=wide)]
    if read.reduction == "histogram":
        return []
    if read.reduction == "rows":
        return [one.new_empty(_batch.row_shape(one.shape, read.classes), dtype=wide) for one in logits]
    return [torch.empty_like(one, dtype=wide) for one in logits]


def _loss(logits, inputs, spec, value):
    """The losses that `spec` asks for; behind a scalar one, with keep-gradient=1, the gradients of the same pass; and,
    last, the GHM state as it is afterwards if one was given."""
    read = read_spec(spec)
    check_traced(read, logits)
    losses, gradients, states = _new_losses(read, logits), _new_gradients(read, logits), []
    if "state" in read.singles:
        check_contents(inputs[-1])
        states = [inputs[-1].clone()]
        inputs = [*inputs[:-1], *states]
    if read.reduction == "sum":
        _run(read, value, logits, inputs, loss=losses[0], **({"gradient": gradients} if read.keep else {}))
    elif read.reduction == "histogram":
        _count(read, value, logits, inputs)
    else:
        _run(read, value, logits, inputs, **{"row_loss" if read.reduction == "rows" else "element_loss": losses})
    return losses + gradients + states


def _new_gradients(read, logits):
    return [torch.empty_like(one) for one in logits] if read.keep else []


def _loss_fake(logits, inputs, spec, value):
    read = read_spec(spec)
    states = inputs[-1:] if "state" in read.singles else []
    new = _new_losses(read, logits) + _new_gradients(read, logits)
    return new + [torch.empty_like(state) for state in states]


def _gradient(logits, inputs, upstream, spec, value):
    """The gradient by the logits of what _loss returned, each loss times its part of `upstream`."""
    read = read_spec(spec)
    double = logits[0].dtype == torch.float64
    if read.ghm and read.reduction != "sum" or double:
        return _multiplied(read, value, logits, inputs, upstream)
    gradients = [torch.empty_like(one) for one in logits]
    if read.reduction == "sum":
        _run(read, value, logits, inputs, scale=upstream[0], gradient=gradients)
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
        upstream = [scaled(weight, above) for above, weight in zip(upstream, own)]
    _run(read, value, logits, inputs, gradient=gradients, **{name: upstream})
    return gradients


def _multiplied(read, value, logits, inputs, upstream):
    """The plain way, where no weight can carry what comes from above: GHM takes none, and weights are single."""
    wide = _wide(logits[0].dtype)
    exact = [one.to(wide) for one in logits]
    gradients = [torch.empty_like(one) for one in exact]
    _run(read, value, exact, inputs, gradient=gradients)
    if read.reduction == "sum":
        factors = upstream * len(logits)
    elif read.reduction == "none":
        factors = upstream
    else:
        factors = [_over_classes(above, one.shape, read.classes) for above, one in zip(upstream, logits)]
    return [scaled(gradient, factor).to(one.dtype) for gradient, factor, one in zip(gradients, factors, logits)]


def _in_shape(name, weight, above, classes):
    """The caller's weight in the shape of what comes from above."""
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
torch.library.define("tare::gradient", "(Tensor[] logits, Tensor[] inputs, Tensor[] upstream, str spec, float value) "
                                       "-> Tensor[]", tags=_TAGS)  # fmt: skip
torch.library.impl("tare::loss", ("cpu", "cuda"), _loss)
torch.library.impl("tare::gradient", ("cpu", "cuda"), _gradient)
torch.library.register_fake("tare::loss", _loss_fake)
torch.library.register_fake("tare::gradient", _gradient_fake)


# ---- derivatives ----------------------------------------------------------------------------------------------------

_SECOND = "Tare computes no second derivatives"


def derive(operator, train):
    """What autograd does with an operator that is called by itself, as in an exported program.

    Forward mode raises: PyTorch would take the result for a constant. In backward mode `train` gives the results.
    """

    def kernel(keyset, *arguments):
        tensors = [one for given in arguments for one in (given if isinstance(given, list) else [given])]
        tensors = [one for one in tensors if isinstance(one, torch.Tensor)]
        if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(one).tangent is not None for one in tensors):
            raise RuntimeError("Tare's losses have no derivative in forward mode (torch.func.jvp, jacfwd, forward_ad); "
                               "use backward(), torch.autograd.grad, or torch.autograd.functional.jvp")  # fmt: skip
        if torch.is_grad_enabled() and any(one.requires_grad for one in tensors):
            return train(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return operator.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)

    _library.impl(operator._schema.name.split("::")[1], kernel, "Autograd", with_keyset=True)


_library = torch.library.Library("tare", "FRAGMENT")


def no_second_derivative(*arguments):
    raise RuntimeError(_SECOND)


def check_constants(inputs):
    if any(one.requires_grad for one in inputs):
        raise ValueError("only logits get a gradient; detach() the targets, weights or normaliser that ask for one")


class _Refused(torch.autograd.Function):
    """A tensor by which nothing behind it can be differentiated. Autograd runs a node only if its result is wanted, so
    this raises for those alone who ask for that derivative."""

    @staticmethod
    def forward(ctx, tensor):
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, above):
        raise RuntimeError(_SECOND)


class _Linear(torch.autograd.Function):
    """Gradients as functions of what came from above, in which they are linear.

    apply(derivative, number of gradients, number of tensors from above, *gradients, *those, *constants):
    derivative(weights, those from above, constants) is the derivative of the sum of weight * gradient by the second.
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


def _by_upstream(spec, value, count, weights, upstream, constants):
    """The derivative of the sum of weight * gradient by what came from above: the gradients of an upstream of ones
    times the weights, summed over the elements of each loss."""
    logits, inputs = list(constants[:count]), list(constants[count:])
    read = read_spec(spec)
    wide = [one.detach().to(_wide(one.dtype)) for one in logits]
    with torch.no_grad():
        unit = torch.ops.tare.gradient(wide, inputs, [torch.ones_like(above) for above in upstream], spec, value)
    if torch.is_grad_enabled():
        unit = as_linear(unit, [], logits, [], None)
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


def scaled(gradient: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """gradient * factor, but 0 where the gradient is, whatever the factor: as the C library scales."""
    return torch.where(gradient == 0, gradient, gradient * factor)


def _check_upstream(above):
    if above is not None and _wrapped(above):
        raise RuntimeError("many gradients at once (is_grads_batched, vectorize=True) are not supported by Tare's "
                           "losses; ask for them one after the other")  # fmt: skip


def keep(ctx, gradients, tensors):
    """Saves `tensors` for backward, and gradients, if there are any, that it shall multiply by its upstream.

    Eagerly these lie with `ctx` alone, so that `take` can give them away. While compiling they are saved as other
    tensors are: a graph changes nothing in place.
    """
    ctx.in_graph = len(gradients) if torch.compiler.is_compiling() else 0
    if not ctx.in_graph:
        ctx.kept, gradients = gradients, []
    ctx.save_for_backward(*tensors, *gradients)


def take(ctx, upstream):
    """The tensors that `keep` saved, and its gradients times `upstream`; without these (any more) an empty list.

    The first backward takes them out of `ctx`. So nothing else refers to them: they may be changed in place here, and
    whoever gets them (a hook, .grad, to which autograd adds) may do the same. A second backward evaluates anew.
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
    if gradients and not _is_plain(upstream):  # fake: it has no value
        return tensors, [scaled(gradient, upstream.detach()) for gradient in gradients]
    if gradients and (factor := upstream.item()) != 1:
        if not math.isfinite(factor):
            return tensors, [scaled(gradient, upstream.detach()) for gradient in gradients]
        for gradient in gradients:
            gradient.mul_(factor)
    return tensors, gradients


class Evaluation(torch.autograd.Function):
    """tare::loss with its gradient. apply(spec, value, whether to keep the gradient of this pass, number of levels,
    whether the last tensor is a state, *logits, *other tensors)."""

    @staticmethod
    def forward(ctx, spec, value, keeps, count, has_state, *tensors):
        asked = spec + " keep-gradient=1" if keeps else spec
        results = torch.ops.tare.loss(list(tensors[:count]), list(tensors[count:]), asked, value)
        gradients = results[1 : 1 + count] if keeps else []
        results = results[:1] + results[1 + count :] if keeps else results
        ctx.spec, ctx.value, ctx.count, ctx.has_state = spec, value, count, has_state
        ctx.set_materialize_grads(False)
        if has_state:  # the density of this pass, whatever becomes of the state until backward
            ctx.spec = spec + " given=1"
            ctx.mark_non_differentiable(results[-1])
            tensors = (*tensors[:-1], results[-1])
        keep(ctx, gradients, tensors)
        return tuple(results)

    @staticmethod
    def backward(ctx, *upstream):
        upstream = upstream[: len(upstream) - ctx.has_state]
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            _, inputs, _, gradients = Evaluation.gradients(ctx, upstream)
        else:  # create_graph=True
            with torch.no_grad():
                logits, inputs, upstream, gradients = Evaluation.gradients(ctx, upstream)
            derivative = functools.partial(_by_upstream, ctx.spec, ctx.value, ctx.count)
            gradients = as_linear(gradients, upstream, logits, inputs, derivative)
        return (None, None, None, None, None, *gradients, *[None] * len(inputs))

    @staticmethod
    def gradients(ctx, upstream):
        """Logits, other tensors, what came from above with zeros for what is missing, and the gradients."""
        tensors, gradients = take(ctx, upstream[0])
        logits, inputs, upstream = list(tensors[: ctx.count]), list(tensors[ctx.count :]), list(upstream)
        if not gradients:
            if any(above is None for above in upstream):
                losses = torch.ops.tare.loss(logits, inputs, ctx.spec, ctx.value)
                upstream = [torch.zeros_like(one) if above is None else above for above, one in zip(upstream, losses)]
            gradients = torch.ops.tare.gradient(logits, inputs, upstream, ctx.spec, ctx.value)
        return logits, inputs, upstream, gradients


def _train(logits, inputs, spec, value):
    """tare::loss where it is called by itself and a gradient is wanted."""
    check_constants(inputs)
    plain = spec.replace(" keep-gradient=1", "")
    results = list(Evaluation.apply(plain, value, False, len(logits), "state" in read_spec(spec).singles,
                                    *logits, *inputs))  # fmt: skip
    if plain == spec:
        return results
    with torch.no_grad():  # a graph that keeps the gradient has it among the results
        return results[:1] + torch.ops.tare.loss(logits, inputs, spec, value)[1 : 1 + len(logits)] + results[1:]


derive(torch.ops.tare.loss.default, _train)
derive(torch.ops.tare.gradient.default, no_second_derivative)


def evaluate(spec, value, levels, arrays, singles):
    """tare::loss with its gradient: the losses and, behind them, the state if `singles` has one."""
    inputs = [*arrays, *as_c(singles)]
    if not (torch.is_grad_enabled() and any(level.requires_grad for level in levels)):
        return torch.ops.tare.loss(levels, inputs, spec, value)
    keeps = levels[0].device.type == "cpu" and levels[0].dtype in KEPT and " reduction=sum " in spec
    return Evaluation.apply(spec, value, keeps, len(levels), "state" in singles, *levels, *inputs)


def as_c(singles):
    """Tensors that are no level's as C has them: float32 and contiguous, but for the state."""
    return [one if key == "state" else one.to(torch.float32).contiguous() for key, one in singles.items()]
