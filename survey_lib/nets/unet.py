"""A small U-Net on patches of the image."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from survey_lib.nets.encoder import downsampling, encode
from survey_lib.nets.layers import (
    CrossAttention,
    LabelEmbedding,
    NoiseEmbedding,
    ResidualBlock,
    SelfAttention,
    check_images,
    concatenated,
    zeroed,
)


class UNet(nn.Module):
    """U-Net in DDPM's form (Ronneberger et al. 2015; Ho et al. 2020): ``net(x, c_noise, cond)`` -> (B, C, H, W).

    The image is folded into patches (space to depth, Luhman & Luhman 2022): with ``patch=2`` every convolution sees a
    quarter of the positions. Then ``len(widths)`` levels, each half as large as the last, with ``blocks`` residual
    blocks on the way down, ``middle`` at the bottom, and ``blocks`` on the way up, each joined to its twin on the way
    down. Blocks at the bottom see the whole image and are cheap. The last layer is initialised to zero, so that a new
    network predicts 0.

    classes: number of labels. ``cond`` (B,) then holds labels; ``classes`` itself, or None, stands for "no label".
    cond_channels: channels of an image that conditions by concatenation: a previous prediction (self-conditioning), an
        image at lower resolution, a mask. ``cond`` is then (B, cond_channels, H, W), and None stands for zeros.
    attention: the levels (0 is the finest) with self-attention.
    context: size of the tokens to which these levels attend as well (LDM, sec. 3.3). ``cond`` is then (B, L, context),
        and None stands for no token.

    Shapes: x (B, C, H, W), c_noise (B,). Height and width must be multiples of ``patch * 2 ** (len(widths) - 1)``.
    Raises ValueError for other images, and for invalid conditions.
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
        cond_channels: int | None = None,
        attention: Collection[int] = (),
        context: int | None = None,
        embedding: int = 64,
    ):
        super().__init__()
        self.config = dict(
            channels=channels, widths=tuple(widths), blocks=blocks, middle=middle, patch=patch, classes=classes,
            cond_channels=cond_channels, attention=tuple(attention), context=context, embedding=embedding,
        )  # fmt: skip
        if not set(attention) <= set(range(len(widths))):
            raise ValueError(f"attention must name levels 0 to {len(widths) - 1}; got {sorted(attention)}")
        if sum(kind is not None for kind in (classes, cond_channels, context)) > 1:
            raise ValueError("a U-Net is conditioned by one of classes, cond_channels and context, not by several")
        if context is not None and not attention:
            raise ValueError("context needs levels with attention, such as attention=(1,)")
        self.channels, self.cond_channels, self.classes, self.patch = channels, cond_channels, classes, patch
        self.context = context
        self.multiple = patch * 2 ** (len(widths) - 1)
        self.noise = NoiseEmbedding(embedding)
        self.label = None if classes is None else LabelEmbedding(classes, embedding)

        def block(level: int, inputs: int) -> _Block:
            return _Block(inputs, widths[level], embedding, attention=level in attention, context=context)

        coarsest, inputs = len(widths) - 1, channels + (cond_channels or 0)
        self.enter, shrink, self.down = downsampling(
            inputs, widths, patch, blocks, lambda level: block(level, widths[level])
        )
        self.up, self.shrink, self.grow = nn.ModuleList(), shrink, nn.ModuleList()
        self.middle = nn.ModuleList(block(coarsest, widths[-1]) for _ in range(middle))
        for level in reversed(range(len(widths))):
            self.grow.append(nn.Identity() if level == coarsest else nn.Conv2d(widths[level + 1], widths[level], 1))
            self.up.append(nn.ModuleList(block(level, 2 * widths[level]) for _ in range(blocks)))
        # It predicts the condition's channels too, which `forward` drops: the shipped weights have them.
        self.norm = nn.GroupNorm(1, widths[0])
        self.leave = zeroed(nn.Conv2d(widths[0], inputs * patch**2, 3, padding=1))

    def features(self, c_noise: Tensor, cond: Tensor | None) -> Tensor:
        """Sum of the embeddings of noise level and label: (B, embedding)."""
        e = self.noise(c_noise)
        if self.label is not None:
            e = e + self.label(cond, len(c_noise))
        elif cond is not None:
            raise ValueError("this U-Net was built without classes, cond_channels or context, so cond must be None")
        return e

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        check_images(x, self.channels, self.multiple, "U-Net")
        if self.cond_channels is not None:
            x, cond = concatenated(x, cond, self.cond_channels), None
        context = None
        if self.context is not None:
            context, cond = cond, None
            if context is not None and (context.ndim != 3 or context.shape[::2] != (len(x), self.context)):
                raise ValueError(f"cond must be tokens ({len(x)}, L, {self.context}); got {tuple(context.shape)}")
        e = F.silu(self.features(c_noise, cond))
        given = (e,) if context is None else (e, context)
        h, skips = encode(x, given, self.patch, self.enter, self.shrink, self.down)
        for block in self.middle:
            h = block(h, *given)
        for index, (grow, blocks) in enumerate(zip(self.grow, self.up, strict=True)):
            if index:
                h = F.interpolate(grow(h), scale_factor=2.0, mode="nearest")
            for block in blocks.children():
                h = block(torch.cat([h, skips.pop()], dim=1), *given)
        return F.pixel_shuffle(self.leave(F.silu(self.norm(h))), self.patch)[:, : self.channels]


class _Block(nn.ModuleList):
    """A residual block, followed by self-attention where the level has it, and by attention to the context."""

    def __init__(self, inputs: int, outputs: int, embedding: int, *, attention: bool, context: int | None):
        # Attention is made even where it is not used: the initial weights for a seed depend on its random numbers.
        super().__init__([ResidualBlock(inputs, outputs, embedding)] + [SelfAttention(outputs)] * attention)
        if attention and context is not None:
            self.append(CrossAttention(outputs, context))

    def forward(self, h: Tensor, e: Tensor, context: Tensor | None = None) -> Tensor:
        block, *attention = self
        h = block(h, e)
        for attend in attention:
            if isinstance(attend, SelfAttention):
                h = attend(h)
            elif context is not None:
                h = attend(h, context)
        return h
