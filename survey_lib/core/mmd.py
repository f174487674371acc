"""Maximum mean discrepancy with the polynomial kernel of KID (Bińkowski et al. 2018)."""

from __future__ import annotations

from torch import Tensor


def polynomial_kernel(x: Tensor, y: Tensor) -> Tensor:
    """``k(x, y) = (x . y / d + 1)^3`` for all pairs of features (N, d) and (M, d): (N, M)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def polynomial_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased squared MMD of features (N, d) and (M, d) with `polynomial_kernel`: (), differentiable in both.

    The metric KID as a loss; N and M need not be equal.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"features must be (N, d) and (M, d) with N, M > 1; got {tuple(x.shape)} and {tuple(y.shape)}")
    within = [
        (k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1))
        for k in (polynomial_kernel(x, x), polynomial_kernel(y, y))
    ]
    return sum(within) - 2 * polynomial_kernel(x, y).mean()
