"""Grids: what each spaces evenly, where it starts and ends, and what it refuses."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, EDMEulerScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from survey_lib.core import grids
from survey_lib.core.schedules import edm, from_betas, rectified, ve, vp_cosine, vp_linear, vp_sigmoid

SCHEDULES = [vp_linear(), vp_cosine(), vp_cosine(0.008), vp_sigmoid(), ve(), edm(), rectified()]
SCHEDULES.append(from_betas(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)))

every_grid = {
    "uniform": lambda steps, schedule: grids.uniform(steps),
    "quadratic": lambda steps, schedule: grids.quadratic(steps),
    "trailing": lambda steps, schedule: grids.trailing(steps),
    "karras": grids.karras,
    "uniform_lambda": grids.uniform_lambda,
}


@settings(deadline=None, derandomize=True, max_examples=60)
@given(name=st.sampled_from(list(every_grid)), steps=st.integers(1, 300), schedule=st.sampled_from(SCHEDULES))
def test_a_grid_falls_strictly_from_noise_to_clean_data(name, steps, schedule):
    times = every_grid[name](steps, schedule)
    assert times.shape == (steps + 1,)
    assert times.dtype == torch.float64
    assert times.device.type == "cpu"
    assert times[0] <= 1
    assert times[-1] == 0
    assert (times.diff() < 0).all()


def even(values):
    """All differences agree."""
    torch.testing.assert_close(values.diff(), values.diff()[:1].expand(len(values) - 1), rtol=1e-7, atol=1e-9)


def test_uniform_is_even_in_t_and_quadratic_in_its_root():
    even(grids.uniform(7))
    even(grids.uniform(7, 0.9, 0.2))
    even(grids.quadratic(7).sqrt())
    assert grids.quadratic(7, 0.9, 0.2)[[0, -1]].tolist() == pytest.approx([0.9, 0.2])


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
def test_uniform_lambda_is_even_in_lam(schedule):
    lam = schedule.lam(grids.uniform_lambda(9, schedule, t_min=0.01)[:-1])
    even(lam)
    assert lam[-1].item() == pytest.approx(schedule.lam(0.01).item(), rel=1e-9)
    assert lam[0].item() == pytest.approx(max(schedule.lam(1.0).item(), grids.FAINTEST), rel=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
@pytest.mark.parametrize("rho", [1.0, 7.0])
def test_karras_is_even_in_the_root_of_the_noise(schedule, rho):
    u = torch.exp(-schedule.lam(grids.karras(9, schedule, rho=rho, sigma_min=0.02)[:-1]))
    even(u ** (1 / rho))
    assert u[-1].item() == pytest.approx(0.02, rel=1e-6)
    assert u[0].item() == pytest.approx(min(80.0, math.exp(-schedule.lam(1.0).item())), rel=1e-6)


def test_karras_is_edms():
    theirs = EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, rho=7.0)
    theirs.set_timesteps(18)
    ours = 80 * grids.karras(18, edm())
    torch.testing.assert_close(ours.float(), theirs.sigmas, rtol=2e-6, atol=0)


@pytest.mark.parametrize("steps", [1, 3, 7, 10, 50, 999])
def test_trailing_is_the_grid_of_that_name(steps):
    """diffusers' timestep n of N stands for n + 1 steps of noise: our ``t = (n + 1) / N``."""
    theirs = DDIMScheduler(timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    assert (1000 * grids.trailing(steps)[:-1] - 1).round().long().tolist() == theirs.timesteps.tolist()


@pytest.mark.parametrize("name", every_grid)
@pytest.mark.parametrize(("steps", "error"), [(0, ValueError), (-4, ValueError), (2.5, TypeError), (True, TypeError)])
def test_steps_are_a_positive_whole_number(name, steps, error):
    with pytest.raises(error, match="steps is"):
        every_grid[name](steps, vp_linear())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: grids.uniform(4, start=1.5), "lie in .0, 1."),
        (lambda: grids.uniform(4, start=0.2, end=0.4), "falls strictly"),
        (lambda: grids.quadratic(4, start=0.5, end=0.5), "falls strictly"),
        (lambda: grids.trailing(11, train_steps=10), "at most 10"),
        (lambda: grids.karras(4, edm(), sigma_min=100.0), "sigma_min must lie"),
        (lambda: grids.karras(4, edm(), sigma_min=0.0), "sigma_min must lie"),
        (lambda: grids.uniform_lambda(4, edm(), t_min=0.0), "finite at t_min"),
        (lambda: grids.uniform_lambda(4, edm(), t_min=0.9, t_max=0.5), "falls strictly"),
        (lambda: grids.uniform_lambda(4, vp_cosine(), t_min=0.9999), "above -5.1"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_in_one_sentence(call, says):
    with pytest.raises(ValueError, match=says):
        call()
