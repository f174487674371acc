"""A learned variance lies between the two of DDPM, and the loss is least at the one that is known."""

import math

import pytest
import torch

from survey_lib.core import grids, schedules
from survey_lib.core.corruptions import Gaussian, analytic_variance, chain_variance, posterior_variance
from survey_lib.core.exact import GaussianLaw
from survey_lib.core.samplers import ancestral
from survey_lib.process.training import LearnedVariance, interpolated_variance, variance_loss
from tests.support import draw, generator

COSINE = schedules.vp_cosine()
T, S = torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)


def test_the_ends_are_the_small_and_the_large_variance():
    found = interpolated_variance(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), COSINE, T, S)
    small, large = posterior_variance(COSINE, T, S), chain_variance(COSINE, T, S)
    torch.testing.assert_close(found, torch.stack([small, (small * large).sqrt(), large]))
    assert not interpolated_variance(torch.ones(2, 3), COSINE, T, torch.zeros(())).any()


def test_the_loss_is_least_at_the_optimal_variance():
    """Of a normal law the best variance of a step is Analytic-DPM's, here at one step and by trying shares."""
    v = 0.2
    law, n = GaussianLaw(torch.zeros(1), v * torch.eye(1)), 40_000
    alpha, sigma = COSINE.scales(T)
    known = sigma**2 / (alpha**2 * v + sigma**2)  # E |E[eps | x_t]|^2
    best = analytic_variance(COSINE, T, S, known)
    small, large = posterior_variance(COSINE, T, S), chain_variance(COSINE, T, S)
    wanted = float((best / small).log() / (large / small).log())
    assert 0.05 < wanted < 0.95
    loss = variance_loss(law.denoiser(COSINE), COSINE, torch.stack([T, S]))
    x0 = law.sample(n, generator=generator(), dtype=torch.float64)
    shares = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    values = []
    for share in shares:
        logits = torch.full((n, 1), math.log(share / (1 - share)), dtype=torch.float64)
        values.append(loss(lambda *_, logits=logits: logits, x0, None, generator(1))[0].mean())
    assert shares[torch.stack(values).argmin()].item() == pytest.approx(wanted, abs=0.03)


def test_gradients_reach_the_variance_and_not_the_mean_and_the_last_step_is_left_out():
    weight = torch.zeros(1, requires_grad=True, dtype=torch.float64)
    mean = torch.ones(1, requires_grad=True, dtype=torch.float64)
    loss = variance_loss(lambda x, t, cond: mean * x, COSINE, grids.uniform(5))
    found, lam = loss(lambda x, t, cond: weight * x, draw(200, 2, dtype=torch.float64), None, generator(2))
    found.mean().backward()
    assert weight.grad.abs() > 0 and mean.grad is None and found.isfinite().all() and found.shape == lam.shape == (200,)
    assert len(set(lam.tolist())) == 4


def test_sampling_with_the_large_variance_is_sampling_with_a_share_of_one():
    x0, x = draw(6, 2, dtype=torch.float64), draw(6, 2, seed=1, dtype=torch.float64)
    learned = LearnedVariance(Gaussian(COSINE), lambda x_t, t: torch.full_like(x_t, 40.0))
    plain = Gaussian(COSINE, variance=chain_variance)
    walks = [ancestral(lambda *_: x0, one, x, grids.uniform(6), generator=generator(3)) for one in (learned, plain)]
    torch.testing.assert_close(*walks)
    torch.testing.assert_close(walks[0], x0)
