"""Degradations without noise for `core.corruptions.Cold`: each is a function of clean images and of the time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from survey_lib.core.protocols import expand

#: ``degrade(x0, t)``: images (B, C, H, W) at times () or (B,).
Degradation = Callable[[Tensor, Tensor], Tensor]


def masked(order: Tensor) -> Degradation:
    """Pixels turn to 0 one after the other, as ``order`` (H, W) says: a pixel of value v is gone from t = v on."""

    def degrade(x0: Tensor, t: Tensor) -> Tensor:
        seen = order.to(x0.device) > expand(t, x0[:, :1]).to(x0.device)
        return x0 * seen.to(x0)

    return degrade


def pixelated(levels: int) -> Degradation:
    """Means over blocks of ``2^k`` pixels, k rising from 0 to ``levels``; in between, a mixture of two neighbours."""

    def degrade(x0: Tensor, t: Tensor) -> Tensor:
        place = expand(t * levels, x0).to(x0)
        blocky = x0
        total = torch.zeros_like(x0)
        for k in range(levels + 1):
            total = total + (1 - (place - k).abs()).clamp_min(0) * blocky
            if k < levels:
                small = F.avg_pool2d(x0, 2 ** (k + 1))
                blocky = F.interpolate(small, scale_factor=2 ** (k + 1), mode="nearest")
        return total

    return degrade


def mixed_with(others: Tensor) -> Degradation:
    """``(1 - t) x0 + t others``: images fade into other images (Bansal et al. 2023)."""

    def degrade(x0: Tensor, t: Tensor) -> Tensor:
        share = expand(t, x0).to(x0)
        return (1 - share) * x0 + share * others.to(x0)

    return degrade
