# SPDX-License-Identifier: Apache-2.0
"""mmdetection's DistributionFocalLoss, of the sides of a box as rows of bins."""

from __future__ import annotations

import torch

from ... import _tensors
from ... import torch as tare
from .. import check_tensors, loss_type, or_original, reduce_plainly
from .._bins import between_bins
from ._layout import check_labels, chosen, finished, row_options, types_of


class DistributionFocalLoss(torch.nn.Module):
    """Distribution focal loss (arXiv 2006.04388, eq. 6). Called with pred [N, bins] and target [N], numbers in
    [0, bins-1]; weight [N]. reduction "mean" divides by avg_factor, else by N. A target beyond the bins is clamped; the
    original fails there."""

    def __init__(self, reduction: str = "mean", loss_weight: float = 1.0) -> None:
        super().__init__()
        self.reduction, self.loss_weight = reduction, loss_weight

    def forward(
        self,
        pred: torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor | None = None,
        avg_factor: float | torch.Tensor | None = None,
        reduction_override: str | None = None,
    ) -> torch.Tensor:
        reduction = chosen(reduction_override, self.reduction)
        check_tensors(pred=pred, target=target, weight=weight)
        check_labels(pred, target)
        options = row_options(weight, reduction, avg_factor, target.shape)

        def theirs():
            plain = {**options, "reduction": "none"} if "reduction" in options else options
            return reduce_plainly(between_bins(pred, target), plain)

        def ours():
            scores = target.to(_tensors.wide(pred.dtype))
            return tare.softmax_distribution_focal(pred, scores=scores, **options)

        loss = or_original(ours, theirs, target, weight)
        dtype = loss_type(pred.device, pred.dtype, target.dtype, *types_of(weight))
        return self.loss_weight * finished(loss, dtype, reduction, avg_factor)
