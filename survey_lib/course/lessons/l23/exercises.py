"""Exercises of lesson 23: a network under another schedule, the cheapest path over a table, the variance of a step."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import torch
from torch import Tensor

from survey_lib.core.corruptions import Gaussian, posterior_variance
from survey_lib.core.exact import GaussianLaw
from survey_lib.core.protocols import normal
from survey_lib.core.schedules import Schedule, edm, rectified, vp_linear
from survey_lib.course.exercises.framework import Exercise, Mistake, Property

# --- A: another schedule ------------------------------------------------------------------------------------------


def _ask(denoiser, trained, sampled, x_t, t):
    u = trained.time(sampled.lam(t))
    ratio = trained.scales(u)[0] / sampled.scales(t)[0]
    return denoiser(ratio * x_t, u)


def _ask_problem(generator):
    mean = normal((3,), generator, torch.float64)
    law = GaussianLaw(mean, 0.2 + torch.rand((), generator=generator, dtype=torch.float64))
    t = 0.25 + 0.2 * torch.rand((), generator=generator, dtype=torch.float64)
    return SimpleNamespace(law=law, t=t, x_t=2 * normal((5, 3), generator, torch.float64))


def _under(sampled: Schedule) -> Property:
    """The prediction of a network trained under DDPM's schedule and sampled under another; and the exact prediction."""
    return Property(
        lambda answer, p: answer(p.law.denoiser(vp_linear()), vp_linear(), sampled, p.x_t, p.t),
        lambda p: p.law.denoiser(sampled)(p.x_t, p.t),
    )


A = Exercise(
    id="23.A",
    title="another schedule",
    minutes=8,
    hints=(
        "The network knows noise levels. At which time of its own schedule is a picture as noisy as x_t is?",
        "As noisy means the same lam: `sampled.lam(t)` gives it, and `trained.time` finds it.",
        "At equal lam the two states differ by a factor, alpha of the one over alpha of the other. The answer is x0, "
        "which has no scale to undo.",
    ),
    problem=_ask_problem,
    reference=_ask,
    properties={
        "under its own schedule nothing changes": _under(vp_linear()),
        "on the straight path the answer is exact": _under(rectified()),
        "under EDM's schedule the answer is exact": _under(edm(sigma_max=5.0)),
    },
    mistakes={
        "the same t": Mistake(
            "t = 0.3 is a place on a schedule, and another schedule has other noise there: the network is told a "
            "level that is not the one it sees.",
            ("trained.time(sampled.lam(t))", "t"),
        ),
        "the state is not rescaled": Mistake(
            "the level is right, but the network expects pictures of the size that its own schedule makes: "
            "alpha x0 + sigma eps with its alpha.",
            ("ratio * x_t", "x_t"),
        ),
        "the factor upside down": Mistake(
            "dividing where one multiplies is easily done, and under the network's own schedule the factor is 1.",
            ("ratio * x_t", "x_t / ratio"),
        ),
        "the answer rescaled too": Mistake(
            "the network answers x0, the clean picture, and that has no noise level and no scale to undo.",
            ("x_t, u)", "x_t, u) / ratio"),
        ),
        "equal sigma for equal lam": Mistake(
            "where alpha stays 1, as in EDM, sigma = 1 is as much noise as signal; where the variance is preserved "
            "it is noise alone. The ratio counts.",
            ("sampled.lam(t)", "0.5 * torch.log(sampled.scales(t)[1].clamp(max=0.9999) ** -2 - 1)"),
        ),
    },
)

# --- B: the best path over a table --------------------------------------------------------------------------------


def _best_path(costs, steps):
    best = torch.full((len(costs),), torch.inf, dtype=torch.float64)
    best[0], came_from = 0.0, []
    for _ in range(steps):
        best, before = (best[:, None] + costs).min(0)
        came_from.append(before)
    path = [len(costs) - 1]
    for before in reversed(came_from):
        path.append(int(before[path[-1]]))
    return path[::-1]


def _greedy(costs, steps):
    path, last = [0], len(costs) - 1
    for left in range(steps - 1, 0, -1):
        path.append(int(costs[path[-1], : last - left + 1].argmin()))
    return [*path, last]


def _at_most(costs, steps):
    return min((_best_path(costs, k) for k in range(1, steps + 1)), key=lambda path: _cost(costs, path))


def _even(costs, steps):
    return [round(i * (len(costs) - 1) / steps) for i in range(steps + 1)]


def _path_problem(generator):
    """Costs like those of a bound, in which long steps cost more, plus a random cost for every step."""
    nodes = 9
    place = torch.rand(nodes, generator=generator, dtype=torch.float64).cumsum(0)
    costs = (place[None] - place[:, None]) ** 2 * (0.5 + torch.rand(nodes, 1, generator=generator).double())
    costs = costs + torch.rand(nodes, nodes, generator=generator).double() * 0.5 + 1.2
    return costs.masked_fill(torch.ones(nodes, nodes).tril().bool(), torch.inf)


def _cost(costs: Tensor, path) -> float:
    return sum(costs[int(i), int(j)].item() for i, j in itertools.pairwise(path))


def _found(answer, costs, lengths) -> Tensor:
    return torch.tensor([_cost(costs, answer(costs, steps)) for steps in lengths])


def _brute_force(costs, lengths) -> Tensor:
    inner, last = range(1, len(costs) - 1), len(costs) - 1
    paths = [[(0, *middle, last) for middle in itertools.combinations(inner, steps - 1)] for steps in lengths]
    return torch.tensor([min(_cost(costs, path) for path in some) for some in paths])


def _ends(answer, costs):
    path = [int(node) for node in answer(costs, 4)]
    return torch.tensor([path[0], path[-1], len(path)])


B = Exercise(
    id="23.B",
    title="the best walk over a table",
    minutes=20,
    hints=(
        "The best walk of k steps to node j ends with a step from some i. What do you know of the walk to that i?",
        "best[j] after k steps is the least, over all i, of best[i] after k - 1 steps plus costs[i, j]: one `min(0)` "
        "of a table. Remember which i it was, for every k.",
        "Begin with 0 at the first node and infinity elsewhere; at the end, follow the kept nodes back from the last.",
    ),
    problem=_path_problem,
    reference=_best_path,
    properties={
        "four steps lead from the first node to the last over three others": Property(
            _ends, lambda costs: torch.tensor([0, len(costs) - 1, 5]), show="{:.0f}".format
        ),
        "no walk of three steps is cheaper": Property(_found, _brute_force, 1e-9, given=((3,),)),
        "for no number of steps is another walk cheaper": Property(
            _found, _brute_force, 1e-9, given=((2, 3, 4, 5, 6, 7),)
        ),
    },
    mistakes={
        "the cheapest next step": Mistake(
            "each step is as cheap as can be, so all of it should be. But a cheap first step may leave only dear ones.",
            answer=_greedy,
        ),
        "at most so many steps": Mistake(
            "taking the smaller of k and k - 1 steps looks like a safe improvement. The question was for exactly k: "
            "a network evaluation that is paid for is better used.",
            answer=_at_most,
        ),
        "nodes counted for steps": Mistake(
            "k steps visit k + 1 nodes; a loop over k - 1 further nodes makes one step too few.",
            ("range(steps)", "range(max(1, steps - 1))"),
        ),
        "one table of predecessors for all lengths": Mistake(
            "the node before j on the best walk of two steps is not the one on the best walk of five: "
            "each length needs its own.",
            ("reversed(came_from)", "came_from[-1:] * steps"),
        ),
        "even steps": Mistake(
            "nothing has been compared: this is the walk one had before looking at the table.", answer=_even
        ),
    },
)

# --- C: the variance of a step ------------------------------------------------------------------------------------


def _best_variance(schedule, t, s, error):
    _, on_x0, variance = Gaussian(schedule).coefficients(t, s)
    return variance + on_x0**2 * error


def _variance_problem(generator):
    c, t, s = torch.rand(3, generator=generator, dtype=torch.float64)
    t = 0.3 + 0.4 * t
    return SimpleNamespace(schedule=vp_linear(), c=0.2 + 0.6 * c, t=t, s=t * (0.3 + 0.4 * s))


def _variance(answer, p, times: float):
    """The answer for an error of ``times`` the variance of x0 given x_t, on data N(0, c)."""
    alpha, sigma = p.schedule.scales(p.t)
    return answer(p.schedule, p.t, p.s, times * p.c * sigma**2 / (alpha**2 * p.c + sigma**2))


def _of_the_bridge(p, *_):
    return posterior_variance(p.schedule, p.t, p.s)


def _reverse_variance(p, *_):
    """Var(x_s | x_t) of Gaussian data in DDPM's chain: Var x_s - Cov(x_s, x_t)^2 / Var x_t."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = p.schedule.scales(p.t), p.schedule.scales(p.s)
    spread_t, spread_s = alpha_t**2 * p.c + sigma_t**2, alpha_s**2 * p.c + sigma_s**2
    return spread_s - (alpha_t / alpha_s * spread_s) ** 2 / spread_t


C = Exercise(
    id="23.C",
    title="the variance that is free",
    minutes=20,
    hints=(
        "x_s is drawn in two stages: first x0 from what x_t leaves open, then x_s from the bridge. Two independent "
        "causes of spread: variances add.",
        "The mean of the bridge moves by b times what x0 is off, and x0 is off by a mean square of `error`.",
        "A variance is a square: what multiplies x0 multiplies its variance by its own square.",
    ),
    problem=_variance_problem,
    reference=_best_variance,
    properties={
        "a denoiser that is always right needs the bridge's variance alone": Property(
            _variance, _of_the_bridge, 1e-8, given=(0.0,)
        ),
        "on Gaussian data it is the exact variance of x_s given x_t": Property(
            _variance, _reverse_variance, 1e-8, given=(1.0,)
        ),
        "twice the error adds twice as much": Property(
            lambda answer, p: _variance(answer, p, 2.0) - _variance(answer, p, 1.0),
            lambda p: _reverse_variance(p) - _of_the_bridge(p),
            1e-8,
        ),
    },
    mistakes={
        "the standard deviation": Mistake(
            "a sampler multiplies its noise by the root, so a root is on one's mind; what adds up is variances.",
            ("variance + on_x0**2 * error", "(variance + on_x0**2 * error).sqrt()"),
        ),
        "the bridge forgotten": Mistake(
            "what the denoiser does not know seems to be all that is uncertain. Even if x0 were known, "
            "DDPM's step draws fresh noise.",
            ("variance + on_x0", "on_x0"),
        ),
        "the weight not squared": Mistake(
            "the mean moves by on_x0 times what x0 is off, and a variance is a square.", ("on_x0**2", "on_x0")
        ),
        "the error of the noise for that of x0": Mistake(
            "networks are trained on eps, and its error is the SNR times that of x0: alpha^2 / sigma^2 too much.",
            ("* error", "* error * torch.exp(2 * schedule.lam(t))"),
        ),
        "the error as it is": Mistake(
            "an error in x0 reaches x_s only as far as the bridge listens to x0: a short step hardly does.",
            ("on_x0**2 * error", "error"),
        ),
    },
)
