"""The studies of guidance held to closed forms: entropies, a gradient fitted by DLSM, blurred answers, tilted laws."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from survey_lib.core import grids
from survey_lib.core.exact import GaussianLaw, GaussianMixture
from survey_lib.core.heads import LabelPosterior
from survey_lib.core.integrators import multistep, probability_flow
from survey_lib.core.losses import eps_weight
from survey_lib.core.schedules import edm, rectified, vp_cosine, vp_linear
from survey_lib.design.guidance import (
    Classifier,
    ClassifierFree,
    EntropyScaled,
    ExactLabels,
    SelfGuidance,
    Tilted,
    blur,
    entropy,
    entropy_constraint,
    guided_error,
    guided_log_prob,
    likelihood_score_loss,
)
from survey_lib.nets.mlp import MLP

quick = settings(deadline=None, derandomize=True, max_examples=25)
exactly = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)
every_schedule = pytest.mark.parametrize(
    "schedule", [vp_linear(), vp_cosine(), edm(), rectified()], ids=lambda schedule: schedule.name
)
scales, times = st.floats(-3, 8), st.floats(0.05, 0.95)

MEANS = torch.tensor([[0.6, 0.2], [-0.4, 0.5], [-0.1, -0.6]])
WIDTHS, SHARES, LABELS = torch.tensor([0.2, 0.3, 0.25]), torch.tensor([0.5, 0.2, 0.3]), torch.tensor([0, 1, 1])
PLANE = GaussianMixture(MEANS, scales=WIDTHS, weights=SHARES, labels=LABELS)
LINE = GaussianMixture(
    torch.tensor([[-0.6], [0.1], [0.7]]), scales=torch.tensor([0.25, 0.3, 0.2]), weights=SHARES, labels=LABELS
)
#: Two equal normal laws: log p(0 | x_t) - log p(1 | x_t) is linear in x_t, known by hand.
PAIR = GaussianMixture(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), scales=0.5, labels=torch.arange(2))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------- exact labels


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


def test_a_perfect_contrastive_net_guides_as_a_perfect_classifier_does():
    """``log p(x_t | y) / p(x_t)``: over x_t drawn from the mixture its exponential is 1 on average."""
    x_t, y, schedule, t = draw(9, 2), torch.arange(9) % 2, vp_linear(), 0.3
    labels, denoiser = ExactLabels(PLANE, schedule), PLANE.denoiser(schedule)
    exactly(
        Classifier(denoiser, labels.similarity, schedule, 2.5)(x_t, t, y),
        Classifier(denoiser, labels.log_prob, schedule, 2.5)(x_t, t, y),
    )
    x0 = PLANE.sample(40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alpha, sigma = schedule.scales(t)
    for label in (0, 1):
        average = labels.similarity(alpha * x0 + sigma * draw(40_000, 2, seed=1), t, label).exp().mean()
        assert average.item() == pytest.approx(1, abs=0.02)


# ---------------------------------------------------------------- ED-DPM


def test_entropy_of_known_tables():
    log_probs = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0, 0, 0], [0.5, 0.5, 0, 0]]).log()
    torch.testing.assert_close(entropy(log_probs), torch.tensor([math.log(4), 0, math.log(2)]))
    torch.testing.assert_close(entropy_constraint(log_probs), torch.tensor([0, math.log(4), math.log(2)]))


def test_the_entropy_constraint_pulls_towards_knowing_nothing():
    logits = torch.tensor([[3.0, 0.0, -1.0]], requires_grad=True)
    for _ in range(600):
        (slope,) = torch.autograd.grad(entropy_constraint(logits.log_softmax(1)).sum(), logits)
        logits = (logits - slope).detach().requires_grad_()
    assert entropy_constraint(logits.log_softmax(1)).item() < 1e-6


def test_entropy_scaling_is_guidance_by_the_factor_and_nothing_else_where_all_is_open():
    schedule, t = vp_cosine(), 0.3
    x_t, y = draw(9, 2), torch.arange(9) % 2
    denoiser, labels = PAIR.denoiser(schedule), ExactLabels(PAIR, schedule)
    scaled = EntropyScaled(denoiser, labels, schedule, 1.5)
    for i, factor in enumerate(scaled.factor(x_t, t).tolist()):
        row = slice(i, i + 1)
        alone = Classifier(denoiser, labels.log_prob, schedule, 1.5 * factor)
        exactly(scaled(x_t, t, y)[row], alone(x_t[row], t, y[row]))
    between = torch.tensor([[0.0, 0.7], [0.0, -2.0]], dtype=torch.float64)  # as far from the one as from the other
    exactly(scaled.factor(between, t), torch.ones(2, dtype=torch.float64))
    assert scaled.factor(torch.tensor([[9.0, 0.0]]), 0.01).item() == scaled.limit


def test_the_factor_grows_as_the_classifier_becomes_sure():
    schedule = vp_cosine()
    along = torch.stack([torch.linspace(0, 2, 9), torch.zeros(9)], 1)
    factor = EntropyScaled(PAIR.denoiser(schedule), ExactLabels(PAIR, schedule), schedule, 1.0, limit=1e9).factor
    assert (factor(along, 0.3).diff() > 0).all()
    # the sharper the noise level, the surer: at one place the factor falls with t
    assert factor(along[3:4], 0.2) > factor(along[3:4], 0.5) > factor(along[3:4], 0.9) >= 1


# ---------------------------------------------------------------- DLSM


class Slope(torch.nn.Module):
    """The classifier of PAIR up to one number for all noise levels: logits +- k alpha x / (alpha^2 / 4 + sigma^2)."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.k = schedule, torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def log_probs(self, x_t, t):
        alpha, sigma = self.schedule.scales(t, like=x_t)
        logit = (self.k * alpha * x_t / (alpha**2 / 4 + sigma**2))[:, 0]
        return torch.stack([logit, -logit], 1).log_softmax(1)

    def log_prob(self, x_t, t, cond):
        return self.log_probs(x_t, t).gather(1, cond[:, None])[:, 0]


def test_likelihood_score_matching_is_least_at_the_true_classifier():
    schedule = vp_cosine()
    x0, y = PAIR.sample_labelled(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.rand(4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.8 + 0.1
    classifier = Slope(schedule)

    def loss(k: float) -> Tensor:
        torch.nn.init.constant_(classifier.k, k)
        generator = torch.Generator().manual_seed(2)
        return likelihood_score_loss(classifier, PAIR.denoiser(schedule), schedule, x0, t, y, generator=generator)

    means = {k: loss(k).mean().item() for k in (0.5, 0.9, 1.0, 1.1, 2.0)}
    assert means[1.0] < min(means[0.9], means[1.1]) and max(means[0.9], means[1.1]) < min(means[0.5], means[2.0])
    loss(1.0).mean().backward()
    assert abs(classifier.k.grad) < 0.01, "stationary at the truth, up to the chance of 4000 draws"


def test_at_the_true_classifier_what_is_left_is_the_loss_of_the_conditional_denoiser():
    schedule, t = vp_cosine(), torch.full((50,), 0.4, dtype=torch.float64)
    x0, y = PLANE.sample_labelled(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    denoiser, seed = PLANE.denoiser(schedule), 3
    weight = eps_weight(schedule.lam(t))
    found = likelihood_score_loss(
        ExactLabels(PLANE, schedule), denoiser, schedule, x0, t, y, weight=weight,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    alpha, sigma = schedule.scales(t, like=x0)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed), dtype=x0.dtype)
    x_t = alpha * x0 + sigma * eps
    exactly(found, ((eps - (x_t - alpha * denoiser(x_t, t, y)) / sigma) ** 2).mean(1))


def test_a_network_learns_by_it():
    schedule = vp_cosine()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        labels = LabelPosterior(MLP(2, width=16, layers=1), schedule)
    x0, y = PAIR.sample_labelled(64, generator=torch.Generator().manual_seed(0))
    loss = likelihood_score_loss(
        labels, PAIR.denoiser(schedule), schedule, x0, torch.full((64,), 0.4), y,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert loss.shape == (64,)
    loss.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in labels.parameters())


def test_the_error_of_a_guided_answer_is_0_for_the_exact_classifier_and_1_for_one_that_says_nothing():
    class Silent:
        def log_prob(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return 0 * x_t.sum(1)

    def error(labels) -> float:
        return guided_error(labels, PLANE, vp_cosine(), generator=torch.Generator().manual_seed(0))

    assert error(ExactLabels(PLANE, vp_cosine())) < 1e-6 and error(Silent()) == pytest.approx(1)


# ---------------------------------------------------------------- SAG


def test_a_blur_keeps_flat_pictures_and_sums_and_spreads_a_dot_by_its_width():
    flat = torch.full((2, 3, 9, 8), 0.7)
    torch.testing.assert_close(blur(flat, 1.3), flat)
    dot = torch.zeros(1, 2, 41, 41, dtype=torch.float64)
    dot[0, 1, 20, 20] = 1
    seen = blur(dot, 2.0)
    assert not seen[0, 0].any() and seen.sum().item() == pytest.approx(1)
    place = torch.arange(41.0).double() - 20
    for axis in (0, 1):
        spread = (seen[0, 1].sum(axis) * place**2).sum().item()
        assert spread == pytest.approx(4, rel=0.05)  # a tail beyond three widths is cut
    twice = blur(blur(dot, 1.2), 1.6)
    torch.testing.assert_close(twice, seen, rtol=0, atol=2e-4)  # 1.2^2 + 1.6^2 = 2^2


@every_schedule
@quick
@given(t=times, scale=scales, kept=st.floats(0, 1), variance=st.floats(0.05, 2))
def test_self_guidance_of_a_normal_law_damps_in_eps_and_boosts_in_x0(schedule, t, scale, kept, variance):
    law, x_t = GaussianLaw(torch.zeros(2), variance), draw(9, 2)
    alpha, sigma = schedule.scales(t)
    c = alpha**2 * variance / (alpha**2 * variance + sigma**2)
    denoiser = law.denoiser(schedule)
    for extrapolated, factor in (
        ("eps", 1 - (scale - 1) * (1 - kept) * (1 - c)),
        ("x0", 1 + (scale - 1) * (1 - kept) * c),
    ):
        guided = SelfGuidance(denoiser, schedule, scale, lambda x0: kept * x0, extrapolated)
        torch.testing.assert_close(guided(x_t, t), factor * denoiser(x_t, t), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("extrapolated", ["eps", "x0"])
def test_without_a_blur_or_at_scale_1_self_guidance_does_nothing(extrapolated):
    schedule, t, x_t, y = vp_cosine(), 0.4, draw(9, 2), torch.arange(9) % 2
    denoiser = PLANE.denoiser(schedule)
    for scale, degrade in ((3.0, lambda x0: x0), (1.0, lambda x0: 0.5 * x0)):
        guided = SelfGuidance(denoiser, schedule, scale, degrade, extrapolated)
        exactly(guided(x_t, t, y), denoiser(x_t, t, y))


def test_self_guidance_in_eps_extrapolates_noise():
    """As published: the noise found in x_t, away from the noise found in the degraded state."""
    schedule, t, x_t = vp_cosine(), 0.4, draw(9, 2)
    alpha, sigma = schedule.scales(t)
    denoiser = PLANE.denoiser(schedule)

    def noise_in(x: Tensor) -> Tensor:
        return (x - alpha * denoiser(x, t)) / sigma

    eps = noise_in(x_t)
    degraded = alpha * 0.3 * denoiser(x_t, t) + sigma * eps
    wanted = eps + 1.7 * (eps - noise_in(degraded))
    guided = SelfGuidance(denoiser, schedule, 2.7, lambda x0: 0.3 * x0)(x_t, t)
    exactly((x_t - alpha * guided) / sigma, wanted)


# ---------------------------------------------------------------- the law promised and the law given


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
    drawn = tilted.sample(4000, generator=torch.Generator().manual_seed(0))
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


# ---------------------------------------------------------------- refusals


REFUSED = {
    "a law without labels": (lambda: ExactLabels(GaussianMixture(MEANS, scales=1.0), edm()), "numbered 0, 1, 2"),
    "labels with a gap": (
        lambda: ExactLabels(GaussianMixture(MEANS, scales=1.0, labels=torch.tensor([0, 2, 2])), edm()),
        "without a gap",
    ),
    "no label to ask for": (
        lambda: GaussianMixture(MEANS, scales=1.0).label_log_probs(MEANS, 0.5, edm()),
        "has no labels",
    ),
    "a law in space": (
        lambda: Tilted(GaussianMixture(torch.zeros(1, 3), scales=1.0, labels=torch.zeros(1)), 0, 2.0),
        r"a line or a plane.*\(3,\)",
    ),
    "no blur": (lambda: blur(torch.zeros(1, 1, 8, 8), 0.0), "positive number of pixels; got 0"),
    "extrapolated": (lambda: SelfGuidance(None, edm(), 2.0, blur, "v"), "eps or x0; got 'v'"),
    "limit": (lambda: EntropyScaled(None, None, edm(), 2.0, limit=0.5), "so is its limit; got 0.5"),
    "scale": (lambda: EntropyScaled(None, None, edm(), math.inf), "a scale is a finite number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence(case):
    action, words = REFUSED[case]
    with pytest.raises(ValueError, match=words) as caught:
        action()
    assert "\n" not in str(caught.value)
