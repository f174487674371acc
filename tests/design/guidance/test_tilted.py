"""Exact labels and tilted distributions: closed forms and quadrature; what guidance samples instead."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from torch import Tensor

from survey_lib.core import grids
from survey_lib.core.exact import GaussianMixture
from survey_lib.core.integrators import log_likelihood, multistep, probability_flow
from survey_lib.core.schedules import Schedule, edm, vp_cosine, vp_linear
from survey_lib.design.guidance import (
    Classifier,
    ClassifierFree,
    ExactLabels,
    Tilted,
    guided_error,
    guided_log_prob,
)
from tests.design.guidance.support import ANY, LABELS, LINE, PAIR, PLANE, draw, every_schedule, exactly, scales, times
from tests.support import generator, quick


@every_schedule
@quick
@given(t=times)
def test_the_labels_of_two_equal_normal_laws_are_a_logistic_function(schedule, t):
    x_t = 2 * draw(9, 2)
    alpha, sigma = schedule.scales(t)
    slope = 2 * alpha * x_t[:, 0] / (alpha**2 * 0.25 + sigma**2)
    labels = ExactLabels(PAIR, schedule)
    exactly(labels.log_prob(x_t, t, 0), torch.nn.functional.logsigmoid(slope))
    exactly(labels.log_prob(x_t, t, torch.ones(9, dtype=torch.long)), torch.nn.functional.logsigmoid(-slope))
    exactly(labels.log_probs(x_t, t).exp().sum(1), torch.ones(9, dtype=torch.float64))


def test_components_of_one_label_are_added_up():
    x_t, schedule = draw(9, 2), vp_cosine()
    per_component = PLANE.responsibilities(x_t, 0.4, schedule)
    found = PLANE.label_log_probs(x_t, 0.4, schedule).exp()
    exactly(found, torch.stack([per_component[:, 0], per_component[:, 1:].sum(1)], 1))


@quick
@given(t=times, scale=scales)
def test_guidance_by_exact_labels_is_classifier_free(t, scale):
    x_t, y, schedule = draw(9, 2), torch.arange(9) % 2, vp_linear()
    denoiser = PLANE.denoiser(schedule)
    by_labels = Classifier(denoiser, ExactLabels(PLANE, schedule).log_prob, schedule, scale)
    exactly(by_labels(x_t, t, y), ClassifierFree(denoiser, -1, scale)(x_t, t, y))


def test_the_error_of_a_guided_answer_is_0_for_the_exact_classifier_and_1_for_one_that_says_nothing():
    class Silent:
        def log_prob(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return 0 * x_t.sum(1)

    def error(labels) -> float:
        return guided_error(labels, PLANE, vp_cosine(), generator=generator())

    assert error(ExactLabels(PLANE, vp_cosine())) < 1e-6 and error(Silent()) == pytest.approx(1)


GRID = torch.linspace(-4, 4, 4001, dtype=torch.float64)[:, None]


def tilted_density(scale: float) -> Tensor:
    """``p(x0) p(y = 1 | x0)^scale`` of LINE on GRID, normalised by the trapezoid rule."""
    class_one = LINE.responsibilities(GRID, 0.0, edm())[:, 1:].sum(1)
    density = LINE.log_prob(GRID).exp() * class_one**scale
    return density / torch.trapezoid(density, GRID[:, 0])


def tilted_denoiser(x_t: Tensor, t: float, scale: float, schedule: Schedule) -> Tensor:
    """``E[x0 | x_t]`` under the tilted law, by quadrature."""
    alpha, sigma = schedule.scales(t)
    logits = tilted_density(scale).clamp_min(1e-300).log() - 0.5 * ((x_t - alpha * GRID.T) / sigma) ** 2
    return logits.softmax(1) @ GRID


def gap(t: float, scale: float, schedule: Schedule) -> float:
    """The farthest that guidance and the tilted law's own denoiser are apart, over where x_t mostly is."""
    alpha, sigma = schedule.scales(t)
    x_t = torch.linspace(-1, 1, 41, dtype=torch.float64)[:, None] * (alpha + 2 * sigma)
    guided = ClassifierFree(LINE.denoiser(schedule), ANY, scale)(x_t, t, 1)
    return (guided - tilted_denoiser(x_t, t, scale, schedule)).abs().max().item()


@pytest.mark.parametrize("t", [0.1, 0.3, 0.6, 0.9, 1.0])
def test_only_at_scale_0_and_1_is_the_guided_denoiser_that_of_the_tilted_law(t):
    assert gap(t, 0.0, vp_cosine()) < 1e-9 and gap(t, 1.0, vp_cosine()) < 1e-9
    assert gap(t, 3.0, vp_cosine()) > 0.02


def test_the_gap_closes_with_the_noise_and_is_known_at_its_height():
    schedule = vp_cosine()
    closing = [gap(t, 3.0, schedule) for t in (0.2, 0.1, 0.05, 0.025)]
    assert all(late < 0.5 * early for early, late in pairwise(closing))
    # from pure noise guidance aims at a point on the line through two means, the tilted law at its own mean
    means = LINE.means[:, 0]
    everyone, wanted = (means * LINE.weights).sum(), (means * LINE.weights)[1:].sum() / LINE.weights[1:].sum()
    tilted = torch.trapezoid(tilted_density(3.0) * GRID[:, 0], GRID[:, 0])
    height = (everyone + 3 * (wanted - everyone) - tilted).abs().item()
    assert gap(1.0, 3.0, schedule) == pytest.approx(height, rel=1e-9)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_guided_flow_has_the_density_of_the_tilted_law_only_at_scale_1(scale):
    x = torch.linspace(-3, 3, 241, dtype=torch.float64)[:, None]
    guided = ClassifierFree(LINE.denoiser(vp_cosine()), ANY, scale)
    found = log_likelihood(guided, vp_cosine(), x, cond=1, probes=None, rtol=1e-7, atol=1e-7).exp()
    assert torch.trapezoid(found, x[:, 0]).item() == pytest.approx(1, abs=1e-3)
    wanted = tilted_density(scale)[(x[:, 0] + 4).div(0.002).round().long()]
    distance = 0.5 * torch.trapezoid((found - wanted).abs(), x[:, 0]).item()  # total variation
    assert distance < 1e-3 if scale == 1 else distance > 0.1


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 4.0])
def test_of_normal_laws_guidance_takes_the_geometric_mean_of_precisions(scale):
    """Towards a narrow peak of deviation a, away from a wide one of b: closed forms of both laws."""
    a, b, schedule = 0.3, 1.0, edm(sigma_max=1000.0)
    law = GaussianMixture(torch.zeros(2, 1), scales=torch.tensor([a, b]), labels=torch.tensor([0, 1]))
    guided = ClassifierFree(law.denoiser(schedule), null=1, scale=scale)
    start = schedule.scales(1.0)[1] * torch.tensor([[1.0], [-0.5]], dtype=torch.float64)
    end = probability_flow(guided, schedule, start, torch.tensor([1.0, 1e-8]), cond=0, rtol=1e-9, atol=1e-11)
    deviation = a**scale * b ** (1 - scale)
    torch.testing.assert_close(end[:, 0], deviation * torch.tensor([1.0, -0.5]).double(), rtol=1e-5, atol=0)
    precision, tilted = deviation**-2, scale * a**-2 + (1 - scale) * b**-2
    if scale == 1:
        assert precision == pytest.approx(tilted)
    else:  # too narrow above 1, too wide below
        assert (precision > 1.05 * tilted) if scale > 1 else (precision < 0.95 * tilted)


@pytest.mark.parametrize("scale", [0.0, 1.0])
@pytest.mark.parametrize("law", [LINE, PLANE], ids=["line", "plane"])
def test_at_scale_0_and_1_the_tilted_law_is_the_mixture_and_its_class(law, scale):
    tilted, schedule = Tilted(law, 1, scale), vp_cosine()
    own = LABELS == 1 if scale else torch.ones(3, dtype=torch.bool)
    wanted = GaussianMixture(
        law.means[own], scales=law.variances[own, :1].sqrt().expand(-1, law.means.shape[1]), weights=law.weights[own]
    )
    x = 0.7 * draw(9, law.means.shape[1])
    torch.testing.assert_close(tilted.log_prob(x), wanted.log_prob(x), rtol=1e-6, atol=1e-6)
    for t in (0.3, 0.8, 1.0):
        found = tilted.denoiser(schedule)(x, t)
        torch.testing.assert_close(found, wanted.denoiser(schedule)(x, torch.tensor(t)), rtol=1e-5, atol=1e-5)


def test_the_tilted_denoiser_is_that_of_its_own_density():
    """Tweedie by finite differences of the noised density, which is a sum over the points."""
    tilted, schedule, t, h = Tilted(LINE, 1, 3.0, cells=801), vp_cosine(), 0.4, 1e-4
    alpha, sigma = schedule.scales(t)

    def log_density(x: Tensor) -> Tensor:
        density = tilted.log_prob(tilted.points) - 0.5 * ((x - alpha * tilted.points.T) / sigma) ** 2
        return density.logsumexp(1, keepdim=True)

    x = torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None]
    score = (log_density(x + h) - log_density(x - h)) / (2 * h)
    torch.testing.assert_close(tilted.denoiser(schedule)(x, t), (x + sigma**2 * score) / alpha, rtol=1e-5, atol=1e-5)


def test_a_sampler_with_the_tilted_denoiser_reaches_the_tilted_law_and_guidance_does_not():
    schedule, scale = vp_cosine(), 3.0
    tilted = Tilted(LINE, 1, scale, cells=401)
    noise = torch.special.ndtri((torch.arange(500, dtype=torch.float64) + 0.5) / 500)[:, None]  # even in probability
    times = grids.uniform_lambda(60, schedule, t_min=0.03, t_max=0.999)
    start = schedule.scales(times[0])[1] * noise
    right, guided = (
        multistep(denoiser, schedule, start, times, cond=1)
        for denoiser in (tilted.denoiser(schedule), ClassifierFree(LINE.denoiser(schedule), -1, scale))
    )
    wanted = tilted.points[:, 0] @ tilted.log_mass.exp()
    assert abs(right.mean() - wanted) < 0.02 < 0.1 < abs(guided.mean() - wanted)
    drawn = tilted.sample(4000, generator=generator())
    assert abs(drawn.double().mean() - wanted) < 0.02 and drawn.dtype == torch.float32


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_the_density_of_guidance_is_where_its_flow_leads(scale):
    """Total mass one, and by the flow of two end points: the mass between them is that of the noise they came from."""
    schedule = vp_cosine()
    start = torch.tensor([[-0.5], [1.0]], dtype=torch.float64)
    guided = ClassifierFree(LINE.denoiser(schedule), -1, scale)
    ends = probability_flow(guided, schedule, start, torch.tensor([1.0, 1e-5]), cond=1, rtol=1e-8, atol=1e-8)[:, 0]
    low, high = ends.sort().values
    x = torch.linspace(float(low), float(high), 201, dtype=torch.float64)
    density = guided_log_prob(LINE, schedule, 1, scale, x[:, None]).exp()
    wanted = torch.special.ndtr(start[1]) - torch.special.ndtr(start[0])
    assert torch.trapezoid(density, x).item() == pytest.approx(wanted.item(), abs=2e-4)
