"""Exercise C of lesson 12: the density of data by the change of variables along a flow."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import torch
from torch import Tensor

from survey_lib.core.exact import GaussianLaw, GaussianMixture
from survey_lib.core.grids import quadratic
from survey_lib.core.schedules import vp_linear
from survey_lib.course.exercises.framework import Exercise, Mistake, Property

_SCHEDULE = vp_linear()


def _density_with(sign=1.0, volume=lambda change, dt: change * dt, prior=lambda log_prior, x1, x0: log_prior(x1)):
    """Heun's method for the state and the trapezium rule for the divergence, with the usual places to go wrong."""

    def log_density(flow, x0, times, log_prior):
        x, change = x0, torch.zeros_like(x0)
        for t, later in pairwise(times):
            dt = later - t
            v, div = flow(x, t)
            v_ahead, div_ahead = flow(x + dt * v, later)
            x, change = x + dt * (v + v_ahead) / 2, change + volume((div + div_ahead) / 2, dt)
        return prior(log_prior, x, x0) + sign * change

    return log_density


def _density_stub(flow, x0, times, log_prior):
    raise NotImplementedError


def _normal(x: Tensor) -> Tensor:
    return -0.5 * (x**2 + math.log(2 * math.pi))


def _flow_of(law: GaussianMixture):
    """``dx/dt`` of the probability flow of a law on a line under VP, and its derivative in x: in closed form."""
    means, variances, logs = law.means[:, 0], law.variances[:, 0], law.weights.log()

    def flow(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        beta = 0.1 + 19.9 * float(t)
        alpha = math.exp(-0.05 * float(t) - 4.975 * float(t) ** 2)  # as `vp_linear`, of which hundreds are asked
        spread = 1 + alpha**2 * (variances - 1)
        pulls = (alpha * means - x[:, None]) / spread
        shares = (logs - 0.5 * (pulls**2 * spread + spread.log())).softmax(1)
        score = (shares * pulls).sum(1)
        bend = (shares * (pulls**2 - 1 / spread)).sum(1) - score**2
        return -beta / 2 * (x + score), -beta / 2 * (1 + bend)

    return flow


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


def _density_problem(generator):
    bell = GaussianLaw(
        torch.tensor([_uniform(generator, -0.5, 0.5)]).double(), torch.tensor(_uniform(generator, 0.2, 0.5)).double()
    )
    peaks = GaussianMixture(
        torch.tensor([[-0.6], [0.6]]).double(), scales=_uniform(generator, 0.3, 0.5), weights=torch.tensor([0.3, 0.7])
    )
    return SimpleNamespace(
        bell=bell,
        peaks=peaks,
        x=2 * torch.rand(8, generator=generator, dtype=torch.float64) - 1,
        pace=_uniform(generator, 0.5, 1.0),
        times=quadratic(100, 1.0, 1e-3).flip(0),
        even=torch.linspace(0, 1, 61, dtype=torch.float64),
    )


def _simple(answer, p, flow) -> Tensor:
    return answer(flow, p.x, p.even, _normal)


def _of_law(name: str):
    def measure(answer, p):
        law = getattr(p, name)
        return answer(_flow_of(law), p.x, p.times, lambda x: law.log_prob(x[:, None], p.times[-1], _SCHEDULE))

    def exact(p) -> Tensor:
        return getattr(p, name).log_prob(p.x[:, None], p.times[0], _SCHEDULE)

    return measure, exact


C = Exercise(
    id="12.C",
    title="a density by change of variables",
    difficulty="independent",
    minutes=25,
    hints=(
        "Walk from the data to the noise, x = x + (later - t) * velocity, and carry a second number along: how much "
        "the flow has stretched the space so far.",
        "d log p(x_t) / dt = -divergence along the path: log p at the start is log p at the end *plus* the integral.",
        "At the end ask log_prior of where you arrived. Take the mean of the slopes at both ends of a step (Heun): "
        "plain steps are just about good enough.",
    ),
    problem=_density_problem,
    properties=(
        Property(
            "a flow that only shifts changes no volume: log p is the prior's at the place arrived at",
            lambda answer, p: _simple(answer, p, lambda x, t: (torch.full_like(x, p.pace), torch.zeros_like(x))),
            lambda p: _normal(p.x + p.pace),
            tolerance=0.02,
        ),
        Property(
            "a flow that stretches by e^c adds c",
            lambda answer, p: _simple(answer, p, lambda x, t: (p.pace * x, torch.full_like(x, p.pace))),
            lambda p: _normal(p.x * math.exp(p.pace)) + p.pace,
            tolerance=0.03,
        ),
        Property("the flow of normal data gives their density", *_of_law("bell"), tolerance=0.05),
        Property("that of two peaks, too", *_of_law("peaks"), tolerance=0.05),
    ),
    mistakes=(
        Mistake(
            "the sign of the divergence",
            "what the flow stretches on its way to the noise was denser before: log p at the data is larger by it.",
            _density_with(sign=-1.0),
        ),
        Mistake(
            "the volume forgotten",
            "the density where the path ends is not that where it began: on the way the flow spreads, or crowds, what "
            "lies around it.",
            _density_with(sign=0.0),
        ),
        Mistake(
            "the prior asked at the start",
            "log_prior is the law of the noise: it wants the place where the path arrives, not the data point.",
            _density_with(prior=lambda log_prior, x1, x0: log_prior(x0)),
        ),
        Mistake(
            "no prior",
            "the integral is a difference of two log densities; alone it says nothing of either.",
            _density_with(prior=lambda log_prior, x1, x0: torch.zeros_like(x1)),
        ),
        Mistake(
            "a sum for an integral",
            "every divergence counts as long as its step lasts: times (later - t).",
            _density_with(volume=lambda change, dt: change),
        ),
    ),
    reference=_density_with(),
    stub=_density_stub,
)
