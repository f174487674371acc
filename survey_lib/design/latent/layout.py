"""Layouts as images: characters painted into their boxes, a condition that a convolution can read."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CHARACTERS = 10
CHANNELS = CHARACTERS + 3  # one for each character; whether there is an object; the place in its box (x, y)


def paint(layout: Tensor, side: int) -> Tensor:
    """Paint a layout into an image: (B, CHANNELS, side, side).

    layout: (B, objects, 5), the character and the box of each object: centre (x, y), width and height in parts of the
        image. An empty slot holds the character 10.

    A pixel holds the fraction of it that the box covers along each axis. The last two channels run from -1 to 1 across
    the box: with a character and a place in its box, a network knows which stroke to draw.
    """
    if layout.ndim != 3 or layout.shape[2] != 5:
        raise ValueError(f"a layout is (B, objects, 5): character and box; got {tuple(layout.shape)}")
    character, box = layout[..., 0].long(), layout[..., 1:, None]
    centres = (torch.arange(side, device=layout.device, dtype=layout.dtype) + 0.5) / side
    x, y, width, height = box.unbind(2)  # (B, objects, 1) each
    across, down = (centres - x), (centres - y)  # (B, objects, side)
    inside_x = ((width / 2 - across.abs()) * side + 0.5).clamp(0, 1)
    inside_y = ((height / 2 - down.abs()) * side + 0.5).clamp(0, 1)
    inside = inside_y[..., :, None] * inside_x[..., None, :] * (character < CHARACTERS)[..., None, None]
    x = inside * (2 * across / width.clamp_min(1 / side))[..., None, :]
    y = inside * (2 * down / height.clamp_min(1 / side))[..., :, None]
    which = F.one_hot(character.clamp(0, CHARACTERS), CHARACTERS + 1)[..., :CHARACTERS].to(layout)
    painted = torch.einsum("bohw,bok->bkhw", inside, which)
    return torch.cat([painted, *(part.sum(1, keepdim=True) for part in (inside, x, y))], dim=1)


def empty(layout: Tensor) -> Tensor:
    """The layout without objects, of the same shape: no condition."""
    return torch.zeros_like(layout).index_fill(2, torch.zeros(1, dtype=torch.int64, device=layout.device), CHARACTERS)
