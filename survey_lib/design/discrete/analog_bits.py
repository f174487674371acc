"""Analog Bits (Chen et al. 2023): integers as real-valued bits, so that a diffusion of numbers makes discrete data.

Its two further ideas serve any diffusion: the denoiser is shown its own previous answer (self-conditioning), and it
is told a little more noise than there is (asymmetric time intervals).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from survey_lib.core.protocols import BridgeOverride, Corruption, Denoiser


def to_bits(x: Tensor, bits: int) -> Tensor:
    """Integers in [0, 2^bits) as bits -1 and 1, the highest first: (B, C, ...) -> float32 (B, bits C, ...)."""
    if x.is_floating_point() or (x.numel() and not (x.min() >= 0 and x.max() < 2**bits)):
        raise ValueError(f"{bits} bits hold the integers 0 to {2**bits - 1}; got {x.dtype} {x.min():g} to {x.max():g}")
    places = torch.arange(bits - 1, -1, -1, device=x.device)
    digits = (x.long().unsqueeze(1) >> places.reshape(-1, *[1] * (x.ndim - 1))) & 1  # (B, bits, C, ...)
    return rearrange(digits, "b n c ... -> b (n c) ...").float() * 2 - 1


def from_bits(x: Tensor, bits: int) -> Tensor:
    """Numbers to integers by their signs: (B, bits C, ...) -> int64 (B, C, ...). Whatever x is, the code is valid."""
    if x.shape[1] % bits:
        raise ValueError(f"{bits} bits an integer need a multiple of {bits} channels; got {tuple(x.shape)}")
    digits = rearrange(x > 0, "b (n c) ... -> n b c ...", n=bits)
    return sum(digit.long() << (bits - 1 - place) for place, digit in enumerate(digits))


class SelfConditioned:
    """A denoiser that is shown its last answer (self-conditioning, Chen et al. 2023, alg. 2).

    ``denoiser(x_t, t, cond=previous)``: the answer of the call before, None at the first. The ordinary loops take it::

        ancestral(SelfConditioned(model), corruption, x, times)

    The memory belongs to one trajectory. It is dropped by `reset`, and of itself when t rises, or x_t changes its
    shape: then another trajectory has begun. A step that asks twice (Heun's) is shown its first answer at the second.
    """

    def __init__(self, denoiser: Denoiser):
        self.denoiser = denoiser
        self.reset()

    def reset(self) -> None:
        """Forget the last answer: a new trajectory begins."""
        self.previous: Tensor | None = None
        self.last = -torch.inf

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: None = None) -> Tensor:
        if cond is not None:
            raise ValueError("the condition of a self-conditioned denoiser is its own answer, so cond must be None")
        now = float(torch.as_tensor(t).max())
        if now > self.last or self.previous.shape != x_t.shape:
            self.previous = None
        self.previous, self.last = self.denoiser(x_t, t, self.previous), now
        return self.previous


def self_conditioned_loss(
    model: Denoiser,
    corruption: Corruption,
    x0: Tensor,
    t: Tensor,
    *,
    share: float = 0.5,
    weight: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Training with self-conditioning (Chen et al. 2023, alg. 1): ``w |x0 - D(x_t, t, previous)|^2``.

    In a ``share`` of the batches ``previous`` is ``D(x_t, t, None)``, which passes no gradient and stands in for the
    answer of the step before; else it is None. A mean over dimensions: (B,). Cost: ``share / 3`` of a step more.
    """
    x_t = corruption.corrupt(x0, t, generator=generator)
    previous = None
    if float(torch.rand((), generator=generator, device=generator.device)) < share:
        with torch.no_grad():
            previous = model(x_t, t, None)
    error = (model(x_t, t, previous) - x0).square().flatten(1).mean(1)
    return error if weight is None else weight.to(error) * error


@dataclass(frozen=True)
class AsymmetricTime(BridgeOverride):
    """Asymmetric time intervals (Chen et al. 2023, sec. 2.4): each step goes ``shift`` further down than the grid says.

    The next call of the denoiser is told the grid's time, that is more noise than there is. Their ``td`` counts in
    steps: ``shift = td / steps``. Any corruption, any loop over bridges.
    """

    corruption: Corruption
    shift: float

    def __post_init__(self) -> None:
        if not 0 <= self.shift < 1:
            raise ValueError(f"a shift is a span of time from 0 to below 1; got {self.shift}")

    def bridge(self, x_t: Tensor, x0: Tensor, t: Any, s: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """The corruption's step from t to ``max(s - shift, 0)``."""
        further = (torch.as_tensor(s, dtype=torch.float64) - self.shift).clamp_min(0)
        return self.corruption.bridge(x_t, x0, t, further, generator=generator)
