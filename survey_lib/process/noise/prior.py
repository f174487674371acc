"""A prior that depends on the condition: noise around a mean, with a scale for every number (PriorGrad)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.protocols import Corruption


@dataclass(frozen=True)
class WithPrior:
    """Another corruption in the units of a condition: of ``(x0 - mean) / std`` (PriorGrad, Lee et al. 2022).

    With Gaussian noise, ``x_t = mean + alpha (x0 - mean) + sigma std eps``, and sampling starts at ``N(mean, std^2)``
    where the schedule ends without signal.

    mean, std: what is known of the examples from their condition, (B, ...) or broadcasting against x0.
    """

    corruption: Corruption
    mean: Tensor
    std: Tensor

    def __post_init__(self) -> None:
        if not (self.std > 0).all():
            raise ValueError(f"the scale of a prior is positive everywhere; its smallest is {float(self.std.min()):g}")

    def prior(self, shape: Sequence[int], t: Tensor | float = 1.0, *, generator: torch.Generator | None) -> Tensor:
        """``x_t`` with the mean for the data."""
        return self._back(self.corruption.prior(shape, t, generator=generator))

    def corrupt(self, x0: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_t ~ q(x_t | x0)``."""
        return self._back(self.corruption.corrupt(self._units(x0), t, generator=generator))

    def bridge(self, x_t: Tensor, x0: Tensor, t: Any, s: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_s ~ q(x_s | x_t, x0)``."""
        return self._back(self.corruption.bridge(self._units(x_t), self._units(x0), t, s, generator=generator))

    def denoiser(self, inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """A denoiser of the data from one of ``(x0 - mean) / std``."""
        return lambda x_t, t, cond=None: self._back(inner(self._units(x_t), t, cond))

    def _units(self, x: Tensor) -> Tensor:
        return (x - self.mean.to(x)) / self.std.to(x)

    def _back(self, z: Tensor) -> Tensor:
        return self.mean.to(z) + self.std.to(z) * z
