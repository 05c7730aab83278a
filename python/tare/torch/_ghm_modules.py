# SPDX-License-Identifier: Apache-2.0
"""The GHM losses as modules that keep their momentum sums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .. import _tensors
from .._loss import Head, ghm_state
from . import _functions
from ._modules import StateModule

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._types import GhmOptions, GhmROptions, Levels


class _Ghm(StateModule):
    """The base of both GHM modules: settings and the state. ghm_histogram gives one density for all ranks."""

    def __init__(self, bins: int, momentum: float, options: dict[str, Any]) -> None:
        super().__init__()
        self.bins, self.momentum, self.options = bins, momentum, options
        self.state = ghm_state(bins)

    def _new_state(self, device: torch.device) -> torch.Tensor:
        return ghm_state(self.bins, device)

    def _checked(self, state: torch.Tensor) -> torch.Tensor:
        return _tensors.loaded_state(state, self.bins)

    def extra_repr(self) -> str:
        given = {"bins": self.bins, "momentum": self.momentum, **self.options}
        return ", ".join(f"{key}={value}" for key, value in given.items())


class GHMC(_Ghm):
    """ghm_c with its momentum sums in `state`. Call it with logits, labels and the options of `loss`."""

    def __init__(self, bins: int = 30, momentum: float = 0.0, **options: Unpack[GhmOptions]) -> None:
        super().__init__(bins, momentum, dict(options))

    def forward(self, logits: Levels | Head, labels: Levels | None = None, **options: Unpack[GhmOptions]) -> Any:
        return _functions.ghm_c(
            logits, labels, bins=self.bins, momentum=self.momentum, state=self.state, **self.options, **options
        )


class GHMR(_Ghm):
    """ghm_r with its momentum sums in `state`. Call it with predictions, targets and the options of `loss`."""

    def __init__(self, mu: float = 0.02, bins: int = 10, momentum: float = 0.0, **options: Unpack[GhmOptions]) -> None:
        super().__init__(bins, momentum, {"mu": mu, **options})

    def forward(
        self, predictions: Levels | Head, targets: Levels, labels: Levels | None = None, **options: Unpack[GhmROptions]
    ) -> Any:
        return _functions.ghm_r(
            predictions,
            targets,
            labels,
            bins=self.bins,
            momentum=self.momentum,
            state=self.state,
            **self.options,
            **options,
        )
