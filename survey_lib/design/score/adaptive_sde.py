"""A stochastic solver that chooses its steps: "Gotta go fast" (Jolicoeur-Martineau et al. 2021)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from survey_lib.core import protocols
from survey_lib.core.checks import check_times, is_pure_noise
from survey_lib.core.protocols import Callback, Denoiser, expand
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
    redraw: bool = False,
    cond: Any = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """The reverse SDE in steps that an error estimate chooses (Jolicoeur-Martineau et al. 2021, alg. 1).

    A step of Euler-Maruyama gives x'; a second from there with the same noise, averaged with it, is the stochastic
    improved Euler x''. With ``d = max(atol, rtol max(|x'|, |x'_before|))`` the error of an example is the root mean
    square of ``(x' - x'') / d``. At most 1: x'' is taken; above: a shorter step is tried. The next step is ``0.9
    error^-0.9`` times as long. Every example has its own time and its own steps.

    A refused step has seen its noise, and noise that leads to large errors is large. ``redraw`` draws it anew, as
    published: small noises are favoured, by much in one dimension and by nothing to speak of in the hundreds, where
    all noises are equally large. Without it the path stays and is drawn more finely (see `_Paths`).

    ``times`` says where to begin and where to end, not how to step: ``[1, 1e-3, 0]`` ends at 1e-3 and takes the
    denoiser's answer there. Their tolerances for bytes: ``atol`` one grey value, ``rtol`` 0.01 to 0.05.

    Evaluations: two for every step tried, of the examples still under way, and one for a step to 0. Raises
    RuntimeError where an example would need more than ``limit``, and if the state is no number any more.
    """
    times = check_times(times)
    clean = bool(schedule.scales(times[-1])[1] == 0)
    end = times[-2] if clean else times[-1]
    _check(schedule, times[0], end, rtol, atol, first)
    x, before, paths = x.clone(), x.clone(), _Paths(x)
    t = times[0].repeat(len(x))
    h, tries = torch.full_like(t, first), 0
    while len(rows := (t > end).nonzero()[:, 0]):
        tries += 1
        if 2 * tries + clean > limit:
            raise RuntimeError(f"{len(rows)} of {len(x)} examples need more than {limit} evaluations: allow more error")
        at, here, some = rows.to(x.device), t[rows], _rows(cond, rows, len(x))
        span, rise = paths.ahead(rows, torch.minimum(h[rows], here - end), generator)
        there = torch.where(here - span - end < 1e-12, end, here - span)
        euler, improved = _try(denoiser, schedule, x[at], here, there, rise, some, callback)
        scale = (rtol * torch.maximum(euler.abs(), before[at].abs())).clamp_min(atol)
        error = ((euler - improved) / scale).flatten(1).square().mean(1).sqrt().double().cpu()
        if not error.isfinite().all():
            raise RuntimeError("the state is no number any more: a smaller first step or tolerance may help")
        good = error <= 1
        taken = good.to(x.device)
        x[at[taken]], before[at[taken]], t[rows[good]] = improved[taken], euler[taken], there[good]
        h[rows] = _SAFETY * span * error**-_POWER
        if not redraw:
            paths.keep(rows[~good], span[~good], rise[~taken])
    return _ask(denoiser, x, end, cond, callback) if clean else x


def _try(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    t: Tensor,
    s: Tensor,
    rise: Tensor,
    cond: Any,
    callback: Callback | None,
) -> tuple[Tensor, Tensor]:
    """One step of Euler-Maruyama from t to s, each (B,), along a path that rises by ``rise``, and its improvement."""
    euler = _euler(schedule, x, x, _ask(denoiser, x, t, cond, callback), t, t - s, rise)
    onward = _euler(schedule, x, euler, denoiser(euler, s, cond), s, t - s, rise)
    return euler, (euler + onward) / 2


def _ask(denoiser: Denoiser, x: Tensor, t: Tensor, cond: Any, callback: Callback | None) -> Tensor:
    x0 = denoiser(x, t, cond)
    if callback:
        callback(x, t, x0)
    return x0


class _Paths:
    """Brownian paths, one an example, that remember what was drawn of them ahead of where they stand.

    Ahead lie intervals on a stack, the nearest on top, of which only the whole rise is known: a shorter step is
    drawn from the bridge to its end, ``N(share rise, span (1 - share))``, and no step reaches beyond.
    """

    def __init__(self, like: Tensor):
        self.depth = torch.zeros(len(like), dtype=torch.long)
        self.spans = torch.zeros(1, len(like), dtype=torch.float64)
        self.rises = like.new_zeros(1, *like.shape)

    def ahead(self, rows: Tensor, span: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """The span of the next step, as wanted or up to the first known point, and the rise of the path over it."""
        top = (self.depth[rows] - 1).clamp_min(0)
        known = torch.where(self.depth[rows] > 0, self.spans[top, rows], torch.inf)
        rise = self.rises[top.to(self.rises.device), rows.to(self.rises.device)]
        span = torch.minimum(span, known)
        share = span / known  # 0 where nothing is known
        z = protocols.normal(rise.shape, generator, rise.dtype).to(rise.device)
        step = expand(share, rise) * rise + expand((span * (1 - share)).sqrt(), rise) * z
        self.spans[top, rows] = (known - span).nan_to_num(posinf=0)
        self.rises[top.to(rise.device), rows.to(rise.device)] = rise - step
        self.depth[rows] -= (span == known).long()
        return span, step

    def keep(self, rows: Tensor, span: Tensor, rise: Tensor) -> None:
        """Put a step back that was not taken."""
        if len(rows) and int(self.depth[rows].max()) == len(self.spans):
            self.spans = torch.cat([self.spans, torch.zeros_like(self.spans)])
            self.rises = torch.cat([self.rises, torch.zeros_like(self.rises)])
        at, self.depth[rows] = self.depth[rows], self.depth[rows] + 1
        self.spans[at, rows] = span
        self.rises[at.to(rise.device), rows.to(rise.device)] = rise


def _euler(schedule: Schedule, start: Tensor, at: Tensor, x0: Tensor, t: Tensor, span: Tensor, rise: Tensor) -> Tensor:
    """``start - span (f at - g^2 score) + g rise`` with the drift and the noise of time t, (B,) each."""
    alpha, sigma = schedule.scales(t)
    f, g2 = schedule.drift_diffusion(t)
    on_x, on_x0 = span * (f + g2 / sigma**2), span * g2 * alpha / sigma**2
    return start - expand(on_x, at) * at + expand(on_x0, at) * x0 + expand(g2.sqrt(), at) * rise


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
    if is_pure_noise(alpha, sigma):
        raise ValueError(
            f"the reverse SDE of {schedule.name} has no finite drift at t = {start:g}: start a little below"
        )
