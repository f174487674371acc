"""Exercises of lesson 00: the sampling loop, the part that a study changes, and the steps within a budget."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import torch

from survey_lib.core.protocols import normal
from survey_lib.course import atlas
from survey_lib.course.exercises.framework import Exercise, Mistake, Property

# --- A: the loop --------------------------------------------------------------------------------------------------


def _loop(denoiser, corruption, x, times, generator):
    for t, s in pairwise(times):
        x0 = denoiser(x, t)
        x = corruption.bridge(x, x0, t, s, generator=generator)
    return x


class _Trace:
    """A corruption and a denoiser on plain numbers that record the times of their calls."""

    def __init__(self):
        self.asked, self.steps = [], []

    def denoise(self, x, t, cond=None):
        self.asked.append(float(t))
        return x / 2 + t

    def bridge(self, x_t, x0, t, s, *, generator=None):
        self.steps.append((float(t), float(s)))
        return x0 + s * (x_t - x0) / t + 0 * normal(x_t.shape, generator, x_t.dtype)


def _loop_problem(generator):
    inner = torch.rand(4, generator=generator, dtype=torch.float64).sort(descending=True).values * 0.9 + 0.05
    times = torch.cat([torch.ones(1), inner, torch.zeros(1)]).double()
    return SimpleNamespace(times=times, x=normal((3,), generator, torch.float64))


def _result(answer, p, trace=None):
    trace = trace or _Trace()
    return answer(trace.denoise, trace, p.x, p.times, torch.Generator().manual_seed(0))


def _asked(answer, p):
    _result(answer, p, trace := _Trace())
    return torch.tensor(trace.asked, dtype=torch.float64)


def _steps(answer, p):
    _result(answer, p, trace := _Trace())
    return torch.tensor(trace.steps, dtype=torch.float64).reshape(-1, 2)


def _by_hand(p):
    """The exact result: every step of `_Trace` is ``x -> factor x + shift``."""
    x = p.x
    for t, s in pairwise(p.times.tolist()):
        x = x * (1 + s / t) / 2 + t - s
    return x


A = Exercise(
    id="00.A",
    title="the loop",
    minutes=5,
    importance="the lesson builds on it",
    hints=(
        "`pairwise(times)` gives neighbours: the first of a pair is where you are, the second where you want to be.",
        "Ask the denoiser where you are: at the `x` and the `t` of now.",
        "The bridge's result is the `x` of the next round. Nothing else must survive.",
    ),
    problem=_loop_problem,
    reference=_loop,
    properties={
        "a grid of six times asks the denoiser five times": Property(
            lambda answer, p: len(_asked(answer, p)), 5.0, show="{:.0f} questions".format
        ),
        "it is asked at the time of now": Property(_asked, lambda p: p.times[:-1], show="t = {:.3f}".format),
        "every step goes from one time to the next": Property(
            _steps, lambda p: torch.stack([p.times[:-1], p.times[1:]], 1), show="t = {:.3f}".format
        ),
        "each step starts where the last one ended": Property(_result, _by_hand),
    },
    mistakes={
        "s and t exchanged": Mistake(
            "pairwise gives (now, next), and time falls: the first of a pair is the larger t. "
            "Exchanged, every step walks towards the noise.",
            ("for t, s in", "for s, t in"),
        ),
        "asked at the next time": Mistake(
            "the question belongs to the state: x is as noisy as t says, and the denoiser has to know how noisy its "
            "picture is. Told s, it believes the noise to be detail.",
            ("denoiser(x, t)", "denoiser(x, s)"),
        ),
        "one single step": Mistake(
            "from the first time to the last in one go is the naive idea of this lesson: it draws the mean.",
            ("pairwise(times)", "[(times[0], times[-1])]"),
        ),
        "the new state is not used": Mistake(
            "the result has a name of its own, and the loop goes on with the old x: many steps, all from pure noise.",
            (("x = corruption", "result = corruption"), ("return x", "return result")),
        ),
        "the answer for the next state": Mistake(
            "x = denoiser(x, t) believes the answer whole. The bridge takes only a little of it, and keeps the noise "
            "that the next question is about.",
            ("corruption.bridge(x, x0, t, s, generator=generator)", "x0"),
        ),
        "the last step is missing": Mistake(
            "times[:-1] looks like the usual care with ends. Here it leaves the noise of the last but one time in.",
            ("pairwise(times)", "pairwise(times[:-1])"),
        ),
    },
)

# --- B: what a study changes ----------------------------------------------------------------------------------------

_PARTS = tuple(atlas.PARTS)
_PART_OF = dict(atlas.load().set_index("name")["part"][["DDIM", "CFG", "LDM", "PNDM", "DP schedule", "Cold diffusion"]])


def _place(answer, p, name: str) -> float:
    if answer[name] not in _PARTS:
        raise ValueError(f"{answer[name]!r} is not a part of the loop; the parts are {', '.join(_PARTS)}")
    return float(_PARTS.index(answer[name]))


def _changes(name: str) -> Property:
    return Property(
        _place,
        lambda p, name: float(_PARTS.index(p[name])),
        given=(name,),
        show=lambda place: f"“{_PARTS[int(place)]}”",
    )


B = Exercise(
    id="00.B",
    title="what does it change?",
    minutes=6,
    hints=(
        "Read each study's sentence in the explorer, and point at the word of the loop that it rewrites.",
        "What needs a new or another network, or asks it twice, changes the denoiser. What needs no training at all "
        "changes grid, bridge or integrator.",
        "Grid: only the numbers in times. Integrator: past answers are combined. Bridge: from answer to step.",
    ),
    problem=lambda generator: _PART_OF,
    reference=_PART_OF,
    properties={f"the part that {name} changes": _changes(name) for name in _PART_OF},
    mistakes={
        "DDIM is only a shorter grid": Mistake(
            "it is famous for leaving steps out, and that it does. But DDPM's own bridge may leave steps out too, "
            "and is much worse at it. What is new is a bridge without chance, with the same marginals.",
            answer=_PART_OF | {"DDIM": "grid"},
        ),
        "guidance is a kind of bridge": Mistake(
            "the papers write it as a shift of the mean of the step. The same shift comes from changing the answer, "
            "and then every sampler can use it: guidance wraps the denoiser.",
            answer=_PART_OF | {"CFG": "bridge"},
        ),
        "latent diffusion is a smaller network": Mistake(
            "its evaluations are cheaper, but because the picture is smaller: the loop, the network and the noise "
            "are the old ones, in the space of a code.",
            answer=_PART_OF | {"LDM": "denoiser"},
        ),
        "fewer steps must mean another grid": Mistake(
            "PNDM walks an ordinary, even grid. It gets away with fewer times because each step uses past answers.",
            answer=_PART_OF | {"PNDM": "grid"},
        ),
        "a new kind of noise is a new denoiser": Mistake(
            "a network has to be trained for it, true. But what it is trained for is decided by the corruption: "
            "blur for noise, and its own way back.",
            answer=_PART_OF | {"Cold diffusion": "denoiser"},
        ),
    },
)

# --- C: what a budget buys ------------------------------------------------------------------------------------------


def _budget_grid(budget, macs, images, evaluations):
    steps = int(budget // (macs * images * evaluations))
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64)


def _grid_problem(generator):
    steps, images, evaluations = (int(torch.randint(3, 30, (), generator=generator)) for _ in range(3))
    macs = 1_000_000 * int(torch.randint(5, 50, (), generator=generator))
    spare = 0.6 + 0.3 * float(torch.rand((), generator=generator))  # most of a step: not enough
    cases = ((1, 1), (images, 1), (images, 2 + evaluations % 2))
    return SimpleNamespace(steps=steps, macs=macs, spare=spare, cases=cases)


def _grid(answer, p, case: int):
    images, evaluations = p.cases[case]
    return answer(p.macs * images * evaluations * (p.steps + p.spare), p.macs, images, evaluations)


def _bought(case: int) -> Property:
    return Property(lambda answer, p: len(_grid(answer, p, case)) - 1, lambda p: p.steps, show="{:.0f} steps".format)


C = Exercise(
    id="00.C",
    title="what a budget buys",
    minutes=8,
    hints=(
        "What does one step cost for all the images? It asks the network `evaluations` times for each of them.",
        "Only whole steps can be paid for.",
        "A grid of N steps has N + 1 times: a fence has one post more than it has panels.",
    ),
    problem=_grid_problem,
    reference=_budget_grid,
    properties={
        "for one image and one evaluation a step, as many steps as the budget pays": _bought(0),
        "for many images as well": _bought(1),
        "and where a step asks several times": _bought(2),
        "the grid goes from 1 to 0": Property(lambda answer, p: _grid(answer, p, 2)[[0, -1]], torch.tensor([1.0, 0.0])),
    },
    mistakes={
        "posts for panels": Mistake(
            "linspace(1, 0, N) has N times, and so N - 1 steps: one step paid for and not taken.",
            ("steps + 1", "steps"),
        ),
        "rounded up": Mistake(
            "round and ceil come to mind before floor; they spend what is not there.",
            ("int(budget // (macs * images * evaluations))", "round(budget / (macs * images * evaluations))"),
        ),
        "the images are forgotten": Mistake(
            "papers give the cost of one image. A batch costs as many times that as it has images.", ("* images", "")
        ),
        "every step counted as one evaluation": Mistake(
            "steps and evaluations are one number for DDIM, and for nothing that asks twice, as guidance and Heun do.",
            ("* evaluations", ""),
        ),
        "from data to noise": Mistake(
            "linspace(0, 1) is how arrays usually run. Sampling starts at the noise, t = 1, and time falls.",
            ("linspace(1, 0,", "linspace(0, 1,"),
        ),
    },
)
