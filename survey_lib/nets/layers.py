"""Layers that the networks share: embeddings of noise level and label, a residual block, attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

Net = TypeVar("Net", bound=nn.Module)


def initialised(seed: int, make: Callable[[], Net]) -> Net:
    """``make()`` with initial weights drawn from ``seed``; torch's global generator is left unchanged."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # torch's initialisers do not take a generator
        return make()


def zeroed(layer: Net) -> Net:
    """A layer with all parameters set to zero: what follows from it begins as nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def check_images(x: Tensor, channels: int, multiple: int, network: str) -> None:
    """Raise ValueError unless ``x`` is (B, channels, H, W) with H and W multiples of ``multiple``."""
    if x.ndim != 4 or x.shape[1] != channels or x.shape[2] % multiple or x.shape[3] % multiple:
        sides = f" with H and W multiples of {multiple}" if multiple > 1 else ""
        raise ValueError(f"this {network} takes images (B, {channels}, H, W){sides}; got {tuple(x.shape)}")


def concatenated(x: Tensor, cond: Tensor | None, channels: int) -> Tensor:
    """Images ``x`` (B, C, H, W) with the condition (B, channels, H, W) as further channels; None stands for zeros."""
    shape = (len(x), channels, *x.shape[2:])
    cond = x.new_zeros(shape) if cond is None else cond
    if cond.shape != shape:
        raise ValueError(f"cond must be an image of shape {shape}; got {tuple(cond.shape)}")
    return torch.cat([x, cond.to(x.dtype)], dim=1)


def position_features(x: Tensor, frequencies: Sequence[int]) -> Tensor:
    """Sines and cosines of the positions of a map (B, C, H, W): (1, 4 len(frequencies), H, W).

    frequencies: half turns across the map, whatever its size.
    """
    speeds = torch.tensor(frequencies, dtype=x.dtype, device=x.device) * math.pi
    down, across = ((torch.arange(n, dtype=x.dtype, device=x.device) + 0.5) / n for n in x.shape[2:])
    places = torch.stack(torch.meshgrid(down, across, indexing="ij"))  # (2, H, W)
    angles = (speeds[:, None, None, None] * places).flatten(0, 1)
    return torch.cat([angles.sin(), angles.cos()])[None]


class NoiseEmbedding(nn.Module):
    """Embedding of the noise level, (B,) -> (B, width): sines and cosines of fixed frequencies, then two layers."""

    frequencies: Tensor

    def __init__(self, width: int, frequencies: int = 16, highest: float = 4.0):
        super().__init__()
        # A buffer, since the weights depend on it; rounded to half precision, as checkpoints are.
        self.register_buffer("frequencies", torch.logspace(-1, math.log2(highest), frequencies, base=2).half().float())
        self.layers = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, c_noise: Tensor) -> Tensor:
        angles = c_noise[:, None] * self.frequencies.to(c_noise.dtype) * math.pi
        return self.layers(torch.cat([angles.cos(), angles.sin()], dim=1))


class LabelEmbedding(nn.Embedding):
    """Embedding of labels, (B,) -> (B, width). Row ``classes`` stands for "no label", and so does None."""

    def __init__(self, classes: int, width: int):
        super().__init__(classes + 1, width)

    def forward(self, cond: Tensor | None, count: int) -> Tensor:  # type: ignore[override]
        """Features of ``count`` examples. Raises ValueError for an invalid label."""
        unlabelled = self.num_embeddings - 1
        if cond is None:
            return super().forward(torch.full((count,), unlabelled, device=self.weight.device))
        if not isinstance(cond, Tensor):
            raise ValueError(f"cond must be a tensor of one whole number per example, or None; got {cond!r}")
        if cond.dtype not in (torch.int32, torch.int64) or cond.shape not in ((), (count,)):
            raise ValueError(
                f"cond must be one whole number per example, shape ({count},); got {cond.dtype}, {tuple(cond.shape)}"
            )
        try:  # checking the values first would synchronise a GPU at every step
            return super().forward(cond)
        except IndexError as error:
            span = f"{int(cond.min())} to {int(cond.max())}"
            raise ValueError(
                f"labels run from 0 to {unlabelled - 1}, and {unlabelled} means no label; got {span}"
            ) from error


class ResidualBlock(nn.Module):
    """Residual block ``skip(x) + conv(silu(film(norm(conv(silu(norm(x)))))))``, with FiLM by the embedding.

    The last convolution is initialised to zero, so that a new block is the identity or its 1 x 1 convolution.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, groups: int = 1):
        super().__init__()
        self.norm_in, self.norm_out = nn.GroupNorm(groups, inputs), nn.GroupNorm(groups, outputs)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv_out = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.film = nn.Linear(embedding, 2 * outputs)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # (B, inputs, H, W) -> (B, outputs, H, W)
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.conv_in(F.silu(self.norm_in(x)))
        h = self.conv_out(F.silu(torch.addcmul(shift, self.norm_out(h), 1 + scale)))
        return self.skip(x) + h


def attention_weights(query: Tensor, key: Tensor) -> Tensor:
    """``softmax(query key^T / sqrt(size))``: (..., N, size), (..., L, size) -> (..., N, L).

    Written out: on a CPU the backward pass of torch's fused attention takes ten times as long for few tokens.
    """
    return (query @ key.mT * key.shape[-1] ** -0.5).softmax(-1)


class SelfAttention(nn.Module):
    """Multi-head self-attention over the positions of a map (B, C, H, W), with about ``head`` channels per head."""

    def __init__(self, channels: int, head: int = 32, groups: int = 1):
        super().__init__()
        self.heads = max(1, channels // head)
        if channels % self.heads:
            raise ValueError(f"{channels} channels do not divide into {self.heads} heads of attention")
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        qkv = rearrange(self.qkv(self.norm(x)), "b (three h c) y x -> three b h (y x) c", three=3, h=self.heads)
        query, key, value = qkv
        mixed = attention_weights(query, key) @ value
        return x + self.out(rearrange(mixed, "b h (y x) c -> b (h c) y x", y=x.shape[2]))


class CrossAttention(nn.Module):
    """Multi-head attention of the positions of a map to the tokens of a context (LDM, sec. 3.3).

    x (B, C, H, W), context (B, L, D) -> (B, C, H, W). The query is made of the map and of sines and cosines of the
    position, so that a word such as "above" can be looked up by place. The last layer is initialised to zero.
    """

    FREQUENCIES = (1, 2, 4)  # half turns across the map

    def __init__(self, channels: int, context: int, head: int = 32):
        super().__init__()
        self.heads = max(1, channels // head)
        if channels % self.heads:
            raise ValueError(f"{channels} channels do not divide into {self.heads} heads of attention")
        self.norm = nn.GroupNorm(1, channels)
        self.query, self.place = nn.Conv2d(channels, channels, 1), nn.Conv2d(4 * len(self.FREQUENCIES), channels, 1)
        self.key, self.value = nn.Linear(context, channels, bias=False), nn.Linear(context, channels, bias=False)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def weights(self, x: Tensor, context: Tensor) -> Tensor:
        """Fraction of its attention that each position gives to each token: (B, heads, H W, L)."""
        query = self.query(self.norm(x)) + self.place(self.places(x))
        query = rearrange(query, "b (h c) y x -> b h (y x) c", h=self.heads)
        key = rearrange(self.key(context), "b l (h c) -> b h l c", h=self.heads)
        return attention_weights(query, key)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        value = rearrange(self.value(context), "b l (h c) -> b h l c", h=self.heads)
        mixed = self.weights(x, context) @ value
        return x + self.out(rearrange(mixed, "b h (y x) c -> b (h c) y x", y=x.shape[2]))

    def places(self, x: Tensor) -> Tensor:
        """Sines and cosines of the positions of a map: (1, 4 frequencies, H, W)."""
        return position_features(x, self.FREQUENCIES)
