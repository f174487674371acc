"""Samplers in one contest: the same network, the same noise, the same judge, and what each one's pictures cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from survey_lib.core.protocols import Denoiser, normal
from survey_lib.core.schedules import Schedule
from survey_lib.lab import data
from survey_lib.lab.evaluation import cost, metrics
from survey_lib.lab.evaluation.solvers import Method
from survey_lib.lab.training import checkpoints


@dataclass(frozen=True, eq=False)
class Contest:
    """What all methods share: ``start``, unit noise (N, C, H, W); ``real``, features of as many test pictures, and
    ``floor``, the Fréchet distance of as many others to them. ``macs`` are those of one evaluation of one picture.
    """

    denoiser: Denoiser
    schedule: Schedule
    eye: nn.Module
    start: Tensor
    real: Tensor
    floor: float
    macs: int

    @classmethod
    def of(
        cls, dataset: str, denoiser: Denoiser, schedule: Schedule, *, count: int, macs: int, generator: torch.Generator
    ) -> Contest:
        """On the test pictures of a data set, judged by its classifier ``dataset_features``."""
        eye = checkpoints.load(f"{dataset}_features", device=str(generator.device))
        test = data.load(dataset, split="test", count=2 * count)
        seen = metrics.features(eye, test.images)
        floor = metrics.floor(metrics.frechet_distance, seen, count, generator=generator)
        start = normal((count, *test.shape), generator)
        return cls(denoiser, schedule, eye, start, seen[:count], floor, macs)

    def judge(self, method: Method, budget: int, *, generator: torch.Generator) -> dict[str, Any]:
        """Draw and judge: ``quality, samples, evaluations, macs`` as `course.records.save` takes them.

        A method without a price (it stops by itself) may spend ``budget`` on every picture; ``spent`` is what it did.
        """
        counted, count = cost.CountCalls(self.denoiser), len(self.start)
        noise = self.start * self.schedule.scales(1.0)[1]
        with cost.measure(noise.device) as run:
            drawn = method(counted, self.schedule, noise, budget, generator=generator)
        seen = metrics.features(self.eye, drawn.nan_to_num().clamp(-1, 1))
        spent = counted.examples / count
        quality = {
            "fd": metrics.frechet_distance(self.real, seen),
            "coverage": metrics.density_coverage(self.real, seen).coverage,
            "floor": self.floor,
            "spent": spent,
            "core_seconds_per_1000": 1000 * run.cost.core_seconds / count,
        }
        samples = {"fd": count, "coverage": count}
        return {"quality": quality, "samples": samples, "evaluations": round(spent), "macs": round(spent * self.macs)}
