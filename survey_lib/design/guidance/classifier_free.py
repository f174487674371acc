"""Guidance without a classifier: by an unconditional, a weaker, or a blurred prediction of the model itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from survey_lib.core.protocols import Denoiser, evaluate_both, expand
from survey_lib.core.schedules import Schedule
from survey_lib.design.guidance.base import Guidance, extrapolate, require_cond


@dataclass(frozen=True, eq=False)
class ClassifierFree(Guidance):
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6): ``x0 = D(null) + scale (D(cond) - D(null))``.

    By Bayes' rule the two predictions of the network differ by the gradient of an implicit classifier,
    ``D(cond) - D(null) = sigma^2 / alpha grad log p(cond | x_t)``. Their eq. 6 has ``w = scale - 1``.

    null: the network's input for "no condition": a label, a tensor that broadcasts to ``cond``, or None. A null that is
        itself a condition is a negative prompt.
    batched: evaluate both conditions in one call of 2 B examples; equal to two calls up to rounding for a denoiser that
        treats examples independently. A null of None always takes two calls.

    ``cond`` is () or (B, ...); None raises ValueError. Cost: two evaluations.
    """

    denoiser: Denoiser
    null: Any
    scale: float | Tensor
    batched: bool = True

    def parts(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> tuple[Tensor, Tensor]:
        """``D(cond)`` and its extrapolation away from ``D(null)``."""
        cond = torch.as_tensor(require_cond(cond), device=x_t.device)
        cond = cond.expand(len(x_t)) if cond.ndim == 0 else cond
        null = None if self.null is None else torch.as_tensor(self.null, device=cond.device).expand_as(cond)
        if self.batched and null is not None:
            away, towards = evaluate_both(self.denoiser, x_t, t, null, cond)
        else:
            away, towards = self.denoiser(x_t, t, null), self.denoiser(x_t, t, cond)
        return towards, extrapolate(away, towards, self.scale)


def guided(denoiser: Denoiser, null: Any, scale: float) -> Denoiser:
    """``denoiser`` under classifier-free guidance; at a scale of 1 itself, which is the same at half the cost."""
    return denoiser if scale == 1 else ClassifierFree(denoiser, null, scale)


@dataclass(frozen=True, eq=False)
class Autoguidance(Guidance):
    """Guidance by a weaker model of the same task (Karras et al. 2024): ``x0 = weaker + scale (D - weaker)``.

    Both models see the same condition, so only the errors in which the weaker model exceeds D are extrapolated, and
    diversity need not suffer. ``weaker`` is any denoiser: an earlier checkpoint, a smaller network, or D evaluated on a
    blurred ``x_t``.

    Cost: one evaluation of each.
    """

    denoiser: Denoiser
    weaker: Denoiser
    scale: float | Tensor

    def parts(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> tuple[Tensor, Tensor]:
        """``D`` and its extrapolation away from ``weaker``."""
        strong = self.denoiser(x_t, t, cond)
        return strong, extrapolate(self.weaker(x_t, t, cond), strong, self.scale)


def blur(images: Tensor, width: float = 1.0) -> Tensor:
    """Gaussian blur of ``images`` (B, C, H, W) with a standard deviation of ``width`` pixels and reflected borders."""
    if not width > 0:
        raise ValueError(f"the width of a blur must be a positive number of pixels; got {width}")
    radius = min(math.ceil(3 * width), min(images.shape[-2:]) - 1)  # reflection pads by less than the image
    x = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = (-0.5 * (x / width) ** 2).softmax(0).expand(images.shape[1], 1, 1, -1)
    padded = F.pad(images, [radius] * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel, groups=len(kernel)), kernel.mT, groups=len(kernel))


@dataclass(frozen=True, eq=False)
class SelfGuidance(Guidance):
    """Self-attention guidance without its mask (SAG, Hong et al. 2023, alg. 1): guidance by a blurred prediction.

    The prediction ``x0 = D(x_t)`` is degraded to ``low``, noised again to ``x_low = alpha low + sigma eps`` with the
    predicted eps, and D is evaluated there: ``again = D(x_low)``. Neither labels nor a second network are needed.

    * ``extrapolated="eps"``, as published: ``eps + (scale - 1) (eps - eps_low)``. Since ``x_t - x_low`` is
      ``alpha (x0 - low)``, in x0 that is ``x0 + (scale - 1) (low - again)``: away from what D *adds* to ``low``.
    * ``"x0"``: ``x0 + (scale - 1) (x0 - again)``, away from the prediction ``again`` itself.

    For a normal distribution of variance v, with ``low = b x0`` and ``c = alpha^2 v / (alpha^2 v + sigma^2)``, the
    first multiplies the prediction by ``1 - (scale - 1) (1 - b) (1 - c)``, which damps fine detail, and the second by
    ``1 + (scale - 1) (1 - b) c``, which boosts it. Their ``s`` is ``scale - 1``.

    ``degrade`` is `blur` by default. Theirs blurs only where the network's attention is high; without attention the
    whole image is blurred, which they call "blur guidance". A mask would be part of ``degrade``.

    Cost: two evaluations.
    """

    denoiser: Denoiser
    schedule: Schedule
    scale: float | Tensor
    degrade: Callable[[Tensor], Tensor] = blur
    extrapolated: Literal["eps", "x0"] = "eps"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.extrapolated not in ("eps", "x0"):
            raise ValueError(f'extrapolated must be "eps" or "x0"; got {self.extrapolated!r}')

    def parts(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> tuple[Tensor, Tensor]:
        """``D(x_t)`` and its extrapolation away from ``D(x_low)``."""
        x0 = self.denoiser(x_t, t, cond)
        low = self.degrade(x0)
        alpha, _ = self.schedule.scales(t)
        again = self.denoiser(x_t - expand(alpha, x_t) * (x0 - low), t, cond)
        weaker = x0 - low + again if self.extrapolated == "eps" else again  # in eps, written as a prediction of x0
        return x0, extrapolate(weaker, x0, self.scale)
