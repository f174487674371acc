"""Latent diffusion end to end (LDM, Rombach et al. 2022): encode, diffuse in the smaller space, decode once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from survey_lib.core import grids
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.heads import Preconditioned
from survey_lib.core.integrators import multistep
from survey_lib.core.protocols import BridgeOverride, Corruption, Denoiser
from survey_lib.core.samplers import ancestral
from survey_lib.core.schedules import Schedule
from survey_lib.design.guidance.classifier_free import guided
from survey_lib.nets.autoencoder import KLAutoencoder


@dataclass(frozen=True, eq=False)
class LatentDiffusion:
    """Images from a condition: noise in latents, ``steps`` guided evaluations of the denoiser, one decoding.

    null: the denoiser's input for "no condition", a number that broadcasts to ``cond``; see `ClassifierFree`.
    scale: of classifier-free guidance; at 1 the denoiser is evaluated once a step, else twice.
    eta: of the steps of `sample` and `edit`, see `walk`; those of `inpaint` are DDPM's.
    generator: of the new noise in `sample`, for ``eta`` > 0.
    """

    autoencoder: KLAutoencoder
    denoiser: Preconditioned
    null: float = 0
    scale: float = 2.0
    steps: int = 20
    eta: float | None = None
    generator: torch.Generator | None = None

    @property
    def guided(self) -> Denoiser:
        """The denoiser under guidance."""
        return guided(self.denoiser, self.null, self.scale)

    @property
    def times(self) -> Tensor:
        """The grid (EDM, eq. 5)."""
        return grids.karras(self.steps, self.denoiser.schedule)

    def sample(self, noise: Tensor, cond: Any = None) -> Tensor:
        """Images (B, C, H, W) from standard normal noise (B, dims, h, w) and a condition (B, ...)."""
        sigma = self.denoiser.schedule.scales(self.times[0])[1]
        return self._drawn(sigma.to(noise) * noise, self.times, cond, self.generator)

    def edit(self, images: Tensor, cond: Any, strength: float, *, generator: torch.Generator) -> Tensor:
        """SDEdit (Meng et al. 2022): add the noise of the grid's part ``strength``, and sample from there."""
        times = self.times[-1 - max(1, round(strength * self.steps)) :]
        z = Gaussian(self.denoiser.schedule).corrupt(self.autoencoder.encode(images), times[0], generator=generator)
        return self._drawn(z, times, cond, generator)

    def inpaint(self, images: Tensor, mask: Tensor, cond: Any, *, generator: torch.Generator) -> Tensor:
        """Draw the part of the images where ``mask`` (B, 1, H, W) is 1 again, and keep the latents of the rest."""
        z = self.autoencoder.encode(images)
        kept = F.adaptive_max_pool2d(mask, z.shape[-2:]) == 0
        corruption = Known(Gaussian(self.denoiser.schedule), z, kept)
        x = corruption.prior(z.shape, self.times[0], generator=generator)
        return self.autoencoder.decode(
            ancestral(self.guided, corruption, x, self.times, cond=cond, generator=generator)
        )

    def _drawn(self, z: Tensor, times: Tensor, cond: Any, generator: torch.Generator | None) -> Tensor:
        how = {"cond": cond, "eta": self.eta, "generator": generator}
        return self.autoencoder.decode(walk(self.guided, self.denoiser.schedule, z, times, **how))


def walk(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    *,
    cond: Any = None,
    eta: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Clean data from a state at ``times[0]``, by DPM-Solver++(2M) or the bridges of `Gaussian`.

    eta: fraction of new noise in a step, 0 (DDIM) to 1 (DDPM), from ``generator``; None is 2M, which adds none.
    """
    if eta is None:
        return multistep(denoiser, schedule, x, times, cond=cond)
    return ancestral(denoiser, Gaussian(schedule, eta), x, times, cond=cond, generator=generator)


@dataclass(frozen=True, eq=False)
class Known(BridgeOverride):
    """A corruption whose bridge puts in what is known (RePaint, Lugmayr et al. 2022, eq. 8).

    known: (B, ...), the clean data. kept: where they are known, bools that broadcast to them.
    """

    corruption: Corruption
    known: Tensor
    kept: Tensor

    def bridge(self, x_t: Tensor, x0: Tensor, t: Any, s: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_s ~ q(x_s | known)`` where data are known, the bridge of ``corruption`` elsewhere."""
        drawn = self.corruption.bridge(x_t, x0, t, s, generator=generator)
        return torch.where(self.kept, self.corruption.corrupt(self.known, s, generator=generator), drawn)
