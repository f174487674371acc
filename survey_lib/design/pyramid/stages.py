"""Stages of a pyramid: samplers one after the other, each at its own size.

Every stage is an ordinary sampler. The methods differ in how it begins, and in what its denoiser is told:

* a cascade (CDM, Ho et al. 2022) begins with noise, and tells the denoiser the smaller image: `noise`, `enlarged`;
* a pyramid (PDDPM, Ryu & Ye 2022) noises the enlarged image again and goes on from there: `renoised`;
* subspace diffusion (Jing et al. 2022) takes the noised coarse numbers into the larger space: `lifted`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from survey_lib.core.protocols import Corruption, normal_like
from survey_lib.core.schedules import Schedule
from survey_lib.design.pyramid.wavelets import unhaar

#: ``begin(coarse, generator)``: the state at a stage's first time; ``coarse`` is what the stage before made, or None.
Begin = Callable[[Tensor | None, torch.Generator | None], Tensor]
#: ``told(coarse, cond, generator)``: what the denoiser of a stage is told.
Told = Callable[[Tensor | None, Any, torch.Generator | None], Any]


def _condition_alone(coarse: Tensor | None, cond: Any, generator: torch.Generator | None) -> Any:
    return cond


@dataclass(frozen=True, eq=False)
class Stage:
    """One size of a pyramid: ``sample(x, cond, generator)`` from the state ``x`` that ``begin`` makes.

    What ``sample`` returns is handed to the next stage: an image, or a state at the time at which that stage begins.
    """

    sample: Callable[[Tensor, Any, torch.Generator | None], Tensor]
    begin: Begin
    told: Told = _condition_alone


def sample_pyramid(
    stages: Sequence[Stage], cond: Any = None, *, generator: torch.Generator | None = None
) -> list[Tensor]:
    """Run the stages from the coarsest to the finest; return what each made. Raises ValueError without a stage."""
    if not stages:
        raise ValueError("a pyramid needs at least one stage")
    made: list[Tensor] = []
    for stage in stages:
        coarse = made[-1] if made else None
        x = stage.begin(coarse, generator)
        made.append(stage.sample(x, stage.told(coarse, cond, generator), generator))
    return made


def enlarge(images: Tensor) -> Tensor:
    """Images twice as large, every pixel a square of four: (B, C, H, W) -> (B, C, 2 H, 2 W)."""
    return F.interpolate(images, scale_factor=2.0, mode="nearest")


def noise(
    corruption: Corruption, shape: Sequence[int], t: Tensor | float = 1.0, dtype: torch.dtype | None = None
) -> Begin:
    """Begin with the prior of ``corruption`` at t: images of ``shape`` (B, C, H, W)."""
    return lambda coarse, generator: corruption.prior(tuple(shape), t, generator=generator, dtype=dtype)


def renoised(corruption: Corruption, t: Tensor | float) -> Begin:
    """Begin with the enlarged image, noised to t (PDDPM): at much noise nobody sees that it was small."""
    return lambda coarse, generator: corruption.corrupt(enlarge(coarse), t, generator=generator)


def lifted(schedule: Schedule, t: Tensor | float, deviation: Tensor | float = 0.0) -> Begin:
    """Begin with the noised coarse numbers of `haar` at t, and the details that belong to them (Jing et al. 2022).

    Details are drawn from ``N(0, alpha^2 deviation^2 + sigma^2)``: their law at t if they are normal with this
    ``deviation`` and independent of what is coarse. ``deviation`` broadcasts to (B, 3, C, H, W).
    """

    def begin(coarse: Tensor, generator: torch.Generator | None) -> Tensor:
        alpha, sigma = (part.to(coarse) for part in schedule.scales(t))
        held = alpha * torch.as_tensor(deviation, dtype=coarse.dtype, device=coarse.device)
        spread = (held**2 + sigma**2).sqrt()
        batch, channels, height, width = coarse.shape
        details = normal_like(coarse.new_zeros(batch, 3, channels, height, width), generator)
        return unhaar(torch.cat([coarse[:, None], spread * details], dim=1).transpose(1, 2).flatten(1, 2))

    return begin


def enlarged(corruption: Corruption, t: Tensor | float) -> Told:
    """Tell the denoiser the enlarged image, noised to t (conditioning augmentation, CDM); t = 0 for none."""
    return lambda coarse, cond, generator: corruption.corrupt(enlarge(coarse), t, generator=generator)
