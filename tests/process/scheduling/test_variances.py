"""Optimal variances of Gaussian data, known in closed form."""

from itertools import pairwise

import pytest
import torch

from survey_lib.core import grids
from survey_lib.core.corruptions import Gaussian
from survey_lib.process import scheduling
from tests.process.scheduling.support import LAW, SCHEDULE, points, variance_at
from tests.support import generator


def test_the_known_noise_of_a_gaussian_is_known() -> None:
    times = torch.linspace(0.95, 0.05, 7, dtype=torch.float64)
    found = scheduling.denoising_error(
        LAW.denoiser(SCHEDULE), SCHEDULE, points(LAW, 20_000), times, generator=generator(1)
    )
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
        scheduling.denoising_error(
            LAW.denoiser(SCHEDULE), SCHEDULE, points(LAW, 4), grids.uniform(3), generator=generator()
        )
    found = scheduling.DenoisingError(SCHEDULE, torch.tensor([0.5, 0.2]), torch.ones(2), torch.ones(2))
    with pytest.raises(ValueError, match='"error" or "power"; got \'sigma\''):
        found.explained_noise(0.3, by="sigma")
