"""Exercises of lesson 02: a distance between two sets of features, what sampling costs, and the floor of a measure."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from survey_lib.core.protocols import normal
from survey_lib.course.exercises._floor_02 import C
from survey_lib.course.exercises.framework import Exercise, Mistake, Property

__all__ = ["A", "B", "C"]

# --- A: the Fréchet distance --------------------------------------------------------------------------------------


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    return features.mean(0), torch.cov(features.T)


def _second_moment(features: Tensor) -> tuple[Tensor, Tensor]:
    return features.mean(0), features.T @ features / len(features)


def _root_trace(a: Tensor, b: Tensor) -> Tensor:
    """``tr (A B)^(1/2)``: the eigenvalues of a product of covariances are real and not negative."""
    return torch.linalg.eigvals(a @ b).real.clamp_min(0).sqrt().sum()


def _frechet_with(
    moments=_moments, shift=lambda gap: gap.square().sum(), root=_root_trace, factor=2.0, final=lambda d: d
):
    def frechet(features_a, features_b):
        (mean_a, cov_a), (mean_b, cov_b) = moments(features_a), moments(features_b)
        return final(shift(mean_a - mean_b) + cov_a.trace() + cov_b.trace() - factor * root(cov_a, cov_b))

    return frechet


def _elementwise(a, b):
    return (a @ b).clamp_min(0).sqrt().trace()


def _diagonals(a, b):
    return (a.diagonal() * b.diagonal()).sqrt().sum()


def _frechet_stub(features_a, features_b):
    raise NotImplementedError


def _set_with(mean: Tensor, cov: Tensor, generator: torch.Generator) -> Tensor:
    """2000 points whose mean and covariance are exactly those asked for."""
    points = normal((2000, 2), generator, torch.float64)
    points = points - points.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(points.T)), points.T, upper=False)
    return mean + (torch.linalg.cholesky(cov) @ white).T


def _rotation(angle: Tensor) -> Tensor:
    return torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).reshape(2, 2)


def _frechet_problem(generator):
    angle = 0.8 + 0.3 * torch.rand((), generator=generator, dtype=torch.float64)
    turn = torch.stack([_rotation(angle), _rotation(angle + 0.9)])
    cov_a, cov_b = turn @ torch.diag(torch.tensor([4.0, 0.2], dtype=torch.float64)) @ turn.mT
    mean_a, gap = normal((2, 2), generator, torch.float64)
    gap = 3 * gap / gap.norm()
    mean_a = mean_a + 2
    a, b, moved = (
        _set_with(mean, cov, generator) for mean, cov in ((mean_a, cov_a), (mean_a + gap, cov_b), (mean_a + gap, cov_a))
    )
    # for 2 x 2: (tr M^(1/2))^2 = tr M + 2 (det M)^(1/2), so no matrix root is needed to know the answer
    cross = ((cov_a @ cov_b).trace() + 2 * (cov_a.det() * cov_b.det()).sqrt()).sqrt()
    return SimpleNamespace(
        a=a, b=b, moved=moved, shift=gap.square().sum(), exact=gap.square().sum() + 2 * 4.2 - 2 * cross
    )


A = Exercise(
    id="02.A",
    title="the Fréchet distance",
    difficulty="guided",
    minutes=10,
    hints=(
        "Two Gaussians stand for the two sets: you need the mean and the covariance of each, over the rows.",
        "|mean_a - mean_b|^2 + tr(A) + tr(B) - 2 tr (A B)^(1/2): the square of a distance, and it stays a square.",
        "The root is that of the matrix. Its trace is the sum of the roots of the eigenvalues of A B.",
    ),
    problem=_frechet_problem,
    properties=(
        Property("a set is at distance 0 from itself", lambda answer, p: answer(p.a, p.a), lambda p: 0.0, 1e-3),
        Property("a shift by 3 costs 9", lambda answer, p: answer(p.a, p.moved), lambda p: p.shift, 0.01),
        Property(
            "two turned ellipses are as far apart as algebra says",
            lambda answer, p: answer(p.a, p.b),
            lambda p: p.exact,
            0.01,
        ),
        Property(
            "the order of the sets does not matter",
            lambda answer, p: answer(p.a, p.b) - answer(p.b, p.a),
            lambda p: 0.0,
            1e-3,
        ),
    ),
    mistakes=(
        Mistake(
            "the root of every entry",
            "numpy and torch take roots entry by entry. The root of a matrix is the matrix whose *product* with itself "
            "gives it back; the two agree for diagonal matrices only, which is why a first test may not notice.",
            _frechet_with(root=_elementwise),
        ),
        Mistake(
            "the mean difference is not squared",
            "a norm is a distance, and a distance was asked for; but here all terms are squares of lengths.",
            _frechet_with(shift=lambda gap: gap.norm()),
        ),
        Mistake(
            "a root over everything",
            "the Fréchet distance of two Gaussians is a root, and the number that everybody reports is its square.",
            _frechet_with(final=lambda d: d.clamp_min(0).sqrt()),
        ),
        Mistake(
            "diagonals only",
            "variances are quicker than covariances. Features are correlated, and what a model gets wrong is often "
            "just how they are.",
            _frechet_with(root=_diagonals),
        ),
        Mistake(
            "covariance without centring",
            "features.T @ features / n is the second moment: the mean is still in it, and is then counted twice.",
            _frechet_with(moments=_second_moment),
        ),
        Mistake(
            "the 2 is missing",
            "tr(A) + tr(B) - tr (A B)^(1/2) looks balanced. Put A = B: it leaves tr(A) where 0 must stand.",
            _frechet_with(factor=1.0),
        ),
    ),
    reference=_frechet_with(),
    stub=_frechet_stub,
)

# --- B: what sampling costs ---------------------------------------------------------------------------------------


class Conv(NamedTuple):
    """A convolution that keeps the size, or divides it by its stride. ``size`` is the side of its *input*."""

    inputs: int
    outputs: int
    kernel: int
    size: int
    stride: int = 1


def _macs_with(area=lambda k: k * k, side=lambda size, stride: size // stride, per_mac=1, batch=True, calls=None):
    def sampling_macs(layers, sampler, steps, images):
        one = sum(c.inputs * c.outputs * area(c.kernel) * side(c.size, c.stride) ** 2 for c in layers)
        return per_mac * one * (calls or _calls)(sampler, steps) * (images if batch else 1)

    return sampling_macs


def _calls(sampler: str, steps: int) -> int:
    return 2 * steps - 1 if sampler == "heun" else steps


def _macs_stub(layers, sampler, steps, images):
    raise NotImplementedError


def _macs_problem(generator):
    inputs, outputs, steps = (int(torch.randint(3, 9, (), generator=generator)) for _ in range(3))
    images = int(torch.randint(2, 6, (), generator=generator))
    layers = (Conv(inputs, outputs, 3, 16), Conv(outputs, 2 * outputs, 5, 16, 2), Conv(2 * outputs, inputs, 1, 8))
    return SimpleNamespace(layers=layers, steps=steps, images=images)


def _counted(layers, images: int) -> int:
    """The same from outside: run the layers, and let torch count. It counts two operations a MAC."""
    with FlopCounterMode(display=False) as counter:
        for c in layers:
            x, weight = (
                torch.zeros(images, c.inputs, c.size, c.size),
                torch.zeros(c.outputs, c.inputs, c.kernel, c.kernel),
            )
            torch.nn.functional.conv2d(x, weight, stride=c.stride, padding=c.kernel // 2)
    return counter.get_total_flops() // 2


def _per_image(layers_of):
    """Multiply-accumulates of one step for one image, against torch's own counter."""
    return {
        "measure": lambda answer, p: answer(layers_of(p), "ddim", 1, 1),
        "exact": lambda p: _counted(layers_of(p), 1),
        "show": "{:,.0f} MACs".format,
    }


B = Exercise(
    id="02.B",
    title="what sampling costs",
    difficulty="supported",
    minutes=12,
    hints=(
        "One output pixel of one output channel needs inputs * kernel * kernel multiply-accumulates.",
        "There are outputs * (size / stride)^2 such numbers in the output of a layer.",
        "DDIM asks the network once a step. Heun asks twice, except in the step to time 0: "
        "there its first answer is final.",
    ),
    problem=_macs_problem,
    properties=(
        Property("a 1 x 1 convolution", **_per_image(lambda p: p.layers[2:])),
        Property("a 3 x 3 convolution", **_per_image(lambda p: p.layers[:1])),
        Property("a convolution with stride 2", **_per_image(lambda p: p.layers[1:2])),
        Property(
            "many steps of DDIM, many images",
            lambda answer, p: answer(p.layers, "ddim", p.steps, p.images),
            lambda p: _counted(p.layers, p.images) * p.steps,
            show="{:,.0f} MACs".format,
        ),
        Property(
            "Heun's evaluations",
            lambda answer, p: answer(p.layers, "heun", p.steps, 1) / answer(p.layers, "ddim", 1, 1),
            lambda p: 2 * p.steps - 1.0,
            show="{:.3g} evaluations".format,
        ),
    ),
    mistakes=(
        Mistake(
            "FLOPs for MACs",
            "a multiply-accumulate is two floating point operations. Both counts are published, often under one name, "
            "and a factor of two between two papers is usually this.",
            _macs_with(per_mac=2),
        ),
        Mistake(
            "the kernel is forgotten",
            "inputs * outputs is the cost of a 1 x 1 convolution; every further pixel of the window costs that again.",
            _macs_with(area=lambda k: 1),
        ),
        Mistake(
            "the side of the kernel for its area",
            "a window of 3 x 3 has nine weights, and the configuration says 3.",
            _macs_with(area=lambda k: k),
        ),
        Mistake(
            "the stride is forgotten",
            "work is done where there is output, not where there is input: stride 2 leaves a quarter of it.",
            _macs_with(side=lambda size, stride: size),
        ),
        Mistake(
            "one image for the whole batch",
            "a batch passes through the network in one call, and each of its images is computed all the same.",
            _macs_with(batch=False),
        ),
        Mistake(
            "a step of Heun counted as one evaluation",
            "the papers' tables count steps or evaluations, and their samplers differ in just this: "
            "equal steps are not equal cost.",
            _macs_with(calls=lambda sampler, steps: steps),
        ),
        Mistake(
            "Heun's last step counted twice",
            "two evaluations a step, so 2 N. But the correction divides by the noise of the target time, and at time 0 "
            "there is none: the last step makes do with one.",
            _macs_with(calls=lambda sampler, steps: 2 * steps if sampler == "heun" else steps),
        ),
    ),
    reference=_macs_with(),
    stub=_macs_stub,
)
