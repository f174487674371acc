"""Exercises of lesson 25: the order of a method from its errors, a second-order step, and third-order weights."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from survey_lib.course.exercises.framework import Exercise, Mistake, Property, uniform

# --- A: the order of a method, from its errors --------------------------------------------------------------------


def _order(steps, errors):
    return (errors[-2] / errors[-1]).log() / (steps[-1] / steps[-2]).log()


def _fitted(steps, errors):
    x, y = steps.log(), -errors.log()
    return ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()


def _order_problem(generator):
    order, scale = 1 + uniform(generator, 0.2, 2.5), uniform(generator, 0.5, 4.0)
    doubled = torch.tensor([8.0, 16.0, 32.0, 64.0], dtype=torch.float64)
    tripled = torch.tensor([5.0, 15.0, 45.0], dtype=torch.float64)
    coarse = torch.tensor([0.4, 3.0, 1.0, 1.0], dtype=torch.float64)  # long steps do not follow the power law yet
    return SimpleNamespace(order=order, scale=scale, doubled=doubled, tripled=tripled, coarse=coarse)


def _from_errors(steps: str, factor=lambda p: 1.0) -> Property:
    """The order, measured on errors ``factor * scale / steps^order``."""

    def measure(answer, p):
        counts = getattr(p, steps)
        return answer(counts, factor(p) * p.scale * counts ** (-p.order))

    return Property(measure, lambda p: p.order)


A = Exercise(
    id="25.A",
    title="the order, measured",
    minutes=8,
    importance="the lesson builds on it",
    hints=(
        "An error of order k is C / steps^k. Two step counts and two errors make two equations: C falls out.",
        "errors[-2] / errors[-1] = (steps[-1] / steps[-2])^k. Take logarithms of both sides.",
        "The logarithm of a power is the exponent times a logarithm: solve for k. Do not assume that steps double.",
    ),
    problem=_order_problem,
    reference=_order,
    properties={
        "steps doubled: the power of the law is found": _from_errors("doubled"),
        "steps tripled: the same power": _from_errors("tripled"),
        "the unit of the error does not matter": _from_errors("doubled", lambda p: 1000),
        "only the last two count: a law for short steps says nothing of long ones": _from_errors(
            "doubled", lambda p: p.coarse
        ),
    },
    mistakes={
        "doubling is assumed": Mistake(
            "log2 of the ratio of errors is the order where the steps were doubled. Here they were not always.",
            (".log() / (steps[-1] / steps[-2]).log()", ".log2()"),
        ),
        "the ratio itself": Mistake(
            "twice the steps and a quarter of the error is order 2, not 4: the order is an exponent, and a logarithm "
            "gets it out.",
            (".log() / (steps[-1] / steps[-2]).log()", ""),
        ),
        "upside down": Mistake(
            "the slope on log axes is negative, for errors fall; the order is the size of that slope.",
            ("errors[-2] / errors[-1]", "errors[-1] / errors[-2]"),
        ),
        "a line through everything": Mistake(
            "a fit over all points averages the order with what happens where the steps are still too long for it.",
            answer=_fitted,
        ),
        "the first two": Mistake(
            "the law holds in the limit of many steps; its first points are the worst witnesses.",
            (("errors[-2] / errors[-1]", "errors[0] / errors[1]"), ("steps[-1] / steps[-2]", "steps[1] / steps[0]")),
        ),
    },
)

# --- B: the middle of a step --------------------------------------------------------------------------------------


def _extrapolate(x0, x0_before, lam_before, lam, lam_next):
    return x0 + (lam_next - lam) / (2 * (lam - lam_before)) * (x0 - x0_before)


def _line_problem(generator):
    value, slope = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    lam = uniform(generator, -2, 1)
    return SimpleNamespace(
        value=value, slope=slope + slope.sign(), lam=lam, long=uniform(generator, 0.7, 1.0),
        short=uniform(generator, 0.3, 0.5),
    )  # fmt: skip


def _on_line(before: str, after: str, sloping: bool = True) -> Property:
    """Predictions ``value + slope lam`` at both ends of the step ``before``, evaluated in the middle of ``after``."""

    def measure(answer, p):
        lams = [torch.tensor(p.lam + h, dtype=torch.float64) for h in (-getattr(p, before), 0.0, getattr(p, after))]
        return answer(p.value + sloping * p.slope * lams[1], p.value + sloping * p.slope * lams[0], *lams)

    return Property(measure, lambda p: p.value + sloping * p.slope * (p.lam + getattr(p, after) / 2))


B = Exercise(
    id="25.B",
    title="what the denoiser would say half-way",
    minutes=12,
    importance="the lesson builds on it",
    hints=(
        "Draw the line through the two predictions, over λ, and read it in the middle of the step that comes.",
        "Its slope is (x0 - x0_before) / (lam - lam_before). How far from lam is the middle?",
        "The value at lam, plus the slope times that distance: half of the step that comes, not of the last one.",
    ),
    problem=_line_problem,
    reference=_extrapolate,
    properties={
        "a prediction that stays the same is left alone": _on_line("short", "long", sloping=False),
        "on equal steps, a line is read at the middle": _on_line("long", "long"),
        "after a short step too": _on_line("short", "long"),
        "and after a long one": _on_line("long", "short"),
    },
    mistakes={
        "equal steps are assumed": Mistake(
            "3/2 of the new minus 1/2 of the old is the textbook's Adams-Bashforth. No grid of this course has equal "
            "steps in lam, but for the one that is made so.",
            ("(lam_next - lam) / (2 * (lam - lam_before))", "0.5"),
        ),
        "the steps in the wrong proportion": Mistake(
            "a long step after a short one must extrapolate *more*: the slope is divided by the step it was measured "
            "on and multiplied by the one it is used on.",
            ("(lam_next - lam) / (2 * (lam - lam_before))", "(lam - lam_before) / (2 * (lam_next - lam))"),
        ),
        "read at the end": Mistake(
            "the prediction at the end of the step stands for its last moment; for all of the step stands its middle.",
            ("2 * (lam - lam_before)", "lam - lam_before"),
        ),
        "read in the past": Mistake(
            "with the sign turned round this is the middle between the two old predictions: the step that has been.",
            ("x0 + (", "x0 - ("),
        ),
    },
)

# --- C: the weights of the third order ----------------------------------------------------------------------------


def _weights(h, h1, h2):
    u = torch.stack([0 * h, -h1, -h1 - h2])
    m0 = -torch.expm1(-h)
    m1 = h - m0
    m2 = h**2 - 2 * m1
    return torch.linalg.solve(torch.stack([u**0, u, u**2]), torch.stack([m0, m1, m2]))


def _steps_problem(generator):
    h, h1, h2 = (0.3 + 0.9 * torch.rand(3, generator=generator, dtype=torch.float64)).unbind()
    return {"uneven": (h, h1, h2), "equal": (h, h, h)}


def _integrated(answer, p, steps: str, powers: tuple[int, ...]) -> Tensor:
    """``sum_j w_j p(u_j)`` for ``p = u^power`` at the three nodes."""
    h, h1, h2 = p[steps]
    nodes = torch.stack([0 * h, -h1, -h1 - h2])
    return torch.stack([(torch.as_tensor(answer(h, h1, h2)) * nodes**power).sum() for power in powers])


def _integral(p, steps: str, powers: tuple[int, ...]) -> Tensor:
    """The integral by quadrature, so that the weights are not checked by the formula that gives them."""
    points, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(32))
    h = p[steps][0]
    u = h * (points + 1) / 2
    return torch.stack([(weights * h / 2 * torch.exp(u - h) * u**power).sum() for power in powers])


C = Exercise(
    id="25.C",
    title="the weights of the third order",
    minutes=25,
    importance="the lesson builds on it",
    hints=(
        "A rule with three weights is right for all parabolas if it is right for 1, u and u²: three equations.",
        "The right sides are M_k, the integral of exp(-(h - u)) u^k from 0 to h. By parts: M_0 = 1 - exp(-h), "
        "M_k = h^k - k M_(k-1).",
        "The predictions stand at u = 0, -h1 and -h1 - h2. The equations sum_j w_j u_j^k = M_k are linear in the "
        "weights: `torch.linalg.solve`.",
    ),
    problem=_steps_problem,
    reference=_weights,
    properties={
        "a constant prediction is integrated exactly": Property(_integrated, _integral, 1e-8, given=("uneven", (0,))),
        "a line is integrated exactly": Property(_integrated, _integral, 1e-8, given=("uneven", (1,))),
        "a parabola is integrated exactly": Property(_integrated, _integral, 1e-8, given=("uneven", (2,))),
        "on equal steps as well": Property(_integrated, _integral, 1e-8, given=("equal", (0, 1, 2))),
    },
    mistakes={
        "half of the second difference": Mistake(
            "a Taylor series has u^2 / 2 times the second derivative, Newton's form u^2 times the second *divided* "
            "difference, and that is half the derivative already. Widely used code halves it twice, and its third "
            "order is a second.",
            ("m1, m2]", "m1, m2 / 2]"),
        ),
        "the kernel is forgotten": Mistake(
            "these are the weights of Adams and Bashforth. The linear part of the equation, exp(-(h - u)), was to be "
            "solved exactly: it stands under the integral.",
            ("[m0, m1, m2]", "[h, h**2 / 2, h**3 / 3]"),
        ),
        "equal steps are assumed": Mistake(
            "all distances were taken as h. The past lies where the grid has put it.",
            ("-h1, -h1 - h2", "-h, -2 * h"),
        ),
        "the past on the wrong side": Mistake(
            "the earlier predictions stand at negative u; at positive ones the polynomial is turned round.",
            ("-h1, -h1 - h2", "h1, h1 + h2"),
        ),
        "the steps in the wrong order": Mistake(
            "h1 is the step that has just been made, and the last prediction lies h1 back; h2 is the one before.",
            ("-h1, -h1", "-h2, -h1"),
        ),
        "two points only": Mistake(
            "these are the weights of the second order: right for every line, and for no parabola.",
            (
                "torch.linalg.solve(torch.stack([u**0, u, u**2]), torch.stack([m0, m1, m2]))",
                "torch.stack([m0 + m1 / h1, -m1 / h1, 0 * h])",
            ),
        ),
    },
)
