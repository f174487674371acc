"""The parts that the networks share: embeddings of noise level and label, a residual block, attention."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


class NoiseEmbedding(nn.Module):
    """Noise level to features: sines of fixed frequencies, then two layers. (B,) -> (B, width)."""

    def __init__(self, width: int, frequencies: int = 16, highest: float = 4.0):
        super().__init__()
        # Saved with the weights, which are useless under others; rounded to half precision, as checkpoints are.
        self.register_buffer("frequencies", torch.logspace(-1, math.log2(highest), frequencies, base=2).half().float())
        self.layers = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, c_noise: Tensor) -> Tensor:
        angles = c_noise[:, None] * self.frequencies.to(c_noise.dtype) * math.pi
        return self.layers(torch.cat([angles.cos(), angles.sin()], dim=1))


class LabelEmbedding(nn.Embedding):
    """Labels (B,) to features (B, width); one row more than ``classes`` stands for "no label", and so does None."""

    def __init__(self, classes: int, width: int):
        super().__init__(classes + 1, width)

    def forward(self, cond: Tensor | None, count: int) -> Tensor:
        """Features of ``count`` examples. Raises ValueError for what is no label."""
        nobody = self.num_embeddings - 1
        if cond is None:
            return super().forward(torch.full((count,), nobody, device=self.weight.device))
        if cond.is_floating_point() or cond.shape not in ((), (count,)):
            raise ValueError(
                f"cond is one whole number an example, shape ({count},); got {cond.dtype}, {tuple(cond.shape)}"
            )
        try:  # costs nothing; to look at the values first would make a GPU wait at every step
            return super().forward(cond)
        except IndexError as error:
            span = f"{int(cond.min())} to {int(cond.max())}"
            raise ValueError(f"labels run from 0 to {nobody - 1}, and {nobody} is no label; got {span}") from error


class ResidualBlock(nn.Module):
    """``x + conv(silu(film(norm(conv(silu(norm(x)))))))``; the embedding scales and shifts (FiLM).

    The last convolution starts at zero, so that a new block passes its input through.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, groups: int = 1):
        super().__init__()
        self.norm_in, self.norm_out = nn.GroupNorm(groups, inputs), nn.GroupNorm(groups, outputs)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv_out = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * outputs)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # (B, inputs, H, W) -> (B, outputs, H, W)
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.conv_in(F.silu(self.norm_in(x)))
        h = self.conv_out(F.silu(torch.addcmul(shift, self.norm_out(h), 1 + scale)))
        return self.skip(x) + h


class SelfAttention(nn.Module):
    """Every place of the map (B, C, H, W) looks at every other, in heads of about ``head`` channels each."""

    def __init__(self, channels: int, head: int = 32, groups: int = 1):
        super().__init__()
        self.heads = max(1, channels // head)
        if channels % self.heads:
            raise ValueError(f"{channels} channels do not divide into {self.heads} heads of attention")
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        qkv = rearrange(self.qkv(self.norm(x)), "b (three h c) y x -> three b h (y x) c", three=3, h=self.heads)
        mixed = F.scaled_dot_product_attention(*qkv)
        return x + self.out(rearrange(mixed, "b h (y x) c -> b (h c) y x", y=x.shape[2]))
