# SPDX-License-Identifier: Apache-2.0
"""Tare's losses in the registry of an installed mmdetection."""

from __future__ import annotations

import importlib

NAMES = (
    "CrossEntropyCustomLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "DistributionFocalLoss",
    "EQLV2Loss",
    "FocalCustomLoss",
    "FocalLoss",
    "GHMC",
    "GHMR",
    "GaussianFocalLoss",
    "QualityFocalLoss",
    "SeesawLoss",
    "VarifocalLoss",
)


def register() -> dict[str, type]:
    """Replaces mmdetection's losses in its registry, so that `type='FocalLoss'` builds Tare's. It imports mmdet.

    Returns what was replaced, by name. mmdet.registry.MODELS.register_module(name, force=True, module=...) puts one
    back.
    """
    importlib.import_module("mmdet.models")  # which registers its own, and refuses a name that exists
    models = importlib.import_module("mmdet.registry").MODELS
    ours = importlib.import_module(__package__)
    replaced = {name: models.get(name) for name in NAMES if models.get(name) is not getattr(ours, name)}
    for name in replaced:
        models.register_module(name=name, force=True, module=getattr(ours, name))
    return replaced
