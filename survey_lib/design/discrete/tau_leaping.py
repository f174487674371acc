"""Chains in continuous time: jump rates, reverse rates, and tau-leaping (Campbell et al. 2022).

A chain whose ``matrix(s, t)`` composes is a jump process with rates ``R_t``; the reverse process has rates that follow
from the denoiser. Tau-leaping simulates it with constant rates over each step of a grid chosen after training.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.categorical import Categorical
from survey_lib.core.checks import check_generator, check_start, check_step
from survey_lib.core.protocols import BridgeOverride, Callback, Denoiser

#: First time of grids for tau-leaping: at t = 1 the rates are infinite.
START = 0.99
_SPAN = 1e-6  # step of the difference quotient: truncation and rounding errors are both about 1e-10


def rates(corruption: Categorical, t: Tensor | float) -> Tensor:
    """Rate matrix ``R_t = d/du matrix(t, u)`` at u = t: (S, S) in float64, with rows that sum to 0.

    Computed by a difference quotient with one Richardson extrapolation. Raises ValueError for t outside of [0, 0.9999].
    """
    t = torch.as_tensor(t, dtype=torch.float64)
    if t.ndim or not 0 <= t <= 1 - 1e-4:
        raise ValueError(
            f"rates need one t in [0, 0.9999], where they are finite (grids start at {START}); got {t.tolist()}"
        )
    eye = torch.eye(len(corruption.stationary), dtype=torch.float64)
    coarse, fine = ((corruption.matrix(t, t + span) - eye) / span for span in (_SPAN, _SPAN / 2))
    found = (2 * fine - coarse).fill_diagonal_(0).clamp_min(0)
    return found - torch.diag(found.sum(1))


def reverse_rates(corruption: Categorical, x_t: Tensor, x0: Tensor, t: Tensor | float) -> Tensor:
    """Rates of the time-reversed chain out of ``x_t`` (Campbell et al. 2022, prop. 3): (B, ..., S), 0 at ``x_t``.

    ``R(y -> x_t) sum_k q(y | k) / q(x_t | k) p(x0 = k | x_t)`` for the prediction ``x0`` (B, ..., S). This is the limit
    of the bridge's posterior for a vanishing step, and exact for the exact prediction.
    """
    corruption.check_prediction(x_t, x0)
    likelihood = corruption.likelihood(x_t, t)
    possible = likelihood > 0
    weights = torch.where(possible, x0.double() / torch.where(possible, likelihood, 1), 0)
    towards = weights @ corruption.matrix(torch.zeros(()).double(), torch.as_tensor(t, dtype=torch.float64)).to(
        x0.device
    )
    back = rates(corruption, t).T.to(x_t.device)[x_t]  # (B, ..., S): R(y -> x_t)
    return (back * towards).scatter(-1, x_t.unsqueeze(-1), 0)


@dataclass(frozen=True)
class TauLeaping(BridgeOverride):
    """Tau-leaping (Campbell et al. 2022, sec. 4.3) as the ``bridge`` of a corruption: constant rates from t to s.

    In each entry the number of jumps to y is Poisson with mean ``(t - s) rate``. A step to s = 0 samples from the
    prediction. Grids begin at `START`, not at 1.

    ordinal: categories are numbers; jumps add up, and the result is clamped to their range. Otherwise an entry with
        more than one jump in a step keeps its state.
    """

    corruption: Categorical
    ordinal: bool = False

    def bridge(self, x_t: Tensor, x0: Tensor, t: Any, s: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """One step: integers (B, ...) and probabilities (B, ..., S) -> integers."""
        t, s = check_step(t, s)
        if s == 0:
            return self.corruption.bridge(x_t, x0, t, s, generator=generator)
        return tau_leap(x_t, (t - s) * reverse_rates(self.corruption, x_t, x0, t), self.ordinal, generator=generator)

    def transition(self, x_t: Tensor, x0: Tensor, t: Any, s: Any) -> Tensor:
        """Exact distribution of ``bridge`` in each entry: (B, ..., S). Raises ValueError for ``ordinal``."""
        if self.ordinal:
            raise ValueError("transition is implemented for ordinal=False only; got ordinal=True")
        t, s = check_step(t, s)
        if s == 0:
            return self.corruption.posterior(x_t, x0, t, s).double()
        means = (t - s) * reverse_rates(self.corruption, x_t, x0, t)
        once = means * torch.exp(-means.sum(-1, keepdim=True))
        return once.scatter_add(-1, x_t.unsqueeze(-1), 1 - once.sum(-1, keepdim=True))


def tau_leap(x: Tensor, means: Tensor, ordinal: bool, *, generator: torch.Generator | None) -> Tensor:
    """Sample Poisson jumps with ``means`` (B, ..., S) from the states ``x`` (B, ...); see `TauLeaping`."""
    generator = check_generator(generator)
    jumps = torch.poisson(means.to(generator.device), generator=generator).to(x.device)
    states = torch.arange(means.shape[-1], device=x.device)
    if ordinal:
        moved = x + (jumps * (states - x.unsqueeze(-1))).sum(-1).long()
        return moved.clamp(0, means.shape[-1] - 1)
    return torch.where(jumps.sum(-1) == 1, jumps.argmax(-1), x)


@torch.no_grad()
def tau_leaping(
    denoiser: Denoiser,
    corruption: Categorical,
    x: Tensor,
    times: Tensor,
    *,
    ordinal: bool = False,
    corrections: int = 0,
    reach: float = 1.0,
    cond: Any = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Tau-leaping with corrector steps (Campbell et al. 2022, sec. 4.4).

    A corrector step uses the sum of forward and reverse rates at s, which leaves the exact marginal at s invariant and
    so reduces the error of the predictor. Without corrections this is
    ``ancestral(denoiser, TauLeaping(corruption, ordinal), x, times)``.

    times: a grid that begins at `START` or below.
    ordinal: see `TauLeaping`.
    corrections: corrector steps after each predictor step.
    reach: span of a corrector step relative to the predictor step.

    Evaluations: ``steps (1 + corrections)``, less ``corrections`` if the grid ends at 0.
    """
    bridge = TauLeaping(corruption, ordinal).bridge
    times, cond = check_start(x, times, cond, generator, integers=True)
    for t, s in pairwise(times):
        x0 = denoiser(x, t, cond)
        if callback:
            callback(x, t, x0)
        x = bridge(x, x0, t, s, generator=generator)
        for _ in range(corrections if s > 0 else 0):
            out = rates(corruption, s).to(x.device)[x].scatter(-1, x.unsqueeze(-1), 0)
            both = out + reverse_rates(corruption, x, denoiser(x, s, cond), s)
            x = tau_leap(x, reach * (t - s) * both, ordinal, generator=generator)
    return x
