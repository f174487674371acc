"""diffusers' schedulers over a denoiser of the course, so that only the sampler differs.

A scheduler is given what it may have at its best: the denoiser's own answer as ``prediction_type="sample"`` (EDM's
ask for the network behind the preconditioning, which is undone exactly), asked at the scheduler's own noise level
``sigmas[i]``. Its ``timesteps`` round that level to a whole step of the chain, for which its next formula does not
know; a reader's loop pays for this, ours does not charge it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

SIGMA_DATA = 0.5
BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
EDM = (EDMEulerScheduler, EDMDPMSolverMultistepScheduler)

#: ``answer(x, u)``: E[x0] where ``x = x0 + u noise``.
Answer = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Scheduler:
    """A class of diffusers' with its settings; call it to draw with N evaluations."""

    kind: type
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        settings = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.kind.__name__.removesuffix('Scheduler')}({settings})"

    @property
    def start(self) -> float:
        """The noise it starts from, ``sigma / alpha``: 157 for DDPM's chain, 80 for EDM."""
        return self._made(10).sigmas[0].item()

    def _made(self, steps: int) -> Any:
        chain = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "prediction_type": "sample"}
        scheduler = self.kind(**({"sigma_data": SIGMA_DATA} if self.kind in EDM else chain), **self.options)
        scheduler.set_timesteps(steps)
        scheduler.set_begin_index(0)  # else it looks its place up by the timestep, and rounding makes two the same
        return scheduler

    def __call__(self, answer: Answer, noise: Tensor, evaluations: int) -> Tensor:
        """From unit ``noise`` to data. Heun's steps take 2 evaluations and the last takes 1: it gets one too many."""
        heun = self.kind is HeunDiscreteScheduler
        scheduler = self._made(evaluations // 2 + 1 if heun else evaluations)
        x = noise * float(scheduler.init_noise_sigma)
        for timestep in scheduler.timesteps:
            u = scheduler.sigmas[scheduler.step_index or 0].item()
            alpha = 1.0 if heun or self.kind in EDM else 1 / math.sqrt(1 + u**2)  # these two keep x / alpha
            told = answer(x / alpha, u)
            if self.kind in EDM:
                scheduler.scale_model_input(x, timestep)  # sets a flag it insists on
                power = u**2 + SIGMA_DATA**2
                told = (told - SIGMA_DATA**2 / power * x) * (math.sqrt(power) / (u * SIGMA_DATA))
            x = scheduler.step(told, timestep, x).prev_sample
        return x


def documented() -> list[Scheduler]:
    """Six classes in the settings of their documentation for solver, order, grid and end.

    Left out: other classes; ``predict_x0=False``, thresholding and stochastic variants; ``lower_order_final=False`` and
    ``bh1`` for UniPC that ends at clean data (both divide by an infinite step: NaN or a singular matrix); and
    ``leading`` steps, which do not start at the noisiest.
    """
    karras, exponential, beta = ({f"use_{name}_sigmas": True} for name in ("karras", "exponential", "beta"))
    trailing, linspace = ({"timestep_spacing": name} for name in ("trailing", "linspace"))
    grids = [karras, exponential, beta, trailing, linspace]
    lu = {"use_lu_lambdas": True}
    edm = [{"sigma_schedule": name} for name in ("karras", "exponential")]
    second = [{"solver_order": 2, "solver_type": name} for name in ("midpoint", "heun")]
    orders = [{"solver_order": 2}, {"solver_order": 3}]
    kinds = [*second, orders[1]]
    early = {"lower_order_final": True, "euler_at_final": True}
    return [
        *(Scheduler(DPMSolverMultistepScheduler, kind | grid) for kind in kinds for grid in [*grids, lu]),
        *(Scheduler(DPMSolverMultistepScheduler, order | grid | early) for order in orders for grid in (trailing, lu)),
        *(Scheduler(UniPCMultistepScheduler, order | grid) for order in orders for grid in grids),
        *(Scheduler(UniPCMultistepScheduler, order | linspace | {"final_sigmas_type": "sigma_min", "solver_type": name})
          for order in orders for name in ("bh1", "bh2")),
        *(Scheduler(DEISMultistepScheduler, order | grid) for order in orders for grid in grids),
        *(Scheduler(EDMDPMSolverMultistepScheduler, kind | grid) for kind in kinds for grid in edm),
        *(Scheduler(EDMEulerScheduler, grid) for grid in edm),
        *(Scheduler(HeunDiscreteScheduler, grid) for grid in grids),
    ]  # fmt: skip
