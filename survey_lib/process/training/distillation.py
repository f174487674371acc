"""Students that take fewer steps: progressive, guided and one-step distillation, and consistency training.

A *teacher* walks a grid by DDIM. A student walks every second time of it, and learns to arrive where the teacher
arrives after two steps. What it has to predict is the clean image that leads there in one step, the bridge's
`implied_x0`. The perfect student (`TwoSteps`) is a denoiser too, so a student can be a teacher in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.checks import check_times
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.protocols import Denoiser, normal_like
from survey_lib.core.schedules import Schedule
from survey_lib.process.training.emphasis import Levels, Loss, Weight, truncated_snr_weight


@dataclass(frozen=True)
class TwoSteps:
    """The perfect student of a teacher on a grid: what two steps of the teacher imply for one.

    times: the teacher's grid, with an even number of steps. The student is asked at ``times[::2]``, but for the last.

    One step of DDIM with this denoiser is two steps with the teacher. Raises ValueError for a time between the
    student's.
    """

    teacher: Denoiser
    schedule: Schedule
    times: Tensor

    def __post_init__(self) -> None:
        steps = len(check_times(self.times)) - 1
        if steps % 2:
            raise ValueError(f"a student takes half of the teacher's steps, so their number is even; got {steps}")

    @property
    def grid(self) -> Tensor:
        """The student's grid."""
        return self.times[::2]

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
        t, m, s = self._steps(t)
        ddim = Gaussian(self.schedule, eta=0)
        x_m = ddim.bridge(x_t, self.teacher(x_t, t, cond), t, m)
        x_s = ddim.bridge(x_m, self.teacher(x_m, m, cond), m, s)
        return ddim.implied_x0(x_t, x_s, t, s)

    def _steps(self, t: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """The student's times next to t, and the two that follow each in the teacher's grid."""
        t = torch.as_tensor(t, dtype=torch.float64)
        starts = self.times[:-2:2]
        gap, at = (t.cpu()[..., None] - starts).abs().min(-1)
        if (gap > 1e-9).any():
            raise ValueError(f"the student is asked at the times {starts.tolist()}; got {t.tolist()}")
        return t, self.times[2 * at + 1], self.times[2 * at + 2]


def progressive_loss(student: TwoSteps, weight: Weight = truncated_snr_weight) -> Loss:
    """Squared distance to the perfect student, at random times of its grid (Salimans & Ho 2022, alg. 2)."""
    corruption, starts = Gaussian(student.schedule), student.grid[:-1]

    def loss(model: Denoiser, x0: Tensor, cond: Any, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        at = torch.randint(len(starts), (len(x0),), generator=generator, device=generator.device)
        t = starts[at.cpu()]
        x_t = corruption.corrupt(x0, t, generator=generator)
        target, lam = student(x_t, t, cond), student.schedule.lam(t).to(x0.device)
        return weight(lam).to(x0) * _error(model(x_t, t, cond), target), lam

    return loss


def guided_loss(
    guided: Callable[[float], Denoiser], schedule: Schedule, scales: tuple[float, float], levels: Levels
) -> Loss:
    """Squared distance to guided predictions, with the scale as an input of the student (Meng et al. 2023, alg. 1).

    guided: from a scale to the teacher's guided denoiser. Scales are uniform between ``scales``, one for each batch,
        and the student is called with ``cond = (labels, scale)``, the scale (B,).
    """
    corruption, (low, high) = Gaussian(schedule), scales

    def loss(model: Denoiser, x0: Tensor, cond: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        lam = levels.sample(len(x0), generator=generator)
        scale = low + (high - low) * torch.rand((), generator=generator, device=generator.device)
        t = schedule.time(lam)
        x_t = corruption.corrupt(x0, t, generator=generator)
        with torch.no_grad():
            target = guided(float(scale))(x_t, t, cond)
        found = model(x_t, t, (cond, scale.to(x0).expand(len(x0))))
        return truncated_snr_weight(lam).to(x0) * _error(found, target), lam

    return loss


def pair_loss(schedule: Schedule, start: float = 1.0) -> Loss:
    """Squared distance of one evaluation to the teacher's image (Denoising Student, Luhman & Luhman 2021).

    The examples are pairs: a teacher's images as ``x0``, and as ``cond`` the noises, of variance 1, from which it drew
    them. The evaluation is at ``start``, where the student will be asked.
    """

    def loss(model: Denoiser, x0: Tensor, cond: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
        t = torch.tensor(start, dtype=torch.float64)
        return _error(model(schedule.scales(t)[1].to(x0) * cond, t), x0), None

    return loss


def consistency_loss(schedule: Schedule, times: Tensor, *, teacher: Denoiser | None = None) -> Loss:
    """Distance of the predictions at neighbouring times of a grid, of which the cleaner is not trained.

    The state at the cleaner time has the same noise (consistency training), or lies one step of the ``teacher``'s DDIM
    further (consistency distillation, Song et al. 2023, alg. 2). Distance and weight are those of Song & Dhariwal
    (2024, sec. 3): pseudo-Huber's with ``c = 0.00054 sqrt(D)``, and ``1 / (sigma_t - sigma_s)`` in EDM's sigma.
    The model has to be the identity at t = 0, as `Preconditioned` with the head ``edm`` is.
    """
    times = check_times(times)
    noise = (-schedule.lam(times)).exp()

    def loss(model: Denoiser, x0: Tensor, cond: Any, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        at = torch.randint(len(times) - 1, (len(x0),), generator=generator, device=generator.device).cpu()
        t, s = times[at], times[at + 1]
        eps = normal_like(x0, generator)
        x_t = _state(schedule, x0, eps, t)
        with torch.no_grad():
            if teacher is None:
                x_s = _state(schedule, x0, eps, s)
            else:
                x_s = Gaussian(schedule, eta=0).bridge(x_t, teacher(x_t, t, cond), t, s)
            target = model(x_s, s, cond)
        c2 = 0.00054**2 * x0[0].numel()
        distance = ((model(x_t, t, cond) - target).square().flatten(1).sum(1) + c2).sqrt() - c2**0.5
        return distance / (noise[at] - noise[at + 1]).to(distance), schedule.lam(t).to(x0.device)

    return loss


def _state(schedule: Schedule, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """``alpha x0 + sigma eps``."""
    alpha, sigma = schedule.scales(t, like=x0)
    return alpha * x0 + sigma * eps


def _error(found: Tensor, target: Tensor) -> Tensor:
    return (found - target).square().flatten(1).mean(1)
