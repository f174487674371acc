"""The variational bound of every grid, from one table of step costs, and the optimal grid of every length.

For a Gaussian bridge and a sampler with variance w, the step from t to s costs, in nats per dimension, ::

    KL = (b^2 e(t) + v - w) / (2 w) + log(w / v) / 2,      e(t) = E |x0 - x0_hat(x_t, t)|^2

where b is the coefficient of x0 in the mean of the step and v the variance of the bridge. It depends on the denoiser
through its error e(t) alone, so one pass over G times gives the costs of all G^2 steps. With ``w = v`` (DDPM's small
variance) the cost is ``(SNR_s - SNR_t) e(t) / 2``, a left Riemann sum of the continuous-time bound. With the optimal w
(Analytic-DPM) it is ``log(1 + (SNR_s - SNR_t) e(t)) / 2``, never more. The last step, to the data, has a cost of its
own at each t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.checks import check_count, check_times
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.losses import BYTE_STEP, prior_kl, reconstruction
from survey_lib.core.protocols import Denoiser
from survey_lib.process.scheduling.variances import evaluate_at, interpolate


@dataclass(frozen=True)
class BoundTable:
    """Terms of the bound for every grid of ``times`` (G + 1,), in nats per image; float64 on the CPU.

    dims: dimensions of an image.
    error: ``E |x0 - x0_hat|^2`` per dimension at ``times[:-1]``.
    last: cost of the last step, from each of ``times[:-1]`` to the data.
    prior: cost of starting at ``times[0]``.
    """

    corruption: Gaussian
    times: Tensor
    dims: int
    error: Tensor
    last: Tensor
    prior: float

    @property
    def costs(self) -> Tensor:
        """Cost of the step from time i to time j, infinite unless j > i: (G + 1, G + 1)."""
        count = len(self.times)
        costs = torch.full((count, count), math.inf, dtype=torch.float64)
        i, j = torch.triu_indices(count - 1, count - 1, offset=1)
        costs[i, j] = self.dims * step_cost(self.corruption, self.times[i], self.times[j], self.error[i])
        costs[:-1, -1] = self.last
        return costs

    def bound(self, times: Tensor) -> Tensor:
        """The bound of *any* grid that starts at ``times[0]`` of the table and ends at 0: () in nats, differentiable.

        Between the times of the table, ``log e`` and the cost of the last step are interpolated linearly in lam.
        """
        lam, t = self.corruption.schedule.lam(self.times[:-1]), times[:-1].double()
        if not torch.isclose(t[0].detach(), self.times[0]):
            raise ValueError(f"the table holds grids that start at t = {self.times[0]:g}; got a start at {t[0]:g}")
        at = self.corruption.schedule.lam(t)
        error = interpolate(at, lam, self.error.log()).exp()
        steps = step_cost(self.corruption, t[:-1], t[1:], error[:-1]).sum()
        return self.prior + self.dims * steps + interpolate(at[-1], lam, self.last)


def step_cost(corruption: Gaussian, t: Tensor, s: Tensor, error: Tensor) -> Tensor:
    """Expected ``KL(q(x_s | x_t, x0) || p(x_s | x_t))`` in nats per dimension, for t, s, error (P,) with s > 0."""
    _, on_x0, variance = corruption.coefficients(t, s)
    bridge = replace(corruption, variance=None).coefficients(t, s)[2]
    return (on_x0**2 * error + bridge - variance) / (2 * variance) + 0.5 * (variance / bridge).log()


def bound_table(
    denoiser: Denoiser,
    corruption: Gaussian,
    x0: Tensor,
    times: Tensor,
    *,
    bin_width: float | None = BYTE_STEP,
    cond: Any = None,
    generator: torch.Generator,
) -> BoundTable:
    """Measure a `BoundTable` in one pass over the grid ``times``, which falls to 0: G evaluations of the batch.

    corruption: must have ``eta > 0``.
    x0: images (B, ...).
    bin_width: spacing of the data's values, as in `losses.reconstruction`.
    """
    times = check_times(times)
    if times[-1] != 0:
        raise ValueError(f"the grid of a bound must end at t = 0; got {times[-1]:g}")
    if corruption.eta == 0:
        raise ValueError("a deterministic chain gives almost all data density zero: eta must be positive")
    errors, last = [], []
    for t, x_t, prediction, error in evaluate_at(denoiser, corruption, x0, times[:-1], cond, generator):
        errors.append(error)
        last.append(reconstruction(corruption, x_t, x0, prediction, t, bin_width=bin_width).mean().cpu())
    prior = prior_kl(corruption, x0, times[0]).mean().item()
    return BoundTable(corruption, times, x0[0].numel(), torch.stack(errors), torch.stack(last), prior)


@dataclass(frozen=True)
class ShortestPaths:
    """The shortest path of every length from the first node to the last.

    costs: total cost (K,) of the shortest path of 1, 2, ... K steps, infinite where no path exists.
    came_from: predecessor (K, n) of each node on the shortest path of 1, 2, ... K steps to it.
    """

    costs: Tensor
    came_from: Tensor

    def path(self, steps: int) -> Tensor:
        """The ``steps + 1`` nodes of the shortest path of ``steps`` steps."""
        check_count("the number of steps of a path", steps, high=len(self.costs))
        if not self.costs[steps - 1].isfinite():
            raise ValueError(f"no path of {steps} steps reaches the last node")
        nodes = [self.came_from.shape[1] - 1]
        for k in range(steps - 1, -1, -1):
            nodes.append(int(self.came_from[k, nodes[-1]]))
        return torch.tensor(nodes[::-1])


def shortest_paths(costs: Tensor, steps: int | None = None) -> ShortestPaths:
    """Shortest paths of every length by dynamic programming (Watson et al. 2021, alg. 1).

    ``best[k][j] = min_i best[k - 1][i] + costs[i][j]``: the shortest path of k steps to j ends with some step i -> j,
    and the rest of it is the shortest path of k - 1 steps to i. ``costs`` is (n, n), infinite where a step is not
    allowed. Time ``O(K n^2)`` for all lengths up to K (``steps``, or n - 1).
    """
    costs = torch.as_tensor(costs, dtype=torch.float64)
    if costs.ndim != 2 or costs.shape[0] != costs.shape[1] or len(costs) < 2 or costs.isnan().any():
        raise ValueError(f"costs must be a square matrix of numbers, 2 x 2 or larger; got {tuple(costs.shape)}")
    most = len(costs) - 1
    steps = most if steps is None else steps
    check_count(f"the number of steps of a path over {len(costs)} nodes", steps, high=most)
    best = torch.full((len(costs),), math.inf, dtype=torch.float64)
    best[0] = 0.0
    ends, came_from = [], []
    for _ in range(steps):
        best, before = (best[:, None] + costs).min(0)
        ends.append(best[-1])
        came_from.append(before)
    return ShortestPaths(torch.stack(ends), torch.stack(came_from))
