"""The noisy end: what divides by alpha refuses it alike, and trajectories start with the spread of their first time."""

import math
from functools import partial

import pytest
import torch

from survey_lib.core import grids
from survey_lib.core.checks import PURE_NOISE, is_pure_noise
from survey_lib.core.corruptions import Cold, Gaussian, Renoise, analytic_variance
from survey_lib.core.exact import GaussianLaw
from survey_lib.core.heads import Preconditioned
from survey_lib.core.integrators import multistep
from survey_lib.core.samplers import ancestral, euler_maruyama
from survey_lib.core.schedules import Schedule, edm, rectified, ve, vp_cosine, vp_linear, zero_terminal
from survey_lib.design import guidance
from survey_lib.nets.mlp import MLP
from survey_lib.process import scheduling
from tests.support import generator

X, Y = torch.ones(3, 2), torch.tensor([0, 1, 1])
ENDS = [rectified(), vp_cosine(), zero_terminal(vp_linear())]  # alpha(1) is 0, 6e-17 and 1e-16
every_end = pytest.mark.parametrize("schedule", ENDS, ids=lambda schedule: schedule.name)
LAW = GaussianLaw(torch.zeros(2), 0.25)


class Labels:
    """Two labels, told apart by the first coordinate."""

    def log_probs(self, x, t):
        return torch.stack([x[:, 0], -x[:, 0]], 1).log_softmax(1)

    def log_prob(self, x, t, cond):
        return self.log_probs(x, t).gather(1, cond[:, None])[:, 0]


def divide_by_alpha(schedule: Schedule):
    """Name and call of all that divides by alpha, at a time t."""
    denoiser = LAW.denoiser(schedule)
    return {
        "the eps head": lambda t: Preconditioned(MLP(2, width=8), schedule, "eps")(X, t),
        "the score head": lambda t: Preconditioned(MLP(2, width=8), schedule, "score")(X, t),
        "the analytic variance": lambda t: analytic_variance(schedule, t, 0.5, 0.9),
        "classifier guidance": lambda t: guidance.Classifier(denoiser, Labels().log_prob, schedule, 2.0)(X, t, Y),
        "classifier  guidance": lambda t: guidance.EntropyScaled(denoiser, Labels(), schedule, 2.0)(X, t, Y),
        "the likelihood-score loss": lambda t: guidance.likelihood_score_loss(
            Labels(), denoiser, schedule, X, torch.as_tensor(t).expand(3), Y, generator=generator()
        ),
    }


@every_end
@pytest.mark.parametrize("name", divide_by_alpha(ENDS[0]))
def test_what_divides_by_alpha_refuses_pure_noise_in_one_sentence(schedule, name):
    call = divide_by_alpha(schedule)[name]
    words = f"{' '.join(name.split())} divides by alpha, which is .* here .*: start at t < 1"
    for t in (1.0, torch.tensor(1.0)):
        with pytest.raises(ValueError, match=words):
            call(t)
    assert call(0.99).isfinite().all()


@every_end
def test_the_samplers_and_the_probe_of_a_denoiser_refuse_it_too(schedule):
    denoiser = LAW.denoiser(schedule)
    with pytest.raises(ValueError, match="no finite drift at t = 1"):
        euler_maruyama(denoiser, schedule, X, grids.uniform(3), generator=generator())
    probe = partial(scheduling.denoising_error, denoiser, schedule, X, generator=generator())
    with pytest.raises(ValueError, match="alpha > 0"):
        probe(torch.tensor([1.0, 0.5]))
    probe(torch.tensor([0.9, 0.5]))
    corruption = Gaussian(schedule, variance=partial(analytic_variance, mean_square_eps=0.9))
    with pytest.raises(ValueError, match="the analytic variance divides by alpha"):
        ancestral(denoiser, corruption, X, grids.uniform(3), generator=generator())


def test_pure_noise_is_a_ratio_of_the_scales():
    """EDM's alpha is 1 up to any noise that float32 tells from none; a small alpha beside a small sigma is data."""
    assert is_pure_noise(0.0, 1.0) and is_pure_noise(1.0, 2 / PURE_NOISE)
    assert not is_pure_noise(1.0, 1348.0) and not is_pure_noise(1e-9, 1e-3)


@pytest.mark.parametrize(
    "schedule",
    [edm(80.0), edm(200.0), edm(348.0), ve(0.01, 50.0), ve(0.01, 348.0), ve(0.01, 1348.0), vp_linear(), rectified()],
    ids=lambda schedule: f"{schedule.name} {schedule.sigma(torch.tensor(1.0)):.0f}",
)
@pytest.mark.parametrize("grid", [grids.karras, grids.uniform_lambda], ids=["karras", "uniform_lambda"])
def test_samples_of_a_grid_that_begins_below_1_have_the_spread_of_the_data(schedule, grid):
    """N(0, 0.5^2) by the exact flow from the prior at the grid's first time, within what is left of the data there."""
    times, count = grid(50, schedule), 20000
    x = Gaussian(schedule).prior((count, 1), times[0], generator=generator(), dtype=torch.float64)
    data = GaussianLaw(torch.zeros(1), 0.25)
    ends = data.flow(x, times[0], times[-2], schedule)
    left = (0.5 * schedule.lam(times[0]).exp().item()) ** 2  # of the relative variance, before sampling error
    expected = math.sqrt(0.25 * schedule.scales(times[-2])[0] ** 2 + schedule.scales(times[-2])[1] ** 2)
    assert ends.std().item() == pytest.approx(expected, rel=left + 4 / math.sqrt(2 * count))
    sampled = multistep(data.denoiser(schedule), schedule, x, times[:-1], order=3)
    assert sampled.std().item() == pytest.approx(ends.std().item(), rel=0.01)


@pytest.mark.parametrize("corruption", [Gaussian, Renoise])
def test_a_prior_has_the_spread_of_its_time(corruption):
    prior = partial(corruption(edm(80.0)).prior, (4, 2), dtype=torch.float64)
    unit = prior(1.0, generator=generator()) / 80
    for t in (0.5, torch.tensor(0.5), torch.full((4,), 0.5)):
        torch.testing.assert_close(prior(t, generator=generator()), 40 * unit, rtol=1e-14, atol=0)
    with pytest.raises(ValueError, match=r"times lie in \[0, 1\]"):
        prior(1.5, generator=generator())


def test_a_degradation_ends_at_1():
    cold = Cold(lambda x, t: x * (1 - t), lambda shape, generator: torch.zeros(tuple(shape)))
    assert torch.equal(cold.prior((2, 3)), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"no distribution of x_t at t = 0.9: start from corrupt\(x0, t\)"):
        cold.prior((2, 3), 0.9)
