"""Samplers under one call and one budget: ``method(denoiser, schedule, x, evaluations)``.

Papers count steps; a comparison has to count evaluations of the denoiser. A `Method` knows what each of its steps
costs, and takes as many as the budget pays for, on the grid that its authors (or those who use it most) advise::

    for method in METHODS:
        drawn = method(denoiser, schedule, noise, 10, generator=generator)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from survey_lib.core import grids, integrators, samplers
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.exponential import Level, levels
from survey_lib.core.protocols import Callback, Denoiser
from survey_lib.core.schedules import Schedule

#: ``grid(steps, schedule)``: falling times from noise to 0, as those of `core.grids`.
Grid = Callable[[int, Schedule], Tensor]


def even(steps: int, schedule: Schedule) -> Tensor:
    """`grids.uniform` as a `Grid`: equal steps in t."""
    return grids.uniform(steps)


def quadratic(steps: int, schedule: Schedule) -> Tensor:
    """`grids.quadratic` as a `Grid`: equal steps in the root of t."""
    return grids.quadratic(steps)


karras: Grid = grids.karras
even_lambda: Grid = grids.uniform_lambda


def _one(start: Level, end: Level, number: int) -> int:
    return 1


def _finite(start: Level, end: Level) -> bool:
    """Whether a step is ordinary: one from pure noise or to clean data takes one evaluation in every method."""
    return math.isfinite(end.lam - start.lam)


@dataclass(frozen=True)
class Method:
    """A sampler as it is compared with others; call it to draw.

    ``walk(denoiser, schedule, x, times, ...)`` takes the steps and ``grid`` places them. ``order`` is that of its error
    in the step; None where the result is random, or a tolerance chooses the steps. ``smallest`` is the least budget
    with which it does what its name says. ``price(start, end, number)`` is what a step costs; a method without one
    is stopped where the budget ends.
    """

    name: str
    source: str
    order: int | None
    stochastic: bool
    walk: Callable[..., Tensor]
    grid: Grid
    smallest: int = 1
    price: Callable[[Level, Level, int], int] | None = _one

    def count(self, schedule: Schedule, times: Tensor) -> int:
        """Evaluations on a grid. Raises ValueError for an adaptive method: it is known only afterwards."""
        if self.price is None:
            raise ValueError(f"{self.name} takes as many evaluations as its tolerance asks for; count them")
        return sum(self.price(*step, number) for number, step in enumerate(pairwise(levels(schedule, times))))

    def times(self, schedule: Schedule, evaluations: int, grid: Grid | None = None) -> Tensor:
        """The finest grid that the budget pays for. Raises ValueError for a budget below ``smallest``."""
        if evaluations < self.smallest:
            raise ValueError(f"{self.name} needs at least {self.smallest} evaluations; got {evaluations}")
        grid = grid or self.grid
        if self.price is None:
            return grid(2, schedule)
        low, high = 1, evaluations + 1  # steps: affordable, not affordable
        while high - low > 1:
            middle = (low + high) // 2
            affordable = self.count(schedule, grid(middle, schedule)) <= evaluations
            low, high = (middle, high) if affordable else (low, middle)
        return grid(low, schedule)

    def __call__(
        self,
        denoiser: Denoiser,
        schedule: Schedule,
        x: Tensor,
        evaluations: int,
        *,
        grid: Grid | None = None,
        cond: Any = None,
        generator: torch.Generator | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """From ``x``, noise at the grid's first time, to data, with at most ``evaluations`` calls of the denoiser.

        As many of them as whole steps allow. ``grid(steps, schedule)`` stands for the method's own. Raises ValueError
        where the budget is too small, for a random method also without ``generator``.
        """
        times = self.times(schedule, evaluations, grid)
        options = {"generator": generator} if self.stochastic else {}
        if self.price is not None:
            return self.walk(denoiser, schedule, x, times, cond=cond, callback=callback, **options)
        try:
            return self.walk(_Purse(denoiser, evaluations), schedule, x, times, cond=cond, callback=callback, **options)
        except _Spent:
            raise ValueError(
                f"{self.name} needs more than {evaluations} evaluations here; allow more of them or a larger tolerance"
            ) from None


class _Spent(Exception):
    pass


@dataclass
class _Purse:
    """A denoiser that answers so many times and no more."""

    denoiser: Denoiser
    left: int

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        if self.left == 0:
            raise _Spent
        self.left -= 1
        return self.denoiser(x_t, t, cond)


def bridged(eta: float, name: str, grid: Grid = even) -> Method:
    """The loop of lesson 01 over DDIM's bridge: DDPM with ``eta = 1``, DDIM with 0, and all between."""

    def walk(denoiser: Denoiser, schedule: Schedule, x: Tensor, times: Tensor, **options: Any) -> Tensor:
        return samplers.ancestral(denoiser, Gaussian(schedule, eta), x, times, **options)

    return Method(name, "DDIM (Song et al. 2021), eq. 12 and 16", 1 if eta == 0 else None, eta > 0, walk, grid)


def reverse_sde(name: str = "Euler-Maruyama", grid: Grid = quadratic) -> Method:
    """Plain steps down the reverse stochastic equation; from pure noise, where it has no drift, one step of DDPM."""

    def walk(denoiser: Denoiser, schedule: Schedule, x: Tensor, times: Tensor, **options: Any) -> Tensor:
        plain, first = samplers.reverse_sde(schedule), Gaussian(schedule).bridge

        def bridge(y: Tensor, x0: Tensor, t: Tensor, s: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
            (level,) = levels(schedule, t[None])
            return (plain if math.isfinite(level.lam) else first)(y, x0, t, s, generator=generator)

        return samplers.predictor_corrector(denoiser, schedule, x, times, bridge=bridge, corrections=0, **options)

    return Method(name, "Score-SDE (Song et al. 2021), eq. 6", None, True, walk, grid)


def corrected(name: str = "Predictor-corrector", snr: float = 0.16, grid: Grid = quadratic) -> Method:
    """DDPM's step and one of Langevin after it, at twice the price (Score-SDE, alg. 1 and app. F)."""

    def walk(denoiser: Denoiser, schedule: Schedule, x: Tensor, times: Tensor, **options: Any) -> Tensor:
        bridge = Gaussian(schedule).bridge
        return samplers.predictor_corrector(denoiser, schedule, x, times, bridge=bridge, snr=snr, **options)

    def price(start: Level, end: Level, number: int) -> int:
        return 2 if end.sigma > 0 else 1

    return Method(name, "Score-SDE (Song et al. 2021), alg. 1", None, True, walk, grid, 3, price)


def edm(name: str, grid: Grid = karras, **churn: Any) -> Method:
    """Heun's method, with churn where given (EDM, alg. 2)."""

    def price(start: Level, end: Level, number: int) -> int:
        return 1 + _finite(start, end)

    order, random = (None, True) if churn else (2, False)
    return Method(name, "EDM (Karras et al. 2022)", order, random, partial(samplers.heun, **churn), grid, 3, price)


def pseudo(order: int, name: str, grid: Grid = even) -> Method:
    """S-PNDM (2) and F-PNDM (4), which take Runge-Kutta steps until they have a past to look back on."""
    extra = {2: 1, 4: 3}[order]

    def price(start: Level, end: Level, number: int) -> int:
        return 1 + extra * (number < order - 1 and _finite(start, end))

    walk = partial(integrators.pndm, order=order)
    return Method(name, "PNDM (Liu et al. 2022)", 2, False, walk, grid, 2 + extra, price)


def single(order: int, name: str, grid: Grid = even_lambda) -> Method:
    """DPM-Solver-2 and -3: every step pays for its own look ahead."""

    def price(start: Level, end: Level, number: int) -> int:
        return order if _finite(start, end) else 1

    walk = partial(integrators.dpm_singlestep, order=order)
    return Method(name, "DPM-Solver (Lu et al. 2022)", order, False, walk, grid, 1 + order, price)


def multi(order: int, name: str, source: str, grid: Grid, **options: Any) -> Method:
    """A linear multistep method in lam (`integrators.multistep`), one evaluation a step."""
    gained = order + options.get("correct", False)
    return Method(name, source, gained, False, partial(integrators.multistep, order=order, **options), grid)


def adaptive(tolerance: float = 1e-3, name: str | None = None) -> Method:
    """The probability flow to a tolerance (absolute and relative): the tolerance decides what it costs.

    A budget only stops it. Its grid says where to begin and to end (see `integrators.probability_flow`).
    """

    def ends(steps: int, schedule: Schedule) -> Tensor:
        return torch.tensor([1.0, 1e-3, 0.0], dtype=torch.float64)

    walk = partial(integrators.probability_flow, rtol=tolerance, atol=tolerance)
    name = name or f"Adaptive {tolerance:g}"
    return Method(name, "Score-SDE (Song et al. 2021), eq. 13", None, False, walk, ends, 9, None)


#: The methods that lesson 25 compares. Their grids: DDIM's and PNDM's papers walk evenly in t (DDIM app. D.2);
#: EDM brought its own (eq. 5), and DPM-Solver++ and DEIS are mostly run on it; DPM-Solver (sec. 3.3) and UniPC (sec. 4)
#: advise even steps in lam for small pictures. Score-SDE walks evenly in t too, in a thousand steps: in a few
#: the last of them, where g^2 / sigma^2 is largest, overshoot without bound, and steps in the root of t are the remedy.
METHODS: tuple[Method, ...] = (
    bridged(1.0, "DDPM"),
    bridged(0.5, "DDIM half noise"),
    bridged(0.0, "DDIM"),
    reverse_sde(),
    corrected(),
    edm("Heun"),
    edm("Heun churned", churn=40.0, churn_range=(0.05, 50.0), noise_scale=1.003),  # EDM, table 5, ImageNet-64
    pseudo(2, "S-PNDM"),
    pseudo(4, "F-PNDM"),
    single(2, "DPM-Solver-2"),
    single(3, "DPM-Solver-3"),
    multi(2, "2M", "DPM-Solver++ (Lu et al. 2022)", karras),
    multi(3, "3M", "DPM-Solver++ (Lu et al. 2022)", karras),
    multi(3, "DEIS-3", "DEIS (Zhang & Chen 2023)", karras, predict="eps"),
    multi(2, "UniPC-2", "UniPC (Zhao et al. 2023)", even_lambda, correct=True),
    multi(3, "UniPC-3", "UniPC (Zhao et al. 2023)", even_lambda, correct=True),
    adaptive(),
)
