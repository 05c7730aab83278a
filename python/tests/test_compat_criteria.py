# SPDX-License-Identifier: Apache-2.0
"""The methods of criteria: transformers', RF-DETR's, Ultralytics', detectron2's and torchvision's, beside their
documented formulas on dense targets in double precision."""

import types

import pytest
import torch
import torch.nn.functional as F

from tare.compat import detectron2, rfdetr, sam3, torchvision, transformers, ultralytics

IMAGES, QUERIES, CLASSES = 2, 7, 4


def boxes(count):
    return torch.cat([0.3 + 0.4 * torch.rand(count, 2), 0.1 + 0.3 * torch.rand(count, 2)], 1)


class Batch:
    """What a criterion has after its matcher, and the dense targets of it in double."""

    def __init__(self, key="class_labels"):
        torch.manual_seed(0)
        self.logits = (2 * torch.randn(IMAGES, QUERIES, CLASSES)).requires_grad_()
        self.wide = self.logits.detach().double().requires_grad_()
        counts = (3, 2)
        self.outputs = {"pred_boxes": torch.stack([boxes(QUERIES) for _ in counts])}
        self.targets = [{"boxes": boxes(n), key: torch.randint(CLASSES, (n,))} for n in counts]
        self.indices = [(torch.randperm(QUERIES)[:n], torch.randperm(n)) for n in counts]
        self.hot = torch.zeros(IMAGES, QUERIES, CLASSES, dtype=torch.float64)
        self.scores = torch.zeros(IMAGES, QUERIES, 1, dtype=torch.float64)
        for i, (queries, objects) in enumerate(self.indices):
            self.hot[i, queries, self.targets[i][key][objects]] = 1
            pairs = zip(self.outputs["pred_boxes"][i][queries], self.targets[i]["boxes"][objects])
            self.scores[i, queries, 0] = torch.stack([iou(one.double(), other.double()) for one, other in pairs])

    def call(self, method, key="logits", num_boxes=5.0, **attributes):
        criterion = types.SimpleNamespace(num_classes=CLASSES, **attributes)
        for name in ("_get_source_permutation_idx", "_get_src_permutation_idx"):
            setattr(criterion, name, permutation)
        criterion._matched_valid_mask = valid_mask
        return method(criterion, {**self.outputs, key: self.logits}, self.targets, self.indices, num_boxes)

    def agree(self, found, losses, num_boxes=5.0):
        exact = losses.sum() / num_boxes
        torch.testing.assert_close(found.double(), exact, rtol=2e-6, atol=0)
        (gradient,) = torch.autograd.grad(found, self.logits)
        (slope,) = torch.autograd.grad(exact, self.wide)
        torch.testing.assert_close(gradient.double(), slope, rtol=0, atol=float(1e-5 * slope.abs().max()))


def iou(one, other):
    corners = [torch.cat([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2]) for box in (one, other)]
    sides = (torch.minimum(corners[0][2:], corners[1][2:]) - torch.maximum(corners[0][:2], corners[1][:2])).clamp(min=0)
    return sides.prod() / (one[2:].prod() + other[2:].prod() - sides.prod())


def permutation(indices):
    images = torch.cat([torch.full_like(queries, i) for i, (queries, _) in enumerate(indices)])
    return images, torch.cat([queries for queries, _ in indices])


def valid_mask(targets, indices):
    if "valid" not in targets[0]:
        return None
    return torch.cat([one["valid"][chosen] for one, (_, chosen) in zip(targets, indices)]).float()


def entropy(x, t):
    return F.binary_cross_entropy_with_logits(x, t, reduction="none")


def focal(x, t, alpha=0.25, gamma=2.0):
    away = x.sigmoid() * (1 - t) + (1 - x.sigmoid()) * t
    return entropy(x, t) * away**gamma * (alpha * t + (1 - alpha) * (1 - t))


def iou_aware(batch, alpha=0.25):
    """Positive weight t, negative weight 1-t at labels, p^2 elsewhere."""
    p = batch.wide.sigmoid()
    t = (p**alpha * batch.scores ** (1 - alpha)).clamp(min=0.01).detach()
    return torch.where(batch.hot > 0, entropy(batch.wide, t), p**2 * F.softplus(batch.wide))


def varifocal(batch, alpha, gamma=2.0, detached=True):
    t = batch.hot * batch.scores
    p = batch.wide.detach().sigmoid() if detached else batch.wide.sigmoid()
    return entropy(batch.wide, t) * (alpha * p**gamma * (1 - batch.hot) + t)


@pytest.mark.parametrize("num_boxes", [5.0, torch.tensor(5.0), torch.tensor([5.0])])
def test_transformers(num_boxes):
    batch = Batch()
    x, hot = batch.wide, batch.hot

    def call(name, **attributes):
        ((_, loss),) = batch.call(getattr(transformers, name), num_boxes=num_boxes, **attributes).items()
        assert loss.dtype == torch.float32 and loss.shape == getattr(num_boxes, "shape", ())
        return loss.sum()

    settings = {"alpha": 0.75, "gamma": 2.0}
    batch.agree(call("deformable_detr_loss_labels", focal_alpha=0.25), focal(x, hot))
    batch.agree(call("rt_detr_loss_labels_vfl", **settings), varifocal(batch, 0.75))
    batch.agree(call("rt_detr_loss_labels_bce"), entropy(x, hot))
    batch.agree(call("rt_detr_loss_labels_focal", **settings), focal(x, hot, 0.75))
    batch.agree(call("lw_detr_loss_labels", focal_alpha=0.25), iou_aware(batch))
    for alpha in (None, 0.5):
        factor = (1.0 if alpha is None else alpha) * x.detach().sigmoid() ** 1.5 * (1 - hot) + hot
        exact = entropy(x, (hot * batch.scores) ** 1.5) * factor
        batch.agree(call("deimv2_loss_labels_mal", gamma=1.5, mal_alpha=alpha), exact)


def test_detr_and_what_is_missing():
    batch = Batch()
    weights = torch.tensor([1.0, 1.0, 1.0, 0.1])
    labels = torch.where(batch.hot.any(-1), batch.hot.argmax(-1), 3)
    for target in batch.targets:
        target["class_labels"].clamp_(max=2)
    labels = torch.where(batch.hot.any(-1), labels.clamp(max=2), 3)
    criterion = types.SimpleNamespace(num_classes=3, empty_weight=weights, _get_source_permutation_idx=permutation)
    found = transformers.detr_loss_labels(criterion, {"logits": batch.logits}, batch.targets, batch.indices, 5.0)
    exact = F.cross_entropy(batch.wide.transpose(1, 2), labels, weights.double())
    batch.agree(found["loss_ce"], exact, 1.0)
    with pytest.raises(KeyError, match="logits"):
        transformers.lw_detr_loss_labels(criterion, {}, batch.targets, batch.indices, 5.0)
    with pytest.raises(KeyError, match="boxes"):
        batch.outputs = {}
        batch.call(transformers.lw_detr_loss_labels, focal_alpha=0.25)


def test_points_and_nothing_matched():
    """Two points have an IoU of 0, and a batch without objects has negatives alone."""
    batch = Batch()
    batch.outputs["pred_boxes"][..., 2:] = 0
    for target in batch.targets:
        target["boxes"][:, 2:] = 0
    batch.scores.zero_()
    batch.agree(batch.call(transformers.lw_detr_loss_labels, focal_alpha=0.25)["loss_ce"], iou_aware(batch))
    none = torch.zeros(0, dtype=torch.int64)
    batch.targets = [{"boxes": torch.zeros(0, 4), "class_labels": none} for _ in range(IMAGES)]
    batch.indices, batch.hot = [(none, none)] * IMAGES, torch.zeros_like(batch.hot)
    found = batch.call(transformers.rt_detr_loss_labels_vfl, alpha=0.75, gamma=2.0)["loss_vfl"]
    batch.agree(found, varifocal(batch, 0.75))


def test_dense_functions():
    torch.manual_seed(0)
    x = torch.randn(6, 9, requires_grad=True)
    wide, t = x.detach().double().requires_grad_(), (torch.rand(6, 9) < 0.3).float()
    soft = torch.rand(6, 9) * t
    p = wide.sigmoid()
    alphas = torch.where(soft > 0, 0.25, 0.75)
    away = torch.where(soft > 0, soft.double(), 0.75 * p**2)
    expected = {
        transformers.maskformer_sigmoid_focal_loss: (t, focal(wide, t.double())),
        transformers.rf_detr_sigmoid_cross_entropy_loss: (t, entropy(wide, t.double())),
        rfdetr.sigmoid_ce_loss: (t, entropy(wide, t.double())),
        rfdetr.sigmoid_focal_loss: (t, focal(wide, t.double())),
        rfdetr.sigmoid_varifocal_loss: (soft, entropy(wide, soft.double()) * away),
        rfdetr.position_supervised_loss: (soft, entropy(wide, soft.double()) * (soft - p).abs() ** 2 * alphas),
    }
    for function, (target, losses) in expected.items():
        found, exact = function(x, target, 4.0), losses.sum() / 9 / 4
        torch.testing.assert_close(found.double(), exact, rtol=2e-6, atol=0)
        gradient, slope = torch.autograd.grad(found, x)[0], torch.autograd.grad(exact, wide, retain_graph=True)[0]
        torch.testing.assert_close(gradient.double(), slope, rtol=0, atol=1e-5 * float(slope.abs().max()))


@pytest.mark.parametrize("kind", ["ia_bce_loss", "use_position_supervised_loss", "use_varifocal_loss", "focal"])
def test_rf_detr(kind):
    batch = Batch("labels")
    flags = dict.fromkeys(("ia_bce_loss", "use_position_supervised_loss", "use_varifocal_loss"), False)
    if kind in flags:
        flags[kind] = True
    found = batch.call(rfdetr.loss_labels, key="pred_logits", focal_alpha=0.25, **flags)
    x, p, t = batch.wide, batch.wide.sigmoid(), batch.hot * batch.scores
    supervised = batch.hot * batch.scores / (batch.scores.amax(1, True) + 1e-8)
    expected = {
        "ia_bce_loss": lambda: iou_aware(batch),
        "use_position_supervised_loss": lambda: (
            entropy(x, supervised) * (supervised - p).abs() ** 2 * torch.where(supervised > 0, 0.25, 0.75)
        ),
        "use_varifocal_loss": lambda: entropy(x, t) * torch.where(t > 0, t, 0.75 * p**2),
        "focal": lambda: focal(x, batch.hot),
    }
    batch.agree(found["loss_ce"], expected[kind]())
    right = (batch.logits.argmax(-1) == batch.hot.argmax(-1)) & batch.hot.any(-1)
    torch.testing.assert_close(found["class_error"], 100 - 100 * right.sum() / batch.hot.sum(), check_dtype=False)


def test_padding_of_rf_detr():
    batch = Batch("labels")
    for target in batch.targets:
        target["valid"] = torch.tensor([1.0, 0.0, 1.0][: len(target["boxes"])])
    for i, (queries, objects) in enumerate(batch.indices):
        batch.hot[i, queries] *= batch.targets[i]["valid"][objects].double()[:, None]
    settings = {"focal_alpha": 0.25, "ia_bce_loss": True}
    found = batch.call(rfdetr.loss_labels, key="pred_logits", **settings)
    batch.agree(found["loss_ce"], iou_aware(batch))
    with pytest.raises(NotImplementedError, match="padded"):
        batch.call(rfdetr.loss_labels, key="pred_logits", **{**settings, "ia_bce_loss": False})


def test_ultralytics():
    batch = Batch()
    batch.scores[0, batch.indices[0][0][0]] = 0  # a label without a score adds nothing
    x, hot, t = batch.wide, batch.hot, batch.hot * batch.scores
    batch.agree(
        ultralytics.VarifocalLoss()(batch.logits, t.float(), hot.long()),
        varifocal(batch, 0.75, detached=False),
        QUERIES,
    )
    batch.agree(ultralytics.FocalLoss()(batch.logits, hot.float()), focal(x, hot, gamma=1.5), QUERIES)
    per_class = torch.tensor([0.1, 0.2, 0.3, 0.9])
    found = ultralytics.FocalLoss(2.0, per_class)(batch.logits, hot.float())
    batch.agree(found, focal(x, hot, per_class.double()), QUERIES)
    weights = torch.tensor([1.0, 2.0, 0.5, 0.0])
    total = torch.tensor(3.0)
    batch.agree(ultralytics.detection_bce(batch.logits, t.float(), total, weights), entropy(x, t) * weights, 3.0)
    criterion = types.SimpleNamespace(bce=torch.nn.BCEWithLogitsLoss(reduction="none"))
    outer = types.SimpleNamespace(one2many=criterion, one2one=None)
    assert ultralytics.replace_bce(outer) is outer
    losses = criterion.bce(batch.logits, t.float())
    batch.agree(losses.sum(), entropy(x, t), 1.0)
    losses *= weights.view(1, 1, -1)
    batch.agree((losses * 2).sum(), entropy(x, t) * weights * 2, 1.0)
    with pytest.raises(ValueError, match="has no bce"):
        ultralytics.replace_bce(outer)


@pytest.mark.parametrize("kind", ["vfl", "fl", "bce"])
def test_rt_detr_of_ultralytics(kind):
    batch = Batch()
    t, labels = batch.hot * batch.scores, torch.where(batch.hot.any(-1), batch.hot.argmax(-1), CLASSES)
    losses = {"fl": ultralytics.FocalLoss(2.0) if kind != "bce" else None}
    losses["vfl"] = ultralytics.VarifocalLoss() if kind == "vfl" else None
    criterion = types.SimpleNamespace(nc=CLASSES, loss_gain={"class": 2.0}, **losses)
    given = batch.logits, labels, batch.scores.float(), 5
    found = ultralytics.rt_detr_loss_class(criterion, *given, postfix="_aux")["loss_class_aux"]
    expected = {
        "vfl": lambda: varifocal(batch, 0.75, detached=False) / 5,
        "fl": lambda: focal(batch.wide, batch.hot) / 5,
        "bce": lambda: entropy(batch.wide, t) / QUERIES,
    }
    batch.agree(found, 2 * expected[kind](), 1.0)


def test_detectron2():
    x = torch.randn(9, 5, requires_grad=True)
    wide, y = x.detach().double().requires_grad_(), torch.randint(0, 5, (9,))
    chosen = torch.tensor([0, 3])
    losses = entropy(wide[:, :4], F.one_hot(y, 5)[:, :4].double())
    for federated, exact in ((False, losses.sum() / 9), (True, losses[:, chosen].sum() / 9)):
        head = types.SimpleNamespace(use_fed_loss=federated, fed_loss_num_classes=2, fed_loss_cls_weights=None)
        head.get_fed_loss_classes = lambda *arguments, **keywords: chosen
        found = detectron2.sigmoid_cross_entropy_loss(head, x, y)
        torch.testing.assert_close(found.double(), exact, rtol=2e-6, atol=0)
        slope = torch.autograd.grad(exact, wide, retain_graph=True)[0].float()
        torch.testing.assert_close(torch.autograd.grad(found, x)[0], slope)
    assert detectron2.sigmoid_cross_entropy_loss(head, x[:0], y[:0]) == 0


def test_sam3():
    x, t = torch.randn(3, 5, requires_grad=True), torch.randint(0, 2, (3, 5)).float()
    for gamma in (0.0, 2.0):
        exact = focal(x.detach().double(), t.double(), gamma=gamma).float()
        found = sam3.triton_sigmoid_focal_loss(x, t, 0.25, gamma)
        torch.testing.assert_close(found, exact)
        torch.testing.assert_close(sam3.SigmoidFocalLossReduced.apply(x, t, 0.25, gamma), exact.sum())
    assert torch.autograd.grad(found.sum(), x)[0].isfinite().all()


# ---- torchvision ----------------------------------------------------------------------------------------------------


def test_retinanet():
    torch.manual_seed(0)
    images, anchors = 18, 6
    x = torch.randn(images, anchors, 3, requires_grad=True)
    wide = x.detach().double().requires_grad_()
    matched = [torch.randint(-2, 2, (anchors,)) for _ in range(images)]
    matched[0] = torch.full((anchors,), -1)
    targets = [{"labels": torch.randint(0, 3, (2,))} for _ in range(images)]
    targets[0]["labels"] = torch.zeros(0, dtype=torch.int64)
    found = torchvision.retinanet_classification_loss(None, targets, {"cls_logits": x}, matched)
    exact = 0
    for one, places, logits in zip(targets, matched, wide):
        hot = torch.zeros(anchors, 3, dtype=torch.float64)
        rows = places >= 0
        hot[rows, one["labels"][places[rows]]] = 1
        exact = exact + focal(logits, hot)[places != -2].sum() / max(1, int(rows.sum())) / images
    torch.testing.assert_close(found.double(), exact, rtol=2e-6, atol=0)
    slope = torch.autograd.grad(exact, wide)[0].float()
    torch.testing.assert_close(torch.autograd.grad(found, x)[0], slope, rtol=1e-5, atol=1e-7)


def test_ssd():
    torch.manual_seed(0)
    images, anchors = 3, 30
    x = torch.randn(images, anchors, 4, requires_grad=True)
    regression = torch.randn(images, anchors, 4, requires_grad=True)
    matched = [torch.full((anchors,), -1) for _ in range(images)]
    matched[0][[3, 7]], matched[1][[5, 6, 9]] = torch.tensor([0, 1]), torch.tensor([1, 0, 1])
    targets = [{"labels": torch.tensor([2, 3]), "boxes": torch.rand(2, 4)} for _ in range(images)]
    coder = types.SimpleNamespace(encode_single=lambda boxes, anchor: boxes - anchor)
    model = types.SimpleNamespace(box_coder=coder, neg_to_pos_ratio=3)
    places = [torch.rand(anchors, 4) for _ in range(images)]
    outputs = {"cls_logits": x, "bbox_regression": regression}
    found = torchvision.ssd_loss(model, targets, outputs, places, matched)
    exact, boxes = 0, 0
    for i in range(images):
        labels = torch.where(matched[i] >= 0, targets[i]["labels"][matched[i].clamp(min=0)], 0)
        losses = F.cross_entropy(x[i].double(), labels, reduction="none")
        kept = losses[labels == 0].sort(descending=True)[0][: 3 * int((labels > 0).sum())]
        exact = exact + (losses[labels > 0].sum() + kept.sum()) / 5
        rows = matched[i] >= 0
        wanted = targets[i]["boxes"][matched[i][rows]] - places[i][rows]
        boxes = boxes + F.smooth_l1_loss(regression[i][rows], wanted, reduction="sum") / 5
    torch.testing.assert_close(found["classification"].double(), exact, rtol=2e-6, atol=0)
    torch.testing.assert_close(found["bbox_regression"], boxes)
    gradient = torch.autograd.grad(found["classification"], x)[0]
    torch.testing.assert_close(gradient, torch.autograd.grad(exact, x)[0], rtol=1e-5, atol=1e-7)
