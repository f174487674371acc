"""Error by step, searches, resampled grids."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from survey_lib.core import grids
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.integrators import multistep
from survey_lib.core.schedules import vp_cosine
from survey_lib.process import scheduling
from tests.process.scheduling.support import LAW, SCHEDULE, SPOTS, variance_at
from tests.support import draw, quick


def test_each_steps_share_of_the_error_is_that_of_the_exact_flow() -> None:
    """On a Gaussian the flow multiplies x by the ratio of spreads, and a DDIM step by a number that misses it."""
    times = grids.karras(6, SCHEDULE, sigma_min=0.05)
    x = draw(64, 4, dtype=torch.float64)
    shares = scheduling.error_by_step(LAW.denoiser(SCHEDULE), SCHEDULE, x, times, fine=40)
    corruption, size = Gaussian(SCHEDULE, eta=0.0), x.square().mean(1).sqrt()
    whole = (variance_at(times[-1]) / variance_at(times[0])).sqrt()
    for share, (t, s) in zip(shares[:-1], pairwise(times[:-1]), strict=True):
        on_x, on_x0, _ = corruption.coefficients(t, s)
        step = on_x + on_x0 * 0.3 * SCHEDULE.scales(t)[0] / variance_at(t)
        flow = (variance_at(s) / variance_at(t)).sqrt()
        assert torch.allclose(share, size * whole * (step / flow - 1).abs(), rtol=0.05)


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
        x = draw(100, 2, seed=seed, dtype=torch.float64)
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
    with pytest.raises(ValueError, match="steps of a resampled grid is at least 2; got 1"):
        scheduling.resample_grid(start, 1, SCHEDULE)


def test_a_search_without_rounds_is_refused() -> None:
    with pytest.raises(ValueError, match="rounds >= 1"):
        scheduling.coordinate_search(lambda times: 0.0, SCHEDULE, grids.uniform(7), rounds=0)
