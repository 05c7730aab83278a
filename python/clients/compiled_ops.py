# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for mmcv's compiled operators, so that mmcv-lite can run mmdetection's heads on a CPU.

NMS, RoIAlign and deformable convolution (version 1) are torchvision's. Any other compiled operator raises CompiledOp
when it is called.
"""

import functools
import importlib.machinery
import sys
import types


class CompiledOp(NotImplementedError):
    """A compiled operator of mmcv was called."""


def _missing(name, *arguments, **keywords):
    raise CompiledOp(f"mmcv's compiled operator {name}")


def _nms(boxes, scores, iou_threshold, offset):
    import torchvision

    return torchvision.ops.nms(boxes, scores, float(iou_threshold))


def _roi_align(input, rois, output, argmax_y, argmax_x, pool_mode, aligned, **options):
    """Forward alone, as targets of masks need it; the module below has a gradient."""
    import torchvision

    size = options["aligned_height"], options["aligned_width"]
    scale, ratio = options["spatial_scale"], options["sampling_ratio"]
    output.copy_(torchvision.ops.roi_align(input, rois, size, scale, ratio, aligned))


def _deformable_convolution(self, x, offset):
    import torchvision

    return torchvision.ops.deform_conv2d(x, offset, self.weight, None, self.stride, self.padding, self.dilation)


class _Operators(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return functools.partial(_missing, name)


def install():
    """Puts the stand-ins in place. Call it before mmcv.ops is imported."""
    operators = _Operators("mmcv._ext")
    operators.nms, operators.roi_align_forward = _nms, _roi_align
    operators.__spec__ = importlib.machinery.ModuleSpec("mmcv._ext", None)
    sys.modules["mmcv._ext"] = operators
    from mmcv.ops import DeformConv2d, RoIAlign

    DeformConv2d.forward = _deformable_convolution

    original = RoIAlign.__init__

    @functools.wraps(original)
    def with_torchvision(self, *arguments, **keywords):
        original(self, *arguments, **keywords)
        self.use_torchvision = True

    RoIAlign.__init__ = with_torchvision
