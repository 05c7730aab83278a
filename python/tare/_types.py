# SPDX-License-Identifier: Apache-2.0
"""Types of arguments, for editors and type checkers. A test compares the words with the library's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypedDict, Union

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup

LossName = Literal[
    "sigmoid-ce",
    "sigmoid-focal",
    "sigmoid-poly1",
    "sigmoid-varifocal",
    "sigmoid-quality-focal",
    "sigmoid-matchability",
    "sigmoid-iou-aware",
    "sigmoid-asymmetric",
    "sigmoid-heatmap-focal",
    "sigmoid-reduced-focal",
    "sigmoid-focal-star",
    "softmax-ce",
    "softmax-focal",
    "softmax-logit-adjusted",
    "softmax-seesaw",
    "softmax-distribution-focal",
    "softmax-two-hot",
    "softmax-ldam",
    "ghm-c",
    "ghm-r",
]
Reduction = Literal["sum", "rows", "none"]
Normalizer = Literal["sum", "elements", "rows", "positives", "weights", "targets", "ones"]
Gradients = Literal["averaged", "summed"]
Scope = Literal["batch", "level"]
Density = Literal["unit-region", "exact"]
Variant = Literal["paper", "mmdet"]
Modulator = Literal["differentiated", "detached"]
Positives = Literal["by-score", "by-label"]
Smoothed = Literal["cross-entropy", "all"]
Weighting = Literal["blended", "terms"]
EmptyClasses = Literal["one", "excluded"]
Levels = Union["torch.Tensor", Sequence["torch.Tensor"]]
LevelNumbers = Union[Sequence[Union[float, "torch.Tensor", None]], None]
Alpha = Union[float, "torch.Tensor", None]


class CommonOptions(TypedDict, total=False):
    """The options that every loss of tare.torch takes; tare.torch.loss explains them."""

    classes: int | None
    reduction: Reduction
    normalizer: Normalizer | float | torch.Tensor
    normalizer_addend: float
    normalizer_minimum: float
    normalizer_scope: Scope
    level_divisors: LevelNumbers
    level_weights: LevelNumbers
    row_weights: Levels | None
    element_weights: Levels | None
    class_weights: torch.Tensor | None
    background_weight: float
    hard_negatives: float | None
    least_negatives: int | None
    hard_rows: int | None
    hard_fraction: float | None
    positive_weights: torch.Tensor | None
    negative_weights: torch.Tensor | None
    background_negative_weights: torch.Tensor | None
    class_mask: torch.Tensor | None
    first_label: int
    background_label: int
    ignore_label: int
    class_sums: bool
    level_losses: bool
    norm_histogram: int
    process_group: ProcessGroup | None
    gradients: Gradients
    keep_gradient: bool


class ScoredOptions(CommonOptions, total=False):
    """Those beside scores that have an argument of their own."""

    targets: Levels | None


class ScoredAlphaOptions(ScoredOptions, total=False):
    """The same of a loss whose alpha may be one value a class."""

    alpha_per_class: torch.Tensor | None


class Options(ScoredOptions, total=False):
    """All of them."""

    scores: Levels | None


class AlphaOptions(Options, total=False):
    """Those of a loss whose alpha may be one value a class."""

    alpha_per_class: torch.Tensor | None


class SmoothedOptions(AlphaOptions, total=False):
    """The same of a loss that takes label smoothing."""

    label_smoothing: float
    smoothed: Smoothed


class CrossEntropyOptions(SmoothedOptions, total=False):
    """The same of a loss whose positive weights may be those of cross-entropy's terms."""

    weighting: Weighting


class ZLossOptions(Options, total=False):
    """Those of a loss that takes z-loss."""

    z_loss: float


class FocalOptions(SmoothedOptions, total=False):
    """The same of a loss whose gamma may be one value a class."""

    gamma_per_class: torch.Tensor | None


class GhmROptions(CommonOptions, total=False):
    """Those of ghm_r."""

    density: Density
    epsilon: float
    variant: Variant
    use_stored_density: bool


class GhmOptions(GhmROptions, total=False):
    """Those of ghm_c."""

    targets: Levels | None


class Parameters(TypedDict, total=False):
    """The parameters of all losses, beside alpha and state."""

    density: Density
    epsilon: float
    variant: Variant
    use_stored_density: bool
    alpha_per_class: torch.Tensor | None
    gamma: float
    gamma_per_class: torch.Tensor | None
    beta: float
    p_exponent: float
    label_smoothing: float
    z_loss: float
    smoothed: Smoothed
    weighting: Weighting
    gamma_positive: float
    gamma_negative: float
    margin: float
    threshold: float
    steepness: float
    shift: float
    modulator: Modulator
    positives: Positives
    bins: int
    momentum: float
    mu: float
    offset: torch.Tensor
    log_counts: torch.Tensor | None
    margins: torch.Tensor | None
    scale: float
    p: float
    q: float
    delta: float


class Settings(Parameters, Options, total=False):
    """What a module of tare.torch.nn may be given: what does not change from batch to batch."""

    alpha: Alpha


class AllOptions(Settings, total=False):
    """The keywords of tare.torch.loss."""

    state: torch.Tensor | None
