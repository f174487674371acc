"""Data whose denoisers are exact, their schedule, and a table of step costs."""

import torch

from survey_lib.core import grids, toys
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.exact import GaussianLaw
from survey_lib.core.schedules import vp_linear
from survey_lib.process import scheduling
from tests.support import generator

SCHEDULE = vp_linear()
LAW = GaussianLaw(torch.zeros(4), 0.3)  # its denoiser and its flow are linear: all below is known in closed form
SPOTS = toys.eight_modes(scale=0.15)


def points(law, count: int, seed: int = 0) -> torch.Tensor:
    return law.sample(count, generator=generator(seed), dtype=torch.float64)


def variance_at(t: torch.Tensor) -> torch.Tensor:
    """Of x_t under LAW."""
    alpha, sigma = SCHEDULE.scales(t)
    return 0.3 * alpha**2 + sigma**2


def table(corruption: Gaussian, denoiser=None, *, nodes: int = 8, seed: int = 0) -> scheduling.BoundTable:
    denoiser = denoiser or SPOTS.denoiser(SCHEDULE)
    return scheduling.bound_table(
        denoiser, corruption, points(SPOTS, 400), grids.quadratic(nodes), bin_width=None, generator=generator(seed)
    )
