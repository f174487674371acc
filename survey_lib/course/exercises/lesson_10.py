"""Exercises of lesson 10: the classifier-free formula, guidance on an interval, and a classifier's gradient."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from survey_lib.core.exact import GaussianMixture
from survey_lib.core.schedules import vp_cosine
from survey_lib.course.exercises._gradient_10 import C
from survey_lib.course.exercises.framework import Exercise, Mistake, Property

__all__ = ["A", "B", "C"]

ANY = -1  # the label by which an exact law knows no label


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


# --- A: the classifier-free formula -------------------------------------------------------------------------------


def _guide_with(start=lambda towards, away: away, step=lambda towards, away: towards - away):
    def guide(towards, away, scale):
        return start(towards, away) + scale * step(towards, away)

    return guide


def _guide_stub(towards, away, scale):
    raise NotImplementedError


def _lines_problem(generator):
    """Two normal laws of one width: the guided answer is that of a third, whose mean lies on the line through both."""
    means = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    return SimpleNamespace(
        schedule=vp_cosine(), law=GaussianMixture(means, scales=0.4, labels=torch.arange(2)), means=means,
        x_t=torch.randn(5, 3, generator=generator, dtype=torch.float64), t=_uniform(generator, 0.3, 0.7),
        scale=_uniform(generator, 2, 4),
    )  # fmt: skip


def _said(p) -> tuple[torch.Tensor, torch.Tensor]:
    """What the denoisers of the two laws say of x0: towards law 0, away from law 1."""
    denoiser = p.law.denoiser(p.schedule)
    return denoiser(p.x_t, p.t, 0), denoiser(p.x_t, p.t, 1)


def _guided(p) -> torch.Tensor:
    mean = p.means[1] + p.scale * (p.means[0] - p.means[1])
    return GaussianMixture(mean[None], scales=0.4).denoiser(p.schedule)(p.x_t, p.t)


def _as_noise(p, x0: torch.Tensor) -> torch.Tensor:
    alpha, sigma = p.schedule.scales(p.t)
    return (p.x_t - alpha * x0) / sigma


A = Exercise(
    id="10.A",
    title="past the end of Bayes' rule",
    difficulty="guided",
    minutes=6,
    hints=(
        "Guidance walks along the line through two answers. Where is it at scale 0, and where at scale 1?",
        "It starts at the answer without the condition. One whole step leads to the answer with it.",
        "away + scale * (towards - away).",
    ),
    problem=_lines_problem,
    properties=(
        Property(
            "scale 1 is the conditional answer", lambda answer, p: answer(*_said(p), 1.0), lambda p: _said(p)[0], 1e-9
        ),
        Property(
            "scale 0 is the answer one comes from",
            lambda answer, p: answer(*_said(p), 0.0),
            lambda p: _said(p)[1],
            1e-9,
        ),
        Property(
            "of two normal laws of one width it is the answer of a third, farther along the line through their means",
            lambda answer, p: answer(*_said(p), p.scale),
            _guided,
            1e-9,
        ),
        Property(
            "it may be told of noise instead of x0, and then says the same",
            lambda answer, p: answer(*(_as_noise(p, x0) for x0 in _said(p)), p.scale),
            lambda p: _as_noise(p, _guided(p)),
            1e-9,
        ),
    ),
    mistakes=(
        Mistake(
            "w where 1 + w is meant",
            "the paper's formula, (1 + w) towards - w away, has w = scale - 1: its w = 0 is the conditional model, "
            "which here is scale 1.",
            _guide_with(start=lambda towards, away: towards),
        ),
        Mistake(
            "towards and away exchanged",
            "at scale 1 that answers without the condition, and beyond it runs away from what was asked for.",
            _guide_with(start=lambda towards, away: towards, step=lambda towards, away: away - towards),
        ),
        Mistake(
            "the wrong sign",
            "it starts at the right place and walks backwards: the classes that were not asked for become likelier.",
            _guide_with(step=lambda towards, away: away - towards),
        ),
        Mistake(
            "nowhere to start from",
            "the difference of two answers is a direction, no picture: it must be added to the answer it starts from.",
            _guide_with(start=lambda towards, away: 0 * away),
        ),
    ),
    reference=_guide_with(),
    stub=_guide_stub,
)


# --- B: guidance on an interval -----------------------------------------------------------------------------------


def _noise(schedule, t):
    alpha, sigma = schedule.scales(t)
    return sigma / alpha


def _interval_with(level=_noise, outside=lambda null, cond: cond, inverted=False, thrifty=True):
    def on_interval(denoiser, schedule, null, scale, low, high, x_t, t, cond):
        inside = low < level(schedule, t) <= high
        if thrifty and inside == inverted:
            return denoiser(x_t, t, outside(null, cond))
        away, towards = denoiser(x_t, t, null), denoiser(x_t, t, cond)
        return away + (scale if inside != inverted else 1.0) * (towards - away)

    return on_interval


def _interval_stub(denoiser, schedule, null, scale, low, high, x_t, t, cond):
    raise NotImplementedError


def _interval_problem(generator):
    means = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    law = GaussianMixture(means, scales=torch.tensor([0.3, 0.5, 0.4]), labels=torch.tensor([0, 1, 1]))
    schedule, low, high = vp_cosine(), _uniform(generator, 0.2, 0.3), _uniform(generator, 1.5, 2.5)
    levels = {"below": low / 2, "edge": 1.1 * low, "inside": 1.2, "above": 1.5 * high}
    return SimpleNamespace(
        schedule=schedule, denoiser=law.denoiser(schedule), low=low, high=high, scale=_uniform(generator, 2, 4),
        times={name: schedule.time_at(level) for name, level in levels.items()},
        x_t=torch.randn(4, 2, generator=generator, dtype=torch.float64), cond=torch.tensor([0, 1, 0, 1]),
    )  # fmt: skip


def _on(answer, p, where: str, denoiser=None):
    return answer(
        denoiser or p.denoiser, p.schedule, ANY, p.scale, p.low, p.high, p.x_t, p.times[where], p.cond
    )  # fmt: skip


def _paid(answer, p) -> torch.Tensor:
    """Examples that go through the denoiser, per sample, at each of the times."""
    seen = []

    def counted(x_t, t, cond=None):
        seen[-1] += len(x_t) / len(p.x_t)
        return p.denoiser(x_t, t, cond)

    for where in p.times:
        seen.append(0.0)
        _on(answer, p, where, counted)
    return torch.tensor(seen)


def _plain(p, where: str) -> torch.Tensor:
    return p.denoiser(p.x_t, p.times[where], p.cond)


def _extrapolated(p, where: str) -> torch.Tensor:
    away = p.denoiser(p.x_t, p.times[where], ANY)
    return torch.lerp(away, _plain(p, where), p.scale)


B = Exercise(
    id="10.B",
    title="guidance where it helps",
    difficulty="supported",
    minutes=12,
    hints=(
        "alpha, sigma = schedule.scales(t) gives both scales. The bounds are EDM's sigma, which is the ratio of ours.",
        "Ask first whether low < sigma / alpha <= high. If not, one call is enough: which condition does it get?",
        "Outside: return denoiser(x_t, t, cond). Inside: your formula of exercise A with denoiser(x_t, t, cond) and "
        "denoiser(x_t, t, null).",
    ),
    problem=_interval_problem,
    properties=(
        Property(
            "in the middle of the interval it is guided",
            lambda answer, p: _on(answer, p, "inside"),
            lambda p: _extrapolated(p, "inside"),
            1e-9,
        ),
        Property(
            "and just above its lower end",
            lambda answer, p: _on(answer, p, "edge"),
            lambda p: _extrapolated(p, "edge"),
            1e-9,
        ),
        Property(
            "with more noise it is the conditional answer",
            lambda answer, p: _on(answer, p, "above"),
            lambda p: _plain(p, "above"),
            1e-9,
        ),
        Property(
            "with less noise too",
            lambda answer, p: _on(answer, p, "below"),
            lambda p: _plain(p, "below"),
            1e-9,
        ),
        Property(
            "two evaluations inside, one outside",
            _paid,
            lambda p: torch.tensor([1.0, 2.0, 2.0, 1.0]),
            show=lambda n: f"{n:g} evaluations",
        ),
    ),
    mistakes=(
        Mistake(
            "sigma for sigma / alpha",
            "under a variance-preserving schedule sigma never exceeds 1: an upper bound of 2 is never reached, and "
            "the first half of the way, where guidance harms most, stays guided.",
            _interval_with(level=lambda schedule, t: schedule.scales(t)[1]),
        ),
        Mistake(
            "bounds compared with lam",
            "lam = -log(sigma / alpha) falls as the noise grows; a bound in sigma has to be turned round and "
            "put through a logarithm to be one in lam.",
            _interval_with(level=lambda schedule, t: schedule.lam(t)),
        ),
        Mistake(
            "bounds compared with t",
            "what t = 0.3 means depends on the schedule; what sigma / alpha = 0.3 means does not.",
            _interval_with(level=lambda schedule, t: torch.as_tensor(t)),
        ),
        Mistake(
            "unconditional outside",
            "without guidance is not without the condition: the label stays, only the exaggeration ends.",
            _interval_with(outside=lambda null, cond: null),
        ),
        Mistake(
            "inside and outside exchanged",
            "the two branches answer the right thing in each other's place.",
            _interval_with(inverted=True),
        ),
        Mistake(
            "both paid for everywhere",
            "the numbers are right, and nothing is saved: the call without a label has to be left out, not "
            "multiplied by zero.",
            _interval_with(thrifty=False),
        ),
    ),
    reference=_interval_with(),
    stub=_interval_stub,
)
