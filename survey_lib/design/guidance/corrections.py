"""Corrections of strong guidance: an interval of noise levels, rescaled contrast, dynamic thresholding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.protocols import Denoiser, expand
from survey_lib.core.schedules import Schedule
from survey_lib.design.guidance.base import Guidance


@dataclass(frozen=True, eq=False)
class Interval:
    """Guidance limited to ``low < sigma / alpha <= high`` (Kynkäänniemi et al. 2024); ``plain`` elsewhere.

    guided, plain: the guided denoiser, and the conditional denoiser without guidance.
    schedule: the schedule of t.
    low, high: bounds in EDM's sigma, that is ``-log high <= lam < -log low``. ``low = 0`` and ``high = infinity`` leave
        that side open, pure noise included.

    Cost: that of ``guided`` inside, one evaluation outside. A batch with times on both sides costs both.
    """

    guided: Denoiser
    plain: Denoiser
    schedule: Schedule
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise ValueError(f"an interval of sigma / alpha must have 0 <= low < high; got {self.low} to {self.high}")

    def inside(self, t: Tensor | float) -> Tensor:
        """Whether t lies in the interval: bool in the shape of t."""
        alpha, sigma = self.schedule.scales(t)
        noise = sigma / alpha
        return (noise > self.low) & (noise <= self.high)

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        on = self.inside(t)
        if on.all():
            return self.guided(x_t, t, cond)
        if not on.any():
            return self.plain(x_t, t, cond)
        on = on.to(x_t.device).reshape(-1, *[1] * (x_t.ndim - 1))
        return torch.where(on, self.guided(x_t, t, cond), self.plain(x_t, t, cond))


@dataclass(frozen=True, eq=False)
class Rescaled:
    """Guidance rescaled to the contrast of its reference prediction (Lin et al. 2024, sec. 3.4).

    ``x0 = (mix std(reference) / std(guided) + 1 - mix) guided``, with the standard deviation over all dimensions of an
    example. The paper rescales the network's output v and recommends ``mix = 0.7``; here x0 is rescaled. ``guided`` is
    any `Guidance`, so its reference costs nothing. A prediction without contrast is returned unchanged. Apply
    `Interval` and `DynamicThreshold` outside of this, not inside.
    """

    guided: Guidance
    mix: float = 0.7

    def __post_init__(self) -> None:
        if not isinstance(self.guided, Guidance):
            raise TypeError(
                "Rescaled needs a Guidance, which has parts (ClassifierFree, Classifier, Autoguidance); "
                f"got {type(self.guided).__name__}"
            )
        if not 0 <= self.mix <= 1:
            raise ValueError(f"mix must lie in [0, 1]: 0 leaves the contrast, 1 restores it; got {self.mix}")

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        reference, guided = self.guided.parts(x_t, t, cond)
        wanted, found = (part.flatten(1).std(1, correction=0) for part in (reference, guided))
        ratio = torch.where(found > 0, wanted / found, 1)
        return expand(torch.lerp(torch.ones_like(ratio), ratio, self.mix), guided) * guided


@dataclass(frozen=True, eq=False)
class DynamicThreshold:
    """Dynamic thresholding (Imagen, Saharia et al. 2022, sec. 2.3): ``clamp(x0, -s, s) / s``, in [-1, 1].

    s is the given percentile (99.5 in the paper) of the absolute values of an example, at least 1. A prediction in
    range is unchanged; otherwise the whole image is scaled down instead of being saturated. ``percentile = 0`` gives
    the static threshold ``clamp(x0, -1, 1)`` for every image with a value in range; 100 divides by the largest value
    and clips nothing. For data that fill [-1, 1]: images, not latents. No further cost.
    """

    denoiser: Denoiser
    percentile: float = 99.5

    def __post_init__(self) -> None:
        if not 0 <= self.percentile <= 100:
            raise ValueError(f"percentile must lie in [0, 100], where 0 is the static threshold; got {self.percentile}")

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        x0 = self.denoiser(x_t, t, cond)
        size = x0.flatten(1).abs()
        size = size if size.dtype == torch.float64 else size.float()  # torch has no quantile in half precision
        s = expand(size.quantile(self.percentile / 100, dim=1).clamp_min(1), x0)
        return torch.minimum(torch.maximum(x0, -s), s) / s
