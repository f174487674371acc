"""Two scales one after the other: a small picture is drawn first, and a large one is drawn to fit it.

`Cascade` does so with denoisers that see the small picture (CDM, Ho et al. 2022), `Switched` with denoisers that do
not: one trajectory begins small, and goes on at full size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from survey_lib.core import grids
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.heads import Preconditioned
from survey_lib.core.integrators import multistep
from survey_lib.core.protocols import Denoiser
from survey_lib.core.schedules import Schedule
from survey_lib.design.guidance.classifier_free import guided
from survey_lib.design.latent.pipeline import walk
from survey_lib.design.pyramid.stages import Stage, enlarge, lifted, renoised, sample_pyramid


class Pyramid(Protocol):
    """Two scales of images: a coarse one, and a fine one with twice the side."""

    def encode(self, x: Tensor) -> list[Tensor]:
        """Coarse and fine scale of images."""

    def snap(self, z: Tensor, scale: int) -> Tensor:
        """Replace what a stage has drawn by what it hands on, such as the nearest codes."""

    def decode(self, coarse: Tensor, fine: Tensor | None = None) -> Tensor:
        """Images of both scales, or of the coarse one alone."""


def pack(coarse: Tensor, fine: Tensor) -> Tensor:
    """Both scales in one tensor: (B, d, h, w) and (B, d, 2 h, 2 w) -> (B, 5 d, h, w)."""
    return torch.cat([coarse, F.pixel_unshuffle(fine, 2)], dim=1)


def unpack(packed: Tensor) -> tuple[Tensor, Tensor]:
    """The coarse and the fine scale that `pack` has put together."""
    dims = packed.shape[1] // 5
    return packed[:, :dims], F.pixel_shuffle(packed[:, dims:], 2)


class PooledPyramid(nn.Module):
    """A `Pyramid` without learning: what an autoencoder of one scale encodes, and its means over 2 x 2 places.

    ``unit`` multiplies the means, so that both scales have about the same variance.
    """

    def __init__(self, autoencoder: nn.Module, unit: float = 1.2):
        super().__init__()
        self.autoencoder, self.unit = autoencoder, unit

    def encode(self, x: Tensor) -> list[Tensor]:
        """Coarse and fine latents of images."""
        fine = self.autoencoder.encode(x)
        return [self.unit * F.avg_pool2d(fine, 2), fine]

    def snap(self, z: Tensor, scale: int) -> Tensor:
        """Return the latents unchanged, for this pyramid has no codes."""
        return z

    def decode(self, coarse: Tensor, fine: Tensor | None = None) -> Tensor:
        """Images of the fine latents, or of the coarse ones enlarged."""
        return self.autoencoder.decode(enlarge(coarse / self.unit) if fine is None else fine)


@dataclass(frozen=True, eq=False)
class OneScale:
    """The denoiser of one scale, with ``coarse`` as its plan: ``cond`` goes on to a `PyramidUNet`.

    A batch that is a multiple of the plans, as guidance makes it, repeats them.
    """

    denoiser: Denoiser
    scale: int
    coarse: Tensor | None = None

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        plan = self.coarse
        if plan is not None and len(plan) != len(x_t):
            plan = plan.repeat(len(x_t) // len(plan), 1, 1, 1)
        return self.denoiser(x_t, t, (self.scale, plan, cond))


@dataclass(frozen=True, eq=False)
class Cascade:
    """Images from a condition: two `Stage` s of guided evaluations, one decoding (CDM).

    denoiser: of both scales, with a `PyramidUNet`.
    null, scale: of classifier-free guidance at both scales, as in `LatentDiffusion`.
    steps: of the coarse and of the fine scale; a coarse evaluation costs about a quarter of a fine one.
    eta, generator: of the steps at the coarse and at the fine scale, see `walk`.
    """

    autoencoder: Pyramid
    denoiser: Preconditioned
    null: float = 0
    scale: float = 2.0
    steps: tuple[int, int] = (16, 16)
    eta: tuple[float | None, float | None] = (None, None)
    generator: torch.Generator | None = None

    def stages(self, noise: Tensor) -> list[Stage]:
        """Both scales as stages that begin with ``noise`` (B, 5 dims, h, w), as `pack` orders it."""
        return [self._stage(scale, part) for scale, part in enumerate(unpack(noise))]

    def _stage(self, scale: int, noise: Tensor) -> Stage:
        denoiser, schedule, eta = self.denoiser, self.denoiser.schedule, self.eta[scale]
        times = grids.karras(self.steps[scale], schedule)
        sigma = schedule.scales(times[0])[1].to(noise)

        def sample(x: Tensor, told: tuple[Tensor | None, Any], generator: torch.Generator | None) -> Tensor:
            coarse, cond = told
            one = guided(OneScale(denoiser, scale, coarse), self.null, self.scale)
            z = walk(one, schedule, x, times, cond=cond, eta=eta, generator=generator)
            return self.autoencoder.snap(z, scale)

        return Stage(
            sample,
            begin=lambda coarse, generator: sigma * noise,
            told=lambda coarse, cond, generator: (coarse, cond),
        )

    def latents(self, noise: Tensor, cond: Any = None) -> list[Tensor]:
        """Coarse and fine scale, (B, dims, h, w) and (B, dims, 2 h, 2 w)."""
        return sample_pyramid(self.stages(noise), cond, generator=self.generator)

    def sample(self, noise: Tensor, cond: Any = None) -> Tensor:
        """Images (B, C, H, W) from standard normal noise (B, 5 dims, h, w) and a condition (B, ...)."""
        return self.autoencoder.decode(*self.latents(noise, cond))

    def finish(self, coarse: Tensor, noise: Tensor, cond: Any = None) -> Tensor:
        """Images for a given coarse scale: the fine scale alone is drawn, from normal noise (B, dims, 2 h, 2 w)."""
        stage = self._stage(1, noise)
        fine = stage.sample(stage.begin(coarse, None), (coarse, cond), self.generator)
        return self.autoencoder.decode(coarse, fine)


@dataclass(frozen=True, eq=False)
class Switched:
    """Images from one trajectory that begins at half the size: subspace diffusion, or a pyramid that noises again.

    ``lifted``: at the noise level ``level`` (sigma / alpha) of the large image the small one gets details of noise and
    goes on (Jing et al. 2022). Else the small image is finished, enlarged, noised to ``level``, and drawn on from there
    (PDDPM, Ryu & Ye 2022).

    denoiser: of both sizes, told no plan. deviation: of the details of real images, for ``lifted``.
    generator: of the noise that the switch adds.
    """

    autoencoder: PooledPyramid
    denoiser: Preconditioned
    generator: torch.Generator
    lifted: bool = True
    level: float = 1.0
    deviation: float = 0.0
    null: float = 0
    scale: float = 2.0
    steps: tuple[int, int] = (16, 16)

    def stages(self, noise: Tensor) -> list[Stage]:
        """The small and the large size; the first begins with ``noise`` (B, dims, h, w)."""
        schedule, unit = self.denoiser.schedule, self.autoencoder.unit
        switch = schedule.time_at(self.level)
        if self.lifted:
            end, begin = pooled_time(schedule, switch, unit), lifted(schedule, switch, self.deviation)
            factor = float(2 * schedule.scales(switch)[0] / schedule.scales(end)[0]) / unit
        else:
            end, begin, factor = torch.zeros(()), renoised(Gaussian(schedule), switch), 1 / unit
        first = _grid(self.steps[0], schedule, end)
        second = grids.karras(self.steps[1], schedule, sigma_max=self.level)
        start = schedule.scales(first[0])[1].to(noise) * noise

        def draw(scale: int, times: Tensor, factor: float = 1.0):
            one = guided(OneScale(self.denoiser, scale), self.null, self.scale)
            return lambda x, cond, generator: factor * multistep(one, schedule, x, times, cond=cond)

        return [Stage(draw(0, first, factor), lambda coarse, generator: start), Stage(draw(1, second), begin)]

    def sample(self, noise: Tensor, cond: Any = None) -> Tensor:
        """Images (B, C, H, W) from standard normal noise (B, 5 dims, h, w), as `pack` orders it, and a condition."""
        made = sample_pyramid(self.stages(unpack(noise)[0]), cond, generator=self.generator)
        return self.autoencoder.decode(*made)


def pooled_time(schedule: Schedule, t: Tensor | float, unit: float = 1.0) -> Tensor:
    """The time at which a small image, times ``unit``, is as noisy as the means of a large one at t over 2 x 2 pixels.

    The mean of four noises has half their deviation, so ``lam`` grows by log 2, less the logarithm of ``unit``. f-DM
    (Gu et al. 2022) rescales its noise likewise.
    """
    return schedule.time(schedule.lam(t) + math.log(2 / unit))


def _grid(steps: int, schedule: Schedule, end: Tensor) -> Tensor:
    """The grid of `karras` from noise to the time ``end``, 0 or later, in ``steps`` steps."""
    if end == 0:
        return grids.karras(steps, schedule)
    return grids.karras(steps + 1, schedule, sigma_min=math.exp(-float(schedule.lam(end))))[:-1]
