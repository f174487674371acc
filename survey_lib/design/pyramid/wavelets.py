"""Haar wavelets, and the diffusion of one scale after the other, exactly, for normal distributions (WSGM).

A signal of N numbers is split into N / 2 coarse numbers and N / 2 details, and the coarse numbers again. Guth et al.
(2022) diffuse the coarsest scale, and then the details of each scale given what is coarser. For a normal distribution
every such conditional is normal, so what a sampler makes of it in n steps is known without drawing anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from survey_lib.core.exact import GaussianLaw
from survey_lib.core.protocols import Denoiser
from survey_lib.core.schedules import Schedule

#: ``sampler(denoiser, schedule, x, times)``
Sampler = Callable[[Denoiser, Schedule, Tensor, Tensor], Tensor]


def haar(x: Tensor) -> Tensor:
    """Orthonormal Haar transform of images, one scale: (B, C, H, W) -> (B, 4 C, H / 2, W / 2).

    Four maps for each channel: coarse (twice the mean of a block of 2 x 2), and details across, down and diagonal.
    """
    if x.ndim != 4 or x.shape[2] % 2 or x.shape[3] % 2:
        raise ValueError(f"a Haar transform takes images (B, C, H, W) with even sides; got {tuple(x.shape)}")
    return _turn(F.pixel_unshuffle(x, 2).unflatten(1, (x.shape[1], 4))).flatten(1, 2)


def unhaar(maps: Tensor) -> Tensor:
    """The images of which `haar` made ``maps``: (B, 4 C, H, W) -> (B, C, 2 H, 2 W)."""
    if maps.ndim != 4 or maps.shape[1] % 4:
        raise ValueError(f"the maps of a Haar transform are (B, 4 C, H, W); got {tuple(maps.shape)}")
    return F.pixel_shuffle(_turn(maps.unflatten(1, (-1, 4))).flatten(1, 2), 2)


def _turn(four: Tensor) -> Tensor:
    """The rotation of a block of 2 x 2, (B, C, 4, h, w), which is its own inverse; sums keep the precision of x."""
    a, b, c, d = four.unbind(2)
    return torch.stack([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], dim=2) / 2


class Scale(NamedTuple):
    """The law of some numbers of a normal signal given the coarser numbers c: ``N(weights c, cov)``, and that of c."""

    weights: Tensor  # (n, m), with m = 0 at the coarsest scale
    cov: Tensor  # (n, n)
    coarse: Tensor  # (m, m), the covariance of c


def scales(cov: Tensor, coarsest: int = 1) -> list[Scale]:
    """The scales of a normal signal ``N(0, cov)``, from the ``coarsest`` numbers to the finest details.

    cov: (N, N), float64, N a power of 2 times ``coarsest``. The coarse numbers are sums of neighbours over root 2.
    """
    found: list[Scale] = []
    while len(cov) > coarsest:
        if len(cov) % 2:
            raise ValueError(f"{len(cov)} numbers do not split into halves down to {coarsest}")
        rows = torch.eye(len(cov), dtype=cov.dtype).unflatten(0, (-1, 2))
        mean, detail = ((rows[:, 0] + sign * rows[:, 1]) / math.sqrt(2) for sign in (1, -1))
        coarse, cross = mean @ cov @ mean.T, detail @ cov @ mean.T
        weights = torch.linalg.solve(coarse, cross, left=False)
        found.append(Scale(weights, detail @ cov @ detail.T - weights @ cross.T, coarse))
        cov = coarse
    found.append(Scale(cov.new_zeros(len(cov), 0), cov, cov.new_zeros(0, 0)))
    return found[::-1]


def divergence(scale: Scale, schedule: Schedule, times: Tensor, sampler: Sampler) -> Tensor:
    """KL divergence of one scale's true law from the law that a sampler draws, in nats: a mean over c.

    The numbers are divided by their mean deviation first, as WSGM does. By the chain rule the divergences of
    all scales add up to that of the whole signal.

    sampler: deterministic and linear in its start, such as `multistep`: with the exact denoiser it takes each
        eigenvector of the covariance apart.
    """
    unit = scale.cov.diagonal().mean()
    values, axes = torch.linalg.eigh(scale.cov / unit)
    means = (axes.T @ scale.weights @ scale.coarse @ scale.weights.T @ axes).diagonal() / unit  # E of squared means
    denoiser = GaussianLaw(torch.zeros_like(values), values).denoiser(schedule)
    alpha, sigma = (part.to(values) for part in schedule.scales(times[0]))
    factor = sampler(denoiser, schedule, torch.ones(1, len(values), dtype=values.dtype), times)[0]
    drawn = (factor * sigma).square()  # the variance; the mean is off by factor * alpha * mean
    off = (factor * alpha).square() * means
    return 0.5 * (values / drawn - 1 - (values / drawn).log() + off / drawn).sum()


def steps_needed(
    parts: list[Scale],
    schedule: Schedule,
    grid: Callable[[int], Tensor],
    sampler: Sampler,
    *,
    tolerance: float = 0.05,
    most: int = 1 << 16,
) -> int:
    """The fewest steps a scale after which the divergence is at most ``tolerance`` nats a number.

    The divergence is taken to fall with the number of steps from there on. Raises ValueError if it takes more than
    ``most``.
    """
    size = sum(len(part.cov) for part in parts)

    def enough(steps: int) -> bool:
        return sum(divergence(part, schedule, grid(steps), sampler) for part in parts) <= tolerance * size

    high = 1
    while not enough(high):
        high *= 2
        if high > most:
            raise ValueError(f"{most} steps leave more than {tolerance:g} nats a number")
    low = high // 2  # not enough, or 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
