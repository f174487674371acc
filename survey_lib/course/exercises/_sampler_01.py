"""Exercise C of lesson 01: the sampler with eta, judged by the exact law it gives on a Gaussian target."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import torch
from torch import Tensor

from survey_lib.core.exact import GaussianLaw
from survey_lib.core.protocols import normal
from survey_lib.core.schedules import vp_cosine
from survey_lib.course.exercises.framework import Exercise, Mistake, Property


def _sampler(fresh_of=None, keep_of=None, eta_of=lambda eta: eta, amount_of=lambda fresh: fresh, skip=0):
    """The loop, with the places where people go wrong left open."""

    def sample(denoiser, schedule, x, times, eta, generator):
        eta = eta_of(eta)
        for t, s in pairwise(times[: len(times) - skip]):
            (at, st), (as_, ss) = schedule.scales(t), schedule.scales(s)
            x0 = denoiser(x, t)
            eps = (x - at * x0) / st
            fresh = eta * (fresh_of or _posterior_std)(at, st, as_, ss)
            keep = (keep_of or _rest)(ss, fresh)
            x = as_ * x0 + keep * eps + amount_of(fresh) * normal(x.shape, generator, x.dtype)
        return x

    return sample


def _posterior_std(at, st, as_, ss):
    return ss * (1 - (at * ss / (as_ * st)) ** 2).clamp_min(0).sqrt()


def _chain_std(at, st, as_, ss):
    return (1 - (at / as_) ** 2).clamp_min(0).sqrt()


def _rest(ss, fresh):
    return (ss**2 - fresh**2).clamp_min(0).sqrt()


def _sample_stub(denoiser, schedule, x, times, eta, generator):
    raise NotImplementedError


def _sample_problem(generator):
    mean, std = (torch.rand((), generator=generator, dtype=torch.float64) + 0.5 for _ in range(2))
    law = GaussianLaw(mean.reshape(1), std.square().reshape(1, 1))
    x = normal((20_000, 1), generator, torch.float64)
    seed = int(torch.randint(2**31, (), generator=generator))
    times = torch.linspace(1, 0, 8, dtype=torch.float64)
    return SimpleNamespace(schedule=vp_cosine(), law=law, mean=mean, std=std, x=x, seed=seed, times=times)


def _run(answer, p, eta, denoiser=None, x=None, salt=0):
    denoiser = denoiser or p.law.denoiser(p.schedule)
    generator = torch.Generator().manual_seed(p.seed + salt)
    return answer(denoiser, p.schedule, p.x if x is None else x, p.times, eta, generator)


def _calls(answer, p):
    seen = []
    inner = p.law.denoiser(p.schedule)

    def counted(x, t, cond=None):
        seen.append(float(t))
        return inner(x, t)

    _run(answer, p, 1.0, counted, p.x[:10])
    return float(len(seen))


def _leftover(answer, p):
    """The mean square between the result and the last answer of the denoiser."""
    last = []
    inner = p.law.denoiser(p.schedule)

    def kept(x, t, cond=None):
        last[:] = [inner(x, t)]
        return last[0]

    return (_run(answer, p, 1.0, kept) - last[0]).square().mean().sqrt()


def _chance(answer, p):
    """What two generators change at eta = 0."""
    return (_run(answer, p, 0.0) - _run(answer, p, 0.0, salt=1)).abs().mean()


def _moments(eta):
    def measure(answer, p):
        x = _run(answer, p, eta)
        return torch.stack([x.mean(), x.std()])

    return measure


def _exact_moments(eta):
    """Mean and spread carried through the grid: with a Gaussian target every step is affine in the state."""

    def exact(p) -> Tensor:
        centre, variance = p.x.mean(), p.x.var()
        for t, s in pairwise(p.times):
            (at, st), (as_, ss) = p.schedule.scales(t), p.schedule.scales(s)
            pull = at * p.std**2 / (at**2 * p.std**2 + st**2)  # x0hat = mean + pull (x - alpha mean)
            fresh = eta**2 * ss**2 / st**2 * (1 - at**2 / as_**2)  # the posterior's, as alpha^2 + sigma^2 = 1
            keep = (ss**2 - fresh).clamp_min(0).sqrt() / st
            slope = as_ * pull + keep * (1 - at * pull)
            centre = as_ * p.mean + slope * (centre - at * p.mean)
            variance = slope**2 * variance + fresh
        return torch.stack([centre, variance.sqrt()])

    return exact


C = Exercise(
    id="01.C",
    title="the sampler with eta",
    difficulty="independent",
    minutes=25,
    hints=(
        "Start from your step of exercise B inside the loop over pairwise(times). With eta = 0 you are done.",
        "DDPM's own step forgets part of the old noise and draws as much anew: "
        "fresh = eta * sigma_s * sqrt(1 - (alpha_t sigma_s / (alpha_s sigma_t))^2).",
        "Old and new noise together must have variance sigma_s^2: the old one gets sqrt(sigma_s^2 - fresh^2).",
    ),
    problem=_sample_problem,
    properties=(
        Property(
            "seven steps ask the denoiser seven times", _calls, lambda p: 7.0, show=lambda n: f"{n:.0f} evaluations"
        ),
        Property("the last step to time 0 adds no noise", _leftover, lambda p: 0.0, 1e-6),
        Property("at eta = 0 nothing is left to chance", _chance, lambda p: 0.0, 1e-6),
        Property(
            "at eta = 1 a Gaussian target gives the exact mean and spread", _moments(1.0), _exact_moments(1.0), 0.03
        ),
        Property("at eta = 1/2 as well", _moments(0.5), _exact_moments(0.5), 0.03),
    ),
    mistakes=(
        Mistake(
            "eta forgotten",
            "the formula of DDPM has no eta, so it is easily left out where it should multiply the fresh noise; "
            "every setting then gives DDPM.",
            _sampler(eta_of=lambda eta: 1.0),
        ),
        Mistake(
            "noise in the last step",
            "the standard deviation of the forward chain, sqrt(beta), is a published choice; it does not vanish at "
            "time 0, and the finished picture is sprinkled with noise. The posterior's does, by its factor sigma_s.",
            _sampler(fresh_of=_chain_std),
        ),
        Mistake(
            "the last step is missing",
            "range(1, steps) and times[:-1] both look right and stop one step early: the result is a state, not a "
            "picture, and 95 evaluations are called 100.",
            _sampler(skip=1),
        ),
        Mistake(
            "variance for standard deviation",
            "papers give the variance of the fresh noise; what multiplies a normal number is its root.",
            _sampler(amount_of=lambda fresh: fresh**2),
        ),
        Mistake(
            "old noise kept whole",
            "the fresh noise is added and none of the old taken away: the total is above sigma_s, more than the "
            "denoiser expects at that time.",
            _sampler(keep_of=lambda ss, fresh: ss),
        ),
    ),
    reference=_sampler(),
    stub=_sample_stub,
)
