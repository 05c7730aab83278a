# SPDX-License-Identifier: Apache-2.0
"""What the modules of nn share: settings, and a state that is saved but is no buffer."""

from __future__ import annotations

import copy
from typing import Any

import torch


class Module(torch.nn.Module):
    """What all of them share: `options`, and copies that share a process group, which cannot be copied."""

    options: dict[str, Any]

    def __deepcopy__(self, memo: dict[int, Any]) -> Module:
        if (group := self.options.get("process_group")) is not None:
            memo[id(group)] = group
        copied = memo[id(self)] = self.__class__.__new__(self.__class__)
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied


class StateModule(Module):
    """A module with a `state`: int64 words, some of which hold doubles. state_dict() saves it; it moves with the model.

    The state is not a buffer, because its words are counts and doubles that no average may touch. So
    AveragedModel(use_buffers=True), other averages of a model (EMA, SWA), averages over ranks and
    DistributedDataParallel's broadcast leave it alone. A copy of a model keeps its own, and so does each rank.

    state_dict() gives a copy of the state. load_state_dict refuses a state that Tare did not write, such as an average
    of checkpoints. to_empty() keeps the state, or makes a fresh one if it had no memory (meta). half() does not change
    it.
    """

    state: torch.Tensor

    def _new_state(self, device: torch.device) -> torch.Tensor:
        raise NotImplementedError

    def _checked(self, state: torch.Tensor) -> torch.Tensor:
        """A copy of a state from a checkpoint. Raises ValueError if Tare did not write it."""
        raise NotImplementedError

    def __prepare_scriptable__(self) -> None:
        raise TypeError("torch.jit.script writes no state of a loss; use torch.compile, or leave this module out")

    def _apply(self, fn: Any, recurse: bool = True) -> StateModule:
        super()._apply(fn, recurse)
        moved = fn(self.state)  # says where to; what it holds may be nothing (to_empty) or rounded (type)
        if moved is not self.state:
            self.state = self._new_state(moved.device) if self.state.is_meta else self.state.to(moved.device)
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "state"] = self.state.clone()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing: list[str],
        unexpected: list[str],
        errors: list[str],
    ) -> None:
        key = prefix + "state"
        others = {name: one for name, one in state_dict.items() if name != key}
        super()._load_from_state_dict(others, prefix, local_metadata, strict, missing, unexpected, errors)
        if key not in state_dict:
            missing += [key] if strict else []
            return
        try:
            loaded = self._checked(state_dict[key])
        except ValueError as error:
            errors.append(f"{key}: {error}")
            return
        self.state = loaded if self.state.is_meta else self.state.copy_(loaded)
