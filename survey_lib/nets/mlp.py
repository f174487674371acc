"""A multilayer perceptron for points in the plane and other small vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from survey_lib.nets.layers import NoiseEmbedding


class MLP(nn.Module):
    """``net(x, c_noise, cond)``, (B, dims) -> (B, dims): residual layers, scaled by the noise level.

    ``classes``: number of labels; ``cond`` is then (B,) of integers, and ``classes`` itself (or None)
    stands for "no label".
    """

    def __init__(self, dims: int, *, width: int = 128, layers: int = 3, classes: int | None = None):
        super().__init__()
        self.config = dict(dims=dims, width=width, layers=layers, classes=classes)
        self.classes = classes
        self.noise = NoiseEmbedding(width)
        self.label = None if classes is None else nn.Embedding(classes + 1, width)
        self.enter, self.leave = nn.Linear(dims, width), nn.Linear(width, dims)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.scales = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        e = self.noise(c_noise)
        if self.label is not None:
            e = e + self.label(torch.full(c_noise.shape, self.classes, device=x.device) if cond is None else cond)
        elif cond is not None:
            raise ValueError("this network was built without classes, so cond must be None")
        h = self.enter(x)
        for layer, scale in zip(self.layers, self.scales, strict=True):
            h = h + layer(F.silu(h * (1 + scale(F.silu(e)))))
        return self.leave(F.silu(h))
