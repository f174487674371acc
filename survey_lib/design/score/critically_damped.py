"""Critically damped Langevin diffusion (Dockhorn et al. 2022): noise enters the velocity, and reaches the image late.

An image x gets a velocity w of the same shape. In units in which both have variance 1 at the end, ::

    dx = rate w dt                dw = -rate (x + 2 w) dt + 2 sqrt(rate) dW

a spring with as much friction as brings it to rest soonest. The paper's velocity is ``sqrt(M) w``, its ``beta =
rate sqrt(M)`` and its friction ``Gamma = 2 sqrt(M)``; with its M = 1/4 and beta = 4 the rate is 8.

States are z (B, 2, *event): ``z[:, 0]`` position, ``z[:, 1]`` velocity. Given x0 they are normal, the same for every
pixel, and so the two are one noisy image in disguise: `CriticallyDamped.denoiser` makes any ordinary denoiser serve.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from survey_lib.core import protocols
from survey_lib.core.checks import check_times
from survey_lib.core.protocols import Callback, Denoiser, expand
from survey_lib.core.schedules import Schedule


@dataclass(frozen=True)
class CriticallyDamped:
    """The process, its exact laws, two samplers. ``gamma`` is the variance of the velocity at t = 0 (their 0.04)."""

    rate: float = 8.0
    gamma: float = 0.04

    def __post_init__(self) -> None:
        if not (self.rate > 0 and self.gamma > 0):
            raise ValueError(f"rate and gamma are positive; got {self.rate:g} and {self.gamma:g}")

    # ------------------------------------------------------------------ exact laws

    def transition(self, t: Tensor | float, s: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """``mean, cov`` of ``z_t | z_s ~ N(mean z_s, cov)``, s < t: (..., 2, 2) each (Dockhorn et al. 2022, app. B.1).

        With ``h = rate (t - s)``: ``mean = e^-h [[1 + h, h], [-h, 1 - h]]`` and ``cov = I - mean mean^T``.
        """
        h = self.rate * (_time(t) - _time(s))
        e = torch.exp(-2 * h)
        mean = torch.exp(-h)[..., None, None] * _matrix(1 + h, h, -h, 1 - h)
        both = 2 * h**2 * e
        # 1 - e (1 + 2 h + 2 h^2), of order h^3, is an incomplete gamma function: nothing cancels
        return mean, _matrix(_gamma_3(2 * h), both, both, -torch.expm1(-2 * h) + e * (2 * h - 2 * h**2))

    def marginal(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """``gain, cov`` of ``z_t | x0 ~ N(gain x0, cov)``: (..., 2) and (..., 2, 2).

        The first velocity, ``N(0, gamma)``, is averaged over, not kept: hybrid score matching (their sec. 3).
        """
        mean, cov = self.transition(t)
        swing = mean[..., 1]
        return mean[..., 0], cov + self.gamma * swing[..., :, None] * swing[..., None, :]

    def prior(
        self, shape: Sequence[int], *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """``z_1 ~ N(0, I)`` for images of ``shape`` (B, *event): (B, 2, *event)."""
        return protocols.normal((shape[0], 2, *shape[1:]), generator, dtype)

    def corrupt(self, x0: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None) -> Tensor:
        """``z_t`` given ``x0`` (B, *event): (B, 2, *event); t is () or (B,)."""
        gain, cov = self.marginal(t)
        noise = protocols.normal((len(x0), 2, *x0.shape[1:]), generator, x0.dtype).to(x0.device)
        return _outer(gain, x0) + _apply(_root(cov), noise)

    def noise(self, t: Tensor | float) -> Tensor:
        """``u``: the pair tells as much of x0 as ``x0 + u eps`` would, ``u^-2 = gain . cov^-1 gain``; grows with t."""
        gain, cov = self.marginal(t)
        return 1 / (gain * _solve(cov, gain)).sum(-1).sqrt()

    def denoiser(self, denoiser: Denoiser, schedule: Schedule) -> Denoiser:
        """``E[x0 | x_t, w_t]`` (B, *event) from an ordinary denoiser of ``schedule``: exact if that one is.

        ``y = u^2 gain . cov^-1 z`` is sufficient for x0 and has the law of ``x0 + u eps`` (`noise`). So a network
        trained on noisy images needs no training with velocities. Where u lies outside of the schedule, the nearest
        level is asked.
        """

        def denoise(z: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
            gain, cov = self.marginal(t)
            weights, u = _solve(cov, gain), self.noise(t)
            weights = weights * u[..., None] ** 2
            y = (_weights(weights, z) * z).sum(1)
            time = schedule.time_at(u)
            alpha, sigma = schedule.scales(time)
            size = torch.where(u > 1, sigma / u, alpha)  # alpha; where that may be 0, by way of sigma
            return denoiser(expand(size, y) * y, time, cond)

        return denoise

    def score(self, z: Tensor, x0: Tensor, t: Tensor | float) -> Tensor:
        """``grad log p(z_t) = cov^-1 (gain E[x0 | z_t] - z_t)`` in position and velocity, (B, 2, *event).

        Only the velocity's is needed to go back; the position carries no noise of its own.
        """
        gain, cov = self.marginal(t)
        return _apply(_inverse(cov), _outer(gain, x0) - z)

    # ------------------------------------------------------------------ samplers

    @torch.no_grad()
    def euler_maruyama(
        self,
        denoiser: Denoiser,
        z: Tensor,
        times: Tensor,
        *,
        cond: Any = None,
        generator: torch.Generator | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """The reverse equation in plain steps: ``dx = -rate w``, ``dw = rate (x + 2 w + 4 score_w)``, and noise.

        ``denoiser`` is one of `denoiser`. A step to 0 gives its answer, at rest: ``z[:, 0]`` is the image. Towards
        t = 0 the score of the velocity grows to ``1 / gamma`` and steps must shrink: take `grids.quadratic`.

        Order: 1 in law. Evaluations: ``steps``.
        """

        def step(z: Tensor, t: Tensor, s: Tensor) -> Tensor:
            x0 = _ask(denoiser, z, t, cond, callback)
            h = self.rate * float(t - s)
            x, w = z.unbind(1)
            kick = protocols.normal(w.shape, generator, w.dtype).to(w.device)
            drift = x + 2 * w + 4 * self.score(z, x0, t)[:, 1]
            return torch.stack([x - h * w, w + h * drift + 2 * math.sqrt(h) * kick], 1)

        return _walk(step, denoiser, z, times, cond, callback)

    @torch.no_grad()
    def sscs(
        self,
        denoiser: Denoiser,
        z: Tensor,
        times: Tensor,
        *,
        order: int = 1,
        cond: Any = None,
        generator: torch.Generator | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """Symmetric splitting (Dockhorn et al. 2022, alg. 1): half a step of the spring, the score, half a step again.

        The spring with its friction and noise is solved exactly by `transition` with the velocity turned round; the
        rest, ``dw = 4 rate (score_w + w) dt``, takes one plain step with the score of the time where the step began,
        as in the authors' code. With ``order=2`` it is the midpoint rule with that of the time half-way, without which
        the second order of a symmetric splitting is lost.

        Order: ``order`` in law. Evaluations: ``order steps``; a step to 0, as of `euler_maruyama`, takes 1.
        """
        if order not in (1, 2):
            raise ValueError(f"the splitting has orders 1, as published, and 2; got {order!r}")

        def step(z: Tensor, t: Tensor, s: Tensor) -> Tensor:
            at, h = t if order == 1 else (t + s) / 2, 4 * self.rate * float(t - s)
            x, w = self._half_step(z, (t - s) / 2, generator).unbind(1)
            ahead = w
            for share in (0.5, 1.0)[2 - order :]:
                here = torch.stack([x, ahead], 1)
                x0 = _ask(denoiser, here, at, cond, callback)
                ahead = w + share * h * (self.score(here, x0, at)[:, 1] + ahead)
            return self._half_step(torch.stack([x, ahead], 1), (t - s) / 2, generator)

        return _walk(step, denoiser, z, times, cond, callback)

    def _half_step(self, z: Tensor, span: Tensor, generator: torch.Generator | None) -> Tensor:
        """The forward process over ``span``, with the velocity's sign turned before and after: the way back."""
        turn = torch.tensor([1.0, -1.0], dtype=torch.float64)
        mean, cov = self.transition(span)
        noise = protocols.normal(z.shape, generator, z.dtype).to(z.device)
        back = turn[:, None] * mean * turn  # the noise, of no direction, is turned but not told
        return _apply(back, z) + _apply(turn[:, None] * _root(cov), noise)


def _walk(
    step: Callable[[Tensor, Tensor, Tensor], Tensor],
    denoiser: Denoiser,
    z: Tensor,
    times: Tensor,
    cond: Any,
    callback: Callback | None,
) -> Tensor:
    if z.ndim < 2 or z.shape[1] != 2:
        raise ValueError(f"a state is position and velocity, (B, 2, *event); got {tuple(z.shape)}")
    for t, s in pairwise(check_times(times)):
        if s > 0:
            z = step(z, t, s)
        else:
            x0 = _ask(denoiser, z, t, cond, callback)
            z = torch.stack([x0, torch.zeros_like(x0)], 1)
    return z


def _ask(denoiser: Denoiser, z: Tensor, t: Tensor, cond: Any, callback: Callback | None) -> Tensor:
    x0 = denoiser(z, t, cond)
    if callback:
        callback(z, t, x0)
    return x0


def _time(t: Tensor | float) -> Tensor:
    return torch.as_tensor(t, dtype=torch.float64, device="cpu")


def _gamma_3(x: Tensor) -> Tensor:
    """``1 - e^-x (1 + x + x^2 / 2)``."""
    return torch.special.gammainc(torch.tensor(3.0, dtype=torch.float64), x)


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.stack([torch.stack([a, b], -1), torch.stack([c, d], -1)], -2)


def _inverse(cov: Tensor) -> Tensor:
    a, b, d = cov[..., 0, 0], cov[..., 0, 1], cov[..., 1, 1]
    determinant = a * d - b**2
    if not (determinant > 0).all():
        raise ValueError("at t = 0 the position holds no noise, and its law no density: ask at a time above 0")
    return _matrix(d, -b, -b, a) / determinant[..., None, None]


def _solve(cov: Tensor, vector: Tensor) -> Tensor:
    return (_inverse(cov) @ vector[..., None])[..., 0]


def _root(cov: Tensor) -> Tensor:
    """The lower triangle L with ``L L^T = cov``."""
    a, b, d = cov[..., 0, 0], cov[..., 0, 1], cov[..., 1, 1]
    first = a.sqrt()
    return _matrix(first, torch.zeros_like(a), b / first, (d - b**2 / a).sqrt())


def _weights(pair: Tensor, like: Tensor) -> Tensor:
    """Two numbers, (2,) or (B, 2), shaped to multiply ``like`` (B, 2, *event)."""
    pair = pair if pair.ndim == 2 else pair[None]
    return pair.to(like.device, like.dtype).reshape(*pair.shape, *[1] * (like.ndim - 2))


def _outer(pair: Tensor, x: Tensor) -> Tensor:
    """``pair x``: (B, *event) -> (B, 2, *event)."""
    x = x.unsqueeze(1)
    return _weights(pair, x) * x


def _apply(matrix: Tensor, z: Tensor) -> Tensor:
    """``matrix z`` over the pair, (2, 2) or (B, 2, 2) and (B, 2, *event)."""
    first, second = (_weights(matrix[..., i], z) * z[:, i : i + 1] for i in range(2))
    return first + second
