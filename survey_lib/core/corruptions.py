"""Corruptions of real-valued data and their bridges: `Gaussian`, `Renoise`, `Cold`. (Categories: `categorical`.)

``q(x_t | x0) = N(alpha x0, sigma^2 I)`` does not determine the joint distribution of ``x_s`` and ``x_t``. The bridges
below share these marginals, so one trained denoiser serves them all; they differ in how much of the noise in ``x_t``
is kept in ``x_s`` and how much is new.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from survey_lib.core.checks import check_batch_of_times, check_floating, check_signal, check_step
from survey_lib.core.protocols import expand, normal, normal_like
from survey_lib.core.schedules import Schedule

#: The variance of the noise added on the step from t to s: ``(schedule, t, s) -> () or (B,)``.
Variance = Callable[[Schedule, Tensor | float, Tensor | float], Tensor]


def posterior_variance(schedule: Schedule, t: Tensor | float, s: Tensor | float) -> Tensor:
    """Variance of ``q(x_s | x_t, x0)`` in the Markov chain (DDPM, eq. 7): ``sigma_s^2 (1 - SNR_t / SNR_s)``.

    The "small" choice of the reverse variance; 0 at the last step.
    """
    t, s = check_step(t, s)
    return schedule.scales(s)[1] ** 2 * _gain(schedule, t, s, 2)


def chain_variance(schedule: Schedule, t: Tensor | float, s: Tensor | float) -> Tensor:
    """Variance of ``q(x_t | x_s)``: ``sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2``, beta_t in a DDPM.

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
    """Optimal isotropic variance of a reverse step (Analytic-DPM, Bao et al. 2022, theorem 1, eq. 8).

    ``spread^2 + (sigma_t alpha_s / alpha_t - sqrt(sigma_s^2 - spread^2))^2 (1 - mean_square_eps)`` with
    ``spread^2 = eta^2 posterior_variance``. As the variance of a corruption:
    ``Gaussian(schedule, variance=partial(analytic_variance, mean_square_eps=...))``.

    mean_square_eps: ``E |E[eps | x_t]|^2`` per dimension, between 0 and 1, measured once on training data; a number,
        or a function of t.

    Raises ValueError where t is pure noise: the theorem is 0 times infinity there.
    """
    t, s = check_step(t, s)
    (alpha_t, sigma_t), (alpha_s, _) = schedule.scales(t), schedule.scales(s)
    check_signal(alpha_t, sigma_t, "the analytic variance")
    known = torch.as_tensor(mean_square_eps(t) if callable(mean_square_eps) else mean_square_eps, dtype=torch.float64)
    spread = eta**2 * posterior_variance(schedule, t, s)
    keep = _keep(schedule, t, s, eta)
    return spread + (sigma_t * alpha_s / alpha_t - keep) ** 2 * (1 - known).clamp_min(0)


def _gain(schedule: Schedule, t: Tensor, s: Tensor, power: int) -> Tensor:
    """``1 - (alpha_t sigma_s / (alpha_s sigma_t))^power``, without cancellation when t and s are close."""
    return -torch.expm1(power * (schedule.lam(t) - schedule.lam(s)))


def _keep(schedule: Schedule, t: Tensor, s: Tensor, eta: float) -> Tensor:
    """``sqrt(sigma_s^2 - eta^2 posterior_variance)``, the coefficient of the retained noise, free of cancellation."""
    return schedule.scales(s)[1] * (1 - eta**2 + eta**2 * torch.exp(2 * (schedule.lam(t) - schedule.lam(s)))).sqrt()


@dataclass(frozen=True)
class Gaussian:
    """``x_t = alpha x0 + sigma eps`` with the bridges of DDIM (Song et al. 2021, eq. 7 and 16).

    eta: fraction of new noise, from 0 (DDIM: the noise in ``x_t`` is kept) to 1 (DDPM: the posterior of the chain).
    variance: of the noise that a step adds, in place of ``eta^2 posterior_variance``, around the same mean: a function
        of ``(schedule, t, s)`` such as `chain_variance`, or a tensor that is (B,) or broadcasts against ``x_t``, for
        one step of a learned variance. A last step, to ``sigma_s = 0``, returns its mean.
    """

    schedule: Schedule
    eta: float = 1.0
    variance: Variance | Tensor | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta is the fraction of new noise, from 0 (DDIM) to 1 (DDPM); got {self.eta}")

    def prior(
        self,
        shape: Sequence[int],
        t: Tensor | float = 1.0,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """``N(0, sigma(t)^2 I)``, the initial state of a grid that begins at ``t``, () or (B,).

        It neglects the data in ``x_t``: the mean ``alpha E[x0]``, and ``(alpha / sigma)^2 Var[x0]`` of the relative
        variance.
        """
        noise = normal(shape, generator, dtype)
        return noise * self.schedule.scales(t, like=noise)[1]

    def corrupt(self, x0: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_t = alpha x0 + sigma eps``, (B, ...) -> (B, ...); t is () or (B,)."""
        check_floating("x0", x0)
        alpha, sigma = self.schedule.scales(t, like=x0)
        return alpha * x0 + sigma * normal_like(x0, generator)

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

        ``spread^2 = eta^2 posterior_variance``. Draws no random numbers if no example has noise added.
        """
        check_floating("x_t", x_t)
        t, s = check_step(t, s)
        check_batch_of_times(t, x_t)
        check_batch_of_times(s, x_t)
        on_x_t, on_x0, variance = self.coefficients(t, s)
        x_s = expand(on_x_t, x_t) * x_t + expand(on_x0, x_t) * x0
        variance = expand(variance, x_t)
        variance = torch.where(expand(self.schedule.scales(s)[1], x_t).to(variance.device) > 0, variance, 0)
        noisy = variance.is_meta or variance.any()
        return x_s + variance.sqrt() * normal_like(x_t, generator) if noisy else x_s

    def coefficients(self, t: Tensor | float, s: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """``a, b, variance`` of the step ``x_s = a x_t + b x0 + sqrt(variance) noise``: float64, () or (B,).

        A tensor given as ``variance`` is returned unchanged.
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
            raise ValueError("eps divides by sigma, which is 0 for clean data: take a time with sigma > 0")
        return (x_t - alpha * x0) / sigma

    def implied_x0(self, x_t: Tensor, x_s: Tensor, t: Tensor | float, s: Tensor | float) -> Tensor:
        """The ``x0`` whose deterministic bridge leads from ``x_t`` to ``x_s`` (Salimans & Ho 2022, app. G).

        ``(x_s - (sigma_s / sigma_t) x_t) / (alpha_s - alpha_t sigma_s / sigma_t)``: the target of a student
        that does in one step what its teacher did in several. It inverts ``Gaussian(schedule, eta=0).bridge``.
        """
        t, s = check_step(t, s)
        check_batch_of_times(t, x_t)
        check_batch_of_times(s, x_t)
        (_, sigma_t), (alpha_s, sigma_s) = self.schedule.scales(t), self.schedule.scales(s)
        span = alpha_s * _gain(self.schedule, t, s, 1)
        return expand(1 / span, x_t) * x_s - expand(sigma_s / (sigma_t * span), x_t) * x_t


@dataclass(frozen=True)
class Renoise:
    """A bridge independent of ``x_t``: ``x_s = alpha_s x0 + sigma_s eps`` with new noise.

    Multi-step sampling of a consistency model (Song et al. 2023, alg. 1), and of a GAN that samples ``x0``.
    """

    schedule: Schedule

    def prior(
        self,
        shape: Sequence[int],
        t: Tensor | float = 1.0,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """``N(0, sigma(t)^2 I)``, as `Gaussian.prior`."""
        return Gaussian(self.schedule).prior(shape, t, generator=generator, dtype=dtype)

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
        """``x_s ~ q(x_s | x0)``. Draws no random numbers at ``sigma_s = 0``."""
        _, s = check_step(t, s)
        alpha, sigma = self.schedule.scales(s, like=x0)
        return self.corrupt(x0, s, generator=generator) if sigma.is_meta or sigma.any() else alpha * x0


@dataclass(frozen=True)
class Cold:
    """Any degradation, random or not: ``x_t = degrade(x0, t)`` (Cold Diffusion, Bansal et al. 2022, alg. 2).

    The bridge ``x_t - degrade(x0, t) + degrade(x0, s)`` is exact with *any* restorer if ``degrade(x, t) = x + t e``
    with the same e for every x. In general a small step errs by ``(t - s) (e(x0) - e(guess))``.
    ``terminal(shape, generator)`` draws ``x_1``.
    """

    degrade: Callable[[Tensor, Tensor], Tensor]
    terminal: Callable[[Sequence[int], torch.Generator | None], Tensor] | None = None

    def prior(
        self, shape: Sequence[int], t: Tensor | float = 1.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``x_1`` from ``terminal``. Raises ValueError without a ``terminal``, and for a ``t`` below 1."""
        if self.terminal is None or t != 1:
            raise ValueError(
                f"this degradation has no distribution of x_t at t = {float(t):g}: start from corrupt(x0, t), or give "
                "terminal= and start at t = 1"
            )
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
