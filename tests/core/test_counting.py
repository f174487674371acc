"""Every sampler asks the denoiser exactly as often as its docstring says."""

from functools import partial

import pytest
import torch

from survey_lib.core.corruptions import Gaussian
from survey_lib.core.grids import uniform
from survey_lib.core.integrators import dpm_singlestep, log_likelihood, multistep, pndm, probability_flow
from survey_lib.core.samplers import ancestral, euler_maruyama, heun, predictor_corrector
from survey_lib.core.schedules import rectified, vp_linear

STEPS = (1, 2, 3, 10, 50)
SCHEDULE = vp_linear()


class Counted:
    """A denoiser that shrinks its input, and counts."""

    calls = 0

    def __call__(self, x, t, cond=None):
        self.calls += 1
        return 0.5 * x


def evaluations(sampler, steps, *, end=0.0, schedule=SCHEDULE, **options):
    """How often a run of ``steps`` asks, on a grid that ends clean (end=0) or before."""
    denoiser = Counted()
    x = torch.ones(2, 3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    times = uniform(steps, 1.0, end)
    if sampler in (ancestral, euler_maruyama, predictor_corrector) or options.get("churn"):
        options["generator"] = generator
    sampler(denoiser, Gaussian(schedule) if sampler is ancestral else schedule, x, times, **options)
    return denoiser.calls


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("sampler", [ancestral, euler_maruyama, multistep])
def test_one_a_step(sampler, steps):
    assert evaluations(sampler, steps) == steps
    assert evaluations(sampler, steps, end=0.1) == steps


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("predict", ["x0", "eps"])
def test_the_corrector_is_free(order, predict, steps):
    assert evaluations(multistep, steps, order=order, predict=predict, correct=True) == steps
    assert evaluations(multistep, steps, order=order, predict=predict, correct=True, end=0.1) == steps


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("churn", [0.0, 10.0])
def test_heun_twice_a_step_but_once_to_clean_data_or_from_pure_noise(churn, steps):
    assert evaluations(heun, steps, churn=churn, end=0.1) == 2 * steps
    assert evaluations(heun, steps, churn=churn) == 2 * steps - 1
    assert evaluations(heun, steps, churn=churn, schedule=rectified()) == max(1, 2 * steps - 2)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("order", [2, 3])
def test_a_single_step_method_asks_its_order_a_step(order, steps):
    assert evaluations(dpm_singlestep, steps, order=order, end=0.1) == order * steps
    assert evaluations(dpm_singlestep, steps, order=order) == order * (steps - 1) + 1
    assert evaluations(dpm_singlestep, steps, order=order, schedule=rectified()) == max(1, order * (steps - 2) + 2)


@pytest.mark.parametrize(
    ("order", "counts"), [(2, {1: 1, 2: 3, 3: 4, 10: 11, 50: 51}), (4, {1: 1, 2: 5, 3: 9, 10: 19, 50: 59})]
)
def test_pndm_asks_more_while_it_warms_up(order, counts):
    """The first ``order - 1`` steps take 2 (S-PNDM) or 4 (F-PNDM) evaluations; one to clean data takes 1."""
    extra = {2: 1, 4: 3}[order]
    for steps, count in counts.items():
        assert evaluations(pndm, steps, order=order) == count
        assert evaluations(pndm, steps, order=order, end=0.1) == steps + extra * min(order - 1, steps)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("corrections", [0, 1, 3])
def test_predictor_corrector_asks_again_at_every_level_that_has_noise(corrections, steps):
    assert evaluations(predictor_corrector, steps, corrections=corrections) == steps + corrections * (steps - 1)
    assert evaluations(predictor_corrector, steps, corrections=corrections, end=0.1) == steps * (1 + corrections)


def test_the_adaptive_flow_asks_as_the_tolerance_says():
    """Not as the grid says: ten times as many times cost nothing, a thousandth of the tolerance does."""
    loose = evaluations(partial(probability_flow, rtol=1e-3, atol=1e-3), 1, end=0.01)
    assert evaluations(partial(probability_flow, rtol=1e-3, atol=1e-3), 10, end=0.01) == loose
    assert evaluations(partial(probability_flow, rtol=1e-6, atol=1e-6), 1, end=0.01) > loose
    assert evaluations(probability_flow, 1) == 1


def test_the_probes_of_a_likelihood_share_their_evaluations():
    counts = []
    for probes in (1, 8):
        denoiser = Counted()
        x0 = torch.ones(2, 3, dtype=torch.float64)
        log_likelihood(denoiser, SCHEDULE, x0, probes=probes, generator=torch.Generator().manual_seed(0))
        counts.append(denoiser.calls)
    assert counts[0] == counts[1]
