"""Langevin steps at one level and over many, held to closed forms and to counts."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from survey_lib.core import toys
from survey_lib.core.exact import GaussianLaw
from survey_lib.core.schedules import edm, vp_cosine, vp_linear
from survey_lib.design.score import (
    annealed_langevin,
    langevin,
    noise_times,
    score_of,
    sub_vp,
)
from survey_lib.lab.evaluation.cost import CountCalls
from tests.design.score.support import SCHEDULES, every_schedule, exactly
from tests.support import exact_moments, generator, quick


@every_schedule
@quick
@given(t=st.floats(0.05, 0.95))
def test_the_denoiser_tells_the_score(schedule, t):
    target = toys.two_moons(6, scale=0.2)
    x = target.sample(9, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(
        score_of(target.denoiser(schedule), schedule)(x, t), target.score(x, t, schedule), rtol=1e-6, atol=1e-6
    )


def test_clean_data_have_no_score():
    with pytest.raises(ValueError, match="score is undefined at sigma = 0"):
        score_of(toys.two_peaks().denoiser(edm()), edm())(torch.zeros(1, 1), 0.0)


@every_schedule
@pytest.mark.parametrize("rate", [0.05, 0.8])
def test_langevin_settles_on_a_law_known_in_closed_form(schedule, rate):
    """A step is ``k x + ...``, ``k = 1 - rate sigma^2 / (2 S)`` at the variance S; the rest is a geometric series."""
    mean, variance, steps = 0.75, 0.3, 60
    t = schedule.time(0.2)
    alpha, sigma = (v.item() for v in schedule.scales(t))
    spread = alpha**2 * variance + sigma**2
    target = GaussianLaw(torch.tensor([mean]).double(), variance).denoiser(schedule)
    zero = torch.zeros(1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    got = exact_moments(lambda x: langevin(target, schedule, x, t, steps=steps, rate=rate), *zero, (1,))
    k = 1 - rate * sigma**2 / (2 * spread)
    series = (1 - k ** (2 * steps)) / (1 - k**2)
    exactly(got[0].item(), alpha * mean * (1 - k**steps))
    exactly(got[1].item(), rate * sigma**2 * series)
    bias = spread / (1 - rate * sigma**2 / (4 * spread))  # where it settles: the true variance, up to order rate
    assert abs(got[1].item() - bias) <= 1.01 * bias * k ** (2 * steps) + 1e-12


@pytest.mark.parametrize("schedule", [edm(), sub_vp()], ids=["edm", "sub_vp"])
def test_the_ladder_ends_on_the_law_of_its_last_level_and_the_answer_behind_it(schedule):
    mean, variance = torch.tensor([0.4, -0.3]).double(), torch.tensor([[0.5, 0.2], [0.2, 0.25]]).double()
    target = GaussianLaw(mean, variance).denoiser(schedule)
    times = noise_times(3, schedule, high=1.5, low=0.6, clean=False)
    start = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    alpha, sigma = schedule.scales(times[-1])
    truth = alpha * mean, alpha**2 * variance + sigma**2 * torch.eye(2).double()
    errors = []
    for rate in (0.4, 0.1):
        run = partial(annealed_langevin, target, schedule, times=times, steps=int(15 / rate), rate=rate)
        errors.append(exact_moments(run, *start, (2,)).distance(truth))
    assert errors[1] < 0.3 * errors[0] < 0.02  # of order rate, as long as each level has time to settle
    clean = torch.cat([times, torch.zeros(1)])
    noisy = exact_moments(partial(annealed_langevin, target, schedule, times=times, steps=20), *start, (2,))
    got = exact_moments(partial(annealed_langevin, target, schedule, times=clean, steps=20), *start, (2,))
    gain = alpha * variance @ torch.linalg.inv(truth[1])  # the denoiser is mean + gain (x - alpha mean)
    exactly(got[0], mean + gain @ (noisy[0] - alpha * mean))
    exactly(got[1], gain @ noisy[1] @ gain.T)


def test_the_ladder_is_the_same_in_every_schedule():
    """In ``x / alpha`` a step knows only the level: equal noises, equal results."""
    target, results = toys.eight_modes(), []
    for schedule in SCHEDULES:
        times = noise_times(5, schedule, high=1.0, low=0.05)
        start = torch.randn(7, 2, generator=generator(), dtype=torch.float64) * schedule.scales(times[0])[0]
        walk = partial(annealed_langevin, target.denoiser(schedule), schedule)
        results.append(walk(start, times, steps=4, generator=generator(1)))
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
        annealed_langevin(counted, schedule, x, times, steps=steps, generator=generator(), callback=look)
        assert counted.calls == len(seen) == levels * steps + clean
    counted.reset()
    langevin(counted, schedule, x, times[0], steps=steps, generator=generator())
    assert counted.calls == steps


def test_one_low_level_never_learns_which_peak_is_heavier_and_the_ladder_does():
    target, schedule = toys.two_peaks(balance=0.8, scale=0.05), edm(1.0)
    denoiser, start = target.denoiser(schedule), torch.randn(2000, 1, generator=generator())
    times = noise_times(10, schedule, high=1.0, low=0.02)
    walked = annealed_langevin(denoiser, schedule, start, times, steps=40, generator=generator(1))
    stuck = langevin(denoiser, schedule, start, times[-2], steps=400, generator=generator(2))
    right, still = ((x > 0).double().mean().item() for x in (walked, stuck))
    assert abs(right - 0.8) < 0.06 and abs(still - 0.5) < 0.06


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: noise_times(1, edm(), high=1.0, low=0.1), "the number of noise levels is at least 2; got 1"),
        (lambda: noise_times(4, edm(), high=0.1, low=1.0), "fall from high to low"),
        (lambda: noise_times(4, vp_linear(), high=500.0, low=1.0), "at most; got high = 500"),
        (lambda: langevin(abs, edm(), torch.zeros(1, 1), 0.0, steps=3), "undefined at sigma = 0"),
        (lambda: langevin(abs, edm(), torch.zeros(1, 1), 0.5, steps=0), "steps is at least 1; got 0"),
        (lambda: langevin(abs, edm(), torch.zeros(1, 1), 0.5, steps=1, rate=4.0), "diverges"),
        (lambda: annealed_langevin(abs, vp_cosine(), torch.zeros(1, 1), torch.tensor([1.0, 0.5]), steps=1), "infinite"),
    ],
)
def test_langevin_refuses_what_cannot_be(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()
