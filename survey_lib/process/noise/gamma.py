"""Gamma noise: a diffusion whose increments are Gamma-distributed (DDGM, Nachmani et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from survey_lib.core.checks import check_floating, check_generator, check_signal, check_step
from survey_lib.core.protocols import expand
from survey_lib.core.schedules import Schedule
from survey_lib.process.noise.shaped import gamma


@dataclass(frozen=True)
class Gamma:
    """``x_t = alpha (x0 + scale (G - k))`` with ``G ~ Gamma(k, 1)`` and ``k = (sigma / alpha / scale)^2``.

    Mean and variance are those of Gaussian noise under the same schedule; the skewness is ``2 / sqrt(k)``. In ``k`` as
    time, G is a Gamma process: its increments are independent, and given its value at t, the fraction ``G_s / G_t`` is
    Beta-distributed with ``k_s`` and ``k_t - k_s``. That is the bridge, exact for given x0. (DDGM's sampler takes a
    Gaussian posterior mean and adds Gamma noise.)

    scale: theta_0 of the paper, the unit in which noise arrives. Small units make it Gaussian.

    Raises ValueError at times without signal, where k is infinite.
    """

    schedule: Schedule
    scale: float = 0.1

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"the scale of Gamma noise is positive; got {self.scale:g}")

    def prior(self, shape: Sequence[int], t: Tensor | float = 1.0, *, generator: torch.Generator | None) -> Tensor:
        """The noise alone, in torch's default dtype."""
        return self.corrupt(torch.zeros(tuple(shape)), t, generator=generator)

    def corrupt(self, x0: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_t ~ q(x_t | x0)``."""
        check_floating("x0", x0)
        alpha, k = self._level(t)
        shapes = expand(k, x0.double()).to(torch.float64).expand(x0.shape)
        grown = gamma(shapes, check_generator(generator)).to(x0.device)
        noise = (self.scale * (grown - shapes.to(x0.device))).to(x0)
        return expand(alpha, x0) * (x0 + noise)

    def bridge(
        self,
        x_t: Tensor,
        x0: Tensor,
        t: Tensor | float,
        s: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``x_s ~ q(x_s | x_t, x0)``. Where x0 is a guess, G may come out negative: it counts as 0."""
        check_floating("x_t", x_t)
        t, s = check_step(t, s)
        (alpha_t, k_t), (alpha_s, k_s) = self._level(t), self._level(s)
        like = x_t.double()
        k_t, k_s = (expand(k, like).expand(x_t.shape) for k in (k_t, k_s))
        grown = ((like / expand(alpha_t, like) - x0.double()) / self.scale + k_t).clamp_min(0)
        first, rest = (gamma(k, check_generator(generator)).to(like) for k in (k_s, k_t - k_s))
        share = torch.where(k_s > 0, first / (first + rest).clamp_min(torch.finfo(like.dtype).tiny), 0)
        return (expand(alpha_s, like) * (x0.double() + self.scale * (share * grown - k_s))).to(x_t)

    def _level(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """``alpha`` and k at a time."""
        alpha, sigma = self.schedule.scales(t)
        check_signal(alpha, sigma, "Gamma noise")
        return alpha, (sigma / alpha / self.scale) ** 2
