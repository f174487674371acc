"""Grids and coefficients learned by gradients, held to finite differences and to the shortest path."""

import math

import pytest
import torch

from survey_lib.core import grids
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.integrators import multistep
from survey_lib.core.schedules import from_betas, vp_cosine
from survey_lib.process import scheduling
from tests.process.scheduling.support import SCHEDULE, SPOTS, table
from tests.support import draw, generator


def few(steps: int = 5) -> scheduling.LearnedSampler:
    return scheduling.LearnedSampler(SCHEDULE, grids.karras(steps, SCHEDULE, sigma_min=0.05))


def test_few_steps_begin_as_ddim_and_hold_the_second_order_too() -> None:
    x = draw(20, 2, dtype=torch.float64)
    denoiser, sampler = SPOTS.denoiser(SCHEDULE), few()
    grid = grids.karras(5, SCHEDULE, sigma_min=0.05)
    torch.testing.assert_close(sampler.times, grid)
    torch.testing.assert_close(sampler(denoiser, x).detach(), multistep(denoiser, SCHEDULE, x, grid, order=1))
    lam = SCHEDULE.lam(grid[:-1])
    for i in range(1, 4):  # 2M's weight of the difference: integral of e^lam (lam - lam_t) over the step
        h, back = lam[i + 1] - lam[i], lam[i] - lam[i - 1]
        sampler.extrapolation.data[i] = (h - 1 + torch.exp(-h)) / ((1 - torch.exp(-h)) * back)
    torch.testing.assert_close(sampler(denoiser, x).detach(), multistep(denoiser, SCHEDULE, x, grid, order=2))


def test_gradients_reach_times_and_coefficients() -> None:
    x, denoiser, sampler = draw(6, 2, dtype=torch.float64), SPOTS.denoiser(SCHEDULE), few(4)

    def end(gaps, extrapolation):
        parameters = {"gaps": gaps, "extrapolation": extrapolation}
        return torch.func.functional_call(sampler, parameters, (denoiser, x)).square().mean()

    inputs = [p.detach().clone().requires_grad_() for p in (sampler.gaps, sampler.extrapolation)]
    assert torch.autograd.gradcheck(end, inputs, eps=1e-6, atol=1e-6)


def test_learning_lowers_the_error_on_fresh_noises() -> None:
    denoiser, sampler = SPOTS.denoiser(SCHEDULE), few(5)
    start = sampler.times

    def pair(seed):
        x = draw(100, 2, seed=seed, dtype=torch.float64)
        return x, multistep(denoiser, SCHEDULE, x, grids.uniform_lambda(200, SCHEDULE, 1e-4))

    (x, fine), (y, other) = pair(0), pair(1)
    history = scheduling.fit(sampler, lambda: (sampler(denoiser, x) - fine).square().mean(), rounds=40)
    assert history[-1] < 0.5 * history[0]
    before = (multistep(denoiser, SCHEDULE, y, start, order=1) - other).square().mean()
    assert (sampler(denoiser, y) - other).square().mean() < 0.6 * before


def test_a_step_network_begins_with_equal_steps_and_learns_nearly_the_best_walk() -> None:
    found = table(Gaussian(SCHEDULE), nodes=60)
    lam = SCHEDULE.lam(found.times)
    network = scheduling.StepNetwork(SCHEDULE, lam[0].item(), 2.0, generator=generator())
    for steps in (2, 3, 8):
        planned = SCHEDULE.lam(network(steps)[:-1].detach())
        exact = torch.linspace(lam[0].item(), 2.0, steps, dtype=torch.float64)
        torch.testing.assert_close(planned, exact, rtol=1e-6, atol=1e-6)
    scheduling.fit(network, lambda: sum(found.bound(network(k)) for k in (4, 8)), rounds=60, rate=0.1)
    best = scheduling.shortest_paths(found.costs)
    start = found.bound(scheduling.subsequence(found.times, 8)).item()
    for k in (4, 8):
        reached, optimum = found.bound(network(k)).item(), best.costs[k - 1].item() + found.prior
        assert optimum - 0.05 < reached < optimum + 0.1 * abs(start - optimum) + 0.05


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: scheduling.LearnedSampler(vp_cosine(), grids.uniform(3)), "from finite lam down to t = 0"),
        (lambda: scheduling.LearnedSampler(from_betas(torch.tensor([0.1, 0.9])), grids.uniform(2)), "closed t"),
        (lambda: scheduling.StepNetwork(SCHEDULE, 2.0, 1.0, generator=generator()), "start < end"),
        (
            lambda: scheduling.StepNetwork(SCHEDULE, -5.0, 2.0, generator=generator())(1),
            "steps of a step network is at least 2; got 1",
        ),
    ],
)
def test_what_cannot_be_learned_is_refused(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_a_loss_that_explodes_is_reported() -> None:
    sampler = few()
    with pytest.raises(RuntimeError, match=r"loss is not finite after 0 rounds \(nan\): lower the rate"):
        scheduling.fit(sampler, lambda: sampler.extrapolation.sum() * math.nan, rounds=3)
