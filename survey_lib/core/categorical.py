"""Discrete diffusion: data are integers 0 … K-1, noise is a transition matrix (D3PM, Austin et al. 2021).

``matrix(s, t)[i, j] = q(x_t = j | x_s = i)``: each row is the distribution of ``x_t`` from one state, and sums to 1.
A chain in continuous time needs ``matrix(s, t) @ matrix(t, u) = matrix(s, u)`` (Chapman-Kolmogorov), which the
constructors here satisfy to rounding. The entries of ``x`` are noised independently; a denoiser returns
probabilities, K in the last dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from survey_lib.core.checks import check_batch_of_times, check_generator, check_step, check_time, holds

#: Probability that the noise has not yet changed an entry: decreasing in t, 1 at t = 0.
Survival = Callable[[Tensor], Tensor]


def linear_survival(t: Tensor) -> Tensor:
    """``1 - t``: an absorbing chain loses information at a constant rate (D3PM, app. A.2.4)."""
    return 1 - t


def cosine_survival(t: Tensor) -> Tensor:
    """``cos(pi t / 2)^2``: slope 0 at both ends (Multinomial Diffusion, Hoogeboom et al. 2021, eq. 20)."""
    return torch.cos(t.clamp(max=1) * (math.pi / 2)) ** 2 * (t < 1)  # exactly 0 at t = 1


@dataclass(frozen=True)
class Categorical:
    """Categorical corruption ``x_t ~ matrix(0, t)[x0]`` with the Bayes-normalised posterior as its bridge.

    matrix: ``(s, t) -> (K, K)``, or (B, K, K) for times (B,), in float64.
    stationary: (K,), the distribution of ``x_1``.
    Constructors: `uniform`, `absorbing`, `mask_and_replace`, `discretised_gaussian`.
    """

    matrix: Callable[[Tensor, Tensor], Tensor]
    stationary: Tensor

    def prior(
        self, shape: Sequence[int], t: Tensor | float = 1.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Entries drawn from ``stationary``, int64 on the generator's device.

        They are the initial state of a grid that begins at any ``t``: the data left in ``x_t`` are neglected.
        """
        check_time(t)
        return _draw(self.stationary.to(check_generator(generator).device).expand(*shape, -1), generator)

    def corrupt(self, x0: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_t ~ q(x_t | x0)``: integers (B, ...) -> integers (B, ...); t is () or (B,)."""
        return _draw(self.marginal(x0, t), generator)

    def marginal(self, x0: Tensor, t: Tensor | float) -> Tensor:
        """``q(x_t | x0)``: integers (B, ...) -> probabilities (B, ..., K) in float64."""
        return _rows(self._matrix(0.0, t, x0), x0)

    def likelihood(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """``q(x_t | x0 = k)`` for every category k, not normalised: integers (B, ...) -> (B, ..., K) in float64."""
        return _rows(self._matrix(0.0, t, x_t).mT, x_t)

    def posterior(self, x_t: Tensor, x0: Tensor, t: Tensor | float, s: Tensor | float) -> Tensor:
        """``p(x_s | x_t) = sum_k q(x_s | x_t, x0 = k) p(x0 = k)`` for probabilities ``x0`` (B, ..., K).

        By Bayes ``q(x_s | x_t, x0) = q(x_t | x_s) q(x_s | x0) / q(x_t | x0)``. With the true
        ``p(x0 | x_t)`` the result is the true reverse step. Categories that cannot have become ``x_t`` are excluded,
        whatever probability the denoiser gives them.
        """
        t, s = check_step(t, s)
        self.check_prediction(x_t, x0)
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

    def check_prediction(self, x_t: Tensor, x0: Tensor) -> None:
        """Raise ValueError unless ``x0`` holds probabilities of the categories of ``x_t``, (B, ..., K)."""
        expected = (*x_t.shape, len(self.stationary))
        if x0.shape != expected:
            raise ValueError(f"a denoiser of categories returns shape {expected}, K last; got {tuple(x0.shape)}")
        if not holds(x0 >= 0):
            raise ValueError(f"a denoiser of categories returns probabilities; got {x0.min():g}: logits want a softmax")

    def _matrix(self, s: Tensor | float, t: Tensor | float, x: Tensor) -> Tensor:
        """The matrix for integers ``x``, checked, on their device."""
        s, t = check_time(s, "s"), check_time(t)
        check_batch_of_times(t, x)
        count = len(self.stationary)
        if x.is_floating_point() or not holds((x >= 0) & (x < count)):
            raise ValueError(f"categories are integers from 0 to {count - 1}; got {x.dtype} {x.min():g} to {x.max():g}")
        return self.matrix(s, t).to(x.device)


def posterior_without_bayes(
    corruption: Categorical, x_t: Tensor, x0: Tensor, t: Tensor | float, s: Tensor | float
) -> Tensor:
    """D3PM's reverse step (eq. 4): ``sum_k q(x_t | x_s) q(x_s | x0 = k) p(x0 = k)``, normalised.

    It omits the division by ``q(x_t | x0)`` of `Categorical.posterior`, and so counts the evidence of ``x_t`` twice:
    in ``p(x0 | x_t)`` and here. Even the true ``p(x0 | x_t)`` then gives a wrong distribution, as lesson 11 shows.
    """
    t, s = check_step(t, s)
    corruption.check_prediction(x_t, x0)
    joint = _rows(corruption._matrix(s, t, x_t).mT, x_t) * _apply(x0.double(), corruption._matrix(0.0, s, x_t))
    return _normalise(joint).to(x0.dtype)


def uniform(categories: int, survival: Survival = cosine_survival) -> Categorical:
    """With probability ``1 - survival(t)`` a category is replaced by a uniform draw (Hoogeboom et al. 2021, eq. 11)."""
    return _resampling(torch.full((categories,), 1 / categories, dtype=torch.float64), survival)


def absorbing(categories: int, survival: Survival = linear_survival) -> Categorical:
    """With probability ``1 - survival(t)`` a category is masked, and stays masked (D3PM, app. A.2.2).

    The mask is the additional state ``categories``; so K is ``categories + 1``.
    """
    mask = torch.zeros(categories + 1, dtype=torch.float64)
    mask[-1] = 1
    return _resampling(mask, survival)


def mask_and_replace(
    categories: int, unmasked: Survival = lambda t: 1 - 0.9 * t, survival: Survival = linear_survival
) -> Categorical:
    """Entries are masked, or replaced by a uniform draw (VQ-Diffusion, Gu et al. 2022, eq. 7).

    ``unmasked(t)`` is the probability of no mask, ``survival(t)`` the probability of no replacement if unmasked. In
    the paper's symbols ``gamma_bar = 1 - unmasked`` and ``alpha_bar = unmasked * survival``. The mask is the state
    ``categories``.
    """
    others = torch.cat([torch.full((categories,), 1 / categories, dtype=torch.float64), torch.zeros(1).double()])
    mask = 1 - torch.ceil(others)

    def matrix(s: Tensor, t: Tensor) -> Tensor:
        seen, kept = (_column(f(t) / f(s)) for f in (unmasked, survival))
        rows = seen * (kept * torch.eye(categories + 1, dtype=torch.float64) + (1 - kept) * others) + (1 - seen) * mask
        return torch.where(mask.bool().unsqueeze(1), mask, rows)  # a masked entry stays masked

    return Categorical(matrix, matrix(torch.zeros(()).double(), torch.ones(()).double())[0])


def discretised_gaussian(categories: int, width: float = 1.0, survival: Survival = linear_survival) -> Categorical:
    """Ordered categories jump to near neighbours (after D3PM, app. A.2.3), in continuous time.

    Jumps from i to j have a rate proportional to ``exp(-((i - j) / width)^2 / 2)``; the matrix of a time span is
    the exponential of the symmetric rates, so that Chapman-Kolmogorov holds and ``x_1`` is uniform. ``survival(t)``
    is the remaining amplitude of the slowest mode, the coarsest feature; finer modes decay sooner.
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
    """Rows of a matrix (K, K) or (B, K, K) at the integers ``x`` (B, ...): (B, ..., K)."""
    if matrix.ndim == 2:
        return matrix[x.long()]
    batch = torch.arange(len(x), device=x.device).reshape(-1, *(1,) * (x.ndim - 1))
    return matrix[batch, x.long()]


def _apply(rows: Tensor, matrix: Tensor) -> Tensor:
    """Vectors (B, ..., K) times (K, K) or (B, K, K)."""
    return (rows.reshape(len(rows), -1, rows.shape[-1]) @ matrix).reshape(rows.shape)


def _normalise(joint: Tensor) -> Tensor:
    total = joint.sum(-1, keepdim=True)
    if not holds(total > 0):
        raise ValueError("no x0 to which the denoiser gives probability can have become x_t")
    return joint / total


def _draw(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    """One category for each row of (..., K), on the device of ``probabilities``."""
    generator = check_generator(generator)
    heights = probabilities.double().cumsum(-1)
    u = torch.rand(heights.shape[:-1], generator=generator, device=generator.device, dtype=torch.float64)
    drawn = (heights <= (u.to(heights.device) * heights[..., -1]).unsqueeze(-1)).sum(-1)
    return drawn.clamp_(max=heights.shape[-1] - 1)  # should the product round up to the whole
