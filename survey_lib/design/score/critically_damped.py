"""Critically damped Langevin diffusion (CLD, Dockhorn et al. 2022): diffusion with noise on the velocity only.

An image x has a velocity w of the same shape. In units in which both have variance 1 at the end, ::

    dx = rate w dt                dw = -rate (x + 2 w) dt + 2 sqrt(rate) dW

a critically damped spring. The paper's velocity is ``sqrt(M) w``, its ``beta = rate sqrt(M)`` and its friction
``Gamma = 2 sqrt(M)``; with the paper's M = 1/4 and beta = 4 the rate is 8.

States are z (B, 2, *event): ``z[:, 0]`` position, ``z[:, 1]`` velocity. Given x0 they are normal, with the same mean
and covariance in every pixel, so that position and velocity together are equivalent to one noisy image:
`CriticallyDamped.denoiser` uses any ordinary denoiser.
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
    """The process, its exact distributions and two samplers.

    rate: speed of the process; see above.
    gamma: variance of the velocity at t = 0, 0.04 in the paper.
    """

    rate: float = 8.0
    gamma: float = 0.04

    def __post_init__(self) -> None:
        if not (self.rate > 0 and self.gamma > 0):
            raise ValueError(f"rate and gamma must be positive; got {self.rate:g} and {self.gamma:g}")

    # ------------------------------------------------------------------ exact distributions

    def transition(self, t: Tensor | float, s: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """Transition ``z_t | z_s ~ N(mean z_s, cov)``, s < t (Dockhorn et al. 2022, app. B.1): (..., 2, 2) each.

        With ``h = rate (t - s)``: ``mean = e^-h [[1 + h, h], [-h, 1 - h]]`` and ``cov = I - mean mean^T``.
        """
        h = self.rate * (_time(t) - _time(s))
        e = torch.exp(-2 * h)
        mean = torch.exp(-h)[..., None, None] * _matrix(1 + h, h, -h, 1 - h)
        both = 2 * h**2 * e
        # 1 - e (1 + 2 h + 2 h^2), of order h^3: an incomplete gamma function avoids its cancellation
        return mean, _matrix(_gamma_3(2 * h), both, both, -torch.expm1(-2 * h) + e * (2 * h - 2 * h**2))

    def marginal(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Marginal ``z_t | x0 ~ N(gain x0, cov)``: (..., 2) and (..., 2, 2).

        The initial velocity ``N(0, gamma)`` is marginalised, as in hybrid score matching (their sec. 3).
        """
        mean, cov = self.transition(t)
        on_velocity = mean[..., 1]
        return mean[..., 0], cov + self.gamma * on_velocity[..., :, None] * on_velocity[..., None, :]

    def prior(
        self, shape: Sequence[int], *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Prior ``z_1 ~ N(0, I)`` for images of ``shape`` (B, *event): (B, 2, *event)."""
        return protocols.normal((shape[0], 2, *shape[1:]), generator, dtype)

    def corrupt(self, x0: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None) -> Tensor:
        """Sample ``z_t`` given ``x0`` (B, *event), t () or (B,): (B, 2, *event)."""
        gain, cov = self.marginal(t)
        noise = protocols.normal((len(x0), 2, *x0.shape[1:]), generator, x0.dtype).to(x0.device)
        return _outer(gain, x0) + _apply(_root(cov), noise)

    def noise(self, t: Tensor | float) -> Tensor:
        """Equivalent noise level u, ``u^-2 = gain . cov^-1 gain``: ``z_t`` is as informative as ``x0 + u eps``."""
        gain, cov = self.marginal(t)
        return 1 / (gain * _solve(cov, gain)).sum(-1).sqrt()

    def denoiser(self, denoiser: Denoiser, schedule: Schedule) -> Denoiser:
        """``E[x0 | x_t, w_t]`` (B, *event) from an ordinary denoiser of ``schedule``, exact if that denoiser is.

        ``y = u^2 gain . cov^-1 z`` is sufficient for x0 and distributed as ``x0 + u eps`` (`noise`), so a network
        trained on noisy images can be used without training on velocities. A level u outside of the schedule is
        replaced by the nearest one inside.
        """

        def denoise(z: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
            gain, cov = self.marginal(t)
            weights, u = _solve(cov, gain), self.noise(t)
            weights = weights * u[..., None] ** 2
            y = (_weights(weights, z) * z).sum(1)
            time = schedule.time_at(u)
            alpha, sigma = schedule.scales(time)
            size = torch.where(u > 1, sigma / u, alpha)  # alpha, from sigma where alpha may be 0
            return denoiser(expand(size, y) * y, time, cond)

        return denoise

    def score(self, z: Tensor, x0: Tensor, t: Tensor | float) -> Tensor:
        """Score ``grad log p(z_t) = cov^-1 (gain E[x0 | z_t] - z_t)`` in position and velocity, (B, 2, *event).

        The reverse process needs only its velocity component, because the position has no noise term.
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
        """Euler-Maruyama for the reverse SDE ``dx = -rate w dt``, ``dw = rate (x + 2 w + 4 score_w) dt + noise``.

        ``denoiser`` is a result of `denoiser`. A step to 0 returns its prediction as ``z[:, 0]``, with velocity 0.
        Towards t = 0 the score of the velocity grows to ``1 / gamma``, so steps must shrink (`grids.quadratic`).

        Weak order: 1. Evaluations: ``steps``.
        """

        def step(z: Tensor, t: Tensor, s: Tensor) -> Tensor:
            x0 = _predict(denoiser, z, t, cond, callback)
            h = self.rate * float(t - s)
            x, w = z.unbind(1)
            kick = protocols.normal(w.shape, generator, w.dtype).to(w.device)
            drift = x + 2 * w + 4 * self.score(z, x0, t)[:, 1]
            return torch.stack([x - h * w, w + h * drift + 2 * math.sqrt(h) * kick], 1)

        return _solve_sde(step, denoiser, z, times, cond, callback)

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
        """Symmetric splitting CLD sampler (SSCS, Dockhorn et al. 2022, alg. 1).

        Half a step of the spring with friction and noise, solved exactly by `transition` with reversed velocity; one
        Euler step of ``dw = 4 rate (score_w + w) dt``; half a step of the spring again. ``order=1``, as in the authors'
        code, takes the score at the time where the step begins. ``order=2`` takes a midpoint step with the score at the
        middle time, without which a symmetric splitting is only of first order.

        Weak order: ``order``. Evaluations: ``order steps``; a step to 0 takes 1, as in `euler_maruyama`.
        """
        if order not in (1, 2):
            raise ValueError(f"order must be 1, as published, or 2; got {order!r}")

        def step(z: Tensor, t: Tensor, s: Tensor) -> Tensor:
            at, h = t if order == 1 else (t + s) / 2, 4 * self.rate * float(t - s)
            x, w = self._half_step(z, (t - s) / 2, generator).unbind(1)
            ahead = w
            for fraction in (0.5, 1.0)[2 - order :]:
                here = torch.stack([x, ahead], 1)
                x0 = _predict(denoiser, here, at, cond, callback)
                ahead = w + fraction * h * (self.score(here, x0, at)[:, 1] + ahead)
            return self._half_step(torch.stack([x, ahead], 1), (t - s) / 2, generator)

        return _solve_sde(step, denoiser, z, times, cond, callback)

    def _half_step(self, z: Tensor, span: Tensor, generator: torch.Generator | None) -> Tensor:
        """The spring over ``span`` backwards in time: a forward transition between two changes of sign of w."""
        turn = torch.tensor([1.0, -1.0], dtype=torch.float64)
        mean, cov = self.transition(span)
        noise = protocols.normal(z.shape, generator, z.dtype).to(z.device)
        back = turn[:, None] * mean * turn  # the noise is symmetric: its own sign does not matter
        return _apply(back, z) + _apply(turn[:, None] * _root(cov), noise)


def _solve_sde(
    step: Callable[[Tensor, Tensor, Tensor], Tensor],
    denoiser: Denoiser,
    z: Tensor,
    times: Tensor,
    cond: Any,
    callback: Callback | None,
) -> Tensor:
    if z.ndim < 2 or z.shape[1] != 2:
        raise ValueError(f"a state must be position and velocity, (B, 2, *event); got {tuple(z.shape)}")
    for t, s in pairwise(check_times(times)):
        if s > 0:
            z = step(z, t, s)
        else:
            x0 = _predict(denoiser, z, t, cond, callback)
            z = torch.stack([x0, torch.zeros_like(x0)], 1)
    return z


def _predict(denoiser: Denoiser, z: Tensor, t: Tensor, cond: Any, callback: Callback | None) -> Tensor:
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
        raise ValueError("the position has no density at t = 0: pass a time above 0")
    return _matrix(d, -b, -b, a) / determinant[..., None, None]


def _solve(cov: Tensor, vector: Tensor) -> Tensor:
    return (_inverse(cov) @ vector[..., None])[..., 0]


def _root(cov: Tensor) -> Tensor:
    """Cholesky factor, lower triangular L with ``L L^T = cov``."""
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
    """``matrix z`` for matrix (2, 2) or (B, 2, 2) and z (B, 2, *event)."""
    first, second = (_weights(matrix[..., i], z) * z[:, i : i + 1] for i in range(2))
    return first + second
