"""Exercises of lesson 01: destroy, take one step, sample."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from survey_lib.core.protocols import normal
from survey_lib.core.schedules import from_betas, vp_cosine
from survey_lib.course.exercises._sampler_01 import C
from survey_lib.course.exercises.framework import Exercise, Mistake, Property

__all__ = ["A", "B", "C"]

# --- A: corrupt ------------------------------------------------------------------------------------------------


def _corrupt(x0, t, schedule, generator):
    alpha, sigma = schedule.scales(t, x0)
    return alpha * x0 + sigma * normal(x0.shape, generator, x0.dtype)


def _corrupt_with(scales=lambda alpha, sigma: (alpha, sigma), noise=normal, shift=0.0):
    def corrupt(x0, t, schedule, generator):
        alpha, sigma = scales(*schedule.scales((t - shift).clamp_min(0), x0))
        return alpha * x0 + sigma * noise(x0.shape, generator, x0.dtype)

    return corrupt


def _uniform(shape, generator, dtype):
    return torch.rand(shape, generator=generator, dtype=dtype)


def _once(shape, generator, dtype):
    return normal((1, *shape[1:]), generator, dtype).expand(shape)


def _unrepeatable(shape, generator, dtype):
    return torch.randn(shape, dtype=dtype)


def _corrupt_stub(x0, t, schedule, generator):
    raise NotImplementedError


def _corrupt_problem(generator):
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    x0 = normal((8, 1, 64, 64), generator, torch.float64)
    t = 0.2 + 0.6 * torch.rand(8, generator=generator, dtype=torch.float64)
    seed = int(torch.randint(2**31, (), generator=generator))
    return SimpleNamespace(schedule=from_betas(betas), x0=x0, t=t, seed=seed)


def _corrupted(answer, problem, x0, t):
    return answer(x0, t, problem.schedule, torch.Generator().manual_seed(problem.seed))


def _repeats(answer, problem):
    once, again = (_corrupted(answer, problem, problem.x0, problem.t) for _ in range(2))
    return float(torch.equal(once, again))


def _image_scale(answer, problem):  # the same noise twice: it cancels, and the change of the image is left
    change = _corrupted(answer, problem, problem.x0 + 1, problem.t) - _corrupted(answer, problem, problem.x0, problem.t)
    return change.flatten(1).mean(1)


def _noise_scale(answer, problem):  # the same noise at two times: their ratio is that of the scales
    nothing, one = torch.zeros_like(problem.x0), torch.ones_like(problem.t)
    return (_corrupted(answer, problem, nothing, problem.t) / _corrupted(answer, problem, nothing, one)).mean((1, 2, 3))


def _noise(answer, problem):
    return _corrupted(answer, problem, torch.zeros_like(problem.x0), torch.ones_like(problem.t))


def _bell(answer, problem):
    noise = _noise(answer, problem)
    return torch.stack([noise.std(), (noise.abs() > 2).double().mean()])


def _twins(answer, problem):
    noise = _noise(answer, problem).flatten(1)
    return torch.corrcoef(noise)[0, 1]


A = Exercise(
    id="01.A",
    title="corrupt",
    difficulty="guided",
    minutes=8,
    hints=(
        "The noise has the shape of the pictures, comes from the generator, and is drawn for every pixel anew.",
        "schedule.scales(t, x0) has already given alpha and sigma the shape that multiplies x0.",
        "x_t is alpha times the picture plus sigma times the noise: the scales as they are, no roots, no squares.",
    ),
    problem=_corrupt_problem,
    properties=(
        Property(
            "the same generator gives the same x_t",
            _repeats,
            lambda problem: 1.0,
            show=lambda value: "the same x_t" if value else "another x_t",
        ),
        Property("every picture has its own noise", _twins, lambda problem: 0.0, 0.1),
        Property(
            "the noise is Gaussian: spread 1, and 4.6 % of it beyond twice that",
            _bell,
            lambda problem: torch.tensor([1.0, 0.0455]),
            0.025,
        ),
        Property(
            "the picture is multiplied by alpha(t)", _image_scale, lambda p: p.schedule.scales(p.t)[0], tolerance=1e-4
        ),
        Property(
            "the noise is multiplied by sigma(t)",
            _noise_scale,
            lambda p: p.schedule.scales(p.t)[1] / p.schedule.scales(torch.ones(()))[1],
            tolerance=1e-4,
        ),
    ),
    mistakes=(
        Mistake(
            "uniform noise for Gaussian",
            "torch.rand is one letter from torch.randn. Its numbers lie in [0, 1): all positive, and none far out, "
            "so sampling that starts from Gaussian noise meets pictures the network never saw.",
            _corrupt_with(noise=_uniform),
        ),
        Mistake(
            "uniform noise, centred",
            "2 * torch.rand - 1 fills the range of the pixels, which looks right in a histogram. It has a third of "
            "the variance, and no tails.",
            _corrupt_with(noise=lambda *args: 2 * _uniform(*args) - 1),
        ),
        Mistake(
            "variance for standard deviation",
            "papers write N(sqrt(alpha_bar) x0, (1 - alpha_bar) I), and the second argument of N is a variance: the "
            "noise is multiplied by its root. Here sigma is that root already.",
            _corrupt_with(lambda alpha, sigma: (alpha, sigma**2)),
        ),
        Mistake(
            "alpha-bar for its root",
            "DDPM's alpha_bar is alpha**2 in this course. Multiplying the picture by it fades the picture twice.",
            _corrupt_with(lambda alpha, sigma: (alpha**2, sigma)),
        ),
        Mistake(
            "the root taken twice",
            "code that is given alpha_bar takes its root, so a root looks right here too; here alpha is a scale.",
            _corrupt_with(lambda alpha, sigma: (alpha.sqrt(), sigma)),
        ),
        Mistake(
            "the neighbour's noise level",
            "off by one: papers count steps from 1, arrays from 0, and alpha_bar[t - 1] is the level of the step "
            "before. The pictures look the same; the network learns the wrong level at every step.",
            _corrupt_with(shift=1e-3),
        ),
        Mistake(
            "one noise for the whole batch",
            "a noise of shape x0[0] broadcasts without complaint. Each picture alone looks right, and the "
            "gradient of the batch is as noisy as that of a single picture.",
            _corrupt_with(noise=_once),
        ),
        Mistake(
            "noise that cannot be repeated",
            "torch.randn without a generator draws from a state that any other line may change: the same seed no "
            "longer gives the same result.",
            _corrupt_with(noise=_unrepeatable),
        ),
    ),
    reference=_corrupt,
    stub=_corrupt_stub,
)

# --- B: one deterministic step -----------------------------------------------------------------------------------


def _step(x_t, x0, t, s, schedule):
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.scales(t, x_t), schedule.scales(s, x_t)
    eps = (x_t - alpha_t * x0) / sigma_t
    return alpha_s * x0 + sigma_s * eps


def _step_with(combine):
    def step(x_t, x0, t, s, schedule):
        return combine(x_t, x0, *schedule.scales(t, x_t), *schedule.scales(s, x_t))

    return step


def _step_stub(x_t, x0, t, s, schedule):
    raise NotImplementedError


def _step_problem(generator):
    x0, eps, guess = (normal((4, 2), generator, torch.float64) for _ in range(3))
    t = 0.6 + 0.3 * torch.rand((), generator=generator, dtype=torch.float64)
    return SimpleNamespace(schedule=vp_cosine(), x0=x0, eps=eps, guess=guess, t=t, s=t - 0.3)


def _mix(problem, time):
    alpha, sigma = problem.schedule.scales(time)
    return alpha * problem.x0 + sigma * problem.eps


def _stepped(answer, p, x0, t, s):
    return answer(_mix(p, t), x0, t, s, p.schedule)


def _two_steps(answer, p):
    middle = (p.t + p.s) / 2
    half = answer(_mix(p, p.t), p.guess, p.t, middle, p.schedule)
    return answer(half, p.guess, middle, p.s, p.schedule) - _stepped(answer, p, p.guess, p.t, p.s)


B = Exercise(
    id="01.B",
    title="one step of DDIM",
    difficulty="supported",
    minutes=12,
    hints=(
        "If x0 were right, what noise must have been added to reach x_t? Solve x_t = alpha_t x0 + sigma_t eps for eps.",
        "Now mix x0 and that same noise again, in the proportions of time s.",
        "At s = 0 there is alpha = 1 and sigma = 0: the step must return the guess itself.",
    ),
    problem=_step_problem,
    properties=(
        Property(
            "with the true x0 it lands on the same noise, only less of it",
            lambda answer, p: _stepped(answer, p, p.x0, p.t, p.s),
            lambda p: _mix(p, p.s),
            1e-9,
        ),
        Property(
            "a step to time 0 returns the guess",
            lambda answer, p: _stepped(answer, p, p.guess, p.t, torch.zeros_like(p.t)),
            lambda p: p.guess,
            1e-9,
        ),
        Property(
            "a step of length zero changes nothing",
            lambda answer, p: _stepped(answer, p, p.guess, p.t, p.t),
            lambda p: _mix(p, p.t),
            1e-9,
        ),
        Property(
            "two half steps with one guess make the whole step", _two_steps, lambda p: torch.zeros_like(p.x0), 1e-9
        ),
    ),
    mistakes=(
        Mistake(
            "the noise keeps its old size",
            "sigma_t stands in the line above and is easily copied. The state is then as noisy as before, "
            "while the network is told that it is cleaner.",
            _step_with(lambda x, x0, at, st, as_, ss: as_ * x0 + st * (x - at * x0) / st),
        ),
        Mistake(
            "the picture keeps its old size",
            "alpha_t was at hand. The guess must be weighed as time s weighs it.",
            _step_with(lambda x, x0, at, st, as_, ss: at * x0 + ss * (x - at * x0) / st),
        ),
        Mistake(
            "the noise with the wrong sign",
            "one thinks of removing noise, and writes a minus. But eps is the direction from the guess back to x_t: "
            "a smaller step back is still a step back.",
            _step_with(lambda x, x0, at, st, as_, ss: as_ * x0 - ss * (x - at * x0) / st),
        ),
        Mistake(
            "alpha-bar for its root",
            "the paper's alpha_t is what DDPM calls alpha_bar, and stands under a root in every place. "
            "Squares belong into its notation, not into ours.",
            _step_with(lambda x, x0, at, st, as_, ss: as_**2 * x0 + ss**2 * (x - at**2 * x0) / st**2),
        ),
        Mistake(
            "the noise is not divided by sigma_t",
            "x_t - alpha_t x0 is the noise as it lies in the picture, sigma_t times the unit noise; "
            "multiplying it by sigma_s shrinks it twice.",
            _step_with(lambda x, x0, at, st, as_, ss: as_ * x0 + ss * (x - at * x0)),
        ),
        Mistake(
            "only rescaled",
            "x_t alpha_s / alpha_t undoes the fading, and forgets that the noise must shrink as well.",
            _step_with(lambda x, x0, at, st, as_, ss: x * as_ / at),
        ),
    ),
    reference=_step,
    stub=_step_stub,
)
