"""Distances between samples and a known distribution.

On a line, Kolmogorov's distance of the distribution functions. For mixtures of well separated modes, two metrics: the
frequencies of the modes, and the shape within the modes. A single distance would hide errors of shape, because the
randomness of the frequencies alone moves a Wasserstein distance by more than the steps of a sampler do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from survey_lib.core.exact import GaussianMixture
from survey_lib.core.schedules import Schedule


def mixture_cdf(law: GaussianMixture, x: Tensor, t: Tensor | float, schedule: Schedule) -> Tensor:
    """Distribution function ``P(x_t <= x)`` of a mixture on a line, in the shape of ``x`` and in float64.

    ``sum_k w_k Phi((x - alpha m_k) / s_k)`` with ``s_k^2 = alpha^2 v_k + sigma^2``.
    """
    if law.event.numel() != 1:
        raise ValueError(f"a distribution function needs data on a line; got events {tuple(law.event)}")
    alpha, sigma = schedule.scales(t)
    spread = (alpha**2 * law.variances[:, 0] + sigma**2).sqrt()
    z = (x.double().unsqueeze(-1) - alpha * law.means[:, 0]) / spread
    return (torch.special.ndtr(z) * law.weights).sum(-1)


def ks_distance(states: Tensor, law: GaussianMixture, t: Tensor | float, schedule: Schedule) -> float:
    """Kolmogorov-Smirnov distance of ``states`` (B, 1) from ``x_t``: the largest gap of the distribution functions.

    B independent samples of ``x_t`` itself exceed `ks_critical_value` with probability at most ``level``.
    """
    exact = mixture_cdf(law, states.double().flatten().sort().values, t, schedule)
    steps = torch.arange(len(exact) + 1, dtype=torch.float64) / len(exact)
    return float(torch.maximum(steps[1:] - exact, exact - steps[:-1]).max())


def ks_critical_value(count: int, level: float = 0.05) -> float:
    """Critical value of `ks_distance` for ``count`` samples at ``level``: ``sqrt(log(2 / level) / (2 count))``.

    An upper bound for every count (Dvoretzky, Kiefer & Wolfowitz 1956; Massart 1990).
    """
    return math.sqrt(math.log(2 / level) / (2 * count))


def mode_frequencies(x: Tensor, law: GaussianMixture) -> Tensor:
    """Fraction of the points ``x`` (B, D) nearest to each mode: (K,) in float64."""
    return _nearest(x, law).bincount(minlength=len(law.means)).double() / len(x)


def mode_divergence(x: Tensor, law: GaussianMixture) -> float:
    """``KL(mode_frequencies | weights)`` in nats. For B exact samples its mean is about ``(K - 1) / (2 B)``."""
    found = mode_frequencies(x, law)
    return float(torch.xlogy(found, found / law.weights).sum())


def shape_error(x: Tensor, law: GaussianMixture) -> float:
    """2-Wasserstein distance of the shape within the modes from the exact normal one, in standard deviations of a mode.

    Each point is standardised by its nearest mode; along each axis the order statistics are compared with normal
    quantiles, and the axes are averaged. For B exact samples it is about ``sqrt(log(B) / B)``. A point between the
    modes counts with the square of its standardised distance. Modes must be axis-aligned.
    """
    if law._axes is not None:
        raise ValueError("shapes are compared along the axes: the mixture needs scales=, not covs=")
    nearest = _nearest(x, law)
    rest = (x.double() - law.means[nearest]) / law.variances[nearest].sqrt()
    ranks = (torch.arange(len(x), dtype=torch.float64) + 0.5) / len(x)
    gap = rest.sort(0).values - torch.special.ndtri(ranks)[:, None]
    return math.sqrt(float(gap.square().mean()))


def _nearest(x: Tensor, law: GaussianMixture) -> Tensor:
    if x.ndim != 2 or x.shape[1] != law.means.shape[1] or not len(x):
        raise ValueError(f"points must be (B, {law.means.shape[1]}) with B at least 1; got {tuple(x.shape)}")
    return torch.cdist(x.double(), law.means).argmin(1)
