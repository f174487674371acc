"""A detector: which objects an image shows, and where."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from survey_lib.nets.autoencoder import Block
from survey_lib.nets.layers import check_images


class Finder(nn.Module):
    """Detector with a cell for each square of ``cell`` pixels (CenterNet, Zhou et al. 2019): (B, C, H, W) -> logits.

    A cell answers for the object whose centre lies in it. Its logits are whether there is an object, the object's
    height and width as parts of the image, and a group for each of several labels: (B, 3 + sum(heads), H / cell,
    W / cell). H and W must be multiples of ``2 * cell``.
    """

    def __init__(
        self, channels: int = 3, heads: Sequence[int] = (10,), *, widths: Sequence[int] = (48, 96), cell: int = 4
    ):
        super().__init__()
        self.config = dict(channels=channels, heads=tuple(heads), widths=tuple(widths), cell=cell)
        self.channels, self.heads, self.cell = channels, tuple(heads), cell
        fine, coarse = widths
        self.enter = nn.Sequential(nn.PixelUnshuffle(cell), nn.Conv2d(channels * cell**2, fine, 3, padding=1))
        self.near = nn.Sequential(Block(fine), Block(fine))
        self.far = nn.Sequential(
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1), Block(coarse), Block(coarse), nn.Conv2d(coarse, fine, 1)
        )
        self.leave = nn.Sequential(Block(fine), nn.GroupNorm(1, fine), nn.SiLU(), nn.Conv2d(fine, 3 + sum(heads), 1))

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, self.channels, 2 * self.cell, "finder")
        h = self.near(self.enter(x))
        return self.leave(h + F.interpolate(self.far(h), scale_factor=2.0))

    @torch.no_grad()
    def find(self, x: Tensor, most: int = 8, threshold: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
        """The ``most`` likeliest objects: which are there (B, most), boxes (B, most, 4), labels (B, most, heads).

        An object is the likeliest of 5 x 5 cells, with a probability of at least ``threshold``. A box is its
        centre (x, y), to a cell, its width and its height, as parts of the image.
        """
        logits = self(x).float()
        score, size, labels = logits[:, 0], logits[:, 1:3], logits[:, 3:].split(self.heads, 1)
        peak = score == F.max_pool2d(score, 5, stride=1, padding=2)  # of logits: sigmoids near 1 would tie
        value, place = score.sigmoid().mul(peak).flatten(1).topk(most)  # (B, most)
        rows, columns = score.shape[1:]
        centre = torch.stack([(place % columns + 0.5) / columns, (place // columns + 0.5) / rows], 2)
        found = torch.stack([group.argmax(1) for group in labels], 1)  # (B, heads, rows, columns)

        def at(maps: Tensor) -> Tensor:
            return maps.flatten(2).gather(2, place[:, None].expand(-1, maps.shape[1], -1)).mT

        return value >= threshold, torch.cat([centre, at(size)], 2), at(found)
