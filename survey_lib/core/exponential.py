"""One step of the probability-flow ODE, exact in its linear part (DPM-Solver, prop. 3.1).

The deterministic trajectory through ``x_t`` obeys, in ``lam = log(alpha / sigma)``, either of ::

    x_s = (sigma_s / sigma_t) x_t + sigma_s * integral of exp(+lam) x0(lam)  from lam_t to lam_s
    x_s = (alpha_s / alpha_t) x_t - alpha_s * integral of exp(-lam) eps(lam) from lam_t to lam_s

Only the prediction under the integral is unknown. A constant prediction gives the same step in both, DDIM. The
polynomial through predictions ``p_j`` at other times gives DDIM and corrections::

    x_s = keep x_t + gain x0_t + sum_j w_j (p_j - p_t),    keep = sigma_s / sigma_t,    gain = alpha_s (1 - e^-h)

with ``h = lam_s - lam_t`` and ``w_j`` the integral of the kernel times the Lagrange polynomial of node j.
This form loses no digits where alpha is tiny. At pure noise (``lam = -inf``) and at clean data (``lam = inf``) the
corrections vanish and the step remains right: every method has order 1 there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from survey_lib.core.checks import is_pure_noise
from survey_lib.core.schedules import Schedule


class Level(NamedTuple):
    """The noise level at one time: a tensor ``t`` for the denoiser, floats for the coefficients of a step."""

    t: Tensor
    alpha: float
    sigma: float
    lam: float


def levels(schedule: Schedule, times: Tensor) -> list[Level]:
    """Noise levels at falling ``times`` (N,), computed at once in float64; ValueError unless lam rises."""
    alpha, sigma = schedule.scales(times)
    lam = torch.where(is_pure_noise(alpha, sigma), -math.inf, alpha.log() - sigma.log())
    if (lam.diff() <= 0).any():
        at = int((lam.diff() <= 0).nonzero()[0])
        raise ValueError(f"lam must rise as t falls; under {schedule.name} it does not below t = {times[at]:g}")
    return [Level(*row) for row in zip(times.unbind(), alpha.tolist(), sigma.tolist(), lam.tolist(), strict=True)]


def ddim(start: Level, end: Level) -> list[float]:
    """DDIM's ``keep, gain`` in ``x_s = keep x_t + gain x0`` (Song et al. 2021, eq. 12 with eta = 0)."""
    keep, h = end.sigma / start.sigma, end.lam - start.lam
    return [keep, -end.alpha * math.expm1(-h) if math.isfinite(h) else end.alpha - start.alpha * keep]


def step(start: Level, end: Level, others: Sequence[float], predict: str) -> list[float]:
    """Coefficients of ``[x_t, x0_t, *p]`` in ``x_s``, with ``p`` the predictions at the lams ``others``.

    The prediction at ``start`` is expressed by ``x_t`` and ``x0_t``, which saves a pass over memory.
    """
    keep, gain = ddim(start, end)
    h = end.lam - start.lam
    if not math.isfinite(h):
        return [keep, gain]
    scale = end.alpha if predict == "x0" else -end.sigma
    weights = [
        scale * h * w for w in lagrange_weights([(u - start.lam) / h for u in others], -h if predict == "x0" else h)
    ]
    if predict == "x0":
        return [keep, gain - sum(weights), *weights]
    share = sum(weights) / start.sigma  # eps_t = (x_t - alpha x0_t) / sigma
    return [keep - share, gain + share * start.alpha, *weights]


def lagrange_weights(nodes: Sequence[float], z: float) -> list[float]:
    """``integral_0^1 exp((1 - theta) z) l_j(theta) dtheta``, with ``l_j`` through 0 and ``nodes``, for each node.

    Exact for every ``z``: the integrals of the powers of theta are phi functions.
    """
    moments = [math.factorial(m) * value for m, value in enumerate(phi(z, len(nodes) + 1))]
    weights = []
    for j, node in enumerate(nodes):
        polynomial = [0.0, 1.0 / node]  # theta / node: vanishes at 0; coefficients of rising powers
        for other in (*nodes[:j], *nodes[j + 1 :]):
            shifted, span = [0.0, *polynomial], node - other
            polynomial = [(a - other * b) / span for a, b in zip(shifted, [*polynomial, 0.0], strict=True)]
        weights.append(sum(c * m for c, m in zip(polynomial, moments, strict=True)))
    return weights


def phi(z: float, count: int) -> list[float]:
    """``phi_1 ... phi_count`` of exponential integrators (Hochbruck & Ostermann 2010, eq. 2.10).

    ``phi_(m+1)(z) = integral_0^1 exp((1 - theta) z) theta^m / m! dtheta = (phi_m(z) - 1 / m!) / z``. The upward
    recursion cancels for small z; there it runs downwards from the power series of ``phi_count``.
    """
    if abs(z) > 3:
        values = [math.expm1(z) / z]
        for m in range(1, count):
            values.append((values[-1] - 1 / math.factorial(m)) / z)
        return values
    series = 1.0  # count! phi_count, by Horner's rule
    for k in range(30, 0, -1):
        series = 1 + series * z / (count + k)
    values = [series / math.factorial(count)]
    for m in range(count - 1, 0, -1):
        values.append(z * values[-1] + 1 / math.factorial(m))
    return values[::-1]


def linear_combination(coefficients: Iterable[float], tensors: Iterable[Tensor]) -> Tensor:
    """``sum_j c_j y_j`` as a new tensor, in one pass over memory per term, up to the end of the shorter list."""
    terms = [(c, y) for c, y in zip(coefficients, tensors, strict=False) if c]
    total = terms[0][1] * terms[0][0]
    for c, y in terms[1:]:
        total.add_(y, alpha=c)
    return total
