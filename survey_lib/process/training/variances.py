"""Learned variances of the reverse steps (improved DDPM, Nichol & Dhariwal 2021)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.checks import check_step, check_times
from survey_lib.core.corruptions import Gaussian, chain_variance, posterior_variance
from survey_lib.core.losses import step_kl
from survey_lib.core.protocols import BridgeOverride, Denoiser, expand
from survey_lib.core.schedules import Schedule
from survey_lib.process.training.emphasis import Loss


def interpolated_variance(share: Tensor, schedule: Schedule, t: Tensor | float, s: Tensor | float) -> Tensor:
    """``exp(share log large + (1 - share) log small)`` for ``share`` (B, ...) in [0, 1] (improved DDPM, eq. 15).

    Large is `chain_variance` and small `posterior_variance`. At s = 0, where the small one is 0, so is the result.
    """
    small, large = (expand(f(schedule, t, s), share).to(share) for f in (posterior_variance, chain_variance))
    return small * (large / small.clamp_min(torch.finfo(share.dtype).tiny)) ** share


def variance_loss(denoiser: Denoiser, schedule: Schedule, times: Tensor) -> Loss:
    """The bound's divergence at random steps of a grid, as a function of the variance alone (L_vlb, sec. 3.1).

    The model returns the logits of `interpolated_variance`'s share, in the shape of ``x_t``. The mean is that of a
    frozen denoiser, for their gradient of L_vlb does not reach it either. Per dimension, in nats.
    """
    times, corruption = check_times(times), Gaussian(schedule)
    steps = len(times) - 1 - int(times[-1] == 0)  # the last step has no finite divergence

    def loss(model: Callable, x0: Tensor, cond: Any, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        at = torch.randint(steps, (len(x0),), generator=generator, device=generator.device).cpu()
        t, s = times[at], times[at + 1]
        x_t = corruption.corrupt(x0, t, generator=generator)
        with torch.no_grad():
            prediction = denoiser(x_t, t, cond)
        variance = interpolated_variance(model(x_t, t, cond).double().sigmoid(), schedule, t, s)
        divergence = step_kl(replace(corruption, variance=variance), x_t, x0, prediction, t, s)
        return divergence / x0[0].numel(), schedule.lam(t).to(x0.device)

    return loss


@dataclass(frozen=True)
class LearnedVariance(BridgeOverride):
    """DDPM's bridge with the variance that a network chooses for each number of ``x_t``.

    logits: ``logits(x_t, t)`` of the share, as `variance_loss` trains them.
    """

    corruption: Gaussian
    logits: Callable[..., Tensor]

    def bridge(self, x_t: Tensor, x0: Tensor, t: Any, s: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """``x_s`` around the mean of ``corruption``'s bridge."""
        t, s = check_step(t, s)
        variance = interpolated_variance(self.logits(x_t, t).sigmoid(), self.corruption.schedule, t, s)
        return replace(self.corruption, variance=variance).bridge(x_t, x0, t, s, generator=generator)
