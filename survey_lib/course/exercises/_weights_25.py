"""Exercise C of lesson 25: weights of three predictions, judged by the polynomials that they must integrate."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from survey_lib.course.exercises.framework import Exercise, Mistake, Property


def _moments(h: Tensor) -> Tensor:
    """``integral_0^h exp(-(h - u)) u^k du`` for k = 0, 1, 2, by parts: ``M_k = h^k - k M_(k-1)``."""
    zeroth = -torch.expm1(-h)
    first = h - zeroth
    return torch.stack([zeroth, first, h**2 - 2 * first])


def _plain_moments(h: Tensor) -> Tensor:
    return torch.stack([h, h**2 / 2, h**3 / 3])


def _weights_with(moments=_moments, nodes=lambda h, h1, h2: (0 * h, -h1, -h1 - h2), final=lambda m: m):
    def weights(h, h1, h2):
        u = torch.stack(nodes(h, h1, h2))
        return torch.linalg.solve(torch.stack([u**0, u, u**2]), final(moments(h)))

    return weights


def _half_of_the_curve(moments: Tensor) -> Tensor:
    """What a code does that multiplies the second divided difference by ``phi_3`` where ``2 phi_3`` belongs."""
    return moments * torch.tensor([1.0, 1.0, 0.5], dtype=moments.dtype)


def _two_points(h, h1, h2):
    zeroth, first, _ = _moments(h)
    return torch.stack([zeroth + first / h1, -first / h1, 0 * h])


def _weights_stub(h, h1, h2):
    raise NotImplementedError


def _problem(generator):
    h, h1, h2 = (0.3 + 0.9 * torch.rand(3, generator=generator, dtype=torch.float64)).unbind()
    return SimpleNamespace(steps=(h, h1, h2), equal=(h, h, h))


def _integral(answer, steps, power: int) -> Tensor:
    """``sum_j w_j p(u_j)`` for ``p = u^power`` at the three nodes."""
    h, h1, h2 = steps
    nodes = torch.stack([0 * h, -h1, -h1 - h2])
    return (torch.as_tensor(answer(*steps)) * nodes**power).sum()


def _exact(steps, power: int) -> Tensor:
    """The integral itself, by quadrature: the weights must not be checked against the formula they come from."""
    import numpy as np

    points, weights = np.polynomial.legendre.leggauss(32)
    h = steps[0]
    u = h * (torch.from_numpy(points) + 1) / 2
    return (torch.from_numpy(weights) * h / 2 * torch.exp(u - h) * u**power).sum()


C = Exercise(
    id="25.C",
    title="the weights of the third order",
    difficulty="independent",
    minutes=25,
    hints=(
        "A rule with three weights is right for all parabolas if it is right for 1, u and u^2: three equations.",
        "The right sides are M_k, the integral of exp(-(h - u)) u^k from 0 to h. By parts: M_0 = 1 - exp(-h), "
        "M_k = h^k - k M_(k-1).",
        "The predictions stand at u = 0, -h1 and -h1 - h2. Solve sum_j w_j u_j^k = M_k with torch.linalg.solve.",
    ),
    problem=_problem,
    properties=(
        Property(
            "a constant prediction is integrated exactly",
            lambda answer, p: _integral(answer, p.steps, 0),
            lambda p: _exact(p.steps, 0),
            1e-8,
        ),
        Property(
            "a line is integrated exactly",
            lambda answer, p: _integral(answer, p.steps, 1),
            lambda p: _exact(p.steps, 1),
            1e-8,
        ),
        Property(
            "a parabola is integrated exactly",
            lambda answer, p: _integral(answer, p.steps, 2),
            lambda p: _exact(p.steps, 2),
            1e-8,
        ),
        Property(
            "on equal steps as well",
            lambda answer, p: torch.stack([_integral(answer, p.equal, k) for k in range(3)]),
            lambda p: torch.stack([_exact(p.equal, k) for k in range(3)]),
            1e-8,
        ),
    ),
    mistakes=(
        Mistake(
            "half of the second difference",
            "a Taylor series has u^2 / 2 times the second derivative, Newton's form u^2 times the second *divided* "
            "difference, and that is half the derivative already. Widely used code halves it twice, and its third "
            "order is a second.",
            _weights_with(final=_half_of_the_curve),
        ),
        Mistake(
            "the kernel is forgotten",
            "these are the weights of Adams and Bashforth. The linear part of the equation, exp(-(h - u)), was to be "
            "solved exactly: it stands under the integral.",
            _weights_with(moments=_plain_moments),
        ),
        Mistake(
            "equal steps are assumed",
            "all distances were taken as h. The past lies where the grid has put it.",
            _weights_with(nodes=lambda h, h1, h2: (0 * h, -h, -2 * h)),
        ),
        Mistake(
            "the past on the wrong side",
            "the earlier predictions stand at negative u; at positive ones the polynomial is turned round.",
            _weights_with(nodes=lambda h, h1, h2: (0 * h, h1, h1 + h2)),
        ),
        Mistake(
            "the steps in the wrong order",
            "h1 is the step that has just been made, and the last prediction lies h1 back; h2 is the one before.",
            _weights_with(nodes=lambda h, h1, h2: (0 * h, -h2, -h1 - h2)),
        ),
        Mistake(
            "two points only",
            "these are the weights of the second order: right for every line, and for no parabola.",
            _two_points,
        ),
    ),
    reference=_weights_with(),
    stub=_weights_stub,
)
