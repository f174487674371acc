"""Stages of a pyramid: on normal images the law of what they draw is exact."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from survey_lib.core.corruptions import Gaussian
from survey_lib.core.exact import GaussianLaw
from survey_lib.core.schedules import rectified, vp_cosine
from survey_lib.design import pyramid
from tests.support import draw, exact_moments, generator

SCHEDULE = rectified()  # at t = 1 it holds no data, so a start from noise is exact
CORRUPTION = Gaussian(SCHEDULE)
PLACES = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)).double()
SMOOTH = torch.exp(-(torch.cdist(PLACES, PLACES) ** 2) / 8) + 0.01 * torch.eye(16).double()  # of images (1, 4, 4)
MEANS = torch.nn.functional.avg_pool2d(torch.eye(16).double().reshape(16, 1, 4, 4), 2).reshape(16, 4).T  # of blocks
HAAR = pyramid.haar(torch.eye(16).double().reshape(16, 1, 4, 4)).reshape(16, 16).T  # rows: 4 coarse, 12 details
NOTHING = torch.zeros(4).double()


def flowing(cov: Tensor, shape: tuple[int, ...], start: float = 1.0, end: float = 0.0):
    """The exact probability flow of ``N(0, cov)`` as the sampler of a stage."""
    law = GaussianLaw(torch.zeros(shape).double(), cov)
    return lambda x, cond, generator: law.flow(x, start, end, SCHEDULE)


def law_of(*stages: pyramid.Stage, through: pyramid.Stage) -> Tensor:
    """Covariance of what the last stage makes, from standard normal noise of 2 x 2 for the stage ``through``."""

    def run(x: Tensor) -> Tensor:
        first = pyramid.Stage(through.sample, lambda coarse, _: x, through.told)
        return pyramid.sample_pyramid([first, *stages], generator=generator())[-1]

    return exact_moments(run, NOTHING, torch.eye(4).double(), (1, 2, 2)).cov


# ---------------------------------------------------------------------- cascades


def test_a_cascade_of_exact_samplers_draws_the_exact_law():
    coarse = MEANS @ SMOOTH @ MEANS.T
    weights = SMOOTH @ MEANS.T @ torch.linalg.inv(coarse)
    rest = flowing(SMOOTH - weights @ coarse @ weights.T, (1, 4, 4))

    def given(x: Tensor, told: Tensor, generator: torch.Generator) -> Tensor:
        small = told[..., ::2, ::2].flatten(1)
        return rest(x, None, generator) + (small @ weights.T).reshape(x.shape)

    def begin(coarse: Tensor, generator: torch.Generator) -> Tensor:
        shape = (len(coarse), 1, 4, 4)
        return pyramid.noise(CORRUPTION, shape, dtype=torch.float64)(coarse, generator)

    small = pyramid.Stage(flowing(coarse, (1, 2, 2)), begin)
    cov = law_of(pyramid.Stage(given, begin, pyramid.enlarged(CORRUPTION, 0.0)), through=small)
    torch.testing.assert_close(cov, SMOOTH, rtol=0, atol=1e-10)


@pytest.mark.parametrize("make", [pyramid.renoised, pyramid.enlarged])
def test_the_enlarged_image_is_noised_to_the_time_asked_for(make):
    alpha, sigma = SCHEDULE.scales(0.3)
    copies = torch.kron(torch.eye(2), torch.kron(torch.ones(2, 1), torch.kron(torch.eye(2), torch.ones(2, 1)))).double()
    pick = pyramid.Stage(lambda x, cond, generator: x, lambda coarse, _: coarse)
    if make is pyramid.renoised:
        after = pyramid.Stage(lambda x, cond, generator: x, make(CORRUPTION, 0.3))
    else:
        after = pyramid.Stage(lambda x, cond, generator: cond, lambda coarse, _: coarse, make(CORRUPTION, 0.3))
    expected = alpha**2 * copies @ copies.T + sigma**2 * torch.eye(16).double()
    torch.testing.assert_close(law_of(after, through=pick), expected, rtol=0, atol=1e-12)


# ---------------------------------------------------------------------- subspaces


def test_the_switch_from_a_subspace_is_exact_where_details_are_independent():
    coarse = (HAAR @ SMOOTH @ HAAR.T)[:4, :4]
    cov = HAAR.T @ torch.block_diag(coarse, 0.09 * torch.eye(12).double()) @ HAAR
    begin = pyramid.lifted(SCHEDULE, 0.6, deviation=0.3)
    below = pyramid.Stage(flowing(coarse, (1, 2, 2), end=0.6), begin)
    drawn = law_of(pyramid.Stage(flowing(cov, (1, 4, 4), start=0.6), begin), through=below)
    torch.testing.assert_close(drawn, cov, rtol=0, atol=1e-10)
    # The classic mistake: details without noise.
    bare = pyramid.Stage(flowing(cov, (1, 4, 4), start=0.6), lambda x, _: pyramid.unhaar(padded(x)))
    assert (law_of(bare, through=below) - cov).norm() > 0.2


def padded(coarse: Tensor) -> Tensor:
    """The maps of `haar` with all details 0."""
    return torch.nn.functional.pad(coarse, (0, 0, 0, 0, 0, 3))


@pytest.mark.parametrize("t", [0.5, 0.9])
def test_what_the_switch_forgets_is_the_tie_between_coarse_and_details(t):
    """Right after the switch the law is wrong by ``alpha^2`` times the covariances that it leaves out."""
    alpha, sigma = SCHEDULE.scales(t)
    blocks = HAAR @ SMOOTH @ HAAR.T
    spread = blocks.diagonal()[4:].reshape(1, 3, 1, 2, 2).sqrt()
    below = pyramid.Stage(flowing(blocks[:4, :4], (1, 2, 2), end=t), pyramid.lifted(SCHEDULE, t))
    drawn = law_of(pyramid.Stage(lambda x, *_: x, pyramid.lifted(SCHEDULE, t, spread)), through=below)
    true = alpha**2 * SMOOTH + sigma**2 * torch.eye(16).double()
    left_out = blocks - torch.block_diag(blocks[:4, :4], torch.diag(blocks.diagonal()[4:]))
    torch.testing.assert_close(true - drawn, alpha**2 * HAAR.T @ left_out @ HAAR, rtol=0, atol=1e-10)


def test_colours_and_details_stay_in_their_places():
    x, t = draw(2, 3, 4, 4), torch.tensor(0.0)
    maps = pyramid.haar(x)
    begin = pyramid.lifted(vp_cosine(), t, deviation=0.0)
    smooth = begin(maps[:, ::4], generator())
    assert torch.allclose(smooth, pyramid.enlarge(torch.nn.functional.avg_pool2d(x, 2)), atol=1e-6)


# ---------------------------------------------------------------------- the chain


def test_each_stage_gets_what_the_last_made_and_the_condition():
    heard = []

    def stage(name: str) -> pyramid.Stage:
        def begin(coarse, source):
            heard.append((name, coarse))
            return torch.tensor(float(len(heard)))

        return pyramid.Stage(lambda x, cond, source: x + cond, begin)

    made = pyramid.sample_pyramid([stage("small"), stage("large")], 10.0)
    assert made == [11.0, 12.0] and heard == [("small", None), ("large", 11.0)]
    with pytest.raises(ValueError, match="at least one stage"):
        pyramid.sample_pyramid([])
