"""The sub-VP SDE, and one process as DDPM's chain, as a reverse SDE and as a probability-flow ODE.

All three have the same marginal distribution of ``x_t`` at every time, but not the same joint distribution over times.
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
    """The sub-VP SDE (Score-SDE, eq. 12 and 29): the alpha of `vp_linear`, with ``sigma = 1 - alpha^2``.

    Its diffusion is ``g^2 = beta (1 - alpha^4)`` with ``beta = -2 alpha' / alpha``, below VP's at every time. The paper
    finds its likelihoods best.
    """
    vp, slope = vp_linear(beta_min, beta_max), beta_max - beta_min

    def sigma(t: Tensor) -> Tensor:  # the square of VP's sigma; its root has no derivative at t = 0
        return -torch.expm1(-0.5 * t**2 * slope - t * beta_min)

    def inverse(lam: Tensor) -> Tensor:  # sigma = alpha exp(-lam) and alpha^2 = 1 - sigma: a quadratic in sigma
        sigma = 2 / (1 + torch.hypot(torch.ones_like(lam), 2 * torch.exp(lam)))
        log_alpha = torch.where(lam > 0, 0.5 * torch.log1p(-sigma), lam + sigma.log())
        return vp.time(0.5 * (log_alpha + lam))  # VP's lam, since its sigma is the root of this sigma

    return Schedule(vp.alpha, sigma, inverse, "sub_vp")


class Trajectories(NamedTuple):
    """Trajectories of one start: the states at all ``times`` (T,), (T, B, *event) each."""

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
    """Trajectories from the same ``x`` at ``times[0]``: DDPM's chain, the reverse SDE and the probability-flow ODE.

    Each takes ``substeps`` equal steps between two times, by `ancestral`, `euler_maruyama` and `multistep` of order 2.
    With the exact denoiser and ``x`` drawn from its marginal distribution at ``times[0]``, each has the marginal
    distribution of ``x_t`` at every time, up to its discretisation error.

    Evaluations: ``substeps (T - 1)`` for each trajectory.
    """
    times = check_times(times)
    spans = [torch.linspace(t, s, substeps + 1, dtype=torch.float64)[:-1] for t, s in pairwise(times.tolist())]
    fine = torch.cat([*spans, times[-1:]])

    def states(sample: Callable[..., Tensor]) -> Tensor:
        seen: list[Tensor] = []
        end = sample(callback=lambda y, t, x0: seen.append(y))
        return torch.stack([*seen[::substeps], end])

    return Trajectories(
        times,
        states(partial(ancestral, denoiser, Gaussian(schedule), x, fine, generator=generator)),
        states(partial(euler_maruyama, denoiser, schedule, x, fine, generator=generator)),
        states(partial(multistep, denoiser, schedule, x, fine)),
    )
