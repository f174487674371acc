"""The sub-VP SDE, and one process as chain, SDE and ODE."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from survey_lib.core import grids, toys
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.exact import GaussianLaw
from survey_lib.core.integrators import log_likelihood
from survey_lib.core.samplers import ancestral, euler_maruyama, predictor_corrector
from survey_lib.core.schedules import vp_linear
from survey_lib.design.score import (
    ddpm_sde_ode,
    ks_critical_value,
    ks_distance,
    mixture_cdf,
    sub_vp,
)
from survey_lib.lab.evaluation.cost import CountCalls
from tests.design.score.support import exactly
from tests.support import exact_moments, generator, quick


@quick
@given(t=st.floats(1e-4, 1))
def test_sub_vp_is_the_papers_equation(t):
    """Eq. 12: ``g^2 = beta (1 - exp(-2 integral of beta))`` and ``f = -beta / 2``; never more noise than VP."""
    beta, total = 0.1 + 19.9 * t, 0.1 * t + 19.9 * t**2 / 2
    f, g2 = sub_vp().drift_diffusion(t)
    exactly(f.item(), -beta / 2)
    exactly(g2.item(), beta * -math.expm1(-2 * total))
    assert sub_vp().scales(t)[1] <= vp_linear().scales(t)[1]
    assert sub_vp().time(sub_vp().lam(t)).item() == pytest.approx(t, rel=1e-9)


def test_sub_vp_has_a_time_for_every_lam():
    ends = torch.tensor([-math.inf, math.inf], dtype=torch.float64)
    assert sub_vp().time(ends).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("name", ["ancestral", "euler_maruyama", "predictor_corrector"])
def test_samplers_near_the_law_of_sub_vp(name):
    """At rate one; Langevin's own bias, of order snr^2, is left."""
    schedule, mean, cov = sub_vp(), torch.tensor([0.6]).double(), torch.tensor([[0.3]]).double()
    denoiser = GaussianLaw(mean, cov).denoiser(schedule)
    walks = {
        "ancestral": partial(ancestral, denoiser, Gaussian(schedule)),
        "euler_maruyama": partial(euler_maruyama, denoiser, schedule),
        "predictor_corrector": partial(predictor_corrector, denoiser, schedule, snr=0.01),
    }

    def marginal(t):
        alpha, sigma = schedule.scales(t)
        return alpha * mean, alpha**2 * cov + sigma**2

    errors = [
        exact_moments(partial(walks[name], times=grids.uniform(n, 0.8, 0.2)), *marginal(0.8), (1,)).distance(
            marginal(0.2)
        )
        for n in (32, 64)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.25)


def test_likelihoods_of_sub_vp_are_those_of_the_law():
    target, schedule = toys.two_peaks(scale=0.3), sub_vp(beta_max=30.0)
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    found = log_likelihood(target.denoiser(schedule), schedule, x, probes=None, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(found, target.log_prob(x), rtol=2e-3, atol=2e-3)


def test_the_flow_keeps_every_quantile_and_all_three_views_the_law():
    """On a line paths of the flow do not cross: ``F_t(x_t)`` stays. The law of the others, by Kolmogorov's distance."""
    target, schedule, times = toys.two_peaks(balance=0.3), vp_linear(), torch.tensor([0.9, 0.6, 0.3, 0.1, 0.02])
    start = Gaussian(schedule).corrupt(target.sample(4000, generator=generator()), 0.9, generator=generator(1)).double()
    counted = CountCalls(target.denoiser(schedule))
    views = ddpm_sde_ode(counted, schedule, start, times, substeps=40, generator=generator(2))
    assert counted.calls == 3 * 40 * 4 and views.chain.shape == views.sde.shape == views.ode.shape == (5, 4000, 1)
    levels = [mixture_cdf(target, y[:, 0], t, schedule) for y, t in zip(views.ode, times, strict=True)]
    for later in levels[1:]:
        torch.testing.assert_close(later, levels[0], rtol=0, atol=5e-3)
    for states in views[1:]:
        torch.testing.assert_close(states[0], start)
        assert all(
            ks_distance(y, target, t, schedule) < ks_critical_value(4000, 1e-3)
            for y, t in zip(states, times, strict=True)
        )
    wrong = start * 1.2
    assert ks_distance(wrong, target, 0.9, schedule) > ks_critical_value(4000, 1e-3)
