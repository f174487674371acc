"""Progressive deblurring: every band is corrupted by its own law, and the way back is exact."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from survey_lib.core import grids
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.exact import GaussianLaw
from survey_lib.core.samplers import ancestral
from survey_lib.core.schedules import rectified, vp_cosine, vp_linear
from survey_lib.design import pyramid
from survey_lib.design.pyramid.deblurring import ByBand
from tests.support import draw, exact_moments, generator

COARSE, MIDDLE, FINE = rectified(), vp_cosine(), vp_linear()
BLURRING = ByBand([Gaussian(COARSE), Gaussian(MIDDLE), Gaussian(FINE)])
ROWS = torch.eye(16).double().reshape(16, 1, 4, 4)
FIRST = pyramid.haar(ROWS).reshape(16, 16).T  # rows: 4 coarse numbers, 12 details
SECOND = pyramid.haar(torch.eye(4).double().reshape(4, 1, 2, 2)).reshape(4, 4).T
HAAR = torch.block_diag(SECOND, torch.eye(12).double()) @ FIRST  # 1 coarse, 3 middle, 12 fine numbers
SIZES = torch.tensor([1, 3, 12])


def by_number(*values: torch.Tensor) -> torch.Tensor:
    """One value a band, for each of its numbers."""
    return torch.stack([torch.as_tensor(v).double() for v in values]).repeat_interleave(SIZES)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_every_band_has_its_own_marginal(t):
    variances = torch.linspace(0.2, 3, 16).double()
    cov = HAAR.T @ torch.diag(variances) @ HAAR
    found = exact_moments(lambda x: BLURRING.corrupt(x, t, generator=generator()), draw(16).double(), cov, (1, 4, 4))
    alpha, sigma = (by_number(*parts) for parts in zip(*(s.scales(t) for s in (COARSE, MIDDLE, FINE)), strict=True))
    expected = HAAR.T @ torch.diag(alpha**2 * variances + sigma**2) @ HAAR
    torch.testing.assert_close(found.cov, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.mean, HAAR.T @ (alpha * (HAAR @ draw(16).double())), rtol=0, atol=1e-10)


def test_bridges_of_the_truth_keep_the_marginals():
    """Down a grid with the clean image in hand, the law at every time is that of `corrupt`."""
    x0, times = draw(1, 1, 4, 4).double(), [0.9, 0.6, 0.3]

    def walk(x):
        for t, s in pairwise(times):
            x = BLURRING.bridge(x, x0.expand_as(x), t, s, generator=generator())
        return x

    law = [
        exact_moments(lambda x, t=t: BLURRING.corrupt(x, t, generator=generator()), x0.flatten(), 0 * HAAR, (1, 4, 4))
        for t in times
    ]
    found = exact_moments(walk, law[0].mean, law[0].cov, (1, 4, 4))
    torch.testing.assert_close(found.cov, law[-1].cov, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.mean, law[-1].mean, rtol=0, atol=1e-10)


def test_a_sampler_does_not_notice_that_bands_differ():
    """Independent bands, exact denoiser: what comes out has the variances that went in, up to the steps."""
    variances = by_number(torch.tensor(2.0), torch.tensor(0.5), torch.tensor(0.05))
    schedules = (COARSE, MIDDLE, FINE)

    def denoiser(x, t, cond=None):
        flat, parts, at = x.flatten(1) @ HAAR.T, [], 0
        for size, schedule in zip(SIZES.tolist(), schedules, strict=True):
            law = GaussianLaw(torch.zeros(size).double(), variances[at : at + size])
            parts.append(law.denoiser(schedule)(flat[:, at : at + size], t))
            at += size
        return (torch.cat(parts, 1) @ HAAR).reshape(x.shape)

    start = by_number(*(s.scales(1.0)[1] for s in schedules)) ** 2
    found = exact_moments(
        lambda x: ancestral(denoiser, BLURRING, x, grids.uniform(200), generator=generator()),
        torch.zeros(16).double(), HAAR.T @ torch.diag(start) @ HAAR, (1, 4, 4),
    )  # fmt: skip
    torch.testing.assert_close(found.cov, HAAR.T @ torch.diag(variances) @ HAAR, rtol=0, atol=0.03)


def test_one_corruption_is_itself_and_images_must_split():
    x = draw(2, 3, 4, 4)
    alone = ByBand([Gaussian(FINE)])
    assert torch.equal(
        alone.corrupt(x, 0.5, generator=generator()), Gaussian(FINE).corrupt(x, 0.5, generator=generator())
    )
    assert BLURRING.prior((2, 3, 4, 4), generator=generator()).shape == (2, 3, 4, 4)
    with pytest.raises(ValueError, match="even sides"):
        BLURRING.corrupt(draw(1, 1, 6, 6), 0.5, generator=generator())
