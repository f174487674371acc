"""A set of labelled images in memory, and the conversion between bytes and floats in [-1, 1]."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from survey_lib.lab.runtime import require

LEAST_SIDE = 4  # pixels: the smallest images that are made
_CHUNK = 4096  # images resized at once: bounds the float32 copy


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with labels: ``images`` uint8 (N, C, H, W), ``labels`` int64 (N,), ``classes`` the names of the labels.

    ``extra`` holds further values of each image, (N, ...) each: the ``face`` of a glyph. Raises TypeError or
    ValueError for parts that do not fit together.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self):
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise TypeError(
                f"images are uint8 of shape (N, C, H, W); these are {self.images.dtype}, {tuple(self.images.shape)}"
            )
        if self.labels.dtype != torch.int64:
            raise TypeError(f"labels are int64; these are {self.labels.dtype}")
        for name, values in {"labels": self.labels, **self.extra}.items():
            if values.shape[:1] != self.images.shape[:1]:
                raise ValueError(f"{len(self.images)} images need as many {name}; got shape {tuple(values.shape)}")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise ValueError(
                f"labels number the {len(self.classes)} classes from 0; these span "
                f"{int(self.labels.min())} to {int(self.labels.max())}"
            )
        object.__setattr__(self, "extra", dict(self.extra))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return tuple(self.images.shape[1:])

    def float(self, index: slice | Tensor = slice(None)) -> Tensor:
        """The images selected by ``index`` as float32 in [-1, 1]."""
        return to_float(self.images[index])

    def take(self, index: slice | Tensor) -> ImageSet:
        """The subset selected by ``index``: a slice, or a tensor of integers or bools."""
        extra = {name: values[index] for name, values in self.extra.items()}
        return replace(self, images=self.images[index], labels=self.labels[index], extra=extra)

    def subset(self, count: int, generator: torch.Generator) -> ImageSet:
        """``count`` different images, drawn at random. Raises ValueError if ``count`` exceeds their number."""
        require("count", count, int, low=1, high=len(self))
        return self.take(torch.randperm(len(self), generator=generator, device=generator.device)[:count].cpu())

    def resize(self, size: int) -> ImageSet:
        """The same set with square images of ``size`` pixels (`resize`)."""
        return replace(self, images=resize(self.images, size))


def to_float(images: Tensor) -> Tensor:
    """Bytes to float32: 0 becomes -1 and 255 becomes 1. `to_uint8` inverts it exactly."""
    if images.dtype != torch.uint8:
        raise TypeError(f"images to convert are uint8; these are {images.dtype}")
    return images.to(torch.float32).div_(127.5).sub_(1)


def to_uint8(x: Tensor) -> Tensor:
    """Floats in [-1, 1] to bytes by rounding; values outside are clamped, and NaN becomes 0 (black)."""
    if not x.is_floating_point():
        raise TypeError(f"images to convert are floats in [-1, 1]; these are {x.dtype}")
    levels = x.detach().to(torch.float32).add(1).mul_(127.5).round_().nan_to_num_(nan=0.0)
    return levels.clamp_(0, 255).to(torch.uint8)


def check_scale(x: Tensor) -> None:
    """Warn or raise about float images (N, C, H, W) on another scale than [-1, 1].

    Floats without a negative value are images without a pixel darker than mid-grey. If they exceed 2 they are bytes in
    disguise: ValueError. Otherwise they are most likely in [0, 1], and cannot be told from bright images: a
    RuntimeWarning.
    """
    if not x.is_floating_point() or not x.numel() or x.min() < 0:
        return
    if x.max() > 2:
        raise ValueError(f"float images lie in [-1, 1], bytes are uint8; these floats reach {x.max():g}")
    if x.min() < x.max():
        warnings.warn(
            f"these float images span {x.min():g} to {x.max():g}, and -1 is black: images in [0, 1] are to be passed "
            "as 2 * x - 1",
            RuntimeWarning,
            stacklevel=4,
        )


def resize(images: Tensor, size: int) -> Tensor:
    """uint8 (N, C, H, W) to (N, C, size, size): centre crop to a square, then the mean over each new pixel's area.

    Enlarging interpolates (bicubic).
    """
    side = min(images.shape[-2:])
    top, left = ((length - side) // 2 for length in images.shape[-2:])
    images = images[..., top : top + side, left : left + side]
    if side == size:
        return images.contiguous()
    mode = {"mode": "area"} if size < side else {"mode": "bicubic", "align_corners": False}
    chunks = [functional.interpolate(chunk.float(), (size, size), **mode) for chunk in images.split(_CHUNK)]
    return torch.cat([chunk.round_().clamp_(0, 255).to(torch.uint8) for chunk in chunks])
