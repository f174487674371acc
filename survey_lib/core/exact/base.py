"""The base class of exact distributions on real vectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from survey_lib.core.checks import check_batch_of_times, check_labels, holds
from survey_lib.core.protocols import Denoiser


def float64(values: Any) -> Tensor:
    """``values`` as a float64 tensor."""
    return torch.as_tensor(values, dtype=torch.float64)


class Continuous:
    """Base of the distributions on real vectors: shapes, dtypes, times, conditions. Subclasses set the two fields."""

    event: torch.Size
    labels: Tensor | None

    def denoiser(self, schedule: Any) -> Denoiser:
        """``E[x0 | x_t]`` as a `Denoiser`, exact at both ends: ``x_t / alpha`` at sigma = 0, the mean at alpha = 0.

        With ``labels``, ``cond`` (B,) restricts x0 to one label per example; None, or -1 for an example, does not.
        """

        def denoise(x_t: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Tensor:
            x, alpha, sigma = self._prepare(x_t, t, schedule)
            mean = self._posterior_mean(x, alpha, sigma, self._allowed(cond, x))
            clean = x / torch.where(sigma > 0, 1, alpha)
            return torch.where(sigma > 0, mean, clean).reshape(x_t.shape).to(x_t.dtype)

        return denoise

    def _posterior_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor, allowed: Tensor | None) -> Tensor:
        """``E[x0 | x]`` (B, D) of x (B, D) at sigma > 0, among the ``allowed`` components."""
        raise NotImplementedError

    def _prepare(self, x_t: Tensor, t: Tensor | float, schedule: Any) -> tuple[Tensor, Tensor, Tensor]:
        """``x`` (B, D), ``alpha`` and ``sigma`` (B or 1, 1), all float64 on the device of ``x_t``."""
        if x_t.shape[1:] != self.event:
            raise ValueError(f"x_t has shape (B, {', '.join(map(str, self.event))}); got {tuple(x_t.shape)}")
        alpha, sigma = getattr(schedule, "schedule", schedule).scales(t)
        check_batch_of_times(alpha, x_t)
        x = x_t.double().reshape(len(x_t), -1)
        return x, alpha.reshape(-1, 1).to(x.device), sigma.reshape(-1, 1).to(x.device)

    def _prepare_density(self, x: Tensor, t: Tensor | float, schedule: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Arguments of a density as `_prepare` returns them; clean data without a schedule have alpha 1 and sigma 0."""
        if schedule is not None:
            return self._prepare(x, t, schedule)
        if torch.as_tensor(t).any():
            raise ValueError("the density at a time t > 0 depends on the noise: pass schedule=")
        one = torch.ones(1, 1, dtype=torch.float64, device=x.device)
        return x.double().reshape(len(x), -1), one, torch.zeros_like(one)

    def _allowed(self, cond: Tensor | None, x: Tensor) -> Tensor | None:
        """Mask (B, K) of the components that have the label of an example."""
        if cond is None:
            return None
        if self.labels is None:
            raise ValueError("this distribution has no labels to condition on: give labels=, or pass cond=None")
        cond = check_labels(cond, len(x), x.device)[:, None]
        allowed = (cond == self.labels.to(cond.device)) | (cond < 0)
        if not holds(allowed.any(1)):
            known, got = self.labels.unique().tolist(), cond.unique().tolist()
            raise ValueError(f"labels are {known}, or -1 for any; got {got}")
        return allowed
