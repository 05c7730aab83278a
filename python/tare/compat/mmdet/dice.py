# SPDX-License-Identifier: Apache-2.0
"""mmdetection's DiceLoss and dice_loss, of mask heads."""

from __future__ import annotations

import torch

from ... import torch as tare
from .. import Refused, check_tensors, loss_type, or_original, widened
from ._layout import chosen, finished, reduction_options


def _losses_of(p: torch.Tensor, target: torch.Tensor, eps: float, naive_dice: bool) -> torch.Tensor:
    """Of probabilities, one loss a mask, as the original writes it."""
    p, t = widened(p).flatten(1), target.flatten(1).to(widened(p).dtype)
    hits = (p * t).sum(1)
    if naive_dice:
        return 1 - (2 * hits + eps) / (p.sum(1) + t.sum(1) + eps)
    return 1 - 2 * hits / ((p * p).sum(1) + eps + (t * t).sum(1) + eps)


def _reduced(losses, weight, options):
    losses = losses if weight is None else losses * weight
    if options.get("reduction") == "none":
        return losses
    return losses.sum() / options.get("normalizer", 1)


def _dice(pred, target, weight, eps, reduction, naive_dice, avg_factor, is_logits):
    check_tensors(pred=pred, target=target, weight=weight)
    if pred.dim() < 2 or pred.shape != target.shape:
        raise Refused(f"pred has shape {tuple(pred.shape)}, target {tuple(target.shape)}; they must be [N, ...] of one")
    if weight is not None and weight.shape != pred.shape[:1]:
        raise Refused(f"weight has shape {tuple(weight.shape)}; there are {len(pred)} masks")
    options = reduction_options(reduction, avg_factor, float(max(len(pred), 1)))

    def theirs():
        return _reduced(_losses_of(pred.sigmoid() if is_logits else pred, target, eps, naive_dice), weight, options)

    def ours():
        parameters = {"numerator_smoothing": eps / 2, "denominator_smoothing": eps / 2}
        if not naive_dice:
            parameters = {"numerator_smoothing": 0.0, "denominator_smoothing": float(eps)}
        given = {"normalizer": options["normalizer"]} if "normalizer" in options else {}
        if options.get("reduction") == "none":
            given = {"reduction": "masks"}
        rows = pred.flatten(1)
        return tare.mask_loss(
            rows,
            target.flatten(1),
            parameters=parameters,
            squared=not naive_dice,
            mask_weights=weight,
            **given,
        ).loss

    loss = or_original(ours, theirs, target, weight) if is_logits else theirs()
    return finished(loss, loss_type(pred.device, pred.dtype, torch.float32), reduction, avg_factor)


def dice_loss(
    pred: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    eps: float = 1e-3,
    reduction: str = "mean",
    naive_dice: bool = False,
    avg_factor: float | torch.Tensor | None = None,
) -> torch.Tensor:
    """Dice loss of probabilities pred [N, ...] and target of its shape; PyTorch computes it. weight: [N]."""
    return _dice(pred, target, weight, eps, reduction, naive_dice, avg_factor, is_logits=False)


class DiceLoss(torch.nn.Module):
    """1 - 2*sum p*t/(sum p^2 + eps + sum t^2 + eps) of each mask, p = sigmoid(pred) (V-Net, arXiv 1606.04797).

    naive_dice: 1 - (2*sum p*t + eps)/(sum p + sum t + eps). weight: [N]. reduction "mean" divides by avg_factor, else
    by the number of masks. With activate=False pred is probabilities, and PyTorch computes it.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        activate: bool = True,
        reduction: str = "mean",
        naive_dice: bool = False,
        loss_weight: float = 1.0,
        eps: float = 1e-3,
    ) -> None:
        super().__init__()
        self.use_sigmoid, self.activate, self.reduction = use_sigmoid, activate, reduction
        self.naive_dice, self.loss_weight, self.eps = naive_dice, loss_weight, eps

    def forward(
        self,
        pred: torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor | None = None,
        reduction_override: str | None = None,
        avg_factor: float | torch.Tensor | None = None,
    ) -> torch.Tensor:
        if self.activate and not self.use_sigmoid:
            raise NotImplementedError("use_sigmoid is False; only the sigmoid is an activation here, as in mmdetection")
        reduction = chosen(reduction_override, self.reduction)
        loss = _dice(pred, target, weight, self.eps, reduction, self.naive_dice, avg_factor, is_logits=self.activate)
        return self.loss_weight * loss
