# SPDX-License-Identifier: Apache-2.0
"""transformers.loss: the focal losses of Deformable DETR, Grounding DINO and MaskFormer, and the classification losses
of RT-DETR, D-FINE, DEIMv2, LW-DETR and RF-DETR; the dice losses of DETR and MaskFormer.

sigmoid_focal_loss and its kin take dense targets, and torchvision's differences apply. The functions with a criterion
as first argument are methods: tare.patch("transformers") puts them into the classes they are named after. They read
labels and scores, and form no dense targets. num_boxes may be a tensor; nothing waits for it.

Differences: a half score is not rounded to the logits' type; boxes without area have an IoU of 0, not NaN;
lw_detr_loss_labels is finite for every logit (the original takes the logarithm of a probability, and is not from 17.4
on in float32); rt_detr_loss_labels_focal passes num_boxes where the original passes alpha, and fails.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .. import torch as tare
from . import (
    NOT_A_LABEL,
    Refused,
    check_tensors,
    focal_elements,
    loss_type,
    or_original,
    reduce_plainly,
    widened,
)
from ._bins import two_hot
from ._matched import focal, iou_aware, labels_of, over_boxes, overlaps_of, scores_of, typed
from .torchvision import as_rows

# ---- of dense targets -----------------------------------------------------------------------------------------------


def sigmoid_focal_loss(
    inputs: torch.Tensor, targets: torch.Tensor, num_boxes: float | torch.Tensor, alpha: float = 0.25, gamma: float = 2
) -> torch.Tensor:
    """The sum of the elements' focal losses over num_boxes and the length of the second axis (the queries)."""
    check_tensors(inputs=inputs, targets=targets)
    if inputs.dim() < 2:
        raise Refused(f"inputs have shape {tuple(inputs.shape)}; their second axis is averaged")
    return _sum(inputs, targets, num_boxes, alpha, gamma, inputs.shape[1])


def grounding_dino_sigmoid_focal_loss(
    inputs: torch.Tensor, targets: torch.Tensor, num_boxes: int, alpha: float = 0.25, gamma: float = 2
) -> torch.Tensor:
    """The sum of the elements' focal losses over num_boxes: sigmoid_focal_loss of loss_grounding_dino."""
    check_tensors(inputs=inputs, targets=targets)
    return _sum(inputs, targets, num_boxes, alpha, gamma, 1)


def maskformer_sigmoid_focal_loss(
    inputs: torch.Tensor, labels: torch.Tensor, num_masks: int, alpha: float = 0.25, gamma: float = 2
) -> torch.Tensor:
    """sigmoid_focal_loss of modeling_maskformer, which has other names for the same arguments."""
    return sigmoid_focal_loss(inputs, labels, num_masks, alpha, gamma)


def dice_loss(inputs: torch.Tensor, targets: torch.Tensor, num_boxes: float | torch.Tensor) -> torch.Tensor:
    """The sum over the masks of 1 - (2*sum p*t + 1)/(sum p + sum t + 1), over num_boxes: of DETR's segmentation.
    inputs: [masks, ...]; targets: [masks, pixels]."""
    check_tensors(inputs=inputs, targets=targets)
    rows = inputs.flatten(1)
    if rows.shape != targets.shape:
        raise Refused(f"inputs have shape {tuple(inputs.shape)}, targets {tuple(targets.shape)}, not [masks, pixels]")

    def theirs():
        p, t = widened(rows).sigmoid(), targets.to(widened(rows).dtype)
        losses = 1 - (2 * (p * t).sum(1) + 1) / (p.sum(-1) + t.sum(-1) + 1)
        return losses.sum() / num_boxes

    loss = or_original(lambda: tare.dice_loss(rows, targets, normalizer=num_boxes), theirs, targets)
    return typed(loss, inputs.device, loss_type(inputs.device, inputs.dtype, targets.dtype), num_boxes)


def maskformer_dice_loss(inputs: torch.Tensor, labels: torch.Tensor, num_masks: float | torch.Tensor) -> torch.Tensor:
    """dice_loss of modeling_maskformer, modeling_mask2former and modeling_oneformer."""
    return dice_loss(inputs, labels, num_masks)


def rf_detr_sigmoid_cross_entropy_loss(
    inputs: torch.Tensor, labels: torch.Tensor, num_masks: float | torch.Tensor
) -> torch.Tensor:
    """The sum of the elements' cross-entropies over num_masks and the length of the second axis."""
    check_tensors(inputs=inputs, labels=labels)
    if inputs.dim() < 2 or inputs.shape != labels.shape:
        raise Refused(
            f"inputs {tuple(inputs.shape)} and labels {tuple(labels.shape)} must be of one shape, with 2 axes"
        )
    rows, options = as_rows(inputs), {"normalizer": num_masks * max(inputs.shape[1], 1)}
    loss = or_original(
        lambda: tare.sigmoid_ce(rows, targets=_dense(labels).reshape(rows.shape), **options),
        lambda: reduce_plainly(_cross_entropies(inputs, labels), options),
        labels,
    )
    return typed(loss, inputs.device, loss_type(inputs.device, inputs.dtype, labels.dtype), num_masks)


def _cross_entropies(inputs, labels):
    return F.binary_cross_entropy_with_logits(widened(inputs), labels.to(widened(inputs).dtype), reduction="none")


def _dense(targets: torch.Tensor) -> torch.Tensor:
    return targets if targets.is_floating_point() else targets.to(torch.float32)


def _sum(inputs, targets, num_boxes, alpha, gamma, queries):
    if inputs.shape != targets.shape:
        raise ValueError(f"inputs have shape {tuple(inputs.shape)}, targets {tuple(targets.shape)}")
    rows, options = as_rows(inputs), {"normalizer": num_boxes * max(queries, 1)}
    loss = or_original(
        lambda: tare.sigmoid_focal(
            rows, targets=_dense(targets).reshape(rows.shape), gamma=gamma, alpha=alpha, **options
        ),
        lambda: reduce_plainly(focal_elements(inputs, targets, alpha, gamma), options),
        targets,
    )
    return typed(loss, inputs.device, loss_type(inputs.device, inputs.dtype, targets.dtype), num_boxes)


# ---- methods of the criteria ----------------------------------------------------------------------------------------

Outputs = dict[str, Any]
Targets = list[dict[str, torch.Tensor]]
Matches = list[tuple[torch.Tensor, torch.Tensor]]


def _matched(criterion: Any, outputs: Outputs, targets: Targets, indices: Matches) -> tuple:
    """Logits, where the matched queries are, and labels."""
    if "logits" not in outputs:
        raise KeyError("No logits were found in the outputs")
    logits, found = outputs["logits"], criterion._get_source_permutation_idx(indices)
    classes = torch.cat([target["class_labels"][chosen] for target, (_, chosen) in zip(targets, indices)])
    return logits, found, labels_of(logits, found, classes)


def _scores(outputs: Outputs, found: Any, targets: Targets, indices: Matches) -> torch.Tensor:
    if "pred_boxes" not in outputs:
        raise KeyError("No predicted boxes found in outputs")
    boxes = torch.cat([target["boxes"][chosen] for target, (_, chosen) in zip(targets, indices)])
    return scores_of(outputs["logits"], found, overlaps_of(outputs["pred_boxes"][found], boxes))


def detr_loss_labels(
    criterion: Any, outputs: Outputs, targets: Targets, indices: Matches, num_boxes: Any
) -> dict[str, torch.Tensor]:
    """ImageLoss.loss_labels of DETR and YOLOS: softmax cross-entropy, the mean weighted by `empty_weight`."""
    if "logits" not in outputs:
        raise KeyError("No logits were found in the outputs")
    logits, found = outputs["logits"], criterion._get_source_permutation_idx(indices)
    classes = torch.cat([target["class_labels"][chosen] for target, (_, chosen) in zip(targets, indices)])
    labels = torch.full(logits.shape[:2], criterion.num_classes, dtype=torch.int64, device=logits.device)
    labels[found] = classes.to(labels)
    marks: dict[str, Any] = {"background_label": NOT_A_LABEL, "ignore_label": -100}
    weights = criterion.empty_weight.detach().to(torch.float32)
    loss = tare.softmax_ce(logits, labels, class_weights=weights, normalizer="weights", **marks)
    return {"loss_ce": loss.to(loss_type(logits.device, logits.dtype))}


def deformable_detr_loss_labels(
    criterion: Any, outputs: Outputs, targets: Targets, indices: Matches, num_boxes: Any
) -> dict[str, torch.Tensor]:
    """DeformableDetrImageLoss.loss_labels: focal loss over num_boxes. Conditional and DAB-DETR have it too."""
    logits, _, labels = _matched(criterion, outputs, targets, indices)
    return {"loss_ce": focal(logits, labels, num_boxes, criterion.focal_alpha)}


def rt_detr_loss_labels_vfl(
    criterion: Any, outputs: Outputs, targets: Targets, indices: Matches, num_boxes: Any, log: bool = True
) -> dict[str, torch.Tensor]:
    """RTDetrLoss.loss_labels_vfl: varifocal loss with a detached modulator, of RT-DETR, RT-DETRv2 and D-FINE."""
    logits, found, labels = _matched(criterion, outputs, targets, indices)
    options = {"alpha": criterion.alpha, "gamma": criterion.gamma, "modulator": "detached", "positives": "by-label"}
    scores = _scores(outputs, found, targets, indices)
    return {"loss_vfl": over_boxes(tare.sigmoid_varifocal, logits, labels, num_boxes, scores=scores, **options)}


def rt_detr_loss_labels_bce(
    criterion: Any, outputs: Outputs, targets: Targets, indices: Matches, num_boxes: Any, log: bool = True
) -> dict[str, torch.Tensor]:
    """RTDetrLoss.loss_labels_bce: cross-entropy of each class over num_boxes."""
    logits, _, labels = _matched(criterion, outputs, targets, indices)
    return {"loss_bce": over_boxes(tare.sigmoid_ce, logits, labels, num_boxes)}


def rt_detr_loss_labels_focal(
    criterion: Any, outputs: Outputs, targets: Targets, indices: Matches, num_boxes: Any, log: bool = True
) -> dict[str, torch.Tensor]:
    """RTDetrLoss.loss_labels_focal, as it is meant: focal loss of alpha and gamma over num_boxes."""
    logits, _, labels = _matched(criterion, outputs, targets, indices)
    return {"loss_focal": focal(logits, labels, num_boxes, criterion.alpha, criterion.gamma)}


def d_fine_unimodal_distribution_focal_loss(
    criterion: Any,
    pred: torch.Tensor,
    label: torch.Tensor,
    weight_right: torch.Tensor,
    weight_left: torch.Tensor,
    weight: torch.Tensor | None = None,
    reduction: str = "sum",
    avg_factor: float | torch.Tensor | None = None,
) -> torch.Tensor:
    """DFineLoss.unimodal_distribution_focal_loss: weight_left*CE(l) + weight_right*CE(l+1), l = floor(label), times
    weight, of pred [N, bins]. The sum over avg_factor, if it is given; else by reduction."""
    check_tensors(pred=pred, label=label, weight_right=weight_right, weight_left=weight_left, weight=weight)
    left = label.long()
    sides = torch.stack((weight_left.reshape(-1), weight_right.reshape(-1)), -1)
    wide = torch.float64 if pred.dtype == torch.float64 else torch.float32
    options: dict[str, Any] = {"reduction": "rows"}
    if avg_factor is not None or reduction in ("sum", "mean"):
        options = {"normalizer": avg_factor if avg_factor is not None else float(max(len(pred), 1))}
        if avg_factor is None and reduction == "sum":
            options = {}
    if weight is not None:
        options["row_weights"] = weight.to(torch.float32)

    def theirs() -> torch.Tensor:
        plain = {**options, "reduction": "none"} if "reduction" in options else options
        return reduce_plainly(two_hot(pred, left, *sides.unbind(-1)), plain)

    return or_original(
        lambda: tare.softmax_two_hot(pred, left, sides.to(wide), ignore_label=NOT_A_LABEL, **options),
        theirs,
        sides,
        weight,
    )


def deimv2_loss_labels_mal(
    criterion: Any, outputs: Outputs, targets: Targets, indices: Matches, num_boxes: Any
) -> dict[str, torch.Tensor]:
    """Deimv2Loss.loss_labels_mal: matchability-aware loss over num_boxes."""
    logits, found, labels = _matched(criterion, outputs, targets, indices)
    options = {"gamma": criterion.gamma, "alpha": criterion.mal_alpha, "modulator": "detached"}
    scores = _scores(outputs, found, targets, indices)
    return {"loss_mal": over_boxes(tare.sigmoid_matchability, logits, labels, num_boxes, scores=scores, **options)}


def lw_detr_loss_labels(
    criterion: Any, outputs: Outputs, targets: Targets, indices: Matches, num_boxes: Any
) -> dict[str, torch.Tensor]:
    """LwDetrImageLoss.loss_labels: IoU-aware cross-entropy over num_boxes, of LW-DETR and RF-DETR."""
    logits, found, labels = _matched(criterion, outputs, targets, indices)
    scores = _scores(outputs, found, targets, indices)
    return {"loss_ce": iou_aware(logits, labels, scores, num_boxes, criterion.focal_alpha)}
