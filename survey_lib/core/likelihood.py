"""The probability flow solved to a tolerance, and the likelihood that it gives.

With ``k = sqrt(alpha^2 + sigma^2)``, ``a = alpha / k`` and ``y = x / k`` the flow (Score-SDE, eq. 13) reads, in
``lam = log(alpha / sigma)`` and under every schedule, ::

    dy / dlam = a (x0 - a y)

It is integrated in ``lam``, not in t: there it is smooth at both ends, and no trial step falls below t = 0.
Where lam has no end, at pure noise, ``y`` no longer moves, and the integral begins at ``PURE_NOISE``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchdiffeq import odeint

from survey_lib.core import protocols
from survey_lib.core.exponential import PURE_NOISE, Level, ddim, levels, linear_combination
from survey_lib.core.protocols import Callback, Denoiser, check_times
from survey_lib.core.schedules import Schedule


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
    """The probability-flow equation (Score-SDE, eq. 13) by adaptive Dormand-Prince 5(4), integrated in ``lam``.

    With ``k = sqrt(alpha^2 + sigma^2)``, ``a = alpha / k`` and ``y = x / k``: ``dy / dlam = a (x0 - a y)``, the same
    in every schedule. ``times`` says where to begin and end and where ``callback`` looks, not how finely to step:
    the tolerances do. A last time 0 is reached from the one before it by DDIM, so ``[1, 1e-3, 0]`` is a good grid.

    Evaluations: as many as the tolerances ask for, and one for the last step to 0; with ``callback`` one a time.
    """
    grid = levels(schedule, check_times(times))
    inner = grid if math.isfinite(grid[-1].lam) else grid[:-1]
    lams = torch.tensor([max(level.lam, math.log(PURE_NOISE)) for level in inner], dtype=torch.float64)

    def velocity(lam: Tensor, y: Tensor) -> Tensor:
        t, a, k = _circle(schedule, lam)
        return (denoiser(y * k, t, cond) - y * a) * a

    ys = x[None] / _norm(inner[0])
    if len(inner) > 1:
        ys = odeint(velocity, ys[0], lams.to(x.device), rtol=rtol, atol=atol, method="dopri5")
    for level, y in zip(grid[:-1], ys, strict=False):
        if callback:
            callback(y * _norm(level), level.t, denoiser(y * _norm(level), level.t, cond))
    x = ys[-1] * _norm(inner[-1])
    return x if inner is grid else linear_combination(ddim(*grid[-2:]), [x, denoiser(x, grid[-2].t, cond)])


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
    on the way ``log p`` changes by the divergence, ``a (k tr dx0/dx - a dims)`` a unit of ``lam``. The trace is
    exact with ``probes=None`` (one backward pass a dimension), else Hutchinson's estimate from that many random
    signs (eq. 40): unbiased, with ``generator``. What is measured is the density of data with noise of ``t_min``.

    The denoiser must be differentiable in ``x`` and treat the examples of a batch apart. See `bits_per_dim`.
    """
    low, high = levels(schedule, check_times(torch.tensor([t_max, t_min], dtype=torch.float64)))
    if high.sigma == 0:
        raise ValueError(f"a density needs some noise: t_min lies above 0; got {t_min:g}")
    lams = torch.tensor([high.lam, max(low.lam, math.log(PURE_NOISE))], dtype=torch.float64)
    signs = None if probes is None else [protocols.normal(x0.shape, generator, x0.dtype).sign() for _ in range(probes)]
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
    ys, changes = odeint(velocity, state, lams.to(x0.device), rtol=rtol, atol=atol, method="dopri5")
    noise = low.sigma / _norm(low)
    prior = -0.5 * (ys[-1] / noise).flatten(1).square().sum(1) - dims * math.log(noise * math.sqrt(2 * math.pi))
    return prior + changes[-1] + dims * math.log(high.alpha / _norm(high))


def bits_per_dim(log_likelihood: Tensor, dims: int, *, levels: int = 256, width: float = 2.0) -> Tensor:
    """``-log2 p / dims`` of data with ``levels`` grey values over a range of ``width``, from nats.

    A grey value is a bin of ``width / levels``, its probability about density times bin, which adds
    ``log2(levels / width)`` bits: 7 for 256 values in [-1, 1].
    """
    return -log_likelihood / (dims * math.log(2)) + math.log2(levels / width)


def _norm(level: Level) -> float:
    return math.hypot(level.alpha, level.sigma)


def _circle(schedule: Schedule, lam: Tensor) -> tuple[Tensor, float, float]:
    """``t, a, k`` at a ``lam``: the state is ``x = k (a x0 + b eps)`` with ``a^2 + b^2 = 1``."""
    t = schedule.time(lam.detach().cpu())
    alpha, sigma = (value.item() for value in schedule.scales(t))
    k = math.hypot(alpha, sigma)
    return t, alpha / k, k


def _trace(value: Tensor, x: Tensor, signs: Sequence[Tensor] | None) -> Tensor:
    """The trace of ``d value / d x`` of each example, (B,): exact, or the mean of ``v . J v`` over ``signs``."""
    if not value.requires_grad:
        raise RuntimeError("the likelihood differentiates the denoiser; this one cut its graph (torch.no_grad inside?)")
    if signs is not None:
        pulled = [torch.autograd.grad(value, x, v, retain_graph=True, materialize_grads=True)[0] * v for v in signs]
        return torch.stack(pulled).mean(0).flatten(1).sum(1)
    outputs = value.flatten(1).sum(0)
    rows = [torch.autograd.grad(y, x, retain_graph=True, materialize_grads=True)[0] for y in outputs]
    return torch.stack([row.flatten(1)[:, i] for i, row in enumerate(rows)]).sum(0)
