"""Schedules chosen after training, held to exact laws, brute force and finite differences."""

import itertools
import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survey_lib.core import grids, losses, toys
from survey_lib.core.corruptions import Gaussian, chain_variance, posterior_variance
from survey_lib.core.exact import GaussianLaw
from survey_lib.core.heads import Reschedule
from survey_lib.core.integrators import multistep
from survey_lib.core.schedules import edm, from_betas, vp_cosine, vp_linear
from survey_lib.process import scheduling

quick = settings(deadline=None, derandomize=True, max_examples=25)
SCHEDULE = vp_linear()
LAW = GaussianLaw(torch.zeros(4), 0.3)  # its denoiser and its flow are linear: all below is known in closed form
SPOTS = toys.eight_modes(scale=0.15)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(law, count: int, seed: int = 0) -> torch.Tensor:
    return law.sample(count, generator=draw(seed), dtype=torch.float64)


def variance_at(t: torch.Tensor) -> torch.Tensor:
    """Of x_t under LAW."""
    alpha, sigma = SCHEDULE.scales(t)
    return 0.3 * alpha**2 + sigma**2


# ---------------------------------------------------------------- chains


@quick
@given(length=st.integers(2, 300), data=st.data(), power=st.sampled_from((1, 2)))
def test_a_subsequence_keeps_both_ends_and_invents_nothing(length: int, data, power: int) -> None:
    chain = grids.quadratic(length)
    steps = data.draw(st.integers(1, length))
    grid = scheduling.subsequence(chain, steps, power)
    assert len(grid) == steps + 1 and grid[0] == chain[0] and grid[-1] == chain[-1]
    assert torch.isin(grid, chain).all() and (grid.diff() < 0).all()


def test_a_subsequence_is_that_of_ddim() -> None:
    """Of 1000 steps, ten: every hundredth; quadratic: c i^2 counted from the clean end."""
    chain = grids.uniform(1000)
    torch.testing.assert_close(scheduling.subsequence(chain, 10), grids.uniform(10))
    i = torch.arange(10, -1, -1, dtype=torch.float64)
    torch.testing.assert_close(scheduling.subsequence(chain, 10, 2), 10 * i**2 / 1000)
    torch.testing.assert_close(scheduling.subsequence(chain, 1000), chain)


@quick
@given(steps=st.integers(5, 60), power=st.sampled_from((1, 2)), first=st.floats(1e-5, 1e-3))
def test_a_grid_of_variances_adds_what_it_says(steps: int, power: int, first: float) -> None:
    grid = scheduling.variance_grid(steps, SCHEDULE, power, first)
    level = SCHEDULE.scales(grid)[0] ** 2
    added = (1 - level[:-1] / level[1:]).flip(0)  # from the clean end
    assert added[0].item() == pytest.approx(first, rel=1e-3)
    root = added ** (1 / power)
    torch.testing.assert_close(root.diff(), root.diff().mean().expand(steps - 1), rtol=1e-3, atol=1e-9)
    assert grid[0] == 1 and grid[-1] == 0


def test_walking_the_short_chain_is_walking_the_long_one_at_its_levels() -> None:
    """FastDPM's VAR is `Reschedule`: the betas of the short chain, or the trained schedule at the times looked up."""
    grid = scheduling.variance_grid(12, SCHEDULE, 2)
    level = SCHEDULE.scales(grid)[0] ** 2
    short = from_betas((1 - level[:-1] / level[1:]).flip(0))
    trained = SPOTS.denoiser(SCHEDULE)
    x = torch.randn(50, 2, generator=draw(), dtype=torch.float64)
    mine = multistep(trained, SCHEDULE, x, grid, order=1)
    theirs = multistep(Reschedule(trained, SCHEDULE, short), short, x, grids.uniform(12), order=1)
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_the_known_noise_of_a_gaussian_is_known() -> None:
    times = torch.linspace(0.95, 0.05, 7, dtype=torch.float64)
    found = scheduling.denoising_error(LAW.denoiser(SCHEDULE), SCHEDULE, points(LAW, 20_000), times, generator=draw(1))
    alpha = SCHEDULE.scales(times)[0]
    exact = 1 - 0.3 * alpha**2 / variance_at(times)
    for by in ("error", "power"):
        torch.testing.assert_close(found.explained_noise(times, by), exact, atol=0.01, rtol=0)
    assert found.explained_noise(torch.tensor(0.999), "error") == found.explained_noise(times[0])


def test_with_the_optimal_variance_a_chain_has_the_right_spread_at_any_length() -> None:
    """The reverse step of Gaussian data is Gaussian: its variance is Var x_s - Cov(x_s, x_t)^2 / Var x_t."""
    times = grids.uniform(5)
    alpha, sigma = SCHEDULE.scales(times[:-1])
    exact = scheduling.DenoisingError(SCHEDULE, times[:-1], 0.3 * sigma**2 / variance_at(times[:-1]), torch.zeros(5))
    corruption = Gaussian(SCHEDULE, variance=scheduling.optimal_variance(exact))
    spread = variance_at(times[0])
    for t, s in pairwise(times[:-1]):
        on_x, on_x0, fresh = corruption.coefficients(t, s)
        alpha = SCHEDULE.scales(t)[0]
        spread = (on_x + on_x0 * 0.3 * alpha / variance_at(t)) ** 2 * spread + fresh
        torch.testing.assert_close(spread, variance_at(s))


def test_a_probe_needs_data_and_noise() -> None:
    with pytest.raises(ValueError, match="alpha > 0 and sigma > 0"):
        scheduling.denoising_error(LAW.denoiser(SCHEDULE), SCHEDULE, points(LAW, 4), grids.uniform(3), generator=draw())
    found = scheduling.DenoisingError(SCHEDULE, torch.tensor([0.5, 0.2]), torch.ones(2), torch.ones(2))
    with pytest.raises(ValueError, match='by "error" or by "power"; got \'sigma\''):
        found.explained_noise(0.3, by="sigma")


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: scheduling.subsequence(grids.uniform(10), 11), "1 to so many; got 11"),
        (lambda: scheduling.subsequence(grids.uniform(10), True), "got True"),
        (lambda: scheduling.subsequence(grids.uniform(10), 3, 3), r"1 \(linear\) or 2"),
        (lambda: scheduling.nearest(grids.uniform(4), torch.arange(6)), "no more of them than times; got 6"),
        (lambda: scheduling.variance_grid(1, SCHEDULE), "at least 2 steps"),
        (lambda: scheduling.variance_grid(5, vp_cosine()), "not so in vp_cosine"),
        (lambda: scheduling.variance_grid(5, edm()), "not so in edm"),
        (lambda: scheduling.variance_grid(50, SCHEDULE, first=0.5), "noisier than vp_linear is"),
    ],
)
def test_chains_that_cannot_be_are_refused(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


# ---------------------------------------------------------------- a start below t = 1


def test_what_is_wrong_in_the_estimate_shrinks_by_a_known_factor() -> None:
    """DDIM on a Gaussian multiplies x by a factor a step, so two estimates end in a known proportion apart."""
    times, corruption = grids.uniform(6, start=0.4), Gaussian(SCHEDULE, eta=0.0)
    near, far = torch.zeros(8, 4, dtype=torch.float64), torch.ones(8, 4, dtype=torch.float64)
    ends = [
        scheduling.come_closer(LAW.denoiser(SCHEDULE), corruption, guess, times, generator=draw())
        for guess in (near, far)
    ]
    factor = SCHEDULE.scales(times[0])[0]
    for t, s in pairwise(times):
        on_x, on_x0, _ = corruption.coefficients(t, s)
        factor = factor * (on_x + on_x0 * 0.3 * SCHEDULE.scales(t)[0] / variance_at(t))
    torch.testing.assert_close(ends[1] - ends[0], factor.expand(8, 4))
    assert 0 < factor < 1


def test_what_is_known_stays_known() -> None:
    truth, mask = points(LAW, 30), torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    end = scheduling.come_closer(
        LAW.denoiser(SCHEDULE), Gaussian(SCHEDULE), torch.zeros_like(truth), grids.uniform(4, start=0.5),
        project=lambda x0: mask * truth + (1 - mask) * x0, generator=draw(3),
    )  # fmt: skip
    torch.testing.assert_close(end[:, :2], truth[:, :2])
    assert (end[:, 2:] - truth[:, 2:]).abs().mean() > 0.1


# ---------------------------------------------------------------- bounds


def table(corruption: Gaussian, denoiser=None, *, nodes: int = 8, seed: int = 0) -> scheduling.BoundTable:
    denoiser = denoiser or SPOTS.denoiser(SCHEDULE)
    return scheduling.bound_table(
        denoiser, corruption, points(SPOTS, 400), grids.quadratic(nodes), bins=None, generator=draw(seed)
    )


@pytest.mark.parametrize("variance", [None, chain_variance], ids=["small", "large"])
def test_a_table_prices_a_walk_as_the_bound_does(variance) -> None:
    corruption = Gaussian(SCHEDULE, variance=variance)
    found = table(corruption)
    priced = found.prior + sum(found.costs[i, i + 1] for i in range(8))
    exact = losses.variational_bound(
        SPOTS.denoiser(SCHEDULE), corruption, points(SPOTS, 400), grids.quadratic(8), bins=None, generator=draw()
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
    with pytest.raises(ValueError, match=r"walks from t = 1; this one starts at 0\.9"):
        found.bound(torch.tensor([0.9, 0.5, 0.0]))


@quick
@given(nodes=st.integers(2, 7), seed=st.integers(0, 1000), gaps=st.booleans())
def test_dynamic_programming_finds_what_brute_force_finds(nodes: int, seed: int, gaps: bool) -> None:
    costs = torch.rand(nodes, nodes, generator=draw(seed), dtype=torch.float64) - 0.3
    costs[torch.ones(nodes, nodes).tril().bool()] = math.inf
    if gaps:
        costs[torch.rand(nodes, nodes, generator=draw(seed + 1)) < 0.3] = math.inf
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
        (lambda: scheduling.shortest_paths(torch.zeros(3, 2)), r"a square of numbers.*got \(3, 2\)"),
        (lambda: scheduling.shortest_paths(torch.full((3, 3), math.nan)), "a square of numbers"),
        (lambda: scheduling.shortest_paths(torch.zeros(3, 3), 3), "in 1 to 2 steps; got 3"),
        (lambda: scheduling.shortest_paths(torch.zeros(3, 3)).path(0), "walks of 1 to 2 steps are known; got 0"),
        (lambda: scheduling.shortest_paths(torch.full((3, 3), math.inf)).path(1), "no walk of 1 steps"),
        (lambda: table(Gaussian(SCHEDULE, eta=0.0)), "take eta > 0"),
    ],
)
def test_tables_that_cannot_be_walked_are_refused(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_a_table_ends_at_clean_data() -> None:
    with pytest.raises(ValueError, match=r"its grid ends at 0; this one ends at 0\.1"):
        scheduling.bound_table(
            LAW.denoiser(SCHEDULE), Gaussian(SCHEDULE), points(LAW, 4), grids.uniform(3, end=0.1), generator=draw()
        )


# ---------------------------------------------------------------- search


def test_each_steps_share_of_the_error_is_that_of_the_exact_flow() -> None:
    """On a Gaussian the flow multiplies x by the ratio of spreads, and a DDIM step by a number that misses it."""
    times = grids.karras(6, SCHEDULE, sigma_min=0.05)
    x = torch.randn(64, 4, generator=draw(), dtype=torch.float64)
    shares = scheduling.error_by_step(LAW.denoiser(SCHEDULE), SCHEDULE, x, times, fine=40)
    corruption, size = Gaussian(SCHEDULE, eta=0.0), x.square().mean().sqrt()
    whole = (variance_at(times[-1]) / variance_at(times[0])).sqrt()
    for share, (t, s) in zip(shares[:-1], pairwise(times[:-1]), strict=True):
        on_x, on_x0, _ = corruption.coefficients(t, s)
        step = on_x + on_x0 * 0.3 * SCHEDULE.scales(t)[0] / variance_at(t)
        flow = (variance_at(s) / variance_at(t)).sqrt()
        assert share.item() == pytest.approx((size * whole * (step / flow - 1).abs()).item(), rel=0.05)


def test_coordinate_search_finds_the_valley_and_never_climbs() -> None:
    target = SCHEDULE.lam(grids.karras(6, SCHEDULE)[1:-1])

    def objective(times):
        return (SCHEDULE.lam(times[1:-1]) - target).square().sum().item()

    start = grids.uniform(6)
    found = scheduling.coordinate_search(objective, SCHEDULE, start, rounds=25)
    assert found.value < 1e-3 * objective(start)
    assert (torch.tensor(found.history).diff() <= 0).all() and found.tried == len(found.history)
    assert found.times[0] == start[0] and found.times[-1] == 0


def test_a_searched_grid_serves_noises_it_has_not_seen() -> None:
    denoiser = SPOTS.denoiser(SCHEDULE)

    def error(seed):
        x = torch.randn(100, 2, generator=draw(seed), dtype=torch.float64)
        fine = multistep(denoiser, SCHEDULE, x, grids.uniform_lambda(200, SCHEDULE, 1e-4))
        return scheduling.trajectory_error(denoiser, SCHEDULE, x, fine, sampler=partial(multistep, order=1))

    start = grids.uniform(6)
    found = scheduling.coordinate_search(error(0), SCHEDULE, start, rounds=3)
    assert error(1)(found.times) < 0.7 * error(1)(start)


def test_two_steps_from_pure_noise_are_searched_too() -> None:
    cosine = vp_cosine()
    found = scheduling.coordinate_search(lambda times: abs(times[1].item() - 0.3), cosine, grids.uniform(2), rounds=12)
    assert found.times[1].item() == pytest.approx(0.3, abs=0.01)


@quick
@given(steps=st.integers(2, 40), length=st.integers(3, 20))
def test_a_stretched_grid_follows_the_one_it_came_from(steps: int, length: int) -> None:
    """Even steps in lam stay even whatever their number; both ends stay; the same number changes nothing."""
    start = grids.uniform_lambda(length, SCHEDULE)
    grid = scheduling.resample_grid(start, steps, SCHEDULE)
    assert len(grid) == steps + 1 and grid[0] == start[0] and grid[-1] == 0
    torch.testing.assert_close(scheduling.resample_grid(start, length, SCHEDULE), start)
    if steps > 2:
        torch.testing.assert_close(grid, grids.uniform_lambda(steps, SCHEDULE))


def test_a_doubled_grid_passes_through_the_times_of_the_single_one() -> None:
    """Nine levels between noise and data have eight gaps: cut in two they are seventeen. Pure noise stays alone."""
    for schedule in (SCHEDULE, vp_cosine()):
        start = grids.uniform(9)
        pure = schedule.lam(1.0) < -20
        doubled = scheduling.resample_grid(start, 16 if pure else 17, schedule)
        torch.testing.assert_close(doubled[1::2] if pure else doubled[:-1:2], start[1:-1] if pure else start[:-1])
    with pytest.raises(ValueError, match="2 steps or more"):
        scheduling.resample_grid(start, 1, SCHEDULE)


def test_brute_force_tries_every_grid() -> None:
    candidates = grids.uniform(7)
    seen = []

    def objective(times):
        seen.append(tuple(times.tolist()))
        return (times[1] - 3 / 7).abs().item() + (times[2] - 1 / 7).abs().item()

    found = scheduling.exhaustive_search(objective, candidates, 3)
    assert len(set(seen)) == len(seen) == found.tried == math.comb(6, 2)
    torch.testing.assert_close(found.times, candidates[[0, 4, 6, 7]])
    with pytest.raises(ValueError, match="99 steps thinned to 50 make"):
        scheduling.exhaustive_search(objective, grids.uniform(99), 50)
    with pytest.raises(ValueError, match="rounds >= 1"):
        scheduling.coordinate_search(objective, SCHEDULE, candidates, rounds=0)


# ---------------------------------------------------------------- learned


def few(steps: int = 5) -> scheduling.LearnedSampler:
    return scheduling.LearnedSampler(SCHEDULE, grids.karras(steps, SCHEDULE, sigma_min=0.05))


def test_few_steps_begin_as_ddim_and_hold_the_second_order_too() -> None:
    x = torch.randn(20, 2, generator=draw(), dtype=torch.float64)
    denoiser, sampler = SPOTS.denoiser(SCHEDULE), few()
    grid = grids.karras(5, SCHEDULE, sigma_min=0.05)
    torch.testing.assert_close(sampler.times, grid)
    torch.testing.assert_close(sampler(denoiser, x).detach(), multistep(denoiser, SCHEDULE, x, grid, order=1))
    lam = SCHEDULE.lam(grid[:-1])
    for i in range(1, 4):  # 2M's weight of the difference: integral of e^lam (lam - lam_t) over the step
        h, back = lam[i + 1] - lam[i], lam[i] - lam[i - 1]
        sampler.lean.data[i] = (h - 1 + torch.exp(-h)) / ((1 - torch.exp(-h)) * back)
    torch.testing.assert_close(sampler(denoiser, x).detach(), multistep(denoiser, SCHEDULE, x, grid, order=2))


def test_gradients_reach_times_and_coefficients() -> None:
    x, denoiser, sampler = torch.randn(6, 2, generator=draw(), dtype=torch.float64), SPOTS.denoiser(SCHEDULE), few(4)

    def end(gaps, lean):
        return torch.func.functional_call(sampler, {"gaps": gaps, "lean": lean}, (denoiser, x)).square().mean()

    inputs = [p.detach().clone().requires_grad_() for p in (sampler.gaps, sampler.lean)]
    assert torch.autograd.gradcheck(end, inputs, eps=1e-6, atol=1e-6)


def test_learning_lowers_the_error_on_fresh_noises() -> None:
    denoiser, sampler = SPOTS.denoiser(SCHEDULE), few(5)
    start = sampler.times

    def pair(seed):
        x = torch.randn(100, 2, generator=draw(seed), dtype=torch.float64)
        return x, multistep(denoiser, SCHEDULE, x, grids.uniform_lambda(200, SCHEDULE, 1e-4))

    (x, fine), (y, other) = pair(0), pair(1)
    history = scheduling.fit(sampler, lambda: (sampler(denoiser, x) - fine).square().mean(), rounds=40)
    assert history[-1] < 0.5 * history[0]
    before = (multistep(denoiser, SCHEDULE, y, start, order=1) - other).square().mean()
    assert (sampler(denoiser, y) - other).square().mean() < 0.6 * before


def test_a_step_network_begins_with_equal_steps_and_learns_nearly_the_best_walk() -> None:
    found = table(Gaussian(SCHEDULE), nodes=60)
    lam = SCHEDULE.lam(found.times)
    network = scheduling.StepNetwork(SCHEDULE, lam[0].item(), 2.0, generator=draw())
    for steps in (2, 3, 8):
        planned = SCHEDULE.lam(network(steps)[:-1].detach())
        exact = torch.linspace(lam[0].item(), 2.0, steps, dtype=torch.float64)
        torch.testing.assert_close(planned, exact, rtol=1e-6, atol=1e-6)
    scheduling.fit(network, lambda: sum(found.bound(network(k)) for k in (4, 8)), rounds=60, rate=0.1)
    best = scheduling.shortest_paths(found.costs)
    start = found.bound(scheduling.subsequence(found.times, 8)).item()
    for k in (4, 8):
        reached, optimum = found.bound(network(k)).item(), best.costs[k - 1].item() + found.prior
        assert optimum - 0.05 < reached < optimum + 0.1 * abs(start - optimum) + 0.05


def test_the_kernel_distance_is_zero_on_average_and_sees_a_shift() -> None:
    x, y = torch.randn(2, 400, 8, generator=draw(), dtype=torch.float64)
    assert abs(scheduling.kernel_distance(x, y[:300])) < 0.15 < scheduling.kernel_distance(x, y + 1)
    small = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])  # by hand: 1 + 343 - 2 (1 + 1 + 27 + 64) / 4
    assert scheduling.kernel_distance(*small).item() == pytest.approx(1 + 343 - 2 * (1 + 1 + 27 + 64) / 4)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: scheduling.LearnedSampler(vp_cosine(), grids.uniform(3)), "from finite lam down to t = 0"),
        (lambda: scheduling.LearnedSampler(from_betas(torch.tensor([0.1, 0.9])), grids.uniform(2)), "closed t"),
        (lambda: scheduling.StepNetwork(SCHEDULE, 2.0, 1.0, generator=draw()), "start < end"),
        (lambda: scheduling.StepNetwork(SCHEDULE, -5.0, 2.0, generator=draw())(1), "2 steps or more; got 1"),
        (lambda: scheduling.kernel_distance(torch.ones(3, 2), torch.ones(3, 3)), r"got \(3, 2\) and \(3, 3\)"),
    ],
)
def test_what_cannot_be_learned_is_refused(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_a_loss_that_explodes_is_reported() -> None:
    sampler = few()
    with pytest.raises(RuntimeError, match="the loss became nan after 0 rounds: lower the rate"):
        scheduling.fit(sampler, lambda: sampler.lean.sum() * math.nan, rounds=3)
