"""A finite data set as a distribution."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.checks import check_generator, holds
from survey_lib.core.exact.base import Continuous, float64

_ROWS = 2**23  # (examples x points) held at once: 64 MiB of float64


class Empirical(Continuous):
    """A finite data set, each point equally likely: its denoiser minimises the training loss and memorises the data.

    ``E[x0 | x_t] = sum_n softmax_n(-|x_t - alpha p_n|^2 / (2 sigma^2)) p_n``. points: (N, *event); labels: (N,).
    """

    def __init__(self, points: Tensor, labels: Tensor | None = None) -> None:
        points = float64(points)
        if points.ndim < 2 or not len(points):
            raise ValueError(f"a data set has shape (N, *event) with N > 0; got {tuple(points.shape)}")
        self.event, self.points = points.shape[1:], points.flatten(1)
        self.labels = None if labels is None else torch.as_tensor(labels)

    def responsibilities(self, x_t: Tensor, t: Tensor | float, schedule: Any) -> Tensor:
        """``p(n | x_t)``, the probability that ``x0`` is point n: (B, N) in float64; needs ``sigma > 0``."""
        x, alpha, sigma = self._prepare(x_t, t, schedule)
        return self._logits(x, alpha, self._spread(sigma)).softmax(1)

    def log_prob(self, x_t: Tensor, t: Tensor | float = 0.0, schedule: Any = None) -> Tensor:
        """``log p_t(x_t)`` (B,) in float64. Raises ValueError at sigma = 0: points have no density."""
        x, alpha, sigma = self._prepare_density(x_t, t, schedule)
        logits = self._logits(x, alpha, self._spread(sigma))
        constant = math.log(len(self.points)) + 0.5 * x.shape[1] * math.log(2 * math.pi)
        return logits.logsumexp(1) - (0.5 * (x / sigma) ** 2 + sigma.log()).sum(1) - constant

    def score(self, x_t: Tensor, t: Tensor | float, schedule: Any) -> Tensor:
        """``(alpha E[x0 | x_t] - x_t) / sigma^2`` (Tweedie's formula)."""
        x, alpha, sigma = self._prepare(x_t, t, schedule)
        mean = self._posterior_mean(x, alpha, self._spread(sigma), None)
        return ((alpha * mean - x) / sigma**2).reshape(x_t.shape).to(x_t.dtype)

    def sample(self, n: int, *, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """``n`` points drawn with replacement, (n, *event), on the generator's device."""
        generator = check_generator(generator)
        index = torch.randint(len(self.points), (n,), generator=generator, device=generator.device)
        return self.points.to(index.device)[index].reshape(n, *self.event).to(dtype)

    def sample_posterior(
        self, x_t: Tensor, t: Tensor | float, schedule: Any, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """One data point for each example, drawn from ``p(x0 | x_t)``; needs ``sigma > 0``."""
        generator = check_generator(generator)
        chances = self.responsibilities(x_t, t, schedule).to(generator.device)
        index = torch.multinomial(chances, 1, generator=generator)[:, 0]
        return self.points.to(index.device)[index].reshape(x_t.shape).to(x_t)

    @staticmethod
    def _spread(sigma: Tensor) -> Tensor:
        if not holds(sigma > 0):
            raise ValueError("a finite data set has a density only at sigma > 0")
        return sigma

    def _logits(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """``-|x - alpha p|^2 / (2 sigma^2)`` up to terms without p: one matrix product, no (B, N, D)."""
        points = self.points.to(x.device)
        return (alpha * (x @ points.T) - 0.5 * alpha**2 * (points**2).sum(1)) / sigma**2

    def _posterior_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor, allowed: Tensor | None) -> Tensor:
        points, means = self.points.to(x.device), []
        alpha, sigma = alpha.expand(len(x), 1), torch.where(sigma > 0, sigma, 1).expand(len(x), 1)
        for rows in torch.arange(len(x), device=x.device).split(max(1, _ROWS // len(points))):
            logits = self._logits(x[rows], alpha[rows], sigma[rows])
            if allowed is not None:
                logits = logits.masked_fill(~allowed.to(x.device)[rows], -math.inf)
            means.append(logits.softmax(1) @ points)
        return torch.cat(means) if means else torch.zeros_like(x)
