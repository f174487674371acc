"""Samplers that draw fresh noise on the way, and Heun's method, which may.

`ancestral` is the loop that all of the course is about. The others differ in how they step: down the reverse
stochastic differential equation, along the probability flow with noise added back, or with Langevin steps between.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from survey_lib.core import protocols
from survey_lib.core.exponential import PURE_NOISE, Level, ddim, levels, linear_combination
from survey_lib.core.protocols import Callback, Corruption, Denoiser, check_times
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
    """Walk back over the corruption's bridge with the denoiser's answer in place of x0 (DDPM, alg. 2).

    ``x_s ~ q(x_s | x_t, x0 = E[x0 | x_t])``. Evaluations: ``steps``.
    """
    for t, s in pairwise(check_times(times)):
        x0 = denoiser(x, t, cond)
        if callback:
            callback(x, t, x0)
        x = corruption.bridge(x, x0, t, s, generator=generator)
    return x


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
    """The reverse-time equation in plain steps of t (Score-SDE, eq. 6 and app. E); see `reverse_sde`.

    Its law is right to order 1 in the step. Evaluations: ``steps``.
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
    """A step down in noise, then Langevin steps at the new level (Score-SDE, alg. 1).

    The predictor is ``bridge``: a corruption's, for an ancestral one, or `reverse_sde` if none is given. A
    correction is ``x + e score + sqrt(2 e) z`` with ``e = 2 (snr sigma)^2``. The paper's alg. 4 divides norms
    measured on the batch where this has their expectations ``|z| = sqrt(d), |score| = sqrt(d) / sigma``: so an
    example does not depend on its neighbours. Corrections alone settle on the right law up to order ``snr^2``.

    Evaluations: ``steps (1 + corrections)``, less ``corrections`` if the grid ends clean, where no score exists.
    """
    if isinstance(corrections, bool) or not isinstance(corrections, int) or corrections < 0:
        raise ValueError(f"corrections is a whole number, 0 or more; got {corrections!r}")
    bridge = bridge or reverse_sde(schedule)
    grid = levels(schedule, check_times(times))
    for start, end in pairwise(grid):
        x0 = denoiser(x, start.t, cond)
        if callback:
            callback(x, start.t, x0)
        x = bridge(x, x0, start.t, end.t, generator=generator)
        for _ in range(corrections if end.sigma > 0 else 0):
            x = langevin_step(x, denoiser(x, end.t, cond), end, 4 * snr**2, generator)
    return x


def reverse_sde(schedule: Schedule) -> Bridge:
    """One Euler-Maruyama step of the reverse-time equation (Score-SDE, eq. 6), as a bridge.

    ``x_s = x - (t - s) (f x - g^2 score) + g sqrt(t - s) z`` with ``score = (alpha x0 - x) / sigma^2``. A step to
    clean data leaves out the noise, which nothing would remove again. Raises ValueError where alpha is 0: the
    drift has no bound there.
    """

    def bridge(x: Tensor, x0: Tensor, t: Tensor, s: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        alpha, sigma = (value.item() for value in schedule.scales(t))
        if alpha < PURE_NOISE * sigma:
            raise ValueError(
                f"the reverse SDE of {schedule.name} has no finite drift at t = {t:g}: start a little below"
            )
        f, g2 = (value.item() for value in schedule.drift_diffusion(t))
        span = float(t - s)
        x_s = linear_combination([1 - span * (f + g2 / sigma**2), span * g2 * alpha / sigma**2], [x, x0])
        if schedule.scales(s)[1] == 0:
            return x_s
        return x_s.add_(_noise_like(x, generator), alpha=math.sqrt(g2 * span))

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

    On ``x / alpha`` and ``u = sigma / alpha``: go up to ``u (1 + gamma)`` with fresh noise, where ``gamma =
    min(churn / steps, sqrt(2) - 1)`` if u lies in ``churn_range``, but no higher than the schedule reaches; down
    along the slope found there; then again along the mean of that slope and the one found below.

    Order: 2 without churn. Evaluations: ``2 steps``; a step from pure noise or to clean data is Euler's (which is
    DDIM) and takes 1, so ``2 steps - 1`` on a grid that ends at 0. Random numbers are drawn only if churned.
    """
    if not (churn >= 0 and noise_scale >= 0):
        raise ValueError(f"churn and noise_scale are not negative; got {churn:g} and {noise_scale:g}")
    grid = levels(schedule, check_times(times))
    gamma = min(churn / (len(grid) - 1), math.sqrt(2) - 1)
    for start, raised, end in zip(grid, _churned(schedule, grid[:-1], gamma, churn_range), grid[1:], strict=False):
        if raised is not start:
            ratio = raised.alpha / start.alpha
            fresh = math.sqrt(raised.sigma**2 - (ratio * start.sigma) ** 2) * noise_scale
            x = linear_combination([ratio, fresh], [x, _noise_like(x, generator)])
        x0 = denoiser(x, raised.t, cond)
        if callback:
            callback(x, raised.t, x0)
        y = linear_combination(ddim(raised, end), [x, x0])
        if math.isfinite(end.lam - raised.lam):
            # The mean of y and of the step whose slope is eps_s = (y - alpha_s x0_s) / sigma_s:
            ratio = end.alpha / raised.alpha
            share = 1 - ratio * raised.sigma / end.sigma
            x0_s = denoiser(y, end.t, cond)
            y = linear_combination([(1 + share) / 2, ratio / 2, -share * end.alpha / 2], [y, x, x0_s])
        x = y
    return x


def _churned(schedule: Schedule, grid: list[Level], gamma: float, churn_range: tuple[float, float]) -> list[Level]:
    """The levels after churning: the same objects where nothing is added."""
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
    """``x + (a / 2) score + sqrt(a) z`` with ``a = rate sigma^2`` and ``score = (alpha x0 - x) / sigma^2``."""
    z = _noise_like(x, generator)
    return linear_combination([1 - rate / 2, rate / 2 * at.alpha, math.sqrt(rate) * at.sigma], [x, x0, z])


def _noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return protocols.normal(x.shape, generator, x.dtype).to(x.device)
