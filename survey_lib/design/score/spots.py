"""Samples of a law of well separated spots, judged in two parts: how many in each spot, and what shape the spots have.

One distance for both would drown the shapes: the chance in the shares alone moves a Wasserstein distance by more than
a sampler's steps do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from survey_lib.core.exact import GaussianMixture


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
