"""Search for grids by the error of their samples: where the error arises, and grids that reduce it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from survey_lib.core.checks import check_count, check_times
from survey_lib.core.exponential import Level, ddim, levels, linear_combination
from survey_lib.core.integrators import multistep
from survey_lib.core.protocols import Denoiser
from survey_lib.core.schedules import Schedule

#: ``times -> value``, to be minimised over grids.
Objective = Callable[[Tensor], float]


def trajectory_error(
    denoiser: Denoiser, schedule: Schedule, x: Tensor, reference: Tensor, *, sampler: Callable[..., Tensor] = multistep
) -> Objective:
    """The objective ``times -> RMS(sampler(x, times) - reference)``; the reference is the end of a fine trajectory.

    The discretisation error that align-your-steps (Sabour et al. 2024) minimises, measured at the end of the
    trajectory. ``sampler(denoiser, schedule, x, times)`` is `integrators.multistep` of order 2 or a `partial` of
    another sampler.
    """

    def error(times: Tensor) -> float:
        return (sampler(denoiser, schedule, x, times) - reference).square().mean().sqrt().item()

    return error


@torch.no_grad()
def error_by_step(denoiser: Denoiser, schedule: Schedule, x: Tensor, times: Tensor, *, fine: int = 8) -> Tensor:
    """Error at the end of the trajectory that each step of a DDIM grid causes alone: (steps, B), RMS of each example.

    The trajectory takes steps ``fine`` times as short (second order), except for step i, which is one DDIM step. The
    last step, to clean data, is refined in lam down to 1 / 20 of the noise it starts from. Evaluations: about
    ``fine steps^2 / 2``.
    """
    grid = levels(schedule, check_times(times))
    check_count("fine", fine, 2)
    pieces = [_refined(schedule, start, end, fine) for start, end in pairwise(grid)]
    solve = partial(multistep, denoiser, schedule, order=2)
    states = list(itertools.accumulate(pieces, solve, initial=x))
    errors = []
    for i, (start, end) in enumerate(pairwise(grid)):
        y = linear_combination(ddim(start, end), [states[i], denoiser(states[i], start.t)])
        for piece in pieces[i + 1 :]:
            y = solve(y, piece)
        errors.append((y - states[-1]).flatten(1).square().mean(1).sqrt().cpu())
    return torch.stack(errors)


def _refined(schedule: Schedule, start: Level, end: Level, fine: int) -> Tensor:
    """Divide a step into ``fine``: in lam, to clean data down to 1 / 20 of its noise; in t from pure noise."""
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
    """Result of a search: the best grid, its value, the number of grids tried, and the best value after each."""

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
    """Coordinate search: move one inner time at a time and keep the move if the objective falls.

    A simple form of align-your-steps (Sabour et al. 2024). A time moves in lam by ``reach`` mean gaps, never past its
    neighbour; both ends stay. After a round without a move, ``reach`` is multiplied by ``shrink``. The result is never
    worse than ``times`` *on this objective*: search on one set of noises, and report on another.
    """
    if not (rounds >= 1 and reach > 0 and 0 < shrink <= 1):
        raise ValueError(f"need rounds >= 1, reach > 0 and 0 < shrink <= 1; got {rounds}, {reach:g} and {shrink:g}")
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
    """The grid with time i moved in lam by ``by`` mean gaps, at most 0.6 of the way to its neighbour."""
    lam = [level.lam for level in levels(schedule, times)]
    known = [value for value in lam if math.isfinite(value)]
    mean = (known[-1] - known[0]) / (len(known) - 1) if len(known) > 1 else 1.0
    gap = lam[i + 1] - lam[i] if by > 0 else lam[i] - lam[i - 1]
    trial = times.clone()
    trial[i] = schedule.time(lam[i] + math.copysign(min(abs(by) * mean, 0.6 * gap), by))
    return trial


def resample_grid(times: Tensor, steps: int, schedule: Schedule) -> Tensor:
    """Resample a grid to another number of steps: linear interpolation of its lam as a function of i / steps.

    Align-your-steps (Sabour et al. 2024) uses one search for every number of steps in this way. The first and the last
    finite lam stay, and so do a first time of pure noise and the end. Raises ValueError for fewer than 2 steps.
    """
    check_count("the number of steps of a resampled grid", steps, 2)
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
