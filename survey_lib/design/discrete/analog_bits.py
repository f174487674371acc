"""Analog Bits (Chen et al. 2023): discrete data by a Gaussian diffusion of their bits.

Its two further ideas apply to any diffusion: the denoiser receives its own previous prediction (self-conditioning), and
a time with slightly more noise than its input has (asymmetric time intervals).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from survey_lib.core.protocols import BridgeOverride, Corruption, Denoiser


def to_bits(x: Tensor, bits: int) -> Tensor:
    """Convert integers in [0, 2^bits) to bits -1 and 1, the highest first: (B, C, ...) -> float32 (B, bits C, ...)."""
    if x.is_floating_point() or (x.numel() and not (x.min() >= 0 and x.max() < 2**bits)):
        raise ValueError(f"{bits} bits hold the integers 0 to {2**bits - 1}; got {x.dtype} {x.min():g} to {x.max():g}")
    places = torch.arange(bits - 1, -1, -1, device=x.device)
    digits = (x.long().unsqueeze(1) >> places.reshape(-1, *[1] * (x.ndim - 1))) & 1  # (B, bits, C, ...)
    return rearrange(digits, "b n c ... -> b (n c) ...").float() * 2 - 1


def from_bits(x: Tensor, bits: int) -> Tensor:
    """Convert real-valued bits to integers by their signs: (B, bits C, ...) -> int64 (B, C, ...)."""
    if x.shape[1] % bits:
        raise ValueError(f"{bits} bits per integer need a multiple of {bits} channels; got {tuple(x.shape)}")
    digits = rearrange(x > 0, "b (n c) ... -> n b c ...", n=bits)
    return sum(digit.long() << (bits - 1 - place) for place, digit in enumerate(digits))


class SelfConditioned:
    """Self-conditioning (Chen et al. 2023, alg. 2): a denoiser that receives its previous prediction as ``cond``.

    It calls ``denoiser(x_t, t, cond=previous)``, with None at the first call, and works in every sampler::

        ancestral(SelfConditioned(model), corruption, x, times)

    The previous prediction belongs to one trajectory. `reset` deletes it; so does a larger t or another shape of x_t,
    with which another trajectory begins. In a step with two evaluations (Heun's) the second receives the first.
    """

    def __init__(self, denoiser: Denoiser):
        self.denoiser = denoiser
        self.reset()

    def reset(self) -> None:
        """Delete the previous prediction, before a new trajectory."""
        self.previous: Tensor | None = None
        self.last = -torch.inf

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: None = None) -> Tensor:
        if cond is not None:
            raise ValueError("cond must be None: a self-conditioned denoiser is conditioned on its own prediction")
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
    probability: float = 0.5,
    weight: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Loss of a self-conditioned denoiser (Chen et al. 2023, alg. 1): ``w |x0 - D(x_t, t, previous)|^2``, (B,).

    With this ``probability`` per batch, ``previous`` is ``D(x_t, t, None)`` without gradients, in place of the
    prediction of the previous step; otherwise it is None. A mean over dimensions. Cost: about ``1 + probability / 3``
    of the plain loss.
    """
    x_t = corruption.corrupt(x0, t, generator=generator)
    previous = None
    if float(torch.rand((), generator=generator, device=generator.device)) < probability:
        with torch.no_grad():
            previous = model(x_t, t, None)
    error = (model(x_t, t, previous) - x0).square().flatten(1).mean(1)
    return error if weight is None else weight.to(error) * error


@dataclass(frozen=True)
class AsymmetricTime(BridgeOverride):
    """Asymmetric time intervals (Chen et al. 2023, sec. 2.4): each step goes a further ``shift`` down.

    The denoiser still receives the time of the grid, at which there would be more noise. The paper's ``td`` counts in
    steps: ``shift = td / steps``. For any corruption and any sampler over bridges.
    """

    corruption: Corruption
    shift: float

    def __post_init__(self) -> None:
        if not 0 <= self.shift < 1:
            raise ValueError(f"shift must lie in [0, 1); got {self.shift}")

    def bridge(self, x_t: Tensor, x0: Tensor, t: Any, s: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """Bridge of the corruption from t to ``max(s - shift, 0)``."""
        further = (torch.as_tensor(s, dtype=torch.float64) - self.shift).clamp_min(0)
        return self.corruption.bridge(x_t, x0, t, further, generator=generator)
