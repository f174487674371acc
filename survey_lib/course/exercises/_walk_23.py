"""Exercise 23.B: dynamic programming, against brute force."""

from __future__ import annotations

import itertools
import math
from itertools import pairwise
from types import SimpleNamespace

import torch
from torch import Tensor

from survey_lib.course.exercises.framework import Exercise, Mistake, Property


def _best_path(costs, steps):
    came_from = _layers(costs, steps)
    nodes = [len(costs) - 1]
    for before in reversed(came_from):
        nodes.append(int(before[nodes[-1]]))
    return nodes[::-1]


def _layers(costs, steps):
    best = torch.full((len(costs),), math.inf, dtype=torch.float64)
    best[0], came_from = 0.0, []
    for _ in range(steps):
        best, before = (best[:, None] + costs).min(0)
        came_from.append(before)
    return came_from


def _greedy(costs, steps):
    nodes, last = [0], len(costs) - 1
    for left in range(steps - 1, 0, -1):
        row = costs[nodes[-1], : last - left + 1]
        nodes.append(int(row.argmin()))
    return [*nodes, last]


def _at_most(costs, steps):
    return min((_best_path(costs, k) for k in range(1, steps + 1)), key=lambda path: _cost(costs, path))


def _one_table(costs, steps):
    before = _layers(costs, steps)[-1]
    nodes = [len(costs) - 1]
    for _ in range(steps):
        nodes.append(int(before[nodes[-1]]))
    return nodes[::-1]


def _even(costs, steps):
    return [round(i * (len(costs) - 1) / steps) for i in range(steps + 1)]


def _cost(costs: Tensor, path) -> float:
    nodes = [int(node) for node in path]
    return sum(costs[i, j].item() for i, j in pairwise(nodes))


def _path_stub(costs, steps):
    raise NotImplementedError


def _path_problem(generator):
    """Prices as those of a bound: long steps are dear; here every step has a price of its own too."""
    nodes = 9
    place = torch.rand(nodes, generator=generator, dtype=torch.float64).cumsum(0)
    costs = (place[None] - place[:, None]) ** 2 * (0.5 + torch.rand(nodes, 1, generator=generator).double())
    costs = costs + torch.rand(nodes, nodes, generator=generator).double() * 0.5 + 1.2
    costs[torch.ones(nodes, nodes).tril().bool()] = math.inf
    return SimpleNamespace(costs=costs)


def _brute_force(costs: Tensor, steps: int) -> float:
    last = len(costs) - 1
    walks = itertools.combinations(range(1, last), steps - 1)
    return min(_cost(costs, (0, *middle, last)) for middle in walks)


_LENGTHS = (2, 3, 4, 5, 6, 7)


def _ends(answer, p):
    path = [int(node) for node in answer(p.costs, 4)]
    return torch.tensor([path[0], path[-1], len(path)])


B = Exercise(
    id="23.B",
    title="the best walk over a table",
    difficulty="supported",
    minutes=20,
    hints=(
        "The best walk of k steps to node j ends with a step from some i. What do you know of the walk to that i?",
        "best[j] after k steps = min over i of best[i] after k - 1 steps + costs[i, j]; remember which i it was, "
        "for every k.",
        "Start with best = 0 at node 0 and infinity elsewhere; at the end follow the remembered nodes back.",
    ),
    problem=_path_problem,
    properties=(
        Property(
            "four steps lead from the first node to the last over three others",
            _ends,
            lambda p: torch.tensor([0, len(p.costs) - 1, 5]),
            show="{:.0f}".format,
        ),
        Property(
            "no walk of three steps is cheaper",
            lambda answer, p: _cost(p.costs, answer(p.costs, 3)),
            lambda p: _brute_force(p.costs, 3),
            1e-9,
        ),
        Property(
            "for no number of steps is another walk cheaper",
            lambda answer, p: torch.tensor([_cost(p.costs, answer(p.costs, k)) for k in _LENGTHS]),
            lambda p: torch.tensor([_brute_force(p.costs, k) for k in _LENGTHS]),
            1e-9,
        ),
    ),
    mistakes=(
        Mistake(
            "the cheapest next step",
            "each step is as cheap as can be, so all of it should be. But a cheap first step may leave only dear ones.",
            _greedy,
        ),
        Mistake(
            "at most so many steps",
            "taking the smaller of k and k - 1 steps looks like a safe improvement. The question was for exactly k: "
            "a network evaluation that is paid for is better used.",
            _at_most,
        ),
        Mistake(
            "nodes counted for steps",
            "k steps visit k + 1 nodes; a loop over k - 1 further nodes makes one step too few.",
            lambda costs, steps: _best_path(costs, max(1, steps - 1)),
        ),
        Mistake(
            "one table of predecessors for all lengths",
            "the node before j on the best walk of two steps is not the one on the best walk of five: "
            "each length needs its own.",
            _one_table,
        ),
        Mistake(
            "even steps",
            "nothing has been compared: this is the walk one had before looking at the table.",
            _even,
        ),
    ),
    reference=_best_path,
    stub=_path_stub,
)
