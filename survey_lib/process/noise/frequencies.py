"""A schedule for every spatial frequency: heat dissipation, blurring and soft diffusion in one corruption.

In the basis of cosines (DCT) a blur multiplies each coefficient by a number, and white noise stays white. So blur and
noise together are Gaussian diffusion with scales ``alpha(t, f)`` and ``sigma(t, f)``, coefficient by coefficient
(Hoogeboom & Salimans 2023, sec. 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from survey_lib.core.checks import check_floating, check_step, check_time
from survey_lib.core.protocols import normal, normal_like
from survey_lib.core.schedules import Schedule


def dct(images: Tensor) -> Tensor:
    """Coefficients of images (..., H, W) in the orthonormal basis of cosines (DCT-II)."""
    return _basis(images.shape[-2], images) @ images @ _basis(images.shape[-1], images).mT


def undct(coefficients: Tensor) -> Tensor:
    """Images of coefficients, the inverse of `dct`."""
    down, across = (_basis(n, coefficients) for n in coefficients.shape[-2:])
    return down.mT @ coefficients @ across


def _basis(size: int, like: Tensor) -> Tensor:
    """The cosines as rows, (size, size)."""
    k, x = torch.arange(size, dtype=torch.float64)[:, None], torch.arange(size, dtype=torch.float64) + 0.5
    rows = torch.cos(math.pi / size * k * x) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows.to(like.device, like.dtype)


def heat_blur(side: int, widths: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The factor of each coefficient after a Gaussian blur of ``widths(t)`` pixels: () or (B,) -> (..., 1, side, side).

    It solves the heat equation with insulated edges for the time ``width^2 / 2`` (IHDM, Rissanen et al. 2023).
    """
    k = torch.arange(side, dtype=torch.float64) * math.pi / side
    square = k[:, None] ** 2 + k**2

    def factor(t: Tensor) -> Tensor:
        return torch.exp(-(widths(t)[..., None, None, None] ** 2) / 2 * square)

    return factor


@dataclass(frozen=True)
class Frequencies:
    """The scales of every coefficient: ``alpha = alpha_of(t) factor(t)`` and ``sigma = sigma_of(t)``.

    schedule: of a frequency that is not blurred. Blurring diffusion takes the cosine schedule, soft diffusion one with
        little noise, IHDM a constant small sigma with alpha 1.
    factor: of each coefficient, as `heat_blur` makes it; it does not rise with t.
    """

    schedule: Schedule
    factor: Callable[[Tensor], Tensor]

    def scales(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``sigma`` in float64: (1, H, W), or (B, 1, H, W) for t (B,)."""
        t = check_time(t)
        alpha, sigma = self.schedule.scales(t)
        factor = self.factor(t)
        return alpha[..., None, None, None] * factor, sigma[..., None, None, None].expand(factor.shape)


@dataclass(frozen=True)
class ByFrequency:
    """Gaussian diffusion of images with a schedule for each coefficient, and DDIM's bridges (`Gaussian`).

    eta: fraction of new noise, from 0 to 1, the posterior of the Markov chain with these marginals.
    """

    frequencies: Frequencies
    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta is the fraction of new noise, from 0 to 1; got {self.eta}")

    def prior(self, shape: Sequence[int], t: Tensor | float = 1.0, *, generator: torch.Generator | None) -> Tensor:
        """The noise alone, in torch's default dtype."""
        sigma = self.frequencies.scales(t)[1]
        z = normal(shape, generator)
        return undct(sigma.to(z) * z)

    def corrupt(self, x0: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_t ~ q(x_t | x0)``: blurred and noised images (B, C, H, W)."""
        check_floating("x0", x0)
        alpha, sigma = (scale.to(x0) for scale in self.frequencies.scales(t))
        return undct(alpha * dct(x0) + sigma * normal_like(x0, generator))

    def bridge(
        self,
        x_t: Tensor,
        x0: Tensor,
        t: Tensor | float,
        s: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``x_s ~ q(x_s | x_t, x0)``. Draws no random numbers if no coefficient has noise added."""
        t, s = check_step(t, s)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self.frequencies.scales(t), self.frequencies.scales(s)
        ratio = alpha_t * sigma_s / (alpha_s * sigma_t)
        variance = self.eta**2 * sigma_s**2 * (1 - ratio**2).clamp_min(0)
        keep = (sigma_s**2 - variance).clamp_min(0).sqrt() / sigma_t
        x_s = keep.to(x_t) * dct(x_t) + (alpha_s - keep * alpha_t).to(x_t) * dct(x0)
        return undct(x_s + variance.sqrt().to(x_t) * normal_like(x_t, generator) if variance.any() else x_s)
