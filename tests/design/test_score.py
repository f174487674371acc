"""Scores and SDEs held to exact laws: samplers by the matrices they are on normal data, and counts."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from survey_lib.core import corruptions, grids, protocols, toys
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.exact import GaussianLaw, GaussianMixture
from survey_lib.core.integrators import log_likelihood
from survey_lib.core.samplers import ancestral, euler_maruyama, predictor_corrector
from survey_lib.core.schedules import edm, rectified, ve, vp_cosine, vp_linear
from survey_lib.design.score import (
    CriticallyDamped,
    Filter,
    Whitening,
    adaptive_sde,
    annealed_langevin,
    contraction,
    ddpm_sde_ode,
    ks_critical_value,
    ks_distance,
    langevin,
    mixture_cdf,
    noise_times,
    one_over_f,
    power_spectrum,
    score_of,
    spectral_law,
    sub_vp,
)
from survey_lib.lab.evaluation.cost import CountCalls

quick = settings(deadline=None, derandomize=True, max_examples=25)
exactly = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)
SCHEDULES = [edm(), ve(), vp_linear(), sub_vp(), rectified()]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def law(monkeypatch):
    """``law(run, mean, cov, shape)``: mean and covariance of ``run(x)``, affine in a normal x and the noises it draws.

    Basis vectors, fed through a scripted source of noise, read off the matrices.
    """

    def measure(run, mean: Tensor, cov: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        drawn = 0

        def silence(wanted, generator=None, dtype=None):
            nonlocal drawn
            drawn += math.prod(wanted[1:])
            return torch.zeros(tuple(wanted), dtype=dtype)

        for module in (protocols, corruptions):
            monkeypatch.setattr(module, "normal", silence)
        size = math.prod(shape)
        run(torch.zeros(1, *shape, dtype=torch.float64))
        basis = torch.cat([torch.zeros(1, size + drawn), torch.eye(size + drawn)]).double()
        used = 0

        def script(wanted, generator=None, dtype=None):
            nonlocal used
            used += (count := math.prod(wanted[1:]))
            return basis[:, used - count : used].reshape(-1, *wanted[1:])

        for module in (protocols, corruptions):
            monkeypatch.setattr(module, "normal", script)
        rows = run(script((1, *shape))).flatten(1)
        offset, matrix = rows[0], (rows[1:] - rows[0]).T
        start, noises = matrix[:, :size], matrix[:, size:]
        return offset + start @ mean, start @ cov @ start.T + noises @ noises.T

    return measure


def apart(one, other) -> float:
    return sum((a - b).norm().item() for a, b in zip(one, other, strict=True))


# ---------------------------------------------------------------- the score, and Langevin steps along it


@every_schedule
@quick
@given(t=st.floats(0.05, 0.95))
def test_the_denoiser_tells_the_score(schedule, t):
    target = toys.two_moons(6, scale=0.2)
    x = target.sample(9, generator=source(), dtype=torch.float64)
    torch.testing.assert_close(
        score_of(target.denoiser(schedule), schedule)(x, t), target.score(x, t, schedule), rtol=1e-6, atol=1e-6
    )


def test_clean_data_have_no_score():
    with pytest.raises(ValueError, match="no score"):
        score_of(toys.two_peaks().denoiser(edm()), edm())(torch.zeros(1, 1), 0.0)


@every_schedule
@pytest.mark.parametrize("rate", [0.05, 0.8])
def test_langevin_settles_on_a_law_known_in_closed_form(law, schedule, rate):
    """A step is ``k x + ...``, ``k = 1 - rate sigma^2 / (2 S)`` at the variance S; the rest is a geometric series."""
    mean, variance, steps = 0.75, 0.3, 60
    t = schedule.time(0.2)
    alpha, sigma = (v.item() for v in schedule.scales(t))
    spread = alpha**2 * variance + sigma**2
    target = GaussianLaw(torch.tensor([mean]).double(), variance).denoiser(schedule)
    zero = torch.zeros(1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    got = law(lambda x: langevin(target, schedule, x, t, steps=steps, rate=rate), *zero, (1,))
    k = 1 - rate * sigma**2 / (2 * spread)
    series = (1 - k ** (2 * steps)) / (1 - k**2)
    exactly(got[0].item(), alpha * mean * (1 - k**steps))
    exactly(got[1].item(), rate * sigma**2 * series)
    bias = spread / (1 - rate * sigma**2 / (4 * spread))  # where it settles: the true variance, up to order rate
    assert abs(got[1].item() - bias) <= 1.01 * bias * k ** (2 * steps) + 1e-12


@pytest.mark.parametrize("schedule", [edm(), sub_vp()], ids=["edm", "sub_vp"])
def test_the_ladder_ends_on_the_law_of_its_last_level_and_the_answer_behind_it(law, schedule):
    mean, variance = torch.tensor([0.4, -0.3]).double(), torch.tensor([[0.5, 0.2], [0.2, 0.25]]).double()
    target = GaussianLaw(mean, variance).denoiser(schedule)
    times = noise_times(3, schedule, high=1.5, low=0.6, clean=False)
    start = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    alpha, sigma = schedule.scales(times[-1])
    truth = alpha * mean, alpha**2 * variance + sigma**2 * torch.eye(2).double()
    errors = []
    for rate in (0.4, 0.1):
        run = partial(annealed_langevin, target, schedule, times=times, steps=int(15 / rate), rate=rate)
        errors.append(apart(law(run, *start, (2,)), truth))
    assert errors[1] < 0.3 * errors[0] < 0.02  # of order rate, as long as each level has time to settle
    clean = torch.cat([times, torch.zeros(1)])
    noisy = law(partial(annealed_langevin, target, schedule, times=times, steps=20), *start, (2,))
    got = law(partial(annealed_langevin, target, schedule, times=clean, steps=20), *start, (2,))
    gain = alpha * variance @ torch.linalg.inv(truth[1])  # the denoiser is mean + gain (x - alpha mean)
    exactly(got[0], mean + gain @ (noisy[0] - alpha * mean))
    exactly(got[1], gain @ noisy[1] @ gain.T)


def test_the_ladder_is_the_same_in_every_schedule():
    """In ``x / alpha`` a step knows only the level: equal noises, equal results."""
    target, results = toys.eight_modes(), []
    for schedule in SCHEDULES:
        times = noise_times(5, schedule, high=1.0, low=0.05)
        start = torch.randn(7, 2, generator=source(), dtype=torch.float64) * schedule.scales(times[0])[0]
        walk = partial(annealed_langevin, target.denoiser(schedule), schedule)
        results.append(walk(start, times, steps=4, generator=source(1)))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-7, atol=1e-7)


def test_levels_fall_by_one_factor():
    for schedule in SCHEDULES:
        times = noise_times(10, schedule, high=1.0, low=0.01)
        ratio = torch.exp(-schedule.lam(times[:-1]))
        exactly(ratio[:-1] / ratio[1:], torch.full((9,), 10 ** (2 / 9), dtype=torch.float64), rtol=1e-6, atol=0)
        assert times[-1] == 0 and len(times) == 11


@pytest.mark.parametrize("levels, steps", [(2, 1), (3, 2), (10, 5)])
def test_the_ladder_asks_levels_times_steps_and_once_to_clean(levels, steps):
    schedule, x = edm(), torch.zeros(3, 1)
    for clean in (False, True):
        counted = CountCalls(toys.two_peaks().denoiser(schedule))
        times = noise_times(levels, schedule, high=1.0, low=0.01, clean=clean)
        seen: list[float] = []
        look = partial(lambda seen, x, t, x0: seen.append(float(t)), seen)
        annealed_langevin(counted, schedule, x, times, steps=steps, generator=source(), callback=look)
        assert counted.calls == len(seen) == levels * steps + clean
    counted.reset()
    langevin(counted, schedule, x, times[0], steps=steps, generator=source())
    assert counted.calls == steps


def test_one_low_level_never_learns_which_peak_is_heavier_and_the_ladder_does():
    target, schedule = toys.two_peaks(balance=0.8, scale=0.05), edm(1.0)
    denoiser, start = target.denoiser(schedule), torch.randn(2000, 1, generator=source())
    times = noise_times(10, schedule, high=1.0, low=0.02)
    walked = annealed_langevin(denoiser, schedule, start, times, steps=40, generator=source(1))
    stuck = langevin(denoiser, schedule, start, times[-2], steps=400, generator=source(2))
    right, still = ((x > 0).double().mean().item() for x in (walked, stuck))
    assert abs(right - 0.8) < 0.06 and abs(still - 0.5) < 0.06


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: noise_times(1, edm(), high=1.0, low=0.1), "at least 2"),
        (lambda: noise_times(4, edm(), high=0.1, low=1.0), "fall from high to low"),
        (lambda: noise_times(4, vp_linear(), high=500.0, low=1.0), "no more"),
        (lambda: langevin(abs, edm(), torch.zeros(1, 1), 0.0, steps=3), "no noise"),
        (lambda: langevin(abs, edm(), torch.zeros(1, 1), 0.5, steps=0), "whole number"),
        (lambda: langevin(abs, edm(), torch.zeros(1, 1), 0.5, steps=1, rate=4.0), "runs away"),
        (lambda: annealed_langevin(abs, vp_cosine(), torch.zeros(1, 1), torch.tensor([1.0, 0.5]), steps=1), "infinite"),
    ],
)
def test_langevin_refuses_what_cannot_be(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()


# ---------------------------------------------------------------- preconditioning by the spectrum


def test_the_spectral_law_has_the_spectrum_it_was_given():
    power = one_over_f(6, variance=0.3)
    target = spectral_law(power)
    exactly(target.variances.sort().values.flatten(), power.flatten().sort().values)
    exactly(target.cov.diagonal(), torch.full((36,), 0.3, dtype=torch.float64))
    drawn = target.sample(4000, generator=source(), dtype=torch.float64)
    ratio = power_spectrum(drawn)[0] / power
    assert (ratio - 1).abs().max() < 5 * math.sqrt(2 / 4000)  # means of 4000 squares, within 5 deviations


@pytest.mark.parametrize("kind", ["plain", "whitening", "bounded", "filter", "published"])
def test_each_frequency_contracts_as_said_and_settles_where_it_should(law, kind):
    power, noise, rate, steps = one_over_f(4, variance=0.5), 0.1, 0.3, 5
    precondition = {
        "plain": None,
        "whitening": Whitening(power),
        "bounded": Whitening(power, most=3.0),
        "filter": Filter.logarithmic(power),
        "published": Filter.published(power),
    }[kind]
    target, schedule = spectral_law(power), edm()
    t = schedule.time(-math.log(noise))
    run = partial(langevin, target.denoiser(schedule), schedule, t=t, steps=steps, rate=rate, precondition=precondition)
    truth = target.cov + noise**2 * torch.eye(16)
    axes = torch.linalg.eigh(target.cov)[1]
    mean, cov = law(run, torch.ones(16, dtype=torch.float64), truth, (1, 4, 4))
    left = contraction(power, noise, rate, precondition)
    # A constant image is the frequency 0 alone.
    exactly(mean, torch.full((16,), left[0, 0].item() ** steps, dtype=torch.float64))
    # Started on the truth S, a frequency is off by what one step adds too much, (1 - k)^2 S, summed and contracted.
    k, spread = left.flatten(), (power + noise**2).flatten()
    series = (1 - k ** (2 * steps)) / (1 - k**2)
    expected = k ** (2 * steps) * spread + series * 2 * (1 - k) * spread
    found = (axes.T @ cov @ axes).diagonal().sort().values
    torch.testing.assert_close(found, expected.sort().values, rtol=1e-7, atol=1e-8)


def test_whitening_makes_one_pace_of_many():
    power = one_over_f(16, exponent=3.0)
    plain, even = (contraction(power, 0.05, 0.2, one) for one in (None, Whitening(power)))
    exactly(even, torch.full_like(even, 0.9))
    assert plain.max() > 0.999 and (plain >= even - 1e-12).all()
    slow = math.log(0.9) / math.log(plain.max().item())  # how many times longer the slowest frequency takes
    assert slow == pytest.approx(1 + power.max().item() / 0.05**2, rel=0.1)


def test_preconditioned_ladders_reach_the_law_in_steps_that_plain_ones_do_not(law):
    power = one_over_f(4, variance=0.5)
    target, schedule = spectral_law(power), edm()
    times = noise_times(4, schedule, high=2.0, low=0.05, clean=False)
    start = torch.zeros(16, dtype=torch.float64), 4.0 * torch.eye(16, dtype=torch.float64)
    truth = torch.zeros(16, dtype=torch.float64), target.cov + 0.05**2 * torch.eye(16)
    plain, whitened = (
        apart(law(partial(walk, steps=15, precondition=one), *start, (1, 4, 4)), truth)
        for walk in [partial(annealed_langevin, target.denoiser(schedule), schedule, times=times)]
        for one in (None, Whitening(power))
    )
    assert whitened < 0.25 * plain


def test_bounds_and_published_filters_lean_as_they_say():
    """Whitening quickens the long waves, as far as its bound; the published filter slows them."""
    power = one_over_f(8)
    long, short = power.flatten().argmax(), power.flatten().argmin()
    whitened, mild, published = (
        one.gain(0.1).flatten()
        for one in (Whitening(power, most=4.0), Filter.logarithmic(power), Filter.published(power))
    )
    assert whitened[long] == whitened.max() == 2 and mild[long] == mild.max() == 1
    assert published[long] == published.min() < published[short] == published.max()


def test_spectra_are_checked():
    lopsided = torch.ones(4, 4)
    lopsided[0, 1] = 2
    with pytest.raises(ValueError, match="same at f and at -f"):
        Whitening(lopsided)
    with pytest.raises(ValueError, match="nowhere negative"):
        Filter(-torch.ones(4, 4))
    with pytest.raises(ValueError, match="or more"):
        Whitening(torch.ones(4, 4), most=0.5)
    with pytest.raises(ValueError, match="one channel"):
        spectral_law(torch.ones(3, 4, 4))
    with pytest.raises(ValueError, match="N above 1"):
        power_spectrum(torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"images \(4, 4\)"):
        Whitening(torch.ones(4, 4))(torch.zeros(2, 1, 5, 5), 1.0)


# ---------------------------------------------------------------- sub-VP, and three views of one process


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
def test_samplers_near_the_law_of_sub_vp(law, name):
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
        apart(law(lambda x, n=n: walks[name](x, grids.uniform(n, 0.8, 0.2)), *marginal(0.8), (1,)), marginal(0.2))
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
    start = Gaussian(schedule).corrupt(target.sample(4000, generator=source()), 0.9, generator=source(1)).double()
    counted = CountCalls(target.denoiser(schedule))
    views = ddpm_sde_ode(counted, schedule, start, times, substeps=40, generator=source(2))
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


def test_the_distribution_function_is_the_integral_of_the_density():
    target, schedule, t = toys.two_peaks(balance=0.2), vp_cosine(), 0.3
    x = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    density = target.log_prob(x[:, None], t, schedule).exp()
    integral = torch.cumulative_trapezoid(density, x)
    torch.testing.assert_close(mixture_cdf(target, x[1:], t, schedule), integral, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="on a line"):
        mixture_cdf(toys.eight_modes(), x, t, schedule)


# ---------------------------------------------------------------- critically damped Langevin diffusion

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
    z = plane.sample(50, generator=source(), dtype=torch.float64)
    x0 = SPRING.denoiser(target.denoiser(schedule), schedule)(z[..., None], torch.tensor(t, dtype=torch.float64))
    found = SPRING.score(z[..., None], x0, t)[..., 0]
    torch.testing.assert_close(found, plane.score(z), rtol=1e-5, atol=1e-5)


def test_every_example_may_have_its_own_time():
    target, schedule = toys.two_peaks(), edm(300.0)
    denoiser, t = SPRING.denoiser(target.denoiser(schedule), schedule), torch.tensor([0.1, 0.4, 0.9]).double()
    x0 = target.sample(3, generator=source(), dtype=torch.float64)
    z = SPRING.corrupt(x0, t, generator=source(1))
    guess = denoiser(z, t)
    alone = torch.cat([denoiser(z[i : i + 1], t[i]) for i in range(3)])
    exactly(guess, alone)
    exactly(SPRING.score(z, guess, t)[1:2], SPRING.score(z[1:2], guess[1:2], t[1]))
    with pytest.raises(ValueError, match="no density"):
        SPRING.noise(0.0)


def damped_law(t, mean, variance):
    gain, cov = SPRING.marginal(t)
    return gain * mean, cov + variance * gain[:, None] * gain


@pytest.mark.parametrize(
    "walk, order", [("euler_maruyama", 1), ("sscs", 1), ("second", 2)], ids=["plain", "split", "split twice"]
)
def test_damped_samplers_near_the_law_at_their_rates(law, walk, order):
    mean, variance, errors = 0.6, 0.25, []
    denoiser = SPRING.denoiser(GaussianLaw(torch.tensor([mean]).double(), variance).denoiser(vp_linear()), vp_linear())
    walks = {"second": partial(SPRING.sscs, order=2)}
    walk = partial(walks.get(walk) or getattr(SPRING, walk), denoiser)
    for steps in (80, 160):
        times = grids.quadratic(steps, 1.0, 0.05)
        got = law(lambda z, times=times: walk(z, times), *damped_law(1.0, mean, variance), (2, 1))
        errors.append(apart(got, damped_law(0.05, mean, variance)))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def test_splitting_beats_plain_steps_at_equal_evaluations(law):
    mean, variance = 0.6, 0.25
    denoiser = SPRING.denoiser(GaussianLaw(torch.tensor([mean]).double(), variance).denoiser(vp_linear()), vp_linear())
    for steps in (20, 50, 100):
        times = grids.quadratic(steps, 1.0, 0.05)
        plain, split = (
            apart(
                law(partial(run, denoiser, times=times), *damped_law(1.0, mean, variance), (2, 1)),
                damped_law(0.05, mean, variance),
            )
            for run in (SPRING.euler_maruyama, SPRING.sscs)
        )
        assert split < 0.6 * plain


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_damped_samplers_count_and_end_on_the_answer(steps):
    target, schedule = toys.eight_modes(), edm(300.0)
    for walk, price in ((SPRING.euler_maruyama, 1), (SPRING.sscs, 1), (partial(SPRING.sscs, order=2), 2)):
        counted, answers = CountCalls(target.denoiser(schedule)), []
        z = SPRING.prior((4, 2), generator=source())
        assert z.shape == (4, 2, 2)
        end = walk(
            SPRING.denoiser(counted, schedule), z, grids.quadratic(steps), generator=source(1),
            callback=lambda z, t, x0, answers=answers: answers.append(x0),
        )  # fmt: skip
        assert counted.calls == len(answers) == price * (steps - 1) + 1
        assert torch.equal(end, torch.stack([answers[-1], torch.zeros_like(answers[-1])], 1))
    with pytest.raises(ValueError, match="position and velocity"):
        SPRING.sscs(counted, torch.zeros(4, 3), grids.uniform(3), generator=source())
    with pytest.raises(ValueError, match="orders 1"):
        SPRING.sscs(counted, z, grids.uniform(3), order=3, generator=source())


# ---------------------------------------------------------------- steps chosen by an error estimate

ENDS = torch.tensor([1.0, 1e-3, 0.0], dtype=torch.float64)


def test_the_adaptive_law_nears_the_target_as_the_tolerance_falls():
    target, schedule = toys.two_peaks(balance=0.3), vp_linear()
    counted, gaps, costs = CountCalls(target.denoiser(schedule)), [], []
    for tolerance in (0.5, 0.1, 0.02):
        counted.reset()
        start = torch.randn(2000, 1, generator=source(), dtype=torch.float64)
        x = adaptive_sde(counted, schedule, start, ENDS, rtol=tolerance, atol=tolerance / 2, generator=source(1))
        gaps.append(ks_distance(x, target, 0.0, schedule))
        costs.append(counted.examples)
    assert gaps[0] > gaps[1] > gaps[2] and costs[0] < costs[1] < costs[2]
    assert gaps[2] < ks_critical_value(2000, 1e-3) < gaps[0]


def test_drawing_refused_noise_anew_narrows_what_it_should_not():
    """As published, in one dimension: the error stays, however small the tolerance."""
    target, schedule = toys.two_peaks(balance=0.3), vp_linear()
    start = torch.randn(2000, 1, generator=source(), dtype=torch.float64)
    kept, redrawn = (
        adaptive_sde(
            target.denoiser(schedule), schedule, start, ENDS, rtol=0.02, atol=0.01, redraw=redraw, generator=source(1)
        )
        for redraw in (False, True)
    )
    assert ks_distance(redrawn, target, 0.0, schedule) > 2 * ks_critical_value(2000, 1e-3)
    assert ks_distance(kept, target, 0.0, schedule) < ks_critical_value(2000, 1e-3)


def test_paths_are_the_same_path_however_finely_drawn():
    """What is put back and drawn again in parts adds up to what it was; what is new has the variance of its span."""
    from survey_lib.design.score.adaptive import _Paths

    paths, rows, generator = _Paths(torch.zeros(5000, 1).double()), torch.arange(5000), source()
    whole = torch.full((5000,), 0.4, dtype=torch.float64)
    _, rise = paths.ahead(rows, whole, generator)
    paths.keep(rows, whole, rise)
    parts, spans, variances = [], [], []
    for share in (0.1, 0.2, 1.0):
        span, part = paths.ahead(rows, torch.full_like(whole, share), generator)
        parts.append(part)
        spans.append(span[0].item())
        variances.append(part.var().item())
    assert spans == pytest.approx([0.1, 0.2, 0.1]) and (paths.depth == 0).all()
    exactly(sum(parts), rise)
    assert variances == pytest.approx(spans, rel=5 * math.sqrt(2 / 5000))
    assert abs(torch.corrcoef(torch.cat(parts, 1).T)[0, 1]) < 5 / math.sqrt(5000)


def test_the_adaptive_solver_counts_what_it_tries():
    target, schedule = toys.eight_modes(), vp_linear()
    counted, tried = CountCalls(target.denoiser(schedule)), []
    x = adaptive_sde(
        counted, schedule, torch.randn(6, 2, generator=source()), ENDS, rtol=0.1, generator=source(1),
        callback=lambda x, t, x0: tried.append(t.clone()),
    )  # fmt: skip
    assert x.shape == (6, 2)
    *attempts, last = tried
    assert last.item() == 1e-3
    assert counted.calls == 2 * len(attempts) + 1
    assert counted.examples == 2 * sum(map(len, attempts)) + 6
    assert all((t > 1e-3).all() for t in attempts)
    with pytest.raises(RuntimeError, match="6 of 6 examples need more than 20 evaluations"):
        counted.reset()
        adaptive_sde(counted, schedule, torch.randn(6, 2, generator=source()), ENDS, limit=20, generator=source(1))
    assert counted.calls <= 20


def test_examples_do_not_disturb_one_another():
    """Each has its own steps; the conditions stay with their examples."""
    schedule, means = vp_linear(), torch.tensor([[-3.0], [0.0], [5.0]])
    target = GaussianMixture(means, scales=1e-3, labels=torch.arange(3))
    labels = torch.tensor([2, 0, 1, 2])
    x = adaptive_sde(
        target.denoiser(schedule), schedule, torch.randn(4, 1, generator=source()), ENDS, rtol=0.1, cond=labels,
        generator=source(1),
    )  # fmt: skip
    torch.testing.assert_close(x, means[labels], rtol=0, atol=0.02)


@pytest.mark.parametrize(
    "schedule, times, options, words",
    [
        (vp_linear(), [1.0, 0.0], {}, "a time before it"),
        (vp_cosine(), [1.0, 1e-3, 0.0], {}, "no finite drift"),
        (vp_linear(), [1.0, 1e-3, 0.0], {"rtol": 0.0, "atol": 0.0}, "tolerances"),
        (vp_linear(), [1.0, 1e-3, 0.0], {"first": 0.0}, "tolerances"),
    ],
)
def test_the_adaptive_solver_refuses_what_cannot_be(schedule, times, options, words):
    denoiser = toys.two_peaks().denoiser(schedule)
    with pytest.raises(ValueError, match=words):
        adaptive_sde(denoiser, schedule, torch.zeros(2, 1), torch.tensor(times), generator=source(), **options)
