# SPDX-License-Identifier: Apache-2.0
"""What torch.jit.script compiles in the place of a module of nn: an operator that runs the Python function."""

import json

import torch

from . import _functions


def _module_loss(logits, labels, tensors, settings):
    name, keys, options = json.loads(settings)
    return _functions.by_name(name)(logits, labels, **dict(zip(keys, tensors)), **options)


_library = torch.library.Library("tare", "FRAGMENT")
_library.define("module_loss(Tensor logits, Tensor labels, Tensor[] tensors, str settings) -> Tensor")
_library.impl("module_loss", _module_loss, "CompositeImplicitAutograd")


class Module(torch.nn.Module):
    """buffers: settings that are tensors, by name; options: the others."""

    tensors: list[torch.Tensor]  # TorchScript reads this: annotations must not be text here

    def __init__(self, name, buffers, options):
        super().__init__()
        self.tensors = list(buffers.values())
        try:
            self.settings = json.dumps([name, list(buffers), options])
        except TypeError:
            raise TypeError("torch.jit.script takes a loss whose settings are words, numbers and [C] tensors") from None

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.ops.tare.module_loss(logits, labels, self.tensors, self.settings)
