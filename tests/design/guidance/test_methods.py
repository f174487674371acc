"""The ways of guiding by name: what they cost, which of them are one where all is exact, and a guide's own error."""

from __future__ import annotations

import pytest
import torch

from survey_lib.core.exact import GaussianMixture
from survey_lib.core.schedules import vp_cosine
from survey_lib.design.guidance import ExactLabels, guidance_methods, guided_error
from survey_lib.lab.evaluation.cost import CountCalls
from tests.support import generator

SCHEDULE = vp_cosine()
LAW = GaussianMixture(torch.randn(3, 1, 8, 8, generator=generator()) / 3, scales=0.3, labels=torch.tensor([0, 1, 1]))
LABELS = ExactLabels(LAW, SCHEDULE)
EXACT = LAW.denoiser(SCHEDULE)
NETS = {
    "base": lambda x_t, t, cond=None: EXACT(x_t, t),
    "conditional": EXACT,
    "weak": lambda x_t, t, cond=None: 0.9 * EXACT(x_t, t, cond),
}
X = torch.randn(4, 1, 8, 8, generator=generator(1), dtype=torch.float64)
Y, T = torch.arange(4) % 2, 0.5  # sigma = alpha
EVALUATIONS = {
    "classifier-free": 2, "interval": 2, "autoguidance": 2, "rescaled": 2, "thresholded": 2, "classifier": 1,
    "clean classifier": 1, "entropy-scaled": 1, "contrastive": 1, "blurred": 2, "blurred, sharpening": 2,
}  # fmt: skip


def every(interval: tuple[float, float] = (0.5, 2.0), clean=lambda x_t, t, y: LABELS.log_prob(x_t, 0.01, y)):
    return guidance_methods(SCHEDULE, LABELS, clean, -1, interval)


def answer(name: str, scale: float, **options):
    return every(**options)[name](NETS.__getitem__, scale)(X, T, Y)


@pytest.mark.parametrize("name", every())
def test_a_way_answers_and_costs_what_is_known(name):
    counted = {role: CountCalls(net) for role, net in NETS.items()}
    found = every()[name](counted.__getitem__, 2.0)(X, T, Y)
    assert found.shape == X.shape and not torch.equal(found, EXACT(X, T)) and not torch.equal(found, EXACT(X, T, Y))
    assert sum(one.examples for one in counted.values()) == EVALUATIONS[name] * len(X)


@pytest.mark.parametrize(
    "name", ["classifier-free", "interval", "rescaled", "classifier", "clean classifier", "contrastive"]
)
def test_every_exact_way_is_the_conditional_law_at_scale_one(name):
    torch.testing.assert_close(answer(name, 1.0, clean=LABELS.log_prob), EXACT(X, T, Y))


@pytest.mark.parametrize("name", ["classifier", "clean classifier", "entropy-scaled", "contrastive"])
def test_a_classifier_at_scale_zero_guides_nothing(name):
    assert torch.equal(answer(name, 0.0), EXACT(X, T))


def test_where_all_is_exact_three_ways_are_one():
    for name in ("classifier", "contrastive"):
        torch.testing.assert_close(answer(name, 2.0), answer("classifier-free", 2.0), rtol=1e-4, atol=1e-5)


def test_the_scales_that_guide_nothing():
    assert torch.equal(answer("classifier-free", 1.0), EXACT(X, T, Y))
    assert torch.equal(answer("autoguidance", 1.0), EXACT(X, T, Y))
    assert torch.equal(answer("interval", 3.0, interval=(2.0, 3.0)), EXACT(X, T, Y))


def test_the_exact_classifier_has_no_error_and_a_silent_one_all_of_it():
    class Silent:
        def log_prob(self, x_t, t, cond):
            return 0 * x_t.flatten(1).sum(1)

    source = generator()
    assert guided_error(LABELS, LAW, SCHEDULE, generator=source) == pytest.approx(0, abs=1e-5)
    assert guided_error(Silent(), LAW, SCHEDULE, generator=source) == pytest.approx(1)
