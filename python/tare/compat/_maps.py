# SPDX-License-Identifier: Apache-2.0
"""Logits [N, C, ...] with the classes in the second axis, as segmentation has them, as Tare takes them."""

from __future__ import annotations

from typing import Any

import torch

from .. import _tensors


def as_map(tensor: torch.Tensor) -> torch.Tensor:
    """[N, C, ...] as a map of one anchor [N, C, places, 1]; [N, C] as it is."""
    return tensor if tensor.dim() == 2 else tensor.flatten(2).unsqueeze(-1)


def of_map(logits: torch.Tensor) -> dict[str, Any]:
    return {} if logits.dim() == 2 else {"classes": logits.shape[1]}


def labels_of_map(labels: torch.Tensor) -> torch.Tensor:
    """Labels [N, ...] beside as_map's logits."""
    return labels if labels.dim() == 1 else labels.flatten(1)


def along_classes(vector: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """One value a class, broadcast to [N, C, ...]."""
    return vector.reshape(-1, *[1] * (len(shape) - 2)).expand(shape)


def wide(tensor: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return tensor.to(_tensors.wide(logits.dtype))


def are_hard(targets: torch.Tensor) -> bool:
    """Whether all targets are 0 or 1. On a GPU, and in a graph, nothing waits for the answer: they are."""
    if not targets.is_floating_point() or not _tensors.is_plain(targets) or targets.device.type != "cpu":
        return True
    return bool(((targets == 0) | (targets == 1)).all())
