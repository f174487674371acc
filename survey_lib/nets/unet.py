"""A small U-Net that works on patches: cheap where images are large, and deep where they are small."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from survey_lib.nets.layers import LabelEmbedding, NoiseEmbedding, ResidualBlock, SelfAttention


class UNet(nn.Module):
    """``net(x, c_noise, cond)``, (B, C, H, W), (B,) -> (B, C, H, W): Ronneberger et al. 2015 in DDPM's form.

    The image is first folded into patches (space to depth, Luhman & Luhman 2022): with ``patch=2`` every
    convolution sees a quarter of the places. Then ``len(widths)`` levels, each half as large as the last,
    with ``blocks`` residual blocks on the way down, ``middle`` at the bottom, and ``blocks`` on the way up, each
    joined to its twin on the way down. The bottom is where a picture is decided as a whole, and where a block is cheap.

    ``classes``: number of labels; ``cond`` is then (B,) of integers, and ``classes`` itself (or None)
    stands for "no label". ``attention``: the levels (0 the finest) that attend to the whole map.
    Height and width are multiples of ``patch * 2 ** (len(widths) - 1)``. Raises ValueError for other images, and
    for labels that are none. The last layer starts at zero, so a new network answers 0.
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        widths: Sequence[int] = (32, 64),
        blocks: int = 1,
        middle: int = 1,
        patch: int = 2,
        classes: int | None = None,
        attention: Collection[int] = (),
        embedding: int = 64,
    ):
        super().__init__()
        self.config = dict(
            channels=channels, widths=tuple(widths), blocks=blocks, middle=middle, patch=patch, classes=classes,
            attention=tuple(attention), embedding=embedding,
        )  # fmt: skip
        if not set(attention) <= set(range(len(widths))):
            raise ValueError(f"attention names levels 0 to {len(widths) - 1}; got {sorted(attention)}")
        self.channels, self.patch, self.classes = channels, patch, classes
        self.noise = NoiseEmbedding(embedding)
        self.label = None if classes is None else LabelEmbedding(classes, embedding)

        def level(index: int, inputs: int) -> nn.ModuleList:
            parts: list[nn.Module] = [ResidualBlock(inputs, widths[index], embedding)]
            return nn.ModuleList(parts + [SelfAttention(widths[index])] * (index in attention))

        self.enter = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)
        self.down, self.up, self.shrink, self.grow = nn.ModuleList(), nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for index, width in enumerate(widths):
            self.shrink.append(nn.Conv2d(widths[index - 1], width, 3, stride=2, padding=1) if index else nn.Identity())
            self.down.append(nn.ModuleList(level(index, width) for _ in range(blocks)))
        self.middle = nn.ModuleList(level(len(widths) - 1, widths[-1]) for _ in range(middle))
        for index in reversed(range(len(widths))):
            coarsest = index == len(widths) - 1
            self.grow.append(nn.Identity() if coarsest else nn.Conv2d(widths[index + 1], widths[index], 1))
            self.up.append(nn.ModuleList(level(index, 2 * widths[index]) for _ in range(blocks)))
        self.norm, self.leave = nn.GroupNorm(1, widths[0]), nn.Conv2d(widths[0], channels * patch**2, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def embed(self, c_noise: Tensor, cond: Tensor | None) -> Tensor:
        """Noise level and label as one vector an example: (B, embedding)."""
        e = self.noise(c_noise)
        if self.label is not None:
            e = e + self.label(cond, len(c_noise))
        elif cond is not None:
            raise ValueError("this U-Net was built without classes, so cond must be None")
        return F.silu(e)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        multiple = self.patch * 2 ** (len(self.down) - 1)
        if x.ndim != 4 or x.shape[1] != self.channels or x.shape[2] % multiple or x.shape[3] % multiple:
            raise ValueError(
                f"this U-Net takes images (B, {self.channels}, H, W) with H and W multiples of {multiple}; "
                f"got {tuple(x.shape)}"
            )
        e = self.embed(c_noise, cond)
        h = self.enter(F.pixel_unshuffle(x, self.patch))  # (B, C p^2, H / p, W / p)
        skips = []
        for shrink, blocks in zip(self.shrink, self.down, strict=True):
            h = shrink(h)
            for block in blocks:
                h = _run(block, h, e)
                skips.append(h)
        for block in self.middle:
            h = _run(block, h, e)
        for index, (grow, blocks) in enumerate(zip(self.grow, self.up, strict=True)):
            if index:
                h = F.interpolate(grow(h), scale_factor=2.0, mode="nearest")
            for block in blocks:
                h = _run(block, torch.cat([h, skips.pop()], dim=1), e)
        return F.pixel_shuffle(self.leave(F.silu(self.norm(h))), self.patch)


def _run(parts: nn.ModuleList, h: Tensor, e: Tensor) -> Tensor:
    """A residual block that knows the embedding, and perhaps attention after it."""
    block, *attention = parts
    h = block(h, e)
    for attend in attention:
        h = attend(h)
    return h
