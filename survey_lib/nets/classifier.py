"""Small convolutional classifiers: of clean images, with features for metrics, and of noisy images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from survey_lib.nets.encoder import downsampling, encode
from survey_lib.nets.layers import NoiseEmbedding, ResidualBlock, check_images

_LARGEST_LOG_SCALE = math.log(100)  # as in CLIP, for stable training


class Classifier(nn.Module):
    """Classifier of images (B, C, H, W) in [-1, 1]: logits (B, sum(heads)), one group for each of several labels.

    heads: number of classes of each label.
    widths: a stage of two convolutions each, which halves the image. The mean over the last map enters a layer of
        ``dims`` features.
    kernel: size of the first convolution of each stage. The two shipped feature networks differ in ``kernel`` and
        ``widths``, so that a ranking in one can be confirmed in the other.

    Accepts images of any size. Raises ValueError for another number of channels.
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
        """Features for metrics: (B, C, H, W) -> (B, dims)."""
        check_images(x, self.channels, 1, "classifier")
        return F.silu(self.embed(self.stages(x).mean((2, 3))))

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.features(x))

    def classify(self, x: Tensor) -> tuple[Tensor, ...]:
        """The most probable label of each head: a tuple of (B,)."""
        return tuple(logits.argmax(1) for logits in self(x).split(self.heads, dim=1))


class NoisyClassifier(nn.Module):
    """Noise-conditional classifier ``net(x, c_noise)``: (B, C, H, W), (B,) -> logits (B, classes).

    The downsampling path of a U-Net (`encoder`), then the mean over the last map. A logit is a similarity, as in CLIP
    (Radford et al. 2021, fig. 3): ``exp(log_scale) f . g`` with unit vectors f of the image and g of the label, (dims,)
    each.

    Height and width must be multiples of ``patch * 2 ** (len(widths) - 1)``. Raises ValueError for other images.
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
        self.enter, self.shrink, self.levels = downsampling(
            channels, widths, patch, blocks, lambda level: ResidualBlock(widths[level], widths[level], embedding)
        )
        self.norm, self.embed = nn.GroupNorm(1, widths[-1]), nn.Linear(widths[-1], dims)
        self.captions = nn.Embedding(classes, dims).weight
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # as in CLIP

    def features(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """Unit vectors of the images: (B, dims)."""
        check_images(x, self.channels, self.multiple, "classifier")
        h, _ = encode(x, (F.silu(self.noise(c_noise)),), self.patch, self.enter, self.shrink, self.levels)
        return F.normalize(self.embed(F.silu(self.norm(h)).mean((2, 3))).to(self.captions.dtype))

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        scale = self.log_scale.clamp(max=_LARGEST_LOG_SCALE).exp()
        # A sum instead of a matrix product, which autocast would round to bfloat16: a logit of 30 to the next eighth.
        return scale * (self.features(x, c_noise)[:, None] * F.normalize(self.captions)).sum(2)
