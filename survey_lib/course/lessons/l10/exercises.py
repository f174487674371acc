"""Exercises of lesson 10: classifier-free guidance, guidance on an interval, and guidance by a classifier."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from survey_lib.core.exact import GaussianMixture
from survey_lib.core.schedules import vp_cosine
from survey_lib.course.exercises.framework import Exercise, Mistake, Property, uniform
from survey_lib.design.guidance import ExactLabels

ANY = -1  # the label of the unconditional distribution

# --- A: the classifier-free formula -------------------------------------------------------------------------------


def _guide(towards, away, scale):
    return away + scale * (towards - away)


def _lines_problem(generator):
    """Two normal distributions of equal width; guidance gives the prediction of a third, on the line of the means."""
    means = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    return SimpleNamespace(
        schedule=vp_cosine(), law=GaussianMixture(means, scales=0.4, labels=torch.arange(2)), means=means,
        x_t=torch.randn(5, 3, generator=generator, dtype=torch.float64), t=uniform(generator, 0.3, 0.7),
        scale=uniform(generator, 2, 4),
    )  # fmt: skip


def _predictions(p) -> tuple[Tensor, Tensor]:
    """The predictions of x0 for the two distributions: towards label 0, away from label 1."""
    denoiser = p.law.denoiser(p.schedule)
    return denoiser(p.x_t, p.t, 0), denoiser(p.x_t, p.t, 1)


def _guided(p) -> Tensor:
    mean = p.means[1] + p.scale * (p.means[0] - p.means[1])
    return GaussianMixture(mean[None], scales=0.4).denoiser(p.schedule)(p.x_t, p.t)


def _as_noise(p, x0: Tensor) -> Tensor:
    alpha, sigma = p.schedule.scales(p.t)
    return (p.x_t - alpha * x0) / sigma


A = Exercise(
    id="10.A",
    title="past the end of Bayes' rule",
    minutes=6,
    hints=(
        "Guidance walks along the line through two answers. Where is it at scale 0, and where at scale 1?",
        "It starts at the answer without the condition. One whole step leads to the answer with it.",
        "Which vector leads from `away` to `towards`? The scale says how often to take it.",
    ),
    problem=_lines_problem,
    reference=_guide,
    properties={
        "scale 1 is the conditional answer": Property(
            lambda answer, p: answer(*_predictions(p), 1.0), lambda p: _predictions(p)[0], 1e-9
        ),
        "scale 0 is the answer one comes from": Property(
            lambda answer, p: answer(*_predictions(p), 0.0), lambda p: _predictions(p)[1], 1e-9
        ),
        "of two normal laws of one width it is the answer of a third, farther along the line through their means": (
            Property(lambda answer, p: answer(*_predictions(p), p.scale), _guided, 1e-9)
        ),
        "it may be told of noise instead of x0, and then says the same": Property(
            lambda answer, p: answer(*(_as_noise(p, x0) for x0 in _predictions(p)), p.scale),
            lambda p: _as_noise(p, _guided(p)),
            1e-9,
        ),
    },
    mistakes={
        "w where 1 + w is meant": Mistake(
            "in the paper's (1 + w) towards - w away, w is scale - 1: its w = 0 is the conditional model, our scale 1.",
            ("return away", "return towards"),
        ),
        "towards and away exchanged": Mistake(
            "at scale 1 that answers without the condition, and beyond it runs away from what was asked for.",
            ("away + scale * (towards - away)", "towards + scale * (away - towards)"),
        ),
        "the wrong sign": Mistake(
            "it starts at the right place and walks backwards: the classes that were not asked for become likelier.",
            ("(towards - away)", "(away - towards)"),
        ),
        "nowhere to start from": Mistake(
            "the difference of two answers is a direction, no picture: it must be added to the answer it starts from.",
            ("away + scale", "scale"),
        ),
    },
)

# --- B: guidance on an interval -----------------------------------------------------------------------------------


def _on_interval(denoiser, schedule, null, scale, low, high, x_t, t, cond):
    towards = denoiser(x_t, t, cond)
    alpha, sigma = schedule.scales(t)
    if not low < sigma / alpha <= high:
        return towards
    away = denoiser(x_t, t, torch.full_like(cond, null))
    return away + scale * (towards - away)


def _interval_problem(generator):
    means = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    law = GaussianMixture(means, scales=torch.tensor([0.3, 0.5, 0.4]), labels=torch.tensor([0, 1, 1]))
    schedule, low, high = vp_cosine(), uniform(generator, 0.2, 0.3), uniform(generator, 1.5, 2.5)
    levels = {"below": low / 2, "edge": 1.1 * low, "inside": 1.2, "above": 1.5 * high}
    return SimpleNamespace(
        schedule=schedule, denoiser=law.denoiser(schedule), low=low, high=high, scale=uniform(generator, 2, 4),
        times={name: schedule.time_at(level) for name, level in levels.items()},
        x_t=torch.randn(4, 2, generator=generator, dtype=torch.float64), cond=torch.tensor([0, 1, 0, 1]),
    )  # fmt: skip


def _at(answer, p, where: str, denoiser=None) -> Tensor:
    t = p.times[where]
    return answer(denoiser or p.denoiser, p.schedule, ANY, p.scale, p.low, p.high, p.x_t, t, p.cond)


def _expected(p, where: str) -> Tensor:
    towards = p.denoiser(p.x_t, p.times[where], p.cond)
    if where in ("below", "above"):
        return towards
    return torch.lerp(p.denoiser(p.x_t, p.times[where], ANY), towards, p.scale)


def _evaluations(answer, p) -> Tensor:
    """Evaluations of the denoiser for each sample, at each time."""
    seen = []

    def counted(x_t, t, cond=None):
        seen[-1] += len(x_t) / len(p.x_t)
        return p.denoiser(x_t, t, cond)

    for where in p.times:
        seen.append(0.0)
        _at(answer, p, where, counted)
    return torch.tensor(seen)


B = Exercise(
    id="10.B",
    title="guidance where it helps",
    minutes=12,
    hints=(
        "`schedule.scales(t)` gives alpha and sigma. The bounds are EDM's sigma, which is the ratio of ours.",
        "Decide before you ask: outside, the answer without a label must not be asked for at all.",
        "Inside: ask with `null` for every example (`torch.full_like(cond, null)`), and join as in exercise A. "
        "Outside, the plain answer: which condition does it get?",
    ),
    problem=_interval_problem,
    reference=_on_interval,
    properties={
        "in the middle of the interval it is guided": Property(_at, _expected, 1e-9, given=("inside",)),
        "and just above its lower end": Property(_at, _expected, 1e-9, given=("edge",)),
        "with more noise it is the conditional answer": Property(_at, _expected, 1e-9, given=("above",)),
        "with less noise too": Property(_at, _expected, 1e-9, given=("below",)),
        "two evaluations inside, one outside": Property(
            _evaluations, (1.0, 2.0, 2.0, 1.0), show="{:g} evaluations".format
        ),
    },
    mistakes={
        "sigma for sigma / alpha": Mistake(
            "under a variance-preserving schedule sigma never exceeds 1: an upper bound of 2 is never reached, and "
            "the first half of the way, where guidance harms most, stays guided.",
            ("sigma / alpha", "sigma"),
        ),
        "bounds compared with lam": Mistake(
            "lam = -log(sigma / alpha) falls as the noise grows; a bound in sigma has to be turned round and "
            "put through a logarithm to be one in lam.",
            ("sigma / alpha", "schedule.lam(t)"),
        ),
        "bounds compared with t": Mistake(
            "what t = 0.3 means depends on the schedule; what sigma / alpha = 0.3 means does not.",
            ("sigma / alpha", "t"),
        ),
        "unconditional outside": Mistake(
            "without guidance is not without the condition: the label stays, only the exaggeration ends.",
            (
                ("    towards = denoiser(x_t, t, cond)\n", ""),
                ("return towards", "return denoiser(x_t, t, torch.full_like(cond, null))"),
                ("(towards - away)", "(denoiser(x_t, t, cond) - away)"),
            ),
        ),
        "inside and outside exchanged": Mistake(
            "the two branches answer the right thing in each other's place.", ("if not low", "if low")
        ),
        "both paid for everywhere": Mistake(
            "the numbers are right, and nothing is saved: the call without a label has to be left out, not "
            "multiplied by zero.",
            ("return towards", "return towards + 0 * denoiser(x_t, t, torch.full_like(cond, null))"),
        ),
    },
)

# --- C: guidance by a classifier ----------------------------------------------------------------------------------


def _classifier_guided(denoiser, log_prob, schedule, scale, x_t, t, cond):
    alpha, sigma = schedule.scales(t, x_t)
    with torch.enable_grad():
        x = x_t.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(log_prob(x, t, cond).sum(), x)
    return denoiser(x_t, t, None) + scale * sigma**2 / alpha * slope


def _plane_problem(generator):
    means = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    law = GaussianMixture(means, scales=torch.tensor([0.3, 0.5, 0.4]), labels=torch.tensor([0, 1, 1]))
    schedule, where = vp_cosine(), torch.rand(2, generator=generator, dtype=torch.float64)
    return SimpleNamespace(
        schedule=schedule, denoiser=law.denoiser(schedule), log_prob=ExactLabels(law, schedule).log_prob,
        scale=2.0 + float(where[0]), t=0.35 + 0.1 * float(where[1]), cond=torch.tensor([0, 1, 0, 1, 1]),
        x_t=torch.randn(5, 2, generator=generator, dtype=torch.float64),
    )  # fmt: skip


def _pushed(answer, p, scale: float, rows: slice = slice(None)) -> Tensor:
    return answer(p.denoiser, p.log_prob, p.schedule, scale, p.x_t[rows], p.t, p.cond[rows])


def _by_two_denoisers(p, scale: float) -> Tensor:
    """The guided prediction by Bayes' rule: the classifier's gradient is a difference of two denoisers."""
    return torch.lerp(p.denoiser(p.x_t, p.t), p.denoiser(p.x_t, p.t, p.cond), scale)


C = Exercise(
    id="10.C",
    title="a classifier that guides",
    minutes=20,
    hints=(
        "Tweedie: alpha E[x0 | x_t] = x_t + sigma² grad log p(x_t). It holds for the law given y too: subtract them.",
        "Within `torch.enable_grad()`, on a detached copy that requires a gradient; and the denoiser is asked "
        "without a label.",
        "Each example has its own log-probability, and examples do not touch each other: differentiate their sum.",
    ),
    problem=_plane_problem,
    reference=_classifier_guided,
    properties={
        "scale 0 is the denoiser without a condition": Property(
            _pushed, lambda p, scale: p.denoiser(p.x_t, p.t), 1e-9, given=(0.0,)
        ),
        "with the exact classifier, scale 1 is the conditional denoiser": Property(
            _pushed, _by_two_denoisers, 1e-8, given=(1.0,)
        ),
        "beyond, it is what classifier-free guidance gives": Property(
            lambda answer, p: _pushed(answer, p, p.scale), lambda p: _by_two_denoisers(p, p.scale), 1e-8
        ),
        "an example is guided alike alone and in a batch": Property(
            lambda answer, p: _pushed(answer, p, p.scale, slice(1, 2)),
            lambda p: _by_two_denoisers(p, p.scale)[1:2],
            1e-8,
        ),
    },
    mistakes={
        "the mean over the batch": Mistake(
            "a loss is averaged, and so the hand writes mean(): every gradient is then divided by the size of the "
            "batch, and twice as many pictures are guided half as much.",
            (".sum()", ".mean()"),
        ),
        "alpha forgotten": Mistake(
            "sigma^2 grad log p moves alpha x0, not x0: divide by alpha, which matters most where the noise is high.",
            (" / alpha", ""),
        ),
        "the factor of the noise": Mistake(
            "the paper's second algorithm changes eps, by sigma grad log p; in x0 that is sigma / alpha times as much.",
            ("sigma**2 / alpha", "sigma"),
        ),
        "sigma for sigma^2": Mistake(
            "Tweedie's formula has the variance of the noise, not its standard deviation.", ("sigma**2", "sigma")
        ),
        "the wrong sign": Mistake(
            "eps loses what x0 gains: the minus of the formula for eps becomes a plus here.", ("+ scale", "- scale")
        ),
        "the gradient of the probability": Mistake(
            "grad p is p grad log p: nothing happens where the classifier disagrees, which is where guidance is for.",
            (".sum()", ".exp().sum()"),
        ),
        "the label counted twice": Mistake(
            "asked with cond, the denoiser knows the label: the classifier comes on top, and scale 1 exaggerates.",
            ("denoiser(x_t, t, None)", "denoiser(x_t, t, cond)"),
        ),
    },
)
