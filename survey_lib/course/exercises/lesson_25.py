"""Exercises of lesson 25: the order of a method from its errors, a second-order step, and third-order weights."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from survey_lib.course.exercises._weights_25 import C
from survey_lib.course.exercises.framework import Exercise, Mistake, Property

__all__ = ["A", "B", "C"]


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


# --- A: the order of a method, from its errors --------------------------------------------------------------------


def _order_with(
    falls=lambda errors: (errors[-2] / errors[-1]).log(), grows=lambda steps: (steps[-1] / steps[-2]).log()
):
    def order(steps, errors):
        return falls(errors) / grows(steps)

    return order


def _order_stub(steps, errors):
    raise NotImplementedError


def _fitted(steps, errors):
    x, y = steps.log(), -errors.log()
    return ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()


def _order_problem(generator):
    order, scale = 1 + _uniform(generator, 0.2, 2.5), _uniform(generator, 0.5, 4.0)
    doubled = torch.tensor([8.0, 16.0, 32.0, 64.0], dtype=torch.float64)
    tripled = torch.tensor([5.0, 15.0, 45.0], dtype=torch.float64)
    coarse = torch.tensor([0.4, 3.0, 1.0, 1.0], dtype=torch.float64)  # what an error law does not hold for yet
    return SimpleNamespace(order=order, scale=scale, doubled=doubled, tripled=tripled, coarse=coarse)


def _errors(steps: Tensor, p: SimpleNamespace, scale: float | None = None) -> Tensor:
    return (p.scale if scale is None else scale) * steps ** (-p.order)


A = Exercise(
    id="25.A",
    title="the order, measured",
    difficulty="guided",
    minutes=8,
    hints=(
        "An error of order k is C / steps^k. Two step counts and two errors make two equations: C falls out.",
        "errors[-2] / errors[-1] = (steps[-1] / steps[-2])^k. Take logarithms of both sides.",
        "log(errors[-2] / errors[-1]) / log(steps[-1] / steps[-2]).",
    ),
    problem=_order_problem,
    properties=(
        Property(
            "steps doubled: the power of the law is found",
            lambda answer, p: answer(p.doubled, _errors(p.doubled, p)),
            lambda p: p.order,
        ),
        Property(
            "steps tripled: the same power",
            lambda answer, p: answer(p.tripled, _errors(p.tripled, p)),
            lambda p: p.order,
        ),
        Property(
            "the unit of the error does not matter",
            lambda answer, p: answer(p.doubled, 1000 * _errors(p.doubled, p)),
            lambda p: p.order,
        ),
        Property(
            "only the last two count: a law for short steps says nothing of long ones",
            lambda answer, p: answer(p.doubled, p.coarse * _errors(p.doubled, p)),
            lambda p: p.order,
        ),
    ),
    mistakes=(
        Mistake(
            "doubling is assumed",
            "log2 of the ratio of errors is the order where the steps were doubled. Here they were not always.",
            _order_with(grows=lambda steps: torch.tensor(2.0, dtype=steps.dtype).log()),
        ),
        Mistake(
            "the ratio itself",
            "twice the steps and a quarter of the error is order 2, not 4: the order is an exponent, and a logarithm "
            "gets it out.",
            _order_with(falls=lambda e: e[-2] / e[-1], grows=lambda steps: torch.ones((), dtype=steps.dtype)),
        ),
        Mistake(
            "upside down",
            "the slope on log axes is negative, for errors fall; the order is the size of that slope.",
            _order_with(falls=lambda errors: (errors[-1] / errors[-2]).log()),
        ),
        Mistake(
            "a line through everything",
            "a fit over all points averages the order with what happens where the steps are still too long for it.",
            _fitted,
        ),
        Mistake(
            "the first two",
            "the law holds in the limit of many steps; its first points are the worst witnesses.",
            _order_with(lambda errors: (errors[0] / errors[1]).log(), lambda steps: (steps[1] / steps[0]).log()),
        ),
    ),
    reference=_order_with(),
    stub=_order_stub,
)


# --- B: where to look on a step -----------------------------------------------------------------------------------


def _extrapolate_with(share=lambda h, before: h / (2 * before), sign=1.0):
    def extrapolate(x0, x0_before, lam_before, lam, lam_next):
        return x0 + sign * share(lam_next - lam, lam - lam_before) * (x0 - x0_before)

    return extrapolate


def _extrapolate_stub(x0, x0_before, lam_before, lam, lam_next):
    raise NotImplementedError


def _line_problem(generator):
    value, slope = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    lam = _uniform(generator, -2, 1)
    return SimpleNamespace(
        value=value, slope=slope + slope.sign(), lam=lam, h=_uniform(generator, 0.7, 1.0),
        before=_uniform(generator, 0.3, 0.5),
    )  # fmt: skip


def _on_line(answer, p, h: float, before: float, level: bool = False) -> Tensor:
    """What the answer makes of predictions ``value + slope lam`` at two times; of equal ones where ``level``."""
    slope = 0 * p.slope if level else p.slope
    lams = [torch.tensor(p.lam + shift, dtype=torch.float64) for shift in (-before, 0.0, h)]
    return answer(p.value + slope * lams[1], p.value + slope * lams[0], *lams)


def _middle(p, h: float) -> Tensor:
    return p.value + p.slope * (p.lam + h / 2)


B = Exercise(
    id="25.B",
    title="what the denoiser would say half-way",
    difficulty="supported",
    minutes=12,
    hints=(
        "Draw the line through the two predictions, over lam, and read it in the middle of the step that comes.",
        "Its slope is (x0 - x0_before) / (lam - lam_before). How far from lam is the middle?",
        "x0 + (lam_next - lam) / 2 * (x0 - x0_before) / (lam - lam_before).",
    ),
    problem=_line_problem,
    properties=(
        Property(
            "a prediction that stays the same is left alone",
            lambda answer, p: _on_line(answer, p, p.h, p.before, level=True),
            lambda p: p.value,
        ),
        Property(
            "on equal steps, a line is read at the middle",
            lambda answer, p: _on_line(answer, p, p.h, p.h),
            lambda p: _middle(p, p.h),
        ),
        Property(
            "after a short step too",
            lambda answer, p: _on_line(answer, p, p.h, p.before),
            lambda p: _middle(p, p.h),
        ),
        Property(
            "and after a long one",
            lambda answer, p: _on_line(answer, p, p.before, p.h),
            lambda p: _middle(p, p.before),
        ),
    ),
    mistakes=(
        Mistake(
            "equal steps are assumed",
            "3/2 of the new minus 1/2 of the old is the textbook's Adams-Bashforth. No grid of this course has equal "
            "steps in lam, but for the one that is made so.",
            _extrapolate_with(share=lambda h, before: 0.5),
        ),
        Mistake(
            "the steps in the wrong proportion",
            "a long step after a short one must extrapolate *more*: the slope is divided by the step it was measured "
            "on and multiplied by the one it is used on.",
            _extrapolate_with(share=lambda h, before: before / (2 * h)),
        ),
        Mistake(
            "read at the end",
            "the prediction at the end of the step stands for its last moment; for all of the step stands its middle.",
            _extrapolate_with(share=lambda h, before: h / before),
        ),
        Mistake(
            "read in the past",
            "with the sign turned round this is the middle between the two old predictions: the step that has been.",
            _extrapolate_with(sign=-1.0),
        ),
    ),
    reference=_extrapolate_with(),
    stub=_extrapolate_stub,
)
