# SPDX-License-Identifier: Apache-2.0
"""Losses of masks: dice, Tversky and focal Tversky, and focal loss with dice, as functions and as modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict, Union

import torch

from .. import _checks, _mask_ops, _masks, _tensors

if TYPE_CHECKING:
    from typing_extensions import Unpack

MaskReduction = Literal["sum", "masks"]
MaskNormalizer = Union[Literal["sum", "masks"], float, torch.Tensor]


class MaskOptions(TypedDict, total=False):
    """What every loss of masks takes; mask_loss explains it."""

    valid: torch.Tensor | None
    mask_weights: torch.Tensor | None
    ignore_target: int
    squared: bool
    normalizer: MaskNormalizer
    reduction: MaskReduction


class MaskLosses(NamedTuple):
    """A loss, and its two parts without their weights. The parts have no gradient."""

    loss: torch.Tensor
    overlap: torch.Tensor
    focal: torch.Tensor


def _as_rows(name: str, given: Any, shape: torch.Size) -> torch.Tensor:
    """[masks, pixels]; the pixels of a mask are contiguous."""
    tensor = _tensors.check_tensor(name, given)
    if tensor.shape != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, logits {tuple(shape)}; they must be equal")
    pixels = 1
    for length in shape[1:]:
        pixels *= length
    rows = tensor.reshape(shape[0], pixels)
    return rows if pixels < 2 or rows.stride(1) == 1 else rows.contiguous()


def _targets_of(given: Any, shape: torch.Size) -> torch.Tensor:
    rows = _as_rows("targets", given, shape)
    if rows.dtype == torch.bool:
        return rows.view(torch.uint8)
    if rows.dtype == torch.uint8 or rows.dtype.is_floating_point:
        return rows
    return rows.to(torch.float32)


def _divisor(normalizer: Any) -> tuple[int, float, torch.Tensor | None]:
    if isinstance(normalizer, torch.Tensor):
        if normalizer.numel() != 1:
            raise ValueError(f"normalizer has shape {tuple(normalizer.shape)}; it must have one element")
        return 5, 1.0, _tensors.real_tensor("normalizer", normalizer).to(torch.float32)
    return *_masks.divisor_of(normalizer), None


def _evaluate(logits: Any, targets: Any, numbers: list[float], options: dict[str, Any]) -> Any:
    """The results of _mask_ops.evaluate. options: those of MaskOptions."""
    for name in options:
        if name not in MaskOptions.__annotations__:
            raise _checks.WrongType(f"{name} is no option; they are: {', '.join(MaskOptions.__annotations__)}")
    x = _tensors.check_tensor("logits", logits)
    if not x.dim() or x.dtype not in _mask_ops.LOGITS:
        raise ValueError(f"logits are {x.dtype} of shape {tuple(x.shape)}; they must be floats [masks, ...]")
    weights, valid = options.get("mask_weights"), options.get("valid")
    if weights is not None:
        weights = _tensors.real_tensor("mask_weights", weights).to(torch.float32).contiguous()
        if weights.shape != x.shape[:1]:
            raise ValueError(f"mask_weights has shape {tuple(weights.shape)}; there are {len(x)} masks")
    if valid is not None:
        valid = (_as_rows("valid", valid, x.shape) != 0).contiguous().view(torch.uint8)
    kind, value, divisor = _divisor(options.get("normalizer", "sum"))
    by_mask = _checks.word("reduction", options.get("reduction", "sum"), ("sum", "masks")) == "masks"
    squared = _checks.flag("squared", options.get("squared", False))
    ignored = _checks.integer("ignore_target", options.get("ignore_target", -1), -1, 255)
    inputs = (_as_rows("logits", x, x.shape), _targets_of(targets, x.shape), valid, weights, divisor)
    for name, one in zip(("targets", "valid", "mask_weights", "normalizer"), inputs[1:]):
        if one is not None and one.device != x.device:
            raise ValueError(f"logits are on {x.device}, {name} on {one.device}; all must be on one device")
        if one is not None and one.requires_grad:
            raise ValueError(f"{name} asks for a gradient, and only logits get one; detach() it")
    return _mask_ops.evaluate(inputs, [*numbers, value], [int(squared), kind, ignored, int(by_mask)])


def _chosen(results: Any, options: dict[str, Any]) -> torch.Tensor:
    return results[3 if options.get("reduction") == "masks" else 0]


def mask_loss(
    logits: torch.Tensor, targets: torch.Tensor, *, parameters: dict[str, Any], **options: Unpack[MaskOptions]
) -> MaskLosses:
    """The loss of masks with all of its parameters, and its two parts. dice_loss and the others are shorter ways to it.

    logits: [masks, ...] of float32, float16, bfloat16 or (on a CPU) float64. targets: of the same shape, bool,
    integers, or floats in [0,1]. parameters: those of tare.mask_loss, by name.

    valid: of the same shape; where it is 0 or False a pixel does not count. mask_weights: [masks]. ignore_target: of
    uint8 targets, 2..255; such a pixel does not count. squared: p and t are squared in the denominator. normalizer: the
    divisor: "sum" (none), "masks" (the number of masks that count, at least 1), a number, or a tensor of one element,
    which is read where it is. reduction: "sum", a scalar; "masks", the undivided loss of each mask.

    Gradients, autocast, errors and the memory that a kept gradient takes are those of tare.torch's other losses. There
    are no transforms of torch.func for masks.
    """
    for name in parameters:
        if name not in _masks.DEFAULTS:
            raise _checks.WrongType(f"{name} is no parameter; they are: {', '.join(_masks.DEFAULTS)}")
    results = _evaluate(logits, targets, _masks.numbers_of(parameters), dict(options))
    return MaskLosses(_chosen(results, dict(options)), results[1], results[2])


def dice_loss(
    logits: torch.Tensor, targets: torch.Tensor, *, smooth: float = 1.0, **options: Unpack[MaskOptions]
) -> torch.Tensor:
    """1 - (2*sum p*t + smooth)/(sum p + sum t + smooth) of each mask, p = sigmoid(logits): the dice loss of MaskFormer
    and DETR. squared=True: sum p^2 + sum t^2 (V-Net, arXiv 1606.04797). Options are those of mask_loss."""
    return tversky_loss(logits, targets, smooth=_checks.number("smooth", smooth) / 2, **options)


def tversky_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    false_positive_weight: float = 0.5,
    false_negative_weight: float = 0.5,
    exponent: float = 1.0,
    smooth: float = 1.0,
    **options: Unpack[MaskOptions],
) -> torch.Tensor:
    """(1-T)^exponent of each mask, T = (TP + smooth)/(TP + false_positive_weight*FP + false_negative_weight*FN +
    smooth) (arXiv 1706.05721). Focal Tversky loss has exponent 0.75 (arXiv 1810.07842, which calls 4/3 gamma and
    divides by it). Options are those of mask_loss."""
    given = {
        "false_positive_weight": false_positive_weight,
        "false_negative_weight": false_negative_weight,
        "exponent": exponent,
        "numerator_smoothing": smooth,
        "denominator_smoothing": smooth,
    }
    return mask_loss(logits, targets, parameters=given, **options).loss


def focal_dice_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    focal_weight: float = 20.0,
    dice_weight: float = 1.0,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
    smooth: float = 1.0,
    **options: Unpack[MaskOptions],
) -> MaskLosses:
    """focal_weight*focal + dice_weight*dice of each mask, from the same reads of the logits (MaskFormer, SAM).

    focal is the mean of the pixels' sigmoid focal losses. Returns the loss, and its parts `overlap` (dice) and `focal`
    without their weights and without a gradient. Options are those of mask_loss."""
    half = _checks.number("smooth", smooth) / 2
    given = {
        "focal_weight": focal_weight,
        "overlap_weight": dice_weight,
        "alpha": alpha,
        "gamma": gamma,
        "numerator_smoothing": half,
        "denominator_smoothing": half,
    }
    return mask_loss(logits, targets, parameters=given, **options)


# ---- modules --------------------------------------------------------------------------------------------------------


class _MaskModule(torch.nn.Module):
    """Settings in the constructor; logits, targets, and options that come before them in the call."""

    _function: Any

    def __init__(self, **options: Any) -> None:
        super().__init__()
        for name in ("valid", "mask_weights"):
            if name in options:
                raise _checks.WrongType(f"{name} is given to the constructor; give it in the call")
        self.options = options

    def forward(self, logits: torch.Tensor, targets: torch.Tensor, **options: Any) -> Any:
        return type(self)._function(logits, targets, **{**self.options, **options})

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


class DiceLoss(_MaskModule):
    """dice_loss as a module."""

    _function = staticmethod(dice_loss)

    def __init__(self, smooth: float = 1.0, **options: Unpack[MaskOptions]) -> None:
        super().__init__(smooth=smooth, **options)


class TverskyLoss(_MaskModule):
    """tversky_loss as a module."""

    _function = staticmethod(tversky_loss)

    def __init__(
        self,
        false_positive_weight: float = 0.5,
        false_negative_weight: float = 0.5,
        exponent: float = 1.0,
        smooth: float = 1.0,
        **options: Unpack[MaskOptions],
    ) -> None:
        super().__init__(
            false_positive_weight=false_positive_weight,
            false_negative_weight=false_negative_weight,
            exponent=exponent,
            smooth=smooth,
            **options,
        )


class FocalDiceLoss(_MaskModule):
    """focal_dice_loss as a module."""

    _function = staticmethod(focal_dice_loss)

    def __init__(
        self,
        focal_weight: float = 20.0,
        dice_weight: float = 1.0,
        alpha: float | None = 0.25,
        gamma: float = 2.0,
        smooth: float = 1.0,
        **options: Unpack[MaskOptions],
    ) -> None:
        super().__init__(
            focal_weight=focal_weight,
            dice_weight=dice_weight,
            alpha=alpha,
            gamma=gamma,
            smooth=smooth,
            **options,
        )
