"""What a picture is worth: bits a grey value, by the probability flow of a network (Score-SDE, sec. 4.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from survey_lib.core.integrators import bits_per_dim, log_likelihood
from survey_lib.core.protocols import Denoiser
from survey_lib.core.schedules import Schedule

#: Grey values of images in [-1, 1] lie so far apart.
GREY = 2 / 255


def dequantise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each value of ``images`` in [-1, 1] moved evenly within its own step of grey: a density, no atoms."""
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
    """Bits a dimension of dequantised ``images`` (B, C, H, W): (B,), with one random probe from ``generator``.

    The model is the flow from a bell at ``lam = noisiest`` to ``cleanest``, a proper density under every schedule that
    reaches both, and the same under all of them. Exact up to ``tolerance``; unbiased in the probe.
    """
    t_min, t_max = (schedule.time(lam).item() for lam in (cleanest, noisiest))
    nats = log_likelihood(
        denoiser, schedule, images, rtol=tolerance, atol=tolerance, t_min=t_min, t_max=t_max, generator=generator
    )
    return bits_per_dim(nats, images[0].numel(), width=256 * GREY)
