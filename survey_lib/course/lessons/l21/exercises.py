"""Exercises of lesson 21: Gamma noise, the factor of a blurred wave, and a step that forgives the restorer."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from torch import Tensor

from survey_lib.core.corruptions import Cold
from survey_lib.course.exercises.framework import Exercise, Mistake, Property

# --- A: Gamma noise -----------------------------------------------------------------------------------------------


def _gamma_noised(x0, alpha, sigma, scale, drops):
    k = (sigma / alpha / scale) ** 2
    noise = scale * (drops(k) - k)
    return alpha * (x0 + noise)


def _noise_problem(generator):
    """A picture, and a time of a variance-preserving schedule."""
    angle = 0.4 + 0.6 * torch.rand((), generator=generator, dtype=torch.float64)
    x0 = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    return SimpleNamespace(x0=x0, alpha=angle.cos(), sigma=angle.sin(), scale=0.3)


def _noised(answer, p, deviations: float) -> Tensor:
    """With drops that lie some of their deviations above their mean, as a number of shape k has mean and variance k."""
    return answer(p.x0, p.alpha, p.sigma, p.scale, lambda k: k + deviations * torch.as_tensor(k).sqrt())


A = Exercise(
    id="21.A",
    title="Gamma noise with the variance of Gaussian noise",
    minutes=12,
    importance="the lesson builds on it",
    hints=(
        "A number of shape k has mean k and variance k. What are the mean and the variance of scale (G - k)?",
        "Multiplied by alpha, the noise must have the deviation sigma: alpha * scale * sqrt(k) = sigma.",
        "Solve for k. The noise is scale times (drops(k) less its mean).",
    ),
    problem=_noise_problem,
    reference=_gamma_noised,
    properties={
        "drops at their mean leave the picture, faded": Property(_noised, lambda p, _: p.alpha * p.x0, given=(0.0,)),
        "one deviation of the drops is sigma": Property(
            _noised, lambda p, _: p.alpha * p.x0 + p.sigma, given=(1.0,)
        ),
        "two deviations are 2 sigma": Property(_noised, lambda p, _: p.alpha * p.x0 + 2 * p.sigma, given=(2.0,)),
    },
    mistakes={
        "not centred": Mistake(
            "Gamma-distributed numbers are positive: without their mean taken away, the picture brightens.",
            ("(drops(k) - k)", "drops(k)"),
        ),
        "alpha forgotten": Mistake(
            "the noise is faded with the picture: before that, its deviation is sigma / alpha.",
            ("(sigma / alpha / scale) ** 2", "(sigma / scale) ** 2"),
        ),
        "deviation for variance": Mistake(
            "k is the variance of a number of shape k: scale^2 k is the variance, so k is a square.",
            ("(sigma / alpha / scale) ** 2", "sigma / alpha / scale"),
        ),
        "without the size of a drop": Mistake(
            "G - k has the variance k; the noise is scale times that.",
            ("scale * (drops(k) - k)", "drops(k) - k"),
        ),
    },
)  # fmt: skip

# --- B: a blurred wave --------------------------------------------------------------------------------------------


def _blurred_wave(down, across, side, width):
    square = (math.pi * down / side) ** 2 + (math.pi * across / side) ** 2
    return math.exp(-square * width**2 / 2)


def _wave_problem(generator):
    width = 0.5 + float(torch.rand((), generator=generator))
    down, across = (int(n) for n in torch.randint(1, 5, (2,), generator=generator))
    return SimpleNamespace(down=down, across=across, side=12, width=width)


def _factor(answer, p) -> float:
    return float(answer(p.down, p.across, p.side, p.width))


def _heated(p) -> float:
    """The decay of the wave by the heat equation."""
    rate = ((math.pi * p.down / p.side) ** 2 + (math.pi * p.across / p.side) ** 2) * p.width**2 / 2
    return math.exp(-rate)


B = Exercise(
    id="21.B",
    title="what a blur does to one wave",
    minutes=15,
    hints=(
        "The wave is cos(q_down y) cos(q_across x). A second derivative is the wave times -q^2 of its direction.",
        "The heat equation makes it decay as exp(-(q_down^2 + q_across^2) time), with q = pi k / side.",
        "A blur of `width` pixels is heat for the time width^2 / 2.",
    ),
    problem=_wave_problem,
    reference=_blurred_wave,
    properties={
        "a constant stays": Property(lambda answer, p: float(answer(0, 0, p.side, p.width)), 1.0),
        "a wave decays at its rate": Property(_factor, _heated),
        "two blurs are one, whose squares of widths add up": Property(
            lambda answer, p: float(answer(p.down, p.across, p.side, 0.6) * answer(p.down, p.across, p.side, 0.8)),
            lambda p: float(_blurred_wave(p.down, p.across, p.side, 1.0)),
        ),
        "down and across count alike": Property(
            lambda answer, p: float(answer(p.across, p.down, p.side, p.width)), _heated
        ),
    },
    mistakes={
        "whole turns": Mistake(
            "k counts half turns across the picture: the angle is pi k / side a pixel, not 2 pi k / side.",
            (("math.pi * down", "2 * math.pi * down"), ("math.pi * across", "2 * math.pi * across")),
        ),
        "half of the time missing": Mistake(
            "the time is width^2 / 2: the variance of a blur is twice the time.",
            ("width**2 / 2", "width**2"),
        ),
        "rates are not squared": Mistake(
            "the second derivative brings the angle down twice: its square decides.",
            (("down / side) ** 2", "down / side)"), ("across / side) ** 2", "across / side)")),
        ),
        "one direction": Mistake(
            "heat flows down and across: both rates add up.",
            (" + (math.pi * across / side) ** 2", ""),
        ),
    },
)  # fmt: skip

# --- C: a step that forgives --------------------------------------------------------------------------------------


def _cold_step(x_t, guess, t, s, degrade):
    return x_t - degrade(guess, t) + degrade(guess, s)


def _stain_problem(generator):
    x0, stain, guess = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    return SimpleNamespace(x0=x0, stain=stain, guess=guess, t=0.8, s=0.3)


def _stained(p, x: Tensor, t) -> Tensor:
    return x + t * p.stain


def _step(answer, p, right: bool) -> Tensor:
    """One step from the stained picture, with the true picture as the guess or with another."""
    guess = p.x0 if right else p.guess
    return answer(_stained(p, p.x0, p.t), guess, p.t, p.s, lambda x, t: _stained(p, x, t))


def _arrived(p, _=None) -> Tensor:
    return _stained(p, p.x0, p.s)


def _faded(answer, p) -> Tensor:
    """A degradation that fades: in proportion to the picture, so the guess matters."""
    return answer((1 - p.t) * p.x0, p.guess, p.t, p.s, lambda x, t: (1 - t) * x)


C = Exercise(
    id="21.C",
    title="a step that forgives the restorer",
    minutes=20,
    hints=(
        "Write D(x, t) = x + t e. Where are you, at x_t? Where do you want to be? What is the difference of the two?",
        "The difference is (s - t) e. You do not know e, but degrade(guess, .) at two times tells it.",
        "What do degrade(guess, s) and degrade(guess, t) share, and what is left when one is taken from the other?",
    ),
    problem=_stain_problem,
    reference=_cold_step,
    properties={
        "with the true picture it arrives": Property(_step, _arrived, given=(True,)),
        "with any guess it arrives": Property(_step, _arrived, given=(False,)),
        "where fading multiplies, it is cold diffusion's step": Property(
            _faded,
            lambda p: Cold(lambda x, t: (1 - t) * x).bridge((1 - p.t) * p.x0, p.guess, p.t, p.s),
        ),
    },
    mistakes={
        "the plain step": Mistake(
            "degrade(guess, s) believes the guess in full: of x_t nothing is left.",
            ("x_t - degrade(guess, t) + degrade(guess, s)", "degrade(guess, s)"),
        ),
        "the wrong way": Mistake(
            "the change that is wanted leads from t to s: take degrade at t away, and add it at s.",
            ("x_t - degrade(guess, t) + degrade(guess, s)", "x_t + degrade(guess, t) - degrade(guess, s)"),
        ),
        "back to the start": Mistake(
            "x_t less the stain at t is the clean picture; the step has to stop at s.",
            ("degrade(guess, t) + degrade(guess, s)", "degrade(guess, t) + guess"),
        ),
    },
)  # fmt: skip
