"""Rates, reverse rates and tau-leaping: the master equation, and exact distributions by products of matrices."""

from __future__ import annotations

import itertools
import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from survey_lib.core import grids
from survey_lib.core.categorical import (
    absorbing,
    cosine_survival,
    discretised_gaussian,
    uniform,
)
from survey_lib.core.samplers import ancestral
from survey_lib.design import discrete
from survey_lib.lab.evaluation.cost import CountCalls
from tests.design.discrete.support import each_chain, frequencies, table, total_variation
from tests.support import generator


@each_chain
def test_rates_are_what_the_matrix_grows_from(make) -> None:
    """Kolmogorov's equation d/dt matrix(0, t) = matrix(0, t) R_t, by a difference quotient over another span."""
    chain, t = make(4), torch.tensor(0.4).double()
    found = discrete.rates(chain, t)
    torch.testing.assert_close(found.sum(1), torch.zeros(len(found)).double(), atol=1e-9, rtol=0)
    assert (found - torch.diag(found.diagonal()) >= 0).all()
    zero, h = torch.zeros(()).double(), 1e-4
    slope = (chain.matrix(zero, t + h) - chain.matrix(zero, t - h)) / (2 * h)
    torch.testing.assert_close(chain.matrix(zero, t) @ found, slope, atol=1e-6, rtol=0)


@pytest.mark.parametrize("t", [1.0, -0.1, torch.tensor([0.3, 0.4])])
def test_rates_end_before_the_end(t) -> None:
    with pytest.raises(ValueError, match=r"rates need one t in \[0, 0.9999\]"):
        discrete.rates(uniform(3), t)


@each_chain
def test_reverse_rates_turn_the_marginals_back(make) -> None:
    """``d/dt p_t = -p_t @ reverse`` for the exact denoiser: the master equation of the chain run backwards."""
    chain, t, h = make(3), torch.tensor(0.5).double(), 1e-5
    law, zero = table(3, 1, len(chain.stationary)), torch.zeros(()).double()
    x = torch.arange(len(chain.stationary)).unsqueeze(1)
    back = discrete.reverse_rates(chain, x, law.denoiser(chain)(x, t), t)[:, 0]
    back = back - torch.diag(back.sum(1))

    def marginal(at: Tensor) -> Tensor:
        return law.probabilities @ chain.matrix(zero, at)

    slope = (marginal(t + h) - marginal(t - h)) / (2 * h)
    torch.testing.assert_close(-marginal(t) @ back, slope, atol=1e-6, rtol=0)


def leaped(make, categories: int, steps: int) -> float:
    """Total variation between the data and the exact law of the leaping chain, for one entry: products of matrices."""
    chain = make(categories)
    law = table(categories, 1, len(chain.stationary))
    leaping, denoise = discrete.TauLeaping(chain), law.denoiser(chain)
    now = law.probabilities @ chain.matrix(torch.zeros(()).double(), torch.tensor(discrete.START).double())
    for t, s in pairwise(grids.uniform(steps, start=discrete.START)):
        live = (now > 0).nonzero()
        now = now[live[:, 0]] @ leaping.transition(live, denoise(live, t), t, s)[:, 0]
    assert now.sum().item() == pytest.approx(1)
    return total_variation(now, law.probabilities)


@each_chain
@pytest.mark.parametrize("categories", [3, 7])
def test_leaping_comes_as_close_as_one_likes(make, categories: int) -> None:
    """To the data's law, the faster the more steps: at least of first order from 40 steps on."""
    errors = [leaped(make, categories, steps) for steps in (40, 80, 160, 320)]
    assert all(fine < 0.7 * coarse for coarse, fine in pairwise(errors)) or errors[-1] < 1e-9
    assert errors[-1] < 0.01


def test_two_entries_that_depend_on_each_other_are_leaped_together() -> None:
    """L = 2: the joint law of 9 cells, propagated in full with independent entries in each leap."""
    chain, law = uniform(3), table(3, 2)
    leaping, denoise = discrete.TauLeaping(chain), law.denoiser(chain)
    x = torch.tensor(list(itertools.product(range(3), repeat=2)))

    def error(steps: int) -> float:
        times = grids.uniform(steps, start=discrete.START)
        now = law.log_prob(x, times[0], chain).exp()
        for t, s in pairwise(times):
            each = leaping.transition(x, denoise(x, t), t, s)  # (9, 2, 3)
            now = now @ torch.einsum("bi,bj->bij", each[:, 0], each[:, 1]).flatten(1)
        return total_variation(now, law.probabilities.flatten())

    errors = [error(steps) for steps in (25, 50, 100, 200)]
    assert all(fine < 0.7 * coarse for coarse, fine in pairwise(errors)) and errors[-1] < 0.02


@each_chain
def test_a_drawn_leap_has_the_law_that_is_written_out(make) -> None:
    chain, t, s = make(3), 0.6, 0.4
    states, count = len(chain.stationary), 20_000
    leaping, denoise = discrete.TauLeaping(chain), table(3, 1, states).denoiser(chain)
    for start in range(states):
        x = torch.full((count, 1), start)
        answer = denoise(x[:1], t)
        law = leaping.transition(x[:1], answer, t, s)[0, 0]
        drawn = leaping.bridge(x, answer.expand(count, 1, states), t, s, generator=generator(start))
        frequency = torch.bincount(drawn[:, 0], minlength=states) / count
        assert ((frequency - law).abs() < 4.5 * (law * (1 - law) / count).sqrt() + 1e-9).all()


def test_ordered_jumps_add_up_and_stay_in_range() -> None:
    """From 1 with means 2 up by one and 1 up by two: the sum is Poisson + 2 Poisson, clamped at the top."""
    means = torch.zeros(20_000, 1, 4).double()
    means[..., 2], means[..., 3] = 0.7, 0.3
    x = discrete.tau_leap(torch.ones(20_000, 1, dtype=torch.long), means, True, generator=generator())
    none, one = math.exp(-1), 0.7 * math.exp(-1)
    expected = torch.tensor([0, none, one, 1 - none - one]).double()
    frequency = torch.bincount(x[:, 0], minlength=4) / len(x)
    assert ((frequency - expected).abs() < 4.5 * (expected * (1 - expected) / len(x)).sqrt() + 1e-9).all()


def test_ordered_leaping_converges_too() -> None:
    """By sampling: with 150 steps the law of one entry is met within its noise and a first-order error."""
    chain, count = discretised_gaussian(5), 20_000
    law = table(5, 1)
    x = chain.prior((count, 1), generator=generator())
    times = grids.uniform(150, start=discrete.START)
    drawn = discrete.tau_leaping(law.denoiser(chain), chain, x, times, ordinal=True, generator=generator(1))
    assert total_variation(frequencies(drawn, law), law.probabilities) < 0.03


def test_corrections_leave_the_right_law_alone_and_mend_a_wrong_one() -> None:
    """A corrector leap at level s from the exact marginal stays near it; from elsewhere it moves closer."""
    chain, s = uniform(4, cosine_survival), torch.tensor(0.5).double()
    law = table(4, 1)
    x = torch.arange(4).unsqueeze(1)
    right = law.log_prob(x, s, chain).exp()
    out = discrete.rates(chain, s).fill_diagonal_(0)
    back = discrete.reverse_rates(chain, x, law.denoiser(chain)(x, s), s)[:, 0]
    generator_matrix = out + back - torch.diag((out + back).sum(1))
    torch.testing.assert_close(right @ generator_matrix, torch.zeros(4).double(), atol=1e-8, rtol=0)
    wrong = torch.tensor([1.0, 0, 0, 0]).double()
    errors = [total_variation(wrong @ torch.matrix_exp(time * generator_matrix), right) for time in (0, 0.1, 1, 5)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.01


def test_correctors_mend_few_leaps() -> None:
    """Ten leaps miss by more than ten leaps with two corrections each, which ask three times as often."""
    chain, count = uniform(4), 20_000
    law = table(4, 1)
    times = grids.uniform(10, start=discrete.START)
    x = chain.prior((count, 1), generator=generator())
    errors = []
    for corrections in (0, 2):
        counted = CountCalls(law.denoiser(chain))
        drawn = discrete.tau_leaping(
            counted, chain, x, times, corrections=corrections, reach=0.5, generator=generator(1)
        )
        errors.append(total_variation(frequencies(drawn, law), law.probabilities))
        assert counted.calls == 10 * (1 + corrections) - corrections
    assert errors[1] < errors[0]


def test_without_corrections_the_sampler_is_the_ordinary_loop() -> None:
    chain, law = absorbing(3), table(3, 2, 4)
    x, times = chain.prior((50, 2), generator=generator()), grids.uniform(5, start=discrete.START)
    by_loop = ancestral(law.denoiser(chain), discrete.TauLeaping(chain), x, times, generator=generator(1))
    assert torch.equal(by_loop, discrete.tau_leaping(law.denoiser(chain), chain, x, times, generator=generator(1)))
    assert by_loop.max() < 3


def test_leaps_refuse_what_they_cannot_do() -> None:
    chain, x = uniform(3), torch.tensor([[0]])
    answer = torch.ones(1, 1, 3) / 3
    with pytest.raises(ValueError, match="ordinal=False only; got ordinal=True"):
        discrete.TauLeaping(chain, ordinal=True).transition(x, answer, 0.5, 0.4)
    with pytest.raises(ValueError, match="pass generator="):
        discrete.TauLeaping(chain).bridge(x, answer, 0.5, 0.4)
    with pytest.raises(ValueError, match="logits want a softmax"):
        discrete.reverse_rates(chain, x, answer - 1, 0.5)
    with pytest.raises(ValueError, match=r"start at 0\.99"):
        discrete.TauLeaping(chain).bridge(x, answer, 1.0, 0.4, generator=generator())
