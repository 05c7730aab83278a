# SPDX-License-Identifier: Apache-2.0
"""mmdet.models.losses: FocalLoss, CrossEntropyLoss, GHMC, GHMR, QualityFocalLoss, DistributionFocalLoss, VarifocalLoss,
GaussianFocalLoss, SeesawLoss, EQLV2Loss and DiceLoss, as of mmdetection 3, with the functions beside the first two and
the last.

In a configuration either name a loss by `type='tare.compat.mmdet.FocalLoss'`, or replace mmdetection's own everywhere
by one line:

    custom_imports = dict(imports=['tare.compat.mmdet.replace'])

In Python the line is `tare.compat.mmdet.register()`. The second way is the safer one: a few heads look at the name
`FocalLoss` in the configuration, as GuidedAnchorHead does.

avg_factor may be a tensor on the logits' device; nothing waits for it. A layout that the original would refuse or
confuse with another is refused. Differences: alpha outside [0,1] is refused. GHM keeps its momentum sums in `state`
(see tare.torch.GHMC); `acc_sum` and `edges` are copies for reading. load_state_dict takes the original's checkpoints
too. Targets of GHM-C that require a gradient are refused.
"""

from .cross_entropy import CrossEntropyLoss, binary_cross_entropy, cross_entropy, mask_cross_entropy
from .custom import CrossEntropyCustomLoss, FocalCustomLoss
from .dice import DiceLoss, dice_loss
from .distribution import DistributionFocalLoss
from .eqlv2 import EQLV2Loss
from .focal import FocalLoss, py_focal_loss_with_prob, py_sigmoid_focal_loss, sigmoid_focal_loss
from .gaussian import GaussianFocalLoss
from .ghm import GHMC, GHMR
from .quality import QualityFocalLoss, VarifocalLoss
from .registry import register
from .seesaw import SeesawLoss

__all__ = [
    "GHMC",
    "GHMR",
    "CrossEntropyCustomLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "DistributionFocalLoss",
    "EQLV2Loss",
    "FocalCustomLoss",
    "FocalLoss",
    "GaussianFocalLoss",
    "QualityFocalLoss",
    "SeesawLoss",
    "VarifocalLoss",
    "binary_cross_entropy",
    "cross_entropy",
    "dice_loss",
    "mask_cross_entropy",
    "py_focal_loss_with_prob",
    "py_sigmoid_focal_loss",
    "register",
    "sigmoid_focal_loss",
]
