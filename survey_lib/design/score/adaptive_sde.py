"""The reverse SDE with adaptive step sizes: "Gotta Go Fast" (Jolicoeur-Martineau et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.checks import check_start, is_pure_noise
from survey_lib.core.protocols import Callback, Denoiser, expand
from survey_lib.core.schedules import Schedule
from survey_lib.design.score.brownian import BrownianPaths

_THETA, _R = 0.9, 0.9  # safety factor and exponent of alg. 1


@torch.no_grad()
def adaptive_sde(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    rtol: float = 0.02,
    atol: float = 2 / 256,
    first: float = 0.01,
    limit: int = 2000,
    redraw: bool = False,
    cond: Any = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Sample the reverse SDE with step sizes from an error estimate (Jolicoeur-Martineau et al. 2021, alg. 1).

    A step of Euler-Maruyama gives x'. A second one with the drift and diffusion at its end and the same noise, averaged
    with x', is the stochastic improved Euler x''. The error of an example is the root mean square of
    ``(x' - x'') / delta`` with ``delta = max(atol, rtol max(|x'|, |x'_previous|))``. If it is at most 1, x'' is
    accepted; otherwise a shorter step is tried. The next step is ``0.9 error^-0.9`` times as long. Each example has its
    own time and its own steps.

    times: the start and the end of the trajectory, not its steps: ``[1, 1e-3, 0]`` stops at 1e-3 and returns the
        denoiser's prediction there.
    rtol, atol: tolerances; for 8-bit images the paper has ``atol`` one grey value and ``rtol`` 0.01 to 0.05.
    first: size of the first step.
    limit: evaluations per example at most.
    redraw: draw new noise after a rejected step, as published, which favours small noises: a large bias in one
        dimension, a negligible one in hundreds. By default the Brownian path is kept and refined (`BrownianPaths`).

    Evaluations: two per attempted step, of the examples that have not arrived, and one for a step to 0. Raises
    RuntimeError if an example needs more than ``limit``, and if the state is not finite.
    """
    times, cond = check_start(x, times, cond, generator)
    clean = bool(schedule.scales(times[-1])[1] == 0)
    end = times[-2] if clean else times[-1]
    _check(schedule, times[0], end, rtol, atol, first)
    sde = _ReverseSDE(denoiser, schedule, cond, len(x), callback)
    x, previous, paths = x.clone(), x.clone(), BrownianPaths(x)
    t = times[0].repeat(len(x))
    h, attempts = torch.full_like(t, first), 0
    while len(rows := (t > end).nonzero()[:, 0]):
        attempts += 1
        if 2 * attempts + clean > limit:
            raise RuntimeError(f"{len(rows)} of {len(x)} examples need more than {limit} evaluations: allow more error")
        at = rows.to(x.device)
        step, dw = paths.step(rows, torch.minimum(h[rows], t[rows] - end), generator)
        s = t[rows] - step
        s = torch.where(s - end < 1e-12, end, s)
        euler, improved = sde.improved_euler(x[at], t[rows], s, dw, rows)
        error = _error(euler, improved, previous[at], rtol, atol)
        accepted = error <= 1
        on_device = accepted.to(x.device)
        x[at[on_device]], previous[at[on_device]] = improved[on_device], euler[on_device]
        t[rows[accepted]] = s[accepted]
        h[rows] = _THETA * step * error**-_R
        if not redraw:
            paths.reject(rows[~accepted], step[~accepted], dw[~on_device])
    return sde.predict(x, end) if clean else x


def _error(euler: Tensor, improved: Tensor, previous: Tensor, rtol: float, atol: float) -> Tensor:
    """Root mean square of ``(x' - x'') / delta`` for each example: (R,) in float64 on the CPU."""
    delta = (rtol * torch.maximum(euler.abs(), previous.abs())).clamp_min(atol)
    error = ((euler - improved) / delta).flatten(1).square().mean(1).sqrt().double().cpu()
    if not error.isfinite().all():
        raise RuntimeError("the state is not finite: a smaller first step or tolerance may help")
    return error


@dataclass(frozen=True)
class _ReverseSDE:
    """Steps of ``dx = (f x - g^2 score) dt + g dW`` for some of ``count`` examples."""

    denoiser: Denoiser
    schedule: Schedule
    cond: Any
    count: int
    callback: Callback | None

    def improved_euler(self, x: Tensor, t: Tensor, s: Tensor, dw: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """x' and x'' at s (R,) of the examples ``rows``, from x at t (R,) with the Brownian increment ``dw``."""
        euler = self._euler(x, x, self.predict(x, t, rows), t, t - s, dw)
        second = self._euler(x, euler, self.denoiser(euler, s, self._cond(rows)), s, t - s, dw)
        return euler, (euler + second) / 2

    def predict(self, x: Tensor, t: Tensor, rows: Tensor | None = None) -> Tensor:
        """The denoiser's prediction, which the callback sees."""
        x0 = self.denoiser(x, t, self._cond(rows))
        if self.callback:
            self.callback(x, t, x0)
        return x0

    def _euler(self, start: Tensor, at: Tensor, x0: Tensor, t: Tensor, step: Tensor, dw: Tensor) -> Tensor:
        """``start - step (f at - g^2 score) + g dw``, ``score = (alpha x0 - at) / sigma^2``, f and g at t (R,)."""
        alpha, sigma = self.schedule.scales(t)
        f, g2 = self.schedule.drift_diffusion(t)
        on_x, on_x0 = step * (f + g2 / sigma**2), step * g2 * alpha / sigma**2
        return start - expand(on_x, at) * at + expand(on_x0, at) * x0 + expand(g2.sqrt(), at) * dw

    def _cond(self, rows: Tensor | None) -> Any:
        cond = self.cond
        each = isinstance(cond, Tensor) and cond.ndim and len(cond) == self.count  # one condition per example
        return cond[rows.to(cond.device)] if each and rows is not None else cond


def _check(schedule: Schedule, start: Tensor, end: Tensor, rtol: float, atol: float, first: float) -> None:
    if not (rtol >= 0 and atol >= 0 and rtol + atol > 0 and first > 0):
        raise ValueError(
            f"tolerances must not be negative, one of them and the first step must be positive; got rtol {rtol:g}, "
            f"atol {atol:g}, first {first:g}"
        )
    if not end < start:
        raise ValueError("a grid that ends at 0 needs a time before it to stop at, such as [1, 1e-3, 0]")
    alpha, sigma = schedule.scales(start)
    if is_pure_noise(alpha, sigma):
        raise ValueError(
            f"the reverse SDE of {schedule.name} has no finite drift at t = {start:g}: start at an earlier time"
        )
