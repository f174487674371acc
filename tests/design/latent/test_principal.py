"""Diffusion in principal components: what is lost and what is added, each against another way to compute it."""

from functools import partial

import pytest
import torch

from survey_lib.core import grids
from survey_lib.core.exact import GaussianLaw
from survey_lib.core.integrators import multistep
from survey_lib.core.schedules import vp_linear
from survey_lib.design.latent.principal import decoded_distance, lost_variance
from survey_lib.lab.evaluation.metrics import frechet_distance
from tests.support import draw, exact_moments

EIGENVALUES = torch.tensor([4.0, 1.0, 0.25, 0.04, 0.01], dtype=torch.float64)
two_m = partial(multistep, order=2)


def rotation() -> torch.Tensor:
    return torch.linalg.qr(draw(5, 5, dtype=torch.float64))[0]


def test_the_lost_variance_is_the_error_of_the_reconstruction_and_a_frechet_distance():
    axes = rotation()
    cov = axes @ EIGENVALUES.diag() @ axes.mT
    for kept in range(6):
        project = axes[:, :kept] @ axes[:, :kept].mT
        rest = torch.eye(5, dtype=torch.float64) - project
        expected_error = (rest @ cov @ rest.mT).trace()
        assert torch.isclose(lost_variance(EIGENVALUES)[kept], expected_error, atol=1e-12)
        other = project @ cov @ project
        root = torch.linalg.eigvals(cov @ other).real.clamp_min(0).sqrt().sum()
        frechet = (cov + other).trace() - 2 * root
        assert torch.isclose(lost_variance(EIGENVALUES)[kept], frechet, atol=1e-6)


@pytest.mark.parametrize("kept", [1, 3, 5])
def test_the_distance_is_that_of_the_moments_of_samples(kept):
    """The sampler is run on the full covariance of the latents, its law read off by basis vectors."""
    schedule = vp_linear()
    times, eigenvalues = grids.karras(6, schedule), EIGENVALUES[:kept]
    law = GaussianLaw(torch.zeros(kept, dtype=torch.float64), eigenvalues.diag())
    sigma = schedule.scales(times[0])[1].double()
    start = sigma**2 * torch.eye(kept, dtype=torch.float64)
    found = exact_moments(
        lambda x: two_m(law.denoiser(schedule), schedule, x, times), torch.zeros(kept).double(), start, (kept,)
    )
    assert (found.cov - found.cov.diag().diag()).abs().max() < 1e-10
    added = (found.cov.diag().sqrt() - eigenvalues.sqrt()).square().sum()
    distance = decoded_distance(EIGENVALUES, schedule, times, two_m)
    assert torch.isclose(distance.added[kept], added, rtol=1e-6)
    assert torch.isclose(distance.total[kept], added + EIGENVALUES[kept:].sum(), rtol=1e-6)


def test_more_steps_add_less_and_the_loss_stays():
    few, many = (decoded_distance(EIGENVALUES, vp_linear(), grids.karras(n, vp_linear()), two_m) for n in (5, 80))
    assert (many.added[1:] < 0.05 * few.added[1:]).all()
    assert torch.equal(many.lost, few.lost)


def test_agrees_with_the_distance_of_drawn_points():
    """The Fréchet distance of 20,000 points of N(0, C) and of their reconstructions from two components."""
    points = draw(20_000, 5, dtype=torch.float64) * EIGENVALUES.sqrt()
    decoded = points * (torch.arange(5) < 2)
    assert frechet_distance(points, decoded) == pytest.approx(float(lost_variance(EIGENVALUES)[2]), rel=0.05)


def test_refuses_eigenvalues_that_rise():
    with pytest.raises(ValueError, match="eigenvalues are positive and fall"):
        decoded_distance(EIGENVALUES.flip(0), vp_linear(), grids.uniform(3), two_m)
