"""Density times weight is what a training learns from: densities are densities, and reweighting changes no mean."""

import math

import pytest
import torch

from survey_lib.core import schedules
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.exact import GaussianMixture
from survey_lib.core.losses import denoising_loss, edm_weight, eps_weight, v_weight
from survey_lib.lab.training.trainer import Recipe, Trainer
from survey_lib.process.training import (
    LogNormalLevels,
    TimeLevels,
    emphasis,
    min_snr_weight,
    p2_weight,
    reweighted,
    truncated_snr_weight,
    weighted_loss,
)
from tests.support import draw, generator

GRID = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
STEP = float(GRID[1] - GRID[0])
COSINE, LINEAR = schedules.vp_cosine(), schedules.vp_linear()
LEVELS = {
    "lognormal": LogNormalLevels(-0.8, 1.5),
    "cosine": TimeLevels(COSINE, 1e-3),
    "linear": TimeLevels(LINEAR, 1e-3),
    "soft": TimeLevels(LINEAR, 1e-3, soft=True),
}
WEIGHTS = {"eps": eps_weight, "v": v_weight, "edm": edm_weight, "p2": p2_weight, "min-SNR": min_snr_weight}
LAW = GaussianMixture(torch.tensor([[-0.6, 0.2], [0.5, 0.4], [0.1, -0.7]]), scales=0.2)


@pytest.mark.parametrize("name", LEVELS)
def test_a_density_is_that_of_the_samples(name):
    """Its integral up to a level is the fraction of samples below, within four standard errors."""
    levels, n = LEVELS[name], 40_000
    if name == "soft":  # the levels of a batch share their smallest time: batches of one are independent
        source = generator()
        drawn = torch.cat([levels.sample(1, generator=source) for _ in range(n // 4)])
    else:
        drawn = levels.sample(n, generator=generator())
    mass = (levels.density(GRID) * STEP).cumsum(0)
    assert mass[-1] == pytest.approx(1, abs=2e-3)
    for at in (-4.0, -2.0, 0.0, 1.0, 2.0):
        expected, found = float(mass[(at >= GRID).sum() - 1]), float((drawn <= at).double().mean())
        assert found == pytest.approx(expected, abs=4 * math.sqrt(0.25 / len(drawn)) + 2e-3), at


def test_soft_truncation_asks_more_often_at_large_times():
    plain, soft = (LEVELS[name].density(GRID) for name in ("linear", "soft"))
    inside = plain > 0
    assert ((soft / plain)[inside].diff() < 0).all(), "the ratio of the densities falls with lam"
    with pytest.raises(ValueError, match="the smallest time lies between 0 and 1; got 0"):
        TimeLevels(LINEAR, 0.0)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("other", ["cosine", "soft"])
def test_reweighting_changes_the_variance_and_not_the_mean(weight, other):
    """The expected loss of any denoiser, by quadrature over the levels; here with an error of 1 / (1 + SNR)."""
    one, two = LEVELS["lognormal"], LEVELS[other]
    new = reweighted(WEIGHTS[weight], one, two)
    lam = GRID[(two.density(GRID) > 1e-12)]
    error = 1 / (1 + torch.exp(2 * lam))
    before = one.density(lam) * WEIGHTS[weight](lam) * error
    after = two.density(lam) * new(lam) * error
    torch.testing.assert_close(after.sum(), before.sum(), rtol=1e-9, atol=0)
    torch.testing.assert_close(emphasis(two, new, lam), emphasis(one, WEIGHTS[weight], lam), rtol=1e-9, atol=1e-15)
    spread = [(density * (w * error) ** 2).sum() for density, w in (
        (one.density(lam), WEIGHTS[weight](lam)), (two.density(lam), new(lam)))]  # fmt: skip
    assert abs(spread[0] / spread[1] - 1) > 1e-3, "the second moment is another"


@pytest.mark.parametrize("weight", WEIGHTS)
def test_every_weighting_has_the_same_minimiser(weight):
    """At each level the loss of ``D + h`` is that of the posterior mean D plus ``E |h|^2`` (Pythagoras)."""
    exact, n = LAW.denoiser(COSINE), 60_000
    x0 = LAW.sample(n, generator=generator(1), dtype=torch.float64)
    levels, best = LogNormalLevels(0.0, 0.7), []
    for off in (0.0, 0.1, -0.1):
        found, lam = weighted_loss(levels, WEIGHTS[weight], COSINE)(
            lambda x, t, cond, off=off: exact(x, t) + off * torch.sin(3 * x), x0, None, generator(2)
        )
        best.append(found)
    error = best[1:][0] / 2 + best[1:][1] / 2 - best[0]  # the cross terms cancel
    assert float(error.mean()) > 0
    for worse in best[1:]:
        gain = worse - best[0] - error  # the cross term alone: zero on average
        assert abs(float(gain.mean())) < 4 * float(gain.std()) / math.sqrt(n)
        assert worse.mean() > best[0].mean()
    assert lam.shape == (n,)


def test_weights_in_the_predictions_of_the_papers():
    """``w |x0 error|^2 = w / SNR |eps error|^2 = w / (SNR + 1) |v error|^2``."""
    snr = torch.exp(2 * GRID)
    torch.testing.assert_close(min_snr_weight(GRID) / eps_weight(GRID), snr.clamp(max=5) / snr)
    torch.testing.assert_close(p2_weight(GRID, gamma=0.0), eps_weight(GRID))
    torch.testing.assert_close(p2_weight(GRID, 1.0, 1.0), eps_weight(GRID) / v_weight(GRID))
    assert truncated_snr_weight(GRID).equal(torch.maximum(snr, torch.ones(())))


def test_the_trainers_own_loss_is_one_of_these():
    """EDM's weight at log-normal levels, bit for bit."""
    trainer = Trainer.__new__(Trainer)
    trainer.recipe, exact = Recipe(), LAW.denoiser(COSINE)
    model = torch.nn.Module()
    model.schedule, model.sigma_data, model.forward = COSINE, 0.5, exact
    trainer.model = model
    x0 = draw(50, 2, seed=3, dtype=torch.float64)
    ours, lam = trainer._denoising(model, x0, None, generator(4))
    levels = LogNormalLevels(Recipe().log_sigma_mean, Recipe().log_sigma_std)
    found, where = weighted_loss(levels, edm_weight, COSINE)(exact, x0, None, generator(4))
    torch.testing.assert_close(where, lam, rtol=0, atol=1e-12)
    torch.testing.assert_close(found, ours, rtol=1e-9, atol=1e-12)


def test_a_weight_that_is_right_for_noise_is_wrong_for_v():
    """The classic mistake: min-SNR's factor for eps, applied to the error of v, is another emphasis."""
    right = emphasis(LEVELS["cosine"], min_snr_weight, GRID)
    wrong = emphasis(LEVELS["cosine"], lambda lam: min_snr_weight(lam) / eps_weight(lam) * v_weight(lam), GRID)
    assert (right - wrong).abs().sum() > 0.2
    x0, t = LAW.sample(20, generator=generator(), dtype=torch.float64), torch.full((20,), 0.5, dtype=torch.float64)
    alpha, sigma = COSINE.scales(t, like=x0)
    x_t = Gaussian(COSINE).corrupt(x0, t, generator=generator(9))
    guess = torch.zeros_like(x0)
    v, v_hat = ((x_t * alpha - x) / sigma for x in (x0, guess))  # v = (alpha x_t - x0) / sigma
    in_v = (v - v_hat).square().mean(1)
    ours = denoising_loss(
        lambda *_: guess, Gaussian(COSINE), x0, t, weight=v_weight(COSINE.lam(t)), generator=generator(9)
    )
    torch.testing.assert_close(in_v, ours)
