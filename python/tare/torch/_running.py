# SPDX-License-Identifier: Apache-2.0
"""What follows the data: the running counts of a module, when they take a step, and what a loss gets of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .. import _balance, _batch, _c, _call, _checks, _losses, _ranks, _tensors
from . import _functions
from ._modules import StateModule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._loss import Head
    from .._types import Levels, LossName

_CONVENTION = {"first_label": 0, "background_label": -1, "ignore_label": -2}


def _in_backward() -> bool:
    """Whether autograd's engine is running this code, as it does for a checkpoint that is computed again."""
    task = getattr(torch._C, "_current_graph_task_id", None)
    return task is not None and task() != -1


def _labels_of(labels: Any) -> list[torch.Tensor]:
    """Each tensor of labels as one row axis. Counts do not depend on a layout."""
    given = labels if isinstance(labels, (list, tuple)) else [labels]
    tensors = [_tensors.check_tensor("labels", one).reshape(1, -1) for one in given]
    return [one if one.dtype in _call.LABEL_DTYPES else one.to(torch.int64) for one in tensors]


def _count(balance: Any, classes: int, labels: Sequence[torch.Tensor], convention: dict[str, int]) -> None:
    levels = [_batch.Level(_call._torch, (*one.shape, classes)) for one in labels]
    for level, one in zip(levels, labels):
        level.rows("labels", one)
    first, background, ignore = (convention[key] for key in _CONVENTION)
    options = _batch.label_options(first, background, ignore, 1.0)
    batch = _batch.make_batch(levels, _c.F32, _call._one_dtype("labels", labels, _call.LABEL_DTYPES), **options)
    context, stream = _call.context_of(labels[0].device)
    _c.check(_c.library.tare_class_balance_count(context, balance, batch, stream), context)


class _RunningCounts(StateModule):
    """A loss that follows running counts of positives, which a training forward adds to."""

    _result: str  # the field of tare_class_balance that the loss gets

    def __init__(self, name: str, classes: int, settings: dict[str, float], options: dict[str, Any]) -> None:
        super().__init__()
        self.name, self.classes, self.settings, self.options = name, classes, settings, options
        self.function = _functions.by_name(name)
        self.state = self._new_state(torch.device("cpu"))

    def _new_state(self, device: torch.device) -> torch.Tensor:
        return torch.zeros(_balance.words_of(self.classes), dtype=torch.int64, device=device)

    def _checked(self, state: torch.Tensor) -> torch.Tensor:
        state = _tensors.state_tensor(state)
        if state.numel() != self.state.numel():
            raise ValueError(f"state has {state.numel()} words; {self.classes} classes need {self.state.numel()}")
        if not state.is_meta:
            _balance.check_state(state.cpu().numpy(), self.classes)
        return state.clone()

    @property
    def counts(self) -> torch.Tensor:
        """A copy of the running counts, float64 [C]."""
        return self.state[1 + self.classes :].view(torch.float64).clone()

    @torch.compiler.disable
    def weights(self, labels: Levels, options: dict[str, Any]) -> torch.Tensor:
        """What this call's loss gets, float32 [C]. In training it takes a step before."""
        if labels is None:
            raise ValueError("labels is None; the counts need labels")
        tensors = _labels_of(labels)
        steps = self.training and torch.is_grad_enabled()
        if steps and _in_backward():
            raise RuntimeError(
                "this loss is computed again in backward (torch.utils.checkpoint), which would count its labels twice; "
                "compute it outside of the checkpoint"
            )
        if self.state.device != tensors[0].device:
            self.state = self.state.to(tensors[0].device)
        with torch.no_grad():
            return self._weigh(tensors, options, steps)

    def _weigh(self, labels: list[torch.Tensor], options: dict[str, Any], steps: bool) -> torch.Tensor:
        found = torch.empty(self.classes, dtype=torch.float32, device=self.state.device)
        balance = _balance.make(self.classes, self.settings, self.state.data_ptr(), **{self._result: found.data_ptr()})
        call = _c.library.tare_class_balance_step if steps else _c.library.tare_class_balance_weigh
        if steps:
            convention = {key: options.get(key, default) for key, default in _CONVENTION.items()}
            _count(balance, self.classes, labels, convention)
            if (group := options.get("process_group")) is not None and _ranks.size(group) > 1:
                torch.distributed.all_reduce(self.state[1 : 1 + self.classes], group=group)
        context, stream = _call.context_of(self.state.device)
        _c.check(call(context, balance, stream), context)
        return found

    def extra_repr(self) -> str:
        given = {"classes": self.classes, **self.settings, **self.options}
        return ", ".join(f"{key}={value}" for key, value in given.items())


class RunningClassBalancedLoss(_RunningCounts):
    """A loss whose class weights follow the positives seen in training: those of Cui et al. (arXiv 1901.05555), 1/E_n,
    scaled so that their sum is the number of classes seen.

        loss = tare.torch.nn.RunningClassBalancedLoss(classes=80, normalizer="positives")
        loss(logits, labels).backward()

    In training each forward counts the rows of each class and adds them to the running counts, n = decay*n + counts,
    before it forms the weights. So a class of this batch has a weight. In eval() and under no_grad() the weights are
    those of the counts as they are. There a class that was never seen has weight 0, or with `least_count` the weight of
    that number of rows. Before any class was seen every weight is 1. On a GPU nothing waits.

    The weights are a new tensor in each forward. So backward takes those of its own forward, even if another forward
    came between. A loss inside of torch.utils.checkpoint is refused, because it would be counted twice. With a
    `process_group` the counts of a step are added over its ranks, and every rank has the same weights.

    classes: C. beta: in [0,1). decay: in (0,1]; 1 adds up all rows. least_count: 0, or in [1e-30,2**53]. loss: a loss
    with class weights, by name. options: its parameters and options; the call's come before them.
    """

    _result = "weights"

    def __init__(
        self,
        classes: int,
        beta: float = 0.999,
        decay: float = 1.0,
        least_count: float = 0.0,
        loss: LossName = "sigmoid-focal",
        **options: Any,
    ) -> None:
        name = _losses.loss_name(loss)
        if not _losses.DESCRIPTIONS[name].takes_class_weights:
            raise ValueError(f"loss is '{loss}', which has no class weights")
        if "class_weights" in options:
            raise _checks.WrongType("class_weights is given; this module forms them")
        super().__init__(name, classes, _balance.settings_of(beta, decay, least_count), options)

    def forward(self, logits: Levels, labels: Levels, **options: Any) -> Any:
        given = {**self.options, **options}
        return self.function(logits, labels, class_weights=self.weights(labels, given), **given)

    def extra_repr(self) -> str:
        return f"loss={self.name!r}, " + super().extra_repr()


class SeesawLoss(_RunningCounts):
    """softmax_seesaw with the samples of each class seen in training (Wang et al., arXiv 2008.10032).

        loss = tare.torch.SeesawLoss(classes=1203, normalizer="positives")
        loss(logits, labels).backward()

    In training each forward counts the rows of each class, of any weight, and adds them to the running counts,
    before it forms their logarithms. In eval() and under no_grad() the counts stay as they are. On a GPU nothing waits,
    and no memory grows with the square of C. Each forward has a tensor of its own, so that backward takes the counts
    of its own forward. A loss inside of torch.utils.checkpoint is refused, because it would be counted twice. With a
    `process_group` the counts of a step are added over its ranks. `state`, a part of state_dict(), has the counts.

    logits may be a Head. Rows of the background add nothing: the background is no class of this loss. Detectors with
    Seesaw loss have two more columns for objectness, with a separate softmax: tare.compat.mmdet.SeesawLoss.

    classes: C. p, q, epsilon: those of softmax_seesaw. options: those of `loss`; the call's come before them.
    """

    _result = "log_counts"

    def __init__(self, classes: int, p: float = 0.8, q: float = 2.0, epsilon: float = 0.01, **options: Any) -> None:
        if "log_counts" in options:
            raise _checks.WrongType("log_counts is given; this module forms them")
        parameters = {"p": p, "q": q, "epsilon": epsilon}
        _losses.parameters_of("softmax-seesaw", parameters)
        super().__init__("softmax-seesaw", classes, _balance.settings_of(0.0, 1.0, 0.0), {**parameters, **options})

    @property
    def counts(self) -> torch.Tensor:
        """A copy of the samples of each class, int64 [C]."""
        return super().counts.to(torch.int64)

    def forward(self, logits: Levels | Head, labels: Levels, **options: Any) -> Any:
        given = {**self.options, **options}
        first, background = (given.get(key, _CONVENTION[key]) for key in ("first_label", "background_label"))
        if first <= background < first + self.classes:
            raise ValueError(f"background_label is {background}, a class; Seesaw loss has no class for the background")
        return self.function(logits, labels, log_counts=self.weights(labels, given), **given)

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in {"classes": self.classes, **self.options}.items())
