"""Grids and coefficients learned by gradients; the denoiser stays frozen.

`LearnedSampler` has times and coefficients as parameters, and gradients pass through its whole trajectory (DDSS, Watson
et al. 2022). `StepNetwork` predicts the next step size from the noise level and the number of remaining steps (BDDM,
Lam et al. 2022); one network serves every number of steps. `fit` trains either on any loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from survey_lib.core.checks import PURE_NOISE, check_count, check_times
from survey_lib.core.protocols import Denoiser
from survey_lib.core.schedules import Schedule
from survey_lib.nets.layers import initialised


class LearnedSampler(nn.Module):
    """A sampler of few steps with learned times and coefficients, a small GGDM (Watson et al. 2022, sec. 4).

    ``x_s = keep x_t + gain (x0 + c_i (x0 - x0_before))`` with DDIM's ``keep = sigma_s / sigma_t`` and
    ``gain = alpha_s - alpha_t keep``. The coefficients c are the parameter ``extrapolation``: 0 is DDIM, and another
    choice a multistep method of order 2. The first time of the grid and its end at 0 stay. The denoiser must pass
    gradients to x and t, and the schedule must have a closed form of ``t(lam)``.
    """

    def __init__(self, schedule: Schedule, times: Tensor):
        super().__init__()
        lam = schedule.lam(check_times(times)[:-1])
        if schedule.inverse is None or not (lam > math.log(PURE_NOISE)).all() or times[-1] != 0:
            raise ValueError(
                "learned times need a schedule with a closed t(lam) and a grid from finite lam down to t = 0"
            )
        self.schedule = schedule
        self.register_buffer("start", lam[0])
        self.gaps = nn.Parameter(lam.diff().log())
        self.extrapolation = nn.Parameter(torch.zeros(len(lam), dtype=torch.float64))

    @property
    def lam(self) -> Tensor:
        """The rising levels lam at which the denoiser is evaluated: (steps,)."""
        return torch.cat([self.start[None], self.start + self.gaps.exp().cumsum(0)])

    @property
    def times(self) -> Tensor:
        """The grid for other samplers: (steps + 1,), ending at 0."""
        times = self.schedule.time(self.lam.detach())
        return check_times(torch.cat([times, times.new_zeros(1)]))

    def forward(self, denoiser: Denoiser, x: Tensor) -> Tensor:
        """Sample from noise ``x``. Activations of the denoiser are recomputed in the backward pass."""
        times = self.schedule.time(self.lam)
        alpha, sigma = self.schedule.scales(torch.cat([times, times.new_zeros(1)]))
        before = None
        for i, t in enumerate(times):
            x0 = checkpoint(denoiser, x, t, use_reentrant=False) if torch.is_grad_enabled() else denoiser(x, t)
            target = x0 if before is None else x0 + self.extrapolation[i] * (x0 - before)
            keep = sigma[i + 1] / sigma[i]
            x = (keep * x + (alpha[i + 1] - alpha[i] * keep) * target).to(x0.dtype)
            before = x0
        return x


class StepNetwork(nn.Module):
    """Predicts the next step size, as a fraction of the remaining lam, from lam and the number of remaining steps.

    BDDM's schedule network (Lam et al. 2022) without its input x_t. It is initialised to equal steps in lam from
    ``start`` to ``end``; ``end`` is where the last step to clean data begins, and is learned too.
    """

    def __init__(self, schedule: Schedule, start: float, end: float, *, width: int = 16, generator: torch.Generator):
        super().__init__()
        if schedule.inverse is None or not -math.inf < start < end < math.inf:
            raise ValueError("a step network needs finite lam with start < end and a schedule with a closed t(lam)")
        self.schedule, self.origin = schedule, start
        seed = int(torch.randint(2**31, (), generator=generator))
        self.inside = initialised(
            seed, lambda: nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2)).double()
        )
        nn.init.zeros_(self.inside[2].weight)
        nn.init.zeros_(self.inside[2].bias)
        self.span = end - start

    def forward(self, steps: int) -> Tensor:
        """A grid of ``steps`` steps, (steps + 1,) falling to 0; differentiable in the network's parameters."""
        check_count("the number of steps of a step network", steps, 2)
        lam = torch.tensor(self.origin, dtype=torch.float64)
        end = self.origin + self.span * F.softplus(self._evaluate(lam, steps)[1] + math.log(math.e - 1))
        levels = [lam]
        for left in range(steps - 1, 0, -1):
            fraction = torch.sigmoid(self._evaluate(lam, left)[0] - math.log(left - 1)) if left > 1 else 1.0
            lam = lam + fraction * (end - lam)
            levels.append(lam)
        times = self.schedule.time(torch.stack(levels))
        return torch.cat([times, times.new_zeros(1)])

    def _evaluate(self, lam: Tensor, left: int) -> Tensor:
        done = (lam - self.origin) / self.span
        return self.inside(torch.stack([done, done.new_tensor(1 / left), done.new_tensor(math.log(left) / 3)]))


def fit(
    parameters: nn.Module, loss: Callable[[], Tensor], *, rounds: int, rate: float = 0.03, clip: float = 1.0
) -> list[float]:
    """Minimise ``loss()`` over ``parameters`` in place, by Adam with a cosine schedule; return the losses.

    ``loss`` closes over the module and its random numbers. Raises RuntimeError for a loss that is not finite.
    """
    adam = torch.optim.Adam(parameters.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(1, rounds))
    history = []
    for _ in range(rounds):
        value = loss()
        if not value.isfinite():
            raise RuntimeError(f"loss is not finite after {len(history)} rounds ({value.item()}): lower the rate")
        adam.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(parameters.parameters(), clip)
        adam.step()
        schedule.step()
        history.append(value.item())
    return history
