"""Fidelity against diversity: what guidance buys, what it costs, and who judges it.

    judge = Judge.of("mnist", 1000)
    drawn = draw(lambda count: ClassifierFree(count(net), 10, 2.0), schedule, noise, times, wanted)
    row = judge.score(drawn.images, wanted) | drawn.cost

Two rules. The classifier that says whether an image shows what was asked for has had no part in making it
(``features2``, while distances are taken in ``features``). And what counts as an evaluation is one example through one
network: a guided step in one doubled batch is two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from survey_lib.core.integrators import multistep
from survey_lib.core.protocols import Denoiser
from survey_lib.core.schedules import Schedule
from survey_lib.lab.data import load
from survey_lib.lab.evaluation import cost, metrics
from survey_lib.lab.training import checkpoints


@dataclass(frozen=True, eq=False)
class Judge:
    """Real images (N, d) as the feature network sees them, and a second network that names labels.

    ``reserve`` are as many other real images, of which `floor` says what perfect samples would score.
    """

    eye: nn.Module
    second: nn.Module
    real: Tensor
    reserve: Tensor
    reserve_accuracy: float

    @classmethod
    def of(cls, dataset: str, count: int, root: Path | None = None) -> Judge:
        """From the first ``2 count`` test images of a data set, and its two shipped classifiers."""
        test = load(dataset, split="test", count=2 * count)
        if len(test) < 2 * count:
            raise ValueError(f"{dataset} has {len(test)} test images: count is {len(test) // 2} at most; got {count}")
        eye, second = (checkpoints.load(f"{dataset}_{role}", root=root) for role in ("features", "features2"))
        seen = metrics.features(eye, test.images)
        named = metrics.classify(second, test.images[count:])[0]
        accuracy = float((named == test.labels[count:]).double().mean())
        return cls(eye, second, seen[:count], seen[count:], accuracy)

    def score(self, images: Tensor, wanted: Tensor) -> dict[str, float]:
        """Of as many images as there are real ones: ``fd, precision, recall, density, coverage, accuracy, samples``.

        ``accuracy`` is the part that the second network takes for the label ``wanted`` (N,). Images are uint8, or
        floats that are clamped to [-1, 1].
        """
        images = images.clamp(-1, 1) if images.is_floating_point() else images
        named = metrics.classify(self.second, images)[0]
        return self._compare(metrics.features(self.eye, images), float((named == wanted.cpu()).double().mean()))

    def floor(self) -> dict[str, float]:
        """The same of real images: what a perfect sampler would get."""
        return self._compare(self.reserve, self.reserve_accuracy)

    def _compare(self, seen: Tensor, accuracy: float) -> dict[str, float]:
        return {
            "samples": float(len(seen)),
            "fd": metrics.frechet_distance(self.real, seen),
            **metrics.precision_recall(self.real, seen)._asdict(),
            **metrics.density_coverage(self.real, seen)._asdict(),
            "accuracy": accuracy,
        }


@dataclass(frozen=True)
class Drawn:
    """Images, and what each of them took: ``cost`` has the fields of a record."""

    images: Tensor
    evaluations: float  # of a network, a sample
    calls: int
    core_seconds: float  # a sample

    @property
    def cost(self) -> dict[str, float]:
        return {"evaluations": self.evaluations, "core_seconds": self.core_seconds}


def draw(
    guided: Callable[[Callable[[Denoiser], Denoiser]], Denoiser],
    schedule: Schedule,
    noise: Tensor,
    times: Tensor,
    cond: Tensor | None,
    *,
    batch: int = 250,
    walk: Callable[..., Tensor] = multistep,
) -> Drawn:
    """Walk from ``noise`` (N, ...), which stands at the first of ``times``, to images, ``batch`` at a time.

    ``guided(count)`` builds the denoiser around ``count(network)``, which counts what goes through that network; what
    is not wrapped is not counted, but its time is. ``walk`` is a sampler, `multistep` of second order by default.
    """
    counters: list[cost.CountCalls] = []

    def count(network: Denoiser) -> Denoiser:
        counters.append(cost.CountCalls(network))
        return counters[-1]

    denoiser, starts = guided(count), noise.split(batch)
    conds = [None] * len(starts) if cond is None else cond.split(batch)
    with torch.no_grad(), cost.measure(noise.device) as run:
        parts = [walk(denoiser, schedule, x, times, cond=y) for x, y in zip(starts, conds, strict=True)]
    examples, calls = (sum(getattr(one, what) for one in counters) for what in ("examples", "calls"))
    return Drawn(torch.cat(parts).clamp(-1, 1), examples / len(noise), calls, run.cost.core_seconds / len(noise))
