# SPDX-License-Identifier: Apache-2.0
"""mmdet.models.losses: FocalLoss, CrossEntropyLoss, GHMC and GHMR, as of mmdetection 3.

avg_factor may be a tensor on the logits' device: it is never waited for. Where they differ: `activated` (probabilities
instead of logits), `use_mask` and, in GHM, reductions other than "mean" are refused; GHM's label_weight is of rows (of
[N, 4] in GHMR, whose columns mmdetection makes equal, the first decides), and its momentum sums are in the buffer
`state`, not `acc_sum`.
"""

import torch

from .. import torch as tare
from . import NOT_A_LABEL, reduced

_EPSILON = torch.finfo(torch.float32).eps


def _reduction(reduction, avg_factor, mean):
    """What mmdetection's weight_reduce_loss does: avg_factor, if any, instead of the mean's divisor."""
    if avg_factor is None or reduction == "none":
        return reduced(reduction, mean)
    if reduction == "sum":
        raise ValueError("avg_factor is given with reduction 'sum'; it goes with 'mean'")
    return reduced(reduction, avg_factor + _EPSILON)


def _weights(weight, pred):
    """Weights [N], [N, 1], [N, C] or flat, as the keywords they are."""
    if weight is None:
        return {}
    if weight.shape == pred.shape[:1] or weight.shape == (len(pred), 1):
        return {"row_weights": weight.reshape(-1)}
    if weight.numel() != pred.numel():
        raise ValueError(f"weight has shape {tuple(weight.shape)}; pred has {tuple(pred.shape)}")
    return {"element_weights": weight.reshape(pred.shape)}


def _labels(target, classes, ignore_index=None):
    """Labels with what is negative, or ignore_index, as -1; what lies above the classes is background too."""
    ignored = target < 0 if ignore_index is None else (target < 0) | (target == ignore_index)
    return torch.where(ignored, -1, target.clamp(max=classes))


class FocalLoss(torch.nn.Module):
    """Sigmoid focal loss. Called with pred [N, C] and target [N] (C is background) or dense [N, C]; weight [N], [N, C]
    or flat. reduction "mean" divides by avg_factor, else by all N*C elements."""

    def __init__(self, use_sigmoid=True, gamma=2.0, alpha=0.25, reduction="mean", loss_weight=1.0, activated=False):
        super().__init__()
        if not use_sigmoid or activated:
            raise ValueError("use_sigmoid must be True and activated False: Tare takes logits")
        self.use_sigmoid, self.activated = use_sigmoid, activated
        self.gamma, self.alpha, self.reduction, self.loss_weight = gamma, alpha, reduction, loss_weight

    def forward(self, pred, target, weight=None, avg_factor=None, reduction_override=None):
        options = {"gamma": self.gamma, "alpha": self.alpha, **_weights(weight, pred)}
        options.update(_reduction(reduction_override or self.reduction, avg_factor, float(max(pred.numel(), 1))))
        if target.dim() == pred.dim():
            return self.loss_weight * tare.sigmoid_focal(pred, targets=target.to(torch.float32), **options)
        classes = pred.shape[1]
        labels = torch.where(target < 0, classes, target)  # as in mmcv
        return self.loss_weight * tare.sigmoid_focal(pred, labels, background_label=classes, ignore_label=NOT_A_LABEL,
                                                     **options)  # fmt: skip


class CrossEntropyLoss(torch.nn.Module):
    """Softmax cross-entropy, or sigmoid (labels of C and more are background, negative ones ignored; class_weight then
    multiplies the positives). Called with cls_score [N, C] and label [N], or dense [N, C]; weight [N], of sigmoid also
    [N, C]. reduction "mean" divides by avg_factor, else by all rows (of sigmoid, elements); with avg_non_ignore by
    those that are not ignored."""

    def __init__(
        self, use_sigmoid=False, use_mask=False, reduction="mean", class_weight=None, ignore_index=None,
        loss_weight=1.0, avg_non_ignore=False,
    ):  # fmt: skip
        super().__init__()
        if use_mask:
            raise ValueError("use_mask must be False: Tare has no mask loss")
        self.use_sigmoid, self.use_mask, self.reduction = use_sigmoid, use_mask, reduction
        self.class_weight, self.loss_weight = class_weight, loss_weight
        self.ignore_index, self.avg_non_ignore = ignore_index, avg_non_ignore

    def forward(
        self, cls_score, label, weight=None, avg_factor=None, reduction_override=None, ignore_index=None, **kwargs
    ):
        ignore = self.ignore_index if ignore_index is None else ignore_index
        ignore = -100 if ignore is None else ignore
        reduction, options = reduction_override or self.reduction, _weights(weight, cls_score)
        weights = None
        if self.class_weight is not None:
            weights = torch.as_tensor(self.class_weight, dtype=torch.float32, device=cls_score.device)
        loss = self._sigmoid if self.use_sigmoid else self._softmax
        return self.loss_weight * loss(cls_score, label, ignore, weights, reduction, avg_factor, options)

    def _softmax(self, pred, label, ignore, weights, reduction, avg_factor, options):
        options.update(_reduction(reduction, avg_factor, "rows" if self.avg_non_ignore else float(max(len(pred), 1))))
        if label.dim() == pred.dim():
            return tare.softmax_ce(pred, targets=label, class_weights=weights, **options)
        return tare.softmax_ce(pred, label, class_weights=weights, background_label=NOT_A_LABEL, ignore_label=ignore,
                               **options)  # fmt: skip

    def _sigmoid(self, pred, label, ignore, weights, reduction, avg_factor, options):
        everything = float(max(pred.numel(), 1))
        options.update(_reduction(reduction, avg_factor, "elements" if self.avg_non_ignore else everything))
        if label.dim() == pred.dim():
            return tare.sigmoid_ce(pred, targets=label.to(torch.float32), positive_weights=weights, **options)
        classes = pred.shape[1]
        return tare.sigmoid_ce(pred, _labels(label, classes, ignore), positive_weights=weights,
                               background_label=classes, ignore_label=-1, **options)  # fmt: skip


def _only_mean(reduction):
    if reduction != "mean":
        raise ValueError(f"reduction is '{reduction}'; a GHM loss has its own divisor and takes 'mean' alone")


class GHMC(tare.GHMC):
    """GHM-C as mmdetection computes it (not as the paper has it: see variant in the C header). Called with pred [N, C],
    target [N] (0..C-1; anything else is background) or dense [N, C], and label_weight [N], where 0 is ignored."""

    def __init__(self, bins=10, momentum=0, use_sigmoid=True, loss_weight=1.0, reduction="mean"):
        super().__init__(bins, momentum, variant="mmdet")
        if not use_sigmoid:
            raise NotImplementedError("use_sigmoid must be True")
        self.use_sigmoid, self.loss_weight, self.reduction = use_sigmoid, loss_weight, reduction

    def forward(self, pred, target, label_weight, reduction_override=None, **kwargs):
        _only_mean(reduction_override or self.reduction)
        if label_weight.dim() != 1:
            raise ValueError(f"label_weight has shape {tuple(label_weight.shape)}; Tare takes one a row, [N]")
        if target.dim() == pred.dim():
            return self.loss_weight * super().forward(pred, targets=target.to(torch.float32), row_weights=label_weight)
        classes = pred.shape[1]
        labels = torch.where(target < 0, classes, target.clamp(max=classes))
        return self.loss_weight * super().forward(pred, labels, row_weights=label_weight, background_label=classes,
                                                  ignore_label=NOT_A_LABEL)  # fmt: skip


class GHMR(tare.GHMR):
    """GHM-R as mmdetection computes it. Called with pred and target [N, 4] and label_weight [N, 4] or [N], where 0 is
    ignored; avg_factor is not used, as there."""

    def __init__(self, mu=0.02, bins=10, momentum=0, loss_weight=1.0, reduction="mean"):
        super().__init__(mu, bins, momentum, variant="mmdet")
        self.loss_weight, self.reduction = loss_weight, reduction

    def forward(self, pred, target, label_weight, avg_factor=None, reduction_override=None):
        _only_mean(reduction_override or self.reduction)
        rows = label_weight if label_weight.dim() == 1 else label_weight[:, 0]
        return self.loss_weight * super().forward(pred, target, row_weights=rows)
