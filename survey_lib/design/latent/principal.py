"""Diffusion in leading principal components: the two stages of latent diffusion in a case that is exact.

A normal distribution ``N(0, C)`` with eigenvalues ``v_1 >= v_2 >= ...``, an autoencoder that keeps the first K
components, and a sampler in their K numbers. Components stay independent, so each contributes its own error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from survey_lib.core.exact import GaussianLaw
from survey_lib.core.protocols import Denoiser
from survey_lib.core.schedules import Schedule

#: ``sampler(denoiser, schedule, x, times)``
Sampler = Callable[[Denoiser, Schedule, Tensor, Tensor], Tensor]


class Distance(NamedTuple):
    """The two parts of a squared Fréchet distance for K = 0 ... D kept components: (D + 1,) each."""

    lost: Tensor  # by the autoencoder
    added: Tensor  # by the sampler

    @property
    def total(self) -> Tensor:
        """The distance of decoded samples from the data."""
        return self.lost + self.added


def lost_variance(eigenvalues: Tensor) -> Tensor:
    """Sum of the discarded eigenvalues for K = 0 ... D components kept: (D + 1,).

    It is the expected squared error of a reconstruction (Eckart & Young 1936), and the squared Fréchet distance between
    ``N(0, C)`` and the reconstructions, ``N(0, P C P)``.
    """
    kept = torch.cat([eigenvalues.new_zeros(1), eigenvalues.cumsum(0)])
    return (kept[-1] - kept).clamp_min(0)


def decoded_distance(eigenvalues: Tensor, schedule: Schedule, times: Tensor, sampler: Sampler) -> Distance:
    """Squared Fréchet distance between the data and decoded samples, for every number of components kept.

    eigenvalues: (D,), falling, float64.
    sampler: deterministic, such as `multistep`. With the exact denoiser it multiplies each component of its start by a
        constant, ``c_k``, so it adds ``(c_k - sqrt(v_k))^2``.
    """
    if (eigenvalues.diff() > 0).any() or eigenvalues[-1] <= 0:
        raise ValueError("eigenvalues are positive and fall; sort them first")
    denoiser = GaussianLaw(torch.zeros_like(eigenvalues), eigenvalues).denoiser(schedule)
    start = schedule.scales(times[0])[1].to(eigenvalues).expand(1, len(eigenvalues))
    spread = sampler(denoiser, schedule, start, times)[0].abs()
    errors = (spread - eigenvalues.sqrt()).square()
    return Distance(lost_variance(eigenvalues), torch.cat([errors.new_zeros(1), errors.cumsum(0)]))
