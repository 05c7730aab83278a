# SPDX-License-Identifier: Apache-2.0
"""PyTorch's view of Tare: the custom operators tare::loss and tare::gradient, and the autograd function around them.

An operator takes the logits, all other tensors in one list, and a `spec`: a line of key=value that says what these are
and how to evaluate them. It is text so that torch.compile carries it as a constant, and people can read it in a graph.
A number that normalises comes beside it, since it may differ from step to step.
"""

import functools
from types import SimpleNamespace

import torch

from . import _batch, _c

DTYPES = {torch.float32: _c.F32, torch.float16: _c.F16, torch.bfloat16: _c.BF16, torch.float64: _c.F64}
KEPT = (torch.float32, torch.float64, torch.bfloat16)  # whose range lets a gradient be kept and scaled later
LABEL_DTYPES = {torch.int32: _c.I32, torch.int64: _c.I64}
_ROWS = ("labels", "row_weights", "row_loss")  # per-level arrays without a class axis
_BATCH = ("first_label", "background_label", "ignore_label", "background_weight")

_torch = SimpleNamespace(strides=torch.Tensor.stride, pointer=torch.Tensor.data_ptr)

# ---- arguments ------------------------------------------------------------------------------------------------------


def per_level(name, given, levels, several, classes):
    """One tensor a level, of what was given for all of them; weights as float32."""
    if not several:
        arrays = [given]
    elif isinstance(given, torch.Tensor):
        lengths = [_batch.lengths(level.shape, classes) for level in levels]
        arrays = _batch.shares(given, lengths, lambda whole, rows: torch.split(whole, rows, -1))
    else:
        arrays = given
    if len(arrays) != len(levels):
        raise ValueError(f"{name} has {len(arrays)} levels, logits have {len(levels)}")
    return [array.to(torch.float32) if name.endswith("weights") else array for array in arrays]


def check_arguments(sources, arrays, singles):
    """Tensors of one device, and no gradient asked for but by the sources (the logits, or what they are made of)."""
    device = sources[0].device
    for tensor in (*sources, *arrays, *singles.values()):
        if tensor.device != device:
            raise ValueError(f"tensors are on {device} and {tensor.device}; all must be on one device")
    for tensor in (*arrays, *singles.values()):
        if tensor.requires_grad:
            raise ValueError("only logits get a gradient; detach() the targets, weights or normaliser that ask for one")
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
    unit_regions = parameters.get("density", "unit-region") in ("unit-region", 0)
    return name.startswith("ghm") and unit_regions and not parameters.get("momentum") and not parameters.get("given")


@torch.compiler.assume_constant_result
def default_bins(name):
    _, member = _c.make_loss(name, {})
    return member.bins


# ---- the spec -------------------------------------------------------------------------------------------------------


def write_spec(settings, arrays, singles):
    """settings, the names of the per-level arrays, and those of the single tensors, as one line."""
    words = [f"{key}={int(value) if isinstance(value, bool) else value}" for key, value in settings.items()]
    for word in words:
        if " " in word:
            raise ValueError(f"{word}: a name or a number has no space in it")
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
        batch={key: _number(take(key)) for key in _BATCH})  # fmt: skip
    read.parameters = {key: _number(value) for key, value in settings.items()}
    if read.reduction not in ("sum", "rows", "none", "histogram"):  # the last is of ghm_histogram alone
        raise ValueError(f"reduction is '{read.reduction}'; it is one of: sum, rows, none")
    read.ghm = read.loss.startswith("ghm")
    read.keep = bool(read.parameters.pop("keep-gradient", 0))  # no name that a caller can give
    if read.reduction == "none" and read.loss.startswith("softmax"):
        read.reduction = "rows"
    return read


# ---- calling the library --------------------------------------------------------------------------------------------


def raw_stream(index):
    return torch._C._cuda_getCurrentRawStream(index)


def _capturing(index):
    with torch.cuda.device(index):
        return torch.cuda.is_current_stream_capturing()


def context_of(device):
    """This thread's context for the current stream of a device, and that stream."""
    if device.type == "cpu":
        return _c.context(threads=torch.get_num_threads()), None
    stream = raw_stream(device.index)  # now: the current stream is another one tomorrow
    return _c.context(_c.CUDA, device.index, stream, capturing=lambda: _capturing(device.index)), stream


def _one_dtype(name, tensors, known):
    kinds = {tensor.dtype for tensor in tensors}
    if len(kinds) != 1 or not kinds <= known.keys():
        raise ValueError(f"{name} are {', '.join(sorted(map(str, kinds)))}; they must be one of: "
                         f"{', '.join(map(str, known))}")  # fmt: skip
    return known[kinds.pop()]


def _pointers(read, singles, classes):
    """The single tensors' pointers by name, and the parameters of the loss with those that belong there."""
    for name in ("class_weights", "positive_weights", "alpha_per_class"):
        if name in singles and singles[name].numel() != classes:
            raise ValueError(f"{name} has {singles[name].numel()} elements; there are {classes} classes")
    pointers = {name: tensor.data_ptr() for name, tensor in singles.items()}
    parameters = dict(read.parameters)
    for name in ("alpha_per_class", "state"):
        if name in pointers:
            parameters[name] = pointers.pop(name)
    return pointers, parameters


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

    pointers, parameters = _pointers(read, singles, levels[0].lengths[4])
    loss, member = _c.make_loss(read.loss, parameters)
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
    _c.check(_c.library.tare_evaluate(context, problem.loss, problem.batch, problem.output, stream), context)
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
    loss, member = _c.make_loss(name, {**parameters, "state": state.data_ptr()})
    check_state(state, member.bins)
    context, stream = context_of(state.device)
    _c.check(_c.library.tare_ghm_density_update(context, loss, stream), context)


def check_state(state, bins):
    if state.dtype != torch.int64 or not state.is_contiguous():
        raise ValueError("state must be a contiguous int64 tensor, as ghm_state makes it")
    if state.numel() != 2 + 3 * bins:
        raise ValueError(f"state has {state.numel()} words; {bins} bins need {2 + 3 * bins}")


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
    losses, gradients, states = _new_losses(read, logits), _new_gradients(read, logits), []
    if "state" in read.singles:
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
    # What comes from above is one weight more for each row or element.
    name = "row_weights" if read.reduction == "rows" else "element_weights"
    if name in read.arrays:
        first = read.arrays.index(name) * len(logits)
        own = inputs[first : first + len(logits)]
        upstream = [above * _in_shape(name, weight, above, read.classes) for above, weight in zip(upstream, own)]
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
    return [(gradient * factor).to(one.dtype) for gradient, factor, one in zip(gradients, factors, logits)]


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


class _Constant(torch.autograd.Function):
    """Gradients that refuse to be differentiated: PyTorch would take them for constants and say nothing."""

    @staticmethod
    def forward(ctx, count, *tensors):
        return tuple(gradient.view_as(gradient) for gradient in tensors[:count])

    @staticmethod
    def backward(ctx, *upstream):
        raise RuntimeError("Tare computes no second derivatives")


def refuse_derivatives(gradients, sources):
    """The same gradients (or None), as functions of `sources` that have no derivative."""
    given = [gradient for gradient in gradients if gradient is not None]
    refusing = iter(_Constant.apply(len(given), *given, *sources))
    return [None if gradient is None else next(refusing) for gradient in gradients]


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
        return tensors[:split], [gradient * upstream for gradient in tensors[split:]]
    if upstream is None or torch.compiler.is_compiling():
        return tensors, []
    gradients = vars(ctx).pop("kept", [])
    if gradients and (factor := upstream.item()) != 1:
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
        tensors, gradients = take(ctx, upstream[0])
        logits, inputs = list(tensors[: ctx.count]), list(tensors[ctx.count :])
        upstream = upstream[: len(upstream) - ctx.has_state]
        if not gradients:
            if any(above is None for above in upstream):
                losses = torch.ops.tare.loss(logits, inputs, ctx.spec, ctx.value)
                upstream = [torch.zeros_like(one) if above is None else above for above, one in zip(upstream, losses)]
            gradients = torch.ops.tare.gradient(logits, inputs, list(upstream), ctx.spec, ctx.value)
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # create_graph=True
            gradients = refuse_derivatives(gradients, (*logits, *upstream))
        return (None, None, None, None, None, *gradients, *[None] * len(inputs))


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
