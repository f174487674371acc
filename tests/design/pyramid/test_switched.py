"""One trajectory at two sizes: where the sizes meet, the law is that of the large image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from survey_lib.core.exact import GaussianLaw
from survey_lib.core.schedules import edm, rectified, vp_linear
from survey_lib.design import pyramid
from survey_lib.design.pyramid.cascade import PooledPyramid, Switched, pooled_time
from survey_lib.nets.autoencoder import Pixels
from tests.design.pyramid.test_stages import HAAR, MEANS, SMOOTH
from tests.support import exact_moments, generator

SCHEDULE = vp_linear()
COARSE = (HAAR @ SMOOTH @ HAAR.T)[:4, :4]
APART = HAAR.T @ torch.block_diag(COARSE, 0.09 * torch.eye(12).double()) @ HAAR  # details are independent


class Exact:
    """The denoiser of normal images of 4 x 4 and of their means over 2 x 2."""

    schedule = SCHEDULE

    def __init__(self, cov: torch.Tensor, unit: float = 1.0):
        laws = (
            GaussianLaw(torch.zeros(1, 2, 2), unit**2 * MEANS @ cov @ MEANS.T),
            GaussianLaw(torch.zeros(1, 4, 4), cov),
        )
        self.denoisers = [law.denoiser(SCHEDULE) for law in laws]

    def __call__(self, x, t, cond):
        assert cond[1] is None, "no plan is told"
        return self.denoisers[cond[0]](x, t)


def law_of(made: Switched) -> torch.Tensor:
    def run(x):
        stages = made.stages(x)
        return pyramid.sample_pyramid(stages, None, generator=generator())[-1]

    return exact_moments(run, torch.zeros(4).double(), torch.eye(4).double(), (1, 2, 2)).cov


@pytest.mark.parametrize("schedule", [vp_linear(), edm(), rectified()])
def test_a_mean_of_four_pixels_lives_at_a_cleaner_time(schedule):
    for t in (0.2, 0.6, 0.9):
        alpha, sigma = schedule.scales(t)
        small_alpha, small_sigma = schedule.scales(pooled_time(schedule, t))
        assert small_sigma / small_alpha == pytest.approx(float(sigma / alpha) / 2, rel=1e-6)


@pytest.mark.parametrize("unit", [1.0, 1.5])
def test_the_switch_of_a_subspace_is_exact_where_details_are_independent(unit):
    made = Switched(
        PooledPyramid(Pixels(), unit), Exact(APART, unit), generator(), scale=1, steps=(300, 300), deviation=0.3
    )
    torch.testing.assert_close(law_of(made), APART, rtol=0, atol=5e-3)
    without_noise = replace(made, deviation=0.0)  # details of data are missing, those of noise are not
    assert (law_of(without_noise) - APART).norm() > 0.01


def test_noising_again_forgets_that_the_image_was_small():
    """At much noise the enlarged image and the true one are as good as the same; at little they are not."""
    off = {}
    for level in (0.1, 1.0, 20.0):
        made = Switched(
            PooledPyramid(Pixels(), 1.0),
            Exact(SMOOTH),
            generator(),
            lifted=False,
            level=level,
            scale=1,
            steps=(200, 200),
        )
        off[level] = float((law_of(made) - SMOOTH).norm())
    assert off[20.0] < 0.02 < off[1.0] < off[0.1]
