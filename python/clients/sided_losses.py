# SPDX-License-Identifier: Apache-2.0
"""Compares Tare's asymmetric, reduced and heatmap focal losses and label smoothing with other libraries' code.

    python python/clients/sided_losses.py

It takes those of torch, timm, segmentation_models_pytorch and mmdet that are installed, and says what is missing.
Random logits and targets go through the reference and through Tare, in float64 and float32. A row of the table has the
difference of the losses, relative to the loss, and of the gradients, relative to the largest element. The second table
has logits at which a reference fails, beside the formula in double. Exit status 1: a difference is above its bound.

bounds: 1e-10 in float64, 1e-5 in float32. timm computes in float32 whatever the logits' type. Its eps of 1e-8 and that
of mmdet, 1e-12, show where a logit is far out.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import compiled_ops
import torch
import torch.nn.functional as F

import tare.torch

ROWS, CLASSES = 300, 17


class Batch:
    def __init__(self, dtype: torch.dtype) -> None:
        random = torch.Generator().manual_seed(1)
        self.logits = (3 * torch.randn(ROWS, CLASSES, generator=random, dtype=torch.float64) - 2).to(dtype)
        self.labels = torch.randint(CLASSES, (ROWS,), generator=random)
        self.several = (torch.rand(ROWS, CLASSES, generator=random) < 0.2).to(dtype)
        places = torch.arange(ROWS)[:, None] - 17 * torch.arange(CLASSES)[None, :]
        self.heatmap = torch.exp(-(places.double() ** 2) / 50).to(dtype)


def timm_asymmetric(detached: bool) -> Any:
    def evaluate(batch: Batch, x: torch.Tensor) -> torch.Tensor:
        found = importlib.import_module("timm.loss.asymmetric_loss").AsymmetricLossMultiLabel
        return found(reduction="sum", disable_torch_grad_focal_loss=detached)(x, batch.several)

    return evaluate


def reduced_focal(batch: Batch, x: torch.Tensor) -> torch.Tensor:
    found = importlib.import_module("segmentation_models_pytorch.losses._functional").focal_loss_with_logits
    return found(x, batch.several, gamma=2.0, alpha=None, reduction="sum", reduced_threshold=0.5)


def gaussian_focal(batch: Batch, x: torch.Tensor) -> torch.Tensor:
    try:
        importlib.import_module("mmcv._ext")
    except ImportError:
        compiled_ops.install()
    found = importlib.import_module("mmdet.models.losses.gaussian_focal_loss").GaussianFocalLoss
    return found(reduction="sum")(x.sigmoid(), batch.heatmap)


def smoothed_sigmoid(batch: Batch, x: torch.Tensor) -> torch.Tensor:
    targets = F.one_hot(batch.labels, CLASSES).to(x.dtype) * 0.9 + 0.05
    return F.binary_cross_entropy_with_logits(x, targets, reduction="sum")


def smoothed_softmax(batch: Batch, x: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(x, batch.labels, reduction="sum", label_smoothing=0.1)


def smoothed_softmax_focal(batch: Batch, x: torch.Tensor) -> torch.Tensor:
    """The focal factor of the label, as apex and EfficientDet have it, on torch's smoothed cross-entropy."""
    rows = F.cross_entropy(x, batch.labels, reduction="none", label_smoothing=0.1)
    p = x.softmax(-1).gather(1, batch.labels[:, None])[:, 0]
    return ((1 - p) ** 2 * rows).sum()


REFERENCES = {  # name: its loss; Tare's, its parameters, and which of the batch are its targets (None: labels)
    "timm AsymmetricLossMultiLabel": (timm_asymmetric(False), "sigmoid-asymmetric", {}, "several"),
    "timm, disable_torch_grad_focal_loss": (
        timm_asymmetric(True),
        "sigmoid-asymmetric",
        {"modulator": "detached"},
        "several",
    ),
    "segmentation_models_pytorch, reduced_threshold": (reduced_focal, "sigmoid-reduced-focal", {}, "several"),
    "mmdet GaussianFocalLoss": (gaussian_focal, "sigmoid-heatmap-focal", {}, "heatmap"),
    "torch BCE of smoothed targets": (smoothed_sigmoid, "sigmoid-ce", {"label_smoothing": 0.1}, None),
    "torch cross_entropy, label_smoothing": (smoothed_softmax, "softmax-ce", {"label_smoothing": 0.1}, None),
    "the same, times (1-p)^2": (smoothed_softmax_focal, "softmax-focal", {"label_smoothing": 0.1}, None),
}


def gradient_of(evaluate: Any, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = logits.clone().requires_grad_()
    loss = evaluate(leaf)
    loss.backward()
    return loss.detach().double(), leaf.grad.double()


def compare(name: str, dtype: torch.dtype) -> float | None:
    """The larger difference of loss and gradient, or None if the reference is not installed."""
    reference, loss, parameters, wanted = REFERENCES[name]
    batch = Batch(dtype)
    given = {"labels": batch.labels} if wanted is None else {"targets": getattr(batch, wanted)}
    try:
        theirs = gradient_of(lambda x: reference(batch, x), batch.logits)
    except ImportError as error:
        print(f"| {name} | {str(dtype)[6:]} | not installed: {error} | |")
        return None
    ours = gradient_of(lambda x: tare.torch.loss(loss, x, **given, **parameters), batch.logits)
    of_loss = ((ours[0] - theirs[0]) / theirs[0]).abs().item()
    of_gradient = ((ours[1] - theirs[1]).abs().max() / theirs[1].abs().max()).item()
    print(f"| {name} | {str(dtype)[6:]} | {of_loss:.1e} | {of_gradient:.1e} |")
    return max(of_loss, of_gradient)


def show_failures() -> None:
    """timm clamps probabilities at 1e-8. Both in float32, a label alone, without a margin."""
    try:
        module = importlib.import_module("timm.loss.asymmetric_loss").AsymmetricLossMultiLabel(clip=None)
    except ImportError:
        return
    print("\n| x | formula: loss, gradient | timm AsymmetricLossMultiLabel | Tare |\n|---|---|---|---|")
    one = torch.ones(1, 1)
    for value in (-100.0, -19.0, -17.0, 17.0):
        x = torch.tensor([[value]])
        wide = x.double().requires_grad_()
        loss = ((-wide).sigmoid() * F.softplus(-wide)).sum()
        loss.backward()
        theirs = gradient_of(lambda leaf: module(leaf, one), x)
        ours = gradient_of(lambda leaf: tare.torch.sigmoid_asymmetric(leaf, targets=one, margin=0.0), x)
        print(f"| {value:g} | {loss.item():.6g}, {wide.grad.item():.6g} |", end="")
        print(f" {theirs[0].item():.6g}, {theirs[1].item():.6g} | {ours[0].item():.6g}, {ours[1].item():.6g} |")


def main() -> bool:
    print("| reference | type | loss | gradient |\n|---|---|---|---|")
    failed = []
    for name in REFERENCES:
        for dtype in (torch.float64, torch.float32):
            bound = 1e-5 if dtype == torch.float32 or name.startswith("timm") else 1e-10
            difference = compare(name, dtype)
            if difference is not None and not difference <= bound:
                failed.append(f"{name}, {dtype}: {difference:.2g} is above {bound:g}")
    show_failures()
    print("\n".join(failed), file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
