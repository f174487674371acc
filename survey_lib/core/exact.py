"""Laws of data whose denoiser is known exactly: the proof in every lesson, and in most of the tests.

All offer the same methods. ``x_t`` is (B, *event) in any dtype, ``t`` is () or (B,); arithmetic is float64
and the answer has the dtype of ``x_t``. Where a method asks for a ``schedule``, a Gaussian corruption will do.

* ``denoiser(schedule)``: ``E[x0 | x_t]``, ready for any sampler;
* ``score(x_t, t, schedule)``: ``grad log p_t(x_t)``;
* ``log_prob(x0)`` and ``log_prob(x_t, t, schedule)``: (B,), in nats, of the data and of the noised data;
* ``sample(n, generator=)`` from the data, ``sample_posterior(x_t, t, schedule, generator=)`` from ``p(x0 | x_t)``.

`CategoricalTable` is their like for categories: it takes a ``Categorical`` corruption where they take a schedule.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.protocols import Denoiser, normal
from survey_lib.core.tables import CategoricalTable

__all__ = ["CategoricalTable", "Empirical", "GaussianLaw", "GaussianMixture"]

_ROWS = 2**23  # (examples x components) held at once: 64 MiB of float64


def _float64(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


class _Continuous:
    """What the laws on real vectors share: shapes, dtypes, times, conditions. Subclasses set the two fields."""

    event: torch.Size
    labels: Tensor | None

    def denoiser(self, schedule: Any) -> Denoiser:
        """``E[x0 | x_t]`` as a `Denoiser`, exact at both ends: ``x_t / alpha`` if sigma is 0, the mean if alpha is.

        With ``labels`` given, ``cond`` (B,) restricts x0 to the label asked for; None, or -1 in one place, does not.
        """

        def denoise(x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
            x, alpha, sigma = self._prepare(x_t, t, schedule)
            mean = self._posterior_mean(x, alpha, sigma, self._allowed(cond, len(x)))
            clean = x / torch.where(sigma > 0, 1, alpha)
            return torch.where(sigma > 0, mean, clean).reshape(x_t.shape).to(x_t.dtype)

        return denoise

    def _prepare(self, x_t: Tensor, t: Tensor | float, schedule: Any) -> tuple[Tensor, Tensor, Tensor]:
        """``x`` (B, D), ``alpha`` and ``sigma`` (B or 1, 1), all float64 on the device of ``x_t``."""
        if x_t.shape[1:] != self.event:
            raise ValueError(f"this law lives on shape (B, {', '.join(map(str, self.event))}); got {tuple(x_t.shape)}")
        alpha, sigma = getattr(schedule, "schedule", schedule).scales(t)
        if alpha.shape not in ((), (len(x_t),)):
            raise ValueError(f"t has shape () or ({len(x_t)},), one time for each example; got {tuple(alpha.shape)}")
        x = x_t.double().reshape(len(x_t), -1)
        return x, alpha.reshape(-1, 1).to(x.device), sigma.reshape(-1, 1).to(x.device)

    def _prepare_density(self, x: Tensor, t: Tensor | float, schedule: Any) -> tuple[Tensor, Tensor, Tensor]:
        """As `_prepare`; without a schedule the data themselves, ``alpha = 1`` and ``sigma = 0``."""
        if schedule is not None:
            return self._prepare(x, t, schedule)
        if torch.as_tensor(t).any():
            raise ValueError("the density at a time t > 0 depends on the noise: pass schedule=")
        one = torch.ones(1, 1, dtype=torch.float64, device=x.device)
        return x.double().reshape(len(x), -1), one, torch.zeros_like(one)

    def _allowed(self, cond: Tensor | None, count: int) -> Tensor | None:
        """(B, K) bool: which components an example may come from."""
        if cond is None:
            return None
        if self.labels is None:
            raise ValueError("this law has no labels to condition on: give labels=, or pass cond=None")
        cond = torch.as_tensor(cond).reshape(-1, 1).expand(count, 1)
        allowed = (cond == self.labels.to(cond.device)) | (cond < 0)
        if not allowed.any(1).all():
            known, got = self.labels.unique().tolist(), cond.unique().tolist()
            raise ValueError(f"labels are {known}, or -1 for any; got {got}")
        return allowed


class GaussianMixture(_Continuous):
    """``p(x0) = sum_k w_k N(m_k, C_k)``; noised, component k is ``N(alpha m_k, alpha^2 C_k + sigma^2 I)``.

    means: (K, *event). Give either ``scales``, standard deviations of shape (), (K,) or (K, *event), or ``covs``
    (K, D, D) with D the size of an event. weights: (K,), positive, normalised here; equal by default.
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
        means = _float64(means)
        if means.ndim < 2 or (scales is None) == (covs is None):
            raise ValueError("a mixture needs means of shape (K, *event), and either scales= or covs=")
        self.event, self.labels = means.shape[1:], None if labels is None else torch.as_tensor(labels)
        self.means = means.flatten(1)
        count, size = self.means.shape
        if covs is None:
            scales = _float64(scales)
            scales = scales.reshape(scales.shape + (1,) * (means.ndim - scales.ndim)) if scales.ndim else scales
            self.variances, self._axes = scales.expand(means.shape).flatten(1) ** 2, None
        else:
            covs = _float64(covs)
            if covs.shape != (count, size, size):
                raise ValueError(f"covs have shape ({count}, {size}, {size}) here; got {tuple(covs.shape)}")
            variances, self._axes = torch.linalg.eigh(covs)  # (K, D), (K, D, D): noise of any size is a shift
            if variances.min() < -1e-10 * variances.max() or not torch.allclose(covs, covs.mT):
                raise ValueError("covariances are symmetric and have no negative eigenvalue; these do")
            self.variances = variances.clamp_min(0)
        self.weights = torch.ones(count, dtype=torch.float64) if weights is None else _float64(weights)
        if self.weights.shape != (count,) or not (self.weights > 0).all():
            raise ValueError(f"weights are {count} positive numbers, one for each component")
        self.weights = self.weights / self.weights.sum()

    def responsibilities(self, x_t: Tensor, t: Tensor | float, schedule: Any) -> Tensor:
        """``p(k | x_t)``: (B, K) in float64."""
        return self._log_joint(*self._prepare(x_t, t, schedule)).softmax(1)

    def label_log_probs(self, x_t: Tensor, t: Tensor | float, schedule: Any) -> Tensor:
        """``log p(label | x_t)``, in the order of the labels: (B, labels) in float64."""
        if self.labels is None:
            raise ValueError("this law has no labels: give labels=")
        joint, labels = self._log_joint(*self._prepare(x_t, t, schedule)), self.labels.to(x_t.device)
        each = [joint[:, labels == label].logsumexp(1) for label in labels.unique()]
        return torch.stack(each, 1).log_softmax(1)

    def log_prob(self, x: Tensor, t: Tensor | float = 0.0, schedule: Any = None) -> Tensor:
        """``log p_t(x)`` (B,) in float64. Raises ValueError where a component is a point and no noise spreads it."""
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
        """``n`` draws and the labels of their components (their numbers, where no labels were given)."""
        noise = normal((n, self.means.shape[1]), generator, torch.float64)
        k = torch.multinomial(self.weights.to(noise.device), n, replacement=True, generator=generator)
        x0 = self._draw(self.means.to(k.device)[k], self.variances.to(k.device)[k], k, noise)
        labels = torch.arange(len(self.weights)) if self.labels is None else self.labels
        return x0.reshape(n, *self.event).to(dtype), labels.to(k.device)[k]

    def sample_posterior(
        self, x_t: Tensor, t: Tensor | float, schedule: Any, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """One draw of ``p(x0 | x_t)`` for each example. Where ``sigma = 0`` that is ``x_t / alpha``."""
        noise = normal((len(x_t), self.means.shape[1]), generator, torch.float64)
        x, alpha, sigma = self._prepare(x_t, t, schedule)
        k = torch.multinomial(self._log_joint(x, alpha, sigma).softmax(1), 1, generator=generator)[:, 0]
        rows = torch.arange(len(x), device=k.device)
        _, total = self._whiten(x, alpha, sigma)
        left = (self.variances.to(x.device) * sigma.unsqueeze(-1) ** 2 / total).expand(len(x), -1, -1)
        x0 = self._draw(self._component_means(x, alpha, sigma)[rows, k], left[rows, k], k, noise)
        x0 = torch.where(sigma > 0, x0, x / torch.where(sigma > 0, 1, alpha))
        return x0.reshape(x_t.shape).to(x_t.dtype)

    def _draw(self, mean: Tensor, variance: Tensor, k: Tensor, noise: Tensor) -> Tensor:
        spread = variance.sqrt() * noise
        return mean + (spread if self._axes is None else torch.einsum("bij,bj->bi", self._axes.to(k.device)[k], spread))

    def _check_density(self, alpha: Tensor, sigma: Tensor) -> None:
        if not (alpha.min() ** 2 * self.variances.min() + sigma.min() ** 2 > 0):
            raise ValueError("no density here: a component without width has one only where sigma > 0")

    def _whiten(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """``x - alpha m_k`` along the axes of each component, and its variances there: (B, K, D), (B or 1, K, D)."""
        alpha, sigma = alpha.unsqueeze(-1), sigma.unsqueeze(-1)
        z = x.unsqueeze(1) - alpha * self.means.to(x.device)
        if self._axes is not None:
            z = torch.einsum("bkd,kde->bke", z, self._axes.to(x.device))
        total = alpha**2 * self.variances.to(x.device) + sigma**2
        return z, torch.where(total > 0, total, 1)  # a point without noise: callers treat sigma = 0 apart

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

    mean: event. cov: () for ``cov I``, the shape of ``mean`` for a diagonal, or (D, D) in full; in full it is
    diagonalised once (its spectrum is ``variances``), so that every later noise level costs two products.
    """

    def __init__(self, mean: Tensor, cov: Tensor | float) -> None:
        mean, cov = _float64(mean), _float64(cov)
        size = mean.numel()
        if cov.shape in ((), mean.shape):
            if not (cov >= 0).all():
                raise ValueError("variances are not negative; these are")
            super().__init__(mean.unsqueeze(0), scales=cov.sqrt().expand(mean.shape).unsqueeze(0))
        elif cov.shape == (size, size):
            super().__init__(mean.unsqueeze(0), covs=cov.unsqueeze(0))
        else:
            raise ValueError(f"cov has shape (), {tuple(mean.shape)} or ({size}, {size}); got {tuple(cov.shape)}")
        self.mean, self.cov = mean, cov

    @classmethod
    def fit(cls, points: Tensor) -> GaussianLaw:
        """The normal law with the mean and the full covariance of ``points`` (N, *event), N > 1."""
        flat = points.double().flatten(1)
        return cls(points.double().mean(0), torch.cov(flat.T).reshape(flat.shape[1], flat.shape[1]))

    def flow(self, x_t: Tensor, t: Tensor | float, s: Tensor | float, schedule: Any) -> Tensor:
        """Where the probability flow leads from ``x_t`` at t, in closed form (Wang & Vastola 2024).

        ``x_s = alpha_s m + S_s^(1/2) S_t^(-1/2) (x_t - alpha_t m)`` with ``S = alpha^2 C + sigma^2 I``: each axis keeps
        its place in its spread. Any law with this mean and covariance flows so as long as the noise hides the rest.
        """
        x, alpha, sigma = self._prepare(x_t, t, schedule)
        _, alpha_s, sigma_s = self._prepare(x_t, s, schedule)
        z, spread = self._whiten(x, alpha, sigma)
        spread_s = (alpha_s**2 * self.variances.to(x.device) + sigma_s**2).unsqueeze(1)
        moved = self._unrotate((spread_s / spread).sqrt() * z).squeeze(1)
        return (alpha_s * self.means.to(x.device) + moved).reshape(x_t.shape).to(x_t.dtype)


class Empirical(_Continuous):
    """A finite data set as a law, each point equally likely: the best denoiser there is, and it only memorises.

    ``E[x0 | x_t] = sum_n softmax_n(-|x_t - alpha p_n|^2 / (2 sigma^2)) p_n``. points: (N, *event); labels: (N,).
    """

    def __init__(self, points: Tensor, labels: Tensor | None = None) -> None:
        points = _float64(points)
        if points.ndim < 2 or not len(points):
            raise ValueError(f"a data set has shape (N, *event) with N > 0; got {tuple(points.shape)}")
        self.event, self.points = points.shape[1:], points.flatten(1)
        self.labels = None if labels is None else torch.as_tensor(labels)

    def responsibilities(self, x_t: Tensor, t: Tensor | float, schedule: Any) -> Tensor:
        """``p(n | x_t)``, the probability that point n is what was noised: (B, N) in float64; needs ``sigma > 0``."""
        x, alpha, sigma = self._prepare(x_t, t, schedule)
        return self._logits(x, alpha, self._spread(sigma)).softmax(1)

    def log_prob(self, x_t: Tensor, t: Tensor | float = 0.0, schedule: Any = None) -> Tensor:
        """``log p_t(x_t)`` (B,) in float64. Raises ValueError where sigma is 0: points have no density."""
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
        if generator is None:
            raise ValueError("sampling draws random numbers: pass generator=torch.Generator().manual_seed(seed)")
        index = torch.randint(len(self.points), (n,), generator=generator, device=generator.device)
        return self.points.to(index.device)[index].reshape(n, *self.event).to(dtype)

    def sample_posterior(
        self, x_t: Tensor, t: Tensor | float, schedule: Any, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """One data point for each example, drawn from ``p(x0 | x_t)``; needs ``sigma > 0``."""
        if generator is None:
            raise ValueError("sampling draws random numbers: pass generator=torch.Generator().manual_seed(seed)")
        index = torch.multinomial(self.responsibilities(x_t, t, schedule), 1, generator=generator)[:, 0]
        return self.points.to(index.device)[index].reshape(x_t.shape).to(x_t.dtype)

    @staticmethod
    def _spread(sigma: Tensor) -> Tensor:
        if not (sigma > 0).all():
            raise ValueError("no density here: a finite data set has one only where sigma > 0")
        return sigma

    def _logits(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """``-|x - alpha p|^2 / (2 sigma^2)`` up to its part without p: one product of matrices, no (B, N, D)."""
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
