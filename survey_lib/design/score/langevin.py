"""Langevin dynamics at one noise level, and annealed over many: NCSN (Song & Ermon 2019).

At a fixed level the noised data have a known score, and Langevin dynamics with this score converges to their
distribution. At low noise it stays in the mode where it started, because between distant modes the score does not
depend on their weights. Started at high noise, where the modes merge, it finds the weights first and the details later.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from survey_lib.core import protocols
from survey_lib.core.checks import check_cond, check_count, check_start, check_state
from survey_lib.core.exponential import Level, levels, linear_combination
from survey_lib.core.protocols import Callback, Denoiser, expand
from survey_lib.core.samplers import langevin_step
from survey_lib.core.schedules import Schedule

#: ``precondition(z, noise)`` is ``M z`` for a symmetric matrix M that may depend on ``noise = sigma / alpha``.
Preconditioner = Callable[[Tensor, float], Tensor]


def score_of(denoiser: Denoiser, schedule: Schedule) -> Callable[..., Tensor]:
    """The score ``score(x_t, t, cond) = (alpha x0 - x_t) / sigma^2`` of a denoiser (Tweedie's formula).

    The score raises ValueError where sigma is 0, since clean data need not have a density.
    """

    def score(x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        alpha, sigma = schedule.scales(t)
        if not (sigma > 0).all():
            raise ValueError("the score is undefined at sigma = 0: pass a time with sigma > 0")
        x0 = denoiser(x_t, torch.as_tensor(t, dtype=torch.float64), cond)
        return (expand(alpha, x_t) * x0 - x_t) / expand(sigma**2, x_t)

    return score


def noise_times(count: int, schedule: Schedule, *, high: float, low: float, clean: bool = True) -> Tensor:
    """NCSN's noise levels (Song & Ermon 2019, sec. 5): times at which ``u = sigma / alpha`` is a geometric sequence.

    ``count`` times from ``u = high`` to ``u = low`` and, with ``clean``, a final 0 for the denoising step of
    Jolicoeur-Martineau et al. 2021. The paper has 10 levels from 1 to 0.01, for data in [0, 1].
    """
    check_count("the number of noise levels", count, 2)
    if not 0 < low < high:
        raise ValueError(f"levels must fall from high to low, both positive sigma / alpha; got {high:g} to {low:g}")
    ends = -torch.tensor([high, low], dtype=torch.float64).log()
    if ends[0] < schedule.lam(1.0) - 1e-9:
        most = math.exp(-schedule.lam(1.0))
        raise ValueError(f"{schedule.name} reaches sigma / alpha = {most:.4g} at most; got high = {high:g}")
    times = schedule.time(torch.linspace(*ends.tolist(), count, dtype=torch.float64))
    return torch.cat([times, times.new_zeros(1)]) if clean else times


@torch.no_grad()
def langevin(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    t: Tensor | float,
    *,
    steps: int,
    rate: float = 0.2,
    precondition: Preconditioner | None = None,
    cond: Any = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Langevin dynamics at one noise level (Song & Ermon 2019, eq. 4): ``x + (a / 2) score + sqrt(a) z``.

    The step size is ``a = rate sigma^2``, so that the drift covers the fraction ``rate / 2`` of the way to the
    prediction: ``x + (rate / 2) (alpha x0 - x) + sqrt(rate) sigma z``. It converges to the distribution of ``x_t`` up
    to order ``rate`` and is stable for ``rate < 4``. With a ``precondition`` M (PDS, Ma et al. 2022) the step is
    ``x + (a / 2) M M score + sqrt(a) M z``, with other rates in other directions and the same limit.

    Evaluations: ``steps``.
    """
    (level,) = levels(schedule, torch.as_tensor(t, dtype=torch.float64).reshape(1))
    check_state(x)
    cond = check_cond(cond, x)
    _check(steps, rate)
    if level.sigma == 0:
        raise ValueError("the score is undefined at sigma = 0: pass a time with sigma > 0")
    for _ in range(steps):
        x0 = denoiser(x, level.t, cond)
        if callback:
            callback(x, level.t, x0)
        x = _step(x, x0, level, rate, precondition, generator)
    return x


@torch.no_grad()
def annealed_langevin(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    steps: int,
    rate: float = 0.2,
    precondition: Preconditioner | None = None,
    cond: Any = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Annealed Langevin dynamics (Song & Ermon 2019, alg. 1): ``steps`` Langevin steps at every level of ``times``.

    In ``x / alpha`` and ``u = sigma / alpha`` the step size at level i is ``a_i = rate u_i^2``. The paper writes
    ``eps u_i^2 / u_L^2``, so that its ``eps = 2e-5`` at ``u_L = 0.01`` is ``rate = 0.2``.

    x: noise at ``times[0]``.
    times: see `noise_times`. A grid that ends above 0 leaves the noise of its last level in the samples. If it ends at
        0, the result is the denoiser's prediction at the last level (Jolicoeur-Martineau et al. 2021).
    steps, rate, precondition: see `langevin`.

    Evaluations: ``levels * steps``, and one more if the grid ends at 0.
    """
    times, cond = check_start(x, times, cond, generator)
    grid = levels(schedule, times)
    _check(steps, rate)
    if not math.isfinite(grid[0].lam):
        raise ValueError("the level sigma / alpha is infinite at alpha = 0: start at an earlier time")
    noisy = grid if grid[-1].sigma > 0 else grid[:-1]
    options = {"steps": steps, "rate": rate, "precondition": precondition}
    for above, level in zip([grid[0], *noisy], noisy, strict=False):
        x = x * (level.alpha / above.alpha)  # x / alpha stays
        x = langevin(denoiser, schedule, x, level.t, cond=cond, generator=generator, callback=callback, **options)
    if noisy is grid:
        return x
    x0 = denoiser(x, noisy[-1].t, cond)
    if callback:
        callback(x, noisy[-1].t, x0)
    return x0


def _step(
    x: Tensor,
    x0: Tensor,
    at: Level,
    rate: float,
    precondition: Preconditioner | None,
    generator: torch.Generator | None,
) -> Tensor:
    if precondition is None:
        return langevin_step(x, x0, at, rate, generator)
    z, noise = protocols.normal(x.shape, generator, x.dtype).to(x.device), at.sigma / at.alpha
    pull = precondition(at.alpha * x0 - x, noise)
    return x + precondition(linear_combination([rate / 2, math.sqrt(rate) * at.sigma], [pull, z]), noise)


def _check(steps: int, rate: float) -> None:
    check_count("steps", steps)
    if not 0 < rate < 4:
        raise ValueError(f"rate must lie between 0 and 4, beyond which Langevin dynamics diverges; got {rate:g}")
