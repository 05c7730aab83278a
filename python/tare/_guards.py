# SPDX-License-Identifier: Apache-2.0
"""Whether tensors are like earlier ones in all but their values, asked of PyTorch in one call.

torch.compile checks its graphs' inputs so. The class is not public. So it is tried here on samples, and a PyTorch whose
class is missing, is called otherwise, or overlooks a difference does without: _prepared then compares layouts itself.
"""

from __future__ import annotations

import functools

import torch


def _samples():
    """Tensors of which each two differ in what a prepared call depends on, most in one thing alone."""
    new = functools.partial(torch.zeros, dtype=torch.float32, device="cpu")
    wide, complexes = new(2, 3), new(2, 3, dtype=torch.complex64)
    yield from (wide, wide[:, :2], new(2, 6)[:, ::2], new(3, 2), new(3, 2).t(), new(2, 3, 1), new(6))
    yield from (wide.double(), wide.int(), wide.to("meta"), complexes, complexes.conj(), torch._neg_view(wide))
    yield from (new(2, 3, requires_grad=True), torch.nn.Parameter(wide), torch.nn.Parameter(wide, False))


def _works(make):
    """Whether guards accept what they were made of, and nothing else."""
    samples = list(_samples())
    with torch.enable_grad():
        for index, one in enumerate(samples):
            guard = make([one])
            if [bool(guard(other)) for other in samples] != [place == index for place in range(len(samples))]:
                return False
        pair = make([*samples[:2]])
        return pair(*samples[:2]) and not pair(*samples[1::-1]) and not pair(samples[0], samples[0])


def _find():
    try:
        kind = torch._C._dynamo.guards.TensorGuards

        def make(tensors):
            return kind(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None).check

        return make if _works(make) else None
    except Exception:  # whatever an interface that changed may raise
        return None


# make(tensors) gives a function that takes as many tensors, and says whether each has the class, type, device, sizes,
# strides and dispatch keys of the one in its place, whether each wants a gradient in the present grad mode as that one
# did, and whether no two are one. None: it cannot be asked here. The function keeps no tensor.
make = _find()
