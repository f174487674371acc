"""The probability-flow ODE solved to a tolerance, and the likelihood by its change of variables.

With ``k = sqrt(alpha^2 + sigma^2)``, ``a = alpha / k`` and ``y = x / k`` the flow (Score-SDE, eq. 13) is, in
``lam = log(alpha / sigma)`` and under every schedule, ::

    dy / dlam = a (x0 - a y)

It is integrated in ``lam``, in which it is smooth at both ends; in t a trial step may fall below t = 0.
Near pure noise, where lam is unbounded, ``y`` is constant, and the integral begins at ``log(PURE_NOISE)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchdiffeq import odeint

from survey_lib.core.checks import (
    PRECISE,
    PURE_NOISE,
    check_cond,
    check_count,
    check_end,
    check_floating,
    check_start,
    check_state,
    check_times,
)
from survey_lib.core.exponential import Level, ddim, levels, linear_combination
from survey_lib.core.protocols import Callback, Denoiser, normal_like
from survey_lib.core.schedules import Schedule

_NOT_FINITE = (
    "the probability flow is not finite: the denoiser returned NaN or infinity, or no step is short enough for the "
    "tolerances"
)


@torch.no_grad()
def probability_flow(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    cond: Any = None,
    callback: Callback | None = None,
) -> Tensor:
    """The probability-flow ODE (Score-SDE, eq. 13) by adaptive Dormand-Prince 5(4), integrated in ``lam``.

    With ``k = sqrt(alpha^2 + sigma^2)``, ``a = alpha / k`` and ``y = x / k``: ``dy / dlam = a (x0 - a y)``, the same
    in every schedule. ``times`` are the two ends and the times of ``callback``; the tolerances determine the steps. A
    last time 0 is reached from the time before it by DDIM, so ``[1, 1e-3, 0]`` is a good grid.

    Evaluations: as the tolerances require, and one for the last step to 0; with ``callback`` one more at each time.
    Raises FloatingPointError if the trajectory is not finite.
    """
    check_floating("x", x, PRECISE)
    times, cond = check_start(x, times, cond)
    grid = levels(schedule, times)
    _check_tolerances(rtol, atol)
    inner = grid if math.isfinite(grid[-1].lam) else grid[:-1]
    lams = torch.tensor([max(level.lam, math.log(PURE_NOISE)) for level in inner], dtype=torch.float64)

    def velocity(lam: Tensor, y: Tensor) -> Tensor:
        t, a, k = _circle(schedule, lam)
        return (denoiser(y * k, t, cond) - y * a) * a

    ys = x[None] / _norm(inner[0])
    if len(inner) > 1:
        ys = _solve(velocity, ys[0], lams.to(x.device), rtol, atol)
    for level, y in zip(grid[:-1], ys, strict=False):
        if callback:
            callback(y * _norm(level), level.t, denoiser(y * _norm(level), level.t, cond))
    x = ys[-1] * _norm(inner[-1])
    if inner is not grid:
        x = linear_combination(ddim(*grid[-2:]), [x, denoiser(x, grid[-2].t, cond)])
    return check_end(x)


@torch.no_grad()
def log_likelihood(
    denoiser: Denoiser,
    schedule: Schedule,
    x0: Tensor,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    probes: int | None = 1,
    t_min: float = 1e-5,
    t_max: float = 1.0,
    cond: Any = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """``log p(x0)`` in nats, (B,), by the change of variables along the probability flow (Score-SDE, eq. 39).

    The flow carries ``alpha x0`` at ``t_min`` to ``t_max``, where the density is taken to be ``N(0, sigma^2 I)``;
    along it ``log p`` changes by the divergence, ``a (k tr dx0/dx - a dims)`` per unit of ``lam``. The result is the
    density of data with the noise of ``t_min``. See `bits_per_dim`.

    denoiser: differentiable in ``x``, each example of a batch independent of the others.
    x0: (B, ...).
    probes: number of random signs in Hutchinson's unbiased estimate of the trace (eq. 40), drawn from ``generator``;
        None for the exact trace, at one backward pass per dimension.

    Raises FloatingPointError if the trajectory is not finite.
    """
    check_floating("x0", x0, PRECISE)
    check_state(x0)
    cond = check_cond(cond, x0)
    _check_tolerances(rtol, atol)
    low, high = levels(schedule, check_times(torch.tensor([t_max, t_min], dtype=torch.float64)))
    if high.sigma == 0:
        raise ValueError(f"a density needs noise: t_min lies above 0; got {t_min:g}")
    lams = torch.tensor([high.lam, max(low.lam, math.log(PURE_NOISE))], dtype=torch.float64)
    count = 0 if probes is None else check_count("probes", probes)
    signs = [normal_like(x0, generator).sign() for _ in range(count)]
    dims = x0[0].numel()

    def velocity(lam: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        t, a, k = _circle(schedule, lam)
        with torch.enable_grad():
            x = (state[0] * k).requires_grad_()
            value = denoiser(x, t, cond)
            trace = _trace(value, x, signs)
        return (value.detach() - state[0] * a) * a, (trace * k - a * dims) * a

    start = x0 * (high.alpha / _norm(high))
    state = start, start.new_zeros(len(x0))
    ys, changes = _solve(velocity, state, lams.to(x0.device), rtol, atol)
    noise = low.sigma / _norm(low)
    prior = -0.5 * (ys[-1] / noise).flatten(1).square().sum(1) - dims * math.log(noise * math.sqrt(2 * math.pi))
    return prior + changes[-1] + dims * math.log(high.alpha / _norm(high))


def bits_per_dim(nats: Tensor, dims: int, *, bin_width: float | None = None) -> Tensor:
    """Bits per dimension of a code of ``nats = -log p(x0)``: ``nats / (dims log 2)``.

    bin_width: the spacing of quantised values whose *density* ``p`` is. Such a value has about the probability
        density times bin, which adds ``-log2(bin_width)`` bits: 256 equally likely grey values, 2/255 apart, take
        exactly 8 bits.
    """
    check_count("dims", dims)
    bits = nats / (dims * math.log(2))
    if bin_width is None:
        return bits
    if not bin_width > 0:
        raise ValueError(f"bin_width is positive, 2 / 255 for 8-bit values in [-1, 1]; got {bin_width!r}")
    return bits - math.log2(bin_width)


def _check_tolerances(rtol: float, atol: float) -> None:
    if not (0 <= rtol < math.inf and 0 <= atol < math.inf and rtol + atol > 0):
        raise ValueError(f"rtol and atol are finite and not negative, at least one positive; got {rtol!r}, {atol!r}")


def _solve(velocity: Callable[..., Any], state: Any, lams: Tensor, rtol: float, atol: float) -> Any:
    try:
        return odeint(velocity, state, lams, rtol=rtol, atol=atol, method="dopri5")
    except AssertionError as error:  # how torchdiffeq reports NaN and steps of length 0
        raise FloatingPointError(_NOT_FINITE) from error


def _norm(level: Level) -> float:
    return math.hypot(level.alpha, level.sigma)


def _circle(schedule: Schedule, lam: Tensor) -> tuple[Tensor, float, float]:
    """``t, a, k`` at ``lam``: the state is ``x = k (a x0 + b eps)`` with ``a^2 + b^2 = 1``."""
    if not math.isfinite(lam):  # the length of the step is NaN if the velocity was
        raise FloatingPointError(_NOT_FINITE)
    t = schedule.time(lam.detach().cpu())
    alpha, sigma = (value.item() for value in schedule.scales(t))
    k = math.hypot(alpha, sigma)
    return t, alpha / k, k


def _trace(value: Tensor, x: Tensor, signs: Sequence[Tensor]) -> Tensor:
    """The trace of ``d value / d x`` of each example, (B,): the mean of ``v . J v`` over ``signs``, exact without."""
    if not value.requires_grad:
        raise RuntimeError(
            "the likelihood differentiates the denoiser; this denoiser cut its graph (torch.no_grad inside?)"
        )
    if signs:
        pulled = [torch.autograd.grad(value, x, v, retain_graph=True, materialize_grads=True)[0] * v for v in signs]
        return torch.stack(pulled).mean(0).flatten(1).sum(1)
    outputs = value.flatten(1).sum(0)
    rows = [torch.autograd.grad(y, x, retain_graph=True, materialize_grads=True)[0] for y in outputs]
    return torch.stack([row.flatten(1)[:, i] for i, row in enumerate(rows)]).sum(0)
