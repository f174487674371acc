"""Grids: at which times the denoiser is asked.

A grid of ``steps`` steps is a float64 tensor of ``steps + 1`` times on the CPU that fall strictly. It
ends at ``t = 0``: the last step jumps from the last noisy time to the denoiser's answer itself
(``x = alpha x0``), because no polynomial in ``lam`` reaches ``lam = inf``. ``grid[:-1]`` stops before that jump.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from survey_lib.core.protocols import check_times
from survey_lib.core.schedules import Schedule

#: ``uniform_lambda`` wastes no step on noise above this: the ``lam`` of pure noise in DDPM's linear schedule.
FAINTEST = -5.1


def uniform(steps: int, start: float = 1.0, end: float = 0.0) -> Tensor:
    """Equal steps in time (DDIM, app. D.2, "linear")."""
    _check_steps(steps)
    return check_times(torch.linspace(start, end, steps + 1, dtype=torch.float64))


def quadratic(steps: int, start: float = 1.0, end: float = 0.0) -> Tensor:
    """Equal steps in ``sqrt(t)``: short ones where the data is nearly clean (DDIM, app. D.2, "quadratic")."""
    return check_times(uniform(steps, math.sqrt(max(start, 0.0)), math.sqrt(max(end, 0.0))) ** 2)


def trailing(steps: int, train_steps: int = 1000) -> Tensor:
    """Times of a discrete chain, counted back from its noisiest (Lin et al. 2023, table 2, "trailing").

    ``t_i = round(N (1 - i / steps)) / N`` with ``N = train_steps``, so that the first is pure noise whatever
    the number of steps. Raises ValueError for more steps than the chain has.
    """
    _check_steps(steps)
    _check_steps(train_steps, "train_steps")
    if steps > train_steps:
        raise ValueError(f"a chain of {train_steps} steps cannot be walked in {steps}; take at most {train_steps}")
    return check_times((uniform(steps) * train_steps).round() / train_steps)


def karras(
    steps: int, schedule: Schedule, rho: float = 7.0, sigma_min: float = 0.002, sigma_max: float = 80.0
) -> Tensor:
    """Equal steps in the ``rho``-th root of ``u = sigma / alpha`` (EDM, eq. 5), then 0.

    ``u_i = (sigma_max^(1/rho) + i / (steps - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho``.
    ``sigma_max`` is lowered to the noisiest that the schedule reaches; one step starts there and ends at 0.
    """
    _check_steps(steps)
    top = min(sigma_max, math.exp(-schedule.lam(1.0).item()))
    if not 0 < sigma_min < top:
        raise ValueError(f"sigma_min must lie between 0 and the noisiest level {top:g}; got {sigma_min:g}")
    roots = torch.linspace(top ** (1 / rho), sigma_min ** (1 / rho), steps, dtype=torch.float64)
    return _closed_by_zero(schedule.time(-rho * roots.log()))


def uniform_lambda(steps: int, schedule: Schedule, t_min: float = 1e-3, t_max: float = 1.0) -> Tensor:
    """Equal steps in ``lam`` from ``t_max`` to ``t_min`` (DPM-Solver, sec. 3.3, "uniform logSNR"), then 0.

    Where ``t_max`` is noise that hardly knows the data (``lam < -5.1``) the grid starts at that ``lam`` instead:
    the state there is still the prior's, and the steps are spent where there is something to see.
    """
    _check_steps(steps)
    first, last = check_times(torch.tensor([t_max, t_min], dtype=torch.float64))
    top, bottom = max(schedule.lam(first).item(), FAINTEST), schedule.lam(last).item()
    if not top < bottom < math.inf:
        raise ValueError(f"lam must be finite at t_min and above {FAINTEST}; {schedule.name} has {bottom:g} there")
    return _closed_by_zero(schedule.time(torch.linspace(top, bottom, steps, dtype=torch.float64)))


def _closed_by_zero(times: Tensor) -> Tensor:
    return check_times(torch.cat([times, times.new_zeros(1)]))


def _check_steps(steps: int, name: str = "steps") -> None:
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"{name} is a whole number; got {steps!r}")
    if steps < 1:
        raise ValueError(f"{name} is at least 1; got {steps}")
