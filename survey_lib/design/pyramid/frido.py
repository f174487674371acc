"""Frido end to end (Fan et al. 2022): latents at two scales, denoised coarse to fine by one network, decoded once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from survey_lib.core import grids
from survey_lib.core.heads import Preconditioned
from survey_lib.core.integrators import multistep
from survey_lib.core.protocols import Denoiser
from survey_lib.design.guidance.classifier_free import ClassifierFree
from survey_lib.design.pyramid.stages import Stage, sample_pyramid
from survey_lib.nets.autoencoder import KLAutoencoder
from survey_lib.nets.pyramid import PyramidAutoencoder


def pack(coarse: Tensor, fine: Tensor) -> Tensor:
    """Both scales in one tensor: (B, d, h, w) and (B, d, 2 h, 2 w) -> (B, 5 d, h, w)."""
    return torch.cat([coarse, F.pixel_unshuffle(fine, 2)], dim=1)


def unpack(packed: Tensor) -> tuple[Tensor, Tensor]:
    """The coarse and the fine scale that `pack` has put together."""
    dims = packed.shape[1] // 5
    return packed[:, :dims], F.pixel_shuffle(packed[:, dims:], 2)


class PooledPyramid:
    """Two scales without learning: fine latents of an autoencoder of one scale, and their means over 2 x 2 places.

    It stands where a `PyramidAutoencoder` stands. ``unit`` makes the coarse scale as large as the fine one.
    """

    def __init__(self, autoencoder: KLAutoencoder, unit: float = 1.2):
        self.autoencoder, self.unit, self.dims = autoencoder, unit, autoencoder.dims

    def to(self, *arguments: Any, **options: Any) -> PooledPyramid:
        """Move the autoencoder, in place."""
        self.autoencoder.to(*arguments, **options)
        return self

    def encode(self, x: Tensor) -> list[Tensor]:
        """Coarse and fine latents of images."""
        fine = self.autoencoder.encode(x)
        return [self.unit * F.avg_pool2d(fine, 2), fine]

    def snap(self, z: Tensor, scale: int) -> Tensor:
        """The latents themselves: there are no codes."""
        return z

    def decode(self, coarse: Tensor, fine: Tensor | None = None) -> Tensor:
        """Images of the fine latents, or of the coarse ones enlarged."""
        return self.autoencoder.decode(F.interpolate(coarse / self.unit, scale_factor=2.0) if fine is None else fine)


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
class Frido:
    """Images from a condition: two `Stage` s of guided evaluations, one decoding.

    denoiser: of both scales, with a `PyramidUNet`.
    null, scale: of classifier-free guidance at both scales, as in `LatentDiffusion`.
    steps: of the coarse and of the fine scale; a coarse evaluation costs about a quarter of a fine one.
    """

    autoencoder: PyramidAutoencoder | PooledPyramid
    denoiser: Preconditioned
    null: float = 0
    scale: float = 2.0
    steps: tuple[int, int] = (16, 16)

    def stages(self, noise: Tensor) -> list[Stage]:
        """Both scales as stages that begin with ``noise`` (B, 5 dims, h, w), as `pack` orders it."""
        return [self._stage(scale, part) for scale, part in enumerate(unpack(noise))]

    def _stage(self, scale: int, noise: Tensor) -> Stage:
        denoiser = self.denoiser
        times = grids.karras(self.steps[scale], denoiser.schedule)
        sigma = denoiser.schedule.scales(times[0])[1].to(noise)

        def sample(x: Tensor, told: tuple[Tensor | None, Any], generator: torch.Generator | None) -> Tensor:
            coarse, cond = told
            alone = OneScale(denoiser, scale, coarse)
            guided = alone if self.scale == 1 else ClassifierFree(alone, self.null, self.scale)
            z = multistep(guided, denoiser.schedule, x, times, cond=cond)
            return self.autoencoder.snap(z, scale)

        return Stage(
            sample,
            begin=lambda coarse, generator: sigma * noise,
            told=lambda coarse, cond, generator: (coarse, cond),
        )

    def latents(self, noise: Tensor, cond: Any = None) -> list[Tensor]:
        """Coarse and fine codes, (B, dims, h, w) and (B, dims, 2 h, 2 w), in normalised units."""
        return sample_pyramid(self.stages(noise), cond)

    def sample(self, noise: Tensor, cond: Any = None) -> Tensor:
        """Images (B, C, H, W) from standard normal noise (B, 5 dims, h, w) and a condition (B, ...)."""
        return self.autoencoder.decode(*self.latents(noise, cond))

    def finish(self, coarse: Tensor, noise: Tensor, cond: Any = None) -> Tensor:
        """Images from given coarse codes: the fine scale alone is drawn, from normal noise (B, dims, 2 h, 2 w)."""
        stage = self._stage(1, noise)
        fine = stage.sample(stage.begin(coarse, None), (coarse, cond), None)
        return self.autoencoder.decode(coarse, fine)
