"""Time grids: the times at which a sampler evaluates the denoiser.

A grid of ``steps`` steps is a float64 tensor of ``steps + 1`` strictly falling times on the CPU. It
ends at ``t = 0``: the last step goes from the last noisy time to the denoiser's prediction itself
(``x = alpha x0``), because no polynomial in ``lam`` reaches ``lam = inf``. ``grid[:-1]`` stops before that step.

A grid may begin below t = 1. Draw the initial state there: ``corruption.prior(shape, grid[0], generator=...)``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from survey_lib.core.checks import check_count, check_times
from survey_lib.core.schedules import Schedule

#: Smallest ``lam`` at which ``uniform_lambda`` places a time: about that of DDPM's linear schedule at t = 1.
FAINTEST = -5.1


def uniform(steps: int, start: float = 1.0, end: float = 0.0) -> Tensor:
    """Equal steps in time (DDIM, app. D.2, "linear")."""
    check_count("steps", steps)
    return check_times(torch.linspace(start, end, steps + 1, dtype=torch.float64))


def quadratic(steps: int, start: float = 1.0, end: float = 0.0) -> Tensor:
    """Equal steps in ``sqrt(t)``, shorter towards clean data (DDIM, app. D.2, "quadratic")."""
    return check_times(uniform(steps, math.sqrt(max(start, 0.0)), math.sqrt(max(end, 0.0))) ** 2)


def trailing(steps: int, train_steps: int = 1000) -> Tensor:
    """Times of a discrete chain, counted back from the noisiest (Lin et al. 2023, table 2, "trailing").

    ``t_i = round(N (1 - i / steps)) / N`` with ``N = train_steps``, so that the first is pure noise whatever
    the number of steps. Raises ValueError for more steps than the chain has.
    """
    check_count("steps", steps, high=check_count("train_steps", train_steps))
    return check_times((uniform(steps) * train_steps).round() / train_steps)


def karras(
    steps: int, schedule: Schedule, rho: float = 7.0, sigma_min: float = 0.002, sigma_max: float = 80.0
) -> Tensor:
    """Equal steps in the ``rho``-th root of ``u = sigma / alpha`` (EDM, eq. 5), then 0.

    ``u_i = (sigma_max^(1/rho) + i / (steps - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho``.
    ``sigma_max`` is lowered to the largest u of the schedule; a grid of one step goes from there to 0.
    """
    check_count("steps", steps)
    if not 0 < rho < math.inf:
        raise ValueError(f"rho is positive and finite; got {rho!r}")
    top = min(sigma_max, math.exp(-schedule.lam(1.0).item()))
    if not 0 < sigma_min < top:
        raise ValueError(f"sigma_min must lie between 0 and the noisiest level {top:g}; got {sigma_min:g}")
    roots = torch.linspace(top ** (1 / rho), sigma_min ** (1 / rho), steps, dtype=torch.float64)
    return _closed_by_zero(schedule.time(-rho * roots.log()))


def uniform_lambda(steps: int, schedule: Schedule, t_min: float = 1e-3, t_max: float = 1.0) -> Tensor:
    """Equal steps in ``lam`` from ``t_max`` to ``t_min`` (DPM-Solver, sec. 3.3, "uniform logSNR"), then 0.

    If ``lam(t_max) < -5.1`` the grid starts at ``lam = -5.1`` instead, so that no step is spent on noise in which
    hardly any data is left. The state there is no longer that at ``t_max``: draw it by ``prior(shape, times[0])``.
    """
    check_count("steps", steps)
    first, last = check_times(torch.tensor([t_max, t_min], dtype=torch.float64))
    top, bottom = max(schedule.lam(first).item(), FAINTEST), schedule.lam(last).item()
    if not top < bottom < math.inf:
        raise ValueError(f"lam must be finite at t_min and above {FAINTEST}; {schedule.name} has {bottom:g} there")
    return _closed_by_zero(schedule.time(torch.linspace(top, bottom, steps, dtype=torch.float64)))


def _closed_by_zero(times: Tensor) -> Tensor:
    return check_times(torch.cat([times, times.new_zeros(1)]))
