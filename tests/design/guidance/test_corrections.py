"""Intervals count what they cost; rescaling and thresholds keep contrast and range."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from survey_lib.core import grids, toys
from survey_lib.core.integrators import multistep
from survey_lib.core.schedules import edm, rectified
from survey_lib.design.guidance import (
    Autoguidance,
    ClassifierFree,
    DynamicThreshold,
    Interval,
    Rescaled,
)
from survey_lib.lab.evaluation.cost import CountCalls
from tests.design.guidance.support import (
    ANY,
    PLANE,
    draw,
    exactly,
)
from tests.support import quick


def test_a_tower_of_wrappers_samples_and_costs_what_its_parts_cost():
    schedule = edm()
    count, weak = CountCalls(PLANE.denoiser(schedule)), CountCalls(toys.eight_modes().denoiser(schedule))
    free = ClassifierFree(count, ANY, 2.0)
    tower = Interval(DynamicThreshold(Rescaled(Autoguidance(free, weak, 1.5))), count, schedule, 0.1, 2.0)
    # EDM's grid: sigma = 80 t
    times = torch.tensor([80.0, 10.0, 2.1, 1.9, 1.0, 0.3, 0.11, 0.09, 0.0]) / 80
    x = multistep(tower, schedule, 80 * draw(16, 2), times, order=1, cond=torch.ones(16, dtype=torch.long))
    assert (weak.examples, count.examples) == (4 * 16, (4 * 2 + 4) * 16)
    assert PLANE.responsibilities(x, 0.05 / 80, schedule)[:, 1:].sum(1).mean() > 0.99


@pytest.mark.parametrize(
    ("low", "high", "inside"),
    [(17, 57, 5), (0, 57, 7), (17, math.inf, 8), (0, math.inf, 10), (81, math.inf, 0), (0, 7, 0)],
)
def test_an_interval_pays_for_guidance_inside_only(low, high, inside):
    """Steps at sigma = 80, 72, ... 8."""
    schedule, y = edm(), torch.zeros(6, dtype=torch.long)
    count = CountCalls(PLANE.denoiser(schedule))
    guided = Interval(ClassifierFree(count, ANY, 3.0), count, schedule, low, high)
    multistep(guided, schedule, 80 * draw(6, 2), grids.uniform(10), order=2, cond=y)
    assert (count.calls, count.examples) == (10, 6 * (10 + inside))


def test_the_upper_end_belongs_to_an_interval_and_the_lower_does_not():
    low, high = torch.tensor(0.25), torch.tensor(0.75)
    interval = Interval(lambda x, t, cond=None: x + 1, lambda x, t, cond=None: x, edm(), 20.0, 60.0)
    x = torch.zeros(3, 1)
    assert not interval(x, low).any() and interval(x, high).all()
    assert interval(x, torch.tensor([0.25, 0.75, 0.5])).flatten().tolist() == [0, 1, 1]
    both_ends = Interval(interval.guided, interval.plain, rectified(), 0.0, math.inf)
    assert both_ends(x, 1.0).all() and not both_ends(x, 0.0).any()


def pictures(scale: float = 1.0) -> Tensor:
    return scale * draw(5, 3, 8, 8) + 0.3


class Answers:
    """A denoiser that answers cond where it is asked for a condition, and half of x_t where not."""

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Tensor:
        return 0.5 * x_t if cond is None else cond


@quick
@given(scale=st.floats(1.5, 8), mix=st.floats(0, 1))
def test_rescaling_takes_back_the_contrast_and_nothing_else(scale, mix):
    x_t, wanted = pictures(), pictures(0.5)
    free = CountCalls(Answers())
    guided = ClassifierFree(free, None, scale)
    plain, full, some = (Rescaled(guided, part)(x_t, 0.5, wanted) for part in (0.0, 1.0, mix))
    assert free.calls == 3 * 2
    exactly(plain, guided(x_t, 0.5, wanted))
    exactly(full.flatten(1).std(1), wanted.flatten(1).std(1))
    exactly(some, (1 - mix) * plain + mix * full)
    ratio = full / plain
    exactly(ratio, ratio[:, :1, :1, :1].expand_as(ratio))


def test_an_answer_without_contrast_is_left_alone():
    flat = torch.ones(2, 1, 4, 4)
    rescaled = Rescaled(Autoguidance(lambda *_: flat, lambda *_: 3 * flat, 2.0), 1.0)
    assert torch.equal(rescaled(flat, 0.5), -flat)


@quick
@given(size=st.floats(0.1, 5), percentile=st.floats(0, 100))
def test_a_threshold_keeps_the_range_and_the_order(size, percentile):
    x0 = pictures(size)
    kept = DynamicThreshold(lambda *_: x0, percentile)(x0, 0.5)
    assert kept.abs().max() <= 1
    order = x0.flatten(1).argsort(1)
    assert (kept.flatten(1).gather(1, order).diff() >= 0).all()
    assert torch.equal(DynamicThreshold(lambda *_: kept, percentile)(x0, 0.5), kept)
    alone = DynamicThreshold(lambda *_: x0[2:3], percentile)(x0, 0.5)
    assert torch.equal(alone, kept[2:3])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_what_is_in_range_is_left_alone(dtype):
    x0 = pictures().tanh().to(dtype)
    for percentile in (0, 50, 99.5, 100):
        kept = DynamicThreshold(lambda *_: x0, percentile)(x0, 0.5)
        assert torch.equal(kept, x0) and kept.dtype == dtype


def test_a_threshold_lies_between_the_static_clamp_and_pure_shrinking():
    x0 = pictures(1.5)
    clamped, shrunk = (DynamicThreshold(lambda *_: x0, percentile)(x0, 0.5) for percentile in (0, 100))
    assert torch.equal(clamped, x0.clamp(-1, 1))
    exactly(shrunk, x0 / x0.abs().amax((1, 2, 3), keepdim=True))
    # with 101 values the 90th percentile is the 91st of them: 10 are clipped, and it becomes the white point
    ramp = torch.linspace(0, 5, 101, dtype=torch.float64)[None]
    kept = DynamicThreshold(lambda *_: ramp, 90)(ramp, 0.5)[0]
    assert (kept == 1).sum() == 11
    exactly(kept[:91], torch.linspace(0, 1, 91, dtype=torch.float64))
