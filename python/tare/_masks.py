# SPDX-License-Identifier: Apache-2.0
"""The loss of masks: its arguments as the C structs have them, and the function for NumPy arrays."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _arrays, _c, _checks, _structs

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

NORMALIZERS = {"sum": 0, "masks": 2}
U8 = 4  # a tare_mask_target
DEFAULTS = dict(zip(_structs.MASK_NUMBERS, (0.5, 0.5, 1.0, 0.5, 0.5, 1.0, 0.0, 0.25, 2.0)))


def numbers_of(given: dict[str, Any]) -> list[float]:
    """The parameters in the order of the struct; alpha None is off."""
    found = {**DEFAULTS, **given}
    found["alpha"] = -1.0 if found["alpha"] is None else found["alpha"]
    return [_checks.number(name, found[name]) for name in _structs.MASK_NUMBERS]


def make_spec(numbers: list[float], squared: bool) -> Any:
    spec = _structs.MaskSpec()
    _c.library.tare_mask_spec_init_sized(spec, ctypes.sizeof(spec))
    for name, value in zip(_structs.MASK_NUMBERS, numbers):
        setattr(spec, name, value)
    spec.squared = int(squared)
    return spec


def make_masks(masks: int, pixels: int, **fields: Any) -> Any:
    made = _structs.Masks()
    _c.library.tare_masks_init_sized(made, masks, pixels, ctypes.sizeof(made))
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def make_output(pixels: int, normalizer: int, value: float, **fields: Any) -> Any:
    made = _structs.MaskOutput()
    _c.library.tare_mask_output_init_sized(made, pixels, ctypes.sizeof(made))
    made.normalizer, made.normalizer_value = normalizer, value
    for name, one in fields.items():
        setattr(made, name, one)
    return made


def divisor_of(normalizer: Any) -> tuple[int, float]:
    """The tare_normalizer of a word or a number, and the number."""
    if isinstance(normalizer, str):
        return NORMALIZERS[_checks.word("normalizer", normalizer, NORMALIZERS, ", or a number")], 1.0
    return _c.VALUE, _checks.number("normalizer", normalizer)


def workspace_size(context: Any, masks: Any) -> int:
    size = ctypes.c_uint64()
    _c.check(_c.library.tare_mask_workspace_size(context, masks, size), context)
    return size.value


class MaskResult(NamedTuple):
    """What tare.mask_loss returns: scalars, [masks] arrays, and the gradient (None where it was not asked for)."""

    loss: float
    overlap_loss: float
    focal_loss: float
    mask_losses: np.ndarray
    sums: np.ndarray
    gradient: np.ndarray | None


_SUMS = np.dtype(
    [(name, np.float64) for name in ("true_positives", "false_positives", "false_negatives", "focal")]
    + [(name, np.int64) for name in ("pixels", "reserved")]
)


def _rows(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.shape != shape:
        raise ValueError(f"{name} have shape {array.shape}, logits {shape}; they must be equal")
    return np.ascontiguousarray(array).reshape(shape[0], -1 if 0 not in shape else 0)


def _targets(given: ArrayLike) -> tuple[np.ndarray, int]:
    targets = _arrays.as_array("targets", given)
    if targets.dtype == np.bool_:
        targets = targets.view(np.uint8)
    if targets.dtype == np.uint8:
        return targets, U8
    if targets.dtype.kind in "iu":
        targets = targets.astype(np.float32)
    if targets.dtype.name not in _arrays.DTYPES:
        raise _checks.WrongType(f"targets are {targets.dtype}; they must be bool, integers or floating-point numbers")
    return targets, _arrays.DTYPES[targets.dtype.name]


def mask_loss(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    valid: ArrayLike | None = None,
    mask_weights: ArrayLike | None = None,
    ignore_target: int = -1,
    squared: bool = False,
    normalizer: str | float = "sum",
    gradient: bool = False,
    gradient_scale: float = 1.0,
    threads: int = 0,
    **parameters: float | None,
) -> MaskResult:
    """Dice, Tversky or focal Tversky loss of masks, and focal loss. Both come from the same reads of the logits.

        result = tare.mask_loss(logits, masks, focal_weight=20.0, normalizer="masks", gradient=True)

    For each mask T = (TP + numerator_smoothing)/(TP + false_positive_weight*FP + false_negative_weight*FN +
    denominator_smoothing), with TP = sum p*t, FP = sum p*(1-t), FN = sum (1-p)*t and p = sigmoid(logits). Its loss is
    mask_weight*(overlap_weight*(1-T)**exponent + focal_weight*focal), where `focal` is the mean of its pixels' sigmoid
    focal losses. The defaults, weights and smoothings of 1/2, are dice loss with a smoothing of 1.

    logits: [masks, ...] of float32, float16, bfloat16 or float64. targets: of the same shape, bool, integers or floats
    in [0,1]. valid: of the same shape; where it is 0 a pixel does not count. mask_weights: [masks]. ignore_target: of
    uint8 targets, 2..255: such a pixel does not count; -1: none. squared: p and t are squared in the denominator, as in
    V-Net. normalizer: "sum", "masks" (the number of masks that count, at least 1), or a number that divides.
    gradient_scale: a factor of the gradient. threads: 0: OMP_NUM_THREADS, or all processors.

    parameters: false_positive_weight, false_negative_weight, exponent, numerator_smoothing, denominator_smoothing,
    overlap_weight, focal_weight, alpha (None: off), gamma; include/tare.h, section 12, has their ranges.

    Raises tare.ArgumentError (a ValueError) for what is out of range. `sums` has a record for each mask:
    true_positives, false_positives, false_negatives, focal, pixels.
    """
    for name in parameters:
        if name not in DEFAULTS:
            raise _checks.WrongType(f"{name} is no parameter; they are: {', '.join(DEFAULTS)}")
    x, (t, target_dtype) = _arrays.as_array("logits", logits), _targets(targets)
    if x.dtype.name not in _arrays.DTYPES or not x.ndim:
        raise _checks.WrongType(f"logits are {x.dtype} of shape {x.shape}; they must be floats [masks, ...]")
    rows, wide = _rows("logits", x, x.shape), np.float64 if x.dtype == np.float64 else np.float32
    t = _rows("targets", t, x.shape)
    counts = None if valid is None else _rows("valid", _arrays.as_array("valid", valid), x.shape).astype(bool)
    weights = None if mask_weights is None else np.ascontiguousarray(_arrays.as_float32("mask_weights", mask_weights))
    if weights is not None and weights.shape != x.shape[:1]:
        raise ValueError(f"mask_weights have shape {weights.shape}; there are {len(x)} masks")
    losses, by_x = np.zeros(3), np.empty_like(rows) if gradient else None
    of_masks, sums = np.zeros(len(x), wide), np.zeros(len(x), _SUMS)
    kind, value = divisor_of(normalizer)
    masks = make_masks(
        *rows.shape,
        **{name: one.ctypes.data for name, one in (("logits", rows), ("targets", t))},
        valid=None if counts is None else counts.ctypes.data,
        mask_weights=None if weights is None else weights.ctypes.data,
        dtype=_arrays.DTYPES[x.dtype.name],
        target_dtype=target_dtype,
        ignore_target=_checks.integer("ignore_target", ignore_target, -1, 255),
    )
    output = make_output(
        rows.shape[1],
        kind,
        value,
        loss_dtype=_c.F64,
        gradient_scale=_checks.number("gradient_scale", gradient_scale),
        gradient=None if by_x is None else by_x.ctypes.data,
        mask_loss=of_masks.ctypes.data,
        sums=sums.ctypes.data,
    )
    output.loss, output.overlap_loss, output.focal_loss = (losses.ctypes.data + 8 * i for i in range(3))
    spec = make_spec(numbers_of(parameters), _checks.flag("squared", squared))
    _run(_c.context(threads=_checks.integer("threads", threads, 0, 1024)), spec, masks, output)
    loss, overlap, focal = losses.tolist()
    return MaskResult(loss, overlap, focal, of_masks, sums, None if by_x is None else by_x.reshape(x.shape))


def _run(context: Any, spec: Any, masks: Any, output: Any) -> None:
    size = workspace_size(context, masks)
    room = np.empty(size + 16, np.uint8)
    start = -(-room.ctypes.data // 16) * 16
    try:
        _c.check(_c.library.tare_context_set_workspace(context, start, size), context)
        _c.check(_c.library.tare_mask_evaluate(context, spec, masks, output, None), context)
    finally:
        _c.library.tare_context_set_workspace(context, None, 0)
