"""Exercises of lesson 01: corrupting images, one deterministic step, and the sampler with eta."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import torch
from torch import Tensor

from survey_lib.core.exact import GaussianLaw
from survey_lib.core.protocols import normal
from survey_lib.core.schedules import from_betas, vp_cosine
from survey_lib.course.exercises.framework import Exercise, Mistake, Property

# --- A: corrupt ------------------------------------------------------------------------------------------------


def _corrupt(x0, t, schedule, generator):
    alpha, sigma = schedule.scales(t, x0)
    eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    return alpha * x0 + sigma * eps


def _corrupt_problem(generator):
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    x0 = normal((8, 1, 64, 64), generator, torch.float64)
    t = 0.2 + 0.6 * torch.rand(8, generator=generator, dtype=torch.float64)
    seed = int(torch.randint(2**31, (), generator=generator))
    return SimpleNamespace(schedule=from_betas(betas), x0=x0, t=t, seed=seed)


def _corrupted(answer, p, x0, t):
    return answer(x0, t, p.schedule, torch.Generator().manual_seed(p.seed))


def _noise(answer, p):
    return _corrupted(answer, p, torch.zeros_like(p.x0), torch.ones_like(p.t))


def _repeats(answer, p):
    return float(torch.equal(_corrupted(answer, p, p.x0, p.t), _corrupted(answer, p, p.x0, p.t)))


def _twins(answer, p):
    return torch.corrcoef(_noise(answer, p).flatten(1))[0, 1]


def _bell(answer, p):
    noise = _noise(answer, p)
    return torch.stack([noise.std(), (noise.abs() > 2).double().mean()])


def _image_scale(answer, p):  # the same noise twice: it cancels, and the change of the image is left
    return (_corrupted(answer, p, p.x0 + 1, p.t) - _corrupted(answer, p, p.x0, p.t)).mean((1, 2, 3))


def _noise_scale(answer, p):  # the same noise at two times: their ratio is that of the scales
    return (_corrupted(answer, p, torch.zeros_like(p.x0), p.t) / _noise(answer, p)).mean((1, 2, 3))


A = Exercise(
    id="01.A",
    title="corrupt",
    minutes=8,
    hints=(
        "The noise has the shape of the pictures, and comes from the generator: look at `torch.randn`.",
        "`schedule.scales(t, x0)` has already given `alpha` and `sigma` a shape that multiplies pictures.",
        "The formula above, as it stands: no roots, no squares.",
    ),
    problem=_corrupt_problem,
    reference=_corrupt,
    properties={
        "the same generator gives the same x_t": Property(
            _repeats, 1.0, show=lambda same: "the same x_t" if same else "another x_t"
        ),
        "every picture has its own noise": Property(_twins, 0.0, 0.1),
        "the noise is Gaussian: spread 1, and 4.6 % of it beyond twice that": Property(_bell, (1.0, 0.0455), 0.025),
        "the picture is multiplied by alpha(t)": Property(_image_scale, lambda p: p.schedule.scales(p.t)[0], 1e-4),
        "the noise is multiplied by sigma(t)": Property(
            _noise_scale, lambda p: p.schedule.scales(p.t)[1] / p.schedule.scales(torch.ones(()))[1], 1e-4
        ),
    },
    mistakes={
        "uniform noise for Gaussian": Mistake(
            "torch.rand is one letter from torch.randn. Its numbers lie in [0, 1): all positive, and none far out, "
            "so sampling that starts from Gaussian noise meets pictures the network never saw.",
            ("torch.randn(", "torch.rand("),
        ),
        "uniform noise, centred": Mistake(
            "2 * torch.rand - 1 fills the range of the pixels, which looks right in a histogram. It has a third of "
            "the variance, and no tails.",
            (("torch.randn(", "2 * torch.rand("), ("dtype=x0.dtype)", "dtype=x0.dtype) - 1")),
        ),
        "variance for standard deviation": Mistake(
            "papers write N(sqrt(alpha_bar) x0, (1 - alpha_bar) I), and the second argument of N is a variance: the "
            "noise is multiplied by its root. Here sigma is that root already.",
            ("sigma * eps", "sigma**2 * eps"),
        ),
        "alpha-bar for its root": Mistake(
            "DDPM's alpha_bar is alpha**2 in this course. Multiplying the picture by it fades the picture twice.",
            ("alpha * x0", "alpha**2 * x0"),
        ),
        "the root taken twice": Mistake(
            "code that is given alpha_bar takes its root, so a root looks right here too; here alpha is a scale.",
            ("alpha * x0", "alpha.sqrt() * x0"),
        ),
        "the neighbour's noise level": Mistake(
            "off by one: papers count steps from 1, arrays from 0, and alpha_bar[t - 1] is the level of the step "
            "before. The pictures look the same; the network learns the wrong level at every step.",
            ("scales(t, x0)", "scales((t - 1e-3).clamp_min(0), x0)"),
        ),
        "one noise for the whole batch": Mistake(
            "a noise of shape x0[0] broadcasts without complaint. Each picture alone looks right, and the "
            "gradient of the batch is as noisy as that of a single picture.",
            ("x0.shape", "x0.shape[1:]"),
        ),
        "noise that cannot be repeated": Mistake(
            "torch.randn without a generator draws from a state that any other line may change.",
            ("generator=generator, ", ""),
        ),
    },
)

# --- B: one deterministic step -----------------------------------------------------------------------------------


def _step(x_t, x0, t, s, schedule):
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.scales(t, x_t), schedule.scales(s, x_t)
    eps = (x_t - alpha_t * x0) / sigma_t
    return alpha_s * x0 + sigma_s * eps


def _step_problem(generator):
    x0, eps, guess = (normal((4, 2), generator, torch.float64) for _ in range(3))
    t = 0.6 + 0.3 * torch.rand((), generator=generator, dtype=torch.float64)
    return SimpleNamespace(schedule=vp_cosine(), x0=x0, eps=eps, guess=guess, t=t, s=t - 0.3, end=0 * t)


def _mix(p, time):
    alpha, sigma = p.schedule.scales(time)
    return alpha * p.x0 + sigma * p.eps


def _stepped(answer, p, x0, t, s):
    return answer(_mix(p, t), x0, t, s, p.schedule)


def _two_steps(answer, p):
    middle = (p.t + p.s) / 2
    return answer(_stepped(answer, p, p.guess, p.t, middle), p.guess, middle, p.s, p.schedule)


B = Exercise(
    id="01.B",
    title="one step of DDIM",
    minutes=12,
    importance="the lesson builds on it",
    hints=(
        "If x0 were right, what noise must have been added to reach x_t? Solve x_t = alpha_t x0 + sigma_t eps for eps.",
        "Now mix x0 and that same noise again, in the proportions of time s.",
        "A test for yourself: at s = 0 there is alpha = 1 and sigma = 0, and the step must return x0 itself.",
    ),
    problem=_step_problem,
    reference=_step,
    properties={
        "with the true x0 it lands on the same noise, only less of it": Property(
            lambda answer, p: _stepped(answer, p, p.x0, p.t, p.s), lambda p: _mix(p, p.s), 1e-9
        ),
        "a step to time 0 returns the guess": Property(
            lambda answer, p: _stepped(answer, p, p.guess, p.t, p.end), lambda p: p.guess, 1e-9
        ),
        "a step of length zero changes nothing": Property(
            lambda answer, p: _stepped(answer, p, p.guess, p.t, p.t), lambda p: _mix(p, p.t), 1e-9
        ),
        "two half steps with one guess make the whole step": Property(
            lambda answer, p: _two_steps(answer, p) - _stepped(answer, p, p.guess, p.t, p.s), lambda p: 0 * p.x0, 1e-9
        ),
    },
    mistakes={
        "the noise keeps its old size": Mistake(
            "sigma_t stands in the line above and is easily copied. The state is then as noisy as before, "
            "while the network is told that it is cleaner.",
            ("sigma_s * eps", "sigma_t * eps"),
        ),
        "the picture keeps its old size": Mistake(
            "alpha_t was at hand. The guess must be weighed as time s weighs it.", ("alpha_s * x0", "alpha_t * x0")
        ),
        "the noise with the wrong sign": Mistake(
            "one thinks of removing noise, and writes a minus. But eps is the direction from the guess back to x_t: "
            "a smaller step back is still a step back.",
            ("+ sigma_s", "- sigma_s"),
        ),
        "alpha-bar for its root": Mistake(
            "the paper's alpha_t is what DDPM calls alpha_bar, and stands under a root in every place. "
            "Squares belong into its notation, not into ours.",
            (
                ("(x_t - alpha_t * x0) / sigma_t", "(x_t - alpha_t**2 * x0) / sigma_t**2"),
                ("alpha_s * x0 + sigma_s * eps", "alpha_s**2 * x0 + sigma_s**2 * eps"),
            ),
        ),
        "the noise is not divided by sigma_t": Mistake(
            "x_t - alpha_t x0 is sigma_t times the unit noise; multiplied by sigma_s it is shrunk twice.",
            (" / sigma_t", ""),
        ),
        "only rescaled": Mistake(
            "x_t alpha_s / alpha_t undoes the fading, and forgets that the noise must shrink as well.",
            ("alpha_s * x0 + sigma_s * eps", "x_t * alpha_s / alpha_t"),
        ),
    },
)

# --- C: the sampler with eta -------------------------------------------------------------------------------------


def _sample(denoiser, schedule, x, times, eta, generator):
    for t, s in pairwise(times):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.scales(t, x), schedule.scales(s, x)
        x0 = denoiser(x, t)
        eps = (x - alpha_t * x0) / sigma_t
        fresh = eta * sigma_s * (1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2).clamp_min(0).sqrt()
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = alpha_s * x0 + (sigma_s**2 - fresh**2).clamp_min(0).sqrt() * eps + fresh * z
    return x


def _sample_problem(generator):
    mean, std = (torch.rand((), generator=generator, dtype=torch.float64) + 0.5 for _ in range(2))
    schedule, law = vp_cosine(), GaussianLaw(mean.reshape(1), std.square().reshape(1, 1))
    x = normal((20_000, 1), generator, torch.float64)
    return SimpleNamespace(
        schedule=schedule, denoiser=law.denoiser(schedule), mean=mean, std=std, x=x,
        seed=int(torch.randint(2**31, (), generator=generator)), times=torch.linspace(1, 0, 8, dtype=torch.float64),
    )  # fmt: skip


def _sampled(answer, p, eta, denoiser=None, salt=0):
    generator = torch.Generator().manual_seed(p.seed + salt)
    return answer(denoiser or p.denoiser, p.schedule, p.x, p.times, eta, generator)


def _watched(answer, p):
    """The result at eta = 1, and the predictions of all steps."""
    predictions = []

    def denoiser(x, t, cond=None):
        predictions.append(p.denoiser(x, t))
        return predictions[-1]

    return _sampled(answer, p, 1.0, denoiser), predictions


def _leftover(answer, p):
    """Root mean square difference between the result and the last prediction."""
    result, predictions = _watched(answer, p)
    return (result - predictions[-1]).square().mean().sqrt()


def _moments(answer, p, eta):
    x = _sampled(answer, p, eta)
    return torch.stack([x.mean(), x.std()])


def _exact_moments(p, eta) -> Tensor:
    """Exact mean and standard deviation: with a Gaussian target every step is affine in the state."""
    centre, variance = p.x.mean(), p.x.var()
    for t, s in pairwise(p.times):
        (at, st), (as_, ss) = p.schedule.scales(t), p.schedule.scales(s)
        pull = at * p.std**2 / (at**2 * p.std**2 + st**2)  # x0hat = mean + pull (x - alpha mean)
        fresh = eta**2 * ss**2 / st**2 * (1 - at**2 / as_**2)  # the posterior's, as alpha^2 + sigma^2 = 1
        keep = (ss**2 - fresh).clamp_min(0).sqrt() / st
        slope = as_ * pull + keep * (1 - at * pull)
        centre = as_ * p.mean + slope * (centre - at * p.mean)
        variance = slope**2 * variance + fresh
    return torch.stack([centre, variance.sqrt()])


C = Exercise(
    id="01.C",
    title="the sampler with eta",
    minutes=25,
    importance="the lesson builds on it",
    hints=(
        "Start from your step of exercise B inside `for t, s in pairwise(times)`. With eta = 0 you are done.",
        "DDPM's own step forgets part of the old noise and draws as much again: the fresh part has the standard "
        "deviation that the formula above calls varsigma, and eta multiplies it.",
        "Old and new noise together must have variance sigma_s**2: what remains for the old one?",
    ),
    problem=_sample_problem,
    reference=_sample,
    properties={
        "seven steps ask the denoiser seven times": Property(
            lambda answer, p: len(_watched(answer, p)[1]), 7.0, show="{:.0f} evaluations".format
        ),
        "the last step to time 0 adds no noise": Property(_leftover, 0.0),
        "at eta = 0 nothing is left to chance": Property(
            lambda answer, p: (_sampled(answer, p, 0.0) - _sampled(answer, p, 0.0, salt=1)).abs().mean(), 0.0
        ),
        "at eta = 1 a Gaussian target gives the exact mean and spread": Property(
            _moments, _exact_moments, 0.03, given=(1.0,)
        ),
        "at eta = 1/2 as well": Property(_moments, _exact_moments, 0.03, given=(0.5,)),
    },
    mistakes={
        "eta forgotten": Mistake(
            "DDPM's formula has no eta. If it does not multiply the fresh noise, every setting gives DDPM.",
            ("eta * sigma_s", "sigma_s"),
        ),
        "noise in the last step": Mistake(
            "the standard deviation of the forward chain, sqrt(beta), is a published choice; it does not vanish at "
            "time 0, and the finished picture is sprinkled with noise. The posterior's does, by its factor sigma_s.",
            ("sigma_s * (1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2)", "(1 - (alpha_t / alpha_s) ** 2)"),
        ),
        "the last step is missing": Mistake(
            "range(1, steps) and times[:-1] both look right and stop one step early: the result is a state, not a "
            "picture, and 95 evaluations are called 100.",
            ("pairwise(times)", "pairwise(times[:-1])"),
        ),
        "variance for standard deviation": Mistake(
            "papers give the variance of the fresh noise; what multiplies a normal number is its root.",
            ("fresh * z", "fresh**2 * z"),
        ),
        "old noise kept whole": Mistake(
            "the fresh noise is added and none of the old taken away: the total is above sigma_s, more than the "
            "denoiser expects at that time.",
            ("(sigma_s**2 - fresh**2).clamp_min(0).sqrt() * eps", "sigma_s * eps"),
        ),
    },
)
