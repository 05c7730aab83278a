# SPDX-License-Identifier: Apache-2.0
"""tare.patch on stand-ins for the libraries: what is replaced, what is told, and that it can be undone."""

import sys
import types

import pytest

import tare
from tare.compat import mmdet, torchvision, transformers

ORIGINALS = (lambda *arguments: "the original", type("Original", (), {}))  # a tuple: a name here would be replaced


@pytest.fixture
def modules(monkeypatch):
    """Modules of a library of this name, with what they hold."""

    def make(**contents):
        made = {}
        for name, attributes in contents.items():
            name = name.replace("__", ".")
            made[name] = types.ModuleType(name)
            made[name].__path__ = []
            made[name].__dict__.update(attributes)
            monkeypatch.setitem(sys.modules, name, made[name])
        return made

    return make


def installed(modules):
    return modules(
        torchvision={},
        torchvision__ops={"sigmoid_focal_loss": ORIGINALS[0]},
        torchvision__ops__focal_loss={"sigmoid_focal_loss": ORIGINALS[0]},
        user={"loss": ORIGINALS[0], "LOSSES": {"focal": ORIGINALS[0], "l1": abs}, "other": abs},
    )


def test_every_attribute_and_dictionary(modules):
    made = installed(modules)
    user = made["user"]
    patched = tare.patch("torchvision")
    ours = torchvision.sigmoid_focal_loss
    assert made["torchvision.ops"].sigmoid_focal_loss is ours and user.loss is ours
    assert {"focal": ours, "l1": abs} == user.LOSSES and user.other is abs
    assert set(patched.replaced) >= {
        "torchvision.ops.sigmoid_focal_loss",
        "torchvision.ops.focal_loss.sigmoid_focal_loss",
        "user.loss",
        "user.LOSSES['focal']",
    }
    assert "user.LOSSES['focal']" in repr(patched)
    assert ORIGINALS[0] is not ours and tare.patch("torchvision").replaced == []  # done already
    patched.undo()
    assert made["torchvision.ops.focal_loss"].sigmoid_focal_loss is ORIGINALS[0]
    assert user.loss is ORIGINALS[0] and user.LOSSES["focal"] is ORIGINALS[0] and torchvision.sigmoid_focal_loss is ours
    assert patched.replaced == []
    patched.undo()  # nothing left to do


def test_a_with_block(modules):
    user = installed(modules)["user"]
    with pytest.raises(KeyError), tare.patch("torchvision") as patched:
        assert user.loss is torchvision.sigmoid_focal_loss and patched.replaced
        user.LOSSES["focal"] = abs  # somebody else's since
        raise KeyError
    assert user.loss is ORIGINALS[0] and user.LOSSES["focal"] is abs


def test_a_name_that_tare_has_under_another(modules):
    made = modules(
        transformers={},
        transformers__loss={},
        transformers__loss__loss_utils={"LOSS_MAPPING": {"focal": ORIGINALS[0]}},
        transformers__loss__loss_for_object_detection={"sigmoid_focal_loss": ORIGINALS[0]},
        transformers__loss__loss_deformable_detr={"sigmoid_focal_loss": ORIGINALS[0]},
        transformers__loss__loss_grounding_dino={"sigmoid_focal_loss": ORIGINALS[1]},
    )
    with tare.patch("transformers"):
        assert made["transformers.loss.loss_deformable_detr"].sigmoid_focal_loss is transformers.sigmoid_focal_loss
        assert made["transformers.loss.loss_utils"].LOSS_MAPPING["focal"] is transformers.sigmoid_focal_loss
        found = made["transformers.loss.loss_grounding_dino"].sigmoid_focal_loss
        assert found is transformers.grounding_dino_sigmoid_focal_loss
    assert made["transformers.loss.loss_grounding_dino"].sigmoid_focal_loss is ORIGINALS[1]


def test_methods_of_classes(modules):
    class RTDetrLoss:
        def loss_labels_vfl(self):
            return "the original"

    class DFineLoss(RTDetrLoss):
        pass

    original = RTDetrLoss.__dict__["loss_labels_vfl"]
    modules(
        transformers={},
        transformers__loss={},
        transformers__loss__loss_utils={},
        transformers__loss__loss_rt_detr={"RTDetrLoss": RTDetrLoss},
        transformers__loss__loss_d_fine={"RTDetrLoss": RTDetrLoss, "DFineLoss": DFineLoss},
    )
    with tare.patch("transformers") as patched:
        assert DFineLoss.loss_labels_vfl is transformers.rt_detr_loss_labels_vfl
        assert len(patched.replaced) == 1 and patched.replaced[0].endswith("RTDetrLoss.loss_labels_vfl")
        assert tare.patch("transformers").replaced == []
    assert RTDetrLoss.__dict__["loss_labels_vfl"] is original and "loss_labels_vfl" not in DFineLoss.__dict__


def test_a_library_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "rfdetr", None)
    with pytest.raises(ImportError, match="rfdetr"):
        tare.patch("rfdetr")


def test_the_registry_of_mmdetection(modules):
    class Registry(dict):
        def register_module(self, name, force, module):
            self[name] = module

    registry, losses = Registry(FocalLoss=ORIGINALS[1], L1Loss=object), {"FocalLoss": ORIGINALS[1]}
    made = modules(
        mmdet={},
        mmdet__registry={"MODELS": registry},
        mmdet__models={},
        mmdet__models__losses=losses,
        mmdet__models__losses__focal_loss=losses,
        mmdet__models__losses__cross_entropy_loss={},
        mmdet__models__losses__ghm_loss={},
    )
    with tare.patch("mmdet") as patched:
        assert registry["FocalLoss"] is mmdet.FocalLoss and registry["L1Loss"] is object
        assert made["mmdet.models.losses"].FocalLoss is mmdet.FocalLoss
        assert "mmdet.registry.MODELS['FocalLoss']" in patched.replaced
    assert registry["FocalLoss"] is ORIGINALS[1] and made["mmdet.models.losses"].FocalLoss is ORIGINALS[1]


def test_what_is_no_library():
    known = "apex, detectron2, fvcore, kornia, mmcv, mmdet, monai, rfdetr, sam3, segmentation_models_pytorch, timm, "
    known += "torchvision, transformers, ultralytics"
    with pytest.raises(ValueError, match=f"library is 'keras'; it is one of: {known}"):
        tare.patch("keras")
