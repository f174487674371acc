"""Exercise C of lesson 10: a classifier's gradient as a change of x0, judged by laws whose classifier is exact."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from survey_lib.core.exact import GaussianMixture
from survey_lib.core.schedules import vp_cosine
from survey_lib.course.exercises.framework import Exercise, Mistake, Property
from survey_lib.design.guidance import ExactLabels


def _guided_with(
    factor=lambda alpha, sigma: sigma**2 / alpha,
    total=lambda values: values.sum(),
    below=lambda cond: None,
):
    """The formula, with the places where people go wrong left open."""

    def classifier_guided(denoiser, log_prob, schedule, scale, x_t, t, cond):
        alpha, sigma = schedule.scales(t)
        with torch.enable_grad():
            x = x_t.detach().clone().requires_grad_()
            gradient = torch.autograd.grad(total(log_prob(x, t, cond)), x)[0]
        return denoiser(x_t, t, below(cond)) + scale * factor(alpha, sigma) * gradient

    return classifier_guided


def _guided_stub(denoiser, log_prob, schedule, scale, x_t, t, cond):
    raise NotImplementedError


def _plane_problem(generator):
    means = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    law = GaussianMixture(means, scales=torch.tensor([0.3, 0.5, 0.4]), labels=torch.tensor([0, 1, 1]))
    schedule, where = vp_cosine(), torch.rand(2, generator=generator, dtype=torch.float64)
    return SimpleNamespace(
        schedule=schedule, denoiser=law.denoiser(schedule), log_prob=ExactLabels(law, schedule).log_prob,
        scale=2.0 + float(where[0]), t=0.35 + 0.1 * float(where[1]), cond=torch.tensor([0, 1, 0, 1, 1]),
        x_t=torch.randn(5, 2, generator=generator, dtype=torch.float64),
    )  # fmt: skip


def _ask(answer, p, scale: float, rows: slice = slice(None)) -> Tensor:
    return answer(p.denoiser, p.log_prob, p.schedule, scale, p.x_t[rows], p.t, p.cond[rows])


def _by_two_denoisers(p, scale: float) -> Tensor:
    """By Bayes' rule the classifier's gradient is the difference of two denoisers, up to a factor."""
    return torch.lerp(p.denoiser(p.x_t, p.t), p.denoiser(p.x_t, p.t, p.cond), scale)


C = Exercise(
    id="10.C",
    title="a classifier that guides",
    difficulty="independent",
    minutes=20,
    hints=(
        "Tweedie: alpha E[x0 | x_t] = x_t + sigma^2 grad log p(x_t). It holds for the law given y too: subtract them.",
        "The gradient needs with torch.enable_grad() and x = x_t.detach().clone().requires_grad_(); each example has "
        "its own log-probability, so differentiate their sum.",
        "denoiser(x_t, t) + scale * sigma^2 / alpha * gradient.",
    ),
    problem=_plane_problem,
    properties=(
        Property(
            "scale 0 is the denoiser without a condition",
            lambda answer, p: _ask(answer, p, 0.0),
            lambda p: p.denoiser(p.x_t, p.t),
            1e-9,
        ),
        Property(
            "with the exact classifier, scale 1 is the conditional denoiser",
            lambda answer, p: _ask(answer, p, 1.0),
            lambda p: _by_two_denoisers(p, 1.0),
            1e-8,
        ),
        Property(
            "beyond, it is what classifier-free guidance gives",
            lambda answer, p: _ask(answer, p, p.scale),
            lambda p: _by_two_denoisers(p, p.scale),
            1e-8,
        ),
        Property(
            "an example is guided alike alone and in a batch",
            lambda answer, p: _ask(answer, p, p.scale, slice(1, 2)),
            lambda p: _by_two_denoisers(p, p.scale)[1:2],
            1e-8,
        ),
    ),
    mistakes=(
        Mistake(
            "the mean over the batch",
            "a loss is averaged, and so the hand writes mean(): every gradient is then divided by the size of the "
            "batch, and twice as many pictures are guided half as much.",
            _guided_with(total=lambda values: values.mean()),
        ),
        Mistake(
            "alpha forgotten",
            "sigma^2 grad log p moves alpha x0, not x0: divide by alpha, which matters most where the noise is high.",
            _guided_with(factor=lambda alpha, sigma: sigma**2),
        ),
        Mistake(
            "the factor of the noise",
            "the paper's second algorithm changes eps, by sigma grad log p; in x0 that is sigma / alpha times as much.",
            _guided_with(factor=lambda alpha, sigma: sigma),
        ),
        Mistake(
            "sigma for sigma^2",
            "Tweedie's formula has the variance of the noise, not its standard deviation.",
            _guided_with(factor=lambda alpha, sigma: sigma / alpha),
        ),
        Mistake(
            "the wrong sign",
            "eps loses what x0 gains: the minus of the formula for eps becomes a plus here.",
            _guided_with(factor=lambda alpha, sigma: -(sigma**2) / alpha),
        ),
        Mistake(
            "the gradient of the probability",
            "grad p is p grad log p: nothing happens where the classifier disagrees, which is where guidance is for.",
            _guided_with(total=lambda values: values.exp().sum()),
        ),
        Mistake(
            "the label counted twice",
            "the denoiser knows the label already when it is asked with cond: the classifier comes on top, and scale 1 "
            "exaggerates.",
            _guided_with(below=lambda cond: cond),
        ),
    ),
    reference=_guided_with(),
    stub=_guided_stub,
)
