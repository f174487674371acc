"""Distributions of noise levels and weights of the loss, which together decide what a training learns from.

The expected loss is an integral over ``lam`` of density times weight times the squared error of the clean data. The
product is the *emphasis*. Two trainings with the same emphasis have the same gradients on average; they differ in the
variance of these gradients alone, and `reweighted` turns one into the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from survey_lib.core.corruptions import Gaussian
from survey_lib.core.losses import denoising_loss, eps_weight, uniform_times
from survey_lib.core.protocols import Denoiser, normal
from survey_lib.core.schedules import Schedule
from survey_lib.process.training.bound import lam_speed

#: Weight of the squared error of the clean data at a level: ``lam -> w``, as `core.losses.eps_weight` is.
Weight = Callable[[Tensor], Tensor]
#: ``loss(model, x0, cond, generator)`` of a `Trainer`: losses (B,), and levels ``lam`` (B,) or None.
Loss = Callable[[Any, Tensor, Any, torch.Generator], tuple[Tensor, Tensor | None]]


def p2_weight(lam: Tensor, gamma: float = 1.0, k: float = 1.0) -> Tensor:
    """``SNR / (k + SNR)^gamma``: the error of the noise, with less weight at little noise (P2, Choi et al. 2022)."""
    snr = eps_weight(lam)
    return snr / (k + snr) ** gamma


def min_snr_weight(lam: Tensor, gamma: float = 5.0) -> Tensor:
    """``min(SNR, gamma)`` (min-SNR-gamma, Hang et al. 2023, sec. 3.4)."""
    return eps_weight(lam).clamp(max=gamma)


def truncated_snr_weight(lam: Tensor) -> Tensor:
    """``max(SNR, 1)``: the larger error of noise and data (Salimans & Ho 2022, sec. 4)."""
    return eps_weight(lam).clamp(min=1.0)


class Levels(Protocol):
    """A distribution of noise levels ``lam``."""

    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """``count`` levels: float64 (count,)."""

    def density(self, lam: Tensor) -> Tensor:
        """Density of ``lam``, whose integral is 1."""


@dataclass(frozen=True)
class LogNormalLevels:
    """``log(sigma / alpha)`` is normal with ``mean`` and ``std`` (EDM, table 1)."""

    mean: float = -1.2
    std: float = 1.2

    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """``count`` levels: float64 (count,)."""
        return -(self.mean + self.std * normal((count,), generator, torch.float64))

    def density(self, lam: Tensor) -> Tensor:
        """Density of ``lam``."""
        return torch.exp(-(((lam + self.mean) / self.std) ** 2) / 2) / (self.std * math.sqrt(2 * math.pi))


@dataclass(frozen=True)
class TimeLevels:
    """The levels of a schedule at times from ``first`` to 1, uniform (DDPM) or softly truncated.

    soft: the smallest time of a batch is random, with a density proportional to its reciprocal, and the times of the
        batch are uniform above it (soft truncation, Kim et al. 2022, sec. 4.3, k = 1). Large times come more often.
    """

    schedule: Schedule
    first: float = 1e-3
    soft: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.first < 1:
            raise ValueError(f"the smallest time lies between 0 and 1; got {self.first:g}")

    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """``count`` levels: float64 (count,); under soft truncation they share their smallest time."""
        low = torch.tensor(self.first, dtype=torch.float64, device=generator.device)
        if self.soft:
            low = low ** (1 - uniform_times(1, generator=generator))  # log-uniform in [first, 1)
        return self.schedule.lam(low + (1 - low) * uniform_times(count, generator=generator))

    def density(self, lam: Tensor) -> Tensor:
        """Density of ``lam``: the density of the time over the speed of ``lam``."""
        t = self.schedule.time(lam)
        if self.soft:
            of_time = (torch.logit(t) - math.log(self.first / (1 - self.first))) / -math.log(self.first)
        else:
            of_time = torch.full_like(t, 1 / (1 - self.first))
        inside = (t > self.first) & (t < 1)
        return torch.where(inside, of_time / lam_speed(self.schedule, t), 0.0)


def emphasis(levels: Levels, weight: Weight, lam: Tensor) -> Tensor:
    """Density times weight at evenly spaced ``lam`` (N,), with a sum of 1."""
    found = levels.density(lam) * weight(lam)
    return found / found.sum()


def reweighted(weight: Weight, levels: Levels, other: Levels) -> Weight:
    """The weight that has under ``other`` levels the emphasis that ``weight`` has under ``levels``.

    It is infinite where ``other`` has no density and ``levels`` have some.
    """

    def found(lam: Tensor) -> Tensor:
        wanted = weight(lam) * levels.density(lam)
        return torch.where(wanted > 0, wanted / other.density(lam), 0.0)

    return found


def weighted_loss(levels: Levels, weight: Weight, schedule: Schedule) -> Loss:
    """The denoising loss at random levels, with a weight, as a loss of the `Trainer`: losses (B,) and ``lam`` (B,)."""

    def loss(model: Denoiser, x0: Tensor, cond: Any, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        lam = levels.sample(len(x0), generator=generator)
        how = {"weight": weight(lam), "cond": cond, "generator": generator}
        return denoising_loss(model, Gaussian(schedule), x0, schedule.time(lam), **how), lam

    return loss
