"""What each step adds to the variational bound, and the best grid of every length on a table of such terms.

For a Gaussian bridge and a sampler with variance w, the step from t to s costs, a dimension and in nats, ::

    KL = (b^2 e(t) + v - w) / (2 w) + log(w / v) / 2,      e(t) = E |x0 - x0_hat(x_t, t)|^2

with b what the mean of the step takes of x0 and v the variance of the bridge: of the denoiser only its error at t
enters. One pass over G times therefore prices all G^2 steps. With ``w = v`` (DDPM's small variance) the price is
``(SNR_s - SNR_t) e(t) / 2``, a left Riemann sum of the bound of endless steps; with the best w (Analytic-DPM) it is
``log(1 + (SNR_s - SNR_t) e(t)) / 2``, never more. The last step, to the data, has a price of its own at each t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.corruptions import Gaussian
from survey_lib.core.losses import prior_kl, reconstruction
from survey_lib.core.protocols import Denoiser, check_times
from survey_lib.process.scheduling.chains import evaluate_at, interpolate


@dataclass(frozen=True)
class BoundTable:
    """The bound on every walk over ``times`` (G + 1,), in nats an image (a mean over the images asked).

    error: ``E |x0 - x0_hat|^2`` a dimension at ``times[:-1]``; last: the price of stepping from each of these to the
    data; prior: that of starting at ``times[0]``. All float64 on the CPU.
    """

    corruption: Gaussian
    times: Tensor
    dims: int
    error: Tensor
    last: Tensor
    prior: float

    @property
    def costs(self) -> Tensor:
        """(G + 1, G + 1): the price of the step from time i to time j, infinite unless j > i."""
        count = len(self.times)
        costs = torch.full((count, count), math.inf, dtype=torch.float64)
        i, j = torch.triu_indices(count - 1, count - 1, offset=1)
        costs[i, j] = self.dims * step_cost(self.corruption, self.times[i], self.times[j], self.error[i])
        costs[:-1, -1] = self.last
        return costs

    def bound(self, times: Tensor) -> Tensor:
        """The bound of *any* walk that starts at ``times[0]`` of the table and ends at 0: () in nats, differentiable.

        Between the table's times ``log e`` and the price of the last step are taken to be linear in lam.
        """
        lam, t = self.corruption.schedule.lam(self.times[:-1]), times[:-1].double()
        if not torch.isclose(t[0].detach(), self.times[0]):
            raise ValueError(f"the table prices walks from t = {self.times[0]:g}; this one starts at {t[0]:g}")
        at = self.corruption.schedule.lam(t)
        error = interpolate(at, lam, self.error.log()).exp()
        steps = step_cost(self.corruption, t[:-1], t[1:], error[:-1]).sum()
        return self.prior + self.dims * steps + interpolate(at[-1], lam, self.last)


def step_cost(corruption: Gaussian, t: Tensor, s: Tensor, error: Tensor) -> Tensor:
    """``KL(q(x_s | x_t, x0) || p(x_s | x_t))`` a dimension in nats, in expectation; t, s, error are (P,), s > 0."""
    _, on_x0, variance = corruption.coefficients(t, s)
    bridge = replace(corruption, variance=None).coefficients(t, s)[2]
    return (on_x0**2 * error + bridge - variance) / (2 * variance) + 0.5 * (variance / bridge).log()


def bound_table(
    denoiser: Denoiser,
    corruption: Gaussian,
    x0: Tensor,
    times: Tensor,
    *,
    bins: float | None = 2 / 255,
    cond: Any = None,
    generator: torch.Generator,
) -> BoundTable:
    """One pass over the grid ``times`` (falling to 0) with images ``x0`` (B, ...): G evaluations of the batch.

    ``bins`` is the spacing of the data's values, as in `losses.reconstruction`. The corruption has ``eta > 0``.
    """
    times = check_times(times)
    if times[-1] != 0:
        raise ValueError(f"the bound is on clean data: its grid ends at 0; this one ends at {times[-1]:g}")
    if corruption.eta == 0:
        raise ValueError("a chain without noise gives almost all data density zero: take eta > 0")
    errors, last = [], []
    for t, x_t, answer, error in evaluate_at(denoiser, corruption, x0, times[:-1], cond, generator):
        errors.append(error)
        last.append(reconstruction(corruption, x_t, x0, answer, t, bins=bins).mean().cpu())
    prior = prior_kl(corruption, x0, times[0]).mean().item()
    return BoundTable(corruption, times, x0[0].numel(), torch.stack(errors), torch.stack(last), prior)


@dataclass(frozen=True)
class ShortestPaths:
    """The cheapest walk of every length from the first node to the last.

    costs: (K,), of the best walk of 1, 2, ... K steps, infinite where there is none; came_from: (K, n).
    """

    costs: Tensor
    came_from: Tensor

    def path(self, steps: int) -> Tensor:
        """The ``steps + 1`` nodes of the best walk of so many steps."""
        if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= len(self.costs):
            raise ValueError(f"walks of 1 to {len(self.costs)} steps are known; got {steps!r}")
        if not self.costs[steps - 1].isfinite():
            raise ValueError(f"no walk of {steps} steps leads to the end")
        nodes = [self.came_from.shape[1] - 1]
        for k in range(steps - 1, -1, -1):
            nodes.append(int(self.came_from[k, nodes[-1]]))
        return torch.tensor(nodes[::-1])


def shortest_paths(costs: Tensor, steps: int | None = None) -> ShortestPaths:
    """Dynamic programming over a table of steps (Watson et al. 2021, alg. 1): optimal, for every length at once.

    ``best[k][j] = min_i best[k - 1][i] + costs[i][j]``: the best walk of k steps to j ends with some step i -> j,
    and the rest of it is the best walk of k - 1 steps to i. ``costs`` is (n, n), infinite where there is no step.
    Time ``O(K n^2)`` for all lengths up to K (``steps``, or n - 1).
    """
    costs = torch.as_tensor(costs, dtype=torch.float64)
    if costs.ndim != 2 or costs.shape[0] != costs.shape[1] or len(costs) < 2 or costs.isnan().any():
        raise ValueError(f"a table of steps is a square of numbers, two nodes or more; got {tuple(costs.shape)}")
    most = len(costs) - 1
    steps = most if steps is None else steps
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= most:
        raise ValueError(f"{len(costs)} nodes are walked in 1 to {most} steps; got {steps!r}")
    best = torch.full((len(costs),), math.inf, dtype=torch.float64)
    best[0] = 0.0
    ends, came_from = [], []
    for _ in range(steps):
        best, before = (best[:, None] + costs).min(0)
        ends.append(best[-1])
        came_from.append(before)
    return ShortestPaths(torch.stack(ends), torch.stack(came_from))
