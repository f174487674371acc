"""Noise of any distribution of mean 0 and variance 1, independent in every number, that a trajectory keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from survey_lib.core.checks import check_floating, check_generator
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.protocols import normal
from survey_lib.core.schedules import Schedule

#: ``draw(shape, generator)``: numbers of mean 0 and variance 1 in float64, on the generator's device.
Draw = Callable[[Sequence[int], torch.Generator], Tensor]


@dataclass(frozen=True)
class Shaped:
    """``x_t = alpha x0 + sigma n`` with noise n of another distribution, and DDIM's bridge, which keeps n.

    Heavy-tailed denoising score matching (Deasy et al. 2021) has such marginals with `generalised_normal`. There is no
    Markov chain behind them: sums of such noise have another distribution. The bridge needs none, for given x0 it is
    exact whatever the noise.
    """

    schedule: Schedule
    draw: Draw

    def prior(self, shape: Sequence[int], t: Tensor | float = 1.0, *, generator: torch.Generator | None) -> Tensor:
        """``sigma n`` in torch's default dtype."""
        noise = self.draw(tuple(shape), check_generator(generator)).to(torch.get_default_dtype())
        return self.schedule.scales(t, like=noise)[1] * noise

    def corrupt(self, x0: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_t = alpha x0 + sigma n``."""
        check_floating("x0", x0)
        alpha, sigma = self.schedule.scales(t, like=x0)
        return alpha * x0 + sigma * self.draw(x0.shape, check_generator(generator)).to(x0)

    def bridge(
        self,
        x_t: Tensor,
        x0: Tensor,
        t: Tensor | float,
        s: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``x_s = alpha_s x0 + sigma_s n`` with the n of ``x_t``; nothing is drawn."""
        return Gaussian(self.schedule, eta=0).bridge(x_t, x0, t, s)


def generalised_normal(power: float) -> Draw:
    """Density in proportion to ``exp(-|n / scale|^power)``: 2 is normal, 1 is Laplace's, smaller has heavier tails.

    ``|n|^power`` is Gamma-distributed with shape ``1 / power``.
    """
    if not 0.1 <= power <= 20:
        raise ValueError(f"the power of a generalised normal distribution lies between 0.1 and 20; got {power:g}")
    scale = math.exp((math.lgamma(1 / power) - math.lgamma(3 / power)) / 2)

    def draw(shape: Sequence[int], generator: torch.Generator) -> Tensor:
        size = gamma(torch.full(tuple(shape), 1 / power, dtype=torch.float64), generator) ** (1 / power)
        return scale * size * torch.where(_coin(shape, generator), 1.0, -1.0)

    return draw


def two_normals(distance: float) -> Draw:
    """An equal mixture of two normal distributions at ``+-distance``, of variance ``1 - distance^2`` each."""
    if not 0 <= distance < 1:
        raise ValueError(f"the means of two normals lie at a distance from 0 to below 1; got {distance:g}")

    def draw(shape: Sequence[int], generator: torch.Generator) -> Tensor:
        centre = torch.where(_coin(shape, generator), distance, -distance)
        return centre + math.sqrt(1 - distance**2) * normal(shape, generator, torch.float64)

    return draw


def gamma(shapes: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma-distributed numbers of scale 1 with the given shape parameters, on the generator's device."""
    return torch._standard_gamma(shapes.to(generator.device), generator=generator)


def _coin(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.rand(tuple(shape), generator=generator, device=generator.device) < 0.5
