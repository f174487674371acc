"""A U-Net that reads captions: a small text encoder, and attention from places to words (LDM, sec. 3.3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from survey_lib.nets.transformer import Layer
from survey_lib.nets.unet import UNet


class CaptionEncoder(nn.Module):
    """Transformer over the words of captions: integers (B, length), 0 for padding -> (B, length, width)."""

    def __init__(self, words: int, length: int, *, width: int = 64, layers: int = 2, heads: int = 2):
        super().__init__()
        self.words, self.length = words, length
        self.embed, self.places = nn.Embedding(words, width), nn.Parameter(torch.zeros(length, width))
        self.layers = nn.ModuleList(Layer(width, heads, film=False) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        if tokens.ndim != 2 or tokens.shape[1] != self.length or tokens.is_floating_point():
            raise ValueError(f"captions are integers (B, {self.length}); got {tokens.dtype} {tuple(tokens.shape)}")
        h = self.embed(tokens) + self.places
        for layer in self.layers:
            h = layer(h)
        return self.norm(h)


class CaptionedUNet(nn.Module):
    """U-Net with captions: ``net(x, c_noise, cond)``, ``cond`` (B, length) integers as `CaptionEncoder` takes them.

    The text encoder is trained with the U-Net. None and the empty caption, all padding, stand for no condition.
    ``unet`` are arguments of `UNet`; its levels with ``attention`` attend to the words.
    """

    classes = None

    def __init__(self, words: int, length: int, *, width: int = 64, layers: int = 2, **unet: Any):
        super().__init__()
        self.config = dict(words=words, length=length, width=width, layers=layers, **unet)
        self.text = CaptionEncoder(words, length, width=width, layers=layers)
        self.unet = UNet(context=width, **unet)
        self.channels, self.multiple = self.unet.channels, self.unet.multiple

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        if cond is None:
            cond = torch.zeros(len(x), self.text.length, dtype=torch.int64, device=x.device)
        return self.unet(x, c_noise, self.text(cond))
