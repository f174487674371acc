"""Optimal variances of the reverse steps of a trained denoiser (Analytic-DPM, Bao et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.checks import check_times, is_pure_noise
from survey_lib.core.corruptions import Gaussian, Variance, analytic_variance
from survey_lib.core.protocols import Denoiser
from survey_lib.core.schedules import Schedule


@dataclass(frozen=True)
class DenoisingError:
    """Errors of a frozen denoiser at falling ``times`` (G,), means over images and dimensions.

    error: ``E |x0 - x0_hat|^2`` (G,) in float64.
    power: ``E |eps_hat|^2`` (G,) in float64.
    """

    schedule: Schedule
    times: Tensor
    error: Tensor
    power: Tensor

    def explained_noise(self, t: Tensor | float, by: str = "error") -> Tensor:
        """Fraction of the variance of the noise that the denoiser explains, ``1 - E |eps - eps_hat|^2``.

        ``by="power"`` takes ``E |eps_hat|^2``, Analytic-DPM's Gamma (Bao et al. 2022, eq. 8): equal for the exact
        denoiser, but not for a network. Linear in lam between the times, constant beyond them.
        """
        if by not in ("error", "power"):
            raise ValueError(f'by must be "error" or "power"; got {by!r}')
        lam = self.schedule.lam(self.times)
        explained = self.power if by == "power" else 1 - torch.exp(2 * lam) * self.error
        return interpolate(self.schedule.lam(t), lam, explained)


def denoising_error(
    denoiser: Denoiser,
    schedule: Schedule,
    x0: Tensor,
    times: Tensor,
    *,
    cond: Any = None,
    generator: torch.Generator,
) -> DenoisingError:
    """Evaluate a denoiser on noised images ``x0`` (B, ...) at each of G ``times``: G evaluations of the batch.

    ``times`` must fall, with ``alpha > 0`` and ``sigma > 0``: leave out a final 0.
    """
    times = check_times(times)
    alpha, sigma = schedule.scales(times)
    if is_pure_noise(alpha, sigma).any() or not sigma.min() > 0:
        raise ValueError("the error of a denoiser needs times with alpha > 0 and sigma > 0: shorten the grid")
    corruption, errors, power = Gaussian(schedule), [], []
    for t, x_t, prediction, error in evaluate_at(denoiser, corruption, x0, times, cond, generator):
        errors.append(error)
        power.append(corruption.eps(x_t.double(), prediction.double(), t).square().mean().cpu())
    return DenoisingError(schedule, times, torch.stack(errors), torch.stack(power))


def evaluate_at(
    denoiser: Denoiser, corruption: Gaussian, x0: Tensor, times: Tensor, cond: Any, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yield ``t, x_t, prediction, E |x0 - prediction|^2`` at each of ``times``, with new noise for each."""
    for t in times:
        x_t = corruption.corrupt(x0, t, generator=generator)
        prediction = denoiser(x_t, t, cond)
        yield t, x_t, prediction, (prediction - x0).double().square().mean().cpu()


def optimal_variance(measured: DenoisingError, *, by: str = "error", eta: float = 1.0) -> Variance:
    """The optimal variance of every reverse step of a denoiser, for ``Gaussian(schedule, eta, variance=...)``.

    Analytic-DPM (Bao et al. 2022, theorem 1): among steps ``N(mean, w I)`` around the denoiser's own mean,
    ``w = bridge variance + E |error of the mean|^2`` has the smallest bound; see `corruptions.analytic_variance`. With
    ``by="error"`` this holds for every denoiser, with ``by="power"``, the paper's estimate, for the exact one. It
    concerns steps between normal distributions, not the last step to discrete values (`losses.reconstruction`).
    """
    return partial(analytic_variance, mean_square_eps=partial(measured.explained_noise, by=by), eta=eta)


def interpolate(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Linear interpolation of ``values`` at rising ``knots`` (G,), constant beyond; differentiable in ``x``."""
    right = torch.searchsorted(knots, x.detach().contiguous()).clamp(1, len(knots) - 1)
    weight = ((x - knots[right - 1]) / (knots[right] - knots[right - 1])).clamp(0, 1)
    return torch.lerp(values[right - 1], values[right], weight)
