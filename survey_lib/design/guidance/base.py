"""The scale of guidance, and the base class of guided denoisers.

All methods start from Bayes' rule for the noised data, ``grad log p(x_t | y) = grad log p(x_t) + grad log p(y | x_t)``,
and multiply the last term by a ``scale`` w. **The scale means the same everywhere**: 0 is the reference (the
unconditional distribution, or the weaker model), 1 is the conditional distribution or the model itself, and above 1 the
difference is exaggerated. Ho & Salimans' w is ``scale - 1``; the w of GLIDE, Imagen and Karras et al. is ``scale``. It
is a number, or a tensor (B,) with one scale for each example. At a given ``x_t`` x0, eps, v and the score are affine in
one another, and the weights ``1 - w`` and ``w`` add up to 1: extrapolating any of them gives the same result. Here x0
is extrapolated.

Guidance does *not* sample the tilted distribution ``p(x0) p(y | x0)^w``. At each t the guided score is the tilted score
of the noised distribution; a sampler would need the score of the noised tilted distribution, and noising does not
commute with powers. For two normal distributions of standard deviations a (given y) and b, unbounded noise and the
probability flow, the guided standard deviation is ``a^w b^(1 - w)``: its precision is the geometric mean of the two
precisions, while the precision of the tilted distribution is their arithmetic mean ``w / a^2 + (1 - w) / b^2``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.checks import holds
from survey_lib.core.protocols import expand


class Guidance(ABC):
    """A denoiser that extrapolates the prediction of another one: `parts` returns both, a call the extrapolated one."""

    scale: float | Tensor

    def __post_init__(self) -> None:
        scale = self.scale
        fits = scale.ndim < 2 and holds(scale.isfinite()) if isinstance(scale, Tensor) else math.isfinite(scale)
        if not fits:
            got = f"a tensor {tuple(scale.shape)}" if isinstance(scale, Tensor) else scale
            raise ValueError(f"scale must be a finite number, or a finite tensor (B,); got {got}")

    @abstractmethod
    def parts(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> tuple[Tensor, Tensor]:
        """``reference, guided``: the model's own prediction of x0 and the guided one, (B, ...) each."""

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        return self.parts(x_t, t, cond)[1]


def extrapolate(start: Tensor, end: Tensor, scale: float | Tensor) -> Tensor:
    """``start + scale (end - start)``, exactly ``start`` at 0 and ``end`` at 1."""
    return torch.lerp(start, end, per_example(scale, end))


def per_example(scale: float | Tensor, like: Tensor) -> float | Tensor:
    """The scale as a factor of ``like`` (B, ...)."""
    if not isinstance(scale, Tensor):
        return scale
    if scale.shape not in ((), (len(like),)):
        raise ValueError(f"scale must be one number, or one for each of {len(like)} examples; got {tuple(scale.shape)}")
    return expand(scale.to(like.device, like.dtype), like)


def require_cond(cond: Any) -> Any:
    """``cond`` itself; raises ValueError if it is None."""
    if cond is None:
        raise ValueError("guidance needs a condition: pass cond=, the requested labels")
    return cond
