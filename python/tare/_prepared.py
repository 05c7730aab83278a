# SPDX-License-Identifier: Apache-2.0
"""Calls of a loss that were made before. One with the same settings, and with tensors of the same layout, skips the
checks and the text, and fills structs that exist.

Only values may differ from call to call: of the tensors, and of a normalizer that is a number. What checks values is
done in every call. It serves eager calls alone; a graph needs the operators, and so does whoever watches operators.

A call is found by a key of its constants and of its tensors' layouts. One that was found so is later found by its
constants and a guard of its tensors (_guards), which spares their layouts.
"""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

from . import _call, _guards, _ops, _spec, _tensors

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_ANY_NUMBER = object()
_CONSTANT = {int, float, bool, str, type(None), object}  # whose type and equality say all
_KEYED = {*_PLAIN, list, tuple}
_places: dict = {}  # types of values -> where in them are no constants; never removed, because keys hold the lists' ids
_readable: dict = {}  # dispatch keys -> _is_readable
_MOST = 512  # calls; detectors with images of many sizes make new ones all the time
_calls: dict = {}
_MOST_GUARDED = 4  # calls that differ in layouts alone; a guard that says no costs a third of a microsecond
_guarded: dict = {}  # outlines -> pairs of a guard and its call
_found: dict = {}  # outlines -> the call that was last found by its key
# How a tensor of the operator comes from the arguments.
_as_it_is, _converted, _widened, _split, _fresh_state, _as_bytes = range(6)

try:
    _C = torch._C
    _is_batched = _C._functorch.is_legacy_batchedtensor
    _keys_of, _transforms = _C._dispatch_keys, _C._are_functorch_transforms_active
    _dispatch_modes, _function_modes = _C._len_torch_dispatch_stack, _C._len_torch_function_stack
    _profiling = _C._autograd._profiler_enabled
    _as_constant = getattr(_C.DispatchKeySet, "raw_repr", repr)  # a number; in PyTorch 2.4 their names
    _tracing, _known = _C._is_tracing, True
except AttributeError:  # a PyTorch without these: every call is checked
    _known = False


def is_eager():
    """Whether nothing watches, traces or transforms operators now."""
    return not (
        torch.compiler.is_compiling()
        or not _known
        or _tracing()
        or forward_ad._current_level >= 0
        or _dispatch_modes()
        or _function_modes()
        or _transforms()
        or _profiling()
    )


def _is_readable(tensor, keys):
    """Whether the library may read the memory of a tensor as it is: it is a dense one, in no wrapper, of a CPU or GPU.

    keys: its dispatch keys, as a constant; they tell all this.
    """
    if (known := _readable.get(keys)) is None:
        known = tensor.layout == torch.strided and tensor.device.type in ("cpu", "cuda")
        odd = tensor.is_quantized, tensor.is_nested, tensor.is_neg(), tensor.is_conj(), tensor._is_zerotensor()
        known = known and not (any(odd) or _tensors.is_wrapped(tensor) or torch._is_functional_tensor(tensor))
        _readable[keys] = known
    return known


def _layout(tensor):
    """All of a tensor but its values; None if the library may not read it."""
    keys = _as_constant(_keys_of(tensor))
    if not (_readable.get(keys) or _is_readable(tensor, keys)) or type(tensor) not in _PLAIN:
        return None
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.get_device(), keys, tensor.requires_grad


def find(name, logits, labels, options):
    """A call that was made before, or None; its key, or None if it has none or if none is needed; and its tensors in
    the order of the arguments."""
    if type(options.get("normalizer")) in (int, float):
        options = {**options, "normalizer": _ANY_NUMBER}  # the value is not part of the call
    values, listed, tensors = [name, logits, labels, *options, *options.values()], [], []
    outline = _outline(values, listed) if _guards.make else None
    for fits, call in _guarded.get(outline, ()):
        if fits(*listed):
            return call, None, listed
    key = _key(values, tensors)
    if key is None:
        return None, None, []
    call = _calls.get(key)
    if call is not None and outline is not None and len(listed) == len(tensors):  # tensors only
        _guard(outline, call, listed)
    return call, key, tensors


def _outline(values, tensors):
    """Values, without what a guard says of tensors; None if one has no place in a key. Appends the tensors, and what
    stands beside them in their lists.

    The types of the values, which the last one stands for, and the lengths of the lists say how many are appended.
    """
    kinds = tuple(map(type, values))
    places = _places.get(kinds)
    if places is None:  # no such call was made
        return None
    values = [*values]
    for index in places:
        value = values[index]
        if kinds[index] in _PLAIN:
            values[index] = None
            tensors.append(value)
        elif value and type(value[0]) in _PLAIN:
            values[index] = len(value)
            tensors += value
        elif (key := _key([*value], tensors)) is None:
            return None
        else:
            values[index] = key
    # Without grad mode a guard does not see who wants a gradient.
    asks = torch.is_grad_enabled() or tuple([getattr(one, "requires_grad", None) for one in tensors])
    return (*values, asks, id(places))


def _guard(outline, call, tensors):
    """Lets a call that was found by its key be found by a guard, too. Where calls of many layouts take turns, only one
    that was found twice running takes the place of another."""
    known, again = _guarded.get(outline, ()), _found.get(outline) is call
    _found[outline] = call
    if again or len(known) < _MOST_GUARDED:
        _guarded[outline] = ((_guards.make(tensors), call), *known[: _MOST_GUARDED - 1])


def _key(values, tensors):
    """Values, with layouts for tensors; None if one has no place in a key. Appends the tensors."""
    kinds = tuple(map(type, values))
    places = _places.get(kinds)
    if places is None:
        places = [index for index, kind in enumerate(kinds) if kind not in _CONSTANT]
        if not all(kinds[index] in _KEYED for index in places):
            return None
        places = _places.setdefault(kinds, places)
    for index in places:
        value = values[index]
        if kinds[index] in _PLAIN:
            values[index] = layout = _layout(value)
            tensors.append(value)
        else:
            values[index] = layout = _key([*value], tensors)
        if layout is None:
            return None
    values.append(id(places))  # it stands for the types; without them 1 and True are equal
    return tuple(values)


def keep(key, call):
    if len(_calls) >= _MOST:
        forget()
    _calls[key] = call


def forget():
    """Drops every call that is kept."""
    for kept in (_calls, _guarded, _found):
        kept.clear()


class Call:
    """A call that passed all checks, to be made again with other values."""

    def __init__(self, spec, reduction, keep, levels, arrays, singles, recipe, results):
        """levels, arrays, singles, keep: as for _ops.evaluate. recipe: see recipe_of. results: what of the losses is
        returned: a number of them, or None for the first alone."""
        self.count, self.recipe, self.results = len(levels), recipe, results
        self.direct = all(way is _as_it_is and place == index for index, (way, place) in enumerate(recipe, len(levels)))
        self.has_state, self.has_sums = "state" in singles, _spec.read_spec(spec).constants
        self.wants = any(level.requires_grad for level in levels)
        self.keeps = keep and _ops.keeps_gradient(levels, reduction)
        self.spec = _spec.with_setting(spec, _spec.STORED_DENSITY, 1) if self.has_state else spec  # of backward
        self.alone, self.later = _spec.read_spec(spec), _spec.read_spec(self.spec)
        self.both = _spec.read_spec(_spec.with_setting(spec, _spec.KEEPS_GRADIENT, 1)) if self.keeps else self.alone
        self.pools = [], [], []  # of the three above
        self.weighted: dict = {}  # layouts of what comes from above -> pools of the third
        plain = reduction == "sum" and not self.has_state and not self.has_sums
        self.scalar = levels[0].new_empty((), dtype=_tensors.wide(levels[0].dtype)) if plain else None  # a model
        self.layout = [_layout(one) for one in (*levels, *arrays, *_tensors.as_c(singles))]
        self.fits = None  # a guard of the same

    def __call__(self, tensors, value, state):
        tensors = tensors if self.direct else [*tensors[: self.count], *self._inputs(tensors)]
        if self.wants and torch.is_grad_enabled():
            results = TareLoss.apply(self, value, tensors, *tensors[: self.count])
            if self.scalar is not None:
                return results
        else:
            results = self.losses(tensors, value, False)
        if state is not None:
            state.copy_(results[-1])
        losses = results[0] if self.results is None else list(results[: self.results])
        first = self.results or 1
        return (losses, *results[first : first + self.has_sums]) if self.has_sums else losses

    def _inputs(self, tensors):
        for way, place in self.recipe:
            if way is _as_it_is:
                yield tensors[place]
            elif way is _converted:
                yield tensors[place].to(torch.float32).contiguous()
            elif way is _as_bytes:
                yield tensors[place].to(torch.uint8).contiguous()
            elif way is _widened:
                yield tensors[place[0]].to(place[1])
            elif way is _split:
                yield from torch.split(tensors[place[0]].to(place[2]), place[1], -1)
            else:
                yield torch.zeros(place[0], dtype=torch.int64, device=place[1])

    def losses(self, tensors, value, keeps):
        count = self.count
        logits, inputs = tensors[:count], tensors[count:]
        read, pool = (self.both, self.pools[0]) if keeps else (self.alone, self.pools[1])
        if self.scalar is None:
            return _ops.losses_of(read, list(logits), list(inputs), value, pool)
        loss = torch.empty_like(self.scalar)
        if not keeps:
            _call.run(read, value, logits, inputs, loss=loss, pool=pool)
            return [loss]
        gradients = [torch.empty_like(one) for one in logits]
        _call.run(read, value, logits, inputs, loss=loss, pool=pool, gradient=gradients)
        return [loss, *gradients]

    def gradients(self, logits, inputs, upstream, value):
        """As tare::gradient. [] if the tensors are not those of the call any more (their .data was set), or if somebody
        watches the operators."""
        if not is_eager() or not self._is_of([*logits, *inputs]) or None in map(_layout, upstream):
            return []
        return _ops.gradients_of(self.later, logits, inputs, upstream, value, self._pool_for(upstream))

    def _pool_for(self, upstream):
        """A pool for what comes from above. With the reduction "rows" or "none" it is a weight, whose layout counts."""
        if self.later.reduction == "sum":
            return self.pools[2]
        layout = tuple([(one.stride(), one.dtype) for one in upstream])
        if layout not in self.weighted and len(self.weighted) == _MOST_GUARDED:
            self.weighted.clear()
        return self.weighted.setdefault(layout, [])

    def _is_of(self, tensors):
        if self.fits is not None and self.fits(*tensors):
            return True
        known = [_layout(one) for one in tensors] == self.layout
        if known and _guards.make:
            self.fits = _guards.make(tensors)  # in backward, where all are without grad mode
        return known


class TareLoss(_ops.TareLoss):
    """_ops.TareLoss without the operators. apply(a Call, value, all tensors, *logits): what has no gradient is no
    argument of its own, because each one takes time."""

    if "apply" in vars(torch._C._FunctionBase):  # as in PyTorch 2.15; an earlier one first looks for torch.func, slowly
        apply = vars(torch._C._FunctionBase)["apply"]

    @staticmethod
    def forward(ctx, call, value, tensors, *logits):
        results = call.losses(tensors, value, call.keeps)
        if call.scalar is None:
            return _finish(ctx, call, value, tensors, results)
        ctx.call, ctx.value, ctx.kept = call, value, results[1:]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        return results[0]

    @staticmethod
    def backward(ctx, *upstream):
        gradients, above = getattr(ctx, "kept", ()), upstream[0]
        plain = type(above) is torch.Tensor and not (torch.is_grad_enabled() or _is_batched(above))
        if gradients and plain and is_eager():
            _ = ctx.saved_tensors  # PyTorch checks here that they are still there, and unchanged
            if above.dtype is torch.float32:
                ctx.kept = ()
                if above.is_cuda or above.item() != 1:  # a GPU is not waited for; the kernel looks whether it is 1
                    _call.scale_gradients(gradients, above)
                return (None, None, None, *gradients)
        call = ctx.call
        ctx.spec, ctx.count, ctx.has_state, ctx.in_graph = call.spec, call.count, call.has_state, 0
        ctx.constants = int(call.has_state) + int(call.has_sums)
        gradients = _ops.TareLoss.backward(ctx, *upstream)
        return (None, None, None, *gradients[6 : 6 + call.count])


def _finish(ctx, call, value, tensors, results):
    has = call.has_state, call.has_sums
    return _ops.TareLoss.finish(ctx, call, call.spec, value, call.keeps, call.count, *has, tensors, results)


def recipe_of(tensors, levels, arrays, given, singles):
    """How arrays and singles come from the tensors of the arguments: pairs of a way and a place; None if otherwise.

    tensors: of the arguments, as key_of gives them; arrays: by level; given: the arguments that these come from.
    """
    places = {id(one): index for index, one in enumerate(tensors)}
    if len(places) != len(tensors):
        return None  # one tensor in two roles: the next call may have two
    recipe = []
    for index, whole in enumerate(given):
        parts = arrays[index * len(levels) : (index + 1) * len(levels)]
        split = id(whole) in places and len(levels) > 1
        wholes = [whole] if id(whole) in places else whole
        if any(part.dtype != one.dtype and one.dtype not in _tensors.WIDER for part, one in zip(parts, wholes)):
            return None  # the values of a weight that is converted are checked
        if split:
            recipe.append((_split, (places[id(whole)], [part.shape[-1] for part in parts], parts[0].dtype)))
        else:
            for part, one in zip(parts, wholes):
                place = places[id(one)]
                recipe.append((_as_it_is, place) if part is one else (_widened, (place, part.dtype)))
    for key, one in singles.items():
        place = places.get(id(one))
        if place is None and key == "state":
            recipe.append((_fresh_state, (one.numel(), one.device)))
        elif key == "state" or (one.dtype == _tensors.dtype_of_single(key) and one.is_contiguous()):
            recipe.append((_as_it_is, place))
        else:
            recipe.append((_as_bytes if key == "class_mask" else _converted, place))
    used = {place[0] if way in (_split, _widened) else place for way, place in recipe if way is not _fresh_state}
    return recipe if used == set(range(len(levels), len(tensors))) else None  # else a number was read from a tensor
