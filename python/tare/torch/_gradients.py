# SPDX-License-Identifier: Apache-2.0
"""Losses whose weights follow the gradients of each class: equalization loss v2 and equalized focal loss."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from .. import _c, _call, _checks, _structs, _tensors
from . import _functions
from ._modules import StateModule
from ._running import _in_backward

if TYPE_CHECKING:
    from .._loss import Head
    from .._types import Alpha, Levels

_FORMED = (
    "positive_weights",
    "negative_weights",
    "background_negative_weights",
    "gamma_per_class",
    "gamma",
    "class_sums",
)


def _words_of(classes: int) -> int:
    """Length of a state in words of 8 bytes."""
    return _c.library.tare_gradient_balance_state_bytes(classes) // 8


class _GradientBalance(StateModule):
    """What both modules share: the state, its steps, and the weights of a call."""

    rule: int
    has_gammas: bool
    names: ClassVar[dict[str, str]] = {}  # of numbers that the paper calls otherwise
    numbers: dict[str, float]

    def __init__(self, classes: int, exempt: int | None, options: dict[str, Any], **numbers: float) -> None:
        super().__init__()
        for key in _FORMED[:-1]:
            if key in options:
                raise _checks.WrongType(f"{key} is given; this module forms it")
        self.classes = _checks.integer("classes", classes, 1, _checks.INT32[1] - 1)
        self.exempt = None if exempt is None else _checks.integer("exempt", exempt, 0, self.classes - 1)
        self.numbers = {key: _checks.number(key, one) for key, one in numbers.items()}
        self.options = options
        self.state = self._new_state(torch.device("cpu"))
        self._weigh(torch.device("cpu"))  # the library checks the numbers

    def _new_state(self, device: torch.device) -> torch.Tensor:
        return torch.zeros(_words_of(self.classes), dtype=torch.int64, device=device)

    def _checked(self, state: torch.Tensor) -> torch.Tensor:
        state = _tensors.state_tensor(state)
        if state.numel() != self.state.numel():
            raise ValueError(f"state has {state.numel()} words; {self.classes} classes need {self.state.numel()}")
        if not state.is_meta:
            sums = state[1:].view(torch.float64)
            if state[0] < 0 or not bool((torch.isfinite(sums) & (sums >= 0)).all()):
                raise ValueError("state holds a sum that is negative or not finite: Tare did not write it so")
        return state.clone()

    @property
    def steps(self) -> int:
        """How many batches were added. On a GPU this waits."""
        return int(self.state[0])

    @property
    def gradients(self) -> torch.Tensor:
        """A copy of the running sums of positive and of negative gradients, float64 [C, 2]."""
        return self.state[1 + 2 * self.classes :].view(torch.float64).view(-1, 2).clone()

    def _struct(self, **pointers: int) -> Any:
        balance = _structs.GradientBalance()
        _c.library.tare_gradient_balance_init_sized(balance, self.rule, self.classes, ctypes.sizeof(balance))
        balance.exempt = -1 if self.exempt is None else self.exempt
        for key, value in {**self.numbers, **pointers}.items():
            setattr(balance, key, value)
        balance.state = self.state.data_ptr()
        return balance

    @torch.compiler.disable
    def _weigh(self, device: torch.device) -> dict[str, torch.Tensor]:
        """New tensors of what the state gives, so that backward has those of its own forward."""
        if self.training and torch.is_grad_enabled() and _in_backward():
            raise RuntimeError(
                "this loss is computed again in backward (torch.utils.checkpoint), which would add its gradients "
                "twice; compute it outside of the checkpoint"
            )
        if self.state.device != device:
            self.state = self.state.to(device)
        with torch.no_grad():
            formed = {
                key: torch.empty(self.classes, dtype=torch.float32, device=device)
                for key in ("positive_weights", "negative_weights", *(("gammas",) if self.has_gammas else ()))
            }
            context, stream = _call.context_of(device)
            balance = self._struct(**{key: one.data_ptr() for key, one in formed.items()})
            _c.check(_c.library.tare_gradient_balance_weigh(context, balance, stream), context)
        if self.has_gammas:
            formed["gamma_per_class"] = formed.pop("gammas")
        return formed

    @torch.compiler.disable
    def _step(self, sums: torch.Tensor) -> None:
        """Adds the class sums of a forward, which are those of all ranks."""
        with torch.no_grad():
            sums = sums.detach().to(torch.float64).contiguous()
            context, stream = _call.context_of(sums.device)
            balance = self._struct()
            collect, step = _c.library.tare_gradient_balance_collect, _c.library.tare_gradient_balance_step
            _c.check(collect(context, balance, sums.data_ptr(), stream), context)
            _c.check(step(context, balance, stream), context)

    def _evaluate(self, function: Any, logits: Levels | Head, labels: Any, given: dict[str, Any]) -> Any:
        for key in _FORMED[:-1]:
            if key in given:
                raise _checks.WrongType(f"{key} is given; this module forms it")
        first = logits[0] if isinstance(logits, (list, tuple)) else logits
        device = _tensors.check_tensor("logits", first).device
        formed = self._weigh(device)
        if not (self.training and torch.is_grad_enabled()):
            return function(logits, labels, **given, **formed)
        asked = _checks.flag("class_sums", given.pop("class_sums", False))
        result, sums, *rest = function(logits, labels, class_sums=True, **given, **formed)
        self._step(sums)
        results = [result, *([sums] if asked else []), *rest]
        return tuple(results) if len(results) > 1 else result

    def extra_repr(self) -> str:
        numbers = {self.names.get(key, key): one for key, one in self.numbers.items()}
        given = {"classes": self.classes, **numbers, "exempt": self.exempt, **self.options}
        return ", ".join(f"{key}={value}" for key, value in given.items())


class EQLv2Loss(_GradientBalance):
    """Equalization loss v2 (Tan et al., arXiv 2012.08548): sigmoid cross-entropy whose class weights follow g, the
    ratio of the positive and negative gradients of a class so far.

        loss = tare.torch.nn.EQLv2Loss(classes=1203, normalizer="rows")
        loss(logits, labels).backward()

    Negatives have the weight f = 1/(1+exp(-gamma*(g-mu))), positives 1 + alpha*(1-f). A new module has f = 1. In
    training a forward takes its weights from the earlier batches. Then it adds its own sums of w*|p-t|, without the
    divisor. In eval() and under no_grad() nothing is added. Backward uses the weights of its own forward. A loss
    inside of torch.utils.checkpoint is refused. With a `process_group` the sums of a step are added over its ranks.

    The state is in state_dict(). Nothing waits for a GPU. A forward in training reads the logits twice. A Head may take
    the place of the logits.

    classes: C. gamma, mu, alpha: the paper's. exempt: a column whose weights stay 1, such as one of objectness.
    options: those of sigmoid_ce; the call's come before them.
    """

    rule, has_gammas = 0, False
    names: ClassVar[dict[str, str]] = {"steepness": "gamma", "midpoint": "mu", "gain": "alpha"}

    def __init__(
        self,
        classes: int,
        gamma: float = 12.0,
        mu: float = 0.8,
        alpha: float = 4.0,
        exempt: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(classes, exempt, options, steepness=gamma, midpoint=mu, gain=alpha)

    def forward(self, logits: Levels | Head, labels: Levels | None = None, **options: Any) -> Any:
        return self._evaluate(_functions.sigmoid_ce, logits, labels, {**self.options, **options})


class EqualizedFocalLoss(_GradientBalance):
    """Equalized focal loss (Li et al., arXiv 2201.02593): sigmoid focal loss. A class has the exponent
    gamma + scale*(1-g) and the weight (this exponent)/gamma. g, at most 1, is the ratio of the positive and negative
    gradients of the class so far.

        loss = tare.torch.nn.EqualizedFocalLoss(classes=1203, normalizer="positives")
        loss(logits, labels).backward()

    A new module has g = 1, which is focal loss. Steps, state and ranks are as in EQLv2Loss. The sums are those of
    |gradient| of this loss.

    classes: C. gamma, scale: the paper's. alpha: of focal loss. exempt: a column with exponent gamma and weight 1.
    options: those of sigmoid_focal; the call's come before them.
    """

    rule, has_gammas = 1, True

    def __init__(
        self,
        classes: int,
        gamma: float = 2.0,
        scale: float = 8.0,
        alpha: Alpha = 0.25,
        exempt: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(classes, exempt, options, gamma=gamma, scale=scale)
        self.options["alpha"] = alpha

    def forward(self, logits: Levels | Head, labels: Levels | None = None, **options: Any) -> Any:
        return self._evaluate(_functions.sigmoid_focal, logits, labels, {**self.options, **options})
