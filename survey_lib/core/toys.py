"""Ready-made exact distributions in one and two dimensions, all within [-1.2, 1.2]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from survey_lib.core.exact import GaussianMixture


def two_peaks(distance: float = 1.0, scale: float = 0.15, balance: float = 0.5) -> GaussianMixture:
    """Two normal peaks on a line, ``distance`` apart; ``balance`` is the probability of the right peak."""
    return GaussianMixture(
        torch.tensor([[-distance / 2], [distance / 2]]), scales=scale, weights=torch.tensor([1 - balance, balance])
    )


def eight_modes(radius: float = 1.0, scale: float = 0.05) -> GaussianMixture:
    """Eight equal modes on a circle, labelled 0 to 7 anticlockwise from the right."""
    angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    means = radius * torch.stack([angle.cos(), angle.sin()], dim=1)
    return GaussianMixture(means, scales=scale, labels=torch.arange(8))


def grid_25(half_width: float = 1.0, scale: float = 0.04) -> GaussianMixture:
    """Five by five equal modes on a square, the usual test for lost modes, labelled row by row."""
    side = torch.linspace(-half_width, half_width, 5, dtype=torch.float64)
    return GaussianMixture(torch.cartesian_prod(side, side), scales=scale, labels=torch.arange(25))


def two_moons(spots: int = 24, scale: float = 0.06) -> GaussianMixture:
    """Two interlocked half circles, labelled 0 and 1, each a chain of ``spots`` small normal components."""
    angle = torch.linspace(0, math.pi, spots, dtype=torch.float64)
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], dim=1)
    means = 0.7 * torch.cat([upper, -upper])
    return GaussianMixture(means, scales=scale, labels=torch.arange(2).repeat_interleave(spots))


def spiral_points(n: int = 200, turns: float = 2.0) -> Tensor:
    """``n`` points evenly spaced along a spiral, (n, 2) in float64: a finite data set for `Empirical`."""
    radius = torch.linspace(0.01, 1, n, dtype=torch.float64).sqrt()  # arc length grows as radius^2
    angle = 2 * math.pi * turns * radius
    return radius.unsqueeze(1) * torch.stack([angle.cos(), angle.sin()], dim=1)
