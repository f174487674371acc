"""A stochastic solver that chooses its steps: "Gotta go fast" (Jolicoeur-Martineau et al. 2021)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from survey_lib.core import protocols
from survey_lib.core.exponential import PURE_NOISE
from survey_lib.core.protocols import Callback, Denoiser, check_times, expand
from survey_lib.core.schedules import Schedule

_SAFETY, _POWER = 0.9, 0.9  # theta and r of alg. 1


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
    cond: Any = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """The reverse SDE in steps that an error estimate chooses (Jolicoeur-Martineau et al. 2021, alg. 1).

    A step of Euler-Maruyama gives x'; a second from there with the same noise, averaged with it, is the stochastic
    improved Euler x''. With ``d = max(atol, rtol max(|x'|, |x'_before|))`` the error of an example is the root mean
    square of ``(x' - x'') / d``. At most 1: x'' is taken; above: the step is tried again, with new noise. The next step
    is ``0.9 error^-0.9`` times as long. Every example has its own time and its own steps. (Noise drawn anew after a
    refusal favours small noises slightly: a bias that refusals, which are rare, keep small.)

    ``times`` says where to begin and where to end, not how to step: ``[1, 1e-3, 0]`` ends at 1e-3 and takes the
    denoiser's answer there. Their defaults for bytes: ``atol`` one grey value, ``rtol`` 0.01 to 0.05.

    Evaluations: two for every step tried, of the examples still under way, and one for a step to 0. Raises
    RuntimeError where an example would need more than ``limit``, and if the state is no number any more.
    """
    times = check_times(times)
    clean = bool(schedule.scales(times[-1])[1] == 0)
    end = times[-2] if clean else times[-1]
    _check(schedule, times[0], end, rtol, atol, first)
    x, before = x.clone(), x.clone()
    t = times[0].repeat(len(x))
    h = torch.full_like(t, first)
    for _ in range((limit - clean) // 2):
        rows = (t > end).nonzero()[:, 0]
        if not len(rows):
            break
        at, some = x.device, _rows(cond, rows, len(x))
        here, span = t[rows], torch.minimum(h[rows], t[rows] - end)
        there = torch.where(span < here - end, here - span, end)
        y = x[rows.to(at)]
        x0 = denoiser(y, here, some)
        if callback:
            callback(y, here, x0)
        z = protocols.normal(y.shape, generator, y.dtype).to(at)
        euler = _euler(schedule, y, y, x0, here, span, z)
        ahead = denoiser(euler, there, some)
        improved = (euler + _euler(schedule, y, euler, ahead, there, span, z)) / 2
        scale = (rtol * torch.maximum(euler.abs(), before[rows.to(at)].abs())).clamp_min(atol)
        error = ((euler - improved) / scale).flatten(1).square().mean(1).sqrt().double().cpu()
        if not error.isfinite().all():
            raise RuntimeError("the state is no number any more: a smaller first step or tolerance may help")
        taken = rows[error <= 1]
        x[taken.to(at)], before[taken.to(at)] = improved[(error <= 1).to(at)], euler[(error <= 1).to(at)]
        t[taken] = there[error <= 1]
        h[rows] = _SAFETY * span * error**-_POWER
    else:
        if (t > end).any():
            late = int((t > end).sum())
            raise RuntimeError(f"{late} of {len(x)} examples need more than {limit} evaluations at this tolerance")
    if not clean:
        return x
    x0 = denoiser(x, end, cond)
    if callback:
        callback(x, end, x0)
    return x0


def _euler(schedule: Schedule, start: Tensor, at: Tensor, x0: Tensor, t: Tensor, span: Tensor, z: Tensor) -> Tensor:
    """``start - span (f at - g^2 score) + g sqrt(span) z`` with the drift and the noise of time t, (B,) each."""
    alpha, sigma = schedule.scales(t)
    f, g2 = schedule.drift_diffusion(t)
    on_x, on_x0 = span * (f + g2 / sigma**2), span * g2 * alpha / sigma**2
    return start - expand(on_x, at) * at + expand(on_x0, at) * x0 + expand((g2 * span).sqrt(), at) * z


def _rows(cond: Any, rows: Tensor, count: int) -> Any:
    """The conditions of some examples, where every example has its own."""
    return cond[rows.to(cond.device)] if isinstance(cond, Tensor) and cond.ndim and len(cond) == count else cond


def _check(schedule: Schedule, start: Tensor, end: Tensor, rtol: float, atol: float, first: float) -> None:
    if not (rtol >= 0 and atol >= 0 and rtol + atol > 0 and first > 0):
        raise ValueError(
            f"tolerances are not negative, one of them positive, and the first step is; got rtol {rtol:g}, "
            f"atol {atol:g}, first {first:g}"
        )
    if not end < start:
        raise ValueError("a grid that ends at 0 needs a time before it to stop at, such as [1, 1e-3, 0]")
    alpha, sigma = schedule.scales(start)
    if alpha < PURE_NOISE * sigma:
        raise ValueError(
            f"the reverse SDE of {schedule.name} has no finite drift at t = {start:g}: start a little below"
        )
