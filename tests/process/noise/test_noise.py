"""Every noise has the law it promises, at each time and after each bridge."""

import math

import pytest
import torch
from scipy import fft, stats

from survey_lib.core import grids, schedules
from survey_lib.core.corruptions import Cold, Gaussian
from survey_lib.core.exact import GaussianLaw, GaussianMixture
from survey_lib.core.samplers import ancestral
from survey_lib.process.noise import (
    ByFrequency,
    Frequencies,
    Gamma,
    Kept,
    Shaped,
    WithPrior,
    dct,
    generalised_normal,
    heat_blur,
    level_posterior,
    masked,
    mixed_with,
    pixelated,
    two_normals,
    undct,
)
from tests.support import draw, generator

LINEAR, COSINE = schedules.vp_linear(), schedules.vp_cosine()
T, S = torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.25, dtype=torch.float64)
N = 40_000


# ---------------------------------------------------------------------- noise of another shape

SHAPES = {  # the characteristic functions of the noises
    "normal": (generalised_normal(2.0), lambda w: torch.exp(-(w**2) / 2)),
    "Laplace": (generalised_normal(1.0), lambda w: 1 / (1 + w**2 / 2)),
    "two normals": (two_normals(0.8), lambda w: torch.cos(0.8 * w) * torch.exp(-0.36 * w**2 / 2)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_marginal_has_the_characteristic_function_of_its_noise(name):
    law, characteristic = SHAPES[name]
    corruption = Shaped(COSINE, law)
    x_t = corruption.corrupt(torch.full((N, 1), 0.4, dtype=torch.float64), T, generator=generator())
    alpha, sigma = COSINE.scales(T)
    w = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    found = torch.cos(w * (x_t - alpha * 0.4) / sigma).mean(0)
    assert (found - characteristic(w)).abs().max() < 4 / math.sqrt(N)
    assert x_t.var().sqrt().item() == pytest.approx(sigma.item(), rel=0.03)


def test_the_bridge_keeps_the_noise_and_ends_at_the_data():
    corruption, x0 = Shaped(COSINE, generalised_normal(1.0)), draw(50, 3, dtype=torch.float64)
    x_t = corruption.corrupt(x0, T, generator=generator(1))
    noise = Gaussian(COSINE).eps(x_t, x0, T)
    alpha, sigma = COSINE.scales(S)
    torch.testing.assert_close(corruption.bridge(x_t, x0, T, S), alpha * x0 + sigma * noise)
    torch.testing.assert_close(corruption.bridge(x_t, x0, T, 0.0), x0)
    assert corruption.prior((5, 2), generator=generator(2)).shape == (5, 2)


def test_smaller_powers_have_heavier_tails_and_bad_ones_are_refused():
    tails = [stats.kurtosis(generalised_normal(power)((N,), generator()).numpy()) for power in (8.0, 2.0, 1.0, 0.5)]
    assert tails == sorted(tails) and abs(tails[1]) < 0.15 and tails[2] == pytest.approx(3, abs=0.7)
    for power in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"lies between 0\.1 and 20"):
            generalised_normal(power)
    with pytest.raises(ValueError, match="from 0 to below 1; got 1"):
        two_normals(1.0)


# ---------------------------------------------------------------------- Gamma


@pytest.mark.parametrize("scale", [0.3, 1.5])
def test_gamma_noise_has_its_marginal_before_and_after_the_bridge(scale):
    corruption, x0 = Gamma(LINEAR, scale), torch.full((N, 1), 0.5, dtype=torch.float64)
    x_t = corruption.corrupt(x0, T, generator=generator(3))
    x_s = corruption.bridge(x_t, x0, T, S, generator=generator(4))
    for x, t in ((x_t, T), (x_s, S)):
        alpha, sigma = LINEAR.scales(t)
        k = float((sigma / alpha / scale) ** 2)
        grown = ((x / alpha - x0) / scale + k)[:, 0].numpy()
        assert stats.kstest(grown, stats.gamma(k).cdf).pvalue > 1e-3
        assert x.mean().item() == pytest.approx(float(0.5 * alpha), abs=4 * float(sigma) / math.sqrt(N))
        assert x.std().item() == pytest.approx(float(sigma), rel=0.05)
    (a_t, _), (a_s, _) = LINEAR.scales(T), LINEAR.scales(S)
    late = (x_t / a_t - x_s / a_s)[:, 0]  # the increment, independent of what came before
    assert abs(torch.corrcoef(torch.stack([late, x_s[:, 0]]))[0, 1]) < 4 / math.sqrt(N)


def test_gamma_noise_of_a_small_unit_is_gaussian_and_of_a_large_unit_is_skewed():
    x0 = torch.zeros(N, 1, dtype=torch.float64)
    skew = [
        float(stats.skew(Gamma(LINEAR, scale).corrupt(x0, T, generator=generator())[:, 0])) for scale in (0.01, 1.0)
    ]
    alpha, sigma = LINEAR.scales(T)
    assert abs(skew[0]) < 0.06 and skew[1] == pytest.approx(2 * float(alpha / sigma), rel=0.2)


def test_gamma_noise_walks_back_to_the_data_and_refuses_times_without_signal():
    x0, corruption = draw(20, 4, dtype=torch.float64), Gamma(LINEAR, 0.5)
    x = corruption.prior((20, 4), generator=generator(5)).double()
    ends = ancestral(lambda *_: x0, corruption, x, grids.uniform(10), generator=generator(6))
    torch.testing.assert_close(ends, x0)
    with pytest.raises(ValueError, match="Gamma noise divides by alpha"):
        Gamma(COSINE).prior((2, 2), generator=generator())
    with pytest.raises(ValueError, match="scale of Gamma noise is positive"):
        Gamma(LINEAR, 0.0)


def test_on_a_skewed_noise_the_mean_of_the_data_is_not_enough():
    """Two points at +-1: with their mean for x0, a step arrives at another law than with the points themselves."""
    corruption = Gamma(LINEAR, 1.0)
    points = torch.where(torch.rand(4000, 1, generator=generator(7)) < 0.5, 1.0, -1.0).double()
    x_t = corruption.corrupt(points, T, generator=generator(8))
    right = corruption.bridge(x_t, points, T, S, generator=generator(9))
    wrong = corruption.bridge(x_t, torch.zeros_like(points), T, S, generator=generator(9))
    assert stats.ks_2samp(right[:, 0], corruption.corrupt(points, S, generator=generator(10))[:, 0]).pvalue > 1e-3
    assert stats.ks_2samp(wrong[:, 0], right[:, 0]).pvalue < 1e-6


# ---------------------------------------------------------------------- a prior of the condition


def test_a_prior_shifts_and_scales_another_corruption():
    mean, std = draw(6, 3, dtype=torch.float64), 0.2 + draw(6, 3, seed=1, dtype=torch.float64).abs()
    corruption, x0 = WithPrior(Gaussian(COSINE), mean, std), draw(6, 3, seed=2, dtype=torch.float64)
    alpha, sigma = COSINE.scales(T)
    eps = torch.randn(6, 3, generator=generator(3), dtype=torch.float64)
    x_t = corruption.corrupt(x0, T, generator=generator(3))
    torch.testing.assert_close(x_t, mean + alpha * (x0 - mean) + sigma * std * eps)
    torch.testing.assert_close(corruption.bridge(x_t, x0, T, 0.0), x0)
    with pytest.raises(ValueError, match="positive everywhere; its smallest is 0"):
        WithPrior(Gaussian(COSINE), mean, std * 0)


def test_with_the_right_prior_of_a_normal_law_one_step_is_exact():
    """Of ``N(mean, std^2)`` nothing is left to learn: in its own units the data are noise."""
    mean, std = torch.tensor([0.7, -0.3], dtype=torch.float64), torch.tensor([0.5, 0.1], dtype=torch.float64)
    unit = GaussianLaw(torch.zeros(2), torch.eye(2))
    corruption = WithPrior(Gaussian(COSINE, eta=0.0), mean, std)
    x = corruption.prior((N, 2), generator=generator(4)).double()
    times = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    ends = ancestral(corruption.denoiser(unit.denoiser(COSINE)), corruption, x, times, generator=generator())
    z = (ends - mean) / std
    assert (z.mean(0).abs() < 4 / math.sqrt(N)).all()
    start = (x - mean) / std
    torch.testing.assert_close(z / start, (z / start).mean().expand_as(z))  # both numbers by the same factor


# ---------------------------------------------------------------------- frequencies


def test_the_basis_of_cosines_is_orthonormal_and_that_of_scipy():
    x = draw(2, 3, 8, 12, dtype=torch.float64)
    torch.testing.assert_close(dct(x), torch.from_numpy(fft.dctn(x.numpy(), axes=(2, 3), norm="ortho")))
    torch.testing.assert_close(undct(dct(x)), x)
    torch.testing.assert_close(dct(x).square().sum(), x.square().sum())


def test_heat_keeps_the_mean_and_blurs_compose():
    blur = heat_blur(16, lambda t: 4 * t)
    one, two, both = blur(torch.tensor(0.3)), blur(torch.tensor(0.4)), blur(torch.tensor(0.5))
    torch.testing.assert_close(one * two, both)  # 3-4-5: squares of widths add
    assert both[..., 0, 0] == 1 and (both.diff(dim=-1) <= 0).all()
    spot = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    spot[..., 8, 8] = 1
    smooth = undct(both * dct(spot))
    assert smooth.sum().item() == pytest.approx(1) and (smooth > -1e-3).all()


def test_without_blur_it_is_gaussian_diffusion():
    frequencies = Frequencies(COSINE, lambda t: torch.ones(*t.shape, 1, 8, 8, dtype=torch.float64))
    x0, eps = draw(3, 1, 8, 8, dtype=torch.float64), draw(3, 1, 8, 8, seed=1, dtype=torch.float64)
    times = torch.tensor([0.4, 0.6, 0.8], dtype=torch.float64)
    alpha, sigma = COSINE.scales(times, like=x0)
    x_t = alpha * x0 + sigma * eps
    plain, ours = Gaussian(COSINE, eta=0.0), ByFrequency(frequencies, eta=0.0)
    torch.testing.assert_close(ours.bridge(x_t, x0, times, times / 2), plain.bridge(x_t, x0, times, times / 2))
    noisy = ByFrequency(frequencies).corrupt(x0 * 0, 0.5, generator=generator(2))
    assert noisy.std().item() == pytest.approx(float(COSINE.scales(0.5)[1]), rel=0.1)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_bridge_of_frequencies_leads_from_marginal_to_marginal(eta):
    """Coefficient by coefficient, mean and variance at s are those of ``q(x_s | x0)``."""
    frequencies = Frequencies(COSINE, heat_blur(6, lambda t: 3 * t**2))
    corruption, x0 = ByFrequency(frequencies, eta), draw(1, 1, 6, 6, seed=3, dtype=torch.float64)
    many = x0.expand(8000, 1, 6, 6)
    x_t = corruption.corrupt(many, T, generator=generator(4))
    z = dct(corruption.bridge(x_t, many, T, S, generator=generator(5)))
    alpha, sigma = frequencies.scales(S)
    assert ((z.mean(0) - alpha[0] * dct(x0)[0]).abs() < 5 * sigma[0] / math.sqrt(8000)).all()
    assert ((z.var(0) / sigma[0] ** 2 - 1).abs() < 5 * math.sqrt(2 / 8000)).all()
    torch.testing.assert_close(corruption.bridge(x_t, many, T, 0.0, generator=generator(6)), many)
    with pytest.raises(ValueError, match="eta is the fraction"):
        ByFrequency(frequencies, 2.0)


def test_heat_dissipation_ends_in_the_mean_and_a_little_noise():
    """IHDM: no scale falls but by blur, sigma is small and constant."""
    still = schedules.Schedule(lambda t: torch.ones_like(t), lambda t: torch.full_like(t, 0.01), name="still")
    corruption = ByFrequency(Frequencies(still, heat_blur(8, lambda t: 40 * t)))
    x0 = draw(4, 1, 8, 8, dtype=torch.float64)
    end = corruption.corrupt(x0, 1.0, generator=generator(7))
    assert (end - x0.mean((2, 3), keepdim=True)).abs().max() < 0.06
    back = corruption.bridge(end, x0, 1.0, 0.9, generator=generator(8))
    assert back.isfinite().all(), "coefficients that are blurred to nothing at both times"


# ---------------------------------------------------------------------- cold


def test_degradations_begin_with_the_image_and_end_without_it():
    x0 = draw(2, 3, 8, 8, dtype=torch.float64)
    order = torch.rand(8, 8, generator=generator(8), dtype=torch.float64)
    one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for degrade in (masked(order), pixelated(3), mixed_with(-x0)):
        assert degrade(x0, zero).equal(x0)
        assert degrade(x0, torch.tensor([0.2, 0.7]).double()).shape == x0.shape
    assert not masked(order)(x0, one).any()
    assert (masked(order)(x0, torch.tensor(0.5)) != 0).sum() == 6 * (order > 0.5).sum()
    torch.testing.assert_close(pixelated(3)(x0, one), x0.mean((2, 3), keepdim=True).expand_as(x0))
    middle = pixelated(3)(x0, torch.tensor(2 / 3, dtype=torch.float64))
    torch.testing.assert_close(middle[0, 0, :4, :4], x0[0, 0, :4, :4].mean().expand(4, 4))
    torch.testing.assert_close(mixed_with(-x0)(x0, one), -x0)


def test_a_wrong_restorer_is_harmless_where_the_degradation_is_a_straight_line():
    """Cold diffusion's theorem (Bansal et al. 2023): with ``degrade(x, t) = x + t e``, any restorer, to rounding."""
    x0, e = draw(5, 1, 4, 4, dtype=torch.float64), draw(5, 1, 4, 4, seed=1, dtype=torch.float64)
    cold = Cold(lambda x, t: x + t * e)
    wrong = lambda x, t, cond=None: torch.sin(7 * x) - 3.0  # noqa: E731
    walked = ancestral(wrong, cold, cold.corrupt(x0, 1.0), grids.uniform(20), generator=generator())
    torch.testing.assert_close(walked, x0, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------- the level from the state


def test_the_level_of_a_state_is_bayes_rule_and_is_found_in_many_dimensions():
    law = GaussianMixture(torch.tensor([[-0.5], [0.5]]), scales=0.1)
    times = torch.linspace(0.95, 0.05, 10, dtype=torch.float64)
    x = torch.tensor([[0.0], [1.7]], dtype=torch.float64)
    found = level_posterior(lambda x, t: law.log_prob(x, t, COSINE), x, times)
    by_hand = torch.stack([law.log_prob(x, t, COSINE).exp() for t in times], 1)
    torch.testing.assert_close(found, by_hand / by_hand.sum(1, keepdim=True))
    wide = GaussianLaw(torch.zeros(200), 0.3 * torch.eye(200))
    x_t = Gaussian(COSINE).corrupt(
        wide.sample(20, generator=generator(), dtype=torch.float64), times[3], generator=generator(1)
    )
    best = level_posterior(lambda x, t: wide.log_prob(x, t, COSINE), x_t, times).argmax(1)
    assert (best - 3).abs().max() <= 1


# ---------------------------------------------------------------------- how much of the noise is kept


@pytest.fixture(scope="module")
def blurring():
    return ByFrequency(Frequencies(COSINE, heat_blur(8, lambda t: 2 * t)), eta=0.0)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.5, math.inf])
def test_a_step_that_keeps_any_part_of_the_noise_has_the_marginal(blurring, power):
    x0 = draw(1, 1, 8, 8, dtype=torch.float64).expand(4000, -1, -1, -1)
    x_t = blurring.corrupt(x0, T, generator=generator(1))
    x_s = Kept(blurring, power).bridge(x_t, x0, T, S, generator=generator(2))
    alpha, sigma = blurring.frequencies.scales(S)
    left = dct(x_s) - alpha * dct(x0)
    assert left.mean(0).abs().max() < 5 * float(sigma.max()) / math.sqrt(4000)
    torch.testing.assert_close(left.std(0), sigma[0].expand(1, 8, 8), rtol=0.08, atol=0)
    together = torch.corrcoef(
        torch.stack([left.flatten(), (dct(x_t) - blurring.frequencies.scales(T)[0] * dct(x0)).flatten()])
    )
    ratio = float(COSINE.scales(S)[1] / COSINE.scales(T)[1])
    assert float(together[0, 1]) == pytest.approx(0.0 if math.isinf(power) else ratio ** (power - 1), abs=0.02)


def test_keeping_all_noise_is_ddim_and_cold_diffusion_where_the_noise_is_constant(blurring):
    x0, guess = draw(3, 1, 8, 8, dtype=torch.float64), draw(3, 1, 8, 8, seed=1, dtype=torch.float64)
    x_t = blurring.corrupt(x0, T, generator=generator(3))
    torch.testing.assert_close(Kept(blurring, 1.0).bridge(x_t, guess, T, S), blurring.bridge(x_t, guess, T, S))
    grain = schedules.Schedule(torch.ones_like, lambda t: torch.full_like(t, 0.02))
    heat = ByFrequency(Frequencies(grain, heat_blur(8, lambda t: 2 * t)), eta=0.0)

    def blurred(x, t):
        return undct(heat.frequencies.scales(t)[0] * dct(x))

    step = Kept(heat, 1.0).bridge(x_t, guess, T, S)
    torch.testing.assert_close(step, Cold(blurred).bridge(x_t, guess, T, S))


def test_more_new_noise_makes_its_deviation_larger_and_bad_numbers_are_refused(blurring):
    x0 = torch.zeros(2000, 1, 8, 8, dtype=torch.float64)
    stds = [Kept(blurring, math.inf, new).bridge(x0, x0, T, S, generator=generator(4)).std() for new in (1.0, 1.25)]
    assert float(stds[1] / stds[0]) == pytest.approx(1.25, rel=1e-6)
    for wrong in ({"power": 0.5}, {"power": math.nan}, {"new": -1.0}):
        with pytest.raises(ValueError, match="power is at least 1 and new not negative"):
            Kept(blurring, **wrong)
