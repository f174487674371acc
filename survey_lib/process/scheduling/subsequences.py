"""Shorter chains from a trained one: sub-sequences (DDIM), continuous steps (FastDPM), a later start (CCDF)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.checks import check_count, check_times, is_pure_noise
from survey_lib.core.protocols import Corruption, Denoiser
from survey_lib.core.samplers import ancestral
from survey_lib.core.schedules import Schedule

_BISECTIONS = 200


def subsequence(chain: Tensor, steps: int, power: int = 1) -> Tensor:
    """``steps`` steps of a trained chain (DDIM, app. D.2): indices ``round(c i^power)`` counted from the clean end.

    ``power`` 1 is the paper's "linear", 2 its "quadratic". Both ends of ``chain`` (falling times) are kept, so that
    the trajectory begins at pure noise. Raises ValueError for more steps than the chain has.
    """
    chain = check_times(chain)
    check_count("the number of steps of a sub-sequence", steps, high=len(chain) - 1)
    _check_power(power)
    fraction = torch.linspace(1, 0, steps + 1, dtype=torch.float64) ** power
    return nearest(chain, (len(chain) - 1) * (1 - fraction))


def nearest(chain: Tensor, positions: Tensor) -> Tensor:
    """The times of ``chain`` at the free indices nearest to ``positions`` (rising, in steps from its noisy end).

    Where two positions round to one index, the noisier position moves to the next free index.
    """
    chain, index = check_times(chain), torch.as_tensor(positions, dtype=torch.float64).round().long().clone()
    if len(index) > len(chain) or (index.diff() < 0).any() or index.min() < 0 or index.max() >= len(chain):
        raise ValueError(
            f"positions must rise within 0 to {len(chain) - 1} and be at most as many as the {len(chain)} times; "
            f"got {len(index)}"
        )
    for i in range(len(index) - 2, -1, -1):
        index[i] = torch.minimum(index[i], index[i + 1] - 1)
    for i in range(len(index)):  # indices pushed below 0 return to the noisy end
        index[i] = index[i].clamp_min(i)
    return chain[index]


def variance_grid(steps: int, schedule: Schedule, power: int = 1, first: float = 1e-4) -> Tensor:
    """FastDPM's VAR grids (Kong & Ping 2021, sec. 3.3): variances of the short steps, and the times they belong to.

    The short chain adds variances ``eta_i = first (1 + c i)^power``, i = 0 ... steps - 1 from the clean end, where
    ``c`` makes its total noise that of the schedule at t = 1. Its levels are ``alpha^2 = prod (1 - eta_i)``, and the
    trained chain has such a level at the continuous time ``schedule.time(lam)``. (STEP grids choose the times instead:
    `grids.uniform` and `grids.quadratic`.)

    Raises ValueError if even ``steps`` variances of ``first`` exceed the schedule's noise, and for a schedule that does
    not preserve the variance or has alpha = 0 at t = 1.
    """
    check_count("the number of steps of a variance grid", steps, 2)
    _check_power(power)
    alpha, sigma = (value.item() for value in schedule.scales(1.0))
    if is_pure_noise(alpha, sigma) or not math.isclose(alpha**2 + sigma**2, 1, abs_tol=1e-9):
        raise ValueError(
            f"a variance grid needs a schedule with alpha^2 + sigma^2 = 1 and alpha(1) > 0; got {schedule.name}"
        )
    place = torch.arange(steps, dtype=torch.float64)

    def levels(growth: float) -> Tensor:  # log alpha^2 after each step
        return torch.log1p(-(first * (1 + growth * place) ** power)).cumsum(0)

    low, high = 0.0, ((1 / first) ** (1 / power) - 1) / (steps - 1)
    if not (0 < first < 1 and levels(low)[-1] > 2 * math.log(alpha)):
        raise ValueError(f"{steps} steps of variance {first:g} or more are noisier than {schedule.name} at t = 1")
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if levels(middle)[-1] > 2 * math.log(alpha) else (low, middle)
    kept = levels(low)
    times = schedule.time(0.5 * (kept - torch.log(-torch.expm1(kept)))).flip(0)
    times[0] = 1.0
    return check_times(torch.cat([times, times.new_zeros(1)]))


def projected(denoiser: Denoiser, project: Callable[[Tensor], Tensor]) -> Denoiser:
    """A denoiser whose predictions are projected onto the data that agree with a measurement: ``project(E[x0 | x_t])``.

    ``project`` restores the known values: observed pixels for in-painting, means of blocks for super-resolution.

    The samples are not draws from the posterior ``p(x0 | known values)``: replacement constrains the prediction without
    correcting the score, so the unknown values depend too weakly on the known ones. For two normal variables with
    correlation 0.9, one known to be 1, the other comes out with a mean near 0.63 instead of 0.9.
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
    """Come-Closer-Diffuse-Faster (Chung et al. 2022, alg. 1): noise an estimate to ``times[0] < 1`` and denoise it.

    The reverse chain contracts, so the error of the estimate shrinks at every step: the better the estimate, the later
    the start. Evaluations: the steps of the grid.
    """
    times = check_times(times)
    x = corruption.corrupt(estimate, times[0], generator=generator)
    return ancestral(projected(denoiser, project), corruption, x, times, cond=cond, generator=generator)


def _check_power(power: int) -> None:
    if power not in (1, 2):
        raise ValueError(f"power must be 1 (linear) or 2 (quadratic); got {power!r}")
