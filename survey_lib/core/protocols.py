"""The three parts of a diffusion method, and the conventions that all of the package keeps.

A *corruption* destroys clean data a little at a time, a *denoiser* guesses the clean data from what
is left, and a *grid* of times says when to ask it. Every sampler of this course is this loop::

    for t, s in pairwise(times):
        x = corruption.bridge(x, denoiser(x, t, cond), t, s)

Conventions
-----------
* Time ``t`` runs from 0 (clean) to 1 (noise). A step goes from ``t`` down to ``s < t``.
* ``x_t = alpha x0 + sigma eps``: ``alpha`` and ``sigma`` are the scales of the *marginal*, never
  alpha-bar, never beta. ``lam = log(alpha / sigma)`` is half the logarithm of the signal-to-noise ratio.
* Names: ``x0, x_t, x_s, eps, v, t, s, cond``. Images are ``(B, C, H, W)`` in [-1, 1]; the
  probabilities of a category stand in the last dimension.
* Coefficients are float64; tensors keep their own dtype and device.
* Randomness comes from the ``generator`` that the caller passes, from nowhere else.

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

#: Called before each step with the state, its time, and the denoiser's answer.
Callback = Callable[[Tensor, Tensor, Tensor], None]


class Denoiser(Protocol):
    """``E[x0 | x_t]``; for categories the vector of probabilities. ``t`` has shape () or (B,)."""

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor: ...


class Corruption(Protocol):
    """How clean data is destroyed, and how to walk back if the clean data were known."""

    def prior(self, shape: Sequence[int], *, generator: torch.Generator | None = None) -> Tensor:
        """``x_1``, from which sampling starts; on the generator's device."""

    def corrupt(self, x0: Tensor, t: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_t ~ q(x_t | x0)``."""

    def bridge(
        self, x_t: Tensor, x0: Tensor, t: Tensor, s: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``x_s ~ q(x_s | x_t, x0)``."""


@dataclass(frozen=True)
class BridgeOverride(ABC):
    """A corruption with a way back of its own; it starts from and destroys data as ``corruption`` does."""

    corruption: Corruption

    def prior(self, shape: Sequence[int], *, generator: torch.Generator | None = None) -> Tensor:
        """That of the corruption."""
        return self.corruption.prior(shape, generator=generator)

    def corrupt(self, x0: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None) -> Tensor:
        """That of the corruption."""
        return self.corruption.corrupt(x0, t, generator=generator)

    @abstractmethod
    def bridge(self, x_t: Tensor, x0: Tensor, t: Any, s: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_s`` from ``x_t`` and the denoiser's answer."""


def evaluate_both(
    denoiser: Denoiser, x_t: Tensor, t: Tensor | float, first: Tensor, second: Tensor
) -> tuple[Tensor, Tensor]:
    """The answers for two conditions, each (B, ...), from one call of 2 B examples."""
    twice = torch.cat([t, t]) if isinstance(t, Tensor) and t.ndim else t
    return denoiser(torch.cat([x_t, x_t]), twice, torch.cat([first, second])).chunk(2)


def expand(values: Tensor, like: Tensor) -> Tensor:
    """Give per-example ``values``, () or (B,), the dtype, the device and the rank of ``like`` (B, ...).

    A float64 scalar on the CPU stays as it is: torch lets it meet tensors of every dtype and device.
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


def check_generator(generator: torch.Generator | None) -> torch.Generator:
    """The generator of a step that draws, or a ValueError where there is none."""
    if generator is None:
        raise ValueError("this step draws random numbers: pass generator=torch.Generator().manual_seed(seed)")
    return generator


def check_times(times: Tensor) -> Tensor:
    """Return a grid of times as float64 on the CPU, or say what is wrong with it.

    A grid holds at least two times, lies in [0, 1] and falls strictly.
    """
    times = torch.as_tensor(times, dtype=torch.float64, device="cpu")
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"a grid needs at least two times in one dimension; this one has shape {tuple(times.shape)}")
    if not (times.min() >= 0 and times.max() <= 1):
        raise ValueError(
            f"times lie in [0, 1], 0 clean and 1 noise; this grid spans {times.min():g} to {times.max():g}"
        )
    if not (times.diff() < 0).all():
        at = int((times.diff() >= 0).nonzero()[0])
        raise ValueError(
            f"a grid falls strictly from noise to data; times {at} and {at + 1} are {times[at]:g} and {times[at + 1]:g}"
        )
    return times
