"""A small autoencoder: images to a map of latents, or to tokens of a codebook (VQ-VAE, van den Oord et al. 2017)."""

from __future__ import annotations

from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """``x + conv(silu(norm(conv(silu(norm(x))))))``; the last convolution starts at zero."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(1, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(1, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Codebook(nn.Module):
    """``codes`` vectors of ``dims`` numbers; a latent is replaced by the nearest one.

    The codes are no parameters: each follows the mean of the latents it stands for (`learn`), and one that stands
    for none is put where a latent is. So they learn whatever the rate of the network.
    """

    def __init__(self, codes: int, dims: int):
        super().__init__()
        self.register_buffer("vectors", torch.zeros(codes, dims))
        self.register_buffer("usage", torch.zeros(codes))  # latents a batch, a moving average

    def nearest(self, z: Tensor) -> Tensor:
        """Numbers of the nearest codes: (..., dims) -> (...) of int64."""
        return torch.cdist(z.float().flatten(0, -2), self.vectors).argmin(1).reshape(z.shape[:-1])

    @torch.no_grad()
    def learn(self, z: Tensor, index: Tensor, *, generator: torch.Generator, decay: float = 0.99) -> None:
        """Move the codes towards the latents ``z`` (N, dims) that chose them; revive those that hardly any chooses.

        ``usage`` and ``vectors`` are moving averages of counts and means (VQ-VAE, app. A.1). A code used less than
        a hundredth of its fair share jumps to a latent drawn from the batch: so all begin, and none stays dead.
        """
        z, fair = z.float().flatten(0, -2), index.numel() / len(self.vectors)
        chosen = F.one_hot(index.flatten(), len(self.vectors)).to(z)  # (N, codes)
        counts = chosen.sum(0)
        total = decay * self.usage + (1 - decay) * counts
        moved = decay * self.usage[:, None] * self.vectors + (1 - decay) * chosen.T @ z
        dead = total < 0.01 * fair
        anew = z[torch.randint(len(z), (len(self.vectors),), generator=generator, device=generator.device)]
        self.vectors.copy_(torch.where(dead[:, None], anew, moved / total.clamp_min(1e-9)[:, None]))
        self.usage.copy_(torch.where(dead, fair, total))


class Autoencoder(nn.Module):
    """Images (B, C, H, W) in [-1, 1] to latents (B, dims, H / 2^halvings, W / 2^halvings), and back.

    The first halving folds the image (space to depth), the others are convolutions of stride 2; ``width`` doubles
    at each of them. With ``codes`` latents are replaced by the nearest of so many vectors: an image is then a few
    integers, `tokens`. With None they are left as they are. ``forward`` is the image, encoded and decoded.
    """

    def __init__(self, channels: int = 3, *, width: int = 24, halvings: int = 2, dims: int = 8, codes: int | None = 64):
        super().__init__()
        self.config = dict(channels=channels, width=width, halvings=halvings, dims=dims, codes=codes)
        if halvings < 1:
            raise ValueError(f"an autoencoder halves the image at least once; got {halvings}")
        self.channels, self.halvings = channels, halvings
        widths = [width * 2**level for level in range(halvings)]
        down: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, width, 3, padding=1), Block(width)]
        up: list[nn.Module] = [nn.Conv2d(dims, widths[-1], 3, padding=1), Block(widths[-1])]
        for fine, coarse in pairwise(widths):
            down += [nn.Conv2d(fine, coarse, 3, stride=2, padding=1), Block(coarse)]
        for coarse, fine in pairwise(reversed(widths)):
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(coarse, fine, 3, padding=1), Block(fine)]
        down += [nn.GroupNorm(1, widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], dims, 1)]
        up += [nn.GroupNorm(1, width), nn.SiLU(), nn.Conv2d(width, 4 * channels, 3, padding=1), nn.PixelShuffle(2)]
        self.encoder, self.decoder = nn.Sequential(*down), nn.Sequential(*up)
        self.codebook = None if codes is None else Codebook(codes, dims)

    def encode(self, x: Tensor) -> Tensor:
        """Images to latents, before any codebook: (B, dims, h, w)."""
        multiple = 2**self.halvings
        if x.ndim != 4 or x.shape[1] != self.channels or x.shape[2] % multiple or x.shape[3] % multiple:
            raise ValueError(
                f"this autoencoder takes images (B, {self.channels}, H, W) with H and W multiples of {multiple}; "
                f"got {tuple(x.shape)}"
            )
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, dims, h, w) to images."""
        return self.decoder(z)

    def quantise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest codes in place of latents, (B, dims, h, w), and their numbers (B, h, w).

        Gradients pass straight through: what they say of the code is done to the latent (VQ-VAE, sec. 3.2).
        """
        index = self._codes().nearest(rearrange(z, "b d h w -> b h w d"))
        code = rearrange(self._codes().vectors[index], "b h w d -> b d h w").to(z.dtype)
        return z + (code - z).detach(), index

    def tokens(self, x: Tensor) -> Tensor:
        """Images to integers, row by row: (B, h w) of int64."""
        return self.quantise(self.encode(x))[1].flatten(1)

    def decode_tokens(self, tokens: Tensor, shape: tuple[int, int] | None = None) -> Tensor:
        """Integers (B, h w) to images; ``shape`` is (h, w), a square by default."""
        side = round(tokens.shape[1] ** 0.5)
        h, w = shape or (side, side)
        if h * w != tokens.shape[1]:
            raise ValueError(f"{tokens.shape[1]} tokens are no map of {h} x {w}: pass shape=(h, w)")
        return self.decode(rearrange(self._codes().vectors[tokens], "b (h w) d -> b d h w", h=h))

    def forward(self, x: Tensor) -> Tensor:
        z = self.encode(x)
        return self.decode(z if self.codebook is None else self.quantise(z)[0])

    def _codes(self) -> Codebook:
        if self.codebook is None:
            raise ValueError("this autoencoder has no codebook, so images have latents but no tokens: codes=64, say")
        return self.codebook
