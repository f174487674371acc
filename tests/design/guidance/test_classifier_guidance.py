"""Classifier guidance held to Bayes' rule, ED-DPM to known entropies, DLSM to the true classifier."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor

from survey_lib.core.heads import LabelPosterior
from survey_lib.core.losses import eps_weight
from survey_lib.core.schedules import vp_cosine, vp_linear
from survey_lib.design.guidance import (
    Classifier,
    ClassifierFree,
    EntropyScaled,
    ExactLabels,
    entropy,
    entropy_constraint,
    likelihood_score_loss,
)
from survey_lib.nets.mlp import MLP
from tests.design.guidance.support import (
    ANY,
    PAIR,
    PLANE,
    draw,
    every_schedule,
    exact_classifier,
    exactly,
    noised,
    scales,
    times,
)
from tests.support import generator, quick


@every_schedule
@quick
@given(t=times)
def test_the_exact_classifier_turns_the_unconditional_denoiser_into_the_conditional_one(schedule, t):
    x_t, y = noised(t, schedule)
    denoiser = PLANE.denoiser(schedule)
    guided = Classifier(denoiser, exact_classifier(schedule), schedule, scale=1.0)
    exactly(guided(x_t, t, y), denoiser(x_t, t, y))


@quick
@given(t=times, scale=scales)
def test_the_score_of_the_answer_is_the_tilted_one(t, scale):
    """``(alpha x0 - x_t) / sigma^2 = grad (log p_t(x_t) + scale log p(y | x_t))``, the gradient by differences."""
    schedule = vp_cosine()
    x_t, y = noised(t, schedule)
    alpha, sigma = schedule.scales(t)
    x0 = ClassifierFree(PLANE.denoiser(schedule), ANY, scale)(x_t, t, y)

    def tilted(x: Tensor) -> Tensor:
        return PLANE.log_prob(x, t, schedule) + scale * exact_classifier(schedule)(x, t, y)

    h = 1e-4 * torch.eye(2, dtype=torch.float64)
    slope = torch.stack([(tilted(x_t + step) - tilted(x_t - step)) / 2e-4 for step in h], 1)
    torch.testing.assert_close((alpha * x0 - x_t) / sigma**2, slope, rtol=1e-4, atol=1e-4)


def test_a_classifier_on_top_of_a_conditional_denoiser_counts_once_more():
    schedule, t = vp_cosine(), 0.4
    x_t, y = noised(t, schedule)
    denoiser, log_prob = PLANE.denoiser(schedule), exact_classifier(schedule)
    on_top = Classifier(denoiser, log_prob, schedule, 1.5, conditional=True)
    exactly(on_top(x_t, t, y), Classifier(denoiser, log_prob, schedule, 2.5)(x_t, t, y))


def test_the_classifier_is_differentiated_whatever_mode_the_sampler_runs_in():
    schedule, t = vp_cosine(), 0.4
    x_t, y = noised(t, schedule)
    guided = Classifier(PLANE.denoiser(schedule), exact_classifier(schedule), schedule, 2.0)
    answer = guided(x_t, t, y)
    assert not answer.requires_grad
    with torch.no_grad():
        exactly(guided(x_t, t, y), answer)
    with torch.inference_mode():
        each = torch.full((len(x_t),), t, dtype=torch.float64)
        exactly(guided(x_t.clone(), each, y.clone()), answer)


def test_a_likelihood_may_differentiate_the_gradient_once_more():
    schedule, t = vp_cosine(), 0.4
    x_t, y = noised(t, schedule)
    denoiser = PLANE.denoiser(schedule)
    x, weights = x_t.requires_grad_(), draw(*x_t.shape, seed=2)
    by_classifier, free = (
        torch.autograd.grad((guided(x, t, y) * weights).sum(), x)[0]
        for guided in (
            Classifier(denoiser, exact_classifier(schedule), schedule, 2.0),
            ClassifierFree(denoiser, ANY, 2.0),
        )
    )
    exactly(by_classifier, free)


def test_a_perfect_contrastive_net_guides_as_a_perfect_classifier_does():
    """``log p(x_t | y) / p(x_t)``: over x_t drawn from the mixture its exponential is 1 on average."""
    x_t, y, schedule, t = draw(9, 2), torch.arange(9) % 2, vp_linear(), 0.3
    labels, denoiser = ExactLabels(PLANE, schedule), PLANE.denoiser(schedule)
    exactly(
        Classifier(denoiser, labels.similarity, schedule, 2.5)(x_t, t, y),
        Classifier(denoiser, labels.log_prob, schedule, 2.5)(x_t, t, y),
    )
    x0 = PLANE.sample(40_000, generator=generator(), dtype=torch.float64)
    alpha, sigma = schedule.scales(t)
    for label in (0, 1):
        average = labels.similarity(alpha * x0 + sigma * draw(40_000, 2, seed=1), t, label).exp().mean()
        assert average.item() == pytest.approx(1, abs=0.02)


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
    x0, y = PAIR.sample_labelled(4000, generator=generator(), dtype=torch.float64)
    t = torch.rand(4000, generator=generator(1), dtype=torch.float64) * 0.8 + 0.1
    classifier = Slope(schedule)

    def loss(k: float) -> Tensor:
        torch.nn.init.constant_(classifier.k, k)
        return likelihood_score_loss(classifier, PAIR.denoiser(schedule), schedule, x0, t, y, generator=generator(2))

    means = {k: loss(k).mean().item() for k in (0.5, 0.9, 1.0, 1.1, 2.0)}
    assert means[1.0] < min(means[0.9], means[1.1]) and max(means[0.9], means[1.1]) < min(means[0.5], means[2.0])
    loss(1.0).mean().backward()
    assert abs(classifier.k.grad) < 0.01, "stationary at the truth, up to the chance of 4000 draws"


def test_at_the_true_classifier_what_is_left_is_the_loss_of_the_conditional_denoiser():
    schedule, t = vp_cosine(), torch.full((50,), 0.4, dtype=torch.float64)
    x0, y = PLANE.sample_labelled(50, generator=generator(), dtype=torch.float64)
    denoiser, seed = PLANE.denoiser(schedule), 3
    weight = eps_weight(schedule.lam(t))
    found = likelihood_score_loss(
        ExactLabels(PLANE, schedule), denoiser, schedule, x0, t, y, weight=weight,
        generator=generator(seed),
    )  # fmt: skip
    alpha, sigma = schedule.scales(t, like=x0)
    eps = torch.randn(x0.shape, generator=generator(seed), dtype=x0.dtype)
    x_t = alpha * x0 + sigma * eps
    exactly(found, ((eps - (x_t - alpha * denoiser(x_t, t, y)) / sigma) ** 2).mean(1))


def test_a_network_learns_by_it():
    schedule = vp_cosine()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        labels = LabelPosterior(MLP(2, width=16, layers=1), schedule)
    x0, y = PAIR.sample_labelled(64, generator=generator())
    loss = likelihood_score_loss(
        labels, PAIR.denoiser(schedule), schedule, x0, torch.full((64,), 0.4), y,
        generator=generator(),
    )  # fmt: skip
    assert loss.shape == (64,)
    loss.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in labels.parameters())
