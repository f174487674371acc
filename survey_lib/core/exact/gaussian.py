"""Normal distributions and their mixtures."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.checks import holds
from survey_lib.core.exact.base import Continuous, float64
from survey_lib.core.protocols import normal


class GaussianMixture(Continuous):
    """``p(x0) = sum_k w_k N(m_k, C_k)``; noised, component k is ``N(alpha m_k, alpha^2 C_k + sigma^2 I)``.

    means: (K, *event).
    scales: standard deviations, (), (K,) or (K, *event); or else
    covs: covariances (K, D, D), with D the size of an event.
    weights: (K,), positive, normalised here; equal by default.
    labels: (K,) integers, for class-conditional denoising.
    """

    def __init__(
        self,
        means: Tensor,
        *,
        scales: Tensor | float | None = None,
        covs: Tensor | None = None,
        weights: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> None:
        means = float64(means)
        if means.ndim < 2 or (scales is None) == (covs is None):
            raise ValueError("a mixture needs means of shape (K, *event), and either scales= or covs=")
        self.event, self.labels = means.shape[1:], None if labels is None else torch.as_tensor(labels)
        self.means = means.flatten(1)
        count, size = self.means.shape
        if covs is None:
            scales = float64(scales)
            scales = scales.reshape(scales.shape + (1,) * (means.ndim - scales.ndim)) if scales.ndim else scales
            self.variances, self._axes = scales.expand(means.shape).flatten(1) ** 2, None
        else:
            covs = float64(covs)
            if covs.shape != (count, size, size):
                raise ValueError(f"covs have shape ({count}, {size}, {size}) here; got {tuple(covs.shape)}")
            variances, self._axes = torch.linalg.eigh(covs)  # (K, D), (K, D, D): adding noise shifts the eigenvalues
            if variances.min() < -1e-10 * variances.max() or not torch.allclose(covs, covs.mT):
                raise ValueError(f"covs are symmetric with no negative eigenvalue; the smallest is {variances.min():g}")
            self.variances = variances.clamp_min(0)
        self.weights = torch.ones(count, dtype=torch.float64) if weights is None else float64(weights)
        if self.weights.shape != (count,) or not (self.weights > 0).all():
            raise ValueError(f"weights are {count} positive numbers, one per component; got {self.weights.tolist()}")
        self.weights = self.weights / self.weights.sum()

    def responsibilities(self, x_t: Tensor, t: Tensor | float, schedule: Any) -> Tensor:
        """``p(k | x_t)``: (B, K) in float64."""
        return self._log_joint(*self._prepare(x_t, t, schedule)).softmax(1)

    def label_log_probs(self, x_t: Tensor, t: Tensor | float, schedule: Any) -> Tensor:
        """``log p(label | x_t)``, in the order of the labels: (B, labels) in float64."""
        if self.labels is None:
            raise ValueError("this distribution has no labels: give labels=")
        joint, labels = self._log_joint(*self._prepare(x_t, t, schedule)), self.labels.to(x_t.device)
        each = [joint[:, labels == label].logsumexp(1) for label in labels.unique()]
        return torch.stack(each, 1).log_softmax(1)

    def log_prob(self, x: Tensor, t: Tensor | float = 0.0, schedule: Any = None) -> Tensor:
        """``log p_t(x)`` (B,) in float64. Raises ValueError for a component of variance 0 without noise."""
        x, alpha, sigma = self._prepare_density(x, t, schedule)
        self._check_density(alpha, sigma)
        return self._log_joint(x, alpha, sigma).logsumexp(1)

    def score(self, x_t: Tensor, t: Tensor | float = 0.0, schedule: Any = None) -> Tensor:
        """``grad log p_t(x_t) = -sum_k p(k | x_t) (alpha^2 C_k + sigma^2 I)^-1 (x_t - alpha m_k)``."""
        x, alpha, sigma = self._prepare_density(x_t, t, schedule)
        self._check_density(alpha, sigma)
        z, total = self._whiten(x, alpha, sigma)
        pull = self._unrotate(-z / total)
        mean = (self._log_joint(x, alpha, sigma).softmax(1).unsqueeze(-1) * pull).sum(1)
        return mean.reshape(x_t.shape).to(x_t.dtype)

    def sample(self, n: int, *, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """``n`` draws, (n, *event), on the generator's device."""
        return self.sample_labelled(n, generator=generator, dtype=dtype)[0]

    def sample_labelled(
        self, n: int, *, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """``n`` draws and the labels of their components (by default the indices of the components)."""
        noise = normal((n, self.means.shape[1]), generator, torch.float64)
        k = torch.multinomial(self.weights.to(noise.device), n, replacement=True, generator=generator)
        x0 = self._draw(self.means.to(k.device)[k], self.variances.to(k.device)[k], k, noise)
        labels = torch.arange(len(self.weights)) if self.labels is None else self.labels
        return x0.reshape(n, *self.event).to(dtype), labels.to(k.device)[k]

    def sample_posterior(
        self, x_t: Tensor, t: Tensor | float, schedule: Any, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """One draw of ``p(x0 | x_t)`` for each example; ``x_t / alpha`` at ``sigma = 0``."""
        noise = normal((len(x_t), self.means.shape[1]), generator, torch.float64)
        x, alpha, sigma = self._prepare(x_t, t, schedule)
        chances = self._log_joint(x, alpha, sigma).softmax(1).to(noise.device)
        k = torch.multinomial(chances, 1, generator=generator)[:, 0].to(x.device)
        rows = torch.arange(len(x), device=k.device)
        _, total = self._whiten(x, alpha, sigma)
        left = (self.variances.to(x.device) * sigma.unsqueeze(-1) ** 2 / total).expand(len(x), -1, -1)
        x0 = self._draw(self._component_means(x, alpha, sigma)[rows, k], left[rows, k], k, noise.to(x.device))
        x0 = torch.where(sigma > 0, x0, x / torch.where(sigma > 0, 1, alpha))
        return x0.reshape(x_t.shape).to(x_t.dtype)

    def _draw(self, mean: Tensor, variance: Tensor, k: Tensor, noise: Tensor) -> Tensor:
        spread = variance.sqrt() * noise
        return mean + (spread if self._axes is None else torch.einsum("bij,bj->bi", self._axes.to(k.device)[k], spread))

    def _check_density(self, alpha: Tensor, sigma: Tensor) -> None:
        if not holds(alpha.min() ** 2 * self.variances.min() + sigma.min() ** 2 > 0):
            raise ValueError("a component of variance 0 has a density only at sigma > 0")

    def _whiten(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """``x - alpha m_k`` along the axes of each component, and its variances there: (B, K, D), (B or 1, K, D)."""
        alpha, sigma = alpha.unsqueeze(-1), sigma.unsqueeze(-1)
        z = x.unsqueeze(1) - alpha * self.means.to(x.device)
        if self._axes is not None:
            z = torch.einsum("bkd,kde->bke", z, self._axes.to(x.device))
        total = alpha**2 * self.variances.to(x.device) + sigma**2
        return z, torch.where(total > 0, total, 1)  # a point without noise: callers handle sigma = 0

    def _unrotate(self, z: Tensor) -> Tensor:
        return z if self._axes is None else torch.einsum("bke,kde->bkd", z, self._axes.to(z.device))

    def _log_joint(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """``log w_k + log N(x; alpha m_k, alpha^2 C_k + sigma^2 I)``: (B, K)."""
        z, total = self._whiten(x, alpha, sigma)
        return self.weights.log().to(x.device) - 0.5 * (z**2 / total + (2 * math.pi * total).log()).sum(-1)

    def _component_means(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """``E[x0 | x_t, k] = m_k + alpha C_k (alpha^2 C_k + sigma^2 I)^-1 (x_t - alpha m_k)``: (B, K, D)."""
        z, total = self._whiten(x, alpha, sigma)
        gain = alpha.unsqueeze(-1) * self.variances.to(x.device) / total
        return self.means.to(x.device) + self._unrotate(gain * z)

    def _posterior_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor, allowed: Tensor | None) -> Tensor:
        logits = self._log_joint(x, alpha, sigma)
        if allowed is not None:
            logits = logits.masked_fill(~allowed.to(x.device), -math.inf)
        return (logits.softmax(1).unsqueeze(-1) * self._component_means(x, alpha, sigma)).sum(1)


class GaussianLaw(GaussianMixture):
    """``N(mean, cov)`` on events of any shape: its denoiser is the Wiener filter, affine in ``x_t``.

    mean: event.
    cov: () for ``cov I``, the shape of ``mean`` for a diagonal, or a full (D, D), which is diagonalised once (its
        spectrum is ``variances``), so that every later noise level costs two matrix products.
    """

    def __init__(self, mean: Tensor, cov: Tensor | float) -> None:
        mean, cov = float64(mean), float64(cov)
        size = mean.numel()
        if cov.shape in ((), mean.shape):
            if not (cov >= 0).all():
                raise ValueError(f"variances are not negative; got {cov.min():g}")
            super().__init__(mean.unsqueeze(0), scales=cov.sqrt().expand(mean.shape).unsqueeze(0))
        elif cov.shape == (size, size):
            super().__init__(mean.unsqueeze(0), covs=cov.unsqueeze(0))
        else:
            raise ValueError(f"cov has shape (), {tuple(mean.shape)} or ({size}, {size}); got {tuple(cov.shape)}")
        self.mean, self.cov = mean, cov

    @classmethod
    def fit(cls, points: Tensor) -> GaussianLaw:
        """The normal distribution with the mean and the full covariance of ``points`` (N, *event), N > 1."""
        flat = points.double().flatten(1)
        return cls(points.double().mean(0), torch.cov(flat.T).reshape(flat.shape[1], flat.shape[1]))

    def flow(self, x_t: Tensor, t: Tensor | float, s: Tensor | float, schedule: Any) -> Tensor:
        """Solution of the probability flow from ``x_t`` at t to time s, in closed form (Wang & Vastola 2024).

        ``x_s = alpha_s m + S_s^(1/2) S_t^(-1/2) (x_t - alpha_t m)`` with ``S = alpha^2 C + sigma^2 I``: along each
        principal axis the standardised coordinate is constant. At high noise this also approximates the flow of any
        distribution with this mean and covariance.
        """
        x, alpha, sigma = self._prepare(x_t, t, schedule)
        _, alpha_s, sigma_s = self._prepare(x_t, s, schedule)
        z, spread = self._whiten(x, alpha, sigma)
        spread_s = (alpha_s**2 * self.variances.to(x.device) + sigma_s**2).unsqueeze(1)
        moved = self._unrotate((spread_s / spread).sqrt() * z).squeeze(1)
        return (alpha_s * self.means.to(x.device) + moved).reshape(x_t.shape).to(x_t.dtype)
