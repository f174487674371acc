"""The three parts of a diffusion method, and the conventions of the whole package.

A *corruption* destroys clean data step by step, a *denoiser* predicts the clean data from what is left, and a *grid*
is the sequence of times at which the denoiser is evaluated. Every sampler of this course is a form of this loop::

    x = corruption.prior(shape, times[0], generator=generator)
    for t, s in pairwise(times):
        x = corruption.bridge(x, denoiser(x, t, cond), t, s, generator=generator)

Conventions
-----------
* Time ``t`` runs from 0 (clean) to 1 (noise). A step goes from ``t`` down to ``s < t``.
* ``x_t = alpha x0 + sigma eps``: ``alpha`` and ``sigma`` are the scales of the *marginal*, never
  alpha-bar, never beta. ``lam = log(alpha / sigma)`` is half the logarithm of the signal-to-noise ratio.
* Names: ``x0, x_t, x_s, eps, v, t, s, cond``. Images are ``(B, C, H, W)`` in [-1, 1]; the
  probabilities of a category stand in the last dimension.
* Coefficients are float64; tensors keep their own dtype and device.
* Random numbers come from the ``generator`` that the caller passes. It may live on another device than the data.

Against the papers: DDPM's ``alpha_bar_t`` is ``alpha**2``; DPM-Solver's ``alpha_t`` is ``alpha``;
EDM's ``sigma`` is ``sigma / alpha`` and its ``s`` is ``alpha``; ``SNR = exp(2 lam)``; the time of
flow matching is ``1 - t``; NCSN has ``alpha = 1``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from survey_lib.core.checks import check_floating, check_generator

#: Called before each step with the state, its time, and the denoiser's prediction.
Callback = Callable[[Tensor, Tensor, Tensor], None]


class Denoiser(Protocol):
    """``E[x0 | x_t]``; for categories the vector of probabilities. ``t`` has shape () or (B,), or is a number."""

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor: ...


class Corruption(Protocol):
    """A noising process ``q(x_t | x0)`` with its reverse step for known clean data, ``q(x_s | x_t, x0)``."""

    def prior(self, shape: Sequence[int], t: Tensor | float = 1.0, *, generator: torch.Generator | None) -> Tensor:
        """Initial state ``x_t`` of a trajectory whose grid begins at ``t``; on the generator's device."""

    def corrupt(self, x0: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_t ~ q(x_t | x0)``."""

    def bridge(
        self, x_t: Tensor, x0: Tensor, t: Tensor, s: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``x_s ~ q(x_s | x_t, x0)``."""


@dataclass(frozen=True)
class BridgeOverride(ABC):
    """A corruption that overrides the bridge alone; prior and corrupt delegate to ``corruption``."""

    corruption: Corruption

    def prior(
        self, shape: Sequence[int], t: Tensor | float = 1.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Delegates to ``corruption.prior``."""
        return self.corruption.prior(shape, t, generator=generator)

    def corrupt(self, x0: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None) -> Tensor:
        """Delegates to ``corruption.corrupt``."""
        return self.corruption.corrupt(x0, t, generator=generator)

    @abstractmethod
    def bridge(self, x_t: Tensor, x0: Tensor, t: Any, s: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_s`` from ``x_t`` and the denoiser's prediction."""


def evaluate_both(
    denoiser: Denoiser, x_t: Tensor, t: Tensor | float, first: Tensor, second: Tensor
) -> tuple[Tensor, Tensor]:
    """Predictions under two conditions, each (B, ...), from one call with 2 B examples."""
    twice = torch.cat([t, t]) if isinstance(t, Tensor) and t.ndim else t
    one, other = denoiser(torch.cat([x_t, x_t]), twice, torch.cat([first, second])).chunk(2)
    return one, other


def expand(values: Tensor, like: Tensor) -> Tensor:
    """Give per-example ``values``, () or (B,), the dtype, the device and the rank of ``like`` (B, ...).

    A float64 scalar on the CPU stays as it is: torch combines it with tensors of every dtype and device.
    """
    if values.ndim == 0:
        return values
    return values.to(like.device, like.dtype).reshape(values.shape + (1,) * (like.ndim - values.ndim))


def normal(shape: Sequence[int], generator: torch.Generator | None, dtype: torch.dtype | None = None) -> Tensor:
    """Standard normal numbers on the generator's device.

    Raises ValueError without a generator: hidden global randomness cannot be repeated.
    """
    generator = check_generator(generator)
    return torch.randn(tuple(shape), generator=generator, device=generator.device, dtype=dtype)


def normal_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers with the shape, dtype and device of ``x``, drawn on the generator's device."""
    check_floating("the tensor to be noised", x)
    return normal(x.shape, generator, x.dtype).to(x.device)
