# SPDX-License-Identifier: Apache-2.0
"""The losses as functions: `loss` with each one's parameters and their defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from .. import _losses
from .._loss import Head, loss

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._types import (
        Alpha,
        AlphaOptions,
        CrossEntropyOptions,
        FocalOptions,
        GhmOptions,
        GhmROptions,
        Levels,
        LossName,
        Modulator,
        Options,
        Positives,
        ScoredAlphaOptions,
        ScoredOptions,
        SmoothedOptions,
    )


def by_name(name: str) -> Any:
    """The function of a loss. One that is not in this file yet has no types for its parameters."""
    key = _losses.loss_name(name).replace("-", "_")
    if key not in globals():

        def function(logits: Levels | Head, labels: Levels | None = None, **options: Any) -> Any:
            return loss(cast("LossName", name), logits, labels, **options)

        function.__name__ = function.__qualname__ = key
        function.__doc__ = f"The loss '{name}', with its parameters as keywords."
        globals()[key] = function
    return globals()[key]


def sigmoid_ce(
    logits: Levels | Head, labels: Levels | None = None, *, alpha: Alpha = None, **options: Unpack[CrossEntropyOptions]
) -> Any:
    """alpha_t*l per element: binary cross-entropy of each class, l = -log p. alpha: weight of target 1; 0 has 1-alpha.
    label_smoothing s moves the targets 1 and 0 to 1-s/2 and s/2. weighting: what positive weights w and negative
    weights v are at a target t between 0 and 1. "blended": t*w + (1-t)*v is a factor of the loss. "terms":
    w*t*(-log p) + v*(1-t)*(-log(1-p)); w is the pos_weight of PyTorch's binary_cross_entropy_with_logits."""
    return loss("sigmoid-ce", logits, labels, alpha=alpha, **options)


def sigmoid_focal(
    logits: Levels | Head,
    labels: Levels | None = None,
    *,
    gamma: float = 2.0,
    alpha: Alpha = 0.25,
    **options: Unpack[FocalOptions],
) -> Any:
    """alpha_t*q^gamma*l per element (Lin et al., arXiv 1708.02002, eq. 5). gamma >= 0; alpha None or negative: off.
    gamma_per_class: float32 [C], instead of gamma.
    label_smoothing s moves the targets of l to 1-s/2 and s/2. smoothed="all": alpha and q^gamma follow them too."""
    if alpha is None:
        alpha = -1.0
    if options.get("alpha_per_class") is not None and isinstance(alpha, float) and alpha in (-1.0, 0.25):
        alpha = None  # it was not given
    return loss("sigmoid-focal", logits, labels, gamma=gamma, alpha=alpha, **options)


def sigmoid_poly1(
    logits: Levels | Head,
    labels: Levels | None = None,
    *,
    gamma: float = 2.0,
    alpha: Alpha = None,
    epsilon: float = 1.0,
    **options: Unpack[AlphaOptions],
) -> Any:
    """alpha_t*q^gamma*l + epsilon*q^(gamma+1) per element (Leng et al., arXiv 2204.12511, Poly-1 focal)."""
    return loss("sigmoid-poly1", logits, labels, gamma=gamma, alpha=alpha, epsilon=epsilon, **options)


def sigmoid_varifocal(
    logits: Levels | Head,
    labels: Levels | None = None,
    scores: Levels | None = None,
    *,
    gamma: float = 2.0,
    alpha: Alpha = 0.75,
    modulator: Modulator = "differentiated",
    positives: Positives = "by-score",
    **options: Unpack[ScoredOptions],
) -> Any:
    """Varifocal loss (Zhang et al., arXiv 2008.13367, eq. 2): score*CE(x,score) for a label with a score above 0, and
    alpha*p^gamma*softplus(x) for every other element. modulator: "differentiated", the gradient includes that of
    p^gamma, as in the paper; or "detached", it does not, as in RT-DETR. positives: "by-score", a label with score 0 is
    a negative, as in mmdetection; or "by-label", it adds nothing, as in RT-DETR."""
    alpha = -1.0 if alpha is None else alpha
    return loss(
        "sigmoid-varifocal",
        logits,
        labels,
        scores=scores,
        gamma=gamma,
        alpha=alpha,
        modulator=modulator,
        positives=positives,
        **options,
    )


def sigmoid_quality_focal(
    logits: Levels | Head,
    labels: Levels | None = None,
    scores: Levels | None = None,
    *,
    beta: float = 2.0,
    alpha: Alpha = None,
    **options: Unpack[ScoredAlphaOptions],
) -> Any:
    """Quality focal loss (Li et al., arXiv 2006.04388, eq. 2): |p-t|^beta*CE(x,t). t is the label's score at the
    label's element, else 0. With alpha this is the position-supervised loss of Stable-DINO (arXiv 2304.04742)."""
    return loss("sigmoid-quality-focal", logits, labels, scores=scores, beta=beta, alpha=alpha, **options)


def sigmoid_matchability(
    logits: Levels | Head,
    labels: Levels | None = None,
    scores: Levels | None = None,
    *,
    gamma: float = 1.5,
    alpha: Alpha = None,
    modulator: Modulator = "detached",
    **options: Unpack[ScoredOptions],
) -> Any:
    """Matchability-aware loss (Huang et al., DEIM, arXiv 2412.04234): CE(x,score^gamma) for a label, and
    alpha*p^gamma*softplus(x) for every other element. modulator: "detached" as in DEIM, or "differentiated"."""
    return loss(
        "sigmoid-matchability", logits, labels, scores=scores, gamma=gamma, alpha=alpha, modulator=modulator, **options
    )


def sigmoid_iou_aware(
    logits: Levels | Head,
    labels: Levels | None = None,
    scores: Levels | None = None,
    *,
    gamma: float = 2.0,
    p_exponent: float = 0.25,
    **options: Unpack[ScoredOptions],
) -> Any:
    """IA-BCE (Cai et al., Align-DETR, arXiv 2304.07527; LW-DETR, RF-DETR): CE(x,t) for a label, with t =
    max(p^a*score^(1-a), 0.01) and a = p_exponent; p^gamma*softplus(x) for every other element. The gradient treats t as
    a constant."""
    return loss("sigmoid-iou-aware", logits, labels, scores=scores, gamma=gamma, p_exponent=p_exponent, **options)


def sigmoid_asymmetric(
    logits: Levels | Head,
    labels: Levels | None = None,
    *,
    gamma_positive: float = 1.0,
    gamma_negative: float = 4.0,
    margin: float = 0.05,
    modulator: Modulator = "differentiated",
    **options: Unpack[Options],
) -> Any:
    """Asymmetric loss (Ridnik et al., arXiv 2009.14119): q^gamma_positive*l for a label, and
    r^gamma_negative*(-log(1-r)) for every other element, with r = max(sigmoid(x) - margin, 0). Rows with several labels
    have `targets` of 0 and 1. modulator: "differentiated" as in timm, or "detached" as in Alibaba's ASL."""
    return loss(
        "sigmoid-asymmetric",
        logits,
        labels,
        gamma_positive=gamma_positive,
        gamma_negative=gamma_negative,
        margin=margin,
        modulator=modulator,
        **options,
    )


def sigmoid_heatmap_focal(
    logits: Levels | Head,
    labels: Levels | None = None,
    *,
    gamma: float = 2.0,
    beta: float = 4.0,
    **options: Unpack[Options],
) -> Any:
    """Focal loss of heatmaps (CornerNet, arXiv 1808.01244, eq. 1; CenterNet; CenterPoint). `targets` are a heatmap
    whose peaks are exactly 1. A peak has q^gamma*l, and every other element (1-t)^beta*p^gamma*softplus(x). float16 and
    bfloat16 targets are refused, because a target near a peak rounds to 1."""
    return loss("sigmoid-heatmap-focal", logits, labels, gamma=gamma, beta=beta, **options)


def sigmoid_reduced_focal(
    logits: Levels | Head,
    labels: Levels | None = None,
    *,
    gamma: float = 2.0,
    threshold: float = 0.5,
    alpha: Alpha = None,
    **options: Unpack[AlphaOptions],
) -> Any:
    """Reduced focal loss (arXiv 1903.01347): cross-entropy where p < threshold; elsewhere cross-entropy times
    (q/threshold)^gamma."""
    return loss("sigmoid-reduced-focal", logits, labels, gamma=gamma, threshold=threshold, alpha=alpha, **options)


def sigmoid_focal_star(
    logits: Levels | Head,
    labels: Levels | None = None,
    *,
    steepness: float = 2.0,
    shift: float = 1.0,
    alpha: Alpha = None,
    **options: Unpack[AlphaOptions],
) -> Any:
    """-alpha_t*log(sigmoid(steepness*z + shift))/steepness of the signed logit z: FL* (Lin et al., arXiv 1708.02002,
    appendix A)."""
    return loss("sigmoid-focal-star", logits, labels, steepness=steepness, shift=shift, alpha=alpha, **options)


def softmax_ce(
    logits: Levels | Head,
    labels: Levels | None = None,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    **options: Unpack[Options],
) -> Any:
    """-log softmax(x)_y per row. label_smoothing s makes the targets 1-s+s/C at the label and s/C elsewhere, as in
    torch.nn.functional.cross_entropy. But class_weights are those of the label alone. z_loss adds
    z_loss*logsumexp(x)^2, times the row's weights (ST-MoE, arXiv 2202.08906; PaLM)."""
    return loss("softmax-ce", logits, labels, label_smoothing=label_smoothing, z_loss=z_loss, **options)


def softmax_focal(
    logits: Levels | Head,
    labels: Levels | None = None,
    *,
    gamma: float = 2.0,
    alpha: Alpha = None,
    **options: Unpack[SmoothedOptions],
) -> Any:
    """alpha*q^gamma*(-log p) per row, p = softmax(x)_y, q = 1-p. alpha: a factor of every row, or float32 [C].
    label_smoothing s replaces -log p by the cross-entropy of targets 1-s+s/C at the label and s/C elsewhere;
    smoothed="all": q is 1 - sum t*p of these targets, too."""
    return loss("softmax-focal", logits, labels, gamma=gamma, alpha=alpha, **options)


def softmax_logit_adjusted(
    logits: Levels | Head,
    labels: Levels | None = None,
    *,
    offset: torch.Tensor,
    z_loss: float = 0.0,
    **options: Unpack[Options],
) -> Any:
    """-log softmax(x + offset)_y per row (Menon et al., arXiv 2007.07314, eq. 10).

    offset: float32 [C], from tare.logit_adjustment(counts, tau). With tau 1 this is balanced softmax (arXiv
    2007.10740). Use it in training only; at inference use the logits without offsets. z_loss: as in softmax_ce, of
    x + offset.
    """
    if offset is None:
        raise ValueError("offset is None; it must be float32 [C], as tare.logit_adjustment makes it")
    return loss("softmax-logit-adjusted", logits, labels, offset=offset, z_loss=z_loss, **options)


def softmax_seesaw(
    logits: Levels | Head,
    labels: Levels | None = None,
    *,
    log_counts: torch.Tensor | None = None,
    p: float = 0.8,
    q: float = 2.0,
    epsilon: float = 0.01,
    **options: Unpack[Options],
) -> Any:
    """-log softmax(x + log S)_y per row (Wang et al., arXiv 2008.10032, eq. 4 to 6). S_y is 1. Every other class j has
    S_j = min(1, (n_j/n_y)^p)*max(1, (p_j/max(p_y, epsilon))^q). The gradient treats S as a constant.

    log_counts: float32 [C], the logarithms of the sample counts n so far, at least 0; None: no first factor.
    tare.torch.SeesawLoss counts the samples in training and forms these logarithms.
    """
    return loss("softmax-seesaw", logits, labels, log_counts=log_counts, p=p, q=q, epsilon=epsilon, **options)


def softmax_ldam(
    logits: Levels | Head,
    labels: Levels | None = None,
    *,
    margins: torch.Tensor | None = None,
    scale: float = 30.0,
    **options: Unpack[Options],
) -> Any:
    """-log softmax(scale*(x - margin_y*onehot(y)))_y a row: label-distribution-aware margin loss (Cao et al., arXiv
    1906.07413, section 3.2). The gradient by x has the factor scale.

    logits: cosines, products of normalized features and normalized weights. margins: float32 [C], from
    tare.ldam_margins(counts); None: none. The paper divides by the sum of class weights: normalizer="weights".
    tare.torch.LDAMLoss has the margins, this normalizer and deferred re-weighting.
    """
    return loss("softmax-ldam", logits, labels, margins=margins, scale=scale, **options)


def softmax_distribution_focal(
    logits: Levels | Head,
    labels: Levels | None = None,
    scores: Levels | None = None,
    *,
    delta: float = 0.0,
    **options: Unpack[ScoredOptions],
) -> Any:
    """Distribution focal loss of rows of bins (Li et al., arXiv 2006.04388, eq. 6): -(k+1-y)*log p_k -
    (y-k)*log p_(k+1), k = floor(y). scores: the targets y, one per row, clamped to [0, bins-1-delta]. labels, if given,
    only say which rows count: those that are neither background nor ignored. There is no factor 1/4 for the sides of a
    box."""
    return loss("softmax-distribution-focal", logits, labels, scores=scores, delta=delta, **options)


def softmax_two_hot(
    logits: Levels | Head,
    labels: Levels | None = None,
    scores: Levels | None = None,
    **options: Unpack[ScoredOptions],
) -> Any:
    """-w_left*log p_k - w_right*log p_(k+1) per row, k the label: D-FINE's fine-grained localization loss (arXiv
    2410.13842). scores: [..., 2], w_left and w_right. Without scores they are 1 and 0."""
    return loss("softmax-two-hot", logits, labels, scores=scores, **options)


def ghm_c(
    logits: Levels | Head,
    labels: Levels | None = None,
    *,
    bins: int = 30,
    momentum: float = 0.0,
    state: torch.Tensor | None = None,
    **options: Unpack[GhmOptions],
) -> Any:
    """Sum of CE/GD(g), g = |sigmoid(x)-t|, GD the gradient density (Li et al., arXiv 1811.05181, eq. 9)."""
    return loss("ghm-c", logits, labels, bins=bins, momentum=momentum, state=state, **options)


def ghm_r(
    predictions: Levels | Head,
    targets: Levels,
    labels: Levels | None = None,
    *,
    mu: float = 0.02,
    bins: int = 10,
    momentum: float = 0.0,
    state: torch.Tensor | None = None,
    **options: Unpack[GhmROptions],
) -> Any:
    """Sum of ASL1/GD(g), g = |d|/sqrt(d^2+mu^2), d = prediction-target (Li et al., eq. 12). labels: which rows
    count."""
    return loss(
        "ghm-r", predictions, labels, targets=targets, mu=mu, bins=bins, momentum=momentum, state=state, **options
    )
