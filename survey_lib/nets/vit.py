"""A transformer over patches of the image, with the long skip connections of a U-Net."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from survey_lib.nets.layers import (
    LabelEmbedding,
    NoiseEmbedding,
    check_images,
    concatenated,
    position_features,
    zeroed,
)
from survey_lib.nets.transformer import Layer


class UViT(nn.Module):
    """U-ViT (Bao et al. 2023, fig. 1): ``net(x, c_noise, cond)`` -> (B, C, H, W).

    Noise level, label and patches are tokens of one transformer. Its ``layers``, an odd number, are a shallow half, a
    middle layer and a deep half. The i-th layer from the end takes ``linear(concat(h, skip))``, where ``h`` is the
    output of the layer before it and ``skip`` that of the i-th layer. The tokens become pixels again, and a 3 x 3
    convolution smooths the edges of the patches. It is initialised to zero, so that a new network predicts 0.

    Positions enter as sines and cosines of the place in the image (the paper learns one vector for each), so that one
    network serves images of every size.

    classes: number of labels. ``cond`` (B,) then holds labels; ``classes`` itself, or None, stands for "no label".
    cond_channels: channels of an image that conditions by concatenation. ``cond`` is then (B, cond_channels, H, W), and
        None stands for zeros.
    long_skips: without them a deep layer takes the output of the layer before it, as in a plain vision transformer.

    Shapes: x (B, C, H, W), c_noise (B,). Height and width must be multiples of ``patch``.
    Raises ValueError for other images, and for invalid conditions.
    """

    FREQUENCIES = (1, 2, 4, 8)  # half turns across the image

    def __init__(
        self,
        channels: int = 3,
        *,
        patch: int = 4,
        width: int = 128,
        layers: int = 5,
        heads: int = 4,
        classes: int | None = None,
        cond_channels: int | None = None,
        long_skips: bool = True,
    ):
        super().__init__()
        self.config = dict(
            channels=channels, patch=patch, width=width, layers=layers, heads=heads, classes=classes,
            cond_channels=cond_channels, long_skips=long_skips,
        )  # fmt: skip
        if layers % 2 == 0:
            raise ValueError(f"layers must be odd: two halves and a middle layer; got {layers}")
        if classes is not None and cond_channels is not None:
            raise ValueError("a U-ViT is conditioned by one of classes and cond_channels, not by both")
        self.channels, self.cond_channels, self.classes, self.patch = channels, cond_channels, classes, patch
        self.multiple = patch
        self.noise = NoiseEmbedding(width)
        self.label = None if classes is None else LabelEmbedding(classes, width)
        self.enter = nn.Conv2d(channels + (cond_channels or 0), width, patch, stride=patch)
        self.place = nn.Conv2d(4 * len(self.FREQUENCIES), width, 1)
        self.shallow = nn.ModuleList(Layer(width, heads, film=False) for _ in range(layers // 2))
        self.middle = Layer(width, heads, film=False)
        self.deep = nn.ModuleList(Layer(width, heads, film=False) for _ in range(layers // 2))
        self.norm, self.pixels = nn.LayerNorm(width), nn.Linear(width, channels * patch**2)
        self.leave = zeroed(nn.Conv2d(channels, channels, 3, padding=1))
        # Made last: for a seed, the other layers begin alike with and without long skips.
        self.join = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(layers // 2)) if long_skips else None

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        check_images(x, self.channels, self.multiple, "U-ViT")
        if self.cond_channels is not None:
            x, cond = concatenated(x, cond, self.cond_channels), None
        given, patches = self.conditions(c_noise, cond), self.enter(x)  # (B, 1 or 2, width), (B, width, rows, columns)
        patches = patches + self.place(position_features(patches, self.FREQUENCIES))
        h = self.transform(torch.cat([given, rearrange(patches, "b c y x -> b (y x) c")], dim=1))
        pixels = self.pixels(self.norm(h[:, given.shape[1] :]))
        pixels = rearrange(pixels, "b (y x) c -> b c y x", y=patches.shape[2])
        return self.leave(F.pixel_shuffle(pixels, self.patch))

    def conditions(self, c_noise: Tensor, cond: Tensor | None) -> Tensor:
        """Tokens of the noise level and, in a network with classes, of the label: (B, 1 or 2, width)."""
        tokens = [self.noise(c_noise)]
        if self.label is not None:
            tokens.append(self.label(cond, len(c_noise)))
        elif cond is not None:
            raise ValueError("this U-ViT was built without classes or cond_channels, so cond must be None")
        return torch.stack(tokens, dim=1)

    def transform(self, h: Tensor) -> Tensor:
        """Apply all layers, with their long skip connections, to tokens (B, L, width)."""
        skips = []
        for layer in self.shallow:
            h = layer(h)
            skips.append(h)
        h = self.middle(h)
        for index, layer in enumerate(self.deep):
            if self.join is not None:
                h = self.join[index](torch.cat([h, skips.pop()], dim=-1))
            h = layer(h)
        return h
