"""Small convolutional classifiers: of clean images, with the features that metrics compare, and of noisy images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from survey_lib.nets.layers import NoiseEmbedding, ResidualBlock

_LARGEST_LOG_SCALE = math.log(100)  # as in CLIP: beyond it a batch says too little of the gradient


class Classifier(nn.Module):
    """Images (B, C, H, W) in [-1, 1] -> logits (B, sum(heads)); one group of logits for each of several labels.

    Each of ``widths`` is a stage of two convolutions that halves the image; the mean over the last map goes
    through a layer of ``dims`` features. ``kernel`` and ``widths`` differ between the two feature networks
    that the course ships, so that a ranking can be confirmed with a second pair of eyes. Any size of image
    will do. Raises ValueError for images of another number of channels.
    """

    def __init__(
        self,
        channels: int = 3,
        heads: Sequence[int] = (10,),
        *,
        widths: Sequence[int] = (24, 48, 96),
        dims: int = 64,
        kernel: int = 3,
    ):
        super().__init__()
        self.channels, self.heads = channels, tuple(heads)
        self.config = dict(channels=channels, heads=self.heads, widths=tuple(widths), dims=dims, kernel=kernel)
        stages: list[nn.Module] = []
        for before, width in zip((channels, *widths[:-1]), widths, strict=True):
            stages += [nn.Conv2d(before, width, kernel, padding=kernel // 2), nn.BatchNorm2d(width), nn.ReLU()]
            stages += [nn.Conv2d(width, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        self.stages = nn.Sequential(*stages)
        self.embed, self.read = nn.Linear(widths[-1], dims), nn.Linear(dims, sum(heads))

    def features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dims): what the metrics compare."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"this classifier takes images (B, {self.channels}, H, W); got {tuple(x.shape)}")
        return F.silu(self.embed(self.stages(x).mean((2, 3))))

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.features(x))

    def classify(self, x: Tensor) -> tuple[Tensor, ...]:
        """The most probable label of each head: a tuple of (B,)."""
        return tuple(logits.argmax(1) for logits in self(x).split(self.heads, dim=1))


class NoisyClassifier(nn.Module):
    """``net(x, c_noise)``, (B, C, H, W), (B,) -> logits (B, classes): what is it, seen through so much noise?

    The way down of a U-Net: the image folded into patches, residual blocks that know the noise level, half the size
    at each of ``widths``, the mean over the last map. A logit is a similarity, as in CLIP (Radford et al. 2021,
    fig. 3): ``exp(log_scale) f . g`` with unit vectors f of the image and g of the label, of ``dims`` numbers.

    Height and width are multiples of ``patch * 2 ** (len(widths) - 1)``. Raises ValueError for other images.
    """

    def __init__(
        self,
        channels: int = 3,
        classes: int = 10,
        *,
        widths: Sequence[int] = (32, 64),
        blocks: int = 2,
        dims: int = 64,
        patch: int = 2,
        embedding: int = 64,
    ):
        super().__init__()
        self.config = dict(
            channels=channels, classes=classes, widths=tuple(widths), blocks=blocks, dims=dims, patch=patch,
            embedding=embedding,
        )  # fmt: skip
        self.channels, self.classes, self.patch = channels, classes, patch
        self.multiple = patch * 2 ** (len(widths) - 1)
        self.noise = NoiseEmbedding(embedding)
        self.enter = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)
        self.shrink, self.levels = nn.ModuleList(), nn.ModuleList()
        for index, width in enumerate(widths):
            self.shrink.append(nn.Conv2d(widths[index - 1], width, 3, stride=2, padding=1) if index else nn.Identity())
            self.levels.append(nn.ModuleList(ResidualBlock(width, width, embedding) for _ in range(blocks)))
        self.norm, self.embed = nn.GroupNorm(1, widths[-1]), nn.Linear(widths[-1], dims)
        self.captions = nn.Embedding(classes, dims).weight
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # where CLIP starts

    def features(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """Unit vectors (B, dims) of the images."""
        if x.ndim != 4 or x.shape[1] != self.channels or x.shape[2] % self.multiple or x.shape[3] % self.multiple:
            raise ValueError(
                f"this classifier takes images (B, {self.channels}, H, W) with H and W multiples of {self.multiple}; "
                f"got {tuple(x.shape)}"
            )
        e = F.silu(self.noise(c_noise))
        h = self.enter(F.pixel_unshuffle(x, self.patch))
        for shrink, blocks in zip(self.shrink, self.levels, strict=True):
            h = shrink(h)
            for block in blocks:
                h = block(h, e)
        return F.normalize(self.embed(F.silu(self.norm(h)).mean((2, 3))).to(self.captions.dtype))

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        scale = self.log_scale.clamp(max=_LARGEST_LOG_SCALE).exp()
        # not a matrix product: autocast would round a logit of 30 to the next eighth
        return scale * (self.features(x, c_noise)[:, None] * F.normalize(self.captions)).sum(2)
