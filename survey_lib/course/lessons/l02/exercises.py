"""Exercises of lesson 02: the cost of sampling, the Fréchet distance, and the floor of a measure."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from survey_lib.core.protocols import normal
from survey_lib.course.exercises.framework import Exercise, Mistake, Property

# --- A: what sampling costs ---------------------------------------------------------------------------------------


class Conv(NamedTuple):
    """A convolution that keeps the size, or divides it by its stride. ``size`` is the side of its *input*."""

    inputs: int
    outputs: int
    kernel: int
    size: int
    stride: int = 1


def _sampling_macs(layers, sampler, steps, images):
    one = sum(c.inputs * c.outputs * c.kernel**2 * (c.size // c.stride) ** 2 for c in layers)
    calls = 2 * steps - 1 if sampler == "heun" else steps
    return one * calls * images


def _macs_problem(generator):
    inputs, outputs, steps = (int(torch.randint(3, 9, (), generator=generator)) for _ in range(3))
    images = int(torch.randint(2, 6, (), generator=generator))
    layers = (Conv(inputs, outputs, 3, 16), Conv(outputs, 2 * outputs, 5, 16, 2), Conv(2 * outputs, inputs, 1, 8))
    return SimpleNamespace(layers=layers, steps=steps, images=images)


def _counted(layers, images: int) -> int:
    """The cost by torch, which runs the layers and counts two operations for each MAC."""
    with FlopCounterMode(display=False) as counter:
        for c in layers:
            x = torch.zeros(images, c.inputs, c.size, c.size)
            weight = torch.zeros(c.outputs, c.inputs, c.kernel, c.kernel)
            torch.nn.functional.conv2d(x, weight, stride=c.stride, padding=c.kernel // 2)
    return counter.get_total_flops() // 2


def _of_layer(index: int) -> Property:
    """Multiply-accumulates of one layer, for one step and one image."""
    return Property(
        lambda answer, p: answer(p.layers[index : index + 1], "ddim", 1, 1),
        lambda p: _counted(p.layers[index : index + 1], 1),
        show="{:,.0f} MACs".format,
    )


A = Exercise(
    id="02.A",
    title="what sampling costs",
    minutes=12,
    hints=(
        "One output pixel of one output channel needs inputs * kernel * kernel multiply-accumulates.",
        "There are outputs * (size / stride)² such numbers in the output of a layer.",
        "DDIM asks the network once a step. Heun asks twice, but in the step to time 0 its first answer is final.",
    ),
    problem=_macs_problem,
    reference=_sampling_macs,
    properties={
        "a 1 x 1 convolution": _of_layer(2),
        "a 3 x 3 convolution": _of_layer(0),
        "a convolution with stride 2": _of_layer(1),
        "many steps of DDIM, many images": Property(
            lambda answer, p: answer(p.layers, "ddim", p.steps, p.images),
            lambda p: _counted(p.layers, p.images) * p.steps,
            show="{:,.0f} MACs".format,
        ),
        "Heun's evaluations": Property(
            lambda answer, p: answer(p.layers, "heun", p.steps, 1) / answer(p.layers, "ddim", 1, 1),
            lambda p: 2 * p.steps - 1.0,
            show="{:.3g} evaluations".format,
        ),
    },
    mistakes={
        "FLOPs for MACs": Mistake(
            "a multiply-accumulate is two floating point operations. Both counts are published, often under one name, "
            "and a factor of two between two papers is usually this.",
            ("return one", "return 2 * one"),
        ),
        "the kernel is forgotten": Mistake(
            "inputs * outputs is the cost of a 1 x 1 convolution; every further pixel of the window costs that again.",
            (" * c.kernel**2", ""),
        ),
        "the side of the kernel for its area": Mistake(
            "a window of 3 x 3 has nine weights, and the configuration says 3.", ("c.kernel**2", "c.kernel")
        ),
        "the stride is forgotten": Mistake(
            "work is done where there is output, not where there is input: stride 2 leaves a quarter of it.",
            ("c.size // c.stride", "c.size"),
        ),
        "one image for the whole batch": Mistake(
            "a batch passes through the network in one call, and each of its images is computed all the same.",
            (" * images", ""),
        ),
        "a step of Heun counted as one evaluation": Mistake(
            "tables count steps or evaluations, and samplers differ in just this: equal steps are not equal cost.",
            ("2 * steps - 1", "steps"),
        ),
        "Heun's last step counted twice": Mistake(
            "two evaluations a step, so 2 N. But the correction divides by the noise of the target time, and at time 0 "
            "there is none: the last step makes do with one.",
            ("2 * steps - 1", "2 * steps"),
        ),
    },
)

# --- B: the Fréchet distance --------------------------------------------------------------------------------------


def _frechet(features_a, features_b):
    mean_a, mean_b = features_a.mean(0), features_b.mean(0)
    cov_a, cov_b = torch.cov(features_a.T), torch.cov(features_b.T)
    root = torch.linalg.eigvals(cov_a @ cov_b).real.clamp_min(0).sqrt().sum()
    return (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root


def _set_with(mean: Tensor, cov: Tensor, generator: torch.Generator) -> Tensor:
    """2000 points with exactly this mean and covariance."""
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
    mean, gap = normal((2, 2), generator, torch.float64)
    mean, gap = mean + 2, 3 * gap / gap.norm()
    a, b, moved = (_set_with(*one, generator) for one in ((mean, cov_a), (mean + gap, cov_b), (mean + gap, cov_a)))
    # for 2 x 2: (tr M^(1/2))^2 = tr M + 2 (det M)^(1/2), so no matrix root is needed to know the answer
    cross = ((cov_a @ cov_b).trace() + 2 * (cov_a.det() * cov_b.det()).sqrt()).sqrt()
    shift = gap.square().sum()
    return SimpleNamespace(a=a, b=b, moved=moved, shift=shift, exact=shift + 2 * 4.2 - 2 * cross)


B = Exercise(
    id="02.B",
    title="the Fréchet distance",
    minutes=10,
    hints=(
        "The root is that of the matrix: its product with itself gives C1 C2. It is not taken entry by entry.",
        "The trace of (C1 C2)^(1/2) is the sum of the square roots of the eigenvalues of C1 C2, which "
        "`torch.linalg.eigvals` returns as complex numbers; rounding may leave some of them below 0.",
        "The squared distance of the means, plus both traces, minus twice that sum. It stays a square.",
    ),
    problem=_frechet_problem,
    reference=_frechet,
    properties={
        "a set is at distance 0 from itself": Property(lambda answer, p: answer(p.a, p.a), 0.0, 1e-3),
        "a shift by 3 costs 9": Property(lambda answer, p: answer(p.a, p.moved), lambda p: p.shift, 0.01),
        "two turned ellipses are as far apart as algebra says": Property(
            lambda answer, p: answer(p.a, p.b), lambda p: p.exact, 0.01
        ),
        "the order of the sets does not matter": Property(
            lambda answer, p: answer(p.a, p.b) - answer(p.b, p.a), 0.0, 1e-3
        ),
    },
    mistakes={
        "the root of every entry": Mistake(
            "numpy and torch take roots entry by entry. The root of a matrix is the matrix whose *product* with itself "
            "gives it back; the two agree for diagonal matrices only, which is why a first test may not notice.",
            ("torch.linalg.eigvals(cov_a @ cov_b).real.clamp_min(0).sqrt().sum", "(cov_a @ cov_b).relu().sqrt().trace"),
        ),
        "the mean difference is not squared": Mistake(
            "a norm is a distance, and a distance was asked for; but here all terms are squares of lengths.",
            (".square().sum()", ".norm()"),
        ),
        "a root over everything": Mistake(
            "the Fréchet distance of two Gaussians is a root, and the number that everybody reports is its square.",
            (("return (mean_a", "return ((mean_a"), ("2 * root", "2 * root).clamp_min(0).sqrt()")),
        ),
        "diagonals only": Mistake(
            "variances are quicker. But features are correlated, and what a model gets wrong is often just that.",
            ("torch.linalg.eigvals(cov_a @ cov_b).real.clamp_min(0)", "(cov_a.diagonal() * cov_b.diagonal())"),
        ),
        "covariance without centring": Mistake(
            "features.T @ features / n is the second moment: the mean is still in it, and is then counted twice.",
            (
                ("torch.cov(features_a.T)", "features_a.T @ features_a / len(features_a)"),
                ("torch.cov(features_b.T)", "features_b.T @ features_b / len(features_b)"),
            ),
        ),
        "the 2 is missing": Mistake(
            "tr(A) + tr(B) - tr (A B)^(1/2) looks balanced. Put A = B: it leaves tr(A) where 0 must stand.",
            ("2 * root", "root"),
        ),
    },
)

# --- C: the floor of a measure ------------------------------------------------------------------------------------


def _floor(real, n, distance, generator):
    order = torch.randperm(len(real), generator=generator)
    return distance(real[order[:n]], real[order[n : 2 * n]])


def _floor_problem(generator):
    seed = int(torch.randint(2**31, (), generator=generator))
    real = torch.arange(1000.0).unsqueeze(1)  # every image is known by its number, and they come sorted
    return SimpleNamespace(real=real, n=400, seed=seed)


def _run(answer, p, salt=0):
    """The two sets that the answer compares, as the numbers of their images, and its result."""
    sides = [torch.empty(0), torch.empty(0)]

    def distance(a, b):
        sides[:] = a.flatten(), b.flatten()
        return 42.0

    result = answer(p.real, p.n, distance, torch.Generator().manual_seed(p.seed + salt))
    return *sides, result


def _shared(answer, p):
    a, b, _ = _run(answer, p)
    return len(set(a.tolist()) & set(b.tolist())) / max(1, len(a))


def _repeated(answer, p):
    a, b, _ = _run(answer, p)
    return 1 - (len(a.unique()) + len(b.unique())) / max(1, len(a) + len(b))


C = Exercise(
    id="02.C",
    title="the floor of a measure",
    minutes=15,
    importance="the lesson builds on it",
    hints=(
        "How far is the real set from itself? Compare two parts of it, as large as the sets you will compare later.",
        "No picture may be on both sides, and the order of the files must not decide who is where.",
        "One random permutation of all indices decides both sides.",
    ),
    problem=_floor_problem,
    reference=_floor,
    properties={
        "there are 400 pictures on either side": Property(
            lambda answer, p: torch.tensor([len(side) for side in _run(answer, p)[:2]]),
            (400, 400),
            show="{:.0f} pictures".format,
        ),
        "no picture is on both sides": Property(_shared, 0.0, alike=0.05, show="{:.0%} of them on both".format),
        "no picture is twice on one side": Property(_repeated, 0.0, alike=0.05, show="{:.0%} repeated".format),
        "sorted files are shuffled: both sides have about the same mean number": Property(
            lambda answer, p: torch.stack([side.mean() for side in _run(answer, p)[:2]]),
            (499.5, 499.5),
            tolerance=0.15,
            show="a mean of {:.0f}".format,
        ),
        "another generator gives another split": Property(
            lambda answer, p: float(torch.equal(_run(answer, p)[0], _run(answer, p, salt=1)[0])),
            0.0,
            show=lambda same: "the same split" if same else "another split",
        ),
        "the distance is handed on": Property(lambda answer, p: _run(answer, p)[2], 42.0),
    },
    mistakes={
        "the same pictures on both sides": Mistake(
            "two independent draws of n look like two samples of the data; but the set is finite, they overlap, and "
            "shared pictures pull the floor below what any model can reach.",
            ("order[n : 2 * n]", "torch.randperm(len(real), generator=generator)[:n]"),
        ),
        "the set against itself": Mistake(
            "the floor is then exactly 0. No finite sample reaches that, not even one of real pictures.",
            ("order[n : 2 * n]", "order[:n]"),
        ),
        "unequal sides": Mistake(
            "n against all the rest uses the data best, but the bias of these measures depends on the size of the "
            "sets: a floor at another size is the floor of another measure.",
            ("n : 2 * n", "n:"),
        ),
        "the files in their order": Mistake(
            "the first n and the next n are different pictures, and in most data sets different classes too: "
            "what is measured is the sorting.",
            ("torch.randperm(len(real), generator=generator)", "torch.arange(len(real))"),
        ),
        "drawn with repetition": Mistake(
            "randint draws some pictures twice and leaves others out: both sides are poorer than a real sample.",
            ("torch.randperm(len(real), ", "torch.randint(len(real), (2 * n,), "),
        ),
    },
)
