"""How data is destroyed with noise or by force, and the bridge back: `Gaussian`, `Renoise`, `Cold`.

``q(x_t | x0) = N(alpha x0, sigma^2 I)`` does not fix how ``x_s`` and ``x_t`` hang together. Each bridge below
agrees with the same marginals, so the same trained denoiser serves them all: they differ in how much of the noise
in ``x_t`` is kept on the way to ``x_s``, and how much of it is drawn afresh. (Categories: `categorical`.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from survey_lib.core.protocols import expand, normal
from survey_lib.core.schedules import Schedule

#: The variance of the noise added on the step from t to s: ``(schedule, t, s) -> () or (B,)``.
Variance = Callable[[Schedule, Tensor, Tensor], Tensor]


def check_step(t: Tensor | float, s: Tensor | float) -> tuple[Tensor, Tensor]:
    """``t, s`` in float64, or a ValueError that says why one cannot step from t down to s."""
    t, s = torch.as_tensor(t, dtype=torch.float64), torch.as_tensor(s, dtype=torch.float64)
    for name, time in (("t", t), ("s", s)):
        if time.numel() and not (time.min() >= 0 and time.max() <= 1):
            raise ValueError(f"times lie in [0, 1], 0 clean and 1 noise; {name} is {time.tolist()}")
    if not (s < t).all():
        raise ValueError(f"a step goes from t down to s < t, towards the data; got t = {t.tolist()}, s = {s.tolist()}")
    return t, s


def posterior_variance(schedule: Schedule, t: Tensor | float, s: Tensor | float) -> Tensor:
    """The variance of ``q(x_s | x_t, x0)`` in the Markov chain (DDPM, eq. 7): ``sigma_s^2 (1 - SNR_t / SNR_s)``.

    The "small" choice of the reverse variance; 0 at the last step.
    """
    t, s = check_step(t, s)
    return schedule.scales(s)[1] ** 2 * _gain(schedule, t, s, 2)


def chain_variance(schedule: Schedule, t: Tensor | float, s: Tensor | float) -> Tensor:
    """The variance of ``q(x_t | x_s)``: ``sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2``, beta_t in a DDPM.

    The "large" choice of the reverse variance (DDPM, sec. 3.2): ``Gaussian(schedule, variance=chain_variance)``.
    """
    t, s = check_step(t, s)
    return schedule.scales(t)[1] ** 2 * _gain(schedule, t, s, 2)


def analytic_variance(
    schedule: Schedule,
    t: Tensor | float,
    s: Tensor | float,
    mean_square_eps: Tensor | float | Callable[[Tensor], Tensor],
    eta: float = 1.0,
) -> Tensor:
    """The best single variance of a reverse step (Analytic-DPM, Bao et al. 2022, theorem 1, eq. 8).

    ``spread^2 + (sigma_t alpha_s / alpha_t - sqrt(sigma_s^2 - spread^2))^2 (1 - mean_square_eps)`` with
    ``spread^2 = eta^2 posterior_variance``. ``mean_square_eps`` is ``E |E[eps | x_t]|^2`` a dimension, between 0
    and 1, measured once on training data: a number, or a function of t. As the variance of a corruption:
    ``Gaussian(schedule, variance=partial(analytic_variance, mean_square_eps=...))``.
    """
    t, s = check_step(t, s)
    (alpha_t, sigma_t), (alpha_s, _) = schedule.scales(t), schedule.scales(s)
    if not (alpha_t > 0).all():
        raise ValueError("at alpha = 0 the noise says nothing of x0 and theorem 1 is 0 times infinity: start at t < 1")
    known = torch.as_tensor(mean_square_eps(t) if callable(mean_square_eps) else mean_square_eps, dtype=torch.float64)
    spread = eta**2 * posterior_variance(schedule, t, s)
    keep = _keep(schedule, t, s, eta)
    return spread + (sigma_t * alpha_s / alpha_t - keep) ** 2 * (1 - known).clamp_min(0)


def _gain(schedule: Schedule, t: Tensor, s: Tensor, power: int) -> Tensor:
    """``1 - (alpha_t sigma_s / (alpha_s sigma_t))^power``, without cancellation when t and s are close."""
    return -torch.expm1(power * (schedule.lam(t) - schedule.lam(s)))


def _keep(schedule: Schedule, t: Tensor, s: Tensor, eta: float) -> Tensor:
    """``sqrt(sigma_s^2 - eta^2 posterior_variance)``, the old noise in ``x_s``; the difference is taken on paper."""
    return schedule.scales(s)[1] * (1 - eta**2 + eta**2 * torch.exp(2 * (schedule.lam(t) - schedule.lam(s)))).sqrt()


@dataclass(frozen=True)
class Gaussian:
    """``x_t = alpha x0 + sigma eps`` with the bridges of DDIM (Song et al. 2021, eq. 7 and 16).

    eta: the share of fresh noise, 0 (DDIM: the noise in ``x_t`` is kept) to 1 (DDPM: the posterior of the chain).
    variance: what a sampler adds instead of ``eta^2 posterior_variance``, around the same mean: a function of
    ``(schedule, t, s)`` such as `chain_variance`, or a tensor that broadcasts against ``x_t`` or is (B,), for one
    step of a learned variance. It is not applied at the last step, to ``sigma_s = 0``, whose mean is the sample.
    """

    schedule: Schedule
    eta: float = 1.0
    variance: Variance | Tensor | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta is a share of fresh noise between 0 (DDIM) and 1 (DDPM); got {self.eta}")

    def prior(
        self, shape: Sequence[int], *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """``N(0, sigma(1)^2 I)``, what is left of any data at t = 1 as far as ``alpha(1)`` is 0."""
        return normal(shape, generator, dtype) * self.schedule.scales(1.0)[1]

    def corrupt(self, x0: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_t = alpha x0 + sigma eps``, (B, ...) -> (B, ...); t is () or (B,)."""
        alpha, sigma = self.schedule.scales(t, like=x0)
        return alpha * x0 + sigma * normal(x0.shape, generator, x0.dtype)

    def bridge(
        self,
        x_t: Tensor,
        x0: Tensor,
        t: Tensor | float,
        s: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``x_s = alpha_s x0 + sqrt(sigma_s^2 - spread^2) eps + noise``, ``eps`` from ``x_t`` (DDIM, eq. 12).

        ``spread^2 = eta^2 posterior_variance``. Draws no random number where there is no noise to add.
        """
        t, s = check_step(t, s)
        on_x_t, on_x0, variance = self.coefficients(t, s)
        x_s = expand(on_x_t, x_t) * x_t + expand(on_x0, x_t) * x0
        variance = expand(variance, x_t)
        variance = torch.where(expand(self.schedule.scales(s)[1], x_t).to(variance.device) > 0, variance, 0)
        return x_s + variance.sqrt() * normal(x_t.shape, generator, x_t.dtype) if variance.any() else x_s

    def coefficients(self, t: Tensor | float, s: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """``a, b, variance`` of the step ``x_s = a x_t + b x0 + sqrt(variance) noise``: float64, () or (B,).

        A tensor given as ``variance`` comes back as it is.
        """
        t, s = check_step(t, s)
        (alpha_t, sigma_t), (alpha_s, _) = self.schedule.scales(t), self.schedule.scales(s)
        keep = _keep(self.schedule, t, s, self.eta) / sigma_t
        if self.variance is None:
            variance = self.eta**2 * posterior_variance(self.schedule, t, s)
        else:
            variance = self.variance(self.schedule, t, s) if callable(self.variance) else self.variance
        return keep, alpha_s - keep * alpha_t, variance

    def eps(self, x_t: Tensor, x0: Tensor, t: Tensor | float) -> Tensor:
        """The noise in ``x_t`` if its clean data is ``x0``: ``(x_t - alpha x0) / sigma``, at ``sigma > 0``."""
        alpha, sigma = self.schedule.scales(t, like=x_t)
        if not (sigma > 0).all():
            raise ValueError("clean data holds no noise to read off: eps needs a time with sigma > 0")
        return (x_t - alpha * x0) / sigma

    def implied_x0(self, x_t: Tensor, x_s: Tensor, t: Tensor | float, s: Tensor | float) -> Tensor:
        """The ``x0`` whose deterministic bridge leads from ``x_t`` to ``x_s`` (Salimans & Ho 2022, app. G).

        ``(x_s - (sigma_s / sigma_t) x_t) / (alpha_s - alpha_t sigma_s / sigma_t)``: what a student must answer to
        do in one step what its teacher did in several. It inverts ``Gaussian(schedule, eta=0).bridge``.
        """
        t, s = check_step(t, s)
        (_, sigma_t), (alpha_s, sigma_s) = self.schedule.scales(t), self.schedule.scales(s)
        span = alpha_s * _gain(self.schedule, t, s, 1)
        return expand(1 / span, x_t) * x_s - expand(sigma_s / (sigma_t * span), x_t) * x_t


@dataclass(frozen=True)
class Renoise:
    """The bridge that forgets ``x_t``: ``x_s = alpha_s x0 + sigma_s eps`` with new noise.

    Multi-step sampling of a consistency model (Song et al. 2023, alg. 1), and of a GAN that draws ``x0``.
    """

    schedule: Schedule

    def prior(
        self, shape: Sequence[int], *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """``N(0, sigma(1)^2 I)``."""
        return Gaussian(self.schedule).prior(shape, generator=generator, dtype=dtype)

    def corrupt(self, x0: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_t = alpha x0 + sigma eps``."""
        return Gaussian(self.schedule).corrupt(x0, t, generator=generator)

    def bridge(
        self,
        x_t: Tensor,
        x0: Tensor,
        t: Tensor | float,
        s: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``x_s ~ q(x_s | x0)``, whatever ``x_t`` was. Where ``sigma_s = 0`` no random number is drawn."""
        _, s = check_step(t, s)
        alpha, sigma = self.schedule.scales(s, like=x0)
        return self.corrupt(x0, s, generator=generator) if sigma.any() else alpha * x0


@dataclass(frozen=True)
class Cold:
    """Any degradation, noise or not: ``x_t = degrade(x0, t)`` (Cold Diffusion, Bansal et al. 2022, alg. 2).

    The bridge ``x_t - degrade(x0, t) + degrade(x0, s)`` cancels the restorer's mistakes to first order: if
    ``degrade(x, t) = x + t e``, it is exact with *any* restorer. ``terminal(shape, generator)`` draws ``x_1``.
    """

    degrade: Callable[[Tensor, Tensor], Tensor]
    terminal: Callable[[Sequence[int], torch.Generator | None], Tensor] | None = None

    def prior(self, shape: Sequence[int], *, generator: torch.Generator | None = None) -> Tensor:
        """``x_1`` from ``terminal``. Raises ValueError without one: a degradation does not say where it ends."""
        if self.terminal is None:
            raise ValueError("this degradation names no law of x_1: start from corrupt(x0, 1.0), or give terminal=")
        return self.terminal(shape, generator)

    def corrupt(self, x0: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None) -> Tensor:
        """``degrade(x0, t)``; nothing is drawn."""
        return self.degrade(x0, torch.as_tensor(t, dtype=torch.float64))

    def bridge(
        self,
        x_t: Tensor,
        x0: Tensor,
        t: Tensor | float,
        s: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``x_s = x_t - degrade(x0, t) + degrade(x0, s)``; nothing is drawn."""
        t, s = check_step(t, s)
        return x_t - self.degrade(x0, t) + self.degrade(x0, s)
