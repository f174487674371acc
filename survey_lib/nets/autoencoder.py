"""Small autoencoders, with a codebook (VQ-VAE, van den Oord et al. 2017) or with a Gaussian posterior (VAE)."""

from __future__ import annotations

from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from survey_lib.nets.layers import check_images, zeroed


class Block(nn.Module):
    """Residual block ``x + conv(silu(norm(conv(silu(norm(x))))))``; the last convolution is initialised to zero.

    It is `layers.ResidualBlock` without an embedding, under the names by which the shipped weights are stored.
    """

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(1, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(1, width), nn.SiLU(), zeroed(nn.Conv2d(width, width, 3, padding=1)),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Codebook(nn.Module):
    """Codebook of ``codes`` vectors (dims,); a latent is replaced by the nearest vector.

    Codes are updated by EMA, not by gradients (`learn`); unused codes are re-initialised to a random latent of the
    batch.
    """

    vectors: Tensor
    usage: Tensor

    def __init__(self, codes: int, dims: int):
        super().__init__()
        self.register_buffer("vectors", torch.zeros(codes, dims))
        self.register_buffer("usage", torch.zeros(codes))  # moving average of the latents per batch

    def nearest(self, z: Tensor) -> Tensor:
        """Indices of the nearest codes: (..., dims) -> (...) of int64."""
        return torch.cdist(z.float().flatten(0, -2), self.vectors).argmin(1).reshape(z.shape[:-1])

    @torch.no_grad()
    def learn(self, z: Tensor, index: Tensor, *, generator: torch.Generator, decay: float = 0.99) -> None:
        """Update the codes from latents ``z`` (N, dims) and the ``index`` (N,) of their codes.

        ``usage`` and ``vectors`` are moving averages of counts and means (VQ-VAE, app. A.1). A code with less than a
        hundredth of the average usage is set to a random latent of the batch; all codes are initialised in this way.
        """
        z, average = z.float().flatten(0, -2), index.numel() / len(self.vectors)
        assigned = F.one_hot(index.flatten(), len(self.vectors)).to(z)  # (N, codes)
        counts = assigned.sum(0)
        total = decay * self.usage + (1 - decay) * counts
        moved = decay * self.usage[:, None] * self.vectors + (1 - decay) * assigned.T @ z
        dead = total < 0.01 * average
        random = z[torch.randint(len(z), (len(self.vectors),), generator=generator, device=generator.device)]
        self.vectors.copy_(torch.where(dead[:, None], random, moved / total.clamp_min(1e-9)[:, None]))
        self.usage.copy_(torch.where(dead, average, total))


class Autoencoder(nn.Module):
    """Autoencoder of images (B, C, H, W) in [-1, 1] with latents (B, dims, H / 2^halvings, W / 2^halvings).

    The first halving folds the image (space to depth), the others are convolutions of stride 2, at each of which
    ``width`` doubles. With ``codes`` each latent is replaced by the nearest vector of a `Codebook`, and an image is a
    sequence of integers (`tokens`); with None the latents are left unchanged. ``forward`` encodes and decodes.
    """

    def __init__(self, channels: int = 3, *, width: int = 24, halvings: int = 2, dims: int = 8, codes: int | None = 64):
        super().__init__()
        self.config = dict(channels=channels, width=width, halvings=halvings, dims=dims, codes=codes)
        if halvings < 1:
            raise ValueError(f"halvings must be at least 1; got {halvings}")
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
        """Encode images to latents before quantisation: (B, dims, h, w)."""
        check_images(x, self.channels, 2**self.halvings, "autoencoder")
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """Decode latents (B, dims, h, w) to images."""
        return self.decoder(z)

    def quantise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Replace latents by their nearest codes (B, dims, h, w); also return the indices (B, h, w).

        A straight-through estimator: the gradient of the code is passed to the latent (VQ-VAE, sec. 3.2).
        """
        index = self._codes().nearest(rearrange(z, "b d h w -> b h w d"))
        code = rearrange(self._codes().vectors[index], "b h w d -> b d h w").to(z.dtype)
        return z + (code - z).detach(), index

    def tokens(self, x: Tensor) -> Tensor:
        """Encode images to integers in raster order: (B, h w) of int64."""
        return self.quantise(self.encode(x))[1].flatten(1)

    def decode_tokens(self, tokens: Tensor, shape: tuple[int, int] | None = None) -> Tensor:
        """Decode integers (B, h w) to images; ``shape`` is (h, w), a square by default."""
        side = round(tokens.shape[1] ** 0.5)
        h, w = shape or (side, side)
        if h * w != tokens.shape[1]:
            raise ValueError(f"{tokens.shape[1]} tokens do not fill a map of {h} x {w}: pass shape=(h, w)")
        return self.decode(rearrange(self._codes().vectors[tokens], "b (h w) d -> b d h w", h=h))

    def forward(self, x: Tensor) -> Tensor:
        z = self.encode(x)
        return self.decode(z if self.codebook is None else self.quantise(z)[0])

    def _codes(self) -> Codebook:
        if self.codebook is None:
            raise ValueError("this autoencoder has no codebook, so images do not have tokens: pass codes=, such as 64")
        return self.codebook


class KLAutoencoder(Autoencoder):
    """Autoencoder whose encoder predicts a Gaussian over latents (VAE, Kingma & Welling 2014; LDM, sec. 3.1).

    `posterior` and `decoder` are in the latents' own units. `encode` and `decode` are in units in which every channel
    has mean 0 and standard deviation ``SCALE``, for a denoiser needs to know the variance of its data (LDM, app. G
    rescales likewise). Mean and deviation of the own units are moving averages that training keeps (`follow`).
    """

    SCALE = 0.5  # the course's sigma_data

    mean: Tensor
    square: Tensor

    def __init__(self, channels: int = 3, *, width: int = 24, halvings: int = 2, dims: int = 4):
        super().__init__(channels, width=width, halvings=halvings, dims=dims, codes=None)
        self.config = dict(channels=channels, width=width, halvings=halvings, dims=dims)
        self.dims = dims
        self.encoder[-1] = nn.Conv2d(width * 2 ** (halvings - 1), 2 * dims, 1)
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("square", torch.ones(dims))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latents of images, in their own units: (B, dims, h, w) each."""
        mean, log_variance = super().encode(x).chunk(2, dim=1)
        return mean, log_variance.clamp(-20.0, 10.0)

    @torch.no_grad()
    def follow(self, z: Tensor, decay: float = 0.99) -> None:
        """Update mean and mean square of each channel from latents (B, dims, h, w) in their own units."""
        z = z.float()
        self.mean.lerp_(z.mean((0, 2, 3)), 1 - decay)
        self.square.lerp_(z.square().mean((0, 2, 3)), 1 - decay)

    def encode(self, x: Tensor) -> Tensor:
        """The normalised mean of the latents of images: (B, dims, h, w)."""
        mean, deviation = self._units()
        return (self.posterior(x)[0] - mean) * (self.SCALE / deviation)

    def decode(self, z: Tensor) -> Tensor:
        """Decode normalised latents (B, dims, h, w) to images."""
        mean, deviation = self._units()
        return self.decoder(z * (deviation / self.SCALE) + mean)

    def _units(self) -> tuple[Tensor, Tensor]:
        deviation = (self.square - self.mean**2).clamp_min(1e-12).sqrt()
        return self.mean[:, None, None], deviation[:, None, None]


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """``KL(N(mean, variance) || N(0, I))``, a mean over the latents: (B,) in nats (Kingma & Welling 2014, app. B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).mean(1)


class Pixels(nn.Module):
    """The autoencoder that changes nothing: the space of pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """The images."""
        return x

    def encode(self, x: Tensor) -> Tensor:
        """The images."""
        return x

    def decode(self, z: Tensor) -> Tensor:
        """The images."""
        return z
