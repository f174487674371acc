"""Exercises of lesson 20: a weight under other levels, a velocity in two guesses, and the target of a student."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from survey_lib.course.exercises.framework import Exercise, Mistake, Property

# --- A: one emphasis, other levels --------------------------------------------------------------------------------


def _reweighted(lam, weight, p, q):
    return weight(lam) * p(lam) / q(lam)


def _levels_problem(generator):
    """Two normal densities of levels, a weight, and levels at which they are compared."""
    a, b = torch.rand(2, generator=generator, dtype=torch.float64)

    def normal(centre, width):
        return lambda lam: torch.exp(-(((lam - centre) / width) ** 2) / 2) / (width * (2 * torch.pi) ** 0.5)

    return SimpleNamespace(
        weight=lambda lam: torch.exp((0.5 + a) * lam),
        p=normal(a, 1.0),
        q=normal(-b, 1.5),
        lam=torch.linspace(-2, 2, 9, dtype=torch.float64),
    )


def _emphasis(answer, p) -> Tensor:
    return torch.as_tensor(answer(p.lam, p.weight, p.p, p.q)) * p.q(p.lam)


def _mean(answer, p) -> float:
    """The loss of an error that falls with lam, as an integral under q."""
    lam = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    return float((answer(lam, p.weight, p.p, p.q) * p.q(lam) * torch.exp(-lam)).sum() * (lam[1] - lam[0]))


def _wanted_mean(p) -> float:
    lam = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    return float((p.weight(lam) * p.p(lam) * torch.exp(-lam)).sum() * (lam[1] - lam[0]))


A = Exercise(
    id="20.A",
    title="the same emphasis from other levels",
    minutes=10,
    importance="the lesson builds on it",
    hints=(
        "The loss is an integral of density times weight times error. The product must stay the same at every level.",
        "Under q the product is q(lam) times the weight that you look for. It must equal p(lam) times weight(lam).",
        "q enters by drawing: the weight has to take it out. p does not enter any more: the weight has to put it in.",
    ),
    problem=_levels_problem,
    reference=_reweighted,
    properties={
        "density times weight stays, level by level": Property(_emphasis, lambda p: p.weight(p.lam) * p.p(p.lam)),
        "and so does a loss": Property(_mean, _wanted_mean),
        "with the same density it is the same weight": Property(
            lambda answer, p: answer(p.lam, p.weight, p.p, p.p), lambda p: p.weight(p.lam)
        ),
    },
    mistakes={
        "the wrong way round": Mistake(
            "levels that q draws more often must count less: divide by q.",
            ("p(lam) / q(lam)", "q(lam) / p(lam)"),
        ),
        "without the weight": Mistake(
            "the ratio of the densities corrects how often a level comes; how much it counted before is still there.",
            ("weight(lam) * p(lam)", "p(lam)"),
        ),
        "p forgotten": Mistake(
            "weight / q makes every level as frequent as the next: p decided how often it came.",
            ("weight(lam) * p(lam) / q(lam)", "weight(lam) / q(lam)"),
        ),
        "multiplied": Mistake(
            "q enters by drawing already: the weight has to divide it out.",
            ("p(lam) / q(lam)", "p(lam) * q(lam)"),
        ),
    },
)  # fmt: skip

# --- B: a velocity is two guesses ---------------------------------------------------------------------------------


def _from_velocity(x_t, v, alpha, sigma):
    power = alpha**2 + sigma**2
    return (alpha * x_t - sigma * v) / power, (sigma * x_t + alpha * v) / power


def _velocity_problem(generator):
    """Data, noise, and scales whose squares do not add up to 1."""
    x0, eps = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    alpha, sigma = 0.3 + torch.rand(2, generator=generator, dtype=torch.float64)
    return SimpleNamespace(x0=x0, eps=eps, alpha=float(alpha), sigma=float(sigma) + 0.2)


def _found(answer, p, which: int, alpha: float | None = None) -> Tensor:
    """Data (0) or noise (1) from a true velocity; with ``alpha`` the schedule preserves the variance."""
    a, s = (p.alpha, p.sigma) if alpha is None else (alpha, (1 - alpha**2) ** 0.5)
    return answer(a * p.x0 + s * p.eps, a * p.eps - s * p.x0, a, s)[which]


B = Exercise(
    id="20.B",
    title="data and noise from a velocity",
    minutes=15,
    hints=(
        "Two equations, two unknowns: x_t = alpha x0 + sigma eps, and v = alpha eps - sigma x0.",
        "Multiply the first by alpha, the second by sigma, and subtract: eps is gone.",
        "What stands before x0 is alpha^2 + sigma^2. It is 1 only where the schedule preserves the variance.",
    ),
    problem=_velocity_problem,
    reference=_from_velocity,
    properties={
        "the data, where the variance is preserved": Property(_found, lambda p, *_: p.x0, given=(0, 0.6)),
        "the noise, where the variance is preserved": Property(_found, lambda p, *_: p.eps, given=(1, 0.6)),
        "the data at any scales": Property(_found, lambda p, _: p.x0, given=(0,)),
        "the noise at any scales": Property(_found, lambda p, _: p.eps, given=(1,)),
    },
    mistakes={
        "a variance that is preserved": Mistake(
            "alpha^2 + sigma^2 is 1 for some schedules only: divide by it.",
            ("power = alpha**2 + sigma**2", "power = 1"),
        ),
        "the sign of the velocity": Mistake(
            "v = alpha eps - sigma x0: multiplied by sigma and taken away, it leaves x0.",
            (("- sigma * v", "+ sigma * v"), ("+ alpha * v", "- alpha * v")),
        ),
        "the noise first": Mistake(
            "data is returned first, then the noise.",
            (
                ("(alpha * x_t - sigma * v) / power, ", ""),
                ("return (sigma * x_t + alpha * v) / power",
                 "return (sigma * x_t + alpha * v) / power, (alpha * x_t - sigma * v) / power"),
            ),
        ),
        "the root of the power": Mistake(
            "the sum of the squares itself is left before x0, not its root.",
            ("power = alpha**2 + sigma**2", "power = (alpha**2 + sigma**2) ** 0.5"),
        ),
    },
)  # fmt: skip

# --- C: the target of a student -----------------------------------------------------------------------------------


def _students_target(x_t, x_s, alpha_t, sigma_t, alpha_s, sigma_s):
    ratio = sigma_s / sigma_t
    return (x_s - ratio * x_t) / (alpha_s - ratio * alpha_t)


def _step_problem(generator):
    x0, eps = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    early, late = 0.2 + 0.3 * torch.rand(2, generator=generator, dtype=torch.float64)
    t, s = float(early) + 0.7, float(late)
    scales = [torch.tensor(angle).double() for angle in (t, s)]
    return SimpleNamespace(x0=x0, eps=eps, at=[(a.cos(), a.sin()) for a in scales])


def _target(answer, p, clean: bool) -> Tensor:
    """From states that share data and noise; with ``clean`` the student's step ends at the data."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = p.at[0], ((torch.ones(()).double(), 0.0) if clean else p.at[1])
    x_t, x_s = alpha_t * p.x0 + sigma_t * p.eps, alpha_s * p.x0 + sigma_s * p.eps
    return answer(x_t, x_s, alpha_t, sigma_t, alpha_s, sigma_s)


def _arrives(answer, p) -> Tensor:
    """The end of one step of DDIM with the target, for any x_t and any x_s."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = p.at
    x0 = answer(p.x0, p.eps, alpha_t, sigma_t, alpha_s, sigma_s)
    return alpha_s * x0 + sigma_s * (p.x0 - alpha_t * x0) / sigma_t


C = Exercise(
    id="20.C",
    title="what a student must predict that does two steps in one",
    minutes=20,
    hints=(
        "Put eps = (x_t - alpha_t x0) / sigma_t into x_s = alpha_s x0 + sigma_s eps. Only x0 is unknown.",
        "With r = sigma_s / sigma_t: x_s = alpha_s x0 + r x_t - r alpha_t x0.",
        "Collect x0: its factor is alpha_s - r alpha_t.",
    ),
    problem=_step_problem,
    reference=_students_target,
    properties={
        "one step with it arrives at x_s": Property(_arrives, lambda p: p.eps),
        "states on one straight way imply its data": Property(_target, lambda p, _: p.x0, given=(False,)),
        "a step to clean data implies where it ends": Property(_target, lambda p, _: p.x0, given=(True,)),
    },
    mistakes={
        "the state it arrives at": Mistake(
            "x_s still has noise; the student predicts clean data.",
            ("(x_s - ratio * x_t) / (alpha_s - ratio * alpha_t)", "x_s"),
        ),
        "noise forgotten": Mistake(
            "x_s / alpha_s takes the noise of x_s for data: take the part of x_t away first.",
            ("(x_s - ratio * x_t) / (alpha_s - ratio * alpha_t)", "x_s / alpha_s"),
        ),
        "not rescaled": Mistake(
            "after the noise is gone, (alpha_s - ratio alpha_t) times the data is left: divide by it.",
            (" / (alpha_s - ratio * alpha_t)", ""),
        ),
        "the ratio upside down": Mistake(
            "the noise of x_t shrinks to that of x_s: ratio = sigma_s / sigma_t.",
            ("sigma_s / sigma_t", "sigma_t / sigma_s"),
        ),
    },
)  # fmt: skip
