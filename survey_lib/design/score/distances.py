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
    """``P(x_t <= x)`` for a mixture on a line, in the shape of ``x``: ``sum_k w_k Phi((x - alpha m_k) / s_k)``.

    ``s_k^2 = alpha^2 v_k + sigma^2``. Float64.
    """
    if law.event.numel() != 1:
        raise ValueError(f"a distribution function needs a law on a line; this one lives on {tuple(law.event)}")
    alpha, sigma = schedule.scales(t)
    spread = (alpha**2 * law.variances[:, 0] + sigma**2).sqrt()
    z = (x.double().unsqueeze(-1) - alpha * law.means[:, 0]) / spread
    return (torch.special.ndtr(z) * law.weights).sum(-1)


def ks_distance(states: Tensor, law: GaussianMixture, t: Tensor | float, schedule: Schedule) -> float:
    """The largest distance between the distribution function of ``states`` (B, 1) and the exact one (Kolmogorov).

    Of B independent draws from the law itself it exceeds ``1.36 / sqrt(B)`` once in twenty times.
    """
    exact = mixture_cdf(law, states.double().flatten().sort().values, t, schedule)
    steps = torch.arange(len(exact) + 1, dtype=torch.float64) / len(exact)
    return float(torch.maximum(steps[1:] - exact, exact - steps[:-1]).max())


def ks_critical_value(count: int, level: float = 0.05) -> float:
    """Critical value of `ks_distance` for ``count`` draws at ``level``: ``sqrt(log(2 / level) / 2 count)``.

    An upper bound for every count (Dvoretzky, Kiefer & Wolfowitz 1956; Massart 1990).
    """
    return math.sqrt(math.log(2 / level) / (2 * count))


def mode_frequencies(x: Tensor, law: GaussianMixture) -> Tensor:
    """Fraction of the points ``x`` (B, D) nearest to each mode: (K,) in float64."""
    return _nearest(x, law).bincount(minlength=len(law.means)).double() / len(x)


def mode_divergence(x: Tensor, law: GaussianMixture) -> float:
    """``KL(frequencies | weights)`` in nats. B perfect draws have ``(K - 1) / 2B`` of it by chance."""
    found = mode_frequencies(x, law)
    return float(torch.xlogy(found, found / law.weights).sum())


def shape_error(x: Tensor, law: GaussianMixture) -> float:
    """The 2-Wasserstein distance of the spots' shape from the exact normal one, in widths of a spot.

    Each point is taken relative to the nearest spot and measured in its widths; along each axis the order statistics
    stand against normal quantiles, and the axes are averaged. B perfect draws come to about ``sqrt(log(B) / B)``;
    a point lost between the spots counts with the square of how far out it is. Axis-aligned spots only.
    """
    if law._axes is not None:
        raise ValueError("shapes are compared along the axes: the spots need scales=, not covs=")
    nearest = _nearest(x, law)
    rest = (x.double() - law.means[nearest]) / law.variances[nearest].sqrt()
    ranks = (torch.arange(len(x), dtype=torch.float64) + 0.5) / len(x)
    gap = rest.sort(0).values - torch.special.ndtri(ranks)[:, None]
    return math.sqrt(float(gap.square().mean()))


def _nearest(x: Tensor, law: GaussianMixture) -> Tensor:
    if x.ndim != 2 or x.shape[1] != law.means.shape[1] or not len(x):
        raise ValueError(f"points are (B, {law.means.shape[1]}) with B at least 1; got {tuple(x.shape)}")
    return torch.cdist(x.double(), law.means).argmin(1)
