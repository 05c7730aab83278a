# SPDX-License-Identifier: Apache-2.0
"""Checks of the tensors that a caller gives, and of a GHM state."""

from __future__ import annotations

from typing import Any

import torch

from . import _batch, _checks, _ghm, _spec

# Integers that the library reads as a wider type. torch.uint64 is none of them: its large values would be other labels.
WIDER = {
    torch.uint8: torch.int32,
    torch.int8: torch.int32,
    torch.int16: torch.int32,
    torch.uint16: torch.int32,
    torch.uint32: torch.int64,
}


def check_tensor(name: str, given: Any) -> torch.Tensor:
    """`given`, which must be a tensor in memory, with the layout of its strides."""
    if not isinstance(given, torch.Tensor):
        raise _checks.WrongType(f"{name} is of type {type(given).__name__}; it must be a tensor")
    if torch.compiler.is_compiling():
        return given
    if type(given).__name__ == "DTensor":
        raise _checks.WrongType(
            f"{name} is a DTensor; give to_local(), and process_group=mesh.get_group() for the divisor of all rows"
        )
    if given.layout != torch.strided or given.is_quantized or given.is_nested:
        raise _checks.WrongType(
            f"{name} is a sparse, quantized or nested tensor; it must be a dense one (to_dense(), "
            "dequantize(), to_padded_tensor())"
        )
    return given


def is_wrapped(tensor: torch.Tensor) -> bool:
    """Whether a tensor is one of torch.func (grad, vmap, jvp), or of batched gradients."""
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
    convert = _float32 if name.endswith("weights") else _wide_labels if name == "labels" else check_tensor
    return [convert(name, array) for array in arrays]


def _wide_labels(name: str, given: Any) -> torch.Tensor:
    """Labels of a type that the library reads, if any integers."""
    given = check_tensor(name, given)
    wider = WIDER.get(given.dtype)
    return given if wider is None else given.to(wider)


def _float32(name: str, given: Any) -> torch.Tensor:
    """Weights as float32. On the CPU, values out of its range are refused."""
    given = check_tensor(name, given)
    if given.is_complex():
        raise _checks.WrongType(f"{name} are {given.dtype}; they must be real numbers")
    narrow = given.to(torch.float32)
    if given.dtype == torch.float64 and is_plain(given) and (lost := narrow.isinf() & ~given.isinf()).any():
        raise ValueError(f"{name} hold {given[lost][0].item():g}, which is not finite in float32")
    return narrow


def real_tensor(name: str, given: Any) -> torch.Tensor:
    """A tensor of one value a class, or of one value, which becomes float32 behind this check."""
    given = check_tensor(name, given)
    if given.is_complex():
        raise _checks.WrongType(f"{name} is {given.dtype}; it must be of real numbers")
    return given


def mask_tensor(given: Any) -> torch.Tensor:
    """A class mask, which becomes uint8 behind this check."""
    given = check_tensor("class_mask", given)
    if given.dtype not in (torch.bool, torch.uint8):
        raise _checks.WrongType(f"class_mask is {given.dtype}; it must be bool or uint8, 0 where a class is masked")
    return given


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor has values now that can be read without waiting for a GPU."""
    return tensor.device.type == "cpu" and has_value(tensor)


def has_value(tensor: torch.Tensor) -> bool:
    """Whether a tensor has memory with values: it is not fake, batched or in a graph."""
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.device.type in ("cpu", "cuda")
    watched = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._len_torch_dispatch_stack()
    return plain and not (watched or _is_pre_dispatch() or is_wrapped(tensor))


def _is_pre_dispatch() -> bool:
    """Whether make_fx(pre_dispatch=True) or torch.export records operators above autograd."""
    return torch._C._dispatch_tls_is_dispatch_key_included(torch._C.DispatchKey.PreDispatch)


def as_c(singles):
    """The tensors that belong to no level, for C: float32 and contiguous, except the state and a mask, which is
    uint8."""
    return [one if key == "state" else one.to(dtype_of_single(key)).contiguous() for key, one in singles.items()]


def dtype_of_single(key):
    return torch.uint8 if key == "class_mask" else torch.float32


def wide(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


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
        is_divisor = name == "normalizer" or name.startswith(_spec.LEVEL_DIVISOR)
        if is_divisor and tensor.numel() != 1:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must have one element")
        if name == "class_mask" and tensor.dim() not in (1, 2):
            raise ValueError(f"class_mask has shape {tuple(tensor.shape)}; it must be [classes] or [images, classes]")
        if not is_divisor and name not in ("state", "class_mask"):
            if tensor.dim() != 1 or classes not in (None, tensor.numel()):
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must be [classes]")
            classes = tensor.numel()


def check_constants(inputs):
    if any(one.requires_grad for one in inputs):
        raise ValueError("only logits get a gradient; detach() the targets, weights or normalizer that ask for one")


def state_tensor(state: Any) -> torch.Tensor:
    """A state as the caller gave it, which is written in place."""
    state = check_tensor("state", state)
    if state.dtype != torch.int64 or state.dim() != 1 or not state.is_contiguous():
        raise ValueError("state must be a contiguous int64 tensor of one axis, as ghm_state makes it")
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
    """Refuses a state on the CPU that Tare did not write. A state on a GPU is not checked, because that would wait."""
    bins = (state.numel() - 2) // 3
    if state.device.type == "cpu" and state.dtype == torch.int64 and bins > 0 and state.shape == (2 + 3 * bins,):
        _ghm.check_state(state.detach().contiguous().numpy(), bins)
