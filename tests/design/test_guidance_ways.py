"""The ways of guiding by name: what they cost, and which of them are one where all is exact."""

from __future__ import annotations

import pytest
import torch

from survey_lib.core.exact import GaussianMixture
from survey_lib.core.schedules import vp_cosine
from survey_lib.design.guidance import ExactLabels, ways
from survey_lib.lab.cost import CountCalls

SCHEDULE = vp_cosine()
LAW = GaussianMixture(
    torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) / 3, scales=0.3, labels=torch.tensor([0, 1, 1])
)
LABELS = ExactLabels(LAW, SCHEDULE)
EXACT = LAW.denoiser(SCHEDULE)
NETS = {
    "base": lambda x_t, t, cond=None: EXACT(x_t, t),
    "conditional": EXACT,
    "weak": lambda x_t, t, cond=None: 0.9 * EXACT(x_t, t, cond),
}
X, Y, T = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(4) % 2, 0.5  # sigma = alpha
EVALUATIONS = {
    "classifier-free": 2, "interval": 2, "autoguidance": 2, "rescaled": 2, "thresholded": 2, "classifier": 1,
    "clean classifier": 1, "entropy-scaled": 1, "contrastive": 1, "blurred": 2, "blurred, sharpening": 2,
}  # fmt: skip


def every(interval: tuple[float, float] = (0.5, 2.0)):
    return ways(SCHEDULE, LABELS, lambda x_t, t, y: LABELS.log_prob(x_t, 0.01, y), -1, interval)


def answer(name: str, scale: float, **options):
    return every(**options)[name](NETS.__getitem__, scale)(X, T, Y)


@pytest.mark.parametrize("name", every())
def test_a_way_answers_and_costs_what_is_known(name):
    counted = {role: CountCalls(net) for role, net in NETS.items()}
    found = every()[name](counted.__getitem__, 2.0)(X, T, Y)
    assert found.shape == X.shape and not torch.equal(found, EXACT(X, T)) and not torch.equal(found, EXACT(X, T, Y))
    assert sum(one.examples for one in counted.values()) == EVALUATIONS[name] * len(X)


def test_where_all_is_exact_three_ways_are_one():
    for name in ("classifier", "contrastive"):
        torch.testing.assert_close(answer(name, 2.0), answer("classifier-free", 2.0), rtol=1e-4, atol=1e-5)


def test_the_scales_that_guide_nothing():
    assert torch.equal(answer("classifier-free", 1.0), EXACT(X, T, Y))
    assert torch.equal(answer("classifier", 0.0), EXACT(X, T))
    assert torch.equal(answer("autoguidance", 1.0), EXACT(X, T, Y))
    assert torch.equal(answer("interval", 3.0, interval=(2.0, 3.0)), EXACT(X, T, Y))
