"""Noise schedules: ``t -> (alpha, sigma)`` with ``x_t = alpha(t) x0 + sigma(t) eps``.

The probability model is ``q(x_t | x0) = N(alpha(t) x0, sigma(t)^2 I)``. A schedule is independent of
networks, grids and samplers: one trained denoiser can be sampled under any schedule
(`heads.Reschedule`), because it depends on the schedule only through ``lam = log(alpha / sigma)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from survey_lib.core.checks import check_batch_of_times, check_time, is_pure_noise
from survey_lib.core.protocols import expand

_BISECTIONS = 100  # halves [0, 1] to below the spacing of float64 around any t > 1e-14
_NEAR_CLEAN = 2.0**-27  # slopes at t = 0 are extrapolated from here; a power of two loses no digit


@dataclass(frozen=True)
class Schedule:
    """The scales ``alpha(t)`` and ``sigma(t)``, float64 to float64.

    inverse: ``t`` from ``lam`` where a closed form is known; `time` bisects otherwise.
    """

    alpha: Callable[[Tensor], Tensor]
    sigma: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor] | None = None
    name: str = "custom"

    def scales(self, t: Tensor | float, like: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``alpha(t), sigma(t)`` in float64, shaped to multiply ``like`` (B, ...) if one is given.

        Raises ValueError for a time outside [0, 1], or a ``t`` that is neither () nor (B,) for ``like``.
        """
        t = check_time(t)
        alpha, sigma = self.alpha(t), self.sigma(t)
        if like is None:
            return alpha, sigma
        check_batch_of_times(t, like)
        return expand(alpha, like), expand(sigma, like)

    def lam(self, t: Tensor | float) -> Tensor:
        """``log(alpha / sigma)``, decreasing in t; infinite where sigma or alpha is 0."""
        alpha, sigma = self.scales(t)
        return alpha.log() - sigma.log()

    def time(self, lam: Tensor | float) -> Tensor:
        """The ``t`` at which the schedule has this ``lam``, clamped to [0, 1]."""
        lam = torch.as_tensor(lam, dtype=torch.float64)
        if self.inverse is not None:
            return self.inverse(lam).clamp(0, 1)
        low, high = torch.zeros_like(lam), torch.ones_like(lam)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            noisier = self.lam(middle) < lam  # lam falls in t: too noisy here, so the answer lies below
            low, high = torch.where(noisier, low, middle), torch.where(noisier, middle, high)
        return (low + high) / 2

    def time_at(self, noise: Tensor | float) -> Tensor:
        """The ``t`` at which the noise-to-signal ratio ``sigma / alpha`` (EDM's sigma) is ``noise``, clamped to [0, 1].

        Raises ValueError for a negative or NaN ratio.
        """
        noise = torch.as_tensor(noise, dtype=torch.float64)
        if not (noise >= 0).all():
            raise ValueError(f"a noise-to-signal ratio is not negative; got {noise.min():g}")
        return self.time(-noise.log())

    def drift_diffusion(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """``f, g^2`` of the SDE ``dx = f x dt + g dw`` with these marginals (Score-SDE, eq. 5 and 29).

        ``f = alpha' / alpha`` and ``g^2 = (sigma^2)' - 2 f sigma^2``, with derivatives by automatic differentiation.
        At t = 0, where the derivative of ``sigma = sqrt(...)`` may be infinite, both are limits from inside. At t = 1
        they are minus and plus infinity if no signal is left there. Raises ValueError for a time outside [0, 1].
        """
        t = check_time(t)
        clean, end = t == 0, t == 1
        f, g2 = self._slopes(torch.where(clean, _NEAR_CLEAN, t))
        if clean.any():  # the straight line through two times, to t = 0
            near, far = (self._slopes(t.new_tensor(step * _NEAR_CLEAN)) for step in (1, 2))
            limits = (2 * one - two for one, two in zip(near, far, strict=True))
            f, g2 = (torch.where(clean, limit, value) for limit, value in zip(limits, (f, g2), strict=True))
        if end.any():
            empty = end & is_pure_noise(*self.scales(t))
            f, g2 = torch.where(empty, -torch.inf, f), torch.where(empty, torch.inf, g2)
        return f, g2

    def _slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`drift_diffusion` at ``0 < t``, where sigma is differentiable."""
        with torch.inference_mode(False), torch.enable_grad():
            u = t.detach().clone().requires_grad_()
            log_alpha, variance = self.alpha(u).log() + 0 * u, self.sigma(u) ** 2  # a constant alpha has a slope too: 0
            (f,), (growth,) = (torch.autograd.grad(value.sum(), u) for value in (log_alpha, variance))
        return f.detach(), (growth - 2 * f * variance).detach()


def vp_linear(beta_min: float = 0.1, beta_max: float = 20.0) -> Schedule:
    """DDPM's linear betas in continuous time (Score-SDE, eq. 33): variance preserving.

    ``log alpha = -t^2 (beta_max - beta_min) / 4 - t beta_min / 2``.
    """
    slope = beta_max - beta_min

    def log_alpha(t: Tensor) -> Tensor:
        return -0.25 * t**2 * slope - 0.5 * t * beta_min

    def inverse(lam: Tensor) -> Tensor:  # alpha^2 = sigmoid(2 lam), then a quadratic in t without cancellation
        c = torch.nn.functional.softplus(-2 * lam).clamp(max=1e300)  # -2 log alpha; finite for lam = -infinity
        return 2 * c / (beta_min + (beta_min**2 + 2 * slope * c).sqrt())

    return Schedule(
        lambda t: log_alpha(t).exp(), lambda t: (-torch.expm1(2 * log_alpha(t))).sqrt(), inverse, "vp_linear"
    )


def vp_cosine(offset: float = 0.0) -> Schedule:
    """``alpha = cos(angle)``, ``sigma = sin(angle)`` (improved DDPM, eq. 17, which has offset 0.008)."""
    start = offset / (1 + offset) * math.pi / 2
    norm = math.cos(start)
    if offset == 0:
        return Schedule(
            lambda t: torch.cos(t * math.pi / 2),
            lambda t: torch.sin(t * math.pi / 2),
            lambda lam: torch.atan(torch.exp(-lam)) * 2 / math.pi,
            "vp_cosine",
        )

    def alpha(t: Tensor) -> Tensor:
        return torch.cos(start + t * (math.pi / 2 - start)) / norm

    def sigma(t: Tensor) -> Tensor:  # cos^2 a - cos^2 b = sin(b - a) sin(b + a): no cancellation at t = 0
        step = t * (math.pi / 2 - start)
        return (torch.sin(step) * torch.sin(2 * start + step)).clamp_min(0).sqrt() / norm

    return Schedule(alpha, sigma, None, "vp_cosine")


def vp_sigmoid(start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> Schedule:
    """``alpha^2`` falls along a sigmoid (Jabri et al. 2022; Chen 2023, alg. 1).

    ``alpha^2 = (S(end) - S(start + t (end - start))) / (S(end) - S(start))`` with ``S(u) = sigmoid(u / tau)``.
    """
    first, last = (1 / (1 + math.exp(-u / tau)) for u in (start, end))

    def level(t: Tensor) -> Tensor:
        return torch.sigmoid((start + t * (end - start)) / tau)

    return Schedule(
        lambda t: ((last - level(t)) / (last - first)).clamp_min(0).sqrt(),
        lambda t: ((level(t) - first) / (last - first)).clamp_min(0).sqrt(),
        None,
        "vp_sigmoid",
    )


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0) -> Schedule:
    """Geometric growth of the noise (Score-SDE, eq. 30): ``sigma^2 = sigma_min^2 ((sigma_max / sigma_min)^(2t) - 1)``.

    The subtracted 1 makes ``t = 0`` clean; without it the chain starts at ``sigma_min``.
    """
    rate = 2 * math.log(sigma_max / sigma_min)
    return Schedule(
        torch.ones_like,
        lambda t: sigma_min * torch.expm1(rate * t).sqrt(),
        lambda lam: torch.log1p(torch.exp(-2 * lam) / sigma_min**2) / rate,
        "ve",
    )


def edm(sigma_max: float = 80.0) -> Schedule:
    """``alpha = 1, sigma = sigma_max t`` (EDM, table 1): trajectories are nearly straight at high noise."""
    return Schedule(torch.ones_like, lambda t: sigma_max * t, lambda lam: torch.exp(-lam) / sigma_max, "edm")


def rectified() -> Schedule:
    """``alpha = 1 - t, sigma = t``: the straight path of rectified flow and flow matching (their time is 1 - t)."""
    return Schedule(lambda t: 1 - t, lambda t: t, lambda lam: torch.sigmoid(-lam), "rectified")


def from_betas(betas: Tensor) -> Schedule:
    """A discrete chain ``q(x_n | x_{n-1}) = N(sqrt(1 - beta_n) x_{n-1}, beta_n I)`` (DDPM, eq. 2), in continuous time.

    Step n of N is at ``t = n / N``, where ``alpha^2`` is exactly the product of the first n ``1 - beta``;
    ``log alpha`` is linear in between. ``betas`` has shape (N,), each strictly between 0 and 1.
    """
    betas = torch.as_tensor(betas, dtype=torch.float64)
    if betas.ndim != 1 or not len(betas) or not ((betas > 0) & (betas < 1)).all():
        raise ValueError("betas are one dimension of numbers strictly between 0 and 1")
    knots = torch.cat([torch.zeros(1, dtype=torch.float64), 0.5 * torch.log1p(-betas).cumsum(0)])

    def log_alpha(t: Tensor) -> Tensor:
        position = t * len(betas)
        left = position.detach().floor().long().clamp(0, len(betas) - 1)
        return torch.lerp(knots.to(t.device)[left], knots.to(t.device)[left + 1], position - left)

    return Schedule(lambda t: log_alpha(t).exp(), lambda t: (-torch.expm1(2 * log_alpha(t))).sqrt(), None, "from_betas")


def zero_terminal(schedule: Schedule) -> Schedule:
    """The same schedule rescaled to zero signal at t = 1 (Lin et al. 2024, alg. 1).

    ``alpha'(t) = (alpha(t) - alpha(1)) / (1 - alpha(1))``, ``sigma' = sqrt(1 - alpha'^2)``: shifted and stretched so
    that ``alpha'(0) = 1`` and ``alpha'(1) = 0`` to rounding (1e-16). Raises ValueError unless the schedule
    preserves the variance.
    """
    alpha_1, sigma_1 = schedule.scales(1.0)
    if not math.isclose(alpha_1**2 + sigma_1**2, 1, abs_tol=1e-9):
        raise ValueError(f"zero terminal SNR is defined where alpha^2 + sigma^2 = 1; {schedule.name} is not so")

    def lost(t: Tensor) -> Tensor:  # 1 - alpha' = (1 - alpha) / (1 - alpha(1)), with 1 - alpha = sigma^2 / (1 + alpha)
        return schedule.sigma(t) ** 2 / ((1 + schedule.alpha(t)) * (1 - alpha_1))

    return Schedule(
        lambda t: (1 - lost(t)).clamp_min(0),
        lambda t: (lost(t) * (2 - lost(t))).clamp(0, 1).sqrt(),
        lambda lam: schedule.time(_lam_of_alpha(alpha_1 + (1 - alpha_1) * torch.sigmoid(2 * lam).sqrt())),
        f"{schedule.name}, zero terminal SNR",
    )


def _lam_of_alpha(alpha: Tensor) -> Tensor:
    return alpha.log() - 0.5 * torch.log1p(-(alpha.clamp(max=1) ** 2))


def shifted(schedule: Schedule, ratio: float, power: int = 2) -> Schedule:
    """A schedule for images ``ratio`` times as wide: ``lam'(t) = lam(t) - log(ratio)`` (Hoogeboom et al. 2023).

    The mean of n x n pixels carries n times less noise than one pixel, so a wider image needs more noise for the same
    signal-to-noise ratio. ``alpha, ratio sigma`` are rescaled to the norm of ``alpha, sigma``: ``power=2`` keeps
    ``alpha^2 + sigma^2``, ``power=1`` keeps ``alpha + sigma``, which turns `rectified` into the shifted times
    ``ratio t / (1 + (ratio - 1) t)`` of Esser et al. 2024, eq. 23.
    """
    if not (math.isfinite(ratio) and ratio > 0):
        raise ValueError(f"ratio must be positive (image size / reference size); got {ratio}")
    if power not in (1, 2):
        raise ValueError(f"power is 1 (keeps alpha + sigma) or 2 (keeps alpha^2 + sigma^2); got {power!r}")

    def stretch(t: Tensor) -> Tensor:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return ((alpha**power + sigma**power) / (alpha**power + (ratio * sigma) ** power)) ** (1 / power)

    return Schedule(
        lambda t: stretch(t) * schedule.alpha(t),
        lambda t: stretch(t) * ratio * schedule.sigma(t),
        lambda lam: schedule.time(torch.as_tensor(lam) + math.log(ratio)),
        f"{schedule.name}, shifted by {ratio:g}",
    )
