"""Exercises of lesson 12: a step along the score, the drift of the flow, a density by change of variables."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from survey_lib.core.exact import GaussianLaw, GaussianMixture
from survey_lib.core.schedules import Schedule, ve, vp_cosine, vp_linear
from survey_lib.course.exercises._density_12 import C
from survey_lib.course.exercises.framework import Exercise, Mistake, Property
from survey_lib.design.score import mixture_cdf, sub_vp

__all__ = ["A", "B", "C"]


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


# --- A: one Langevin step -----------------------------------------------------------------------------------------


def _step_with(
    score=lambda x, x0, alpha, sigma: (alpha * x0 - x) / sigma**2, noise=lambda step: (2 * step) ** 0.5, sign=1.0
):
    def langevin_step(x, x0, alpha, sigma, step, z):
        return x + sign * step * score(x, x0, alpha, sigma) + noise(step) * z

    return langevin_step


def _step_stub(x, x0, alpha, sigma, step, z):
    raise NotImplementedError


def _step_problem(generator):
    alpha, sigma = _uniform(generator, 0.4, 0.8), _uniform(generator, 0.3, 0.7)
    mean, variance = _uniform(generator, 0.5, 1.0), _uniform(generator, 0.1, 0.4)
    x, z = torch.randn(2, 40, generator=generator, dtype=torch.float64)
    spread = alpha**2 * variance + sigma**2
    return SimpleNamespace(
        alpha=alpha, sigma=sigma, mean=mean, variance=variance, spread=spread, x=x, z=z + z.sign(),
        step=_uniform(generator, 0.1, 0.3) * sigma**2,
    )  # fmt: skip


def _stepped(answer, p, x: Tensor, x0: Tensor, z: Tensor) -> Tensor:
    return answer(x, x0, p.alpha, p.sigma, p.step, z)


def _best_guess(p, x: Tensor) -> Tensor:
    """``E[x0 | x]`` of normal data."""
    return p.mean + p.alpha * p.variance / p.spread * (x - p.alpha * p.mean)


def _push(answer, p) -> Tensor:
    """What the noise alone does, where the score is zero."""
    return (_stepped(answer, p, p.alpha * p.x, p.x, p.z) - p.alpha * p.x) / p.z


def _pull(answer, p) -> Tensor:
    """The drift a unit of step, without noise."""
    return (_stepped(answer, p, p.x, _best_guess(p, p.x), 0 * p.z) - p.x) / p.step


def _settled(answer, p) -> Tensor:
    """The variance that many such steps settle on: on normal data a step is ``k x + c z``, and k, c are read off."""
    zero, one = torch.zeros(2, 1, dtype=torch.float64) + torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    here = _stepped(answer, p, zero, _best_guess(p, zero), 0 * zero)
    keep = _stepped(answer, p, one, _best_guess(p, one), 0 * zero) - here
    noise = _stepped(answer, p, zero, _best_guess(p, zero), one) - here
    return (noise**2 / (1 - keep**2)).squeeze()


A = Exercise(
    id="12.A",
    title="one Langevin step",
    difficulty="guided",
    minutes=8,
    hints=(
        "Tweedie's formula, alpha x0 = x + sigma^2 score, says how the denoiser's answer becomes a score. Solve it.",
        "The score points from where we are to where clean data would put us: (alpha x0 - x), over sigma squared.",
        "Drift step * score, noise sqrt(2 * step) * z: with any other pair the walk settles on another law.",
    ),
    problem=_step_problem,
    properties=(
        Property(
            "where x is alpha x0 the score is zero, and the noise moves by sqrt(2 step)",
            _push,
            lambda p: torch.full_like(p.z, (2 * p.step) ** 0.5),
        ),
        Property(
            "without noise the drift on normal data is that of their score",
            _pull,
            lambda p: -(p.x - p.alpha * p.mean) / p.spread,
        ),
        Property(
            "many steps settle on the variance of the noised data, and a bias of order step",
            _settled,
            lambda p: torch.tensor(p.spread / (1 - p.step / (2 * p.spread)), dtype=torch.float64),
        ),
    ),
    mistakes=(
        Mistake(
            "downhill",
            "with x - alpha x0 in the score the walk flees from the data. The score points *uphill*.",
            _step_with(sign=-1.0),
        ),
        Mistake(
            "sigma for its square",
            "the noise is eps = (x - alpha x0) / sigma, and the score is -eps / sigma: a second division. Where sigma "
            "is near 1 nobody notices; near clean data the drift is far too weak.",
            _step_with(lambda x, x0, alpha, sigma: (alpha * x0 - x) / sigma),
        ),
        Mistake(
            "the factor two under the root",
            "sqrt(step) belongs to a drift of step / 2, as NCSN writes it. Beside the whole step it makes a walk that "
            "is too cold: it settles on half the variance.",
            _step_with(noise=lambda step: step**0.5),
        ),
        Mistake(
            "noise without a root",
            "2 step is the variance of the push, and what multiplies z is its root: variances add, roots do not.",
            _step_with(noise=lambda step: 2 * step),
        ),
        Mistake(
            "alpha forgotten",
            "in x_t the picture is dimmed to alpha x0; pulled to x0 itself, the walk settles around the wrong mean.",
            _step_with(lambda x, x0, alpha, sigma: (x0 - x) / sigma**2),
        ),
    ),
    reference=_step_with(),
    stub=_step_stub,
)


# --- B: the drift of the probability flow -------------------------------------------------------------------------


def _drift_with(
    half=0.5,
    kept=1.0,
    strength=lambda g2: g2,
    score=lambda x, x0, alpha, sigma: (alpha * x0 - x) / sigma**2,
):
    def flow_drift(denoiser, schedule, x, t):
        f, g2 = schedule.drift_diffusion(t)
        alpha, sigma = schedule.scales(t)
        return kept * f * x - half * strength(g2) * score(x, denoiser(x, t), alpha, sigma)

    return flow_drift


def _drift_stub(denoiser, schedule, x, t):
    raise NotImplementedError


def _drift_problem(generator):
    law = GaussianLaw(
        torch.tensor([_uniform(generator, 0.4, 0.9)]).double(), torch.tensor(_uniform(generator, 0.1, 0.4)).double()
    )
    peaks = GaussianMixture(
        torch.tensor([[-_uniform(generator, 0.4, 0.7)], [_uniform(generator, 0.4, 0.7)]]).double(),
        scales=_uniform(generator, 0.2, 0.4),
        weights=torch.tensor([0.3, 0.7]),
    )
    t = torch.tensor(_uniform(generator, 0.25, 0.6), dtype=torch.float64)
    x = torch.randn(12, 1, generator=generator, dtype=torch.float64)
    return SimpleNamespace(law=law, peaks=peaks, t=t, x=x)


_H = 1e-5  # half the span of a central difference


def _on_normal_data(schedule: Schedule, name: str) -> Property:
    def measure(answer, p):
        return answer(p.law.denoiser(schedule), schedule, p.x, p.t)

    def exact(p) -> Tensor:
        """How fast the closed form of the path moves."""
        ends = [p.law.flow(p.x, p.t, p.t + shift, schedule) for shift in (-_H, _H)]
        return (ends[1] - ends[0]) / (2 * _H)

    return Property(name, measure, exact, tolerance=1e-5)


def _keeps_quantiles(schedule: Schedule) -> Property:
    def measure(answer, p):
        return answer(p.peaks.denoiser(schedule), schedule, p.x, p.t)

    def exact(p) -> Tensor:
        """``F_t(x_t)`` stays: ``dx/dt = -(dF/dt) / p``, with F the distribution function and p the density."""
        low, high = (mixture_cdf(p.peaks, p.x[:, 0], p.t + shift, schedule) for shift in (-_H, _H))
        return -((high - low) / (2 * _H) / p.peaks.log_prob(p.x, p.t, schedule).exp())[:, None]

    return Property("on two peaks, every quantile stays the quantile it was", measure, exact, tolerance=1e-4)


B = Exercise(
    id="12.B",
    title="the drift of the probability flow",
    difficulty="supported",
    minutes=15,
    hints=(
        "f, g2 = schedule.drift_diffusion(t) are those of dx = f x dt + g dw, and g2 is g squared already. "
        "Your score of exercise A gives the rest.",
        "Forward, the noise spreads a density as a drift of -g^2/2 times the score would: that is the whole trick.",
        "dx/dt = f x - g^2 / 2 * score. The reverse SDE takes g^2 whole, since its own noise spreads again by half.",
    ),
    problem=_drift_problem,
    properties=(
        _on_normal_data(vp_linear(), "on normal data under VP the path is the one in closed form"),
        _on_normal_data(ve(sigma_max=5.0), "under VE, which has no drift of its own, too"),
        _on_normal_data(sub_vp(), "and under sub-VP"),
        _keeps_quantiles(vp_cosine()),
    ),
    mistakes=(
        Mistake(
            "the half is missing",
            "that is the drift of the reverse SDE, which needs g^2 whole because its noise gives half of it back. "
            "Without noise the paths run together, and the result is too narrow.",
            _drift_with(half=1.0),
        ),
        Mistake(
            "the sign of the score",
            "time runs towards the noise in dx/dt, and forward the flow spreads the data: *against* the score.",
            _drift_with(half=-0.5),
        ),
        Mistake(
            "g for its square",
            "drift_diffusion returns g^2, for that is what every formula needs; its root, sqrt(beta) under VP, is what "
            "multiplies noise, and there is none here.",
            _drift_with(strength=lambda g2: g2.sqrt()),
        ),
        Mistake(
            "the forward drift forgotten",
            "under VE there is none, and the answer is right; under VP the data also shrink, by f x.",
            _drift_with(kept=0.0),
        ),
        Mistake(
            "the noise for the score",
            "eps = (x - alpha x0) / sigma is what many networks predict. The score is -eps / sigma: mind the sign, and "
            "the second sigma.",
            _drift_with(score=lambda x, x0, alpha, sigma: (x - alpha * x0) / sigma),
        ),
    ),
    reference=_drift_with(),
    stub=_drift_stub,
)
