"""Data sets made simple for chains on categories: small images of few grey levels, and glyphs without colour."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from survey_lib.lab import data

LEVELS = 8  # grey levels
SIZE = 16  # pixels a side
PLAIN = 8  # of the glyphs' faces the first eight, all of them without serifs: at 16 pixels others are hard to read
_LUMINANCE = torch.tensor([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601)


def levels(dataset: str, *, split: str = "train", count: int | None = None) -> tuple[Tensor, Tensor]:
    """Images as integers (N, 1, 16, 16) from 0 to 7, and their labels (N,).

    Colour becomes luminance, 28 pixels get a rim of 2 to be 32, and these the mean of each 2 x 2: the levels are
    equal eighths of the bytes. Of the glyphs only those in the `PLAIN` faces are taken.
    """
    images = _plain(dataset, split, count)
    found = [_coarse(chunk) for chunk in images.images.split(4096)]
    return torch.cat(found), images.labels


def pictures(dataset: str, *, split: str = "train", count: int | None = None) -> data.ImageSet:
    """What is made into tokens: the images as they are, but glyphs in the `PLAIN` faces, white on black (`ink`)."""
    images = _plain(dataset, split, count)
    return replace(images, images=ink(images.images)) if dataset == "glyphs" else images


def ink(images: Tensor) -> Tensor:
    """How far each pixel's colour is from that of the corner, the farthest white: bytes (N, C, H, W), all C alike."""
    chunks = []
    for x in images.split(4096):
        away = (x.float() - x[:, :, :1, :1].float()).abs().sum(1, keepdim=True)
        chunks.append((255 * away / away.amax((2, 3), keepdim=True).clamp_min(1)).round().to(torch.uint8))
    return torch.cat(chunks).expand(-1, images.shape[1], -1, -1).contiguous()


def to_image(x: Tensor, count: int = LEVELS) -> Tensor:
    """Levels to numbers in [-1, 1], equally spaced: float32."""
    return x.float() * (2 / (count - 1)) - 1


def from_image(x: Tensor, count: int = LEVELS) -> Tensor:
    """Numbers to the nearest level: int64; what lies outside [-1, 1] is clamped."""
    return ((x + 1) * ((count - 1) / 2)).round().clamp(0, count - 1).long()


def for_features(x: Tensor, channels: int) -> Tensor:
    """Levels (N, 1, 16, 16) as the images (N, channels, 32, 32) in [-1, 1] that feature networks know."""
    large = F.interpolate(to_image(x), scale_factor=2.0, mode="bilinear", align_corners=False)
    return large.expand(-1, channels, -1, -1)


def _plain(dataset: str, split: str, count: int | None) -> data.ImageSet:
    if dataset != "glyphs":
        return data.load(dataset, split=split, count=count)
    drawn = None if count is None else 3 * count + 100  # more than enough: 8 of 21 faces are plain
    images = data.load(dataset, split=split, count=drawn)
    return images.take(images.extra["face"] < PLAIN).take(slice(count))


def _coarse(images: Tensor) -> Tensor:
    x = images.float()
    if x.shape[1] == 3:
        x = (x * _LUMINANCE.reshape(3, 1, 1)).sum(1, keepdim=True)
    rim = -x.shape[-1] % SIZE // 2
    x = F.adaptive_avg_pool2d(F.pad(x, (rim,) * 4), SIZE)
    return (x * (LEVELS / 256)).long().clamp(0, LEVELS - 1)
