"""Grids judged by what they do: where their error arises, and the search for one that has less of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from survey_lib.core.exponential import Level, ddim, levels, linear_combination
from survey_lib.core.integrators import multistep
from survey_lib.core.protocols import Denoiser, check_times
from survey_lib.core.schedules import Schedule

#: A number that is small for a good grid.
Objective = Callable[[Tensor], float]


def trajectory_error(
    denoiser: Denoiser, schedule: Schedule, x: Tensor, reference: Tensor, *, sampler: Callable[..., Tensor] = multistep
) -> Objective:
    """The measure ``times -> RMS(sampler(x, times) - reference)``, ``reference`` being where a fine grid leads from x.

    What align-your-steps (Sabour et al. 2024) wants small, seen at the end of the path. ``sampler(denoiser, schedule,
    x, times)`` is `integrators.multistep` of order 2 or a `partial` of another.
    """

    def error(times: Tensor) -> float:
        return (sampler(denoiser, schedule, x, times) - reference).square().mean().sqrt().item()

    return error


@torch.no_grad()
def error_by_step(denoiser: Denoiser, schedule: Schedule, x: Tensor, times: Tensor, *, fine: int = 8) -> Tensor:
    """The error at the end that each step of a DDIM grid causes alone: (steps,), RMS.

    All of the path is walked in steps ``fine`` times as short (second order), but for step i, which is taken at once.
    The last step, to clean data, is the same for all, and its share is that of ending there: it is refined in lam
    down to 1 / 20 of the noise it starts from. Evaluations: about ``fine steps^2 / 2``.
    """
    grid = levels(schedule, check_times(times))
    if fine < 2:
        raise ValueError(f"the fine path has at least 2 steps for one; got {fine}")
    pieces = [_refined(schedule, start, end, fine) for start, end in pairwise(grid)]
    walk = partial(multistep, denoiser, schedule, order=2)
    states = list(itertools.accumulate(pieces, walk, initial=x))
    shares = []
    for i, (start, end) in enumerate(pairwise(grid)):
        y = linear_combination(ddim(start, end), [states[i], denoiser(states[i], start.t)])
        for piece in pieces[i + 1 :]:
            y = walk(y, piece)
        shares.append((y - states[-1]).square().mean().sqrt().cpu())
    return torch.stack(shares)


def _refined(schedule: Schedule, start: Level, end: Level, fine: int) -> Tensor:
    """A step cut into ``fine`` in lam, in t from pure noise, and to clean data down to 1 / 20 of its noise."""
    if math.isinf(start.lam):
        return torch.linspace(start.t.item(), end.t.item(), fine + 1, dtype=torch.float64)
    low = end.lam if math.isfinite(end.lam) else start.lam + math.log(20)
    inner = torch.linspace(start.lam, low, fine + 1 if math.isfinite(end.lam) else fine, dtype=torch.float64)
    times = schedule.time(inner)
    times[0] = start.t
    if math.isfinite(end.lam):
        times[-1] = end.t
        return times
    return torch.cat([times, end.t[None]])


@dataclass(frozen=True)
class Search:
    """What a search found: the grid, its value, how many grids were tried, and the best value after each."""

    times: Tensor
    value: float
    tried: int
    history: tuple[float, ...]


def coordinate_search(
    objective: Objective,
    schedule: Schedule,
    times: Tensor,
    *,
    rounds: int = 4,
    reach: float = 0.4,
    shrink: float = 0.5,
) -> Search:
    """Move one inner time at a time, and keep the move if the objective falls (align-your-steps, in small).

    A time moves in lam, by ``reach`` mean gaps and never past its neighbour; the two ends stay. After a round in
    which no time moved, ``reach`` is multiplied by ``shrink``. The result is never worse than ``times``
    *on this objective*: search on one set of noises, and report on another.
    """
    if not (rounds >= 1 and reach > 0 and 0 < shrink <= 1):
        raise ValueError(f"rounds >= 1, reach > 0, 0 < shrink <= 1; got {rounds}, {reach:g}, {shrink:g}")
    times = check_times(times)
    value = objective(times)
    history = [value]
    for _ in range(rounds):
        moved = 0
        for i in range(1, len(times) - 1):
            for direction in (-1, 1):
                trial = _moved(schedule, times, i, direction * reach)
                found = objective(trial)
                if found < value:
                    times, value, moved = trial, found, moved + 1
                history.append(value)
                if times is trial:
                    break
        if not moved:
            reach *= shrink
    return Search(times, value, len(history), tuple(history))


def _moved(schedule: Schedule, times: Tensor, i: int, by: float) -> Tensor:
    """The grid with time i moved by a part of the mean gap in lam, and no more than 0.6 of the way to its neighbour."""
    lam = [level.lam for level in levels(schedule, times)]
    known = [value for value in lam if math.isfinite(value)]
    mean = (known[-1] - known[0]) / (len(known) - 1) if len(known) > 1 else 1.0
    gap = lam[i + 1] - lam[i] if by > 0 else lam[i] - lam[i - 1]
    trial = times.clone()
    trial[i] = schedule.time(lam[i] + math.copysign(min(abs(by) * mean, 0.6 * gap), by))
    return trial


def resample_grid(times: Tensor, steps: int, schedule: Schedule) -> Tensor:
    """A grid found for one number of steps, for another: its lam as a function of i / steps, made of straight lines.

    So align-your-steps (Sabour et al. 2024) serves every number with one search. The first and the last finite lam
    stay, and so does the end. A first time of pure noise, where no line in lam begins, is kept as it is.
    Raises ValueError for fewer than 2 steps.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
        raise ValueError(f"a resampled grid keeps both ends and has 2 steps or more; got {steps!r}")
    times = check_times(times)
    if steps == len(times) - 1:
        return times
    lam = torch.tensor([level.lam for level in levels(schedule, times)], dtype=torch.float64)
    known = lam.isfinite()
    body, head, tail = lam[known], times[: int(known.nonzero()[0])], times[int(known.nonzero()[-1]) + 1 :]
    count = steps + 1 - len(head) - len(tail)
    at = torch.linspace(0, len(body) - 1, count, dtype=torch.float64)
    left = at.floor().long().clamp(max=max(len(body) - 2, 0))
    found = torch.lerp(body[left], body[(left + 1).clamp(max=len(body) - 1)], at - left)
    inner = schedule.time(found)
    inner[0] = times[known][0]
    return check_times(torch.cat([head, inner, tail]))


def exhaustive_search(objective: Objective, candidates: Tensor, steps: int, *, limit: int = 5000) -> Search:
    """Every grid of ``steps`` steps whose inner times are among those of ``candidates``; both ends are kept.

    The yardstick of learned schedules (BDDM, Lam et al. 2022, compares with such a search). Raises ValueError where
    there are more than ``limit`` grids.
    """
    candidates = check_times(candidates)
    inner, count = candidates[1:-1], math.comb(len(candidates) - 2, steps - 1) if steps >= 1 else 0
    if not 1 <= count <= limit:
        raise ValueError(f"{len(candidates) - 1} steps thinned to {steps!r} make {count} grids; 1 to {limit} are tried")
    best, value, history = None, math.inf, []
    for chosen in itertools.combinations(range(len(inner)), steps - 1):
        trial = torch.cat([candidates[:1], inner[list(chosen)], candidates[-1:]])
        found = objective(trial)
        if best is None or found < value:
            best, value = trial, found
        history.append(value)
    return Search(best, value, count, tuple(history))
