"""Exercises of lesson 12: a Langevin step, the drift of the probability flow, and a density by change of variables."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import torch
from torch import Tensor

from survey_lib.core.exact import GaussianLaw, GaussianMixture
from survey_lib.core.grids import quadratic
from survey_lib.core.schedules import Schedule, ve, vp_cosine, vp_linear
from survey_lib.course.exercises.framework import Exercise, Mistake, Property, uniform
from survey_lib.design.score import mixture_cdf, sub_vp

# --- A: one Langevin step -----------------------------------------------------------------------------------------


def _langevin_step(x, x0, alpha, sigma, step, z):
    score = (alpha * x0 - x) / sigma**2
    return x + step * score + (2 * step) ** 0.5 * z


def _step_problem(generator):
    alpha, sigma = uniform(generator, 0.4, 0.8), uniform(generator, 0.3, 0.7)
    mean, variance = uniform(generator, 0.5, 1.0), uniform(generator, 0.1, 0.4)
    x, z = torch.randn(2, 40, generator=generator, dtype=torch.float64)
    spread = alpha**2 * variance + sigma**2
    return SimpleNamespace(
        alpha=alpha, sigma=sigma, mean=mean, variance=variance, spread=spread, x=x, z=z + z.sign(),
        step=uniform(generator, 0.1, 0.3) * sigma**2,
    )  # fmt: skip


def _stepped(answer, p, x: Tensor, z: Tensor) -> Tensor:
    """A step on normal data, with the exact ``E[x0 | x]``."""
    x0 = p.mean + p.alpha * p.variance / p.spread * (x - p.alpha * p.mean)
    return answer(x, x0, p.alpha, p.sigma, p.step, z)


def _push(answer, p) -> Tensor:
    """The effect of the noise alone, where the score is zero."""
    return (answer(p.alpha * p.x, p.x, p.alpha, p.sigma, p.step, p.z) - p.alpha * p.x) / p.z


def _pull(answer, p) -> Tensor:
    """The drift for a unit step, without noise."""
    return (_stepped(answer, p, p.x, 0 * p.z) - p.x) / p.step


def _settled(answer, p) -> Tensor:
    """The stationary variance of many such steps, which on normal data are ``k x + c z``; k and c are read off."""
    zero, one = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    here = _stepped(answer, p, zero, zero)
    keep = _stepped(answer, p, one, zero) - here
    noise = _stepped(answer, p, zero, one) - here
    return (noise**2 / (1 - keep**2)).squeeze()


A = Exercise(
    id="12.A",
    title="one Langevin step",
    minutes=8,
    hints=(
        "Tweedie's formula, alpha x0 = x + sigma² score, says how the denoiser's answer becomes a score. Solve it.",
        "The second line is the step of section 1, with z given: drift along the score, and noise.",
        "Watch two powers: sigma is squared in the score, and the noise has the root of twice the step.",
    ),
    problem=_step_problem,
    reference=_langevin_step,
    properties={
        "where x is alpha x0 the score is zero, and the noise moves by sqrt(2 step)": Property(
            _push, lambda p: torch.full_like(p.z, (2 * p.step) ** 0.5)
        ),
        "without noise the drift on normal data is that of their score": Property(
            _pull, lambda p: -(p.x - p.alpha * p.mean) / p.spread
        ),
        "many steps settle on the variance of the noised data, and a bias of order step": Property(
            _settled, lambda p: p.spread / (1 - p.step / (2 * p.spread))
        ),
    },
    mistakes={
        "downhill": Mistake(
            "with x - alpha x0 in the score the walk flees from the data. The score points *uphill*.",
            ("x + step", "x - step"),
        ),
        "sigma for its square": Mistake(
            "the noise is eps = (x - alpha x0) / sigma, and the score is -eps / sigma: a second division. Where sigma "
            "is near 1 nobody notices; near clean data the drift is far too weak.",
            ("sigma**2", "sigma"),
        ),
        "the factor two under the root": Mistake(
            "sqrt(step) belongs to a drift of step / 2, as NCSN writes it. Beside the whole step it makes a walk that "
            "is too cold: it settles on half the variance.",
            ("(2 * step)", "step"),
        ),
        "noise without a root": Mistake(
            "2 step is the variance of the push, and what multiplies z is its root: variances add, roots do not.",
            (" ** 0.5", ""),
        ),
        "alpha forgotten": Mistake(
            "in x_t the picture is dimmed to alpha x0; pulled to x0 itself, the walk settles around the wrong mean.",
            ("alpha * x0", "x0"),
        ),
    },
)

# --- B: the drift of the probability flow -------------------------------------------------------------------------


def _flow_drift(denoiser, schedule, x, t):
    alpha, sigma = schedule.scales(t)
    f, g2 = schedule.drift_diffusion(t)
    score = (alpha * denoiser(x, t) - x) / sigma**2
    return f * x - 0.5 * g2 * score


def _bell(mean: float, variance: float) -> GaussianLaw:
    return GaussianLaw(torch.tensor([mean]).double(), torch.tensor(variance).double())


def _peaks(left: float, right: float, scale: float) -> GaussianMixture:
    means = torch.tensor([[-left], [right]]).double()
    return GaussianMixture(means, scales=scale, weights=torch.tensor([0.3, 0.7]))


def _drift_problem(generator):
    bell = _bell(uniform(generator, 0.4, 0.9), uniform(generator, 0.1, 0.4))
    peaks = _peaks(*(uniform(generator, 0.4, 0.7) for _ in range(2)), uniform(generator, 0.2, 0.4))
    t = torch.tensor(uniform(generator, 0.25, 0.6), dtype=torch.float64)
    return SimpleNamespace(bell=bell, peaks=peaks, t=t, x=torch.randn(12, 1, generator=generator, dtype=torch.float64))


def _drift(answer, p, schedule: Schedule, law: str = "bell") -> Tensor:
    return answer(getattr(p, law).denoiser(schedule), schedule, p.x, p.t)


_H = 1e-5  # half the span of a central difference


def _moving(p, schedule: Schedule) -> Tensor:
    """The velocity of the closed-form trajectory, on normal data."""
    before, after = (p.bell.flow(p.x, p.t, p.t + shift, schedule) for shift in (-_H, _H))
    return (after - before) / (2 * _H)


def _keeping_quantiles(p, schedule: Schedule, law: str) -> Tensor:
    """The velocity that keeps ``F_t(x_t)``: ``dx/dt = -(dF/dt) / p``, with distribution function F and density p."""
    peaks = getattr(p, law)
    before, after = (mixture_cdf(peaks, p.x[:, 0], p.t + shift, schedule) for shift in (-_H, _H))
    return -((after - before) / (2 * _H) / peaks.log_prob(p.x, p.t, schedule).exp())[:, None]


B = Exercise(
    id="12.B",
    title="the drift of the probability flow",
    minutes=15,
    importance="the lesson builds on it",
    hints=(
        "The gradient of p is p times the gradient of log p: the last term is the divergence of something times p.",
        "Write both right sides as minus the divergence of something times p. What multiplies p for the SDE is v.",
        "`schedule.drift_diffusion(t)` gives f and g squared. The score is that of exercise A, from `denoiser(x, t)`.",
    ),
    problem=_drift_problem,
    reference=_flow_drift,
    properties={
        "on normal data under VP the path is the one in closed form": Property(
            _drift, _moving, 1e-5, given=(vp_linear(),)
        ),
        "under VE, which has no drift of its own, too": Property(_drift, _moving, 1e-5, given=(ve(sigma_max=5.0),)),
        "and under sub-VP": Property(_drift, _moving, 1e-5, given=(sub_vp(),)),
        "on two peaks, every quantile stays the quantile it was": Property(
            _drift, _keeping_quantiles, 1e-4, given=(vp_cosine(), "peaks")
        ),
    },
    mistakes={
        "the half is missing": Mistake(
            "that is the drift of the reverse SDE, which needs g^2 whole because its noise gives half of it back. "
            "Without noise the paths run together, and the result is too narrow.",
            ("0.5 * g2", "g2"),
        ),
        "the sign of the score": Mistake(
            "time runs towards the noise in dx/dt, and forward the flow spreads the data: *against* the score.",
            ("- 0.5", "+ 0.5"),
        ),
        "g for its square": Mistake(
            "drift_diffusion returns g^2, for that is what every formula needs; its root, sqrt(beta) under VP, is what "
            "multiplies noise, and there is none here.",
            ("g2 * score", "g2.sqrt() * score"),
        ),
        "the forward drift forgotten": Mistake(
            "under VE there is none, and the answer is right; under VP the data also shrink, by f x.", ("f * x - ", "-")
        ),
        "the noise for the score": Mistake(
            "many networks predict eps. The score is -eps / sigma: mind the sign, and the second sigma.",
            ("(alpha * denoiser(x, t) - x) / sigma**2", "(x - alpha * denoiser(x, t)) / sigma"),
        ),
    },
)

# --- C: a density by change of variables --------------------------------------------------------------------------


def _log_density(flow, x0, times, log_prior):
    x, change = x0, torch.zeros_like(x0)
    for t, s in pairwise(times):
        v, div = flow(x, t)
        v_next, div_next = flow(x + (s - t) * v, s)
        x = x + (s - t) * (v + v_next) / 2
        change = change + (s - t) * (div + div_next) / 2
    return log_prior(x) + change


_SCHEDULE = vp_linear()


def _normal(x: Tensor) -> Tensor:
    return -0.5 * (x**2 + math.log(2 * math.pi))


def _flow_of(law: GaussianMixture):
    """``dx/dt`` of the probability flow in one dimension under VP, and its derivative in x, in closed form."""
    means, variances, logs = law.means[:, 0], law.variances[:, 0], law.weights.log()

    def flow(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        beta = 0.1 + 19.9 * float(t)
        alpha = math.exp(-0.05 * float(t) - 4.975 * float(t) ** 2)  # `vp_linear` in plain numbers: called very often
        spread = 1 + alpha**2 * (variances - 1)
        pulls = (alpha * means - x[:, None]) / spread
        fractions = (logs - 0.5 * (pulls**2 * spread + spread.log())).softmax(1)
        score = (fractions * pulls).sum(1)
        bend = (fractions * (pulls**2 - 1 / spread)).sum(1) - score**2
        return -beta / 2 * (x + score), -beta / 2 * (1 + bend)

    return flow


def _density_problem(generator):
    bell = _bell(uniform(generator, -0.5, 0.5), uniform(generator, 0.2, 0.5))
    return SimpleNamespace(
        bell=bell, peaks=_peaks(0.6, 0.6, uniform(generator, 0.3, 0.5)),
        x=2 * torch.rand(8, generator=generator, dtype=torch.float64) - 1, pace=uniform(generator, 0.5, 1.0),
        times=quadratic(100, 1.0, 1e-3).flip(0), even=torch.linspace(0, 1, 61, dtype=torch.float64),
    )  # fmt: skip


def _under(answer, p, velocity, divergence: float) -> Tensor:
    """The density under a flow of constant divergence, from the unit normal distribution."""
    return answer(lambda x, t: (velocity(x), torch.full_like(x, divergence)), p.x, p.even, _normal)


def _density(answer, p, name: str) -> Tensor:
    law = getattr(p, name)
    return answer(_flow_of(law), p.x, p.times, lambda x: law.log_prob(x[:, None], p.times[-1], _SCHEDULE))


def _true_density(p, name: str) -> Tensor:
    return getattr(p, name).log_prob(p.x[:, None], p.times[0], _SCHEDULE)


C = Exercise(
    id="12.C",
    title="a density by change of variables",
    minutes=25,
    hints=(
        "One loop over pairs of times with two running quantities: x, and the sum of divergence times dt.",
        "Plain steps are of order one. Heun's are better: step, ask again at the end of the step, and go along the "
        "mean of the two. The divergence takes the mean of the same two calls.",
        "d log p(x_t) / dt = -divergence along the path. Which point does `log_prior` want, and is the sum added or "
        "subtracted?",
    ),
    problem=_density_problem,
    reference=_log_density,
    properties={
        "a flow that only shifts changes no volume: log p is the prior's at the place arrived at": Property(
            lambda answer, p: _under(answer, p, lambda x: torch.full_like(x, p.pace), 0.0),
            lambda p: _normal(p.x + p.pace),
            0.02,
        ),
        "a flow that stretches by e^c adds c": Property(
            lambda answer, p: _under(answer, p, lambda x: p.pace * x, p.pace),
            lambda p: _normal(p.x * math.exp(p.pace)) + p.pace,
            0.03,
        ),
        "the flow of normal data gives their density": Property(_density, _true_density, 0.05, given=("bell",)),
        "that of two peaks, too": Property(_density, _true_density, 0.05, given=("peaks",)),
    },
    mistakes={
        "the sign of the divergence": Mistake(
            "what the flow stretches on its way to the noise was denser before: log p at the data is larger by it.",
            ("log_prior(x) + change", "log_prior(x) - change"),
        ),
        "the volume forgotten": Mistake(
            "where the path ends the density is another: on the way the flow spreads, or crowds, what lies around it.",
            ("log_prior(x) + change", "log_prior(x)"),
        ),
        "the prior asked at the start": Mistake(
            "log_prior is the law of the noise: it wants the place where the path arrives, not the data point.",
            ("log_prior(x)", "log_prior(x0)"),
        ),
        "no prior": Mistake(
            "the integral is a difference of two log densities; alone it says nothing of either.",
            ("log_prior(x) + change", "change"),
        ),
        "a sum for an integral": Mistake(
            "every divergence counts as long as its step lasts: times (later - t).",
            ("(s - t) * (div + div_next)", "(div + div_next)"),
        ),
    },
)
