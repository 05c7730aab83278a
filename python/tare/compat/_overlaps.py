# SPDX-License-Identifier: Apache-2.0
"""Dice and Tversky losses of maps [N, C, ...], one for each channel, as segmentation libraries have them."""

from __future__ import annotations

import torch

from .. import torch as tare


def channel_rows(maps: torch.Tensor, over_batch: bool) -> torch.Tensor:
    """[N, C, ...] as one row for each channel of an image, [N*C, places], or of the batch, [C, N*places]."""
    flat = maps.flatten(2) if maps.dim() > 2 else maps.unsqueeze(-1)
    return flat.transpose(0, 1).flatten(1) if over_batch else flat.flatten(0, 1)


def overlap_losses(
    x: torch.Tensor,
    targets: torch.Tensor,
    over_batch: bool,
    valid: torch.Tensor | None = None,
    squared: bool = False,
    **parameters: float,
) -> torch.Tensor:
    """1 - T of sigmoid(x), with the parameters of tare.mask_loss: [N, C], or [C] over the batch."""
    given = {} if valid is None else {"valid": channel_rows(valid, over_batch)}
    losses = tare.mask_loss(
        channel_rows(x, over_batch),
        channel_rows(targets, over_batch),
        parameters=parameters,
        squared=squared,
        reduction="masks",
        **given,
    ).loss
    return losses.reshape(x.shape[1:2] if over_batch else x.shape[:2])


def are_smoothings(numerator: float, denominator: float) -> bool:
    """Whether Tare takes both: the loss is in [0,1]."""
    return 0 <= numerator <= denominator <= 1e30 and all(one == 0 or one >= 1e-30 for one in (numerator, denominator))


def are_weights(*given: float) -> bool:
    return all(one == 0 or 1e-30 <= one <= 1e30 for one in given)
