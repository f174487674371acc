"""Tables of step costs held to the variational bound, shortest paths to brute force."""

import itertools
import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from survey_lib.core import grids, losses
from survey_lib.core.corruptions import Gaussian, chain_variance, posterior_variance
from survey_lib.process import scheduling
from tests.process.scheduling.support import LAW, SCHEDULE, SPOTS, points, table
from tests.support import generator, quick


@pytest.mark.parametrize("variance", [None, chain_variance], ids=["small", "large"])
def test_a_table_prices_a_walk_as_the_bound_does(variance) -> None:
    corruption = Gaussian(SCHEDULE, variance=variance)
    found = table(corruption)
    priced = found.prior + sum(found.costs[i, i + 1] for i in range(8))
    exact = losses.variational_bound(
        SPOTS.denoiser(SCHEDULE),
        corruption,
        points(SPOTS, 400),
        grids.quadratic(8),
        bin_width=None,
        generator=generator(),
    )
    assert priced.item() == pytest.approx(exact.total.mean().item(), rel=1e-10)


def test_small_variance_makes_a_riemann_sum_and_the_best_one_its_logarithm() -> None:
    small = table(Gaussian(SCHEDULE))
    snr = torch.exp(2 * SCHEDULE.lam(small.times))
    i, j = torch.triu_indices(8, 8, offset=1)
    gain = (snr[j] - snr[i]) * small.error[i]
    torch.testing.assert_close(small.costs[i, j], gain, rtol=1e-9, atol=1e-9)  # two dimensions, halved
    known = scheduling.DenoisingError(SCHEDULE, small.times[:-1], small.error, small.error)
    best = replace(small, corruption=Gaussian(SCHEDULE, variance=scheduling.optimal_variance(known)))
    torch.testing.assert_close(best.costs[i, j], torch.log1p(gain), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("wrong", [1.0, 0.6], ids=["exact", "wrong"])
def test_no_single_variance_beats_the_optimal_one_even_for_a_wrong_denoiser(wrong: float) -> None:
    exact = SPOTS.denoiser(SCHEDULE)
    found = table(Gaussian(SCHEDULE), lambda x, t, cond=None: wrong * exact(x, t), nodes=6)
    known = scheduling.DenoisingError(SCHEDULE, found.times[:-1], found.error, found.error)
    optimal = scheduling.optimal_variance(known)
    best = replace(found, corruption=Gaussian(SCHEDULE, variance=optimal)).costs[:-1, :-1]
    steps = best.isfinite()
    fixed = [posterior_variance, chain_variance]
    fixed += [partial(lambda c, *step: c * optimal(*step), c) for c in (0.9, 1.1)]
    for variance in fixed:
        other = replace(found, corruption=Gaussian(SCHEDULE, variance=variance)).costs[:-1, :-1]
        assert (best[steps] < other[steps]).all()


def test_the_bound_of_any_walk_meets_the_table_and_has_its_gradient() -> None:
    found = table(Gaussian(SCHEDULE))
    walk = found.times[[0, 2, 3, 6, 8]].clone()
    nodes = [0, 2, 3, 6, 8]
    priced = found.prior + sum(found.costs[i, j] for i, j in pairwise(nodes))
    assert found.bound(walk).item() == pytest.approx(priced.item(), rel=1e-9)
    inner = torch.tensor([0.61, 0.33, 0.08], dtype=torch.float64, requires_grad=True)

    def bound(u):
        return found.bound(torch.cat([walk[:1], u, walk[-1:]]))

    assert torch.autograd.gradcheck(bound, inner, eps=1e-7, atol=1e-4)
    with pytest.raises(ValueError, match=r"start at t = 1; got a start at 0\.9"):
        found.bound(torch.tensor([0.9, 0.5, 0.0]))


@quick
@given(nodes=st.integers(2, 7), seed=st.integers(0, 1000), gaps=st.booleans())
def test_dynamic_programming_finds_what_brute_force_finds(nodes: int, seed: int, gaps: bool) -> None:
    costs = torch.rand(nodes, nodes, generator=generator(seed), dtype=torch.float64) - 0.3
    costs[torch.ones(nodes, nodes).tril().bool()] = math.inf
    if gaps:
        costs[torch.rand(nodes, nodes, generator=generator(seed + 1)) < 0.3] = math.inf
    found = scheduling.shortest_paths(costs)
    for steps in range(1, nodes):
        walks = [(0, *middle, nodes - 1) for middle in itertools.combinations(range(1, nodes - 1), steps - 1)]
        best = min(sum(costs[i, j].item() for i, j in pairwise(walk)) for walk in walks)
        assert found.costs[steps - 1].item() == pytest.approx(best)
        if math.isfinite(best):
            path = found.path(steps).tolist()
            assert len(path) == steps + 1 and path[0] == 0 and path[-1] == nodes - 1
            assert sum(costs[i, j].item() for i, j in pairwise(path)) == pytest.approx(best)


def test_the_best_walk_beats_the_usual_ones_on_its_table() -> None:
    found = table(Gaussian(SCHEDULE), nodes=40)
    best = scheduling.shortest_paths(found.costs, 10)
    for power, steps in itertools.product((1, 2), range(1, 11)):
        usual = scheduling.subsequence(found.times, steps, power)
        value = found.bound(usual).item() - found.prior
        assert best.costs[steps - 1].item() <= value + 1e-9
    assert (best.costs.diff() < 0).all()  # more steps, a better bound


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: scheduling.shortest_paths(torch.zeros(3, 2)), r"a square matrix of numbers.*got \(3, 2\)"),
        (lambda: scheduling.shortest_paths(torch.full((3, 3), math.nan)), "a square matrix of numbers"),
        (lambda: scheduling.shortest_paths(torch.zeros(3, 3), 3), "steps of a path over 3 nodes is at most 2; got 3"),
        (lambda: scheduling.shortest_paths(torch.zeros(3, 3)).path(0), "steps of a path is at least 1; got 0"),
        (lambda: scheduling.shortest_paths(torch.full((3, 3), math.inf)).path(1), "no path of 1 steps"),
        (lambda: table(Gaussian(SCHEDULE, eta=0.0)), "eta must be positive"),
    ],
)
def test_tables_that_cannot_be_walked_are_refused(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_a_table_ends_at_clean_data() -> None:
    with pytest.raises(ValueError, match=r"must end at t = 0; got 0\.1"):
        scheduling.bound_table(
            LAW.denoiser(SCHEDULE), Gaussian(SCHEDULE), points(LAW, 4), grids.uniform(3, end=0.1), generator=generator()
        )
