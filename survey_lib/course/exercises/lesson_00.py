"""Exercises of lesson 00: the loop itself, what a study changes in it, and how many steps a budget buys."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import torch

from survey_lib.core.protocols import normal
from survey_lib.course import atlas
from survey_lib.course.exercises.framework import Exercise, Mistake, Property

# --- A: the loop --------------------------------------------------------------------------------------------------


class _Trace:
    """A corruption and a denoiser of plain numbers, that keep what they are asked."""

    def __init__(self):
        self.asked, self.walked = [], []

    def denoise(self, x, t, cond=None):
        self.asked.append(float(t))
        return x / 2 + t

    def bridge(self, x_t, x0, t, s, *, generator=None):
        self.walked.append((float(t), float(s)))
        return x0 + s * (x_t - x0) / t + 0 * normal(x_t.shape, generator, x_t.dtype)


def _loop(denoiser, corruption, x, times, generator):
    for t, s in pairwise(times):
        x = corruption.bridge(x, denoiser(x, t), t, s, generator=generator)
    return x


def _swapped(denoiser, corruption, x, times, generator):
    for s, t in pairwise(times):
        x = corruption.bridge(x, denoiser(x, t), t, s, generator=generator)
    return x


def _early(denoiser, corruption, x, times, generator):
    for t, s in pairwise(times):
        x = corruption.bridge(x, denoiser(x, s), t, s, generator=generator)
    return x


def _one_step(denoiser, corruption, x, times, generator):
    return corruption.bridge(x, denoiser(x, times[0]), times[0], times[-1], generator=generator)


def _forgetful(denoiser, corruption, x, times, generator):
    for t, s in pairwise(times):
        result = corruption.bridge(x, denoiser(x, t), t, s, generator=generator)
    return result


def _believing(denoiser, corruption, x, times, generator):
    for t, _ in pairwise(times):
        x = denoiser(x, t)
    return x


def _cut(denoiser, corruption, x, times, generator):
    return _loop(denoiser, corruption, x, times[:-1], generator)


def _loop_stub(denoiser, corruption, x, times, generator):
    raise NotImplementedError


def _loop_problem(generator):
    inner = torch.rand(4, generator=generator, dtype=torch.float64).sort(descending=True).values * 0.9 + 0.05
    times = torch.cat([torch.ones(1), inner, torch.zeros(1)]).double()
    return SimpleNamespace(times=times, x=normal((3,), generator, torch.float64))


def _traced(answer, p):
    trace = _Trace()
    result = answer(trace.denoise, trace, p.x, p.times, torch.Generator().manual_seed(0))
    return result, trace


def _asked(answer, p):
    return torch.tensor(_traced(answer, p)[1].asked, dtype=torch.float64)


def _walked(answer, p):
    return torch.tensor(_traced(answer, p)[1].walked, dtype=torch.float64).reshape(-1, 2)


def _by_hand(p):
    """Every step of `_Trace` is ``x -> factor x + shift``."""
    x = p.x
    for t, s in zip(p.times[:-1].tolist(), p.times[1:].tolist(), strict=True):
        x = x * (1 + s / t) / 2 + t - s
    return x


A = Exercise(
    id="00.A",
    title="the loop",
    difficulty="guided",
    minutes=5,
    hints=(
        "pairwise(times) gives neighbours: the first of a pair is where you are, the second where you want to be.",
        "Ask the denoiser where you are: at the x and the t of now.",
        "The bridge's result is the x of the next round. Nothing else must survive.",
    ),
    problem=_loop_problem,
    properties=(
        Property(
            "a grid of six times asks the denoiser five times",
            lambda answer, p: float(len(_asked(answer, p))),
            lambda p: 5.0,
            show="{:.0f} questions".format,
        ),
        Property("it is asked at the time of now", _asked, lambda p: p.times[:-1], show="t = {:.3f}".format),
        Property(
            "every step goes from one time to the next",
            _walked,
            lambda p: torch.stack([p.times[:-1], p.times[1:]], 1),
            show="t = {:.3f}".format,
        ),
        Property("each step starts where the last one ended", lambda answer, p: _traced(answer, p)[0], _by_hand),
    ),
    mistakes=(
        Mistake(
            "s and t exchanged",
            "pairwise gives (now, next), and time falls: the first of a pair is the larger t. "
            "Exchanged, every step walks towards the noise.",
            _swapped,
        ),
        Mistake(
            "asked at the next time",
            "the question belongs to the state: x is as noisy as t says, and the denoiser has to know how noisy its "
            "picture is. Told s, it believes the noise to be detail.",
            _early,
        ),
        Mistake(
            "one single step",
            "from the first time to the last in one go is the naive idea of this lesson: it draws the mean.",
            _one_step,
        ),
        Mistake(
            "the new state is not used",
            "the result has a name of its own, and the loop goes on with the old x: it makes many steps, "
            "all of them from pure noise.",
            _forgetful,
        ),
        Mistake(
            "the answer for the next state",
            "x = denoiser(x, t) believes the answer whole. The bridge takes only a little of it, and keeps the noise "
            "that the next question is about.",
            _believing,
        ),
        Mistake(
            "the last step is missing",
            "times[:-1] looks like the usual care with ends. Here it leaves the noise of the last but one time in.",
            _cut,
        ),
    ),
    reference=_loop,
    stub=_loop_stub,
)

# --- B: what a study changes ----------------------------------------------------------------------------------------

_PARTS = tuple(atlas.PARTS)
_ASKED = ("DDIM", "CFG", "LDM", "PNDM", "DP schedule", "Cold diffusion")


def _place(part: str) -> float:
    if part not in _PARTS:
        raise ValueError(f"{part!r} is no part of the loop; there are {', '.join(_PARTS)}")
    return float(_PARTS.index(part))


def _truth() -> dict[str, str]:
    studies = atlas.load().set_index("name")
    return {name: str(studies.loc[name, "part"]) for name in _ASKED}


def _property(name: str) -> Property:
    return Property(
        f"the part that {name} changes",
        lambda answer, p: _place(answer[name]),
        lambda p: _place(p[name]),
        show=lambda place: f"“{_PARTS[int(place)]}”",
    )


def _instead(name: str, part: str) -> dict[str, str]:
    return _truth() | {name: part}


B = Exercise(
    id="00.B",
    title="what does it change?",
    difficulty="supported",
    minutes=6,
    hints=(
        "Read each study's sentence in the explorer, and point at the word of the loop that it rewrites.",
        "What needs a new or another network, or asks it twice, changes the denoiser. What needs no training at all "
        "changes grid, bridge or integrator.",
        "Grid: only the numbers in times. Integrator: past answers are combined. Bridge: from answer to step.",
    ),
    problem=lambda generator: _truth(),
    properties=tuple(_property(name) for name in _ASKED),
    mistakes=(
        Mistake(
            "DDIM is only a shorter grid",
            "it is famous for leaving steps out, and that it does. But DDPM's own bridge may leave steps out too, "
            "and is much worse at it. What is new is a bridge without chance, with the same marginals.",
            _instead("DDIM", "grid"),
        ),
        Mistake(
            "guidance is a kind of bridge",
            "the papers write it as a shift of the mean of the step. The same shift comes from changing the answer, "
            "and then every sampler can use it: guidance wraps the denoiser.",
            _instead("CFG", "bridge"),
        ),
        Mistake(
            "latent diffusion is a smaller network",
            "its evaluations are cheaper, but because the picture is smaller: the loop, the network and the noise "
            "are the old ones, in the space of a code.",
            _instead("LDM", "denoiser"),
        ),
        Mistake(
            "fewer steps must mean another grid",
            "PNDM walks an ordinary, even grid. It gets away with fewer times because each step uses past answers.",
            _instead("PNDM", "grid"),
        ),
        Mistake(
            "a new kind of noise is a new denoiser",
            "a network has to be trained for it, true. But what it is trained for is decided by the corruption: "
            "blur for noise, and its own way back.",
            _instead("Cold diffusion", "denoiser"),
        ),
    ),
    reference=_truth(),
    stub=dict.fromkeys(_ASKED, ...),
)

# --- C: what a budget buys ------------------------------------------------------------------------------------------


def _grid_with(count=lambda budget, one: int(budget // one), extra=1, images_count=True, per_step=True, ends=(1, 0)):
    def budget_grid(budget, macs, images, evaluations):
        one = macs * (images if images_count else 1) * (evaluations if per_step else 1)
        return torch.linspace(*ends, count(budget, one) + extra, dtype=torch.float64)

    return budget_grid


def _grid_stub(budget, macs, images, evaluations):
    raise NotImplementedError


def _grid_problem(generator):
    steps, images, evaluations = (int(torch.randint(3, 30, (), generator=generator)) for _ in range(3))
    macs = 1_000_000 * int(torch.randint(5, 50, (), generator=generator))
    evaluations = 2 + evaluations % 2
    spare = 0.6 + 0.3 * float(torch.rand((), generator=generator))  # most of a step: not enough
    budget = macs * images * evaluations * (steps + spare)
    return SimpleNamespace(budget=budget, macs=macs, images=images, evaluations=evaluations, steps=steps)


def _bought(answer, p, images=None, evaluations=None):
    images, evaluations = images or p.images, evaluations or p.evaluations
    return answer(p.budget / p.images / p.evaluations * images * evaluations, p.macs, images, evaluations)


C = Exercise(
    id="00.C",
    title="what a budget buys",
    difficulty="independent",
    minutes=8,
    hints=(
        "What does one step cost for all the images? It asks the network `evaluations` times for each of them.",
        "Only whole steps can be paid for.",
        "A grid of N steps has N + 1 times: a fence has one post more than it has panels.",
    ),
    problem=_grid_problem,
    properties=(
        Property(
            "for one image and one evaluation a step, as many steps as the budget pays",
            lambda answer, p: float(len(_bought(answer, p, 1, 1)) - 1),
            lambda p: float(p.steps),
            show="{:.0f} steps".format,
        ),
        Property(
            "for many images as well",
            lambda answer, p: float(len(_bought(answer, p, None, 1)) - 1),
            lambda p: float(p.steps),
            show="{:.0f} steps".format,
        ),
        Property(
            "and where a step asks several times",
            lambda answer, p: float(len(_bought(answer, p)) - 1),
            lambda p: float(p.steps),
            show="{:.0f} steps".format,
        ),
        Property(
            "the grid goes from 1 to 0",
            lambda answer, p: _bought(answer, p)[[0, -1]],
            lambda p: torch.tensor([1.0, 0.0]),
        ),
    ),
    mistakes=(
        Mistake(
            "posts for panels",
            "linspace(1, 0, N) has N times, and so N - 1 steps: one step paid for and not taken.",
            _grid_with(extra=0),
        ),
        Mistake(
            "rounded up",
            "round and ceil come to mind before floor; they spend what is not there.",
            _grid_with(count=lambda budget, one: round(budget / one)),
        ),
        Mistake(
            "the images are forgotten",
            "papers give the cost of one image. A batch costs as many times that as it has images.",
            _grid_with(images_count=False),
        ),
        Mistake(
            "every step counted as one evaluation",
            "steps and evaluations are the same number for DDIM, and for nothing that asks twice: "
            "guidance and Heun do.",
            _grid_with(per_step=False),
        ),
        Mistake(
            "from data to noise",
            "linspace(0, 1) is how arrays usually run. Sampling starts at the noise, t = 1, and time falls.",
            _grid_with(ends=(0, 1)),
        ),
    ),
    reference=_grid_with(),
    stub=_grid_stub,
)
