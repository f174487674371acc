"""Critically damped Langevin diffusion: its transitions, its score, the orders of its samplers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from survey_lib.core import grids, toys
from survey_lib.core.exact import GaussianLaw, GaussianMixture
from survey_lib.core.schedules import edm, rectified, vp_cosine, vp_linear
from survey_lib.design.score import (
    CriticallyDamped,
)
from survey_lib.lab.evaluation.cost import CountCalls
from tests.design.score.support import exactly
from tests.support import exact_moments, generator, quick

SPRING = CriticallyDamped()
GAPS = st.floats(1e-3, 0.6)


@quick
@given(first=GAPS, second=st.floats(1e-3, 0.39))
def test_transitions_compose_and_keep_the_stationary_law(first, second):
    """Chapman-Kolmogorov, and ``N(0, I)`` stays what it is."""
    (one, q), (two, r), (all_, s) = (
        SPRING.transition(*span) for span in [(first, 0.0), (first + second, first), (first + second, 0.0)]
    )
    exactly(two @ one, all_)
    exactly(two @ q @ two.T + r, s)
    exactly(one @ one.T + q, torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("t", [1e-5, 0.01, 0.3, 1.0])
def test_transitions_solve_the_equation(t):
    """The paper's own, ``dx = beta v / M dt, dv = -beta (x + Gamma v / M) dt + sqrt(2 Gamma beta) dW``, M = 1/4."""
    mass, beta, friction = 0.25, 4.0, 1.0
    drift = beta * torch.tensor([[0.0, 1 / mass], [-1.0, -friction / mass]], dtype=torch.float64)
    kick = torch.diag(torch.tensor([0.0, 2 * friction * beta], dtype=torch.float64))
    block = torch.cat([torch.cat([-drift, kick], 1), torch.cat([torch.zeros_like(drift), drift.T], 1)])
    exponential = torch.linalg.matrix_exp(block * t)  # Van Loan: mean and covariance from one exponential
    mean = exponential[2:, 2:].T
    cov = mean @ exponential[:2, 2:]
    units = torch.diag(torch.tensor([1.0, mass**-0.5], dtype=torch.float64))  # our velocity is theirs over sqrt(M)
    got = SPRING.transition(t)
    torch.testing.assert_close(got[0], units @ mean @ units.inverse(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(got[1], units @ cov @ units, rtol=1e-6, atol=1e-13)


def in_position_and_velocity(target: GaussianMixture, t: float) -> GaussianMixture:
    """The law of ``z_t`` for a mixture on a line, written as a mixture in the plane (position, velocity)."""
    mean, cov = SPRING.transition(t)
    first = torch.zeros(len(target.means), 2, 2, dtype=torch.float64)
    first[:, 0, 0], first[:, 1, 1] = target.variances[:, 0], SPRING.gamma
    means = torch.cat([target.means, torch.zeros_like(target.means)], 1) @ mean.T
    return GaussianMixture(means, covs=mean @ first @ mean.T + cov, weights=target.weights)


@pytest.mark.parametrize("schedule", [edm(300.0), vp_linear(), vp_cosine(), rectified()], ids=lambda s: s.name)
@pytest.mark.parametrize("t", [0.003, 0.05, 0.3, 0.7])
def test_a_pair_is_one_noisy_picture_in_disguise(schedule, t):
    """The score made of an ordinary denoiser is that of the exact law of (position, velocity)."""
    target = toys.two_peaks(balance=0.3)
    plane = in_position_and_velocity(target, t)
    z = plane.sample(50, generator=generator(), dtype=torch.float64)
    x0 = SPRING.denoiser(target.denoiser(schedule), schedule)(z[..., None], torch.tensor(t, dtype=torch.float64))
    found = SPRING.score(z[..., None], x0, t)[..., 0]
    torch.testing.assert_close(found, plane.score(z), rtol=1e-5, atol=1e-5)


def test_every_example_may_have_its_own_time():
    target, schedule = toys.two_peaks(), edm(300.0)
    denoiser, t = SPRING.denoiser(target.denoiser(schedule), schedule), torch.tensor([0.1, 0.4, 0.9]).double()
    x0 = target.sample(3, generator=generator(), dtype=torch.float64)
    z = SPRING.corrupt(x0, t, generator=generator(1))
    guess = denoiser(z, t)
    alone = torch.cat([denoiser(z[i : i + 1], t[i]) for i in range(3)])
    exactly(guess, alone)
    exactly(SPRING.score(z, guess, t)[1:2], SPRING.score(z[1:2], guess[1:2], t[1]))
    with pytest.raises(ValueError, match="no density at t = 0"):
        SPRING.noise(0.0)


def damped_moments(t, mean, variance):
    gain, cov = SPRING.marginal(t)
    return gain * mean, cov + variance * gain[:, None] * gain


@pytest.mark.parametrize(
    "walk, order", [("euler_maruyama", 1), ("sscs", 1), ("second", 2)], ids=["plain", "split", "split twice"]
)
def test_damped_samplers_near_the_law_at_their_rates(walk, order):
    mean, variance, errors = 0.6, 0.25, []
    denoiser = SPRING.denoiser(GaussianLaw(torch.tensor([mean]).double(), variance).denoiser(vp_linear()), vp_linear())
    walks = {"second": partial(SPRING.sscs, order=2)}
    walk = partial(walks.get(walk) or getattr(SPRING, walk), denoiser)
    for steps in (80, 160):
        times = grids.quadratic(steps, 1.0, 0.05)
        got = exact_moments(lambda z, times=times: walk(z, times), *damped_moments(1.0, mean, variance), (2, 1))
        errors.append(got.distance(damped_moments(0.05, mean, variance)))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def test_splitting_beats_plain_steps_at_equal_evaluations():
    mean, variance = 0.6, 0.25
    denoiser = SPRING.denoiser(GaussianLaw(torch.tensor([mean]).double(), variance).denoiser(vp_linear()), vp_linear())
    for steps in (20, 50, 100):
        times = grids.quadratic(steps, 1.0, 0.05)
        plain, split = (
            exact_moments(partial(run, denoiser, times=times), *damped_moments(1.0, mean, variance), (2, 1)).distance(
                damped_moments(0.05, mean, variance)
            )
            for run in (SPRING.euler_maruyama, SPRING.sscs)
        )
        assert split < 0.6 * plain


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_damped_samplers_count_and_end_on_the_answer(steps):
    target, schedule = toys.eight_modes(), edm(300.0)
    for walk, price in ((SPRING.euler_maruyama, 1), (SPRING.sscs, 1), (partial(SPRING.sscs, order=2), 2)):
        counted, answers = CountCalls(target.denoiser(schedule)), []
        z = SPRING.prior((4, 2), generator=generator())
        assert z.shape == (4, 2, 2)
        end = walk(
            SPRING.denoiser(counted, schedule), z, grids.quadratic(steps), generator=generator(1),
            callback=lambda z, t, x0, answers=answers: answers.append(x0),
        )  # fmt: skip
        assert counted.calls == len(answers) == price * (steps - 1) + 1
        assert torch.equal(end, torch.stack([answers[-1], torch.zeros_like(answers[-1])], 1))
    with pytest.raises(ValueError, match="position and velocity"):
        SPRING.sscs(counted, torch.zeros(4, 3), grids.uniform(3), generator=generator())
    with pytest.raises(ValueError, match="order must be 1"):
        SPRING.sscs(counted, z, grids.uniform(3), order=3, generator=generator())
