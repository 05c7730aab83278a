# SPDX-License-Identifier: Apache-2.0
"""Runs the losses of every configuration that mmdetection ships, with the original and with Tare.

    python python/clients/mmdet_configs.py FOLDER [--only TEXT]

FOLDER: a copy of mmdetection 3.3. It needs mmengine, mmcv-lite and torchvision, and builds no model. Each loss of a
configuration is built by mmdetection's registry, once as it is and once after tare.compat.mmdet.register(). Both get
the same random inputs, in every layout that the heads give a loss of this kind. Losses must agree to 1e-5 and gradients
to 1e-4 of their norm. Exit status 1: a configuration breaks.
"""

import argparse
import collections
import json
import pathlib
import sys
import types
import warnings

import compiled_ops
import torch

from tare.compat.mmdet.registry import NAMES

ROWS, CLASSES = 40, 6


# ---- layouts --------------------------------------------------------------------------------------------------------


def labels(rows, classes, *shape):
    return torch.randint(0, classes + 1, (rows, *shape))


def weights(*shape):
    return (torch.rand(shape) < 0.8).float()


def masks(classes):
    """Masks of regions, and of points."""
    for kinds, places in ((classes, (7, 7)), (1, (7, 7)), (classes, (9,))):
        target = torch.randint(0, 2, (ROWS, *places)).float()
        yield (torch.randn(ROWS, kinds, *places), target, torch.randint(0, kinds, (ROWS,))), {}


def softmax(classes):
    """Boxes, queries, and pixels; classes: background included."""
    yield (torch.randn(ROWS, classes), labels(ROWS, classes - 1), weights(ROWS)), {"avg_factor": 17.0}
    yield (torch.randn(ROWS, classes), labels(ROWS, classes - 1), weights(ROWS)), {"avg_factor": torch.tensor([17.0])}
    yield (torch.randn(ROWS, classes), labels(ROWS, classes - 1)), {"avg_factor": torch.tensor(17.0)}
    yield (torch.randn(ROWS, classes), labels(ROWS, classes - 1)), {"reduction_override": "none"}
    pixels = labels(2, classes - 1, 5, 4)
    pixels[:, 0] = 255
    yield (torch.randn(2, classes, 5, 4), pixels), {"ignore_index": 255}
    yield (torch.randn(2, classes, 9), labels(2, classes - 1, 9), weights(2, 9)), {}


def sigmoid(classes):
    """Anchors, centerness, YOLO's maps, points of masks and queries."""
    yield (torch.randn(ROWS, 1), labels(ROWS, 1), weights(ROWS)), {"avg_factor": 17.0}
    yield (torch.randn(ROWS, classes), labels(ROWS, classes), weights(ROWS)), {"avg_factor": torch.tensor(17.0)}
    yield (torch.randn(ROWS), torch.rand(ROWS)), {"avg_factor": torch.tensor(17.0)}
    yield (torch.randn(ROWS), torch.randint(0, 2, (ROWS,)), weights(ROWS)), {"avg_factor": torch.tensor([17.0])}
    yield (torch.randn(ROWS, classes), torch.rand(ROWS, classes)), {"avg_factor": 17.0}
    for batch in (1, 3):
        dense = torch.randn(batch, ROWS, classes), torch.rand(batch, ROWS, classes)
        yield (*dense, weights(batch, ROWS, 1)), {}
        yield (*dense, weights(1, ROWS, 1)), {"avg_factor": 17.0}
        yield (torch.randn(batch, ROWS), torch.rand(batch, ROWS), weights(batch, ROWS)), {}
    yield (torch.randn(3, 7, 7), torch.rand(3, 7, 7)), {"reduction_override": "none"}
    yield (torch.randn(3, 4, 7, 7), torch.rand(3, 4, 7, 7)), {}


def focal(classes):
    hot = torch.randint(0, 2, (ROWS, classes))
    yield (torch.randn(ROWS, classes), labels(ROWS, classes), weights(ROWS)), {"avg_factor": 17.0}
    yield (torch.randn(ROWS, classes), labels(ROWS, classes)), {"avg_factor": torch.tensor([17.0])}
    yield (torch.randn(ROWS, classes), hot, weights(ROWS, classes)), {"avg_factor": torch.tensor(17.0)}
    yield (torch.randn(ROWS, classes), labels(ROWS, classes), weights(ROWS * classes)), {"reduction_override": "none"}
    yield (torch.randn(ROWS, 1), labels(ROWS, 1), weights(ROWS)), {"avg_factor": 17}
    yield (torch.randn(2, classes, 5, 4), torch.randint(0, 2, (2, classes, 5, 4))), {}


def ghm_c(classes):
    yield (torch.randn(ROWS, classes), labels(ROWS, classes), weights(ROWS)), {"avg_factor": 17.0}
    yield (torch.randn(ROWS, classes), torch.rand(ROWS, classes), weights(ROWS, classes)), {}


def ghm_r(classes):
    yield (torch.randn(ROWS, 4) * 0.05, torch.randn(ROWS, 4) * 0.05, weights(ROWS, 4)), {"avg_factor": 17.0}


def quality_focal(classes):
    """GFL's labels and scores; DETR's dense ones."""
    scored = labels(ROWS, classes), torch.rand(ROWS)
    yield (torch.randn(ROWS, classes), scored, weights(ROWS)), {"avg_factor": 17.0}
    yield (torch.randn(ROWS, classes), scored), {"avg_factor": torch.tensor([17.0])}
    yield (torch.randn(ROWS, classes), scored, weights(ROWS)), {"reduction_override": "none"}
    yield (torch.randn(ROWS, classes), torch.rand(ROWS, classes), weights(ROWS)), {"avg_factor": torch.tensor(17.0)}
    yield (torch.randn(2, classes, 5, 4), torch.rand(2, classes, 5, 4)), {}


def varifocal(classes):
    scores = torch.rand(ROWS, classes) * (torch.rand(ROWS, classes) < 0.2)
    yield (torch.randn(ROWS, classes), scores), {"avg_factor": 17.0}
    yield (torch.randn(ROWS, classes), scores, weights(ROWS, classes)), {"avg_factor": torch.tensor([17.0])}
    yield (torch.randn(ROWS, classes), scores), {"reduction_override": "none"}


def gaussian_focal(classes):
    heat = torch.rand(2, classes, 5, 4)
    heat[heat > 0.9] = 1
    yield (torch.rand(2, classes, 5, 4), heat), {"avg_factor": 17.0}
    yield (torch.rand(2, classes, 5, 4), heat), {"avg_factor": torch.tensor([17.0])}
    yield (torch.rand(2, classes, 5, 4), heat, None, None, weights(2, classes, 5, 4)), {}
    rows, points = torch.rand(ROWS, classes), torch.randint(0, ROWS, (5,))
    yield (rows, torch.rand(ROWS, classes), points, torch.randint(0, classes, (5,))), {"avg_factor": 17.0}


def dice(_):
    """Masks of regions, of one box, and points of masks."""
    for places in ((7, 9), (1, 9), (63,)):
        target = torch.randint(0, 2, (ROWS, *places)).float()
        yield (torch.randn(ROWS, *places), target), {"avg_factor": 17.0}
        yield (torch.randn(ROWS, *places), target), {"reduction_override": "none"}
        yield (torch.randn(ROWS, *places), target, weights(ROWS)), {"avg_factor": torch.tensor(17.0)}


def distribution_focal(_):
    """Distances of sides, in bins."""
    for bins in (17, 9):
        target = torch.rand(ROWS) * (bins - 1.1)
        yield (torch.randn(ROWS, bins), target, weights(ROWS)), {"avg_factor": 17.0}
        yield (torch.randn(ROWS, bins), target), {"reduction_override": "none"}


def seesaw(classes):
    """Boxes with objectness; classes: without background. Called twice, as counts are kept."""
    for _ in range(2):
        yield (torch.randn(ROWS, classes + 2), labels(ROWS, classes), weights(ROWS)), {"avg_factor": 17.0}
    yield (torch.randn(ROWS, classes + 2), labels(ROWS, classes)), {}


def eqlv2(classes):
    """Boxes; classes: background not included. Called twice, as its sums are kept."""
    for _ in range(2):
        yield (torch.randn(ROWS, classes + 1), labels(ROWS, classes)), {}


def activated(calls):
    """The same of probabilities."""
    return (((call[0].sigmoid(), *call[1:]), options) for call, options in calls)


OTHERS = {
    "QualityFocalLoss": quality_focal,
    "VarifocalLoss": varifocal,
    "GaussianFocalLoss": gaussian_focal,
    "DiceLoss": dice,
    "DistributionFocalLoss": distribution_focal,
    "SeesawLoss": seesaw,
    "EQLV2Loss": eqlv2,
}


def layouts_of(loss):
    """Calls for a loss, as pairs of arguments and keywords."""
    kind, weight = type(loss).__name__, getattr(loss, "class_weight", None)
    classes = len(weight) if isinstance(weight, (list, tuple)) else getattr(loss, "num_classes", CLASSES)
    if kind in OTHERS:
        calls = OTHERS[kind](classes)
        of_probabilities = getattr(loss, "activated", False) or not getattr(loss, "activate", True)
        return activated(calls) if of_probabilities else calls
    if kind.startswith("GHM"):
        return (ghm_c if kind == "GHMC" else ghm_r)(classes)
    if kind.startswith("Focal"):
        calls = focal(min(classes, 50))
        if kind == "FocalCustomLoss":
            return (call for call in calls if call[0][1].dim() == 1)
        return activated(calls) if loss.activated else calls
    if loss.use_mask:
        return masks(classes)
    if loss.use_sigmoid:
        calls = sigmoid(min(classes, 50))
        return calls if weight is None else (call for call in calls if call[0][0].shape[-1] == classes)
    return softmax(min(classes, 50) if weight is None else classes)


# ---- comparison -----------------------------------------------------------------------------------------------------


def run(loss, call, options):
    x = call[0].clone().requires_grad_()
    value = loss(x, *call[1:], **options)
    if isinstance(value, dict):  # Seesaw's, of classes and of objectness
        value = torch.stack([value[key] for key in sorted(value)])
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


def difference(original, ours, call, options):
    """What differs between the two losses; "" if nothing does."""
    expected, slope = run(original, call, options)
    found, gradient = run(ours, call, options)
    if (found.dtype, found.shape) != (expected.dtype, expected.shape):
        return f"{found.dtype} {tuple(found.shape)} instead of {expected.dtype} {tuple(expected.shape)}"
    wrong = (found - expected).norm() > 1e-5 * max(expected.norm(), 1e-6)
    return "the loss" if wrong else "the gradient" if (gradient - slope).norm() > 1e-4 * slope.norm() + 1e-7 else ""


def check(key, original, ours):
    """Problems of one loss, over its layouts, and how many these are."""
    torch.manual_seed(0)
    problems, calls = [], 0
    for call, options in layouts_of(original):
        if original.reduction == "sum":  # which refuses it
            options.pop("avg_factor", None)
        calls += 1
        shapes = " ".join(str(tuple(one.shape)) for one in call if isinstance(one, torch.Tensor))
        try:
            what = difference(original, ours, call, options)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
        if what:
            problems.append(f"{key} {shapes} {options}: {what}")
    return problems, calls


# ---- configurations -------------------------------------------------------------------------------------------------


def losses_in(part):
    """Every configuration of these losses in a part of a model's."""
    if isinstance(part, dict):
        name = part.get("type")
        if (name if isinstance(name, str) else getattr(name, "__name__", "")) in NAMES:
            yield part
        part = list(part.values())
    if isinstance(part, (list, tuple)):
        for one in part:
            yield from losses_in(one)


def configurations(folder, only):
    """Pairs of a file and its losses as JSON texts, or the error that kept it from being read."""
    from mmengine.config import Config

    for file in sorted((folder / "configs").rglob("*.py")):
        name = str(file.relative_to(folder))
        if "_base_" in file.parts or only not in name:
            continue
        try:
            config = Config.fromfile(file)
        except Exception as error:
            yield name, error
            continue
        found = losses_in(config.get("model", {}))
        yield name, sorted({json.dumps(as_built(one), sort_keys=True) for one in found})


def as_built(loss):
    """The configuration as heads build it: DETR's make class_weight of it and of bg_cls_weight."""
    loss = {**loss, "type": getattr(loss["type"], "__name__", loss["type"])}
    background = loss.pop("bg_cls_weight", None)
    if background is not None:
        loss["class_weight"] = [loss.get("class_weight", 1.0)] * CLASSES + [background]
    return loss


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--only", default="", help="a part of the file's name")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(arguments.folder))
    compiled_ops.install()
    for name in ("mmpretrain", "mmpretrain.models"):  # a few configurations import it for their backbone
        sys.modules.setdefault(name, types.ModuleType(name))
    import mmdet.models  # noqa: F401
    from mmdet.registry import MODELS

    import tare.compat.mmdet

    files = dict(configurations(arguments.folder, arguments.only))
    unread = {name: error for name, error in files.items() if isinstance(error, Exception)}
    uses = {name: keys for name, keys in files.items() if name not in unread and keys}
    keys = sorted({key for one in uses.values() for key in one})
    originals = {key: MODELS.build(json.loads(key)) for key in keys}
    tare.compat.mmdet.register()
    results = {key: check(key, originals[key], MODELS.build(json.loads(key))) for key in keys}
    report(files, unread, uses, results)
    return any(problems for problems, _ in results.values())


def report(files, unread, uses, results):
    for name, error in unread.items():
        print(f"cannot be read: {name}: {type(error).__name__}: {str(error).splitlines()[0]}")
    for problems, _ in results.values():
        print("\n".join(problems), end="\n" if problems else "")
    broken = [name for name, keys in uses.items() if any(results[key][0] for key in keys)]
    kinds = collections.Counter(json.loads(key)["type"] for keys in uses.values() for key in set(keys))
    print(f"{len(files)} files, {len(unread)} cannot be read, {len(uses)} use these losses: {dict(kinds)}")
    print(f"{len(results)} different losses, {sum(calls for _, calls in results.values())} calls")
    print(f"{len(broken)} configurations break")
    print("\n".join(broken))


if __name__ == "__main__":
    sys.exit(main())
