"""Shorter chains from a trained one: which of its times are kept, how noisy a step is, where the walk begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.corruptions import Gaussian, Variance, analytic_variance
from survey_lib.core.exponential import PURE_NOISE
from survey_lib.core.protocols import Corruption, Denoiser, check_times
from survey_lib.core.samplers import ancestral
from survey_lib.core.schedules import Schedule

_BISECTIONS = 200


# ---------------------------------------------------------------- which times are kept


def subsequence(chain: Tensor, steps: int, power: int = 1) -> Tensor:
    """``steps`` steps out of a trained chain (DDIM, app. D.2): indices ``round(c i^power)`` counted from the clean end.

    ``power`` 1 is the paper's "linear", 2 its "quadratic". Both ends of ``chain`` (falling times) are kept, so that
    the walk begins at pure noise. Raises ValueError for more steps than the chain has.
    """
    chain = check_times(chain)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps < len(chain):
        raise ValueError(f"a chain of {len(chain) - 1} steps has sub-sequences of 1 to so many; got {steps!r}")
    if power not in (1, 2):
        raise ValueError(f"power is 1 (linear) or 2 (quadratic); got {power!r}")
    share = torch.linspace(1, 0, steps + 1, dtype=torch.float64) ** power
    return nearest(chain, (len(chain) - 1) * (1 - share))


def nearest(chain: Tensor, positions: Tensor) -> Tensor:
    """The times of ``chain`` at the nearest free indices to ``positions`` (rising, in steps from its noisy end).

    Where two positions share an index the noisier one gives way, so that all are different.
    """
    chain, index = check_times(chain), torch.as_tensor(positions, dtype=torch.float64).round().long().clone()
    if len(index) > len(chain) or (index.diff() < 0).any() or index.min() < 0 or index.max() >= len(chain):
        raise ValueError(f"positions rise within 0 to {len(chain) - 1}, no more of them than times; got {len(index)}")
    for i in range(len(index) - 2, -1, -1):
        index[i] = torch.minimum(index[i], index[i + 1] - 1)
    for i in range(len(index)):  # what was pushed off the noisy end comes back from there
        index[i] = index[i].clamp_min(i)
    return chain[index]


def variance_grid(steps: int, schedule: Schedule, power: int = 1, first: float = 1e-4) -> Tensor:
    """FastDPM's VAR grids (Kong & Ping 2021, sec. 3.3): choose the noise of each short step, then look up the time.

    The short chain adds variances ``eta_i = first (1 + c i)^power``, i = 0 ... steps - 1 from the clean end, with the
    ``c`` that makes it as noisy as the schedule is at t = 1; its levels are ``alpha^2 = prod (1 - eta_i)``, and the
    continuous step at which the trained chain has that level is ``schedule.time(lam)``. (STEP grids choose the times
    instead: `grids.uniform` and `grids.quadratic`.) Raises ValueError where ``steps`` such variances cannot add up to
    the schedule's, and for a schedule that does not preserve the variance or leaves nothing of the data at t = 1.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2 or power not in (1, 2):
        raise ValueError(f"a grid of variances has at least 2 steps and power 1 or 2; got {steps!r} and {power!r}")
    alpha, sigma = (value.item() for value in schedule.scales(1.0))
    if alpha < PURE_NOISE or not math.isclose(alpha**2 + sigma**2, 1, abs_tol=1e-9):
        raise ValueError(f"variances add up where alpha^2 + sigma^2 = 1 and alpha(1) > 0; not so in {schedule.name}")
    place = torch.arange(steps, dtype=torch.float64)

    def levels(growth: float) -> Tensor:  # log alpha^2 after each step
        return torch.log1p(-(first * (1 + growth * place) ** power)).cumsum(0)

    low, high = 0.0, ((1 / first) ** (1 / power) - 1) / (steps - 1)
    if not (0 < first < 1 and levels(low)[-1] > 2 * math.log(alpha)):
        raise ValueError(f"{steps} steps of variance {first:g} or more are noisier than {schedule.name} is at t = 1")
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if levels(middle)[-1] > 2 * math.log(alpha) else (low, middle)
    kept = levels(low)
    times = schedule.time(0.5 * (kept - torch.log(-torch.expm1(kept)))).flip(0)
    times[0] = 1.0
    return check_times(torch.cat([times, times.new_zeros(1)]))


# ---------------------------------------------------------------- the variance that is free


@dataclass(frozen=True)
class DenoisingError:
    """What one pass of a frozen denoiser over falling ``times`` (G,) tells, a mean over images and dimensions.

    error: ``E |x0 - x0_hat|^2``; power: ``E |eps_hat|^2``; both (G,) in float64.
    """

    schedule: Schedule
    times: Tensor
    error: Tensor
    power: Tensor

    def explained_noise(self, t: Tensor | float, by: str = "error") -> Tensor:
        """The part of the noise that the denoiser knows, ``1 - E |eps - eps_hat|^2``; linear in lam between times.

        ``by="power"`` takes ``E |eps_hat|^2``, Analytic-DPM's Gamma (Bao et al. 2022, eq. 8): the same where the
        denoiser is the exact mean, and not where it is a network. Beyond the probed times the last value holds.
        """
        if by not in ("error", "power"):
            raise ValueError(f'the noise is known by "error" or by "power"; got {by!r}')
        lam = self.schedule.lam(self.times)
        known = self.power if by == "power" else 1 - torch.exp(2 * lam) * self.error
        return interpolate(self.schedule.lam(t), lam, known)


def denoising_error(
    denoiser: Denoiser,
    schedule: Schedule,
    x0: Tensor,
    times: Tensor,
    *,
    cond: Any = None,
    generator: torch.Generator,
) -> DenoisingError:
    """Ask a denoiser once at each of ``times`` about noised images ``x0`` (B, ...): G evaluations of the batch.

    ``times`` fall and lie where ``alpha`` and ``sigma`` are positive: leave off a last 0.
    """
    times = check_times(times)
    alpha, sigma = schedule.scales(times)
    if not (alpha.min() > 0 and sigma.min() > 0):
        raise ValueError("a denoiser is probed where there is data and noise, alpha > 0 and sigma > 0; cut the grid")
    corruption, errors, power = Gaussian(schedule), [], []
    for t, x_t, answer, error in evaluate_at(denoiser, corruption, x0, times, cond, generator):
        errors.append(error)
        power.append(corruption.eps(x_t.double(), answer.double(), t).square().mean().cpu())
    return DenoisingError(schedule, times, torch.stack(errors), torch.stack(power))


def evaluate_at(
    denoiser: Denoiser, corruption: Gaussian, x0: Tensor, times: Tensor, cond: Any, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """``t, x_t, answer, E |x0 - answer|^2`` at each of ``times``: images noised, the denoiser asked once about them."""
    for t in times:
        x_t = corruption.corrupt(x0, t, generator=generator)
        answer = denoiser(x_t, t, cond)
        yield t, x_t, answer, (answer - x0).double().square().mean().cpu()


def optimal_variance(measured: DenoisingError, *, by: str = "error", eta: float = 1.0) -> Variance:
    """The best variance of every reverse step for this denoiser, for ``Gaussian(schedule, eta, variance=...)``.

    Analytic-DPM (Bao et al. 2022, theorem 1): of all steps ``N(mean, w I)`` around the denoiser's own mean, ``w =
    bridge variance + (what the mean is off)^2`` has the smallest bound; see `corruptions.analytic_variance`. With
    ``by="error"`` this holds for every denoiser, exact or not; ``by="power"`` is the paper's estimate. It is said of
    steps between normal laws: of the last step to values on a lattice (`losses.reconstruction`) it says nothing.
    """
    return partial(analytic_variance, mean_square_eps=partial(measured.explained_noise, by=by), eta=eta)


def interpolate(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """``values`` at rising ``knots`` (G,), linear in between and constant beyond; differentiable in ``x``."""
    right = torch.searchsorted(knots, x.detach().contiguous()).clamp(1, len(knots) - 1)
    share = ((x - knots[right - 1]) / (knots[right] - knots[right - 1])).clamp(0, 1)
    return torch.lerp(values[right - 1], values[right], share)


# ---------------------------------------------------------------- where the walk begins


def projected(denoiser: Denoiser, project: Callable[[Tensor], Tensor]) -> Denoiser:
    """A denoiser whose answer is made to agree with a measurement: ``project(E[x0 | x_t])``.

    ``project`` puts back what is known: pixels seen, for in-painting; the means of blocks, for super-resolution.
    """
    return lambda x_t, t, cond=None: project(denoiser(x_t, t, cond))


def come_closer(
    denoiser: Denoiser,
    corruption: Corruption,
    estimate: Tensor,
    times: Tensor,
    *,
    project: Callable[[Tensor], Tensor] = lambda x0: x0,
    cond: Any = None,
    generator: torch.Generator,
) -> Tensor:
    """Come-Closer-Diffuse-Faster (Chung et al. 2022, alg. 1): diffuse an estimate to ``times[0] < 1``, and walk back.

    The reverse chain contracts: what was wrong in the estimate shrinks with every step, so the better it is, the
    later one may begin. Evaluations: the steps of the grid.
    """
    times = check_times(times)
    x = corruption.corrupt(estimate, times[0], generator=generator)
    return ancestral(projected(denoiser, project), corruption, x, times, cond=cond, generator=generator)
