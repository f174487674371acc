"""Training losses of a denoiser: squared error, its weights, distributions of times, and the bound on the likelihood.

Every loss of the field is ``w(lam) |x0 - D(x_t, t)|^2``. Predicting noise, data or velocity changes only
the weight ``w`` (once the head is undone), and so does the distribution of the times.
One weight is not a choice: `variational_bound` is the bound on ``-log p(x0)`` of the sampled model, in nats.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from survey_lib.core.categorical import Categorical
from survey_lib.core.checks import check_step, check_times
from survey_lib.core.corruptions import Gaussian, chain_variance
from survey_lib.core.protocols import Corruption, Denoiser, expand, normal
from survey_lib.core.schedules import Schedule

#: Spacing of 8-bit grey values in [-1, 1].
BYTE_STEP = 2 / 255


def denoising_loss(
    model: Denoiser,
    corruption: Corruption,
    x0: Tensor,
    t: Tensor,
    *,
    weight: Tensor | None = None,
    cond: Any = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Denoising loss ``w |x0 - D(x_t, t)|^2`` with ``x_t ~ q(x_t | x0)``, averaged over dimensions: (B,).

    x0: (B, ...).
    t: () or (B,).
    weight: w, () or (B,).
    """
    x_t = corruption.corrupt(x0, t, generator=generator)
    error = (model(x_t, t, cond) - x0).square().flatten(1).mean(1)
    return error if weight is None else weight.to(error) * error


def eps_weight(lam: Tensor) -> Tensor:
    """``SNR = exp(2 lam)``: the squared error of the noise (DDPM, eq. 14), ``|eps - eps_hat|^2``."""
    return torch.exp(2 * lam)


def v_weight(lam: Tensor) -> Tensor:
    """``SNR + 1``: the squared error of v under a variance-preserving schedule (Salimans & Ho 2022, sec. 4)."""
    return torch.exp(2 * lam) + 1


def edm_weight(lam: Tensor, sigma_data: float = 0.5) -> Tensor:
    """``SNR + 1 / sigma_data^2``: the squared error of EDM's network output, equal at every noise (EDM, eq. 8)."""
    return torch.exp(2 * lam) + sigma_data**-2


def uniform_times(count: int, *, generator: torch.Generator) -> Tensor:
    """``count`` independent times, uniform in [0, 1): float64 on the generator's device."""
    return torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64)


def stratified_times(count: int, *, generator: torch.Generator) -> Tensor:
    """Uniform times, one in each of ``count`` equal slices (VDM, app. I.1): the same mean, less variance."""
    slices = torch.arange(count, device=generator.device, dtype=torch.float64)
    return (slices + uniform_times(count, generator=generator)) / count


def lognormal_times(
    count: int, schedule: Schedule, *, mean: float = -1.2, std: float = 1.2, generator: torch.Generator
) -> Tensor:
    """Times at which ``log(sigma / alpha)`` is normal (EDM, table 1): most at medium noise."""
    return schedule.time(-(mean + std * normal((count,), generator, torch.float64)))


class Bound(NamedTuple):
    """Terms of ``-log p(x0) <= prior + steps.sum(1) + reconstruction``, in nats per example (DDPM, eq. 5)."""

    prior: Tensor  # (B,)
    steps: Tensor  # (B, N - 1)
    reconstruction: Tensor  # (B,)

    @property
    def total(self) -> Tensor:
        """The bound on ``-log p(x0)``: (B,), in nats."""
        return self.prior + self.steps.sum(1) + self.reconstruction


def variational_bound(
    denoiser: Denoiser,
    corruption: Gaussian | Categorical,
    x0: Tensor,
    times: Tensor,
    *,
    bin_width: float | None = BYTE_STEP,
    cond: Any = None,
    generator: torch.Generator | None = None,
) -> Bound:
    """Unbiased estimate of the bound on ``-log p(x0)`` of the sampler on this grid (DDPM, eq. 5).

    corruption: Gaussian with ``eta > 0``, for without noise almost all data have density 0; or Categorical.
    x0: (B, ...).
    times: a grid of N steps that ends at 0; one evaluation for each.
    bin_width: spacing of the values of the data, for Gaussian corruption; see `reconstruction`.
    """
    times = check_times(times)
    if times[-1] != 0:
        raise ValueError(f"the grid of a bound on clean data ends at 0; this grid ends at {times[-1]:g}")
    steps = []
    for t, s in pairwise(times):
        x_t = corruption.corrupt(x0, t, generator=generator)
        prediction = denoiser(x_t, t, cond)
        if s > 0:
            steps.append(step_kl(corruption, x_t, x0, prediction, t, s))
    last = reconstruction(corruption, x_t, x0, prediction, times[-2], bin_width=bin_width)
    middle = torch.stack(steps, dim=1) if steps else last.new_zeros(len(x0), 0)
    return Bound(prior_kl(corruption, x0, times[0]), middle, last)


def prior_kl(corruption: Gaussian | Categorical, x0: Tensor, t: Tensor | float = 1.0) -> Tensor:
    """``KL(q(x_t | x0) || prior)`` at the first time of a grid: (B,) in nats.

    Gaussian: against ``N(0, sigma_t^2 I)``, which is ``(alpha / sigma)^2 |x0|^2 / 2``. Categories: against
    ``stationary``; infinite if ``stationary`` excludes a state that ``x0`` can reach.
    """
    if isinstance(corruption, Categorical):
        true = corruption.marginal(x0, t)
        return _total(torch.xlogy(true, true) - torch.xlogy(true, corruption.stationary.to(true)))
    alpha, sigma = corruption.schedule.scales(t, like=x0.double())
    return _total(0.5 * (alpha / sigma * x0.double()) ** 2)


def step_kl(
    corruption: Gaussian | Categorical, x_t: Tensor, x0: Tensor, x0_hat: Tensor, t: Tensor | float, s: Tensor | float
) -> Tensor:
    """``KL(q(x_s | x_t, x0) || p(x_s | x_t))`` for a denoiser's prediction ``x0_hat``: (B,) in nats.

    Gaussian: ``(gap^2 + v - w) / (2 w) + log(w / v) / 2`` per dimension, with v the variance of the bridge, w the
    variance of the sampler's step, and gap the distance of their means. With ``v = w`` and ``eta = 1`` it is
    ``(SNR_s - SNR_t) |x0 - x0_hat|^2 / 2`` (VDM, eq. 13). Categories: between their `Categorical.posterior`.
    """
    if isinstance(corruption, Categorical):
        certain = torch.nn.functional.one_hot(x0.long(), len(corruption.stationary)).double()
        true, model = (corruption.posterior(x_t, p.double(), t, s) for p in (certain, x0_hat))
        model = torch.where(true > 0, model, 1)  # mask impossible states, which would give 0 / 0 in the gradient
        return _total(torch.xlogy(true, true) - torch.xlogy(true, model))
    t, s = check_step(t, s)
    if corruption.eta == 0 or not (corruption.schedule.scales(s)[1] > 0).all():
        raise ValueError("a step without noise has no finite divergence: take eta > 0, and s with sigma_s > 0")
    like = x0.double()
    _, on_x0, variance = (expand(torch.as_tensor(c), like) for c in corruption.coefficients(t, s))
    bridge = expand(replace(corruption, variance=None).coefficients(t, s)[2], like)
    gap = on_x0 * (like - x0_hat.double())
    return _total((gap**2 + bridge - variance) / (2 * variance) + 0.5 * (variance / bridge).log())


def reconstruction(
    corruption: Gaussian | Categorical,
    x_t: Tensor,
    x0: Tensor,
    x0_hat: Tensor,
    t: Tensor | float,
    *,
    bin_width: float | None = BYTE_STEP,
) -> Tensor:
    """``-log p(x0 | x_t)`` of the last step, from t to 0: (B,) in nats.

    Gaussian: ``N(x0_hat, w I)`` with w the corruption's ``variance`` or, by default, `chain_variance`, as in DDPM.
    With ``bin_width``, the probability of the bin around each value of data on a lattice in [-1, 1], the outermost
    bins open (DDPM, eq. 13); with None, the density. Categories: the probability of ``x0`` under the posterior.
    """
    if isinstance(corruption, Categorical):
        return step_kl(corruption, x_t, x0, x0_hat, t, 0.0)
    like = x0.double()
    variance = chain_variance if corruption.variance is None else corruption.variance
    variance = variance(corruption.schedule, t, 0.0) if callable(variance) else variance
    width, distance = expand(torch.as_tensor(variance), like).sqrt(), like - x0_hat.double()
    if bin_width is None:
        return _total(0.5 * (distance / width) ** 2 + width.log() + 0.5 * math.log(2 * math.pi))
    # Probabilities far out are differences of numbers near 1: mirror them into the left tail, where logs are exact.
    sign = torch.where(distance > 0, -1.0, 1.0).to(like)
    upper, lower = (sign * distance + bin_width / 2) / width, (sign * distance - bin_width / 2) / width
    edge = sign * like
    log_upper = torch.special.log_ndtr(upper).masked_fill(edge > 1 - bin_width / 2, 0.0)
    log_lower = torch.special.log_ndtr(lower).masked_fill(edge < -1 + bin_width / 2, -math.inf)
    return _total(-(log_upper + torch.log1p(-torch.exp(log_lower - log_upper))))


def continuous_bound(
    denoiser: Denoiser,
    schedule: Schedule,
    x0: Tensor,
    *,
    t_min: float = 1e-3,
    t_max: float = 1.0,
    cond: Any = None,
    generator: torch.Generator,
) -> Tensor:
    """The sum over steps of the bound in the limit of infinitely many steps (VDM, eq. 17): (B,) in nats.

    ``integral of exp(2 lam) |x0 - D(x_t)|^2 d lam`` from ``lam(t_max)`` to ``lam(t_min)``: it depends on the schedule
    only through these two ends. An unbiased estimate, with one lam per example, stratified over the batch.
    """
    high, low = schedule.lam(t_min), schedule.lam(t_max)
    if not (torch.isfinite(high) and torch.isfinite(low) and high > low):
        raise ValueError(f"the bound needs finite lam at t_min < t_max; got lam {low:g} to {high:g}: move t inwards")
    lam = low + (high - low) * stratified_times(len(x0), generator=generator)
    terms = bound_integrand(denoiser, schedule, x0, lam, cond=cond, generator=generator)
    return (high - low).to(terms) * terms


def bound_integrand(
    denoiser: Denoiser, schedule: Schedule, x0: Tensor, lam: Tensor, *, cond: Any = None, generator: torch.Generator
) -> Tensor:
    """Integrand of the bound, ``exp(2 lam) |x0 - D(x_t)|^2`` (VDM, eq. 17), at one ``lam`` per example, (B,): (B,)."""
    t = schedule.time(lam)
    x_t = Gaussian(schedule).corrupt(x0, t, generator=generator)
    error = _total((denoiser(x_t, t, cond) - x0).double() ** 2)
    return torch.exp(2 * lam).to(error) * error


def _total(terms: Tensor) -> Tensor:
    return terms.flatten(1).sum(1)
