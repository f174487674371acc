"""Stochastic samplers, and Heun's method, which is stochastic with churn.

`ancestral` is the loop of the whole course. The others solve the reverse SDE, follow the probability flow with noise
added back, or take Langevin steps at each noise level. Each raises TypeError or ValueError for invalid arguments
before its first step, and FloatingPointError if none of its samples is finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.checks import check_count, check_end, check_start, is_pure_noise
from survey_lib.core.exponential import Level, ddim, levels, linear_combination
from survey_lib.core.protocols import Callback, Corruption, Denoiser, normal_like
from survey_lib.core.schedules import Schedule

#: A step ``x_s = bridge(x_t, x0, t, s, generator=...)``: a corruption's method, or `reverse_sde`.
Bridge = Callable[..., Tensor]


@torch.no_grad()
def ancestral(
    denoiser: Denoiser,
    corruption: Corruption,
    x: Tensor,
    times: Tensor,
    *,
    cond: Any = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Ancestral sampling (DDPM, alg. 2): the corruption's bridge with the denoiser's prediction in place of x0.

    ``x_s ~ q(x_s | x_t, x0 = E[x0 | x_t])``. Evaluations: ``steps``.

    x: the state at ``times[0]``, (B, ...), from ``corruption.prior``; integers for categories.
    times: falling times, see `grids`.
    cond: passed to the denoiser: None, (B, ...), or one integer label for all examples.
    callback: called with ``x_t, t, x0`` before each step.
    """
    times, cond = check_start(x, times, cond, generator, integers=True)
    for t, s in pairwise(times):
        x0 = denoiser(x, t, cond)
        if callback:
            callback(x, t, x0)
        x = corruption.bridge(x, x0, t, s, generator=generator)
    return check_end(x)


@torch.no_grad()
def euler_maruyama(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    cond: Any = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Euler-Maruyama steps of the reverse SDE in t (Score-SDE, eq. 6 and app. E); see `reverse_sde`.

    Weak order: 1. Evaluations: ``steps``.
    """
    return predictor_corrector(
        denoiser, schedule, x, times, corrections=0, cond=cond, generator=generator, callback=callback
    )


@torch.no_grad()
def predictor_corrector(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    bridge: Bridge | None = None,
    corrections: int = 1,
    snr: float = 0.16,
    cond: Any = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Predictor-corrector sampling: a step down in noise, then Langevin steps at the new level (Score-SDE, alg. 1).

    A correction is ``x + e score + sqrt(2 e) z`` with ``e = 2 (snr sigma)^2``. The paper's alg. 4 divides norms
    measured on the batch; this has their expectations ``|z| = sqrt(d), |score| = sqrt(d) / sigma``, so an example does
    not depend on the rest of its batch. The stationary distribution of the corrections is right up to order ``snr^2``.

    bridge: the predictor, such as the bridge of a corruption for ancestral steps; by default `reverse_sde`.
    corrections: number of Langevin steps at each level with noise.
    snr: size of a correction, finite and not negative.

    Evaluations: ``steps (1 + corrections)``, less ``corrections`` if the grid ends clean, where no score exists.
    """
    check_count("corrections", corrections, 0)
    if not 0 <= snr < math.inf:
        raise ValueError(f"snr is finite and not negative; got {snr!r}")
    bridge = bridge or reverse_sde(schedule)
    times, cond = check_start(x, times, cond, generator)
    grid = levels(schedule, times)
    for start, end in pairwise(grid):
        x0 = denoiser(x, start.t, cond)
        if callback:
            callback(x, start.t, x0)
        x = bridge(x, x0, start.t, end.t, generator=generator)
        for _ in range(corrections if end.sigma > 0 else 0):
            x = langevin_step(x, denoiser(x, end.t, cond), end, 4 * snr**2, generator)
    return check_end(x)


def reverse_sde(schedule: Schedule) -> Bridge:
    """Euler-Maruyama step of the reverse SDE (Score-SDE, eq. 6), as a bridge.

    ``x_s = x - (t - s) (f x - g^2 score) + g sqrt(t - s) z`` with ``score = (alpha x0 - x) / sigma^2``. A step to
    clean data omits the noise, which no later step would remove. Raises ValueError at pure noise, where the drift is
    unbounded.
    """

    def bridge(x: Tensor, x0: Tensor, t: Tensor, s: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        alpha, sigma = (value.item() for value in schedule.scales(t))
        if is_pure_noise(alpha, sigma):
            raise ValueError(
                f"the reverse SDE of {schedule.name} has no finite drift at t = {t:g}: start a little below"
            )
        f, g2 = (value.item() for value in schedule.drift_diffusion(t))
        span = float(t - s)
        x_s = linear_combination([1 - span * (f + g2 / sigma**2), span * g2 * alpha / sigma**2], [x, x0])
        if schedule.scales(s)[1] == 0:
            return x_s
        return x_s.add_(normal_like(x, generator), alpha=math.sqrt(g2 * span))

    return bridge


@torch.no_grad()
def heun(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    churn: float = 0.0,
    churn_range: tuple[float, float] = (0.0, math.inf),
    noise_scale: float = 1.0,
    cond: Any = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """EDM's sampler (Karras et al. 2022, alg. 2; alg. 1 without ``churn``) in any schedule.

    With ``y = x / alpha`` and ``u = sigma / alpha``, a step from u to u_next is ::

        u_hat = u (1 + gamma)                                # increase the noise temporarily
        y_hat = y + noise_scale sqrt(u_hat^2 - u^2) z
        d     = (y_hat - D(y_hat)) / u_hat                   # Euler step
        y     = y_hat + (u_next - u_hat) d
        d'    = (y - D(y)) / u_next                          # second-order correction
        y     = y_hat + (u_next - u_hat) (d + d') / 2

    with ``gamma = min(churn / steps, sqrt(2) - 1)`` for u within ``churn_range``, and 0 otherwise; u_hat is at most the
    largest u of the schedule.

    churn, noise_scale: EDM's S_churn and S_noise, not negative.
    churn_range: EDM's ``(S_min, S_max)``, in u.

    Order: 2 without churn. Evaluations: ``2 steps``; a step from pure noise or to clean data is Euler's, which is
    DDIM, and takes 1, so ``2 steps - 1`` on a grid that ends at 0. Draws random numbers only with churn.
    """
    _check_churn(churn, churn_range, noise_scale)
    times, cond = check_start(x, times, cond, generator)
    grid = levels(schedule, times)
    gamma = min(churn / (len(grid) - 1), math.sqrt(2) - 1)
    for start, raised, end in zip(grid, _churned(schedule, grid[:-1], gamma, churn_range), grid[1:], strict=False):
        if raised is not start:
            ratio = raised.alpha / start.alpha
            fresh = math.sqrt(raised.sigma**2 - (ratio * start.sigma) ** 2) * noise_scale
            x = linear_combination([ratio, fresh], [x, normal_like(x, generator)])
        x0 = denoiser(x, raised.t, cond)
        if callback:
            callback(x, raised.t, x0)
        y = linear_combination(ddim(raised, end), [x, x0])
        if math.isfinite(end.lam - raised.lam):
            # In x = alpha y the last line is x_s = (y + ratio x + (sigma_s - ratio sigma) eps_s) / 2 with y the Euler
            # step and eps_s = (y - alpha_s x0_s) / sigma_s; the coefficients of y, x and x0_s are collected.
            ratio = end.alpha / raised.alpha
            share = 1 - ratio * raised.sigma / end.sigma
            x0_s = denoiser(y, end.t, cond)
            y = linear_combination([(1 + share) / 2, ratio / 2, -share * end.alpha / 2], [y, x, x0_s])
        x = y
    return check_end(x)


def _check_churn(churn: float, churn_range: tuple[float, float], noise_scale: float) -> None:
    if not (churn >= 0 and noise_scale >= 0):
        raise ValueError(f"churn and noise_scale are not negative; got {churn:g} and {noise_scale:g}")
    low, high = churn_range
    if not low <= high:
        raise ValueError(f"churn_range is (low, high) with low <= high; got ({low:g}, {high:g})")


def _churned(schedule: Schedule, grid: list[Level], gamma: float, churn_range: tuple[float, float]) -> list[Level]:
    """The levels after churning: the same objects where no noise is added."""
    low, high = churn_range
    noisiest = schedule.lam(1.0).item()
    raised = []
    for level in grid:
        lam = max(level.lam - math.log1p(gamma), noisiest)
        if gamma > 0 and lam < level.lam and low <= math.exp(-level.lam) <= high:
            level = levels(schedule, schedule.time(lam)[None])[0]
        raised.append(level)
    return raised


def langevin_step(x: Tensor, x0: Tensor, at: Level, rate: float, generator: torch.Generator | None) -> Tensor:
    """Langevin step ``x + (a / 2) score + sqrt(a) z``, ``a = rate sigma^2``, ``score = (alpha x0 - x) / sigma^2``."""
    z = normal_like(x, generator)
    return linear_combination([1 - rate / 2, rate / 2 * at.alpha, math.sqrt(rate) * at.sigma], [x, x0, z])
