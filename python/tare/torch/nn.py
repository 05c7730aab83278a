# SPDX-License-Identifier: Apache-2.0
"""The losses as modules: settings in the constructor, logits and labels in the call.

    loss = tare.torch.nn.SigmoidFocalLoss(gamma=1.5, normalizer="positives")
    loss(logits, labels).backward()

A constructor takes the parameters and options of the loss's function, but not what changes from batch to batch: labels,
targets, scores, row_weights, element_weights and class_mask are the call's. The call's options come before the
constructor's.
"""

from __future__ import annotations

import inspect
import types
from typing import TYPE_CHECKING, Any

import torch

from .. import _checks, _losses, _tensors, _weights
from .._loss import Head, first_call
from . import _functions, _scripted
from ._ghm_modules import GHMC as GHMC
from ._ghm_modules import GHMR as GHMR
from ._gradients import EQLv2Loss as EQLv2Loss
from ._gradients import EqualizedFocalLoss as EqualizedFocalLoss
from ._masks import DiceLoss as DiceLoss
from ._masks import FocalDiceLoss as FocalDiceLoss
from ._masks import TverskyLoss as TverskyLoss
from ._modules import Module
from ._running import RunningClassBalancedLoss as RunningClassBalancedLoss
from ._running import SeesawLoss as SeesawLoss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Unpack

    from .._types import EmptyClasses, Levels, LossName, Options, Settings, ZLossOptions

_OF_A_CALL = ("labels", "targets", "scores", "row_weights", "element_weights", "class_mask", "state")
_NO_OPTIONS = (*_OF_A_CALL, "key", "tensors", "name", "logits", "parameters")
_OPTIONS = [name for name in inspect.signature(first_call).parameters if name not in _NO_OPTIONS]


def _check_options(name: str, options: dict[str, Any]) -> None:
    """What a constructor can know to be wrong."""
    known = _losses.DESCRIPTIONS[name].parameters
    for key in options:
        if key in _OF_A_CALL:
            raise _checks.WrongType(f"{key} is given to the constructor; give it in the call")
        if key not in known and key not in _OPTIONS:
            raise _losses.no_parameter(name, key)
    plain = {key: one for key, one in options.items() if key in known and not isinstance(one, torch.Tensor)}
    _losses.parameters_of(
        name, {key: one for key, one in plain.items() if one is not None and not known[key].is_pointer}
    )


class Loss(Module):
    """The base of the modules. `name` is the loss, `options` are its settings.

    Settings that are tensors (class_weights, positive_weights, alpha of each class) are buffers: they move with the
    model and are in its state_dict(). They stay float32 when the model is cast, and keep their values in to_empty().
    torch.jit.script takes a module for calls with logits and labels, if its other settings are words and numbers.
    """

    name: str

    def __init_subclass__(cls, name: str | None = None, **rest: Any) -> None:
        """name: the loss of a class that has no constructor of its own."""
        super().__init_subclass__(**rest)
        if name is None:
            return
        cls.name, function = name, _functions.by_name(name)
        cls.__doc__ = cls.__doc__ or function.__doc__
        given = inspect.signature(function).parameters.values()
        kept = [one for one in given if one.kind in (one.KEYWORD_ONLY, one.VAR_KEYWORD)]
        cls.__signature__ = inspect.Signature(kept)

    def __init__(self, **options: Unpack[Settings]) -> None:
        super().__init__()
        _check_options(self.name, dict(options))
        self.function = _functions.by_name(self.name)
        self.options = {}
        for key, one in options.items():
            if isinstance(one, torch.Tensor) and one.dim():
                self.register_buffer(key, _tensors.real_tensor(key, one).detach().to(torch.float32).clone())
            else:
                self.options[key] = one

    def _fresh(self, key: str) -> torch.Tensor:
        """The value of a buffer whose memory is lost (meta). NaN shows where nothing is loaded afterwards."""
        return torch.full(self._buffers[key].shape, torch.nan)

    def _apply(self, fn: Any, recurse: bool = True) -> Loss:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for key, one in before.items():
            moved = self._buffers[key]
            if moved is not one:  # only where to; what it holds may be nothing (to_empty) or rounded (half)
                self._buffers[key] = (self._fresh(key) if one.is_meta else one).to(moved.device)
        return self

    def forward(self, logits: Levels | Head, labels: Levels | None = None, **options: Unpack[Settings]) -> Any:
        return self.function(logits, labels, **{**self.options, **self._buffers, **options})

    def extra_repr(self) -> str:
        shapes = {key: f"float32 {list(one.shape)}" for key, one in self._buffers.items()}
        return ", ".join(f"{key}={value}" for key, value in {**self.options, **shapes}.items())

    def __prepare_scriptable__(self) -> torch.nn.Module:
        return _scripted.Module(self.name, self._buffers, self.options)


# One line a loss. tare.losses() has the names; a test compares.


class SigmoidCELoss(Loss, name="sigmoid-ce"): ...


class SigmoidFocalLoss(Loss, name="sigmoid-focal"): ...


class SigmoidPoly1Loss(Loss, name="sigmoid-poly1"): ...


class SigmoidVarifocalLoss(Loss, name="sigmoid-varifocal"): ...


class SigmoidQualityFocalLoss(Loss, name="sigmoid-quality-focal"): ...


class SigmoidMatchabilityLoss(Loss, name="sigmoid-matchability"): ...


class SigmoidIoUAwareLoss(Loss, name="sigmoid-iou-aware"): ...


class SigmoidAsymmetricLoss(Loss, name="sigmoid-asymmetric"): ...


class SigmoidHeatmapFocalLoss(Loss, name="sigmoid-heatmap-focal"): ...


class SigmoidReducedFocalLoss(Loss, name="sigmoid-reduced-focal"): ...


class SigmoidFocalStarLoss(Loss, name="sigmoid-focal-star"): ...


class SoftmaxCELoss(Loss, name="softmax-ce"): ...


class SoftmaxFocalLoss(Loss, name="softmax-focal"): ...


class SoftmaxLogitAdjustedLoss(Loss, name="softmax-logit-adjusted"): ...


class SoftmaxSeesawLoss(Loss, name="softmax-seesaw"): ...


class SoftmaxDistributionFocalLoss(Loss, name="softmax-distribution-focal"): ...


class SoftmaxTwoHotLoss(Loss, name="softmax-two-hot"): ...


class SoftmaxLdamLoss(Loss, name="softmax-ldam"): ...


def _add_the_others() -> None:
    """A loss of the library that has no line above yet has a class all the same."""
    known = {"ghm-c", "ghm-r", *(one.name for one in Loss.__subclasses__())}
    for name in _losses.DESCRIPTIONS:
        if name not in known:
            title = "".join(word.capitalize() for word in name.split("-")) + "Loss"
            globals()[title] = types.new_class(
                title, (Loss,), {"name": name}, lambda body: body.update(__module__=__name__)
            )


_add_the_others()


# ---- settings that come from class counts ---------------------------------------------------------------------------


class _OfCounts(Loss):
    """A buffer [C] that follows from class counts."""

    def __init__(self, key: str, values: Any, options: dict[str, Any]) -> None:
        self._values = tuple(values.tolist())
        super().__init__(**options, **{key: self._fresh(key)})

    def _fresh(self, key: str) -> torch.Tensor:
        return torch.tensor(self._values, dtype=torch.float32, device="cpu")


def _as_numbers(counts: Any) -> Any:
    return counts.detach().cpu().numpy() if isinstance(counts, torch.Tensor) else counts


class LogitAdjustedLoss(_OfCounts):
    """softmax_logit_adjusted with the offsets tau*log(n_c/sum n) of class counts. Call it with logits, labels and the
    options of `loss`.

    counts: training samples of each class [C], including background if that is a class. empty: a class without samples
    counts as "one" with one, or is "excluded". The offsets are a buffer. They stay float32 when the model is cast.
    """

    name = "softmax-logit-adjusted"

    def __init__(
        self, counts: Sequence[float], tau: float = 1.0, empty: EmptyClasses = "one", **options: Unpack[ZLossOptions]
    ) -> None:
        super().__init__("offset", _weights.logit_adjustment(_as_numbers(counts), tau, empty), dict(options))
        self.tau = tau

    def extra_repr(self) -> str:
        given = {"classes": len(self.offset), "tau": self.tau, **self.options}
        return ", ".join(f"{key}={value}" for key, value in given.items())


class LDAMLoss(_OfCounts):
    """softmax_ldam with the margins max_margin*(n_c/n_min)^(-1/4) of class counts (Cao et al., arXiv 1906.07413), over
    the sum of class weights. Call it with logits, which are cosines, labels and the options of `loss`.

        criterion = tare.torch.LDAMLoss(counts)
        for epoch in range(200):
            if epoch == 160:
                criterion.reweight(0.9999)  # deferred re-weighting (DRW)

    counts: training samples of each class [C]. empty: a class without samples counts as "one" with one, or is
    "excluded". options: those of `loss`; normalizer is "weights" unless given. margins and class_weights are buffers.
    Class weights are 1 until reweight() or a loaded state changes them.
    """

    name = "softmax-ldam"

    def __init__(
        self,
        counts: Sequence[float],
        max_margin: float = 0.5,
        scale: float = 30.0,
        empty: EmptyClasses = "one",
        **options: Unpack[Options],
    ) -> None:
        margins = _weights.ldam_margins(_as_numbers(counts), max_margin, empty)
        self._counts, self.max_margin = _as_numbers(counts), max_margin
        given = {"normalizer": "weights", "class_weights": torch.ones(len(margins)), "scale": scale, **options}
        super().__init__("margins", margins, given)

    def _fresh(self, key: str) -> torch.Tensor:
        return super()._fresh(key) if key == "margins" else torch.ones(len(self._values))

    def reweight(self, beta: float | None = 0.9999) -> None:
        """Class weights of Cui et al. (arXiv 1901.05555) from now on, from the same counts; None: all are 1."""
        new = torch.ones(len(self._values)) if beta is None else _class_weights(self._counts, beta)
        self.class_weights.copy_(new)

    def extra_repr(self) -> str:
        given = {"classes": len(self.margins), "max_margin": self.max_margin, **self.options}
        return ", ".join(f"{key}={value}" for key, value in given.items())


def _class_weights(counts: Any, beta: float) -> torch.Tensor:
    return torch.from_numpy(_weights.class_balanced_weights(counts, beta))


class ClassBalancedLoss(_OfCounts):
    """A loss with the class weights of Cui et al. (arXiv 1901.05555): 1/E_n of each class, E_n = (1-beta^n)/(1-beta),
    scaled so that their sum is the number of classes.

    counts: training samples of each class [C]. loss: a loss with class weights, by name. options: its parameters and
    options. Background rows have background_weight, whose default is 1.
    """

    def __init__(
        self,
        counts: Sequence[float],
        beta: float = 0.999,
        loss: LossName = "sigmoid-focal",
        **options: Any,
    ) -> None:
        self.name = _losses.loss_name(loss)
        if not _losses.DESCRIPTIONS[self.name].takes_class_weights:
            raise ValueError(f"loss is '{loss}', which has no class weights")
        super().__init__("class_weights", _weights.class_balanced_weights(_as_numbers(counts), beta), dict(options))
        self.beta = beta

    def extra_repr(self) -> str:
        given = {"loss": repr(self.name), "classes": len(self.class_weights), "beta": self.beta, **self.options}
        return ", ".join(f"{key}={value}" for key, value in given.items())


class EqualizationLoss(_OfCounts):
    """Equalization loss (Tan et al., arXiv 2003.05176, eq. 3): sigmoid cross-entropy that spares rare classes the
    gradients of other classes' rows. The element of a rare class adds nothing in a row of another class; the label's
    own element, and background rows, are as always.

        loss = tare.torch.nn.EqualizationLoss(image_counts, images=100_000, normalizer="rows")
        loss(logits, labels).backward()

    counts: of each class [C], the training images that have it. images: how many there are; 1 if `counts` are shares
    already. threshold: a class is rare if its share is below; the paper's lambda, default 1.77e-3 (LVIS).
    gamma: the probability that a forward in training spares a rare class, drawn for each class and batch; in eval()
    the loss is the mean over such draws. 1, the default, spares all, as the paper does in detection; below 1 is what
    its softmax form does in classification. The call's generator, a torch.Generator, draws.
    options: those of sigmoid_ce.
    """

    name = "sigmoid-ce"

    def __init__(
        self,
        counts: Sequence[float],
        images: float = 1.0,
        threshold: float = 1.77e-3,
        gamma: float = 1.0,
        **options: Any,
    ) -> None:
        for key in ("negative_weights", "background_negative_weights"):
            if key in options:
                raise _checks.WrongType(f"{key} is given; this module forms it")
        images, threshold = _checks.number("images", images), _checks.number("threshold", threshold)
        if images <= 0:
            raise ValueError(f"images is {images:g}; it must be above 0")
        self._shares = torch.as_tensor(_as_numbers(counts), dtype=torch.float64, device="cpu") / images
        if self._shares.dim() != 1 or not bool(((self._shares >= 0) & (self._shares <= 1)).all()):
            raise ValueError("counts/images must be shares in [0,1], one a class: give images, or shares as counts")
        self.threshold, self.gamma = threshold, _checks.number("gamma", gamma)
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma is {self.gamma:g}; it must be in [0,1]")
        ones = torch.ones(len(self._shares))
        super().__init__(
            "negative_weights",
            (self._shares >= threshold).float(),
            {**options, "background_negative_weights": ones},
        )

    def _fresh(self, key: str) -> torch.Tensor:
        if key == "background_negative_weights":
            return torch.ones(len(self._shares), device="cpu")
        return super()._fresh(key) if key == "negative_weights" else Loss._fresh(self, key)

    def _weights(self, generator: torch.Generator | None) -> torch.Tensor:
        """1 - beta for rare classes, 1 for the others."""
        often = self._buffers["negative_weights"]
        if self.gamma == 1 or not self.training:
            return often + (1 - self.gamma) * (1 - often)
        device = often.device if generator is None else generator.device
        spared = torch.rand(often.shape, generator=generator, device=device).to(often.device) < self.gamma
        return torch.where(spared, often, 1)

    def forward(
        self,
        logits: Levels | Head,
        labels: Levels | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Any:
        for key in ("negative_weights", "background_negative_weights"):
            if key in options:
                raise _checks.WrongType(f"{key} is given; this module forms it")
        return super().forward(logits, labels, negative_weights=self._weights(generator), **options)

    def extra_repr(self) -> str:
        own = {"classes": len(self._shares), "rare": int((self._shares < self.threshold).sum())}
        given = {**own, "threshold": self.threshold, "gamma": self.gamma, **self.options}
        return ", ".join(f"{key}={value}" for key, value in given.items())

    def __prepare_scriptable__(self) -> torch.nn.Module:
        if self.gamma < 1:
            raise TypeError(f"torch.jit.script draws nothing for gamma {self.gamma:g}; use torch.compile, or gamma 1")
        return super().__prepare_scriptable__()
