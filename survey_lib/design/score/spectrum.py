"""Preconditioned Langevin dynamics for images (PDS, Ma et al. 2022): every frequency at a pace of its own.

In the Fourier basis images are nearly uncorrelated and their power falls steeply with the frequency. At a level u a
frequency of power p has variance ``p + u^2``, and a Langevin step of size ``rate u^2`` moves it by the fraction
``rate/2 u^2 / (p + u^2)`` of the way: the coarse shape of an image hardly moves when its finest grain has long
settled.
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
            raise ValueError(f"this spectrum is of images {tuple(gain.shape)}; got {tuple(z.shape)}")
        return torch.fft.ifft2(gain * torch.fft.fft2(z)).real


@dataclass(frozen=True, eq=False)
class Whitening(Spectral):
    """``M^2 = 1 + power / u^2``: what makes all frequencies of a normal law with that spectrum mix at one pace.

    The finest grain, of no power, keeps the plain step, and on that law no frequency moves by more than ``rate / 2``.
    Images are not normal: near one of them, the law at a small level is as narrow as the noise in every direction,
    whatever the spectrum of all of them, and such a step runs away. ``most`` bounds ``M^2``; ``rate most < 4`` is safe.
    It changes with the level, where the published M is one and the same (`Filter`). power: (H, W) or (C, H, W), as of
    `power_spectrum`.
    """

    power: Tensor
    most: float = math.inf

    def __post_init__(self) -> None:
        _check_power(self.power)
        if not self.most >= 1:
            raise ValueError(f"the largest square of a gain is 1, the plain step's, or more; got {self.most:g}")

    def gain(self, noise: float) -> Tensor:
        return (1 + self.power.double() / noise**2).clamp_max(self.most).sqrt()


@dataclass(frozen=True, eq=False)
class Filter(Spectral):
    """One M at every level, as PDS has it. gains: (H, W) or (C, H, W), positive, the same at f and at -f."""

    gains: Tensor

    def __post_init__(self) -> None:
        _check_power(self.gains)

    def gain(self, noise: float) -> Tensor:
        return self.gains

    @classmethod
    def published(cls, power: Tensor, alpha: float = 5.0) -> Filter:
        """``alpha / (log(1 + H W power / 4) + alpha - 1)``, the filter in the code that its authors released.

        Their spectrum is of images in [0, 1], not normalised, and its logarithm *divides*: long waves get the smaller
        steps and the smaller noises, the reverse of what whitening does. What it buys is a larger ``rate`` for all.
        """
        return cls(alpha / (torch.log1p(power.double() * power.shape[-1] * power.shape[-2] / 4) + alpha - 1))

    @classmethod
    def logarithmic(cls, power: Tensor) -> Filter:
        """``log(1 + H W power)`` over its largest value: a mild whitening, one for all levels.

        No gain exceeds 1: it slows the fine grain down instead, and pays with a larger ``rate``.
        """
        gains = torch.log1p(power.double() * power.shape[-1] * power.shape[-2])
        return cls(gains / gains.max())


def power_spectrum(images: Tensor) -> Tensor:
    """The mean square of each Fourier coefficient of ``images`` (N, C, H, W) less their mean image: (C, H, W).

    The transform is orthonormal: the mean over frequencies is the mean variance of a pixel.
    """
    if images.ndim != 4 or len(images) < 2:
        raise ValueError(f"a spectrum is measured on images (N, C, H, W), N above 1; got {tuple(images.shape)}")
    x = images.double()
    return torch.fft.fft2(x - x.mean(0), norm="ortho").abs().square().mean(0)


def one_over_f(size: int, *, exponent: float = 2.0, variance: float = 0.25) -> Tensor:
    """The power of natural images, ``1 / f^exponent``, on a square of ``size`` pixels: (size, size).

    f counts periods across the image; the mean brightness, f = 0, is given the power of f = 1. ``variance`` is a
    pixel's.
    """
    f = torch.fft.fftfreq(size, dtype=torch.float64) * size
    power = torch.hypot(f[:, None], f).clamp_min(1) ** -exponent
    return variance * power / power.mean()


def spectral_law(power: Tensor) -> GaussianLaw:
    """The normal law on images (1, H, W) of mean 0 with this spectrum: ``cov = F^-1 diag(power) F``, shift-invariant.

    For small images: its covariance has ``(H W)^2`` numbers.
    """
    _check_power(power)
    if power.ndim != 2:
        raise ValueError(f"the power of one channel has shape (H, W); got {tuple(power.shape)}")
    height, width = power.shape
    covariance = torch.fft.ifft2(power.double()).real  # of two pixels, by how far apart they are
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    cov = covariance[(rows[:, None] - rows) % height, (columns[:, None] - columns) % width]
    return GaussianLaw(torch.zeros(1, height, width, dtype=torch.float64), (cov + cov.mT) / 2)


def contraction(power: Tensor, noise: float, rate: float, precondition: Spectral | None = None) -> Tensor:
    """What one Langevin step leaves of a deviation, by frequency: ``1 - rate/2 gain^2 u^2 / (power + u^2)``.

    Exact for the law of `spectral_law` at the level ``noise = u``. Near 1 is slow, below -1 runs away; about
    ``1 / -log|contraction|`` steps bring a deviation down by a factor e.
    """
    gain = 1.0 if precondition is None else precondition.gain(noise)
    return 1 - rate / 2 * gain**2 * noise**2 / (power.double() + noise**2)


def _check_power(power: Tensor) -> None:
    if power.ndim not in (2, 3) or not (power >= 0).all():
        raise ValueError(f"a spectrum is (H, W) or (C, H, W) and nowhere negative; got {tuple(power.shape)}")
    mirrored = power.flip(-2, -1).roll((1, 1), (-2, -1))
    if not torch.allclose(power, mirrored, rtol=1e-6, atol=1e-9 * float(power.max())):
        raise ValueError("the spectrum of real images is the same at f and at -f; this one is not")
