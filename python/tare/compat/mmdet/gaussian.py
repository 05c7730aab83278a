# SPDX-License-Identifier: Apache-2.0
"""mmdetection's GaussianFocalLoss: the focal loss of heatmaps, of CenterNet and CornerNet."""

from __future__ import annotations

import torch

from ... import _tensors
from ... import torch as tare
from .. import Refused, check_tensors, loss_type, or_original, reduce_plainly, widened
from ._layout import broadcast, check_dense, chosen, dense_loss, finished, reduction_options

_EPSILON = 1e-12  # of the original


def _logits(p: torch.Tensor) -> torch.Tensor:
    """Logits of probabilities. Of those that are 0 or 1 it takes the nearest that are not; they get no gradient."""
    limits = torch.finfo(p.dtype)
    return p.clamp(limits.tiny, 1 - limits.eps / 2).logit()


class GaussianFocalLoss(torch.nn.Module):
    """Focal loss of heatmaps (arXiv 1808.01244, eq. 1). Called with probabilities pred and a Gaussian map of its shape.

    A target of 1 is a peak: (1-p)^alpha * (-log p). Others: (1-t)^gamma * p^alpha * (-log(1-p)). weight broadcasts.
    reduction "mean" divides by avg_factor, else by all elements. With pos_inds and pos_labels, as CenterNet's update
    has them, the peaks are pred[pos_inds, pos_labels] instead; PyTorch computes these. A probability of 1 has the loss
    of the largest below it, and no gradient: the original's 1e-12 in the logarithm is not here.
    """

    def __init__(
        self,
        alpha: float = 2.0,
        gamma: float = 4.0,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        pos_weight: float = 1.0,
        neg_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.alpha, self.gamma, self.reduction, self.loss_weight = alpha, gamma, reduction, loss_weight
        self.pos_weight, self.neg_weight = pos_weight, neg_weight

    def forward(
        self,
        pred: torch.Tensor,
        target: torch.Tensor,
        pos_inds: torch.Tensor | None = None,
        pos_labels: torch.Tensor | None = None,
        weight: torch.Tensor | None = None,
        avg_factor: float | torch.Tensor | None = None,
        reduction_override: str | None = None,
    ) -> torch.Tensor:
        reduction = chosen(reduction_override, self.reduction)
        check_tensors(pred=pred, target=target, weight=weight)
        check_dense(pred, target)
        if pos_inds is None:
            return self.loss_weight * self._map(pred, target, weight, reduction, avg_factor)
        if pos_labels is None:
            raise Refused("pos_labels is None; it is given with pos_inds")
        peaks = widened(pred)[pos_inds].gather(1, pos_labels.unsqueeze(1))
        losses = -(peaks + _EPSILON).log() * (1 - peaks).pow(self.alpha)
        options = reduction_options(reduction, avg_factor, float(max(losses.numel(), 1)))
        loss = finished(reduce_plainly(losses, options), loss_type(pred.device, pred.dtype), reduction, avg_factor)
        rest = self._map(pred, target, None, reduction, avg_factor, (0.0, 1.0))
        return self.loss_weight * (self.pos_weight * loss + self.neg_weight * rest)

    def _map(self, pred, target, weight, reduction, avg_factor, sides=None):
        """sides: weights of peaks and of the others."""
        positive, negative = (self.pos_weight, self.neg_weight) if sides is None else sides
        options = reduction_options(reduction, avg_factor, float(max(pred.numel(), 1)))
        if positive != 1 or negative != 1:
            options["element_weights"] = torch.where(target == 1, float(positive), float(negative))
        if weight is not None:
            of_elements = broadcast(weight, pred.shape).to(torch.float32)
            options["element_weights"] = options.get("element_weights", 1.0) * of_elements
        wide = widened(pred)
        dense = target.to(_tensors.wide(pred.dtype))

        def theirs():
            t = target.to(wide.dtype)
            losses = torch.where(
                t == 1,
                -(wide + _EPSILON).log() * (1 - wide).pow(self.alpha),
                -(1 - wide + _EPSILON).log() * wide.pow(self.alpha) * (1 - t).pow(self.gamma),
            )
            return reduce_plainly(losses, options)

        def ours():
            parameters = {"gamma": self.alpha, "beta": self.gamma}
            return dense_loss(tare.sigmoid_heatmap_focal, _logits(wide), dense, {**parameters, **options})

        loss = or_original(ours, theirs, target, weight)
        given = [one.dtype for one in (pred, target, weight) if one is not None]
        return finished(loss, loss_type(pred.device, *given), reduction, avg_factor)
