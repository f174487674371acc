"""Sub-sequences, variance grids, and a later start."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from survey_lib.core import grids
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.heads import Reschedule
from survey_lib.core.integrators import multistep
from survey_lib.core.schedules import edm, from_betas, vp_cosine
from survey_lib.process import scheduling
from tests.process.scheduling.support import LAW, SCHEDULE, SPOTS, points, variance_at
from tests.support import draw, generator, quick


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
    x = draw(50, 2, dtype=torch.float64)
    mine = multistep(trained, SCHEDULE, x, grid, order=1)
    theirs = multistep(Reschedule(trained, SCHEDULE, short), short, x, grids.uniform(12), order=1)
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: scheduling.subsequence(grids.uniform(10), 11), "steps of a sub-sequence is at most 10; got 11"),
        (lambda: scheduling.subsequence(grids.uniform(10), 3, 3), r"1 \(linear\) or 2"),
        (lambda: scheduling.nearest(grids.uniform(4), torch.arange(6)), "at most as many as the 5 times; got 6"),
        (lambda: scheduling.variance_grid(1, SCHEDULE), "steps of a variance grid is at least 2; got 1"),
        (lambda: scheduling.variance_grid(5, vp_cosine()), "got vp_cosine"),
        (lambda: scheduling.variance_grid(5, edm()), "got edm"),
        (lambda: scheduling.variance_grid(50, SCHEDULE, first=0.5), "noisier than vp_linear at t = 1"),
    ],
)
def test_chains_that_cannot_be_are_refused(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("steps", [True, 2.0])
def test_numbers_of_steps_are_whole(steps) -> None:
    for call in (
        lambda: scheduling.subsequence(grids.uniform(10), steps),
        lambda: scheduling.variance_grid(steps, SCHEDULE),
        lambda: scheduling.resample_grid(grids.uniform(10), steps, SCHEDULE),
        lambda: scheduling.shortest_paths(torch.zeros(3, 3), steps),
    ):
        with pytest.raises(TypeError, match=f"the number of steps of .* is a whole number; got {steps}"):
            call()


def test_what_is_wrong_in_the_estimate_shrinks_by_a_known_factor() -> None:
    """DDIM on a Gaussian multiplies x by a factor a step, so two estimates end in a known proportion apart."""
    times, corruption = grids.uniform(6, start=0.4), Gaussian(SCHEDULE, eta=0.0)
    near, far = torch.zeros(8, 4, dtype=torch.float64), torch.ones(8, 4, dtype=torch.float64)
    ends = [
        scheduling.come_closer(LAW.denoiser(SCHEDULE), corruption, guess, times, generator=generator())
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
        project=lambda x0: mask * truth + (1 - mask) * x0, generator=generator(3),
    )  # fmt: skip
    torch.testing.assert_close(end[:, :2], truth[:, :2])
    assert (end[:, 2:] - truth[:, 2:]).abs().mean() > 0.1
