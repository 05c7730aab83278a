# SPDX-License-Identifier: Apache-2.0
"""Compares Tare's losses with scores with the code that detectors train with.

    python python/clients/score_losses.py

It takes those of transformers, ultralytics and mmdet that are installed, and says what is missing. Random logits,
labels and boxes go through the reference and through Tare, in float64 and float32. A row of the table has the
difference of the losses, relative to the loss, and of the gradients, relative to the largest element. The second table
has logits at which a reference fails, beside the formula in double. Exit status 1: a difference is above its bound.

bounds: 1e-10 in float64, 1e-5 in float32. ultralytics computes cross-entropy in float32 whatever the logits' type.
"""

import functools
import importlib
import sys
import types

import compiled_ops
import torch
import torch.nn.functional as F

import tare.torch

IMAGES, QUERIES, CLASSES, OBJECTS = 3, 60, 17, 9


class Batch:
    """What a criterion gets after its matcher: logits, boxes, and which query has which object."""

    def __init__(self, dtype, seed=1):
        random = torch.Generator().manual_seed(seed)

        def boxes(count):
            centre = 0.3 + 0.4 * torch.rand(count, 2, generator=random, dtype=torch.float64)
            return torch.cat([centre, 0.2 + 0.3 * torch.rand(count, 2, generator=random, dtype=torch.float64)], 1).to(
                dtype
            )

        shape = (IMAGES, QUERIES, CLASSES)
        self.logits = (3 * torch.randn(shape, generator=random, dtype=torch.float64) - 2).to(dtype)
        self.outputs = {"pred_boxes": torch.stack([boxes(QUERIES) for _ in range(IMAGES)])}
        classes = torch.randint(CLASSES, (IMAGES, OBJECTS), generator=random)
        self.targets = [{"boxes": boxes(OBJECTS), "class_labels": classes[i]} for i in range(IMAGES)]
        self.indices = [
            (torch.randperm(QUERIES, generator=random)[:OBJECTS], torch.randperm(OBJECTS, generator=random))
            for _ in range(IMAGES)
        ]
        self.labels = torch.full((IMAGES, QUERIES), -1)
        for i, (queries, objects) in enumerate(self.indices):
            self.labels[i, queries] = classes[i, objects]
        self.scores = torch.zeros((IMAGES, QUERIES), dtype=dtype)

    def fit(self, box_iou):
        """Scores as a reference forms them from the boxes."""
        for i, (queries, objects) in enumerate(self.indices):
            found = box_iou(self.outputs["pred_boxes"][i][queries], self.targets[i]["boxes"][objects])
            self.scores[i, queries] = found.to(self.scores.dtype)

    def flat(self):
        return self.logits.reshape(-1, CLASSES), self.labels.reshape(-1), self.scores.reshape(-1)

    def one_hot(self):
        return F.one_hot(torch.where(self.labels < 0, CLASSES, self.labels), CLASSES + 1)[..., :-1].to(
            self.logits.dtype
        )


def transformers_loss(module, name, method, loss, **attributes):
    """A criterion of transformers. loss: the key of the result."""

    def evaluate(batch, logits):
        found = importlib.import_module(f"transformers.loss.{module}")
        criterion = getattr(found, name)
        owner = types.SimpleNamespace(num_classes=CLASSES, **attributes)
        owner._get_source_permutation_idx = types.MethodType(criterion._get_source_permutation_idx, owner)
        corners = found.center_to_corners_format
        batch.fit(lambda ours, theirs: torch.diag(found.box_iou(corners(ours), corners(theirs))[0]))
        outputs = {**batch.outputs, "logits": logits}
        return getattr(criterion, method)(owner, outputs, batch.targets, batch.indices, 1.0)[loss]

    return evaluate


def ultralytics_varifocal(batch, logits):
    found = importlib.import_module("ultralytics.utils.loss")
    batch.scores = torch.rand(batch.scores.shape, generator=torch.Generator().manual_seed(2)).to(logits.dtype)
    label = batch.one_hot()
    return found.VarifocalLoss()(logits, batch.scores[..., None] * label, label) * QUERIES


def ultralytics_bce(batch, logits):
    importlib.import_module("ultralytics.utils.loss")  # v8DetectionLoss: BCEWithLogitsLoss of (pred, target_scores)
    batch.scores = torch.rand(batch.scores.shape, generator=torch.Generator().manual_seed(2)).to(logits.dtype)
    targets = batch.scores[..., None] * batch.one_hot()
    return torch.nn.BCEWithLogitsLoss(reduction="none")(logits, targets).sum()


def import_mmdet(name):
    try:
        importlib.import_module("mmcv._ext")
    except ImportError:
        compiled_ops.install()
    return importlib.import_module(f"mmdet.models.losses.{name}")


def mmdet_quality_focal(batch, logits):
    found = import_mmdet("gfocal_loss")
    batch.scores = torch.rand(batch.scores.shape, generator=torch.Generator().manual_seed(2)).to(logits.dtype)
    labels = torch.where(batch.labels < 0, CLASSES, batch.labels).reshape(-1)
    loss = found.QualityFocalLoss(reduction="sum")
    return loss(logits.reshape(-1, CLASSES), (labels, batch.scores.reshape(-1)))


def mmdet_varifocal(batch, logits):
    found = import_mmdet("varifocal_loss")
    batch.scores = torch.rand(batch.scores.shape, generator=torch.Generator().manual_seed(2)).to(logits.dtype)
    batch.scores[:, ::3] = 0
    targets = (batch.scores[..., None] * batch.one_hot()).reshape(-1, CLASSES)
    return found.VarifocalLoss(reduction="sum")(logits.reshape(-1, CLASSES), targets)


DETACHED = {"modulator": "detached", "positives": "by-label"}
REFERENCES = {  # name: its loss, Tare's and its parameters
    "transformers RTDetrLoss, varifocal": (
        transformers_loss("loss_rt_detr", "RTDetrLoss", "loss_labels_vfl", "loss_vfl", alpha=0.75, gamma=2.0),
        "sigmoid-varifocal",
        DETACHED,
    ),
    "transformers Deimv2Loss, matchability": (
        transformers_loss("loss_deimv2", "Deimv2Loss", "loss_labels_mal", "loss_mal", gamma=1.5, mal_alpha=None),
        "sigmoid-matchability",
        {},
    ),
    "transformers LwDetrImageLoss, IoU-aware": (
        transformers_loss("loss_lw_detr", "LwDetrImageLoss", "loss_labels", "loss_ce", focal_alpha=0.25),
        "sigmoid-iou-aware",
        {},
    ),
    "ultralytics VarifocalLoss": (ultralytics_varifocal, "sigmoid-varifocal", {"positives": "by-label"}),
    "ultralytics v8DetectionLoss, BCE": (ultralytics_bce, "sigmoid-ce", {}),
    "mmdet QualityFocalLoss": (mmdet_quality_focal, "sigmoid-quality-focal", {}),
    "mmdet VarifocalLoss": (mmdet_varifocal, "sigmoid-varifocal", {}),
}


def gradient_of(evaluate, logits):
    leaf = logits.clone().requires_grad_()
    loss = evaluate(leaf)
    loss.backward()
    return loss.detach().double(), leaf.grad.double()


def compare(name, dtype):
    """Differences of loss and gradient, or None if the reference is not installed."""
    reference, loss, parameters = REFERENCES[name]
    batch = Batch(dtype)
    try:
        theirs = gradient_of(lambda logits: reference(batch, logits), batch.logits)
    except ImportError as error:
        print(f"| {name} | {str(dtype)[6:]} | not installed: {error} | |")
        return None
    logits, labels, scores = batch.flat()
    ours = gradient_of(lambda x: tare.torch.loss(loss, x, labels, scores=scores, **parameters), logits)
    of_loss = ((ours[0] - theirs[0]) / theirs[0]).abs().item()
    of_gradient = ((ours[1] - theirs[1].reshape(ours[1].shape)).abs().max() / theirs[1].abs().max()).item()
    print(f"| {name} | {str(dtype)[6:]} | {of_loss:.1e} | {of_gradient:.1e} |")
    return max(of_loss, of_gradient)


def is_bound(name, dtype):
    narrow = dtype == torch.float32 or name == "ultralytics VarifocalLoss"
    return 1e-5 if narrow else 1e-10


def iou_aware_in_double(x, score):
    p = x.sigmoid()
    target = (p**0.25 * score**0.75).clamp(0.01)
    return F.softplus(x) - x * target, p - target


def show_failures():
    """LwDetrImageLoss takes logarithms of probabilities. Both in float32, one label with score 0.9 a row."""
    print("\n| x | formula: loss, gradient | transformers LwDetrImageLoss | Tare |\n|---|---|---|---|")
    for value in (-110.0, 12.0, 20.0, 120.0):
        x, score = torch.tensor([[value]]), torch.tensor([0.9])
        want = iou_aware_in_double(x.double(), score.double())
        leaf = x.clone().requires_grad_()
        p = leaf.sigmoid()
        target = (p**0.25 * score**0.75).clamp(0.01).detach()
        loss = (-target * p.log() - (1 - target) * (1 - p).log()).sum()
        loss.backward()
        ours = gradient_of(functools.partial(tare.torch.sigmoid_iou_aware, labels=torch.tensor([0]), scores=score), x)
        theirs = f"{loss.item():.6g}, {leaf.grad.item():.6g}"
        print(f"| {value:g} | {want[0].item():.6g}, {want[1].item():.6g} | {theirs} |", end="")
        print(f" {ours[0].item():.6g}, {ours[1].item():.6g} |")


def main():
    print("| reference | type | loss | gradient |\n|---|---|---|---|")
    failed = []
    for name in REFERENCES:
        for dtype in (torch.float64, torch.float32):
            difference = compare(name, dtype)
            if difference is not None and not difference <= is_bound(name, dtype):
                failed.append(f"{name}, {dtype}: {difference:.2g} is above {is_bound(name, dtype):g}")
    show_failures()
    print("\n".join(failed), file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
