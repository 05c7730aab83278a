# SPDX-License-Identifier: Apache-2.0
"""Operators for torch.jit.script: a scripted function calls one instead of Python that TorchScript cannot compile."""

import torch

_library = torch.library.Library("tare_compat", "DEF")
_SIGNATURE = "(Tensor inputs, Tensor targets, float alpha, float gamma, str reduction) -> Tensor"


def define(name, function):
    """An operator of this name that runs `function`, autograd included."""
    _library.define(name + _SIGNATURE)
    _library.impl(name, function, "CompositeImplicitAutograd")
