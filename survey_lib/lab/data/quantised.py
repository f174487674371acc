"""Data sets for discrete diffusion: small images of few grey levels, and images for tokens."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from survey_lib.lab import data
from survey_lib.lab.data.images import ImageSet, to_uint8

LEVELS = 8  # grey levels
SIZE = 16  # pixels a side
SANS_SERIF = 8  # the first faces of the glyphs, all without serifs: the others are hard to read at 16 pixels
_LUMINANCE = torch.tensor([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601)


def levels(dataset: str, *, split: str = "train", count: int | None = None) -> tuple[Tensor, Tensor]:
    """Images as integers (N, 1, 16, 16) from 0 to 7, and their labels (N,).

    Colour becomes luminance, 28 pixels are padded by 2 on each side to 32, each 2 x 2 pixels are averaged, and the 256
    values of a byte are cut into equal eighths. Of the glyphs only the first `SANS_SERIF` faces are taken.
    """
    images = _sans_serif(dataset, split, count)
    found = [_coarse(chunk) for chunk in images.images.split(4096)]
    return torch.cat(found), images.labels


def small_images(dataset: str, *, split: str = "train", count: int | None = None) -> ImageSet:
    """The images of `levels` before they are cut into levels: grey bytes (N, 1, 16, 16)."""
    images = _sans_serif(dataset, split, count)
    small = torch.cat([_shrunk(chunk) for chunk in images.images.split(4096)])
    return ImageSet(images.name, small.round().to(torch.uint8), images.labels, images.classes)


def enlarged_images(dataset: str, *, split: str = "train", count: int | None = None) -> ImageSet:
    """The images of `small_images`, made as large and as colourful as a feature network takes them (`enlarged`)."""
    small, channels = small_images(dataset, split=split, count=count), data.load(dataset, split=split, count=1).shape[0]
    return replace(small, images=to_uint8(enlarged(small.float(), channels)))


def level_images(dataset: str, *, split: str = "train", count: int | None = None) -> ImageSet:
    """The images of `levels`, made as large and as colourful as a feature network takes them (`for_features`)."""
    images = _sans_serif(dataset, split, count)
    x, _ = levels(dataset, split=split, count=count)
    return replace(images, images=to_uint8(for_features(x, images.shape[0])))


def token_images(dataset: str, *, split: str = "train", count: int | None = None) -> ImageSet:
    """Images to be made into tokens: unchanged, but glyphs in the `SANS_SERIF` faces as their `foreground_mask`."""
    images = _sans_serif(dataset, split, count)
    return replace(images, images=foreground_mask(images.images)) if dataset == "glyphs" else images


def foreground_mask(images: Tensor) -> Tensor:
    """Distance between the colours of each pixel and the top left corner, scaled to 255 in each image.

    Bytes (N, C, H, W) -> bytes of the same shape, with C equal channels.
    """
    chunks = []
    for x in images.split(4096):
        away = (x.float() - x[:, :, :1, :1].float()).abs().sum(1, keepdim=True)
        chunks.append((255 * away / away.amax((2, 3), keepdim=True).clamp_min(1)).round().to(torch.uint8))
    return torch.cat(chunks).expand(-1, images.shape[1], -1, -1).contiguous()


def to_image(x: Tensor, count: int = LEVELS) -> Tensor:
    """Integer levels to equally spaced float32 in [-1, 1]."""
    return x.float() * (2 / (count - 1)) - 1


def from_image(x: Tensor, count: int = LEVELS) -> Tensor:
    """Floats to the nearest level, int64; values outside [-1, 1] are clamped."""
    return ((x + 1) * ((count - 1) / 2)).round().clamp(0, count - 1).long()


def for_features(x: Tensor, channels: int) -> Tensor:
    """Levels (N, 1, 16, 16) to images (N, channels, 32, 32) in [-1, 1] for a feature network."""
    return enlarged(to_image(x), channels)


def enlarged(images: Tensor, channels: int) -> Tensor:
    """Floats (N, 1, 16, 16) to (N, channels, 32, 32), for a feature network."""
    large = F.interpolate(images, scale_factor=2.0, mode="bilinear", align_corners=False)
    return large.expand(-1, channels, -1, -1)


def _sans_serif(dataset: str, split: str, count: int | None) -> ImageSet:
    if dataset != "glyphs":
        return data.load(dataset, split=split, count=count)
    drawn = None if count is None else 3 * count + 100  # more than enough: 8 of 21 faces are sans serif
    images = data.load(dataset, split=split, count=drawn)
    return images.take(images.extra["face"] < SANS_SERIF).take(slice(count))


def _coarse(images: Tensor) -> Tensor:
    return (_shrunk(images) * (LEVELS / 256)).long().clamp(0, LEVELS - 1)


def _shrunk(images: Tensor) -> Tensor:
    """Luminance (N, 1, 16, 16) as floats from 0 to 255."""
    x = images.float()
    if x.shape[1] == 3:
        x = (x * _LUMINANCE.reshape(3, 1, 1)).sum(1, keepdim=True)
    rim = -x.shape[-1] % SIZE // 2
    return F.adaptive_avg_pool2d(F.pad(x, (rim,) * 4), SIZE)
