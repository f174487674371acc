"""A contest gives all methods the same noise and the same judge, and counts what they spend."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from survey_lib.core.exact import GaussianLaw
from survey_lib.core.schedules import vp_linear
from survey_lib.lab.evaluation import solvers
from survey_lib.lab.evaluation.contest import Contest
from survey_lib.nets.classifier import Classifier

SHAPE, COUNT = (1, 8, 8), 80


@pytest.fixture(scope="module")
def contest():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        eye = Classifier(1, heads=(10,)).eval()
    g = torch.Generator().manual_seed(0)
    law, schedule = GaussianLaw(torch.zeros(SHAPE), 0.1), vp_linear()
    real = torch.randn(COUNT, 64, generator=g, dtype=torch.float64)
    start = torch.randn(COUNT, *SHAPE, generator=g)
    features = len(eye.features(start[:1])[0])
    real = torch.randn(max(COUNT, features + 2), features, generator=g, dtype=torch.float64)[:COUNT]
    return Contest(law.denoiser(schedule), schedule, eye, start, real, 0.5, 1000)


def test_what_is_spent_is_counted(contest):
    found = contest.judge(solvers.bridged(0.0, "DDIM"), 7, generator=torch.Generator())
    assert found["evaluations"] == 7 and found["macs"] == 7000
    assert found["quality"]["spent"] == 7 and found["quality"]["floor"] == 0.5
    assert found["samples"] == {"fd": COUNT, "coverage": COUNT}


def test_the_same_method_and_noise_get_the_same_verdict(contest):
    one, two = (
        contest.judge(solvers.bridged(1.0, "DDPM"), 5, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert one["quality"]["fd"] == two["quality"]["fd"]


def test_a_method_that_stops_by_itself_is_charged_what_it_took(contest):
    def walk(denoiser, schedule, x, times, *, cond=None, callback=None, generator=None):
        half = denoiser(x[: COUNT // 2], times[0])
        return torch.cat([half, denoiser(x[COUNT // 2 :], times[0])])

    method = solvers.Method("halves", "", None, True, partial(walk), solvers.even, price=None)
    found = contest.judge(method, 10, generator=torch.Generator())
    assert found["evaluations"] == 1
