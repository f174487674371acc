"""A multilayer perceptron for points in the plane and other small vectors."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from survey_lib.nets.layers import LabelEmbedding, NoiseEmbedding


class MLP(nn.Module):
    """Residual layers scaled by the noise level: ``net(x, c_noise, cond)``, (B, dims), (B,) -> (B, dims).

    classes: number of labels. ``cond`` (B,) then holds labels; ``classes`` itself, or None, stands for "no label".

    Raises ValueError for points of another dimension, and for invalid labels.
    """

    def __init__(self, dims: int, *, width: int = 128, layers: int = 3, classes: int | None = None):
        super().__init__()
        self.config = dict(dims=dims, width=width, layers=layers, classes=classes)
        self.dims, self.classes = dims, classes
        self.noise = NoiseEmbedding(width)
        self.label = None if classes is None else LabelEmbedding(classes, width)
        self.enter, self.leave = nn.Linear(dims, width), nn.Linear(width, dims)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.scales = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.dims:
            raise ValueError(f"this network takes points of shape (B, {self.dims}); got {tuple(x.shape)}")
        e = self.noise(c_noise)
        if self.label is not None:
            e = e + self.label(cond, len(x))
        elif cond is not None:
            raise ValueError("this network was built without classes, so cond must be None")
        h = self.enter(x)
        for layer, scale in zip(self.layers, self.scales, strict=True):
            h = h + layer(F.silu(h * (1 + scale(F.silu(e)))))
        return self.leave(F.silu(h))
