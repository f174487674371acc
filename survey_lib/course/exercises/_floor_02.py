"""Exercise C of lesson 02: how far a real set is from itself, judged by which pictures are compared."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from survey_lib.course.exercises.framework import Exercise, Mistake, Property


def _floor_with(split):
    def floor(real, n, distance, generator):
        first, second = split(len(real), n, generator)
        return distance(real[first], real[second])

    return floor


def _halves(total, n, generator):
    order = torch.randperm(total, generator=generator)
    return order[:n], order[n : 2 * n]


def _floor_stub(real, n, distance, generator):
    raise NotImplementedError


def _floor_problem(generator):
    seed = int(torch.randint(2**31, (), generator=generator))
    real = torch.arange(1000.0).unsqueeze(1)  # every picture is known by its number, and they come sorted
    return SimpleNamespace(real=real, n=400, seed=seed)


def _sides(answer, p, salt=0):
    """The two sets that the answer compares, by the numbers of their pictures; and what it returns."""
    seen = []

    def distance(a, b):
        seen[:] = [a.flatten(), b.flatten()]
        return 42.0

    result = answer(p.real, p.n, distance, torch.Generator().manual_seed(p.seed + salt))
    a, b = seen or (torch.empty(0), torch.empty(0))
    return a, b, result


def _shared(answer, p):
    a, b, _ = _sides(answer, p)
    return len(set(a.tolist()) & set(b.tolist())) / max(1, len(a))


def _repeated(answer, p):
    a, b, _ = _sides(answer, p)
    return 1 - (len(a.unique()) + len(b.unique())) / max(1, len(a) + len(b))


C = Exercise(
    id="02.C",
    title="the floor of a measure",
    difficulty="independent",
    minutes=15,
    hints=(
        "How far is the real set from itself? Compare two parts of it, as large as the sets you will compare later.",
        "No picture may be on both sides, and the order of the files must not decide who is where.",
        "One random permutation of all indices: its first n on one side, its next n on the other.",
    ),
    problem=_floor_problem,
    properties=(
        Property(
            "there are 400 pictures on either side",
            lambda answer, p: torch.tensor([len(side) for side in _sides(answer, p)[:2]]),
            lambda p: torch.tensor([400, 400]),
            show="{:.0f} pictures".format,
        ),
        Property(
            "no picture is on both sides", _shared, lambda p: 0.0, alike=0.05, show="{:.0%} of them on both".format
        ),
        Property(
            "no picture is twice on one side", _repeated, lambda p: 0.0, alike=0.05, show="{:.0%} repeated".format
        ),
        Property(
            "sorted files are shuffled: both sides have about the same mean number",
            lambda answer, p: torch.stack([side.mean() for side in _sides(answer, p)[:2]]),
            lambda p: torch.tensor([499.5, 499.5]),
            tolerance=0.15,
            show="a mean of {:.0f}".format,
        ),
        Property(
            "another generator gives another split",
            lambda answer, p: float(torch.equal(_sides(answer, p)[0], _sides(answer, p, salt=1)[0])),
            lambda p: 0.0,
            show=lambda same: "the same split" if same else "another split",
        ),
        Property("the distance is handed on", lambda answer, p: _sides(answer, p)[2], lambda p: 42.0),
    ),
    mistakes=(
        Mistake(
            "the same pictures on both sides",
            "two independent draws of n look like two samples of the data; but the set is finite, they overlap, and "
            "shared pictures pull the floor below what any model can reach.",
            _floor_with(
                lambda total, n, g: (torch.randperm(total, generator=g)[:n], torch.randperm(total, generator=g)[:n])
            ),
        ),
        Mistake(
            "the set against itself",
            "the floor is then exactly 0. No finite sample reaches that, not even one of real pictures.",
            _floor_with(lambda total, n, g: (torch.randperm(total, generator=g)[:n],) * 2),
        ),
        Mistake(
            "unequal sides",
            "n against all the rest uses the data best, but the bias of these measures depends on the size of the "
            "sets: a floor at another size is the floor of another measure.",
            _floor_with(lambda total, n, g: torch.randperm(total, generator=g).tensor_split([n])),
        ),
        Mistake(
            "the files in their order",
            "the first n and the next n are different pictures, and in most data sets different classes too: "
            "what is measured is the sorting.",
            _floor_with(lambda total, n, g: (torch.arange(n), torch.arange(n, 2 * n))),
        ),
        Mistake(
            "drawn with repetition",
            "randint is shorter than randperm. It draws some pictures twice and leaves a third out, "
            "so both sides are poorer than a real sample.",
            _floor_with(lambda total, n, g: torch.randint(total, (2 * n,), generator=g).chunk(2)),
        ),
    ),
    reference=_floor_with(_halves),
    stub=_floor_stub,
)
