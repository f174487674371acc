"""A schedule for every spatial frequency: heat dissipation, blurring and soft diffusion in one corruption.

In the basis of cosines (DCT) a blur multiplies each coefficient by a number, and white noise stays white. So blur and
noise together are Gaussian diffusion with scales ``alpha(t, f)`` and ``sigma(t, f)``, coefficient by coefficient
(Hoogeboom & Salimans 2023, sec. 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.checks import check_step, check_time
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.protocols import BridgeOverride, expand, normal_like
from survey_lib.core.schedules import Schedule
from survey_lib.process.noise.coordinates import InCoordinates

_LEAST = 1e-150  # of the factor of a blur, so that its logarithm is finite


def dct(images: Tensor) -> Tensor:
    """Coefficients of images (..., H, W) in the orthonormal basis of cosines (DCT-II)."""
    return _basis(images.shape[-2], images) @ images @ _basis(images.shape[-1], images).mT


def undct(coefficients: Tensor) -> Tensor:
    """Images of coefficients, the inverse of `dct`."""
    down, across = (_basis(n, coefficients) for n in coefficients.shape[-2:])
    return down.mT @ coefficients @ across


def _basis(size: int, like: Tensor) -> Tensor:
    return _cosines(size).to(like.device, like.dtype)


@cache
def _cosines(size: int) -> Tensor:
    """The cosines as rows, (size, size)."""
    k, x = torch.arange(size, dtype=torch.float64)[:, None], torch.arange(size, dtype=torch.float64) + 0.5
    rows = torch.cos(math.pi / size * k * x) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows


def heat_blur(side: int, widths: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The factor of each coefficient after a Gaussian blur of ``widths(t)`` pixels: () or (B,) -> (..., 1, side, side).

    It solves the heat equation with insulated edges for the time ``width^2 / 2`` (IHDM, Rissanen et al. 2023).
    """
    k = torch.arange(side, dtype=torch.float64) * math.pi / side
    square = k[:, None] ** 2 + k**2

    def factor(t: Tensor) -> Tensor:
        return torch.exp(-(widths(t)[..., None, None, None] ** 2) / 2 * square.to(t.device))

    return factor


@dataclass(frozen=True)
class Frequencies:
    """A schedule of every coefficient, for `Gaussian`: ``alpha = alpha_of(t) factor(t)`` and ``sigma = sigma_of(t)``.

    schedule: of a frequency that is not blurred. Blurring diffusion takes the cosine schedule, soft diffusion one with
        little noise, IHDM a constant small sigma with alpha 1.
    factor: of each coefficient, as `heat_blur` makes it; it does not rise with t.
    """

    schedule: Schedule
    factor: Callable[[Tensor], Tensor]

    def scales(self, t: Tensor | float, like: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``sigma`` in float64, (B or 1, 1, H, W); with ``like``, in its dtype and on its device."""
        t = check_time(t)
        alpha, sigma = (scale.reshape(-1, 1, 1, 1) for scale in self.schedule.scales(t))
        factor = self.factor(t.reshape(-1)).clamp_min(_LEAST)
        scales = alpha * factor, sigma.expand(factor.shape)
        return scales if like is None else tuple(expand(scale, like) for scale in scales)

    def lam(self, t: Tensor | float) -> Tensor:
        """``log(alpha / sigma)`` of every coefficient, as of a `Schedule`."""
        alpha, sigma = self.scales(t)
        return alpha.log() - sigma.log()


@dataclass(frozen=True)
class ByFrequency(InCoordinates):
    """Gaussian diffusion of images with a schedule for each coefficient, and DDIM's bridges (`Gaussian`).

    eta: fraction of new noise, from 0 to 1, the posterior of the Markov chain with these marginals.
    """

    frequencies: Frequencies
    eta: float = 1.0
    corruption: Gaussian = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "corruption", Gaussian(self.frequencies, self.eta))

    def there(self, x: Tensor) -> Tensor:
        """The coefficients of images (B, C, H, W)."""
        return dct(x)

    def back(self, z: Tensor) -> Tensor:
        """The images of coefficients."""
        return undct(z)


@dataclass(frozen=True)
class Kept(BridgeOverride):
    """Bridges of a blur with noise that differ in how much of the noise stays: ``C_s x0 + k (x_t - C_t x0) + new``.

    ``C_t`` is the blur with its alpha, and ``k = (sigma_s / sigma_t)^power``. New noise makes the variance up to
    ``sigma_s^2``, so each bridge has the marginals of the corruption. ``power`` 1 adds none: DDIM's step, and under a
    constant sigma cold diffusion's. 2 has the form of soft diffusion's momentum sampler (Daras et al. 2023). Infinity
    stands for k = 0, the naive step, and IHDM's.

    new: factor of the new noise. IHDM takes ``delta / sigma``, a little above 1 (Rissanen et al. 2023, sec. 3.3).
    """

    corruption: ByFrequency
    power: float = 2.0
    new: float = 1.0

    def __post_init__(self) -> None:
        if not self.power >= 1 or not self.new >= 0:
            raise ValueError(f"power is at least 1 and new not negative; got {self.power:g} and {self.new:g}")

    def bridge(self, x_t: Tensor, x0: Tensor, t: Any, s: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_s`` from ``x_t`` and x0."""
        t, s = check_step(t, s)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = (self.corruption.frequencies.scales(at, like=x_t) for at in (t, s))
        clean, kept = dct(x0), 0.0 if math.isinf(self.power) else (sigma_s / sigma_t) ** self.power
        mean = undct(alpha_s * clean + kept * (dct(x_t) - alpha_t * clean))
        width = (sigma_s**2 - (kept * sigma_t) ** 2).clamp_min(0).sqrt() * self.new
        return mean + undct(width * normal_like(x_t, generator)) if width.any() else mean
