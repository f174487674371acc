"""Steps chosen by an error estimate: the distribution they reach, their counts, their Brownian paths."""

from __future__ import annotations

import math

import pytest
import torch

from survey_lib.core import toys
from survey_lib.core.exact import GaussianMixture
from survey_lib.core.schedules import vp_cosine, vp_linear
from survey_lib.design.score import (
    adaptive_sde,
    ks_critical_value,
    ks_distance,
)
from survey_lib.design.score.brownian import BrownianPaths
from survey_lib.lab.evaluation.cost import CountCalls
from tests.design.score.support import exactly
from tests.support import generator

ENDS = torch.tensor([1.0, 1e-3, 0.0], dtype=torch.float64)


def test_the_adaptive_law_nears_the_target_as_the_tolerance_falls():
    target, schedule = toys.two_peaks(balance=0.3), vp_linear()
    counted, gaps, costs = CountCalls(target.denoiser(schedule)), [], []
    for tolerance in (0.5, 0.1, 0.02):
        counted.reset()
        start = torch.randn(2000, 1, generator=generator(), dtype=torch.float64)
        x = adaptive_sde(counted, schedule, start, ENDS, rtol=tolerance, atol=tolerance / 2, generator=generator(1))
        gaps.append(ks_distance(x, target, 0.0, schedule))
        costs.append(counted.examples)
    assert gaps[0] > gaps[1] > gaps[2] and costs[0] < costs[1] < costs[2]
    assert gaps[2] < ks_critical_value(2000, 1e-3) < gaps[0]


def test_drawing_refused_noise_anew_narrows_what_it_should_not():
    """As published, in one dimension: the error stays, however small the tolerance."""
    target, schedule = toys.two_peaks(balance=0.3), vp_linear()
    start = torch.randn(2000, 1, generator=generator(), dtype=torch.float64)
    kept, redrawn = (
        adaptive_sde(
            target.denoiser(schedule),
            schedule,
            start,
            ENDS,
            rtol=0.02,
            atol=0.01,
            redraw=redraw,
            generator=generator(1),
        )
        for redraw in (False, True)
    )
    assert ks_distance(redrawn, target, 0.0, schedule) > 2 * ks_critical_value(2000, 1e-3)
    assert ks_distance(kept, target, 0.0, schedule) < ks_critical_value(2000, 1e-3)


def test_paths_are_the_same_path_however_finely_drawn():
    """What is put back and drawn again in parts adds up to what it was; what is new has the variance of its span."""
    paths, rows, source = BrownianPaths(torch.zeros(5000, 1).double()), torch.arange(5000), generator()
    whole = torch.full((5000,), 0.4, dtype=torch.float64)
    _, rise = paths.step(rows, whole, source)
    paths.reject(rows, whole, rise)
    parts, spans, variances = [], [], []
    for share in (0.1, 0.2, 1.0):
        span, part = paths.step(rows, torch.full_like(whole, share), source)
        parts.append(part)
        spans.append(span[0].item())
        variances.append(part.var().item())
    assert spans == pytest.approx([0.1, 0.2, 0.1]) and (paths.depth == 0).all()
    exactly(sum(parts), rise)
    assert variances == pytest.approx(spans, rel=5 * math.sqrt(2 / 5000))
    assert abs(torch.corrcoef(torch.cat(parts, 1).T)[0, 1]) < 5 / math.sqrt(5000)


def test_the_adaptive_solver_counts_what_it_tries():
    target, schedule = toys.eight_modes(), vp_linear()
    counted, tried = CountCalls(target.denoiser(schedule)), []
    x = adaptive_sde(
        counted, schedule, torch.randn(6, 2, generator=generator()), ENDS, rtol=0.1, generator=generator(1),
        callback=lambda x, t, x0: tried.append(t.clone()),
    )  # fmt: skip
    assert x.shape == (6, 2)
    *attempts, last = tried
    assert last.item() == 1e-3
    assert counted.calls == 2 * len(attempts) + 1
    assert counted.examples == 2 * sum(map(len, attempts)) + 6
    assert all((t > 1e-3).all() for t in attempts)
    with pytest.raises(RuntimeError, match="6 of 6 examples need more than 20 evaluations"):
        counted.reset()
        adaptive_sde(
            counted, schedule, torch.randn(6, 2, generator=generator()), ENDS, limit=20, generator=generator(1)
        )
    assert counted.calls <= 20


def test_examples_do_not_disturb_one_another():
    """Each has its own steps; the conditions stay with their examples."""
    schedule, means = vp_linear(), torch.tensor([[-3.0], [0.0], [5.0]])
    target = GaussianMixture(means, scales=1e-3, labels=torch.arange(3))
    labels = torch.tensor([2, 0, 1, 2])
    x = adaptive_sde(
        target.denoiser(schedule), schedule, torch.randn(4, 1, generator=generator()), ENDS, rtol=0.1, cond=labels,
        generator=generator(1),
    )  # fmt: skip
    torch.testing.assert_close(x, means[labels], rtol=0, atol=0.02)


@pytest.mark.parametrize(
    "schedule, times, options, words",
    [
        (vp_linear(), [1.0, 0.0], {}, "a time before it"),
        (vp_cosine(), [1.0, 1e-3, 0.0], {}, "no finite drift"),
        (vp_linear(), [1.0, 1e-3, 0.0], {"rtol": 0.0, "atol": 0.0}, "tolerances"),
        (vp_linear(), [1.0, 1e-3, 0.0], {"first": 0.0}, "tolerances"),
    ],
)
def test_the_adaptive_solver_refuses_what_cannot_be(schedule, times, options, words):
    denoiser = toys.two_peaks().denoiser(schedule)
    with pytest.raises(ValueError, match=words):
        adaptive_sde(denoiser, schedule, torch.zeros(2, 1), torch.tensor(times), generator=generator(), **options)
