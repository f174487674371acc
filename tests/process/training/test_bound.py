"""The bound does not depend on the path along which it is estimated; its scatter does."""

import math

import pytest
import torch

from survey_lib.core import schedules
from survey_lib.core.exact import GaussianLaw
from survey_lib.process.training import bound_terms, min_variance_path, schedule_path

CLEAN, NOISY = 3.0, -3.0
COSINE = schedules.vp_cosine()
VARIANCE = 0.7
LAW = GaussianLaw(torch.zeros(1), torch.tensor([[VARIANCE]]))


def _terms(path, seed=0, count=12_000):
    generator = torch.Generator().manual_seed(seed)
    x0 = LAW.sample(count, generator=generator, dtype=torch.float64)
    return bound_terms(LAW.denoiser(COSINE), COSINE, x0, path, generator=generator)


def _learned():
    x0 = LAW.sample(6000, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return min_variance_path(
        LAW.denoiser(COSINE), COSINE, x0, CLEAN, NOISY, knots=24, generator=torch.Generator().manual_seed(6)
    )


PATHS = {
    "linear": schedule_path(schedules.vp_linear(beta_max=40.0), CLEAN, NOISY),
    "cosine": schedule_path(COSINE, CLEAN, NOISY),
    "rectified": schedule_path(schedules.rectified(), CLEAN, NOISY),
    "learned": _learned(),
}


@pytest.mark.parametrize("name", PATHS)
def test_every_path_has_the_ends_asked_for_and_tells_its_own_slope(name):
    path = PATHS[name]
    u = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    lam, abs_dlam_du = path(u)
    torch.testing.assert_close(lam[[0, -1]], torch.tensor([CLEAN, NOISY], dtype=torch.float64))
    assert (lam.diff() < 0).all()
    torch.testing.assert_close(torch.trapezoid(abs_dlam_du, u).item(), CLEAN - NOISY, rtol=1e-3, atol=0)
    middle = slice(1000, -1000)  # finite differences are no match for the ends
    near = (-lam.diff() * 20_000 - abs_dlam_du[1:]).abs() / abs_dlam_du[1:]
    assert near[middle].quantile(0.99) < 0.02


@pytest.mark.parametrize("name", PATHS)
def test_the_mean_is_the_integral_whatever_the_path(name):
    # For a normal law |x0 - D|^2 is variance / (1 + SNR variance) on average, and the integral over lam a logarithm.
    low, high = (math.log1p(VARIANCE * math.exp(2 * lam)) for lam in (NOISY, CLEAN))
    terms = _terms(PATHS[name])
    assert abs(terms.mean().item() - (high - low) / 2 / math.log(2)) < 4 * terms.std().item() / len(terms) ** 0.5


def test_the_learned_path_scatters_least():
    scatter = {name: _terms(path, seed=1).std().item() for name, path in PATHS.items()}
    assert min(scatter, key=scatter.get) == "learned", scatter


def test_a_path_that_does_not_fall_is_refused():
    with pytest.raises(ValueError, match="must fall from a finite lam to a finite lower lam"):
        schedule_path(COSINE, NOISY, CLEAN)
