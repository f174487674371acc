"""Bits per dimension of images, by the probability flow of a network (Score-SDE, sec. 4.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from survey_lib.core.likelihood import bits_per_dim, log_likelihood
from survey_lib.core.losses import BYTE_STEP
from survey_lib.core.protocols import Denoiser
from survey_lib.core.schedules import Schedule


def dequantise(images: Tensor, generator: torch.Generator) -> Tensor:
    """``images`` in [-1, 1] with uniform noise of one grey step: samples of a density instead of 256 values."""
    noise = torch.rand(images.shape, generator=generator, device=generator.device, dtype=images.dtype)
    return images + (noise.to(images.device) - 0.5) * BYTE_STEP


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

    The model is the flow from ``N(0, sigma^2 I)`` at ``lam = noisiest`` to ``cleanest``: a proper density, the same
    under every schedule that reaches both. Exact up to ``tolerance``; unbiased in the probe.
    """
    t_min, t_max = (schedule.time(lam).item() for lam in (cleanest, noisiest))
    nats = log_likelihood(
        denoiser, schedule, images, rtol=tolerance, atol=tolerance, t_min=t_min, t_max=t_max, generator=generator
    )
    return bits_per_dim(-nats, images[0].numel(), bin_width=BYTE_STEP)
