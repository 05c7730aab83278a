# SPDX-License-Identifier: Apache-2.0
"""Trains one step of every detector that mmdetection ships, with the original losses and with Tare's.

    python python/clients/mmdet_heads.py FOLDER [--only TEXT] [--from N]

FOLDER: a copy of mmdetection 3.3. A configuration's necks, heads, assigners and samplers are built as they are. Random
features take the place of the backbone, and small random objects that of a data set. The step runs twice with the same
random numbers: once as built, and once with each loss replaced by Tare's with the same settings. All losses must agree
to 1e-4 and the gradient of the features to 1e-3 of its norm. Detectors that differ in their backbone alone run once.
What cannot be built or run without Tare is listed; mmcv's compiled operators are one reason. Exit status 1: a detector
breaks. It takes an hour or more of one core; lines appear as detectors are done, and --from N goes on at the Nth.
Queries of DETR's kin are reduced to 10, since a small image has few places for them.
"""

import argparse
import collections
import inspect
import json
import pathlib
import sys
import time
import types
import warnings

import compiled_ops
import numpy
import torch
from mmdet_configs import NAMES, losses_in

STRIDES = {1: (16,), 2: (16, 32), 3: (8, 16, 32), 4: (4, 8, 16, 32), 5: (2, 4, 8, 16, 32)}
SIZE = 64  # of an image
QUERIES = 10


class Features(torch.nn.Module):
    """A backbone whose output is random, and a leaf."""

    def __init__(self, channels):
        super().__init__()
        self.channels, self.outputs = channels, ()

    def forward(self, images):
        generator = torch.Generator().manual_seed(1)
        shapes = [(len(images), c, SIZE // s, SIZE // s) for c, s in zip(self.channels, STRIDES[len(self.channels)])]
        self.outputs = tuple(torch.randn(shape, generator=generator).requires_grad_() for shape in shapes)
        return self.outputs


def first(part, key):
    """The first value of a key in a part of a configuration, outside in."""
    parts, later = [part], []
    while parts:
        for one in parts:
            if isinstance(one, dict) and one.get(key) is not None:
                return one[key]
            later += list(one.values()) if isinstance(one, dict) else one if isinstance(one, (list, tuple)) else []
        parts, later = later, []
    return None


def channels_of(model):
    """Channels of the features that neck or head expect."""
    neck = model.get("neck")
    neck = neck[0] if isinstance(neck, (list, tuple)) else neck
    heads = [model.get(name) for name in ("panoptic_head", "rpn_head", "bbox_head", "mask_head", "roi_head")]
    channels = first([one for one in [neck, *heads] if one], "in_channels")
    channels = [channels] if isinstance(channels, int) else list(channels)
    return channels[::-1] if neck and "YOLOV3" in str(neck.get("type")) else channels


def detector_of(config):
    """The detector in a configuration's model, without what does not matter here; None if there is none."""
    model = config.get("model") or {}
    while isinstance(model.get("detector"), dict):
        model = model["detector"]
    if "backbone" not in model or not any(True for _ in losses_in(model)):
        return None
    model = json.loads(json.dumps(model, default=lambda one: getattr(one, "__name__", str(one))))
    for key in ("init_cfg", "data_preprocessor"):
        model.pop(key, None)
    if model.get("num_queries", 0) > QUERIES:
        model["num_queries"] = QUERIES
    model["backbone"] = {"type": "Features", "channels": channels_of(model)}
    return model


def inputs_of(model):
    from mmdet.testing import demo_mm_inputs, demo_mm_proposals

    classes = min(first(model, "num_classes") or 80, 10)
    masks = bool(first(model, "mask_head") or first(model, "panoptic_head") or first(model, "mask_feature_head"))
    options = {"with_mask": masks or "mask_head" in model, "num_items": [3, 4], "num_classes": max(classes, 2)}
    if first(model, "semantic_head") or first(model, "panoptic_head") or first(model, "segm_head"):
        options.update(with_semantic=True)
    data = demo_mm_inputs(2, [[3, SIZE, SIZE]] * 2, use_box_type=True, **options)
    for sample in data["data_samples"]:
        sample.gt_instances.labels %= classes
    if model["type"] == "FastRCNN":
        found = demo_mm_proposals([[3, SIZE, SIZE]] * 2, num_proposals=50)
        for sample, proposals in zip(data["data_samples"], found):
            sample.proposals = proposals
    return data


def step(detector, model):
    """Losses by name and the gradient of the features, of one training step."""
    torch.manual_seed(0)
    numpy.random.seed(0)
    data = detector.data_preprocessor(inputs_of(model), True)
    losses = detector.forward(**data, mode="loss")
    total, values = detector.parse_losses(losses)
    features = detector.backbone.outputs
    gradients = torch.autograd.grad(total, features, allow_unused=True)
    flat = [one.reshape(-1) for one in gradients if one is not None]
    return {name: float(one) for name, one in values.items()}, torch.cat(flat) if flat else torch.zeros(1)


def swap(detector):
    """Puts Tare's losses in the place of the originals, and says how many."""
    import tare.compat.mmdet

    count = 0
    for parent in list(detector.modules()):
        for name, child in list(parent.named_children()):
            ours = getattr(tare.compat.mmdet, type(child).__name__, None)
            if type(child).__name__ in NAMES:
                names = [key for key in inspect.signature(ours).parameters if key in child.__dict__]
                setattr(parent, name, ours(**{key: child.__dict__[key] for key in names}))
                count += 1
    return count


def compare(model):
    """How many losses were replaced, and what differs then; raises if the original cannot run."""
    from mmdet.registry import MODELS
    from mmengine.config import ConfigDict

    preprocessor = {"type": "DetDataPreprocessor", "pad_mask": True, "bgr_to_rgb": True}
    detector = MODELS.build(ConfigDict(model, data_preprocessor=preprocessor)).train()
    expected, slope = step(detector, model)
    count = swap(detector)
    try:
        found, gradient = step(detector, model)
    except Exception as error:
        return count, f"{type(error).__name__}: {error}"
    wrong = [name for name in expected if abs(found[name] - expected[name]) > 1e-4 * max(abs(expected[name]), 1e-3)]
    if (gradient - slope).norm() > 1e-3 * slope.norm():
        wrong.append("gradient")
    return count, ", ".join(f"{name} {found.get(name)} instead of {expected.get(name)}" for name in wrong)


def detectors_in(folder, only):
    """Detectors as JSON texts, with the files that have them."""
    from mmengine.config import Config

    found = {}
    for file in sorted((folder / "configs").rglob("*.py")):
        name = str(file.relative_to(folder / "configs"))
        if "_base_" in file.parts or only not in name:
            continue
        try:
            model = detector_of(Config.fromfile(file))
        except Exception as error:
            print(f"cannot be read: {name}: {type(error).__name__}: {str(error)[:120]}", flush=True)
            continue
        if model is not None:
            found.setdefault(json.dumps(model, sort_keys=True), []).append(name)
    seen, turns = collections.Counter(), {}
    for text, files in found.items():  # one of each folder, then the second of each
        folder = files[0].split("/")[0]
        turns[text] = seen[folder]
        seen[folder] += 1
    return {text: found[text] for text in sorted(found, key=turns.get)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--only", default="", help="a part of the file's name")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the number of the first detector")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # others may share the machine
    sys.path.insert(0, str(arguments.folder.resolve()))
    compiled_ops.install()
    for name in ("mmpretrain", "mmpretrain.models"):
        sys.modules.setdefault(name, types.ModuleType(name))
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    MODELS.register_module(name="Features", module=Features)
    detectors = detectors_in(arguments.folder, arguments.only)
    print(f"{sum(map(len, detectors.values()))} configurations, {len(detectors)} different detectors", flush=True)
    totals = {"agree": 0, "break": 0, "not run": 0}
    for number, (text, files) in enumerate(detectors.items()):
        if number < arguments.first:
            continue
        started = time.monotonic()
        try:
            count, problem = compare(json.loads(text))
            outcome = "break" if problem else "agree"
        except Exception as error:
            count, problem, outcome = 0, f"{type(error).__name__}: {str(error)[:200]}", "not run"
        totals[outcome] += len(files)
        seconds = time.monotonic() - started
        print(
            f"{number} {outcome}: {files[0]} (+{len(files) - 1}): {count} losses, {seconds:.0f} s {problem}", flush=True
        )
    print(f"configurations: {totals}")
    return totals["break"] > 0


if __name__ == "__main__":
    sys.exit(main())
