"""Another corruption in other coordinates: of what is left of a condition (PriorGrad), or of spatial frequencies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.protocols import Corruption


class InCoordinates(ABC):
    """A corruption of ``there(x)``, whose states are mapped ``back``, the inverse."""

    corruption: Corruption

    @abstractmethod
    def there(self, x: Tensor) -> Tensor:
        """The coordinates of data or of a state."""

    @abstractmethod
    def back(self, z: Tensor) -> Tensor:
        """The data or the state with these coordinates."""

    def prior(self, shape: Sequence[int], t: Tensor | float = 1.0, *, generator: torch.Generator | None) -> Tensor:
        """The prior of ``corruption``, mapped back."""
        return self.back(self.corruption.prior(shape, t, generator=generator))

    def corrupt(self, x0: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_t ~ q(x_t | x0)``."""
        return self.back(self.corruption.corrupt(self.there(x0), t, generator=generator))

    def bridge(self, x_t: Tensor, x0: Tensor, t: Any, s: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_s ~ q(x_s | x_t, x0)``."""
        return self.back(self.corruption.bridge(self.there(x_t), self.there(x0), t, s, generator=generator))
