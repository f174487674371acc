"""Preconditioning by the spectrum: each frequency contracts as calculated."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from survey_lib.core.schedules import edm
from survey_lib.design.score import (
    Filter,
    Whitening,
    annealed_langevin,
    contraction,
    langevin,
    noise_times,
    one_over_f,
    power_spectrum,
    spectral_law,
)
from tests.design.score.support import exactly
from tests.support import exact_moments, generator


def test_the_spectral_law_has_the_spectrum_it_was_given():
    power = one_over_f(6, variance=0.3)
    target = spectral_law(power)
    exactly(target.variances.sort().values.flatten(), power.flatten().sort().values)
    exactly(target.cov.diagonal(), torch.full((36,), 0.3, dtype=torch.float64))
    drawn = target.sample(4000, generator=generator(), dtype=torch.float64)
    ratio = power_spectrum(drawn)[0] / power
    assert (ratio - 1).abs().max() < 5 * math.sqrt(2 / 4000)  # means of 4000 squares, within 5 deviations


@pytest.mark.parametrize("kind", ["plain", "whitening", "bounded", "filter", "published"])
def test_each_frequency_contracts_as_said_and_settles_where_it_should(kind):
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
    mean, cov, _ = exact_moments(run, torch.ones(16, dtype=torch.float64), truth, (1, 4, 4))
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


def test_preconditioned_ladders_reach_the_law_in_steps_that_plain_ones_do_not():
    power = one_over_f(4, variance=0.5)
    target, schedule = spectral_law(power), edm()
    times = noise_times(4, schedule, high=2.0, low=0.05, clean=False)
    start = torch.zeros(16, dtype=torch.float64), 4.0 * torch.eye(16, dtype=torch.float64)
    truth = torch.zeros(16, dtype=torch.float64), target.cov + 0.05**2 * torch.eye(16)
    plain, whitened = (
        exact_moments(partial(walk, steps=15, precondition=one), *start, (1, 4, 4)).distance(truth)
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
    with pytest.raises(ValueError, match="equal at f and -f"):
        Whitening(lopsided)
    with pytest.raises(ValueError, match="and not negative"):
        Filter(-torch.ones(4, 4))
    with pytest.raises(ValueError, match="at least 1"):
        Whitening(torch.ones(4, 4), most=0.5)
    with pytest.raises(ValueError, match="of one channel"):
        spectral_law(torch.ones(3, 4, 4))
    with pytest.raises(ValueError, match="N above 1"):
        power_spectrum(torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"takes images \(4, 4\)"):
        Whitening(torch.ones(4, 4))(torch.zeros(2, 1, 5, 5), 1.0)
