"""How lesson 12 judges: spots by shares and by shape, the votes of score losses, and pictures in bits."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from survey_lib.core.exact import GaussianLaw, GaussianMixture
from survey_lib.core.schedules import edm, ve, vp_linear
from survey_lib.core.toys import eight_modes
from survey_lib.design import score as scores
from survey_lib.design.score.bits import GREY

LAW = GaussianMixture(
    torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), scales=torch.tensor([0.1, 0.2]), weights=torch.tensor([0.75, 0.25])
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


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
    few = x[scores.spots._nearest(x, eight_modes()) < 3]
    assert scores.shape_error(few, eight_modes()) < 0.08


def test_spots_refuse_other_points_and_tilted_spots():
    with pytest.raises(ValueError, match=r"points are \(B, 2\)"):
        scores.mode_frequencies(torch.zeros(3, 1), LAW)
    tilted = GaussianMixture(torch.zeros(1, 2), covs=torch.tensor([[[1.0, 0.5], [0.5, 1.0]]]))
    with pytest.raises(ValueError, match="scales="):
        scores.shape_error(torch.zeros(3, 2), tilted)


def test_a_vote_scatters_as_calculus_says_on_a_normal_law():
    """For N(0, 1) and noise s the score is -x / (1 + s^2); the derivative of each loss is a quadratic in normals."""
    noise, n = 0.8, 200_000
    law = GaussianLaw(torch.zeros(1), 1.0)
    slope = partial(law.score, t=noise, schedule=edm(1.0))
    losses = scores.noised_losses(noise, generator())
    x0 = law.sample(n, generator=generator(1), dtype=torch.float64)
    found = {name: scores.gradient_noise(loss, slope, x0) for name, loss in losses.items()}
    # implicit, and sliced on a line: x^2 / T^2 - 1 / T, of deviation sqrt(2) / T, over the curvature 1 / T
    assert found["implicit"] == pytest.approx(math.sqrt(2), rel=0.02)
    assert found["sliced"] == pytest.approx(math.sqrt(2), rel=0.02)
    # denoising: (z / s - x / T) times -x / T; the two factors are independent, of variances 1 / (s^2 T) and 1 / T
    assert found["denoising"] == pytest.approx(1 / noise, rel=0.02)


def test_the_losses_of_noised_data_agree_on_the_best_score():
    """On average the derivative in theta at the exact score is 0 for every one of them."""
    g, sigma, n = generator(), 0.5, 40_000
    x0 = LAW.sample(n, generator=g, dtype=torch.float64)
    slope = partial(LAW.score, t=sigma, schedule=edm(1.0))
    power = slope(x0 + sigma * torch.randn(x0.shape, generator=g, dtype=x0.dtype)).square().sum(1).mean()
    for name, loss in scores.noised_losses(sigma, g).items():
        theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
        value = loss(lambda x, theta=theta: (1 + theta) * slope(x), x0).mean()
        (pull,) = torch.autograd.grad(value, theta)
        spread = scores.gradient_noise(loss, slope, x0[:4000]) * power
        assert abs(pull) < 5 * spread / math.sqrt(n), name


def test_dequantised_greys_round_back_and_fill_their_step():
    grey = (torch.randint(0, 256, (4000, 1, 2, 2), generator=generator()).double() * GREY) - 1
    moved = scores.dequantise(grey, generator(1))
    assert torch.equal((moved + 1).div(GREY).round(), (grey + 1).div(GREY).round())
    rest = (moved - grey).flatten()
    assert rest.abs().max() < GREY / 2 and rest.std().item() == pytest.approx(GREY / math.sqrt(12), rel=0.02)


@pytest.mark.parametrize("schedule", [vp_linear(), ve(), scores.sub_vp()], ids=lambda one: one.name)
def test_bits_of_a_normal_law_are_its_entropy_under_every_schedule(schedule):
    law = GaussianLaw(torch.zeros(1, 2, 2), 0.3)
    x = law.sample(500, generator=generator(), dtype=torch.float64)
    found = scores.image_bits(law.denoiser(schedule), schedule, x, tolerance=1e-6, generator=generator(1))
    exact = -law.log_prob(x) / (4 * math.log(2)) - math.log2(GREY)
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-3)  # the bell at lam = -3.9 stands for the noised law
