"""Distances between samples and known distributions."""

from __future__ import annotations

import math

import pytest
import torch

from survey_lib.core import toys
from survey_lib.core.exact import GaussianMixture
from survey_lib.core.schedules import vp_cosine
from survey_lib.core.toys import eight_modes
from survey_lib.design import score as scores
from survey_lib.design.score import (
    mixture_cdf,
)
from tests.support import generator

LAW = GaussianMixture(
    torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), scales=torch.tensor([0.1, 0.2]), weights=torch.tensor([0.75, 0.25])
)


def test_the_distribution_function_is_the_integral_of_the_density():
    target, schedule, t = toys.two_peaks(balance=0.2), vp_cosine(), 0.3
    x = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    density = target.log_prob(x[:, None], t, schedule).exp()
    integral = torch.cumulative_trapezoid(density, x)
    torch.testing.assert_close(mixture_cdf(target, x[1:], t, schedule), integral, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="needs data on a line"):
        mixture_cdf(toys.eight_modes(), x, t, schedule)


def test_shares_count_what_is_nearest_and_their_divergence_is_the_textbook_one():
    x = LAW.means[torch.tensor([0, 0, 1, 1])] + 0.01
    assert scores.mode_frequencies(x, LAW).tolist() == [0.5, 0.5]
    assert scores.mode_divergence(x, LAW) == pytest.approx(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))
    assert scores.mode_divergence(LAW.means[torch.tensor([0, 0, 0, 1])], LAW) == pytest.approx(0, abs=1e-12)


def test_a_spot_that_is_shifted_or_too_wide_is_off_by_just_that():
    law = GaussianMixture(torch.zeros(1, 2), scales=0.3)
    quantiles = torch.special.ndtri((torch.arange(1001, dtype=torch.float64) + 0.5) / 1001)
    perfect = 0.3 * quantiles[:, None].expand(-1, 2)
    assert scores.shape_error(perfect, law) == pytest.approx(0, abs=1e-12)
    assert scores.shape_error(perfect + 0.06, law) == pytest.approx(0.2)
    assert scores.shape_error(1.5 * perfect, law) == pytest.approx(0.5, rel=0.01)


def test_exact_draws_have_next_to_no_error_of_shape_whatever_the_shares():
    x = eight_modes().sample(4000, generator=generator(), dtype=torch.float64)
    assert scores.shape_error(x, eight_modes()) < 0.08
    few = x[torch.cdist(x, eight_modes().means).argmin(1) < 3]
    assert scores.shape_error(few, eight_modes()) < 0.08


def test_spots_refuse_other_points_and_tilted_spots():
    with pytest.raises(ValueError, match=r"points must be \(B, 2\)"):
        scores.mode_frequencies(torch.zeros(3, 1), LAW)
    tilted = GaussianMixture(torch.zeros(1, 2), covs=torch.tensor([[[1.0, 0.5], [0.5, 1.0]]]))
    with pytest.raises(ValueError, match="scales="):
        scores.shape_error(torch.zeros(3, 2), tilted)
