"""The bound in continuous time, along any path of noise levels (VDM, Kingma et al. 2021).

Between two levels the bound is an integral over ``lam`` in which no schedule occurs. A *path* says from which levels it
is estimated: ``u in [0, 1] -> lam, -d lam / d u``, falling from clean to noisy. It changes the scatter, not the mean.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from survey_lib.core.likelihood import bits_per_dim
from survey_lib.core.losses import bound_integrand, stratified_times
from survey_lib.core.protocols import Denoiser
from survey_lib.core.schedules import Schedule

#: Levels and how fast they fall, for u (B,) in [0, 1]: both (B,) in float64.
Path = Callable[[Tensor], tuple[Tensor, Tensor]]


def schedule_path(schedule: Schedule, clean: float, noisy: float) -> Path:
    """The path that is even in a schedule's own time, from ``lam = clean`` down to ``noisy``."""
    ends = torch.tensor([clean, noisy], dtype=torch.float64)
    if not (torch.isfinite(ends).all() and clean > noisy):
        raise ValueError(f"a path falls from a clean lam to a noisy one, both finite; got {clean:g} and {noisy:g}")
    first, last = schedule.time(ends)

    def path(u: Tensor) -> tuple[Tensor, Tensor]:
        t = first + (last - first) * u
        abs_dlam_dt = schedule.drift_diffusion(t)[1] / (2 * schedule.scales(t)[1] ** 2)  # g^2 / (2 sigma^2)
        return schedule.lam(t), (last - first) * abs_dlam_dt

    return path


def bound_terms(
    denoiser: Denoiser, schedule: Schedule, x0: Tensor, path: Path, *, generator: torch.Generator
) -> Tensor:
    """One term of ``integral exp(2 lam) |x0 - D|^2 d lam`` for each example (VDM, eq. 17): (B,), bits a dimension.

    ``denoiser`` is one of ``schedule``, which need not be the path's. Times are stratified over the batch, so that the
    mean errs less than the terms scatter.
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
    """The path of least scatter, found on these examples: levels come as often as their terms are large.

    VDM learns it by gradients; here it is the known optimum, a density of ``lam`` in proportion to the root
    mean square of the terms, constant on each of ``knots`` equal pieces. Examples are a multiple of ``knots``.
    """
    width = (clean - noisy) / knots

    def even(u: Tensor) -> tuple[Tensor, Tensor]:
        return clean - (clean - noisy) * u, torch.full_like(u, clean - noisy)

    sizes = bound_terms(denoiser, schedule, x0, even, generator=generator)
    sizes = sizes.reshape(knots, -1).square().mean(1).sqrt().double().cpu()
    share = (sizes + 0.1 * sizes.mean()) / (1.1 * sizes.sum())  # no piece is left out
    ends = torch.cat([torch.zeros(1, dtype=torch.float64), share.cumsum(0)])

    def path(u: Tensor) -> tuple[Tensor, Tensor]:
        piece = torch.searchsorted(ends[1:-1].contiguous(), u.cpu())
        return clean - width * (piece + (u.cpu() - ends[piece]) / share[piece]), width / share[piece]

    return path
