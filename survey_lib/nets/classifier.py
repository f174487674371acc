"""A small convolutional classifier; its last hidden layer is the feature space of the course's metrics."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


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
