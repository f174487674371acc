"""Students: the perfect one walks as its teacher does, and every loss is least where it should be."""

import pytest
import torch

from survey_lib.core import grids, schedules
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.exact import GaussianLaw, GaussianMixture
from survey_lib.core.integrators import multistep
from survey_lib.process.training import (
    LogNormalLevels,
    TwoSteps,
    consistency_loss,
    guided_loss,
    pair_loss,
    progressive_loss,
)
from tests.support import draw, generator

LAW = GaussianMixture(torch.tensor([[-0.6, 0.2], [0.5, 0.4], [0.1, -0.7]]), scales=0.2, labels=torch.arange(3))
SCHEDULES = {
    "cosine": schedules.vp_cosine(),
    "linear": schedules.vp_linear(),
    "edm": schedules.edm(),
    "rectified": schedules.rectified(),
}
COSINE = SCHEDULES["cosine"]


def noise(schedule, count=50):
    return schedule.scales(1.0)[1] * draw(count, 2, seed=1, dtype=torch.float64)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_chain_of_perfect_students_walks_in_one_step_where_the_teacher_walks_in_eight(name):
    schedule = SCHEDULES[name]
    denoiser, times, x = LAW.denoiser(schedule), grids.karras(8, schedule), noise(schedule)
    wanted = multistep(denoiser, schedule, x, times, order=1)
    for steps in (4, 2, 1):
        student = TwoSteps(denoiser, schedule, times)
        denoiser, times = student, student.grid
        assert len(times) == steps + 1
        torch.testing.assert_close(multistep(denoiser, schedule, x, times, order=1), wanted, rtol=1e-6, atol=1e-7)


def test_the_condition_is_handed_on_and_other_times_are_refused():
    times = grids.uniform(4)
    student = TwoSteps(LAW.denoiser(COSINE), COSINE, times)
    x, labels = noise(COSINE, 6), torch.tensor([0, 1, 2, 0, 1, 2])
    told = multistep(student, COSINE, x, student.grid, order=1, cond=labels)
    torch.testing.assert_close(told, multistep(LAW.denoiser(COSINE), COSINE, x, times, order=1, cond=labels))
    mixed = student(x[:2], torch.tensor([1.0, 0.5], dtype=torch.float64))
    torch.testing.assert_close(mixed[1:], student(x[1:2], 0.5))
    with pytest.raises(ValueError, match=r"asked at the times \[1.0, 0.5\]; got 0.75"):
        student(x, 0.75)
    with pytest.raises(ValueError, match="number is even; got 3"):
        TwoSteps(student, COSINE, grids.uniform(3))


def test_the_progressive_loss_is_zero_for_the_perfect_student_and_not_for_its_teacher():
    teacher = LAW.denoiser(COSINE)
    student = TwoSteps(teacher, COSINE, grids.uniform(8))
    loss, x0 = progressive_loss(student), LAW.sample(64, generator=generator(4), dtype=torch.float64)
    zero, lam = loss(student, x0, None, generator(5))
    assert zero.abs().max() < 1e-18 and loss(teacher, x0, None, generator(5))[0].mean() > 1e-4
    assert set(lam.tolist()) <= set(COSINE.lam(student.grid[:-1]).tolist()) and len(set(lam.tolist())) == 4


def test_the_guided_loss_is_zero_for_a_student_that_knows_its_scale():
    def guided(scale):
        return lambda x, t, cond: scale * LAW.denoiser(COSINE)(x, t, cond)

    def student(x, t, cond):
        labels, scale = cond
        assert scale.unique().numel() == 1 and 1 <= scale[0] <= 3
        return scale[:, None] * LAW.denoiser(COSINE)(x, t, labels)

    loss = guided_loss(guided, COSINE, (1.0, 3.0), LogNormalLevels())
    x0, labels = LAW.sample(32, generator=generator(6), dtype=torch.float64), torch.arange(32) % 3
    assert loss(student, x0, labels, generator(7))[0].max() < 1e-12
    assert loss(lambda x, t, cond: guided(1.0)(x, t, cond[0]), x0, labels, generator(7))[0].mean() > 1e-3


def test_the_loss_of_pairs_is_zero_for_the_map_behind_them():
    schedule = SCHEDULES["edm"]
    start = draw(40, 2, seed=8, dtype=torch.float64)
    teacher, times = LAW.denoiser(schedule), grids.karras(10, schedule)
    images = multistep(teacher, schedule, schedule.scales(1.0)[1] * start, times, order=1)
    grid = torch.cat([times[:9], times[-1:]])  # eight steps and a last one
    ends = multistep(teacher, schedule, schedule.scales(1.0)[1] * start, grid, order=1)
    loss = pair_loss(schedule)
    assert loss(lambda x, t: images, images, start, generator())[0].max() == 0
    assert loss(lambda x, t: ends, images, start, generator())[0].mean() > 0


def test_the_student_of_pairs_is_asked_where_sampling_begins():
    seen = []

    def student(x, t):
        seen.append((x, float(t)))
        return x

    eps = draw(6, 2, seed=9, dtype=torch.float64)
    pair_loss(COSINE, 0.9)(student, torch.zeros_like(eps), eps, generator())
    torch.testing.assert_close(seen[0][0], COSINE.scales(0.9)[1] * eps)
    assert seen[0][1] == 0.9


@pytest.mark.parametrize("steps", [20, 40])
def test_the_consistency_function_of_a_normal_law_is_nearly_consistent_with_its_teacher(steps):
    """Along the probability flow of ``N(0, v)`` the clean end is ``x_t sqrt(v / (alpha^2 v + sigma^2))``.

    A step of DDIM misses the flow by the square of its length, and the loss divides by the length: it halves with the
    steps. That of the teacher's denoiser, which is not consistent, is larger.
    """
    schedule, v = SCHEDULES["edm"], 0.3
    law = GaussianLaw(torch.zeros(2), v * torch.eye(2))
    teacher = law.denoiser(schedule)

    def consistent(x, t, cond=None):
        alpha, sigma = schedule.scales(t, like=x)
        return x * (v / (alpha**2 * v + sigma**2)).sqrt()

    x0 = law.sample(500, generator=generator(9), dtype=torch.float64)
    values = {}
    for n in (steps, 2 * steps):
        loss = consistency_loss(schedule, grids.karras(n, schedule), teacher=teacher)
        values[n] = loss(consistent, x0, None, generator(10))[0].mean()
    assert values[2 * steps] < 0.7 * values[steps]
    assert values[2 * steps] < loss(teacher, x0, None, generator(10))[0].mean()


def test_consistency_training_of_a_single_point_is_exact_and_stops_gradients_at_the_cleaner_time():
    point = torch.tensor([[0.3, -0.2]], dtype=torch.float64).expand(30, 2)
    loss = consistency_loss(COSINE, grids.uniform(10))
    values, lam = loss(lambda x, t, cond: point, point, None, generator(11))
    assert values.max() == 0 and lam.shape == (30,)
    calls = []

    def model(x, t, cond):
        calls.append(torch.is_grad_enabled())
        return Gaussian(COSINE).schedule.scales(t, like=x)[0] * x

    loss(model, point, None, generator(11))
    assert calls == [False, True]
