"""Networks of Frido (Fan et al. 2022): an autoencoder with codes at two scales, and one U-Net for both scales."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from survey_lib.nets.autoencoder import Autoencoder, Block, Codebook
from survey_lib.nets.captioned import CaptionedUNet
from survey_lib.nets.layers import check_images
from survey_lib.nets.unet import UNet


class PyramidAutoencoder(nn.Module):
    """Autoencoder with codes at two scales (MS-VQGAN, Fan et al. 2022, sec. 3.1): coarse at 1/8, fine at 1/4 of a side.

    Both scales are read off one encoder and meet in one decoder. Every latent is replaced by the nearest of ``codes``
    vectors of its scale. Latents that `encode` returns and `decode` takes are not quantised, and in units in which
    every channel has mean 0 and standard deviation ``SCALE`` over the codes that are in use.

    Images (B, C, H, W) in [-1, 1], sides multiples of 8 -> (B, dims, H / 8, W / 8) and (B, dims, H / 4, W / 4).
    """

    SCALE = 0.5  # the course's sigma_data
    FACTORS = (8, 4)

    def __init__(self, channels: int = 3, *, width: int = 24, dims: int = 4, codes: int = 1024):
        super().__init__()
        self.config = dict(channels=channels, width=width, dims=dims, codes=codes)
        self.channels = channels
        one_scale = Autoencoder(channels, width=width, halvings=2, dims=dims, codes=None)
        fine, coarse = 2 * width, 4 * width
        self.trunk, self.to_fine = one_scale.encoder[:-3], one_scale.encoder[-3:]
        self.to_coarse = nn.Sequential(
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1), Block(coarse), Block(coarse),
            nn.GroupNorm(1, coarse), nn.SiLU(), nn.Conv2d(coarse, dims, 1),
        )  # fmt: skip
        self.from_coarse = nn.Sequential(
            nn.Conv2d(dims, coarse, 3, padding=1), Block(coarse), Block(coarse),
            nn.Upsample(scale_factor=2), nn.Conv2d(coarse, fine, 3, padding=1),
        )  # fmt: skip
        self.from_fine, self.decoder = one_scale.decoder[0], one_scale.decoder[1:]
        self.books = nn.ModuleList(Codebook(codes, dims) for _ in self.FACTORS)

    def latents(self, x: Tensor) -> list[Tensor]:
        """Coarse and fine latents of images before quantisation, in the units of the codes."""
        check_images(x, self.channels, self.FACTORS[0], "autoencoder")
        h = self.trunk(x)
        return [self.to_coarse(h), self.to_fine(h)]

    def images(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Images of quantised latents, in the units of the codes; zeros in ``fine`` stand for no fine codes."""
        return self.decoder(self.from_coarse(coarse) + self.from_fine(fine))

    def nearest(self, z: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        """The nearest codes (B, dims, h, w) in their own units, and their indices (B, h, w); scale 0 is coarse."""
        book = self._book(scale)
        index = book.nearest(rearrange(z, "b d h w -> b h w d"))
        return rearrange(book.vectors[index], "b h w d -> b d h w").to(z.dtype), index

    def encode(self, x: Tensor) -> list[Tensor]:
        """Coarse and fine latents of images, normalised and not quantised."""
        return [self._normalised(z, scale) for scale, z in enumerate(self.latents(x))]

    def snap(self, z: Tensor, scale: int) -> Tensor:
        """Replace normalised latents by the nearest codes, in normalised units too."""
        return self._normalised(self._quantised(z, scale), scale)

    def decode(self, coarse: Tensor, fine: Tensor | None = None) -> Tensor:
        """Quantise and decode normalised latents; without ``fine`` the picture that the coarse codes alone carry."""
        plan = self._quantised(coarse, 0)
        strokes = F.interpolate(torch.zeros_like(plan), scale_factor=2.0) if fine is None else self._quantised(fine, 1)
        return self.images(plan, strokes)

    def forward(self, x: Tensor) -> Tensor:
        return self.images(*(self.nearest(z, scale)[0] for scale, z in enumerate(self.latents(x))))

    def _normalised(self, z: Tensor, scale: int) -> Tensor:
        mean, std = self._units(scale)
        return (z - mean) * (self.SCALE / std)

    def _quantised(self, z: Tensor, scale: int) -> Tensor:
        """The nearest codes of normalised latents, in the units of the codes."""
        mean, std = self._units(scale)
        return self.nearest(z * (std / self.SCALE) + mean, scale)[0]

    def _book(self, scale: int) -> Codebook:
        return cast(Codebook, self.books[scale])

    def _units(self, scale: int) -> tuple[Tensor, Tensor]:
        """Mean and deviation (dims, 1, 1) of the codes of a scale, weighted by their use."""
        book = self._book(scale)
        share = book.usage / book.usage.sum().clamp_min(1e-12)
        mean = share @ book.vectors
        variance = share @ (book.vectors - mean).square()
        return mean[:, None, None], variance.clamp_min(1e-12).sqrt()[:, None, None]


class PyramidUNet(nn.Module):
    """One U-Net for all scales of a pyramid (PyU-Net, Fan et al. 2022, sec. 3.2): ``net(x, c_noise, cond)``.

    Its convolutions serve every size. Beside the noised latents they see the coarser latents, enlarged, and in one more
    channel the scale, 0 at the coarsest.

    ``cond``: the triple (scale, coarse, told). ``coarse`` (B, dims, h / 2, w / 2) is None at scale 0. ``told`` is the
    condition of the U-Net: an image, which is averaged down to the size of x, or captions with ``text``, the arguments
    of a `CaptionedUNet`. x (B, dims, h, w), c_noise (B,) -> (B, dims, h, w). ``unet`` are arguments of `UNet`.
    """

    classes = None

    def __init__(self, dims: int = 4, *, text: Mapping[str, int] | None = None, **unet: Any):
        super().__init__()
        self.config = dict(dims=dims, text=None if text is None else dict(text), **unet)
        inputs = 2 * dims + 1
        self.unet = UNet(inputs, **unet) if text is None else CaptionedUNet(**text, channels=inputs, **unet)
        self.channels, self.multiple = dims, self.unet.multiple

    def forward(self, x: Tensor, c_noise: Tensor, cond: tuple[int, Tensor | None, Tensor | None]) -> Tensor:
        scale, coarse, told = cond
        plan = torch.zeros_like(x) if coarse is None else F.interpolate(coarse, size=x.shape[-2:]).to(x.dtype)
        which = x.new_full((len(x), 1, *x.shape[2:]), float(scale))
        if told is not None and told.ndim == 4 and told.shape[2:] != x.shape[2:]:
            told = F.adaptive_avg_pool2d(told, (x.shape[2], x.shape[3]))
        return self.unet(torch.cat([x, plan, which], 1), c_noise, told)[:, : self.channels]


class SeparateUNets(nn.Module):
    """One `PyramidUNet` a scale, called as one of them is: what Frido saves by sharing."""

    classes = None

    def __init__(self, dims: int = 4, *, scales: int = 2, **unet: Any):
        super().__init__()
        self.config = dict(dims=dims, scales=scales, **unet)
        self.nets = nn.ModuleList(PyramidUNet(dims, **unet) for _ in range(scales))
        self.channels, self.multiple = dims, self.nets[0].multiple

    def forward(self, x: Tensor, c_noise: Tensor, cond: tuple[int, Tensor | None, Tensor | None]) -> Tensor:
        return self.nets[cond[0]](x, c_noise, cond)
