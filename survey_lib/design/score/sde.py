"""The sub-VP equation, and one process seen three ways: as a chain, as an SDE, as an ODE.

Whatever the view, the law of ``x_t`` is the same at every time; how one ``x_t`` hangs together with the next is not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from survey_lib.core.checks import check_times
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.integrators import multistep
from survey_lib.core.protocols import Denoiser
from survey_lib.core.samplers import ancestral, euler_maruyama
from survey_lib.core.schedules import Schedule, vp_linear


def sub_vp(beta_min: float = 0.1, beta_max: float = 20.0) -> Schedule:
    """The sub-VP SDE (Score-SDE, eq. 12 and 29): the alpha of `vp_linear`, and the square of its sigma.

    ``sigma = 1 - alpha^2``. Its diffusion is ``g^2 = beta (1 - alpha^4)`` with ``beta = -2 alpha' / alpha``, below VP's
    at every time: less noise at equal alpha, hence the name. The paper finds its likelihoods best.
    """
    vp, slope = vp_linear(beta_min, beta_max), beta_max - beta_min

    def sigma(t: Tensor) -> Tensor:  # not the square of VP's: that has a root in it, of no slope at t = 0
        return -torch.expm1(-0.5 * t**2 * slope - t * beta_min)

    def inverse(lam: Tensor) -> Tensor:  # sigma = alpha exp(-lam) and alpha^2 = 1 - sigma: a quadratic in sigma
        sigma = 2 / (1 + torch.hypot(torch.ones_like(lam), 2 * torch.exp(lam)))
        log_alpha = torch.where(lam > 0, 0.5 * torch.log1p(-sigma), lam + sigma.log())
        return vp.time(0.5 * (log_alpha + lam))  # VP's lam, as its sigma is the root of this one

    return Schedule(vp.alpha, sigma, inverse, "sub_vp")


class Trajectories(NamedTuple):
    """States at every time of a grid, (T, B, *event) each, from the same start."""

    times: Tensor
    chain: Tensor
    sde: Tensor
    ode: Tensor


def ddpm_sde_ode(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    substeps: int = 8,
    generator: torch.Generator,
) -> Trajectories:
    """The same ``x`` at ``times[0]`` walked down as DDPM's chain, as the reverse SDE and as the probability flow.

    Each takes ``substeps`` equal steps from one time to the next: `ancestral`, `euler_maruyama`, `multistep` of order
    2. With the exact denoiser, and ``x`` drawn from its law at ``times[0]``, each has the law of ``x_t`` at every
    time, up to the error of its steps; the three do not have it in common how ``x_t`` got there.

    Evaluations: ``substeps (T - 1)`` for each view.
    """
    times = check_times(times)
    spans = [torch.linspace(t, s, substeps + 1, dtype=torch.float64)[:-1] for t, s in pairwise(times.tolist())]
    fine = torch.cat([*spans, times[-1:]])

    def states(walk: Callable[..., Tensor]) -> Tensor:
        seen: list[Tensor] = []
        end = walk(callback=lambda y, t, x0: seen.append(y))
        return torch.stack([*seen[::substeps], end])

    return Trajectories(
        times,
        states(partial(ancestral, denoiser, Gaussian(schedule), x, fine, generator=generator)),
        states(partial(euler_maruyama, denoiser, schedule, x, fine, generator=generator)),
        states(partial(multistep, denoiser, schedule, x, fine)),
    )
