"""A joint distribution of a few categories as a table, with exact posteriors by enumeration."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from survey_lib.core.checks import check_generator, holds
from survey_lib.core.protocols import Denoiser


class CategoricalTable:
    """Joint distribution of L variables with K categories each, as a table of K^L probabilities.

    ``x`` is (B, L) of integers. With L = 1 the sampling loop reproduces the distribution exactly; with L > 1 a bridge
    draws the variables of a step independently, so that the loop is exact only in the limit of many small steps.

    probabilities: L dimensions of size K, not negative, normalised here.
    """

    def __init__(self, probabilities: Tensor) -> None:
        table = torch.as_tensor(probabilities, dtype=torch.float64)
        if table.ndim == 0 or len(set(table.shape)) != 1 or not ((table >= 0).all() and table.sum() > 0):
            raise ValueError(
                f"a table has L equal dimensions of probabilities, none negative; got shape {tuple(table.shape)}"
            )
        self.probabilities, self.event = table / table.sum(), torch.Size([table.ndim])

    def posterior(self, x_t: Tensor, t: Tensor | float, corruption: Any) -> Tensor:
        """``p(x0 | x_t)`` over whole tables: (B, K, ..., K) in float64."""
        joint, flat = self._joint(x_t, t, corruption), (len(x_t),) + (1,) * self.probabilities.ndim
        total = joint.flatten(1).sum(1)
        if not holds(total > 0):
            raise ValueError("x_t holds a state of probability 0 at this time")
        return joint / total.reshape(flat)

    def denoiser(self, corruption: Any) -> Denoiser:
        """``p(x0_i = k | x_t)`` for every variable i, as a `Denoiser`: (B, L) integers -> (B, L, K) in float64."""

        def denoise(x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
            posterior, count = self.posterior(x_t, t, corruption), self.probabilities.ndim
            others = [[1 + j for j in range(count) if j != i] for i in range(count)]
            return torch.stack([posterior.sum(axes) if axes else posterior for axes in others], dim=1)

        return denoise

    def log_prob(self, x: Tensor, t: Tensor | float = 0.0, corruption: Any = None) -> Tensor:
        """``log p_t(x)`` (B,) in nats; minus infinity for impossible states."""
        if corruption is None:
            return self.probabilities.to(x.device)[tuple(x.long().T)].log()
        return self._joint(x, t, corruption).flatten(1).sum(1).log()

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` draws, (n, L) of int64, on the generator's device."""
        generator = check_generator(generator)
        flat = self.probabilities.flatten().to(generator.device)
        index = torch.multinomial(flat, n, replacement=True, generator=generator)
        return torch.stack(torch.unravel_index(index, self.probabilities.shape), dim=1)

    def _joint(self, x_t: Tensor, t: Tensor | float, corruption: Any) -> Tensor:
        """``p(x0) prod_i q(x_t_i | x0_i)``: (B, K, ..., K)."""
        if x_t.ndim != 2 or x_t.shape[1:] != self.event or x_t.is_floating_point():
            raise ValueError(f"x_t is integers of shape (B, {self.event[0]}) here; got {x_t.dtype} {tuple(x_t.shape)}")
        matrix = corruption.matrix(torch.zeros((), dtype=torch.float64), torch.as_tensor(t, dtype=torch.float64))
        if matrix.shape[-1] != len(self.probabilities):
            have, want = len(self.probabilities), matrix.shape[-1]
            raise ValueError(
                f"this table has {have} categories, the corruption {want}: a mask counts, with probability 0"
            )
        columns = matrix.double().to(x_t.device).mT.expand(len(x_t), -1, -1)  # [b, to, from]
        joint = self.probabilities.to(x_t.device)
        for i, x in enumerate(x_t.long().T):
            likelihood = columns[torch.arange(len(x_t), device=x.device), x]  # (B, K): q(x_t_i | x0_i = k)
            joint = joint * likelihood.reshape(len(x_t), *(-1 if j == i else 1 for j in range(x_t.shape[1])))
        return joint
