"""Samplers with one interface and one limit on evaluations: ``SOLVERS["2M"](denoiser, schedule, x, nfe)``.

Papers count steps; a comparison has to count evaluations of the denoiser (NFE). A `Solver` knows the evaluations of
each step, and takes as many steps as ``nfe`` allows, on the grid that its authors or later users recommend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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

#: ``grid(steps, schedule)``: falling times from noise to 0, as in `core.grids`.
Grid = Callable[[int, Schedule], Tensor]


def uniform(steps: int, schedule: Schedule) -> Tensor:
    """`grids.uniform` as a `Grid`: equal steps in t."""
    return grids.uniform(steps)


def quadratic(steps: int, schedule: Schedule) -> Tensor:
    """`grids.quadratic` as a `Grid`: equal steps in the root of t."""
    return grids.quadratic(steps)


karras: Grid = grids.karras
uniform_lambda: Grid = grids.uniform_lambda


def _one(start: Level, end: Level, number: int) -> int:
    return 1


def _finite(start: Level, end: Level) -> bool:
    """Whether lam is finite on both sides; a step from pure noise or to clean data takes one evaluation everywhere."""
    return math.isfinite(end.lam - start.lam)


class BudgetExceeded(ArithmeticError):
    """An adaptive solver needs more evaluations than its budget allows."""


@dataclass(frozen=True)
class Solver:
    """A sampler with its time grid and its cost per step, callable with a budget of evaluations.

    order: order of convergence; None if the result is random or a tolerance determines the steps.
    sample: ``sample(denoiser, schedule, x, times, ...)`` takes the steps.
    grid: the default time grid.
    min_nfe: the smallest budget with which the solver is the method of its name.
    nfe_of_step: ``nfe_of_step(start, end, number)``, the evaluations of a step; None for an adaptive solver, for which
        the budget is only a limit.
    """

    name: str
    source: str
    order: int | None
    stochastic: bool
    sample: Callable[..., Tensor]
    grid: Grid
    min_nfe: int = 1
    nfe_of_step: Callable[[Level, Level, int], int] | None = _one

    @property
    def adaptive(self) -> bool:
        """Whether a tolerance determines the steps."""
        return self.nfe_of_step is None

    def nfe(self, schedule: Schedule, times: Tensor) -> int:
        """Number of evaluations on a grid. Raises ValueError for an adaptive solver, whose NFE is not fixed."""
        if self.nfe_of_step is None:
            raise ValueError(f"the NFE of {self.name} depends on its tolerance; count the evaluations instead")
        return sum(self.nfe_of_step(*step, number) for number, step in enumerate(pairwise(levels(schedule, times))))

    def times(self, schedule: Schedule, nfe: int, grid: Grid | None = None) -> Tensor:
        """The finest grid within the budget ``nfe``. Raises ValueError for a budget below ``min_nfe``."""
        if nfe < self.min_nfe:
            raise ValueError(f"{self.name} needs at least {self.min_nfe} evaluations; got {nfe}")
        grid = grid or self.grid
        if self.adaptive:
            return grid(2, schedule)
        low, high = 1, nfe + 1  # steps: within the budget, beyond it
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.nfe(schedule, grid(middle, schedule)) <= nfe else (low, middle)
        return grid(low, schedule)

    def __call__(
        self,
        denoiser: Denoiser,
        schedule: Schedule,
        x: Tensor,
        nfe: int,
        *,
        grid: Grid | None = None,
        cond: Any = None,
        generator: torch.Generator | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """Sample from ``x``, noise at the grid's first time, with at most ``nfe`` evaluations of the denoiser.

        ``grid(steps, schedule)`` replaces the solver's own. Raises ValueError if the budget is too small or a
        stochastic solver has no ``generator``, and BudgetExceeded if an adaptive solver needs more evaluations.
        """
        times, options = self.times(schedule, nfe, grid), {"cond": cond, "callback": callback}
        if self.stochastic:
            options["generator"] = generator
        if self.adaptive:
            denoiser = _BudgetedDenoiser(denoiser, nfe, self.name)
        return self.sample(denoiser, schedule, x, times, **options)


class _BudgetedDenoiser:
    """A denoiser that raises BudgetExceeded after ``nfe`` evaluations."""

    def __init__(self, denoiser: Denoiser, nfe: int, name: str):
        self.denoiser, self.nfe, self.left, self.name = denoiser, nfe, nfe, name

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        if self.left == 0:
            raise BudgetExceeded(f"{self.name} needs more than {self.nfe} evaluations; raise the NFE or the tolerance")
        self.left -= 1
        return self.denoiser(x_t, t, cond)


def ancestral(eta: float, name: str, grid: Grid = uniform) -> Solver:
    """The ancestral sampler over DDIM's bridge: DDPM with ``eta = 1``, DDIM with 0 (DDIM, eq. 12 and 16)."""

    def sample(denoiser: Denoiser, schedule: Schedule, x: Tensor, times: Tensor, **options: Any) -> Tensor:
        return samplers.ancestral(denoiser, Gaussian(schedule, eta), x, times, **options)

    return Solver(name, "DDIM (Song et al. 2021), eq. 12 and 16", 1 if eta == 0 else None, eta > 0, sample, grid)


def reverse_sde(name: str = "Euler-Maruyama", grid: Grid = quadratic) -> Solver:
    """Euler-Maruyama steps of the reverse SDE (Score-SDE, eq. 6).

    The first step from pure noise, where the drift is not defined, is DDPM's.
    """

    def sample(denoiser: Denoiser, schedule: Schedule, x: Tensor, times: Tensor, **options: Any) -> Tensor:
        plain, first = samplers.reverse_sde(schedule), Gaussian(schedule).bridge

        def bridge(y: Tensor, x0: Tensor, t: Tensor, s: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
            (level,) = levels(schedule, t[None])
            return (plain if math.isfinite(level.lam) else first)(y, x0, t, s, generator=generator)

        return samplers.predictor_corrector(denoiser, schedule, x, times, bridge=bridge, corrections=0, **options)

    return Solver(name, "Score-SDE (Song et al. 2021), eq. 6", None, True, sample, grid)


def predictor_corrector(name: str = "Predictor-corrector", snr: float = 0.16, grid: Grid = quadratic) -> Solver:
    """DDPM's step and a Langevin step after it: two evaluations (Score-SDE, alg. 1 and app. F)."""

    def sample(denoiser: Denoiser, schedule: Schedule, x: Tensor, times: Tensor, **options: Any) -> Tensor:
        bridge = Gaussian(schedule).bridge
        return samplers.predictor_corrector(denoiser, schedule, x, times, bridge=bridge, snr=snr, **options)

    def nfe_of_step(start: Level, end: Level, number: int) -> int:
        return 2 if end.sigma > 0 else 1

    return Solver(name, "Score-SDE (Song et al. 2021), alg. 1", None, True, sample, grid, 3, nfe_of_step)


def edm(name: str, grid: Grid = karras, **churn: Any) -> Solver:
    """Heun's method, with churn where given (EDM, alg. 1 and 2)."""

    def nfe_of_step(start: Level, end: Level, number: int) -> int:
        return 1 + _finite(start, end)

    order, random = (None, True) if churn else (2, False)
    return Solver(
        name, "EDM (Karras et al. 2022)", order, random, partial(samplers.heun, **churn), grid, 3, nfe_of_step
    )


def pndm(order: int, name: str, grid: Grid = uniform) -> Solver:
    """S-PNDM (order 2) and F-PNDM (order 4), which start with Runge-Kutta steps (PNDM, eq. 11)."""
    extra = {2: 1, 4: 3}[order]

    def nfe_of_step(start: Level, end: Level, number: int) -> int:
        return 1 + extra * (number < order - 1 and _finite(start, end))

    sample = partial(integrators.pndm, order=order)
    return Solver(name, "PNDM (Liu et al. 2022)", 2, False, sample, grid, 2 + extra, nfe_of_step)


def singlestep(order: int, name: str, grid: Grid = uniform_lambda) -> Solver:
    """DPM-Solver-2 and -3, with ``order`` evaluations a step (DPM-Solver, alg. 1 and 2)."""

    def nfe_of_step(start: Level, end: Level, number: int) -> int:
        return order if _finite(start, end) else 1

    sample = partial(integrators.dpm_singlestep, order=order)
    return Solver(name, "DPM-Solver (Lu et al. 2022)", order, False, sample, grid, 1 + order, nfe_of_step)


def multistep(order: int, name: str, source: str, grid: Grid, **options: Any) -> Solver:
    """A linear multistep method in lam (`integrators.multistep`), with one evaluation a step."""
    gained = order + options.get("correct", False)
    return Solver(name, source, gained, False, partial(integrators.multistep, order=order, **options), grid)


def adaptive(tolerance: float = 1e-3, name: str | None = None) -> Solver:
    """Adaptive probability-flow ODE solver (Score-SDE, eq. 13); the tolerance determines the number of evaluations.

    ``tolerance`` is absolute and relative. The grid gives the start and the end (`integrators.probability_flow`).
    """

    def ends(steps: int, schedule: Schedule) -> Tensor:
        return torch.tensor([1.0, 1e-3, 0.0], dtype=torch.float64)

    sample = partial(integrators.probability_flow, rtol=tolerance, atol=tolerance)
    name = name or f"Adaptive {tolerance:g}"
    return Solver(name, "Score-SDE (Song et al. 2021), eq. 13", None, False, sample, ends, 9, None)


# The grids: DDIM and PNDM step evenly in t (DDIM app. D.2); EDM has its own (eq. 5), on which DPM-Solver++ and DEIS are
# mostly run; DPM-Solver (sec. 3.3) and UniPC (sec. 4) advise even steps in lam for small images. Score-SDE steps evenly
# in t too, a thousand times: with few steps the last of these, where g^2 / sigma^2 is largest, overshoot without bound,
# and even steps in the root of t are the remedy.
_ALL: tuple[Solver, ...] = (
    ancestral(1.0, "DDPM"),
    ancestral(0.5, "DDIM half noise"),
    ancestral(0.0, "DDIM"),
    reverse_sde(),
    predictor_corrector(),
    edm("Heun"),
    edm("Heun churned", churn=40.0, churn_range=(0.05, 50.0), noise_scale=1.003),  # EDM, table 5, ImageNet-64
    pndm(2, "S-PNDM"),
    pndm(4, "F-PNDM"),
    singlestep(2, "DPM-Solver-2"),
    singlestep(3, "DPM-Solver-3"),
    multistep(2, "2M", "DPM-Solver++ (Lu et al. 2022)", karras),
    multistep(3, "3M", "DPM-Solver++ (Lu et al. 2022)", karras),
    multistep(3, "DEIS-3", "DEIS (Zhang & Chen 2023)", karras, predict="eps"),
    multistep(2, "UniPC-2", "UniPC (Zhao et al. 2023)", uniform_lambda, correct=True),
    multistep(3, "UniPC-3", "UniPC (Zhao et al. 2023)", uniform_lambda, correct=True),
    adaptive(),
)

#: The solvers that are compared, by name.
SOLVERS: Mapping[str, Solver] = {one.name: one for one in _ALL}
