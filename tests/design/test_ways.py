"""All ways of guiding by name, and the error of a guide held to mixtures whose guide is known."""

from __future__ import annotations

import pytest
import torch

from survey_lib.core import toys
from survey_lib.core.schedules import vp_cosine
from survey_lib.design.guidance import ExactLabels, guided_error, ways

SCHEDULE, LAW = vp_cosine(), toys.eight_modes(scale=0.2)
LABELS, DENOISER = ExactLabels(LAW, SCHEDULE), LAW.denoiser(SCHEDULE)
#: Guides of images: they blur, and have a similarity, which laws of points do not know.
OF_IMAGES = {"blurred", "blurred, sharpening", "contrastive"}


class Named(ExactLabels):
    """Exact labels that can be asked for a similarity too."""

    def similarity(self, x_t, t, cond):
        return self.log_prob(x_t, t, cond)


def net(role):
    return (lambda x, t, cond=None: DENOISER(x, t)) if role == "base" else DENOISER


def every():
    return ways(SCHEDULE, Named(LAW, SCHEDULE), LABELS.log_prob, -1, (0.1, 5.0))


def states():
    g = torch.Generator().manual_seed(0)
    x0, y = LAW.sample_labelled(30, generator=g, dtype=torch.float64)
    alpha, sigma = SCHEDULE.scales(0.4)
    return alpha * x0 + sigma * torch.randn(x0.shape, generator=g, dtype=torch.float64), 0.4, y


@pytest.mark.parametrize("name", ["classifier-free", "interval", "classifier", "clean classifier", "contrastive"])
def test_every_exact_way_is_the_conditional_law_at_scale_one(name):
    x, t, y = states()
    torch.testing.assert_close(every()[name](net, 1.0)(x, t, y), DENOISER(x, t, y))


@pytest.mark.parametrize("name", ["classifier", "clean classifier", "entropy-scaled", "contrastive"])
def test_a_classifier_at_scale_zero_guides_nothing(name):
    x, t, y = states()
    torch.testing.assert_close(every()[name](net, 0.0)(x, t, y), DENOISER(x, t))


def test_every_way_answers_in_the_shape_of_its_question():
    for name, way in every().items():
        x, t, y = states()
        if name not in OF_IMAGES:
            assert way(net, 2.0)(x, t, y).shape == x.shape


def test_the_exact_classifier_has_no_error_and_a_silent_one_all_of_it():
    class Silent:
        def log_prob(self, x_t, t, cond):
            return 0 * x_t.sum(1)

    g = torch.Generator().manual_seed(0)
    assert guided_error(LABELS, LAW, SCHEDULE, generator=g) == pytest.approx(0, abs=1e-5)
    assert guided_error(Silent(), LAW, SCHEDULE, generator=g) == pytest.approx(1)
