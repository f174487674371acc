"""Bits per dimension of images by the probability flow of a denoiser (Score-SDE, sec. 4.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from survey_lib.core.integrators import bits_per_dim, log_likelihood
from survey_lib.core.protocols import Denoiser
from survey_lib.core.schedules import Schedule

#: Spacing of the 256 grey values of images in [-1, 1].
GREY = 2 / 255


def dequantise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform dequantisation of ``images`` in [-1, 1]: add noise of the width of one grey value, to give a density."""
    noise = torch.rand(images.shape, generator=generator, device=generator.device, dtype=images.dtype)
    return images + (noise.to(images.device) - 0.5) * GREY


def image_bits(
    denoiser: Denoiser,
    schedule: Schedule,
    images: Tensor,
    *,
    noisiest: float = -3.9,
    cleanest: float = 6.0,
    tolerance: float = 1e-3,
    generator: torch.Generator,
) -> Tensor:
    """Bits per dimension of dequantised ``images`` (B, C, H, W): (B,), with one random probe from ``generator``.

    The model is the probability flow from a normal distribution at ``lam = noisiest`` to ``lam = cleanest``. It is a
    proper density, and the same under every schedule that has both levels. Exact up to ``tolerance``; unbiased in the
    probe.
    """
    t_min, t_max = (schedule.time(lam).item() for lam in (cleanest, noisiest))
    nats = log_likelihood(
        denoiser, schedule, images, rtol=tolerance, atol=tolerance, t_min=t_min, t_max=t_max, generator=generator
    )
    return bits_per_dim(nats, images[0].numel(), width=256 * GREY)
