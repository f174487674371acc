"""Preconditioned Langevin dynamics for images (PDS, Ma et al. 2022): a step size for every frequency.

In the Fourier basis images are nearly uncorrelated, and their power falls steeply with the frequency. At a level u a
frequency of power p has variance ``p + u^2``, and a Langevin step of size ``rate u^2`` contracts its deviation by the
fraction ``rate/2 u^2 / (p + u^2)``: low frequencies converge far more slowly than high ones.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from survey_lib.core.exact import GaussianLaw


class Spectral(ABC):
    """A preconditioner that is diagonal in the Fourier basis: ``M z = F^-1 (gain * F z)``, real for real z."""

    @abstractmethod
    def gain(self, noise: float) -> Tensor:
        """The eigenvalues of M at the level ``noise = sigma / alpha``: (H, W) or (C, H, W)."""

    def __call__(self, z: Tensor, noise: float) -> Tensor:
        """``M z`` for images (B, C, H, W)."""
        gain = self.gain(noise).to(z)
        if z.ndim < 2 or z.shape[-gain.ndim :] != gain.shape:
            raise ValueError(f"this preconditioner takes images {tuple(gain.shape)}; got {tuple(z.shape)}")
        return torch.fft.ifft2(gain * torch.fft.fft2(z)).real


@dataclass(frozen=True, eq=False)
class Whitening(Spectral):
    """``M^2 = 1 + power / u^2``, with which all frequencies of a normal distribution of this spectrum mix equally fast.

    power: (H, W) or (C, H, W), as of `power_spectrum`. Frequencies without power keep the plain step.
    most: bound of ``M^2``. Images are not normal: at a small level their distribution is as narrow as the noise in all
        directions, and larger steps diverge. ``rate most < 4`` is stable.

    M depends on the level; the published M does not (`Filter`).
    """

    power: Tensor
    most: float = math.inf

    def __post_init__(self) -> None:
        _check_power(self.power)
        if not self.most >= 1:
            raise ValueError(f"most must be at least 1, the square of the plain gain; got {self.most:g}")

    def gain(self, noise: float) -> Tensor:
        return (1 + self.power.double() / noise**2).clamp_max(self.most).sqrt()


@dataclass(frozen=True, eq=False)
class Filter(Spectral):
    """The same M at every level, as in PDS. gains: (H, W) or (C, H, W), positive and equal at f and -f."""

    gains: Tensor

    def __post_init__(self) -> None:
        _check_power(self.gains)

    def gain(self, noise: float) -> Tensor:
        return self.gains

    @classmethod
    def published(cls, power: Tensor, alpha: float = 5.0) -> Filter:
        """The filter of the authors' released code, ``alpha / (log(1 + H W power / 4) + alpha - 1)``.

        Their spectrum is that of images in [0, 1], without normalisation, and its logarithm *divides*: low frequencies
        get smaller steps and noises, the reverse of whitening. It permits a larger ``rate`` for all frequencies.
        """
        return cls(alpha / (torch.log1p(power.double() * power.shape[-1] * power.shape[-2] / 4) + alpha - 1))

    @classmethod
    def logarithmic(cls, power: Tensor) -> Filter:
        """``log(1 + H W power)`` relative to its maximum: a mild whitening, the same at all levels.

        No gain exceeds 1: high frequencies are slowed down instead, and ``rate`` may be larger.
        """
        gains = torch.log1p(power.double() * power.shape[-1] * power.shape[-2])
        return cls(gains / gains.max())


def power_spectrum(images: Tensor) -> Tensor:
    """Mean square of each Fourier coefficient of ``images`` (N, C, H, W) after subtraction of their mean: (C, H, W).

    The transform is orthonormal, so the mean over frequencies is the mean variance of a pixel.
    """
    if images.ndim != 4 or len(images) < 2:
        raise ValueError(f"images must be (N, C, H, W) with N above 1; got {tuple(images.shape)}")
    x = images.double()
    return torch.fft.fft2(x - x.mean(0), norm="ortho").abs().square().mean(0)


def one_over_f(size: int, *, exponent: float = 2.0, variance: float = 0.25) -> Tensor:
    """Power spectrum of natural images, ``1 / f^exponent``: (size, size).

    f counts periods across the image; f = 0, the mean brightness, has the power of f = 1. ``variance`` is that of a
    pixel.
    """
    f = torch.fft.fftfreq(size, dtype=torch.float64) * size
    power = torch.hypot(f[:, None], f).clamp_min(1) ** -exponent
    return variance * power / power.mean()


def spectral_law(power: Tensor) -> GaussianLaw:
    """Normal distribution of images (1, H, W) with mean 0 and this spectrum: ``cov = F^-1 diag(power) F``.

    For small images: its covariance has ``(H W)^2`` entries.
    """
    _check_power(power)
    if power.ndim != 2:
        raise ValueError(f"power must be that of one channel, (H, W); got {tuple(power.shape)}")
    height, width = power.shape
    covariance = torch.fft.ifft2(power.double()).real  # of two pixels, by their distance
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    cov = covariance[(rows[:, None] - rows) % height, (columns[:, None] - columns) % width]
    return GaussianLaw(torch.zeros(1, height, width, dtype=torch.float64), (cov + cov.mT) / 2)


def contraction(power: Tensor, noise: float, rate: float, precondition: Spectral | None = None) -> Tensor:
    """Factor of a deviation after one Langevin step, by frequency: ``1 - rate/2 gain^2 u^2 / (power + u^2)``.

    Exact for `spectral_law` at the level ``noise = u``. A factor near 1 is slow, one below -1 diverges; about
    ``1 / -log|factor|`` steps reduce a deviation by a factor e.
    """
    gain = 1.0 if precondition is None else precondition.gain(noise)
    return 1 - rate / 2 * gain**2 * noise**2 / (power.double() + noise**2)


def _check_power(power: Tensor) -> None:
    if power.ndim not in (2, 3) or not (power >= 0).all():
        raise ValueError(f"a spectrum must be (H, W) or (C, H, W) and not negative; got {tuple(power.shape)}")
    mirrored = power.flip(-2, -1).roll((1, 1), (-2, -1))
    if not torch.allclose(power, mirrored, rtol=1e-6, atol=1e-9 * float(power.max())):
        raise ValueError("the spectrum of real images must be equal at f and -f")
