"""Bridges against Gaussian conditioning worked out apart, and the properties that every bridge must have."""

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from survey_lib.core.corruptions import (
    Cold,
    Gaussian,
    Renoise,
    analytic_variance,
    chain_variance,
    posterior_variance,
)
from survey_lib.core.exact import GaussianLaw
from survey_lib.core.schedules import Schedule, edm, from_betas, rectified, ve, vp_cosine, vp_linear
from tests.support import generator

SCHEDULES = [vp_linear(), vp_cosine(), edm(), rectified(), ve()]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
quick = settings(deadline=None, derandomize=True, max_examples=20)
steps = st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)).filter(lambda p: abs(p[0] - p[1]) > 1e-3)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=tolerance, atol=tolerance)


@each_schedule
@quick
@given(pair=steps)
def test_eta_1_is_the_bayes_posterior_of_the_chain(schedule: Schedule, pair: tuple[float, float]) -> None:
    """Given x0, (x_s, x_t) of the Markov chain are jointly normal; condition x_s on x_t by the textbook blocks."""
    t, s = max(pair), min(pair)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.scales(t), schedule.scales(s)
    covariance = alpha_t / alpha_s * sigma_s**2  # x_t = (alpha_t / alpha_s) x_s + noise of its own
    slope = covariance / sigma_t**2
    on_x_t, on_x0, variance = Gaussian(schedule).coefficients(t, s)
    close(on_x_t, slope)
    close(on_x0, alpha_s - slope * alpha_t)
    close(variance, sigma_s**2 - slope * covariance, 1e-9 * float(1 + sigma_s**2))


@each_schedule
@quick
@given(pair=steps, eta=st.floats(0, 1))
def test_every_bridge_keeps_the_marginals(schedule: Schedule, pair: tuple[float, float], eta: float) -> None:
    """If ``x_t ~ q(x_t | x0)``, then ``x_s ~ q(x_s | x0)``, whatever the share of fresh noise."""
    t, s = max(pair), min(pair)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.scales(t), schedule.scales(s)
    on_x_t, on_x0, variance = Gaussian(schedule, eta).coefficients(t, s)
    close(on_x_t * alpha_t + on_x0, alpha_s)
    close(on_x_t**2 * sigma_t**2 + variance, sigma_s**2, 1e-11 * float(1 + sigma_s**2))


def test_the_published_posterior_of_ddpm_and_variance_of_ddim() -> None:
    """DDPM, eq. 7, and DDIM, eq. 16, in their own symbols, step 400 of 1000."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bar = torch.cumprod(1 - betas, 0)
    n = 400
    beta, now, before = betas[n], bar[n], bar[n - 1]
    t, s = (n + 1) / 1000, n / 1000
    on_x_t, on_x0, variance = Gaussian(from_betas(betas)).coefficients(t, s)
    close(on_x0, before.sqrt() * beta / (1 - now), 1e-9)
    close(on_x_t, (1 - beta).sqrt() * (1 - before) / (1 - now), 1e-9)
    close(variance, (1 - before) / (1 - now) * beta, 1e-9)
    close(chain_variance(from_betas(betas), t, s), beta, 1e-9)
    ddim = 0.3 * ((1 - before) / (1 - now)).sqrt() * (1 - now / before).sqrt()
    close(Gaussian(from_betas(betas), 0.3).coefficients(t, s)[2].sqrt(), ddim, 1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_the_bridge_does_what_its_coefficients_say(eta: float) -> None:
    corruption, x_t, x0 = Gaussian(vp_cosine(), eta), random(3, 2), random(3, 2, seed=1)
    on_x_t, on_x0, variance = corruption.coefficients(0.7, 0.4)
    x_s = corruption.bridge(x_t, x0, 0.7, 0.4, generator=generator(9))
    close(x_s, on_x_t * x_t + on_x0 * x0 + variance.sqrt() * random(3, 2, seed=9))


@each_schedule
def test_corrupted_data_has_the_mean_and_the_spread_it_should(schedule: Schedule) -> None:
    x0, t = torch.ones(20000, 1, dtype=torch.float64), 0.37
    x_t = Gaussian(schedule).corrupt(x0, t, generator=generator())
    alpha, sigma = schedule.scales(t)
    assert abs(x_t.mean() - alpha) < 4.5 * sigma / 20000**0.5
    assert x_t.std().item() == pytest.approx(sigma.item(), rel=0.03)
    assert Gaussian(schedule).prior((20000,), generator=generator()).std().item() == pytest.approx(
        schedule.scales(1.0)[1].item(), rel=0.03
    )


@each_schedule
@quick
@given(pair=steps)
def test_implied_x0_inverts_the_deterministic_bridge(schedule: Schedule, pair: tuple[float, float]) -> None:
    t, s = max(pair), min(pair)
    x_t, x0, corruption = random(3, 2), random(3, 2, seed=1), Gaussian(schedule, eta=0.0)
    x_s = corruption.bridge(x_t, x0, t, s)
    scale = float(schedule.scales(s)[1] / (schedule.scales(s)[0] * (t - s)) + 1)  # what a rounding error grows by
    close(corruption.implied_x0(x_t, x_s, t, s), x0, 1e-12 * scale)


def test_the_target_of_progressive_distillation_is_one_step_worth_two() -> None:
    """A student who answers ``implied_x0`` lands in one step where the teacher landed in two."""
    corruption, law, x_t = Gaussian(vp_cosine(), eta=0.0), GaussianLaw(torch.zeros(2), 0.3), random(4, 2)
    x = x_t
    for t, s in pairwise((0.8, 0.6, 0.4)):
        x = corruption.bridge(x, law.denoiser(vp_cosine())(x, torch.tensor(t)), t, s)
    target = corruption.implied_x0(x_t, x, 0.8, 0.4)
    close(corruption.bridge(x_t, target, 0.8, 0.4), x)


@each_schedule
def test_eps_is_the_noise_that_was_added(schedule: Schedule) -> None:
    x0 = random(4, 3)
    x_t = Gaussian(schedule).corrupt(x0, 0.6, generator=generator(5))
    close(Gaussian(schedule).eps(x_t, x0, 0.6), random(4, 3, seed=5))


@each_schedule
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_analytic_variance_makes_few_steps_exact_on_normal_data(schedule: Schedule, eta: float) -> None:
    """With normal data the reverse steps are normal. Best mean and best variance then keep every marginal exact."""
    width = 0.3
    law = GaussianLaw(torch.zeros(1), width)

    def mean_square_eps(t: Tensor) -> Tensor:  # eps_hat = -sigma score, the score of N(0, alpha^2 width + sigma^2)
        alpha, sigma = schedule.scales(t)
        return sigma**2 / (alpha**2 * width + sigma**2)

    corruption = Gaussian(schedule, eta, partial(analytic_variance, mean_square_eps=mean_square_eps, eta=eta))
    one, times = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0.98, 0.6, 0.2, 0.0]).double()
    alpha, sigma = schedule.scales(times[0])
    variance = alpha**2 * width + sigma**2
    for t, s in pairwise(times):
        on_x_t, on_x0, fresh = corruption.coefficients(t, s)
        slope = on_x_t + on_x0 * law.denoiser(schedule)(one, t).squeeze()
        variance = slope**2 * variance + fresh
        alpha, sigma = schedule.scales(s)
        close(variance, alpha**2 * width + sigma**2, 1e-11 * float(1 + schedule.scales(t)[1] ** 2))


def test_the_analytic_variance_lies_between_small_and_large() -> None:
    """Nothing known of eps (0) or all of it (1) are the two bounds of the reverse variance (Bao et al., theorem 2)."""
    small, large = (f(vp_linear(), 0.5, 0.4) for f in (posterior_variance, chain_variance))
    close(analytic_variance(vp_linear(), 0.5, 0.4, 1.0), small)
    ratio = vp_linear().scales(0.5)[0] / vp_linear().scales(0.4)[0]
    close(analytic_variance(vp_linear(), 0.5, 0.4, 0.0), large / ratio**2)
    assert small < analytic_variance(vp_linear(), 0.5, 0.4, 0.9) < large / ratio**2


def test_another_variance_leaves_the_mean_alone() -> None:
    x_t, x0 = random(2, 3), random(2, 3, seed=1)
    plain = Gaussian(vp_linear())
    large, learned = replace(plain, variance=chain_variance), replace(plain, variance=torch.full((2, 3), 0.25).double())
    on_x_t, on_x0, _ = plain.coefficients(0.5, 0.4)
    noise, mean = random(2, 3, seed=7), on_x_t * x_t + on_x0 * x0
    close(
        large.bridge(x_t, x0, 0.5, 0.4, generator=generator(7)),
        mean + chain_variance(vp_linear(), 0.5, 0.4).sqrt() * noise,
    )
    close(learned.bridge(x_t, x0, 0.5, 0.4, generator=generator(7)), mean + 0.5 * noise)
    assert torch.equal(large.bridge(x_t, x0, 0.1, 0.0), x0)  # the last step adds no noise, and needs no generator


@pytest.mark.parametrize("corruption", [Gaussian(vp_linear()), Gaussian(edm(), 0.0), Renoise(rectified())])
def test_the_last_step_returns_the_clean_data(corruption) -> None:
    x0 = random(3, 2, seed=1)
    assert torch.equal(corruption.bridge(random(3, 2), x0, 0.3, 0.0), x0)


@pytest.mark.parametrize("corruption", [Gaussian(vp_linear(), 0.5), Gaussian(rectified(), 0.0), Renoise(edm())])
def test_a_time_for_each_example_is_as_good_as_one(corruption) -> None:
    x_t, x0 = random(3, 1, 2, 2), random(3, 1, 2, 2, seed=1)
    t, s = torch.tensor([0.9, 0.5, 0.4]).double(), torch.tensor([0.6, 0.2, 0.0]).double()
    together = corruption.bridge(x_t, x0, t, s, generator=generator())
    noisy = corruption.corrupt(x0, t, generator=generator())
    for i in range(3):
        alone = corruption.bridge(x_t, x0, t[i], s[i], generator=generator())
        close(together[i], alone[i])
        close(noisy[i], corruption.corrupt(x0, t[i], generator=generator())[i])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("t", [0.5, torch.full((3,), 0.5)], ids=["one time", "a time each"])
def test_tensors_keep_their_dtype(dtype: torch.dtype, t) -> None:
    x = random(3, 2).to(dtype)
    for corruption in (Gaussian(vp_cosine()), Renoise(vp_cosine()), Cold(lambda x, t: x)):
        assert corruption.corrupt(x, t, generator=generator()).dtype == dtype
        assert corruption.bridge(x, x, t, t / 2, generator=generator()).dtype == dtype


def test_renoise_forgets_the_state() -> None:
    renoise, x0 = Renoise(vp_cosine()), random(3, 2)
    a, b = (renoise.bridge(x_t, x0, 0.8, 0.5, generator=generator(3)) for x_t in (random(3, 2, seed=1), 1e6 * x0))
    assert torch.equal(a, b)
    close(a, vp_cosine().scales(0.5)[0] * x0 + vp_cosine().scales(0.5)[1] * random(3, 2, seed=3))


@quick
@given(wrong=st.floats(-1e3, 1e3), count=st.integers(1, 8))
def test_cold_diffusion_forgives_any_restorer_if_the_degradation_is_linear(wrong: float, count: int) -> None:
    """With ``degrade(x, t) = x + t e`` each step lands on the true ``degrade(x0, s)``, whatever the restorer says."""
    e, x0 = random(2, 3, seed=4), random(2, 3)
    cold = Cold(lambda x, t: x + t * e)
    x = cold.corrupt(x0, 1.0)
    for t, s in pairwise(torch.linspace(1, 0, count + 1).tolist()):
        x = cold.bridge(x, wrong * x**2 - 1, t, s)
        close(x, x0 + s * e, 1e-9)
        x = x0 + s * e  # so that only the step itself is judged: `wrong` would amplify rounding


def test_cold_diffusion_with_the_right_restorer_is_exact_for_any_degradation() -> None:
    def blur(x: Tensor, t: Tensor) -> Tensor:
        return (1 - t) * x + t * x.mean(-1, keepdim=True) + t**2 * x.sin()

    cold, x0 = Cold(blur), random(2, 5)
    x = cold.corrupt(x0, 1.0)
    for t, s in pairwise((1.0, 0.7, 0.2, 0.0)):
        x = cold.bridge(x, x0, t, s)
        close(x, blur(x0, torch.tensor(s, dtype=torch.float64)))


X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(edm(), eta=1.5), "eta is the fraction"),
        (lambda: Gaussian(edm(), eta=math.nan), "eta is the fraction"),
        (lambda: Gaussian(edm()).bridge(X, X, 0.3, 0.3, generator=generator()), "s < t"),
        (lambda: Gaussian(edm()).bridge(X, X, 0.3, 0.5, generator=generator()), "s < t"),
        (lambda: Gaussian(edm()).bridge(X, X, 1.1, 0.5, generator=generator()), r"lie in \[0, 1\].*t is 1.1"),
        (lambda: Gaussian(edm()).bridge(X, X, 0.5, -0.1, generator=generator()), r"lie in \[0, 1\].*s is -0.1"),
        (lambda: Renoise(edm()).bridge(X, X, 0.3, 0.5, generator=generator()), "s < t"),
        (lambda: Cold(lambda x, t: x).bridge(X, X, 0.3, 0.5), "s < t"),
        (lambda: Gaussian(edm()).implied_x0(X, X, 0.3, 0.5), "s < t"),
        (lambda: Gaussian(edm()).corrupt(X, 2.0, generator=generator()), r"lie in \[0, 1\]"),
        (lambda: Gaussian(edm()).corrupt(X, 0.5), "pass generator="),
        (lambda: Gaussian(edm()).bridge(X, X, 0.5, 0.3), "pass generator="),
        (lambda: Renoise(edm()).bridge(X, X, 0.5, 0.3), "pass generator="),
        (lambda: Gaussian(edm()).prior((2, 3)), "pass generator="),
        (lambda: Gaussian(edm()).eps(X, X, 0.0), "sigma > 0"),
        (lambda: Cold(lambda x, t: x).prior((2, 3)), "give terminal="),
        (lambda: analytic_variance(rectified(), 1.0, 0.5, 0.9), "start at t < 1"),
    ],
)
def test_bad_input_gets_one_clear_sentence(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
