# SPDX-License-Identifier: Apache-2.0
"""Calls of the library with tensors: its structs, contexts, streams and workspace."""

from __future__ import annotations

import contextlib
import itertools
from types import SimpleNamespace

import torch

from . import _batch, _c, _losses, _spec, _tensors, _threads

DTYPES = {torch.float32: _c.F32, torch.float16: _c.F16, torch.bfloat16: _c.BF16, torch.float64: _c.F64}
LABEL_DTYPES = {torch.int32: _c.I32, torch.int64: _c.I64}
_ROWS = ("labels", "scores", "row_weights", "row_loss")  # per-level arrays without a class axis

_threads.choose()
_torch = SimpleNamespace(strides=torch.Tensor.stride, pointer=torch.Tensor.data_ptr)


def raw_stream(index):
    return torch._C._cuda_getCurrentRawStream(index)


def context_of(device):
    """This thread's context for the current stream of a device, and that stream."""
    if device.type == "cpu":
        return _c.context(threads=min(torch.get_num_threads(), 1024)), None
    if device.type != "cuda":
        raise ValueError(f"tensors are on {device}; Tare computes on CPUs and on NVIDIA's GPUs")
    stream = raw_stream(device.index)  # now: the current stream is another one tomorrow
    return _c.context(_c.CUDA, device.index, stream), stream


def _context_for(tensor):
    """context_of the device of a tensor."""
    if tensor.is_cpu:  # of a device that has no name to be made of
        return _c.context(_c.CPU, -1, 0, min(torch.get_num_threads(), 1024)), None
    return context_of(tensor.device)


def _one_dtype(name, tensors, known):
    kinds = {tensor.dtype for tensor in tensors}
    if len(kinds) != 1 or not kinds <= known.keys():
        raise ValueError(
            f"{name} are {', '.join(sorted(map(str, kinds)))}; they must be one of: {', '.join(map(str, known))}"
        )
    return known[kinds.pop()]


def _pointers(loss, singles, classes):
    """The single tensors' pointers: those of the loss, and those of batch and output, by name."""
    vectors = {"alpha_per_class", *_losses.vectors_of(loss)}
    of_batch = ("class_weights", "positive_weights", "negative_weights", "background_negative_weights")
    for name in (*of_batch, *sorted(vectors)):
        if name in singles and singles[name].numel() != classes:
            raise ValueError(f"{name} has {singles[name].numel()} elements; there are {classes} classes")
    pointers = {name: tensor.data_ptr() for name, tensor in singles.items()}
    of_loss = {name: pointers.pop(name) for name in (*vectors, "state") if name in pointers}
    return of_loss, pointers


def problem_of(read, value, dtype, shapes, inputs, **arrays):
    """What a call takes: the library's loss, batch and output, and the levels, which keep alive what these point to.
    `works`: whether it needs a workspace.

    shapes: of the logits, level by level; dtype: the library's number of theirs. arrays: per-level arrays besides those
    among `inputs`, or instead of them.
    """
    count = len(shapes)
    arrays = {name: inputs[i * count : (i + 1) * count] for i, name in enumerate(read.arrays)} | arrays
    singles = dict(zip(read.singles, inputs[count * len(read.arrays) :]))
    levels = [_batch.Level(_torch, shape, read.classes) for shape in shapes]
    for name, tensors in arrays.items():
        place = _batch.Level.rows if name in _ROWS else _batch.Level.elements
        if name == "scores" and _losses.DESCRIPTIONS[read.loss].takes_bins == 2:
            place = _batch.Level.pairs
        for level, tensor in zip(levels, tensors):
            place(level, name, tensor)
    label_dtype = _one_dtype("labels", arrays["labels"], LABEL_DTYPES) if "labels" in arrays else _c.I32
    target_dtype = _one_dtype("targets", arrays["targets"], DTYPES) if "targets" in arrays else _c.F32
    score_dtype = _one_dtype("scores", arrays["scores"], DTYPES) if "scores" in arrays else _c.F32

    of_loss, pointers = _pointers(read.loss, singles, levels[0].lengths[4])
    loss = _losses.fill_loss(read.loss, read.parameters, of_loss)
    if "state" in singles:
        _tensors.check_state(singles["state"], _losses.value_of(read.loss, read.parameters, "bins"))
    output = _batch.make_output(value if read.normalizer == "value" else read.normalizer, **read.output)
    output.normalizer_pointer = pointers.pop("normalizer", None)
    apart = {key: pointers.pop(key) for key in list(pointers) if key.startswith(_spec.LEVEL_DIVISOR)}
    if "class_mask" in singles:
        mask = singles["class_mask"]
        pointers |= _batch.mask_options(mask.shape, mask.stride(), levels[0])
    batch = _batch.make_batch(levels, dtype, label_dtype, target_dtype, score_dtype, **read.batch, **pointers)
    _batch.divide_levels([batch.levels[index] for index in range(count)], **read.of_levels)
    for key, pointer in apart.items():
        _level_of(batch, key).divisor_pointer = pointer
    works = _losses.value_of(read.loss, read.parameters, "density") == "exact" or bool(batch.selection) or read.sums
    return SimpleNamespace(loss=loss, batch=batch, output=output, levels=levels, works=works)


def _level_of(batch, name):
    """The level whose divisor a single tensor is."""
    return batch.levels[int(name.removeprefix(_spec.LEVEL_DIVISOR))]


def run(
    read,
    value,
    logits,
    inputs,
    scale=None,
    loss=None,
    sums=None,
    level_losses=None,
    norm_bins=None,
    pool=None,
    **arrays,
):
    """One call of tare_evaluate: into the scalar `loss`, with the gradient times the scalar `scale`, with `sums` of
    each class, and with the gradient norms counted into `norm_bins`.

    pool: a list in which the problem stays for the next call. It is of calls that differ in values and addresses alone.
    """
    try:
        problem = pool.pop() if pool else None  # no other thread has it meanwhile
    except IndexError:  # another thread took the last
        problem = None
    if problem is None:
        shapes = [one.shape for one in logits]
        problem = problem_of(read, value, _one_dtype("logits", logits, DTYPES), shapes, inputs, logits=logits, **arrays)
        problem.slots = None if pool is None else _slots(problem, read, [*inputs, *logits], arrays)
        if loss is not None:
            problem.output.loss_dtype = DTYPES[loss.dtype]
    else:
        tensors = itertools.chain(inputs, logits, *arrays.values())
        for slot, address in zip(problem.slots, map(_torch.pointer, tensors)):
            slot.value = address
        if read.normalizer == "value":
            problem.output.normalizer_value = value
    output = problem.output
    if loss is not None:
        output.loss = loss.data_ptr()
    if sums is not None:
        output.class_sums = sums.data_ptr()
    if norm_bins is not None:
        output.norm_bins, output.norm_histogram = len(norm_bins), norm_bins.data_ptr()
    if level_losses is not None:
        for index, start in enumerate(range(0, level_losses.nbytes, level_losses.itemsize)):
            problem.batch.levels[index].loss = level_losses.data_ptr() + start
    if scale is not None:
        output.gradient_scale_pointer = scale.data_ptr()
    context, stream = _context_for(logits[0])
    if problem.works:
        with lent(context, _workspace_size(context, problem), logits[0]):
            _c.check(_c.library.tare_evaluate(context, problem.loss, problem.batch, output, stream), context)
    elif status := _c.library.tare_evaluate(context, problem.loss, problem.batch, output, stream):
        _c.check(status, context)
    if problem.slots:
        pool.append(problem)  # after an error it is dropped


def _slots(problem, read, tensors, arrays):
    """Where a problem has the pointers of `tensors` and `arrays`.

    None if a pointer is another one, because an array had to be copied. Otherwise what the levels keep alive is let go.
    """
    levels = [problem.batch.levels[index] for index in range(problem.batch.level_count)]
    slots = [_slot(level, name) for name in read.arrays for level in levels]
    parameters = _losses.DESCRIPTIONS[read.loss].parameters
    for name in read.singles:
        if name in parameters:
            slots.append(_c.c_void_p.from_buffer(problem.loss, parameters[name].offset))
        elif name.startswith(_spec.LEVEL_DIVISOR):
            slots.append(_slot(_level_of(problem.batch, name), "divisor_pointer"))
        else:
            place = (problem.output, "normalizer_pointer") if name == "normalizer" else (problem.batch, name)
            slots.append(_slot(*place))
    slots += [_slot(level, name) for name in ("logits", *arrays) for level in levels]
    tensors = [*tensors, *itertools.chain(*arrays.values())]
    if any((slot.value or 0) != one.data_ptr() for slot, one in zip(slots, tensors)):
        return None
    problem.levels = None
    return slots


def _slot(struct, name):
    """A pointer of a struct, to be set without looking for its name."""
    return _c.c_void_p.from_buffer(struct, getattr(type(struct), name).offset)


def count(read, value, logits, inputs):
    """tare_ghm_histogram: into the state, which is the last of `inputs`."""
    shapes = [one.shape for one in logits]
    problem = problem_of(read, value, _one_dtype("logits", logits, DTYPES), shapes, inputs, logits=logits)
    context, stream = context_of(logits[0].device)
    _c.check(_c.library.tare_ghm_histogram(context, problem.loss, problem.batch, stream), context)


def sum_normalizers(read, logits, inputs, sums):
    """tare_evaluate for tare_normalizer_sums alone: it reads no logits."""
    shapes = [one.shape for one in logits]
    problem = problem_of(read, 1.0, _one_dtype("logits", logits, DTYPES), shapes, inputs, logits=logits)
    problem.output.normalizer_sums = sums.data_ptr()
    context, stream = context_of(logits[0].device)
    with lent(context, _workspace_size(context, problem) if problem.works else 0, logits[0]):
        _c.check(_c.library.tare_evaluate(context, problem.loss, problem.batch, problem.output, stream), context)


def update_density(name, state, parameters):
    """tare_ghm_density_update: in place."""
    state = _tensors.state_tensor(state)
    name = _losses.loss_name(name)
    loss, parameters = _losses.make_loss(name, parameters, state=state.data_ptr())
    _tensors.check_state(state, _losses.value_of(name, parameters, "bins"))
    _tensors.check_contents(state)
    context, stream = context_of(state.device)
    _c.check(_c.library.tare_ghm_density_update(context, loss, stream), context)


def scale_gradients(gradients, factor):
    """tare_scale_gradients: dense gradients of one type in place, times a float32 scalar that is read where it is."""
    context, stream = context_of(gradients[0].device)
    count = len(gradients)
    pointers = (_c.c_void_p * count)(*(one.data_ptr() for one in gradients))
    elements = (_c.c_int64 * count)(*(one.numel() for one in gradients))
    dtype = DTYPES[gradients[0].dtype]
    status = _c.library.tare_scale_gradients(context, dtype, count, pointers, elements, factor.data_ptr(), stream)
    _c.check(status, context)


def _workspace_size(context, problem):
    size = _c.c_uint64()
    _c.check(_c.library.tare_workspace_size(context, problem.loss, problem.batch, problem.output, size), context)
    return size.value


@contextlib.contextmanager
def lent(context, size, like):
    """A new workspace on the device of `like`. The context has it until the `with` block ends.

    Then its memory goes back to PyTorch, even after an exception. PyTorch reuses it only after this work.
    """
    if not size:
        yield
        return
    workspace = like.new_empty(size + 16, dtype=torch.uint8)
    start = -(-workspace.data_ptr() // 16) * 16
    try:
        _c.check(_c.library.tare_context_set_workspace(context, start, size), context)
        yield
    finally:
        _c.library.tare_context_set_workspace(context, None, 0)
