"""Mixtures with labels, and what is known exactly of them."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from survey_lib.core.exact import GaussianMixture
from survey_lib.core.schedules import Schedule, edm, rectified, vp_cosine, vp_linear
from tests import support
from tests.support import generator

draw = partial(support.draw, dtype=torch.float64)
exactly = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)
SCHEDULES = [vp_linear(), vp_cosine(), edm(), rectified()]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
scales, times = st.floats(-3, 8), st.floats(0.05, 0.95)

#: Two classes in the plane, one of two spots; and two overlapping ones on a line.
MEANS = torch.tensor([[0.6, 0.2], [-0.4, 0.5], [-0.1, -0.6]])
WIDTHS, SHARES, LABELS = torch.tensor([0.2, 0.3, 0.25]), torch.tensor([0.5, 0.2, 0.3]), torch.tensor([0, 1, 1])
PLANE = GaussianMixture(MEANS, scales=WIDTHS, weights=SHARES, labels=LABELS)
LINE = GaussianMixture(
    torch.tensor([[-0.6], [0.1], [0.7]]), scales=torch.tensor([0.25, 0.3, 0.2]), weights=SHARES, labels=LABELS
)
#: Two equal normal distributions: log p(0 | x_t) - log p(1 | x_t) is linear in x_t, known by hand.
PAIR = GaussianMixture(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), scales=0.5, labels=torch.arange(2))
ANY = -1  # "no label" of a mixture


def noised(t: float | Tensor, schedule: Schedule, count: int = 12) -> tuple[Tensor, Tensor]:
    """States at t, (count, 2), and a label for each."""
    x0, labels = PLANE.sample_labelled(count, generator=generator(1), dtype=torch.float64)
    alpha, sigma = schedule.scales(t, x0)
    return alpha * x0 + sigma * draw(count, 2), labels


def exact_classifier(schedule: Schedule):
    """``log p(y | x_t) = log p(x_t | y) + log p(y) - log p(x_t)`` of PLANE."""
    chosen = [y == LABELS for y in (0, 1)]
    laws = [GaussianMixture(MEANS[own], scales=WIDTHS[own], weights=SHARES[own]) for own in chosen]
    prior = torch.stack([SHARES[own].double().sum() for own in chosen]).log()

    def log_prob(x_t: Tensor, t: Tensor | float, cond: Tensor) -> Tensor:
        joint = torch.stack([law.log_prob(x_t, t, schedule) for law in laws], 1) + prior
        return joint.gather(1, cond[:, None])[:, 0] - PLANE.log_prob(x_t, t, schedule)

    return log_prob
