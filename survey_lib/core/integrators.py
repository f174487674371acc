"""Deterministic samplers: integrators of the probability-flow ODE, from noise to data.

All take ``(denoiser, schedule, x, times)``, with ``x`` the state at ``times[0]``, and return the state at
``times[-1]``. The denoiser always predicts ``E[x0 | x_t]``; the integrator decides which quantity it *extrapolates*.
Two kinds of step have order 1 and take one evaluation in every method, because no finite polynomial reaches infinite
``lam``: from pure noise and to clean data. Order k means that the distance to the exact trajectory shrinks as
``steps^-k`` on a grid without these two. Each method raises TypeError or ValueError for invalid arguments before its
first step, and FloatingPointError if none of its samples is finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.checks import check_end, check_order, check_start
from survey_lib.core.exponential import Level, ddim, lagrange_weights, levels, linear_combination, step
from survey_lib.core.likelihood import log_likelihood, probability_flow
from survey_lib.core.protocols import Callback, Denoiser
from survey_lib.core.schedules import Schedule

__all__ = ["dpm_singlestep", "log_likelihood", "multistep", "pndm", "probability_flow"]


@torch.no_grad()
def multistep(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    order: int = 2,
    predict: str = "x0",
    correct: bool = False,
    history: Sequence[tuple[float, Tensor]] = (),
    cond: Any = None,
    callback: Callback | None = None,
) -> Tensor:
    """DDIM, DPM-Solver, DEIS, DPM-Solver++ and UniPC: one linear multistep method in ``lam``.

    ``x_s = keep x_t + gain x0 + sum_j w_j (p_j - p_t)`` with the weights of `exponential.step`; ``p_j`` are the
    last ``order`` predictions. ``order=1`` is DDIM (Song et al. 2021, eq. 12); ``predict="eps"`` DPM-Solver
    (Lu et al. 2022a) and DEIS in log rho (Zhang & Chen 2023); ``predict="x0"`` DPM-Solver++(2M, 3M) (Lu et al.
    2022b, eq. 12, with exact weights); ``correct=True`` UniPC (Zhao et al. 2023, alg. 1): each state is recomputed
    with the prediction at the end of its step, which gains an order at no further evaluation. (That prediction is kept
    as x0 for the corrected state; UniPC's eps variant keeps its eps, and divides the correction by alpha.)

    order: 1, 2 or 3, the number of predictions that a step uses.
    predict: "x0" or "eps", the quantity that is extrapolated.
    history: earlier predictions of that kind, as pairs (time, prediction), oldest first.

    Order: ``order``, one more with ``correct``. The first steps have fewer predictions and cap the order at 2 (3 with
    ``correct``), unless ``history`` is given. Evaluations: ``steps``.
    """
    check_order(order, (1, 2, 3), "multistep has orders 1, 2 and 3")
    _check_predict(predict)
    times, cond = check_start(x, times, cond)
    earlier = torch.tensor([float(t) for t, _ in history], dtype=torch.float64)
    track = levels(schedule, torch.cat([earlier, times]))
    grid = track[len(history) :]
    past = [prediction for _, prediction in reversed(history)][: order - 1]  # newest first

    plan = []  # every coefficient of the run, as floats, before the first evaluation
    for i, (start, end) in enumerate(pairwise(grid), start=len(history)):
        older = [level.lam for level in reversed(track[max(0, i - order + 1) : i]) if math.isfinite(level.lam)]
        corrector = step(start, end, [end.lam, *older], predict) if correct else []
        plan.append((start, end, step(start, end, older, predict), corrector))

    x0 = denoiser(x, grid[0].t, cond)
    for start, end, predictor, corrector in plan:
        if callback:
            callback(x, start.t, x0)
        x_s = linear_combination(predictor, [x, x0, *past])
        if end is not grid[-1]:
            x0_s = denoiser(x_s, end.t, cond)
            if correct:
                x_s = linear_combination(corrector, [x, x0, _prediction(x_s, x0_s, end, predict), *past])
            if order > 1:
                past = [_prediction(x, x0, start, predict), *past[: order - 2]]
            x0 = x0_s
        x = x_s
    return check_end(x)


@torch.no_grad()
def dpm_singlestep(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    order: int = 2,
    predict: str = "eps",
    cond: Any = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver-2 and -3 (Lu et al. 2022a, alg. 1 and 2): single-step methods with inner evaluations.

    Order 2 uses the prediction at the middle of the step in ``lam`` for the whole step. Order 3 extrapolates the line
    through the predictions at 0 and 2/3, where it arrives by the line through 0 and 1/3. ``predict="x0"`` gives
    DPM-Solver++(2S) (Lu et al. 2022b, alg. 1) and its third order.

    Order: ``order``. Evaluations: ``order * steps``; a step from pure noise or to clean data is DDIM and takes 1.
    """
    check_order(order, (2, 3), "single-step DPM-Solver has orders 2 and 3")
    _check_predict(predict)
    times, cond = check_start(x, times, cond)
    grid = levels(schedule, times)

    def evaluate(y: Tensor, at: Level) -> Tensor:
        return _prediction(y, denoiser(y, at.t, cond), at, predict)

    for start, end, *inner in _subdivide(schedule, grid, (1 / 2,) if order == 2 else (1 / 3, 2 / 3)):
        x0 = denoiser(x, start.t, cond)
        if callback:
            callback(x, start.t, x0)
        if not inner:
            x = linear_combination(ddim(start, end), [x, x0])
        elif order == 2:
            (middle,) = inner
            ahead = evaluate(linear_combination(ddim(start, middle), [x, x0]), middle)
            x = linear_combination(_constant(start, end, predict), [x, ahead])
        else:
            third, two_thirds = inner
            ahead = evaluate(linear_combination(ddim(start, third), [x, x0]), third)
            ahead = evaluate(
                linear_combination(step(start, two_thirds, [third.lam], predict), [x, x0, ahead]), two_thirds
            )
            x = linear_combination(step(start, end, [two_thirds.lam], predict), [x, x0, ahead])
    return check_end(x)


@torch.no_grad()
def pndm(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    order: int = 4,
    cond: Any = None,
    callback: Callback | None = None,
) -> Tensor:
    """Pseudo numerical methods (Liu et al. 2022): F-PNDM with ``order=4`` (alg. 2), S-PNDM with ``order=2``.

    ``x_s = ratio x_t + (sigma_s - ratio sigma_t) e`` with ``ratio = alpha_s / alpha_t`` (eq. 11): a DDIM step along
    ``e``, the mean of eps over the step by Adams-Bashforth in *t* (on equal steps
    ``(55 e_0 - 59 e_1 + 37 e_2 - 9 e_3) / 24``). The first ``order - 1`` steps take ``e`` from a Runge-Kutta step.

    Order: 2 (their theorem 3.2) for either ``order`` of the mean: eps enters with the weight ``d(sigma / alpha)``, and
    a mean without this weight has an error of ``h^2``.
    Evaluations: ``steps + 9`` (F-PNDM, from 4 steps on) or ``steps + 1`` (S-PNDM, from 2 on): 3 or 1 more for every
    warm-up step, but not for a step from pure noise or to clean data.
    """
    check_order(order, (2, 4), "pndm has orders 2 (S-PNDM) and 4 (F-PNDM)")
    times, cond = check_start(x, times, cond)
    grid, middles = levels(schedule, times), levels(schedule, (times[:-1] + times[1:]) / 2)
    past: list[tuple[float, Tensor]] = []  # (t, eps), newest first

    def evaluate(y: Tensor, at: Level) -> Tensor:
        return _prediction(y, denoiser(y, at.t, cond), at, "eps")

    def transfer(e: Tensor, start: Level, end: Level) -> Tensor:
        return linear_combination(_constant(start, end, "eps"), [x, e])

    for (start, end), middle in zip(pairwise(grid), middles, strict=True):
        x0 = denoiser(x, start.t, cond)
        if callback:
            callback(x, start.t, x0)
        e = _prediction(x, x0, start, "eps")
        past = [(start.t.item(), e), *past][:order]
        if len(past) == order and math.isfinite(start.lam):
            nodes = [(t - start.t.item()) / (end.t - start.t).item() for t, _ in past[1:]]
            weights = lagrange_weights(nodes, 0.0)
            x = transfer(linear_combination([1 - sum(weights), *weights], [e for _, e in past]), start, end)
        elif not math.isfinite(end.lam - start.lam):
            x = linear_combination(ddim(start, end), [x, x0])
        elif order == 2:
            x = transfer(linear_combination([1 / 2, 1 / 2], [e, evaluate(transfer(e, start, end), end)]), start, end)
        else:
            second = evaluate(transfer(e, start, middle), middle)
            third = evaluate(transfer(second, start, middle), middle)
            fourth = evaluate(transfer(third, start, end), end)
            x = transfer(linear_combination([1 / 6, 1 / 3, 1 / 3, 1 / 6], [e, second, third, fourth]), start, end)
    return check_end(x)


def _prediction(x: Tensor, x0: Tensor, at: Level, predict: str) -> Tensor:
    """The denoiser's prediction as x0 itself or as ``eps = (x - alpha x0) / sigma``."""
    return x0 if predict == "x0" else torch.sub(x, x0, alpha=at.alpha).div_(at.sigma)


def _constant(start: Level, end: Level, predict: str) -> list[float]:
    """Coefficients of ``[x_t, p]`` with the prediction p constant over the whole step."""
    if predict == "x0":
        return ddim(start, end)
    ratio = end.alpha / start.alpha
    return [ratio, end.sigma - ratio * start.sigma]


def _subdivide(schedule: Schedule, grid: list[Level], thetas: Sequence[float]) -> list[tuple[Level, ...]]:
    """``(start, end, *inner)`` of each step, inner levels at ``thetas`` of it in lam; none where lam is infinite."""
    pairs = list(pairwise(grid))
    inner = [start.lam + theta * (end.lam - start.lam) for start, end in pairs for theta in thetas]
    times = schedule.time(torch.tensor([lam for lam in inner if math.isfinite(lam)], dtype=torch.float64))
    found = iter(levels(schedule, times))
    return [
        (*pair, *(next(found) for _ in thetas)) if math.isfinite(pair[1].lam - pair[0].lam) else pair for pair in pairs
    ]


def _check_predict(predict: str) -> None:
    if predict not in ("x0", "eps"):
        raise ValueError(f'predict is "x0" or "eps"; got {predict!r}')
