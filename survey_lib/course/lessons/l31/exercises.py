"""Exercises of lesson 31: codes with a gradient, the price of a wrong plan, and a check that finds mixed-up plans."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from survey_lib.course.exercises.framework import Exercise, Mistake, Property

# --- A: codes -----------------------------------------------------------------------------------------------------


def _quantise(z, vectors):
    nearest = vectors[torch.cdist(z, vectors).argmin(1)]
    return z + (nearest - z).detach()


def _codes_problem(generator):
    z, vectors, slope = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (12, 7, 12))
    return SimpleNamespace(z=z, vectors=vectors, slope=slope)


def _nearest(p) -> Tensor:
    """By the definition, latent by latent."""
    return torch.stack([min(p.vectors, key=lambda code: float((code - one).square().sum())) for one in p.z])


def _gradient(answer, p, which: str) -> Tensor:
    """Of a linear function of the codes, with respect to the latents or to the vectors."""
    leaves = {name: getattr(p, name).clone().requires_grad_() for name in ("z", "vectors")}
    with torch.enable_grad():
        total = (answer(leaves["z"], leaves["vectors"]) * p.slope).sum()
    if total.requires_grad:
        total.backward()
    found = leaves[which].grad
    return torch.zeros_like(leaves[which]) if found is None else found


A = Exercise(
    id="31.A",
    title="codes that let a gradient pass",
    minutes=12,
    importance="the lesson builds on it",
    hints=(
        "Two things are wanted: the value of the nearest vector, and a gradient as if nothing had been replaced.",
        "`torch.cdist` gives all distances, latents by vectors. Which axis is that of the vectors?",
        "What is detached counts as a constant. Write the code as the latent plus a constant.",
    ),
    problem=_codes_problem,
    reference=_quantise,
    properties={
        "every latent becomes its nearest vector": Property(
            lambda answer, p: answer(p.z.clone(), p.vectors.clone()), _nearest
        ),
        "the gradient passes to the latent unchanged": Property(_gradient, lambda p, which: p.slope, given=("z",)),
        "and none reaches the vectors": Property(
            _gradient, lambda p, which: torch.zeros_like(p.vectors), given=("vectors",)
        ),
    },
    mistakes={
        "no gradient": Mistake(
            "choosing has no gradient: the encoder would learn nothing. Give the latent the value of the code, and "
            "keep the gradient of the latent.",
            ("z + (nearest - z).detach()", "nearest.detach() + 0 * z"),
        ),
        "the gradient goes to the vectors": Mistake(
            "the latent is the one that must feel the error. The vectors follow the latents by moving averages.",
            ("z + (nearest - z).detach()", "nearest"),
        ),
        "nothing is replaced": Mistake(
            "the value is still the latent: detach the difference, not the latent's own part.",
            ("z + (nearest - z).detach()", "nearest + (z - nearest)"),
        ),
        "the farthest": Mistake("the smallest distance is wanted, not the largest.", ("argmin", "argmax")),
    },
)

# --- B: a wrong plan ----------------------------------------------------------------------------------------------


def _drawn(cov, m, plan):
    weights = torch.linalg.solve(cov[:m, :m], cov[m:, :m], left=False)
    rest = cov[m:, m:] - weights @ cov[:m, m:]
    cross = weights @ plan
    fine = cross @ weights.T + rest
    return torch.cat([torch.cat([plan, cross.T], 1), torch.cat([cross, fine], 1)])


def _plans_problem(generator):
    root = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    other = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    return SimpleNamespace(cov=root @ root.T / 7, m=2, plan=other @ other.T / 4)


def _fine(answer, p, factor: float) -> Tensor:
    return answer(p.cov, p.m, factor * p.plan)[p.m :, p.m :]


def _given_the_plan(p, factor: float) -> Tensor:
    """The covariance of the fine numbers given the coarse ones, by the precision of both."""
    return torch.linalg.inv(torch.linalg.inv(p.cov)[p.m :, p.m :])


B = Exercise(
    id="31.B",
    title="what a wrong plan costs",
    minutes=15,
    importance="the lesson builds on it",
    hints=(
        "Fine given coarse is normal: its mean is `weights @ coarse`, and its covariance does not depend on coarse.",
        "The second stage is exact here, and is given a plan with covariance `plan` in place of `cov[:m, :m]`.",
        "A linear map W of numbers with covariance P has covariance W P W^T, and with them it shares W P.",
    ),
    problem=_plans_problem,
    reference=_drawn,
    properties={
        "with the true plan the whole distribution is right": Property(
            lambda answer, p: answer(p.cov, p.m, p.cov[: p.m, : p.m]), lambda p: p.cov
        ),
        "without any variation in the plan, what the plan leaves open remains": Property(
            _fine, _given_the_plan, given=(0.0,)
        ),
        "a wrong plan is handed on": Property(
            lambda answer, p: answer(p.cov, p.m, 2 * p.plan) - answer(p.cov, p.m, p.plan),
            lambda p: _drawn(p.cov, p.m, p.plan) - _drawn(p.cov, p.m, 0 * p.plan),
        ),
        "the plan is drawn as it is": Property(
            lambda answer, p: answer(p.cov, p.m, p.plan)[: p.m, : p.m], lambda p: p.plan
        ),
    },
    mistakes={
        "as if the plan were right": Mistake(
            "the fine numbers follow the plan that was *drawn*: its covariance is in the product, not the true one.",
            ("cross = weights @ plan", "cross = weights @ cov[:m, :m]"),
        ),
        "what the plan leaves open is missing": Mistake(
            "given a plan there are many fine endings: their covariance is added.",
            (" + rest", ""),
        ),
        "counted twice": Mistake(
            "what the plan already says about the fine numbers is not open any more: subtract it.",
            ("cov[m:, m:] - weights @ cov[:m, m:]", "cov[m:, m:]"),
        ),
        "not divided": Mistake(
            "the weights are cov(fine, coarse) times the *inverse* of cov(coarse).",
            ("torch.linalg.solve(cov[:m, :m], cov[m:, :m], left=False)", "cov[m:, :m]"),
        ),
    },
)

# --- C: mixed-up plans --------------------------------------------------------------------------------------------


def _keeps_plans(draw, plans):
    before = draw(plans)
    for i in range(len(plans)):
        other = plans.clone()
        other[i] = other[i] + 1
        moved = (draw(other) - before).abs().flatten(1).amax(1) > 1e-6
        if not moved[i] or moved.sum() != 1:
            return False
    return True


def _samplers_problem(generator):
    """Samplers of six pictures; only ``right`` keeps plans and pictures together."""
    plans = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    swapped = torch.tensor([0, 1, 2, 3, 5, 4])
    samplers = {
        "right": lambda plans: plans**3 + plans + noise,
        "blind": lambda plans: noise + 0 * plans,
        "order": lambda plans: plans.repeat_interleave(2, 0)[: len(plans)] + noise,
        "batch": lambda plans: plans - plans.mean(0) + noise,
        "last": lambda plans: plans[swapped] + noise,
        "shifted": lambda plans: plans.roll(1, 0) + noise,
    }
    return SimpleNamespace(plans=plans, samplers=samplers)


def _verdict(answer, p, name: str) -> float:
    return float(answer(p.samplers[name], p.plans.clone()))


C = Exercise(
    id="31.C",
    title="a check that finds mixed-up plans",
    minutes=20,
    hints=(
        "All noise is fixed inside `draw`: the same plans give the same pictures. So change one plan, and look.",
        "Two things can be wrong: the picture whose plan changed may stay, and another picture may move.",
        "A mistake may touch the last pictures only. How many plans do you have to change to be sure?",
    ),
    problem=_samplers_problem,
    reference=_keeps_plans,
    properties={
        "a right sampler passes": Property(_verdict, 1.0, given=("right",)),
        "a sampler that ignores its plans does not": Property(_verdict, 0.0, given=("blind",)),
        "nor one that repeats plans in the wrong order": Property(_verdict, 0.0, given=("order",)),
        "nor one that mixes the batch": Property(_verdict, 0.0, given=("batch",)),
        "nor one that swaps the last two": Property(_verdict, 0.0, given=("last",)),
        "nor one that hands every plan to its neighbour": Property(_verdict, 0.0, given=("shifted",)),
    },
    mistakes={
        "only the first plan is changed": Mistake(
            "the other plans were never changed: a mistake among the last pictures stays hidden.",
            ("range(len(plans))", "range(1)"),
        ),
        "only its own picture is looked at": Mistake(
            "another picture may have moved as well: exactly one must.",
            (" or moved.sum() != 1", ""),
        ),
        "only the number is counted": Mistake(
            "one picture moved, but was it the right one?",
            ("not moved[i] or ", ""),
        ),
        "only the others are looked at": Mistake(
            "a sampler that ignores its plans moves nothing, and passes your check.",
            ("not moved[i] or moved.sum() != 1", "moved.sum() > moved[i]"),
        ),
    },
)
