"""The variational bound in continuous time, estimated along any path of noise levels (VDM, Kingma et al. 2021).

Between two levels the bound is an integral over ``lam`` that does not depend on the schedule. A *path* of levels
``u in [0, 1] -> lam`` from clean to noisy determines how the integral is sampled: the variance of the estimate depends
on the path, its mean does not.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from survey_lib.core.likelihood import bits_per_dim
from survey_lib.core.losses import bound_integrand, stratified_times
from survey_lib.core.protocols import Denoiser
from survey_lib.core.schedules import Schedule

#: ``u -> lam, |d lam / d u|`` for u (B,) in [0, 1]: both (B,) in float64.
Path = Callable[[Tensor], tuple[Tensor, Tensor]]


def schedule_path(schedule: Schedule, clean: float, noisy: float) -> Path:
    """The path uniform in the time of a schedule, from ``lam = clean`` down to ``lam = noisy``."""
    ends = torch.tensor([clean, noisy], dtype=torch.float64)
    if not (torch.isfinite(ends).all() and clean > noisy):
        raise ValueError(f"a path must fall from a finite lam to a finite lower lam; got {clean:g} and {noisy:g}")
    first, last = schedule.time(ends)

    def path(u: Tensor) -> tuple[Tensor, Tensor]:
        t = first + (last - first) * u
        return schedule.lam(t), (last - first) * lam_speed(schedule, t)

    return path


def lam_speed(schedule: Schedule, t: Tensor) -> Tensor:
    """``|d lam / dt| = g^2 / (2 sigma^2)``."""
    return schedule.drift_diffusion(t)[1] / (2 * schedule.scales(t)[1] ** 2)


def bound_terms(
    denoiser: Denoiser, schedule: Schedule, x0: Tensor, path: Path, *, generator: torch.Generator
) -> Tensor:
    """Unbiased terms of ``integral exp(2 lam) |x0 - D|^2 d lam`` (VDM, eq. 17): (B,), in bits per dimension.

    ``schedule`` is that of the denoiser, not necessarily that of the path. Times are stratified over the batch, which
    makes the variance of the mean smaller than that of independent terms.
    """
    lam, abs_dlam_du = path(stratified_times(len(x0), generator=generator))
    terms = bound_integrand(denoiser, schedule, x0, lam, generator=generator)
    return bits_per_dim(abs_dlam_du.to(terms) * terms, x0[0].numel())


def min_variance_path(
    denoiser: Denoiser,
    schedule: Schedule,
    x0: Tensor,
    clean: float,
    noisy: float,
    *,
    knots: int = 12,
    generator: torch.Generator,
) -> Path:
    """The path of minimal variance on the examples ``x0``, whose number is a multiple of ``knots``.

    VDM learns its path by gradients. Here it is the closed-form optimum of importance sampling: a density of ``lam`` in
    proportion to the root mean square of the terms, constant on each of ``knots`` equal pieces.
    """
    width = (clean - noisy) / knots

    def uniform(u: Tensor) -> tuple[Tensor, Tensor]:
        return clean - (clean - noisy) * u, torch.full_like(u, clean - noisy)

    sizes = bound_terms(denoiser, schedule, x0, uniform, generator=generator)
    sizes = sizes.reshape(knots, -1).square().mean(1).sqrt().double().cpu()
    weight = (sizes + 0.1 * sizes.mean()) / (1.1 * sizes.sum())  # every piece has positive weight
    ends = torch.cat([torch.zeros(1, dtype=torch.float64), weight.cumsum(0)])

    def path(u: Tensor) -> tuple[Tensor, Tensor]:
        piece = torch.searchsorted(ends[1:-1].contiguous(), u.cpu())
        return clean - width * (piece + (u.cpu() - ends[piece]) / weight[piece]), width / weight[piece]

    return path
