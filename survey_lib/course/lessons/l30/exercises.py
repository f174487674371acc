"""Exercises of lesson 30: attention to words, a setting chosen from measurements, and an edit that starts half-way."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional as F

from survey_lib.core import grids
from survey_lib.core.schedules import vp_linear
from survey_lib.course.exercises.framework import Exercise, Mistake, Property

# --- A: attention -------------------------------------------------------------------------------------------------


def _attend(query, key, value):
    weights = (query @ key.mT / key.shape[-1] ** 0.5).softmax(-1)
    return weights @ value


def _words_problem(generator):
    query, key, value = (
        torch.randn(2, n, size, generator=generator, dtype=torch.float64) for n, size in ((6, 4), (5, 4), (5, 3))
    )
    return SimpleNamespace(query=query, key=key, value=value)


def _by_torch(p) -> Tensor:
    return F.scaled_dot_product_attention(p.query, p.key, p.value)


A = Exercise(
    id="30.A",
    title="attention: which place looks at which word",
    minutes=10,
    importance="the lesson builds on it",
    hints=(
        "Every place has a query, every word a key and a value. Query and key fit as well as their inner product says.",
        "All products at once are a matrix, places by words. Divide it by the square root of the size of a key.",
        "For each place the weights of all words sum to one: which axis is that of the words? Then mix the values.",
    ),
    problem=_words_problem,
    reference=_attend,
    properties={
        "it is torch's attention": Property(lambda answer, p: answer(p.query, p.key, p.value), _by_torch),
        "one word alone is all that there is to see": Property(
            lambda answer, p: answer(p.query, p.key[:, :1], p.value[:, :1]),
            lambda p: p.value[:, :1].expand(-1, p.query.shape[1], -1),
        ),
        "equal keys share the attention equally": Property(
            lambda answer, p: answer(p.query, p.key[:, :1].expand_as(p.key), p.value),
            lambda p: p.value.mean(1, keepdim=True).expand(-1, p.query.shape[1], -1),
        ),
    },
    mistakes={
        "shared among the places": Mistake(
            "the softmax must run over the words: each place divides its attention among them. Here each word is "
            "divided among the places.",
            ("softmax(-1)", "softmax(-2)"),
        ),
        "not scaled": Mistake(
            "a sum of many products is large, and the softmax of large numbers picks one word alone: divide by the "
            "root of the size of a key.",
            (" / key.shape[-1] ** 0.5", ""),
        ),
        "divided by the size": Mistake(
            "the standard deviation of a sum of n products grows as the root of n, not as n.",
            ("** 0.5", "** 1.0"),
        ),
        "scaled by the words": Mistake(
            "what is summed are the entries of a key, not the words: the last axis of key says how many.",
            ("key.shape[-1]", "key.shape[-2]"),
        ),
    },
)

# --- B: the cheapest setting that is good enough ------------------------------------------------------------------


def _choose(rows, least):
    good = [row for row in rows if row["low"] >= least]
    return min(good, key=lambda row: (row["evaluations"], row["fd"]))


def _rows_problem(generator):
    """Settings of which one is lucky, two are equally cheap, one is best and another is nearest."""
    unit = float(0.9 + 0.1 * torch.rand((), generator=generator))
    table = (  # scale, evaluations, fraction right, the lower end of its interval, Fréchet distance
        (1.0, 5, 0.50, 0.45, 30.0),
        (1.0, 10, 0.92, 0.88, 9.0),
        (1.0, 16, 0.93, 0.905, 7.5),
        (2.0, 16, 0.93, 0.91, 8.5),
        (2.0, 20, 0.95, 0.92, 8.0),
        (1.0, 40, 0.96, 0.92, 4.0),
        (2.0, 40, 0.99, 0.97, 10.0),
    )
    rows = [
        {"scale": scale, "evaluations": evaluations, "all": unit * right, "low": unit * low, "fd": fd}
        for scale, evaluations, right, low, fd in table
    ]
    order = torch.randperm(len(rows), generator=generator).tolist()
    return SimpleNamespace(rows=[rows[i] for i in order], least=(0.9 * unit, 0.915 * unit))


def _chosen(answer, p, name: str, which: int) -> float:
    return float(answer(p.rows, p.least[which])[name])


def _cheapest(p, name: str, which: int) -> float:
    """By elimination: not good enough, then too dear, then too far from the data."""
    good = [row for row in p.rows if not row["low"] < p.least[which]]
    cheap = [row for row in good if row["evaluations"] == min(one["evaluations"] for one in good)]
    return float(next(row[name] for row in cheap if row["fd"] == min(one["fd"] for one in cheap)))


B = Exercise(
    id="30.B",
    title="a setting for a budget, defended",
    minutes=20,
    hints=(
        "Which of the settings can you vouch for? The measured fraction may be lucky; its lower end seldom is.",
        "Among these the cheapest wins: cost is evaluations, not steps, for guidance evaluates twice.",
        "Two may cost the same. Then, and only then, the Fréchet distance decides.",
    ),
    problem=_rows_problem,
    reference=_choose,
    properties={
        "the cheapest of what is good enough": Property(_chosen, _cheapest, given=("evaluations", 0)),
        "whatever is asked": Property(_chosen, _cheapest, given=("evaluations", 1)),
        "at equal cost, the nearest to the data": Property(_chosen, _cheapest, given=("fd", 0)),
    },
    mistakes={
        "the luckiest": Mistake(
            "you took the measured fraction. Measured again it may be lower: the lower end of the interval is what you "
            "can promise.",
            ('row["low"] >= least', 'row["all"] >= least'),
        ),
        "the best": Mistake(
            "the best picture is not asked for: good enough, and then the cheapest.",
            ('(row["evaluations"], row["fd"])', '-row["low"]'),
        ),
        "the nearest": Mistake(
            "distance decides only between settings of equal cost.",
            ('(row["evaluations"], row["fd"])', 'row["fd"]'),
        ),
        "steps for evaluations": Mistake(
            "a guided step is two evaluations: count what the network computes.",
            (
                '(row["evaluations"], row["fd"])',
                '(row["evaluations"] / (1 if row["scale"] == 1 else 2), row["fd"])',
            ),
        ),
    },
)

# --- C: SDEdit ----------------------------------------------------------------------------------------------------


def _start_of_edit(z, noise, times, strength, schedule):
    first = len(times) - 1 - round(strength * (len(times) - 1))
    alpha, sigma = schedule.scales(times[first])
    return alpha * z + sigma * noise, times[first:]


def _edit_problem(generator):
    schedule = vp_linear()
    steps = 4 * int(torch.randint(2, 8, (1,), generator=generator))
    z, noise = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    return SimpleNamespace(schedule=schedule, times=grids.karras(steps, schedule), steps=steps, z=z, noise=noise)


def _started(part: int, strength: float):
    def measure(answer, p):
        return torch.as_tensor(answer(p.z, p.noise, p.times, strength, p.schedule)[part])

    return measure


def _level(strength: float):
    """The state at the time after ``steps - strength steps`` steps of the grid."""

    def exact(p):
        t = p.times[p.steps - round(strength * p.steps)]
        alpha, sigma = p.schedule.scales(t)
        return alpha * p.z + sigma * p.noise

    return exact


C = Exercise(
    id="30.C",
    title="start half-way: an edit",
    minutes=12,
    hints=(
        "A sampler starts at times[0] from noise. An edit starts later on the grid, from the image with noise on it.",
        "strength 1 runs all steps, strength 0 none: of the len(times) - 1 steps, the last strength * that many run.",
        "At the first of the times that are left, x_t = alpha x_0 + sigma eps: that is what the sampler would be at.",
    ),
    problem=_edit_problem,
    reference=_start_of_edit,
    properties={
        "at a quarter of the strength, a quarter of the steps are left": Property(
            lambda answer, p: float(len(answer(p.z, p.noise, p.times, 0.25, p.schedule)[1]) - 1),
            lambda p: p.steps / 4,
        ),
        "the state is the image with the noise of that time": Property(_started(0, 0.25), _level(0.25)),
        "at full strength the whole grid is walked": Property(_started(1, 1.0), lambda p: p.times),
        "at strength 0 the image stays": Property(_started(0, 0.0), lambda p: p.z),
    },
    mistakes={
        "from the wrong end": Mistake(
            "the noise is at the beginning of the grid: a weak edit skips the *first* steps, and runs the last ones.",
            ("len(times) - 1 - round(strength * (len(times) - 1))", "round(strength * (len(times) - 1))"),
        ),
        "the image is not scaled": Mistake(
            "under a variance-preserving schedule the image fades as the noise grows: alpha x_0, not x_0. The denoiser "
            "expects that.",
            ("alpha * z", "z"),
        ),
        "sigma squared": Mistake(
            "sigma is a standard deviation: the noise is multiplied by it, not by the variance.",
            ("sigma * noise", "sigma**2 * noise"),
        ),
        "off by one": Mistake(
            "a grid of n steps has n + 1 times. Count the steps, not the times.",
            (
                "len(times) - 1 - round(strength * (len(times) - 1))",
                "len(times) - 2 - round(strength * (len(times) - 2))",
            ),
        ),
    },
)
