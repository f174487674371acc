"""Stochastic samplers by their exact law, without a random number.

On normal data the exact denoiser is affine, so a sampler is an affine map of its start and of the noises that it
draws. Basis vectors, fed through a scripted source of noise, read off the matrices; with them the mean and the
covariance of what the sampler makes follow exactly, and are compared with those of the noised data.
"""

import math
from functools import partial

import numpy as np
import pytest
import torch

from survey_lib.core import corruptions, protocols
from survey_lib.core.corruptions import Gaussian, analytic_variance
from survey_lib.core.exact import GaussianLaw
from survey_lib.core.grids import uniform
from survey_lib.core.samplers import ancestral, euler_maruyama, heun, predictor_corrector, reverse_sde
from survey_lib.core.schedules import edm, rectified, vp_cosine, vp_linear

MEAN = torch.tensor([0.6, -0.9], dtype=torch.float64)
COV = torch.tensor([[0.5, 0.2], [0.2, 0.25]], dtype=torch.float64)
SIZE = len(MEAN)
SCHEDULE = vp_cosine()
DENOISER = GaussianLaw(MEAN, COV).denoiser(SCHEDULE)
POINT = GaussianLaw(MEAN, 0.0).denoiser(SCHEDULE)
START, END = 0.95, 0.1


def marginal(t, cov=COV, schedule=SCHEDULE):
    """Mean and covariance of ``x_t``."""
    alpha, sigma = schedule.scales(t)
    return alpha * MEAN, alpha**2 * cov + sigma**2 * torch.eye(SIZE, dtype=torch.float64)


@pytest.fixture
def law(monkeypatch):
    """``law(run, mean, cov)``: mean and covariance of ``run(x)`` for normal ``x``; ``law.draws`` counts its noises."""

    def scripted(script):
        for module in (protocols, corruptions):
            monkeypatch.setattr(module, "normal", script)

    def measure(run, mean, cov):
        measure.draws = 0

        def silence(shape, generator=None, dtype=None):
            measure.draws += 1
            return torch.zeros(shape, dtype=dtype)

        scripted(silence)
        run(torch.zeros(1, SIZE, dtype=torch.float64))
        draws = measure.draws
        # Row 0 is all zeros; then one row for each coordinate of the start, and of each noise.
        probes = torch.eye(SIZE * (1 + draws), dtype=torch.float64).reshape(-1, 1 + draws, SIZE)
        probes = iter(torch.cat([torch.zeros_like(probes[:1]), probes]).unbind(1))
        x = next(probes)
        scripted(lambda shape, generator=None, dtype=None: next(probes))
        rows = run(x)
        offset, matrix = rows[0], (rows[1:] - rows[0]).T
        start, noises = matrix[:, :SIZE], matrix[:, SIZE:]
        return offset + start @ mean, start @ cov @ start.T + noises @ noises.T

    return measure


def distance(one, other):
    return sum((a - b).norm().item() for a, b in zip(one, other, strict=True))


def slope(law, run, sizes=(32, 64)):
    """How fast the law nears that of ``x_END`` when the steps are halved, from the exact law at START."""
    errors = [distance(law(partial(run, times=uniform(n, START, END)), *marginal(START)), marginal(END)) for n in sizes]
    return np.log2(errors[0] / errors[1])


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_on_a_single_point_the_ancestral_law_is_exact_in_any_number_of_steps(law, eta, steps):
    """The denoiser knows x0, and the bridge is q(x_s | x_t, x0) itself: nothing is approximated."""
    none = torch.zeros_like(COV)
    run = partial(ancestral, POINT, Gaussian(SCHEDULE, eta), times=uniform(steps, START, END))
    got = law(run, *marginal(START, none))
    assert law.draws == (steps if eta else 0)
    assert distance(got, marginal(END, none)) < 1e-13


@pytest.mark.parametrize("eta", [0.4, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_with_the_analytic_variance_a_round_law_is_exact_in_any_number_of_steps(law, eta, steps):
    """Analytic-DPM, theorem 1: the reverse kernel of round normal data is normal, with that mean and variance."""
    spread = 0.3 * torch.eye(SIZE, dtype=torch.float64)

    def mean_square_eps(t):  # E|E[eps | x_t]|^2 a dimension
        alpha, sigma = SCHEDULE.scales(t)
        return sigma**2 / (alpha**2 * 0.3 + sigma**2)

    variance = partial(analytic_variance, mean_square_eps=mean_square_eps, eta=eta)
    denoiser = GaussianLaw(MEAN, 0.3).denoiser(SCHEDULE)
    run = partial(ancestral, denoiser, Gaussian(SCHEDULE, eta, variance), times=uniform(steps, START, END))
    assert distance(law(run, *marginal(START, spread)), marginal(END, spread)) < 1e-13


@pytest.mark.parametrize(
    "run",
    [
        lambda x, times: ancestral(DENOISER, Gaussian(SCHEDULE), x, times),
        lambda x, times: ancestral(DENOISER, Gaussian(SCHEDULE, 0.5), x, times),
        lambda x, times: ancestral(DENOISER, Gaussian(SCHEDULE, 0.0), x, times),
        lambda x, times: euler_maruyama(DENOISER, SCHEDULE, x, times),
    ],
    ids=["ddpm", "eta 0.5", "ddim", "euler_maruyama"],
)
def test_first_order_samplers_near_the_law_at_rate_one(law, run):
    assert slope(law, run, sizes=(48, 96)) == pytest.approx(1, abs=0.15)


def test_heun_nears_the_law_at_rate_two(law):
    assert slope(law, lambda x, times: heun(DENOISER, SCHEDULE, x, times)) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("churn", [2.0, 20.0])
def test_heun_with_churn_has_the_right_law_in_the_limit(law, churn):
    """Each churn moves to the exact law of a higher level, so that only Heun's own errors are left, at rate 2."""
    measured = slope(law, lambda x, times: heun(DENOISER, SCHEDULE, x, times, churn=churn), sizes=(64, 128))
    assert law.draws == 128
    assert measured == pytest.approx(2, abs=0.2)


def test_churn_climbs_to_a_higher_level_and_its_exact_law(law):
    """EDM, alg. 2, lines 4 to 6: the state the denoiser sees has the law of level ``u (1 + churn / steps)``."""
    t, none, seen = 0.5, torch.zeros_like(COV), []

    def churned(x):
        heun(POINT, SCHEDULE, x, [t, 0.4], churn=0.3, callback=lambda y, at, x0: seen.append((y, at)))
        return seen[-1][0]

    got = law(churned, *marginal(t, none))
    raised = SCHEDULE.time(SCHEDULE.lam(t) - math.log(1.3))
    assert seen[-1][1].item() == pytest.approx(raised.item(), rel=1e-12)
    assert distance(got, marginal(raised, none)) < 1e-13


@pytest.mark.parametrize("schedule", [edm(), vp_linear(), rectified()], ids=lambda s: s.name)
def test_churn_stays_in_its_range_and_below_the_top_of_the_schedule(schedule):
    times, seen = uniform(10), []
    generator, x = torch.Generator().manual_seed(0), torch.ones(1, SIZE, dtype=torch.float64)
    options = {"churn": 100.0, "generator": generator, "callback": lambda x, t, x0: seen.append(t.item())}
    heun(lambda x, t, cond: 0 * x, schedule, x, times, churn_range=(0.2, 5.0), **options)
    u = [math.exp(-schedule.lam(t).item()) for t in times[:-1]]
    moved = [abs(now - grid) > 1e-9 for now, grid in zip(seen, times[:-1].tolist(), strict=True)]
    assert moved == [0.2 <= level <= 5.0 for level in u]
    seen.clear()
    heun(lambda x, t, cond: 0 * x, schedule, x, times, **options)
    assert max(seen) <= 1


@pytest.mark.parametrize("predictor", ["reverse_sde", "ancestral"])
def test_the_corrector_mends_the_law_of_the_predictor(law, predictor):
    """On a coarse grid the predictor's law is off; Langevin steps at each level bring it back (Score-SDE, fig. 4)."""
    bridge = None if predictor == "reverse_sde" else Gaussian(SCHEDULE).bridge
    errors = []
    for corrections in (0, 2, 20):
        run = partial(predictor_corrector, DENOISER, SCHEDULE, times=uniform(8, START, END), bridge=bridge)
        run = partial(run, corrections=corrections, snr=0.2)
        errors.append(distance(law(run, *marginal(START)), marginal(END)))
    assert errors[1] < 0.85 * errors[0]
    assert errors[2] < 0.5 * errors[0]


def test_without_corrections_the_predictor_is_the_sampler_of_that_name(law):
    times = uniform(5, START, END)
    plain = law(partial(ancestral, DENOISER, Gaussian(SCHEDULE), times=times), *marginal(START))
    run = partial(predictor_corrector, DENOISER, SCHEDULE, times=times, corrections=0, bridge=Gaussian(SCHEDULE).bridge)
    assert distance(law(run, *marginal(START)), plain) < 1e-14


def test_corrections_alone_settle_on_the_right_law_up_to_the_square_of_snr(law):
    """Many Langevin steps forget the predictor: the mean is right, the bias of the covariance falls as snr^2."""
    biases = []
    for snr in (0.4, 0.2):
        run = partial(predictor_corrector, DENOISER, SCHEDULE, times=[START, 0.5], corrections=300, snr=snr)
        mean, cov = law(run, torch.zeros(SIZE, dtype=torch.float64), torch.zeros_like(COV))
        assert (mean - marginal(0.5)[0]).norm() < 1e-6
        biases.append((cov - marginal(0.5)[1]).norm().item())
    assert biases[0] / biases[1] == pytest.approx(4, rel=0.15)


def test_an_example_does_not_depend_on_its_neighbours():
    """The corrector's step does not come from norms over the batch, so a batch of one is a batch of many."""
    x = torch.tensor([[0.5, 1.0], [30.0, -20.0]], dtype=torch.float64)

    def run(rows):
        noise = torch.Generator().manual_seed(3)
        with pytest.MonkeyPatch.context() as patch:  # the same noise for every row
            one = partial(torch.randn, 1, SIZE, generator=noise)
            patch.setattr(protocols, "normal", lambda shape, generator, dtype: one(dtype=dtype).expand(shape))
            return predictor_corrector(DENOISER, SCHEDULE, rows, uniform(4, START, END), corrections=2)

    torch.testing.assert_close(run(x)[:1], run(x[:1]), rtol=1e-14, atol=1e-14)


def test_the_last_step_to_clean_data_draws_nothing(law):
    for steps in (1, 4):
        law(partial(euler_maruyama, DENOISER, SCHEDULE, times=uniform(steps, START)), *marginal(START))
        assert law.draws == steps - 1


def test_the_seed_decides():
    x = torch.ones(3, SIZE)
    for sampler, thing in (
        (ancestral, Gaussian(SCHEDULE)),
        (euler_maruyama, SCHEDULE),
        (predictor_corrector, SCHEDULE),
    ):
        one, same, other = (
            sampler(DENOISER, thing, x, uniform(4, START), generator=torch.Generator().manual_seed(seed))
            for seed in (0, 0, 1)
        )
        assert one.dtype == torch.float32
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
        with pytest.raises(ValueError, match="pass generator="):
            sampler(DENOISER, thing, x, uniform(4, START))


def test_bad_input_is_refused_in_one_sentence():
    x, generator = torch.ones(1, SIZE), torch.Generator()
    with pytest.raises(ValueError, match="no finite drift at t = 1: start a little below"):
        euler_maruyama(DENOISER, SCHEDULE, x, uniform(4), generator=generator)
    for corrections, kind, says in (
        (-1, ValueError, "corrections is at least 0; got -1"),
        (1.5, TypeError, "corrections is a whole number; got 1.5"),
        (True, TypeError, "corrections is a whole number; got True"),
    ):
        with pytest.raises(kind, match=says):
            predictor_corrector(DENOISER, SCHEDULE, x, uniform(4, START), corrections=corrections, generator=generator)
    for sampler, thing in ((ancestral, Gaussian(SCHEDULE)), (euler_maruyama, SCHEDULE)):
        with pytest.raises(ValueError, match="falls strictly"):
            sampler(DENOISER, thing, x, [0.5, 0.7], generator=generator)
    with pytest.raises(ValueError, match="lie in"):
        reverse_sde(SCHEDULE)(x, x, torch.tensor(1.5), torch.tensor(0.5), generator=generator)
