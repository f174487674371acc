"""Exercises of lesson 13: the side that noise leaves, an orthonormal split, and the time of a small image."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from survey_lib.core.schedules import edm, rectified, vp_cosine, vp_linear
from survey_lib.course.exercises.framework import Exercise, Mistake, Property

# --- A: what noise leaves -----------------------------------------------------------------------------------------


def _side_needed(power, alpha, sigma):
    seen = (alpha**2 * power > sigma**2).nonzero()
    highest = int(seen.max()) if len(seen) else 0
    side = 2
    while side < 2 * (highest + 1):
        side = 2 * side
    return side


def _power_problem(generator):
    """A falling spectrum of 33 frequencies, and noise that hides all above one of them."""
    fall = 1 + float(torch.rand((), generator=generator))
    power = torch.arange(1, 34, dtype=torch.float64) ** -fall
    return SimpleNamespace(power=power, alpha=0.7)


def _side(answer, p, highest: int) -> float:
    """Noise between two neighbours: frequency ``highest`` is the last that is seen."""
    power = p.power[highest : highest + 2].log().mean().exp() if highest >= 0 else 2 * p.power[0]
    return float(answer(p.power, p.alpha, p.alpha * power.sqrt()))


A = Exercise(
    id="13.A",
    title="how many pixels does noise leave?",
    minutes=12,
    importance="the lesson builds on it",
    hints=(
        "At frequency k the signal has the power alpha^2 power[k], and the noise sigma^2 at every frequency.",
        "What is the highest frequency at which the signal is above the noise? There may be none: then 0.",
        "A side of s pixels shows the frequencies below s / 2 (Nyquist). So s must be at least 2 (highest + 1).",
    ),
    problem=_power_problem,
    reference=_side_needed,
    properties={
        "frequency 3 is the last that is seen: 8 pixels": Property(_side, 8.0, given=(3,)),
        "one frequency more, and the side doubles": Property(_side, 16.0, given=(4,)),
        "nearly no noise: all pixels": Property(_side, 64.0, given=(30,)),
        "noise that hides everything": Property(_side, 2.0, given=(-1,)),
    },
    mistakes={
        "deviation for variance": Mistake(
            "power is a variance: compare it with sigma squared.",
            ("> sigma**2", "> sigma"),
        ),
        "the signal does not fade": Mistake(
            "the schedule shrinks the signal too: its power is alpha^2 times that of the picture.",
            ("alpha**2 * power", "power"),
        ),
        "without Nyquist": Mistake(
            "a wave needs two pixels: a side of s shows s / 2 frequencies, not s.",
            ("2 * (highest + 1)", "highest + 1"),
        ),
        "one frequency short": Mistake(
            "frequencies are counted from 0: up to k there are k + 1 of them.",
            ("2 * (highest + 1)", "2 * highest"),
        ),
    },
)

# --- B: a split ---------------------------------------------------------------------------------------------------


def _split(x):
    first, second = x[0::2], x[1::2]
    return (first + second) / 2**0.5, (first - second) / 2**0.5


def _signal_problem(generator):
    return SimpleNamespace(x=torch.randn(16, generator=generator, dtype=torch.float64))


def _matrix(answer, p) -> Tensor:
    """Coarse numbers and details of every unit vector: products of its columns are 0 or 1 if nothing is distorted."""
    columns = [torch.cat([torch.as_tensor(part) for part in answer(one)]) for one in torch.eye(16).double()]
    return torch.stack(columns) @ torch.stack(columns).T


def _means(p) -> Tensor:
    return p.x.reshape(-1, 2).mean(1)


B = Exercise(
    id="13.B",
    title="split a signal, and keep white noise white",
    minutes=10,
    importance="the lesson builds on it",
    hints=(
        "Neighbours belong together: x[0] and x[1], x[2] and x[3]. Coarse is their sum, detail their difference.",
        "Divided by what? The sum of two independent noises has twice their variance.",
        "If the noise is to stay as it was, divide by the root of 2: then the split is a rotation.",
    ),
    problem=_signal_problem,
    reference=_split,
    properties={
        "it is a rotation: lengths and angles stay": Property(_matrix, lambda p: torch.eye(16).double()),
        "coarse numbers are means of neighbours, but for a factor": Property(
            lambda answer, p: answer(p.x)[0], lambda p: 2**0.5 * _means(p)
        ),
        "the first of a pair is coarse plus detail": Property(
            lambda answer, p: (answer(p.x)[0] + answer(p.x)[1]) / 2**0.5, lambda p: p.x[0::2]
        ),
        "a constant has no details": Property(
            lambda answer, p: answer(torch.ones(16).double())[1], lambda p: torch.zeros(8).double()
        ),
    },
    mistakes={
        "a plain mean": Mistake(
            "a mean halves the variance of noise, and then details and means have different noise: divide by root 2.",
            (
                ("(first + second) / 2**0.5", "(first + second) / 2"),
                ("(first - second) / 2**0.5", "(first - second) / 2"),
            ),
        ),
        "not divided": Mistake(
            "the sum of two noises has twice their variance.",
            (("(first + second) / 2**0.5", "first + second"), ("(first - second) / 2**0.5", "first - second")),
        ),
        "halves in place of neighbours": Mistake(
            "the two of a pair stand side by side: every second number, not the first half and the second.",
            ("x[0::2], x[1::2]", "x[: len(x) // 2], x[len(x) // 2 :]"),
        ),
        "the wrong sign": Mistake(
            "first = (coarse + detail) / root 2 asks for detail = (first - second) / root 2.",
            ("first - second", "second - first"),
        ),
    },
)  # fmt: skip

# --- C: the time of a small image ---------------------------------------------------------------------------------


def _as_small(x_t, t, schedule):
    means = x_t.reshape(-1, 2, x_t.shape[-1] // 2, 2).mean((1, 3))
    small = schedule.time(schedule.lam(t) + torch.tensor(2.0).log())
    alpha, _ = schedule.scales(t)
    alpha_small, _ = schedule.scales(small)
    return means * (alpha_small / alpha), small


def _time_problem(generator):
    schedules = (vp_linear(), vp_cosine(), rectified(), edm())
    schedule = schedules[int(torch.randint(4, (1,), generator=generator))]
    t = 0.3 + 0.4 * float(torch.rand((), generator=generator))
    return SimpleNamespace(schedule=schedule, t=t, x0=torch.randn(4, 6, generator=generator, dtype=torch.float64))


def _ratio(answer, p) -> float:
    """Noise to signal at the time that comes back."""
    alpha, sigma = p.schedule.scales(answer(p.x0, p.t, p.schedule)[1])
    return float(sigma / alpha)


def _half(p) -> float:
    alpha, sigma = p.schedule.scales(p.t)
    return float(sigma / alpha) / 2


def _signal(answer, p) -> Tensor:
    """The clean part: of an image without noise, ``alpha x0``."""
    return answer(p.schedule.scales(p.t)[0] * p.x0, p.t, p.schedule)[0]


def _small_signal(p) -> Tensor:
    small = p.schedule.time_at(_half(p))
    return p.schedule.scales(small)[0] * p.x0.reshape(2, 2, 3, 2).mean((1, 3))


def _deviation(answer, p) -> float:
    """Of the noise: the image without signal is 24 unit noises, one after the other."""
    sigma = p.schedule.scales(p.t)[1]
    drawn = [answer(sigma * one.reshape(4, 6), p.t, p.schedule)[0].flatten() for one in torch.eye(24).double()]
    return float(torch.stack(drawn).square().sum(0).sqrt().mean())


C = Exercise(
    id="13.C",
    title="at what time does the small image live?",
    minutes=20,
    hints=(
        "Averaging four pixels leaves the signal and halves the deviation of the noise. So the ratio of both changes.",
        "`schedule.lam(t)` is log(alpha / sigma), and `schedule.time(lam)` the time at which it has a value.",
        "The means are alpha x + sigma / 2 noise. At the new time a state is alpha' x + sigma' noise: which factor?",
    ),
    problem=_time_problem,
    reference=_as_small,
    properties={
        "noise to signal is half as large": Property(_ratio, _half),
        "the signal is as large as the schedule says": Property(_signal, _small_signal),
        "and so is the noise": Property(
            _deviation, lambda p: float(p.schedule.scales(p.schedule.time_at(_half(p)))[1])
        ),
    },
    mistakes={
        "the same time": Mistake(
            "the means are cleaner than the large image was: a denoiser that is told t would remove too much.",
            ("schedule.lam(t) + torch.tensor(2.0).log()", "schedule.lam(t)"),
        ),
        "the wrong way": Mistake(
            "averaging cleans: lam grows.",
            ("schedule.lam(t) + torch", "schedule.lam(t) - torch"),
        ),
        "variance for deviation": Mistake(
            "the *variance* of a mean of four is a quarter; lam is the logarithm of deviations, so it grows by log 2.",
            ("torch.tensor(2.0)", "torch.tensor(4.0)"),
        ),
        "not rescaled": Mistake(
            "at the new time the schedule expects another alpha: the means have the old one.",
            ("means * (alpha_small / alpha)", "means"),
        ),
    },
)  # fmt: skip
