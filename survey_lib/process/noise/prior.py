"""A prior that depends on the condition: noise around a mean, with a scale for every number (PriorGrad)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from survey_lib.core.protocols import Corruption
from survey_lib.process.noise.coordinates import InCoordinates


@dataclass(frozen=True)
class WithPrior(InCoordinates):
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

    def denoiser(self, inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """A denoiser of the data from one of ``(x0 - mean) / std``."""
        return lambda x_t, t, cond=None: self.back(inner(self.there(x_t), t, cond))

    def there(self, x: Tensor) -> Tensor:
        """``(x - mean) / std``."""
        return (x - self.mean.to(x)) / self.std.to(x)

    def back(self, z: Tensor) -> Tensor:
        """``mean + std z``."""
        return self.mean.to(z) + self.std.to(z) * z
