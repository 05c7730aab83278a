# SPDX-License-Identifier: Apache-2.0
"""Losses with the signatures, defaults and reductions of other libraries, to be put in their place.

    from tare.compat.torchvision import sigmoid_focal_loss

One module a library: torchvision, fvcore, mmcv, mmdet, apex. None of them imports the library that it is named after.
Common to all: logits in float16 or bfloat16 are computed in float32, and losses are float32 (float64 for float64);
nothing waits for a GPU; a mean over nothing is 0, not NaN; a second derivative raises; targets and weights that ask for
a gradient are refused. Where a module differs otherwise, its docstring says so.
"""

NOT_A_LABEL = -(2**62)  # where a convention has no background, or nothing to ignore


def reduced(reduction, mean):
    """The keywords of tare.torch.loss for "none", "sum" or "mean", the last divided by `mean`."""
    known = {"none": {"reduction": "none"}, "sum": {}, "mean": {"normalizer": mean}}
    if reduction not in known:
        raise ValueError(f"reduction is '{reduction}'; it is one of: none, mean, sum")
    return known[reduction]
