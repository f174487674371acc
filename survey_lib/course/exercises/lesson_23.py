"""Exercises of lesson 23: a network under another schedule, the best walk over a table, and the variance of a step."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from survey_lib.core.corruptions import Gaussian, posterior_variance
from survey_lib.core.exact import GaussianLaw
from survey_lib.core.protocols import normal
from survey_lib.core.schedules import edm, rectified, vp_linear
from survey_lib.course.exercises._walk_23 import B
from survey_lib.course.exercises.framework import Exercise, Mistake, Property

__all__ = ["A", "B", "C"]

# --- A: another schedule ------------------------------------------------------------------------------------------


def _ask_with(
    time=lambda trained, sampled, t: trained.time(sampled.lam(t)),
    ratio=lambda trained, sampled, t, u: trained.scales(u)[0] / sampled.scales(t)[0],
    after=lambda answer, ratio: answer,
):
    def ask(denoiser, trained, sampled, x_t, t):
        u = time(trained, sampled, t)
        factor = ratio(trained, sampled, t, u)
        return after(denoiser(factor * x_t, u), factor)

    return ask


def _ask_stub(denoiser, trained, sampled, x_t, t):
    raise NotImplementedError


def _ask_problem(generator):
    mean = normal((3,), generator, torch.float64)
    law = GaussianLaw(mean, 0.2 + torch.rand((), generator=generator, dtype=torch.float64))
    t = 0.25 + 0.2 * torch.rand((), generator=generator, dtype=torch.float64)
    return SimpleNamespace(law=law, t=t, x=normal((5, 3), generator, torch.float64))


def _asked(sampled):
    """The answer under ``sampled`` of a network trained under DDPM's schedule, against the exact one."""
    return {
        "measure": lambda answer, p: answer(p.law.denoiser(vp_linear()), vp_linear(), sampled, 2 * p.x, p.t),
        "exact": lambda p: p.law.denoiser(sampled)(2 * p.x, p.t),
    }


A = Exercise(
    id="23.A",
    title="another schedule",
    difficulty="guided",
    minutes=8,
    hints=(
        "The network knows noise levels. At which time of its own schedule is the picture as noisy as x_t is?",
        "As noisy means the same lam: trained.time(sampled.lam(t)).",
        "At equal lam the two states differ by a factor, alpha of the one over alpha of the other. x0 is x0 in both.",
    ),
    problem=_ask_problem,
    properties=(
        Property("under its own schedule nothing changes", **_asked(vp_linear())),
        Property("on the straight path the answer is exact", **_asked(rectified())),
        Property("under EDM's schedule the answer is exact", **_asked(edm(sigma_max=5.0))),
    ),
    mistakes=(
        Mistake(
            "the same t",
            "t = 0.3 is a place on a schedule, and another schedule has other noise there: the network is told a "
            "level that is not the one it sees.",
            _ask_with(time=lambda trained, sampled, t: t),
        ),
        Mistake(
            "the state is not rescaled",
            "the level is right, but the network expects pictures of the size that its own schedule makes: "
            "alpha x0 + sigma eps with its alpha.",
            _ask_with(ratio=lambda trained, sampled, t, u: torch.ones((), dtype=torch.float64)),
        ),
        Mistake(
            "the factor upside down",
            "dividing where one multiplies is easily done, and under the network's own schedule the factor is 1.",
            _ask_with(ratio=lambda trained, sampled, t, u: sampled.scales(t)[0] / trained.scales(u)[0]),
        ),
        Mistake(
            "the answer rescaled too",
            "the network answers x0, the clean picture, and that has no noise level and no scale to undo.",
            _ask_with(after=lambda answer, factor: answer / factor),
        ),
        Mistake(
            "equal sigma for equal lam",
            "where alpha stays 1, as in EDM, sigma = 1 is as much noise as signal; where the variance is preserved "
            "it is noise alone. The ratio counts.",
            _ask_with(time=lambda trained, sampled, t: _same_sigma(trained, sampled.scales(t)[1].clamp(max=0.9999))),
        ),
    ),
    reference=_ask_with(),
    stub=_ask_stub,
)


def _same_sigma(schedule, sigma: Tensor) -> Tensor:
    """The time at which a schedule that preserves the variance has this sigma."""
    return schedule.time(0.5 * torch.log(1 / sigma**2 - 1))


# --- C: the variance of a step ------------------------------------------------------------------------------------


def _variance_with(
    fresh=lambda v: v, weight=lambda b: b**2, of=lambda error, snr: error, final=lambda variance: variance
):
    def best_variance(schedule, t, s, error):
        _, on_x0, _ = Gaussian(schedule).coefficients(t, s)
        snr = torch.exp(2 * schedule.lam(t))
        return final(fresh(posterior_variance(schedule, t, s)) + weight(on_x0) * of(error, snr))

    return best_variance


def _variance_stub(schedule, t, s, error):
    raise NotImplementedError


def _variance_problem(generator):
    c, t, s = torch.rand(3, generator=generator, dtype=torch.float64)
    t = 0.3 + 0.4 * t
    return SimpleNamespace(schedule=vp_linear(), c=0.2 + 0.6 * c, t=t, s=t * (0.3 + 0.4 * s))


def _gaussian_error(p):
    """Of the best guess for data N(0, c): what is left of its variance when x_t is known."""
    alpha, sigma = p.schedule.scales(p.t)
    return p.c * sigma**2 / (alpha**2 * p.c + sigma**2)


def _reverse_variance(p):
    """Var(x_s | x_t) of Gaussian data in the chain of DDPM: Var x_s - Cov(x_s, x_t)^2 / Var x_t."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = p.schedule.scales(p.t), p.schedule.scales(p.s)
    spread_t, spread_s = alpha_t**2 * p.c + sigma_t**2, alpha_s**2 * p.c + sigma_s**2
    return spread_s - (alpha_t / alpha_s * spread_s) ** 2 / spread_t


C = Exercise(
    id="23.C",
    title="the variance that is free",
    difficulty="independent",
    minutes=20,
    hints=(
        "x_s is drawn in two stages: first x0 from what x_t leaves open, then x_s from the bridge. Variances add.",
        "The bridge's mean takes on_x0 of x0, and x0 is known up to a mean square of error.",
        "posterior_variance(schedule, t, s) plus on_x0 squared times error; "
        "Gaussian(schedule).coefficients(t, s) has on_x0.",
    ),
    problem=_variance_problem,
    properties=(
        Property(
            "a denoiser that is always right needs the bridge's variance alone",
            lambda answer, p: answer(p.schedule, p.t, p.s, torch.zeros((), dtype=torch.float64)),
            lambda p: posterior_variance(p.schedule, p.t, p.s),
            1e-8,
        ),
        Property(
            "on Gaussian data it is the exact variance of x_s given x_t",
            lambda answer, p: answer(p.schedule, p.t, p.s, _gaussian_error(p)),
            _reverse_variance,
            1e-8,
        ),
        Property(
            "twice the error adds twice as much",
            lambda answer, p: (
                answer(p.schedule, p.t, p.s, 2 * _gaussian_error(p)) - answer(p.schedule, p.t, p.s, _gaussian_error(p))
            ),
            lambda p: _reverse_variance(p) - posterior_variance(p.schedule, p.t, p.s),
            1e-8,
        ),
    ),
    mistakes=(
        Mistake(
            "the standard deviation",
            "a sampler multiplies its noise by the root, so a root is on one's mind; what adds up is variances.",
            _variance_with(final=lambda variance: variance.sqrt()),
        ),
        Mistake(
            "the bridge forgotten",
            "what the denoiser does not know seems to be all that is uncertain. Even if x0 were known, "
            "DDPM's step draws fresh noise.",
            _variance_with(fresh=torch.zeros_like),
        ),
        Mistake(
            "the weight not squared",
            "the mean moves by on_x0 times what x0 is off, and a variance is a square.",
            _variance_with(weight=lambda b: b),
        ),
        Mistake(
            "the error of the noise for that of x0",
            "networks are trained on eps, and its error is the SNR times that of x0: alpha^2 / sigma^2 too much.",
            _variance_with(of=lambda error, snr: snr * error),
        ),
        Mistake(
            "the error as it is",
            "an error in x0 reaches x_s only as far as the bridge listens to x0: a short step hardly does.",
            _variance_with(weight=torch.ones_like),
        ),
    ),
    reference=_variance_with(),
    stub=_variance_stub,
)
