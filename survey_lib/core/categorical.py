"""Discrete diffusion: data are integers 0 … K-1, and noise is a matrix of probabilities (D3PM, Austin et al. 2021).

``matrix(s, t)[i, j] = q(x_t = j | x_s = i)``: rows are where one comes from, and sum to 1. A chain in continuous
time needs ``matrix(s, t) @ matrix(t, u) = matrix(s, u)`` (Chapman-Kolmogorov); the constructors here keep it to
rounding. Every entry of ``x`` is noised on its own; a denoiser answers with probabilities, K in the last dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from survey_lib.core.corruptions import check_step
from survey_lib.core.protocols import check_generator

#: A probability that falls from 1 at t = 0: of not having been touched by the noise.
Survival = Callable[[Tensor], Tensor]


def linear_survival(t: Tensor) -> Tensor:
    """``1 - t``: each moment takes an equal share of the information from an absorbing chain (D3PM, app. A.2.4)."""
    return 1 - t


def cosine_survival(t: Tensor) -> Tensor:
    """``cos(pi t / 2)^2``: gentle at both ends (Multinomial Diffusion, Hoogeboom et al. 2021, eq. 20)."""
    return torch.cos(t.clamp(max=1) * (math.pi / 2)) ** 2 * (t < 1)  # exactly 0 at t = 1


@dataclass(frozen=True)
class Categorical:
    """``x_t ~ matrix(0, t)[x0]`` and, backwards, the Bayes-normalised posterior.

    matrix: ``(s, t) -> (K, K)``, or (B, K, K) for times (B,), in float64. stationary: (K,), the law of ``x_1``.
    Constructors: `uniform`, `absorbing`, `mask_and_replace`, `discretised_gaussian`.
    """

    matrix: Callable[[Tensor, Tensor], Tensor]
    stationary: Tensor

    def prior(self, shape: Sequence[int], *, generator: torch.Generator | None = None) -> Tensor:
        """``x_1``, every entry drawn from ``stationary``: int64 on the generator's device."""
        return _draw(self.stationary.expand(*shape, -1), generator)

    def corrupt(self, x0: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_t ~ q(x_t | x0)``: integers (B, ...) -> integers (B, ...); t is () or (B,)."""
        return _draw(self.marginal(x0, t), generator)

    def marginal(self, x0: Tensor, t: Tensor | float) -> Tensor:
        """``q(x_t | x0)``: integers (B, ...) -> probabilities (B, ..., K) in float64."""
        return _rows(self._matrix(0.0, t, x0), x0)

    def likelihood(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """``q(x_t | x0 = k)`` for every category k: integers (B, ...) -> (B, ..., K) in float64, no law over k."""
        return _rows(self._matrix(0.0, t, x_t).mT, x_t)

    def posterior(self, x_t: Tensor, x0: Tensor, t: Tensor | float, s: Tensor | float) -> Tensor:
        """``p(x_s | x_t) = sum_k q(x_s | x_t, x0 = k) p(x0 = k)`` for probabilities ``x0`` (B, ..., K).

        By Bayes ``q(x_s | x_t, x0) = q(x_t | x_s) q(x_s | x0) / q(x_t | x0)``. The division weighs each ``x0`` by how
        well it explains ``x_t``; with the true ``p(x0 | x_t)`` the result is then the true reverse step. Categories
        that cannot have become ``x_t`` are left out, whatever the denoiser gives them.
        """
        t, s = check_step(t, s)
        self._check_answer(x_t, x0)
        explains = self.likelihood(x_t, t)
        possible = explains > 0
        weights = torch.where(possible, x0.double() / torch.where(possible, explains, 1), 0)  # 0 / 0 has no gradient
        joint = _rows(self._matrix(s, t, x_t).mT, x_t) * _apply(weights, self._matrix(0.0, s, x_t))
        return _normalise(joint).to(x0.dtype)

    def bridge(
        self,
        x_t: Tensor,
        x0: Tensor,
        t: Tensor | float,
        s: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``x_s ~ posterior(x_t, x0, t, s)``: integers (B, ...) and probabilities (B, ..., K) -> integers."""
        return _draw(self.posterior(x_t, x0, t, s), generator)

    def _check_answer(self, x_t: Tensor, x0: Tensor) -> None:
        expected = (*x_t.shape, len(self.stationary))
        if x0.shape != expected:
            raise ValueError(f"a denoiser of categories answers with shape {expected}, K last; got {tuple(x0.shape)}")
        if not (x0 >= 0).all():
            raise ValueError(
                "a denoiser of categories answers with probabilities; these are not: logits want a softmax"
            )

    def _matrix(self, s: Tensor | float, t: Tensor | float, x: Tensor) -> Tensor:
        """The matrix for integers ``x``, checked, on their device."""
        s, t = torch.as_tensor(s, dtype=torch.float64), torch.as_tensor(t, dtype=torch.float64)
        if t.numel() and not (t.min() >= 0 and t.max() <= 1):
            raise ValueError(f"times lie in [0, 1], 0 clean and 1 noise; got {t.min():g} to {t.max():g}")
        if t.ndim > 1 or (t.ndim == 1 and t.shape != x.shape[:1]):
            raise ValueError(f"t has shape () or ({len(x)},), one time for each example; got {tuple(t.shape)}")
        count = len(self.stationary)
        if x.is_floating_point() or (x.numel() and not (x.min() >= 0 and x.max() < count)):
            raise ValueError(f"categories are integers from 0 to {count - 1}; got {x.dtype} {x.min():g} to {x.max():g}")
        return self.matrix(s, t).to(x.device)


def posterior_without_bayes(
    corruption: Categorical, x_t: Tensor, x0: Tensor, t: Tensor | float, s: Tensor | float
) -> Tensor:
    """The reverse step as D3PM writes it (eq. 4): ``sum_k q(x_t | x_s) q(x_s | x0 = k) p(x0 = k)``, normalised.

    It omits the division by ``q(x_t | x0)`` of `Categorical.posterior`, and so counts the evidence of ``x_t`` twice:
    once in ``p(x0 | x_t)``, once more here. Even the true ``p(x0 | x_t)`` then gives a wrong law. Kept to show that.
    """
    t, s = check_step(t, s)
    corruption._check_answer(x_t, x0)
    joint = _rows(corruption._matrix(s, t, x_t).mT, x_t) * _apply(x0.double(), corruption._matrix(0.0, s, x_t))
    return _normalise(joint).to(x0.dtype)


def uniform(categories: int, survival: Survival = cosine_survival) -> Categorical:
    """With probability ``1 - survival(t)`` a category was drawn anew, all alike (Hoogeboom et al. 2021, eq. 11)."""
    return _resampling(torch.full((categories,), 1 / categories, dtype=torch.float64), survival)


def absorbing(categories: int, survival: Survival = linear_survival) -> Categorical:
    """With probability ``1 - survival(t)`` a category was masked for good (D3PM, app. A.2.2).

    The mask is one state more, the number ``categories``; so K is ``categories + 1``.
    """
    mask = torch.zeros(categories + 1, dtype=torch.float64)
    mask[-1] = 1
    return _resampling(mask, survival)


def mask_and_replace(
    categories: int, unmasked: Survival = lambda t: 1 - 0.9 * t, survival: Survival = linear_survival
) -> Categorical:
    """Some are masked, some replaced by a random category (VQ-Diffusion, Gu et al. 2022, eq. 7).

    ``unmasked(t)`` is the probability of no mask yet, ``survival(t)`` that of no replacement if unmasked. In the
    paper's symbols ``gamma_bar = 1 - unmasked`` and ``alpha_bar = unmasked * survival``. The mask is ``categories``.
    """
    others = torch.cat([torch.full((categories,), 1 / categories, dtype=torch.float64), torch.zeros(1).double()])
    mask = 1 - torch.ceil(others)

    def matrix(s: Tensor, t: Tensor) -> Tensor:
        seen, kept = (_column(f(t) / f(s)) for f in (unmasked, survival))
        rows = seen * (kept * torch.eye(categories + 1, dtype=torch.float64) + (1 - kept) * others) + (1 - seen) * mask
        return torch.where(mask.bool().unsqueeze(1), mask, rows)  # who is masked stays so

    return Categorical(matrix, matrix(torch.zeros(()).double(), torch.ones(()).double())[0])


def discretised_gaussian(categories: int, width: float = 1.0, survival: Survival = linear_survival) -> Categorical:
    """Ordered categories wander to near neighbours (in the spirit of D3PM, app. A.2.3), in continuous time.

    Jumps from i to j come at a rate proportional to ``exp(-((i - j) / width)^2 / 2)``; the matrix of a time span is
    the exponential of the symmetric rates, so that Chapman-Kolmogorov holds and the end is uniform. ``survival(t)``
    is what remains of the slowest mode, the coarsest feature; finer ones vanish sooner.
    """
    place = torch.arange(categories, dtype=torch.float64)
    rates = torch.exp(-(((place.unsqueeze(1) - place) / width) ** 2) / 2)
    decay, modes = torch.linalg.eigh(torch.diag(rates.sum(1)) - rates)
    decay = (decay / decay[min(1, categories - 1)]).clamp_min(0)  # 0 for the constant mode, 1 for the slowest
    decay[0] = 0

    def matrix(s: Tensor, t: Tensor) -> Tensor:
        left = _column(survival(t) / survival(s)) ** decay  # (..., 1, K); 0^0 = 1 keeps the constant mode
        rows = ((modes * left) @ modes.T).clamp_min(0)  # rounding leaves -1e-17 between distant categories
        return rows / rows.sum(-1, keepdim=True)

    return Categorical(matrix, torch.full((categories,), 1 / categories, dtype=torch.float64))


def _resampling(stationary: Tensor, survival: Survival) -> Categorical:
    """``matrix(s, t) = kept I + (1 - kept) 1 stationary^T`` with ``kept = survival(t) / survival(s)``."""
    eye = torch.eye(len(stationary), dtype=torch.float64)

    def matrix(s: Tensor, t: Tensor) -> Tensor:
        kept = _column(survival(t) / survival(s))
        return kept * eye + (1 - kept) * stationary

    return Categorical(matrix, stationary)


def _column(values: Tensor) -> Tensor:
    return values.reshape(*values.shape, 1, 1).cpu()


def _rows(matrix: Tensor, x: Tensor) -> Tensor:
    """The rows of (K, K) or (B, K, K) that the integers ``x`` (B, ...) name: (B, ..., K)."""
    if matrix.ndim == 2:
        return matrix[x.long()]
    batch = torch.arange(len(x), device=x.device).reshape(-1, *(1,) * (x.ndim - 1))
    return matrix[batch, x.long()]


def _apply(rows: Tensor, matrix: Tensor) -> Tensor:
    """Vectors (B, ..., K) times (K, K) or (B, K, K)."""
    return (rows.reshape(len(rows), -1, rows.shape[-1]) @ matrix).reshape(rows.shape)


def _normalise(joint: Tensor) -> Tensor:
    total = joint.sum(-1, keepdim=True)
    if not (total > 0).all():
        raise ValueError("the denoiser gives probability only to x0 that cannot have become x_t: nothing is left")
    return joint / total


def _draw(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    """One category for each row of (..., K)."""
    generator = check_generator(generator)
    heights = probabilities.to(generator.device, torch.float64).cumsum(-1)
    u = torch.rand(heights.shape[:-1], generator=generator, device=generator.device, dtype=torch.float64)
    drawn = (heights <= (u * heights[..., -1]).unsqueeze(-1)).sum(-1)
    return drawn.clamp_(max=heights.shape[-1] - 1)  # should the product round up to the whole
