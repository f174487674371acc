"""Where a lesson on guidance works: the networks of one data set, one way of drawing, its price, and its judges.

    studio = Studio.of("mnist", vp_linear())
    images = studio.draw(ClassifierFree(studio.net("conditional"), studio.null, 2.0), noise, wanted)
    studio.hits(images, wanted)

A guided denoiser is often handed over as ``make(net)``, a function of the function that gives a network for its role.
So the same recipe can be drawn with, counted and priced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from survey_lib.core import grids
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.heads import select_label
from survey_lib.core.integrators import multistep
from survey_lib.core.protocols import Denoiser
from survey_lib.core.schedules import Schedule
from survey_lib.lab import data
from survey_lib.lab.evaluation import cost, fidelity, metrics
from survey_lib.lab.evaluation.speed import fast
from survey_lib.lab.training import checkpoints

ROLES = ("base", "conditional", "weak", "noisy", "features", "features2")

#: A recipe of a guided denoiser: from ``net(role)``, which gives "base", "conditional" or "weak".
Make = Callable[[Callable[[str], Denoiser]], Denoiser]


class Bill(NamedTuple):
    """What one picture takes: evaluations of denoisers, and the multiply-accumulates of everything."""

    evaluations: int
    macs: int


@dataclass(frozen=True, eq=False)
class Studio:
    """The six networks of a data set and what is done with them. ``shape`` is that of an image, (C, H, W)."""

    dataset: str
    schedule: Schedule
    networks: Mapping[str, nn.Module]
    shape: tuple[int, ...]
    device: str = "cpu"

    @classmethod
    def of(cls, dataset: str, schedule: Schedule, *, device: str = "cpu", root: Path | None = None) -> Studio:
        """From the checkpoints ``dataset_role`` for all `ROLES`."""
        loaded = {
            role: checkpoints.load(f"{dataset}_{role}", schedule=schedule, device=device, root=root) for role in ROLES
        }
        return cls(dataset, schedule, loaded, data.load(dataset, count=1).shape, device)

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return self.networks["features"].heads[0]

    @property
    def null(self) -> int:
        """The label that means "no label" to the conditional networks."""
        return self.classes

    @property
    def noisy(self) -> nn.Module:
        """The classifier of noisy images, a `LabelPosterior`."""
        return self.networks["noisy"]

    @cached_property
    def _fast(self) -> dict[str, Denoiser]:
        return {role: fast(self.networks[role]) for role in ("base", "conditional", "weak")}

    def net(self, role: str) -> Denoiser:
        """A denoiser at full speed; ``base``, which was built without labels, ignores those it is handed."""
        return self._hearing(role, self._fast[role])

    def _hearing(self, role: str, net: Denoiser) -> Denoiser:
        return (lambda x_t, t, cond=None: net(x_t, t)) if role == "base" else net

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """Where walks begin: (count, C, H, W)."""
        return Gaussian(self.schedule).prior((count, *self.shape), generator=generator)

    def draw(self, denoiser: Denoiser, start: Tensor, cond: Any = None, *, steps: int = 16, **options: Any) -> Tensor:
        """DPM-Solver++ 2M on Karras's grid, as lessons 02 and 25 have it; what leaves [-1, 1] is left outside."""
        return multistep(denoiser, self.schedule, start, grids.karras(steps, self.schedule), cond=cond, **options)

    # ------------------------------------------------------------ judges

    def named(self, images: Tensor, judge: str = "features2") -> Tensor:
        """Log-probabilities of the labels by a classifier of clean images: (N, classes), differentiable."""
        return self.networks[judge](images)[:, : self.classes].log_softmax(1)

    def hits(self, images: Tensor, wanted: Tensor, judge: str = "features2") -> float:
        """The part of the images in which a classifier sees the label that was wanted (N,)."""
        with torch.no_grad():
            return (self.named(images.clamp(-1, 1), judge).argmax(1) == wanted).double().mean().item()

    def spread(self, images: Tensor, wanted: Tensor) -> float:
        """How different images of one label are: the deviation of their features within labels."""
        seen, wanted = metrics.features(self.networks["features"], images.clamp(-1, 1)), wanted.cpu()
        own = [seen[wanted == label] for label in wanted.unique().tolist()]
        variances = [part.var(0).sum() for part in own if len(part) > 1]
        if not variances:
            raise ValueError("a spread within labels needs two images of one label at least")
        return torch.stack(variances).mean().sqrt().item()

    def praise(self, images: Tensor, wanted: Tensor, generator: torch.Generator, noise: float = 0.2) -> float:
        """The mean similarity that the noisy classifier, a contrastive net, finds between images and their labels.

        It is shown them with a little noise, ``sigma / alpha = noise``: clean ones it has hardly seen.
        """
        t = self.schedule.time(-torch.tensor(noise, dtype=torch.float64).log())
        x_t = Gaussian(self.schedule).corrupt(images.clamp(-1, 1), t, generator=generator)
        with torch.no_grad():
            return self.noisy.similarity(x_t, t, wanted).mean().item()

    def clean_log_prob(self, x_t: Tensor, t: Tensor | float, cond: Tensor) -> Tensor:
        """``log p(cond | x_t)`` as a classifier of clean images would have it, shown ``x_t / alpha``: (B,)."""
        alpha = self.schedule.scales(t)[0].to(x_t.device, x_t.dtype)
        return select_label(self.named(x_t / alpha, "features"), cond)

    def accuracies(
        self, images: Tensor, labels: Tensor, noise: float, generator: torch.Generator
    ) -> tuple[float, float]:
        """The part of noisy images, at ``sigma / alpha = noise``, that each classifier names right: noisy, clean."""
        t = self.schedule.time(-torch.tensor(noise, dtype=torch.float64).log())
        x_t = Gaussian(self.schedule).corrupt(images, t, generator=generator)
        with torch.no_grad():
            told = self.noisy.log_probs(x_t, t), self.named(x_t / self.schedule.scales(t)[0].to(x_t), "features")
        noisy, clean = ((answer.argmax(1) == labels).double().mean().item() for answer in told)
        return noisy, clean

    def pushes(self, guide: Any, start: Tensor, cond: Tensor) -> tuple[list[float], list[float]]:
        """How far a `Guidance` moves the answer on the way: ``sigma / alpha``, rising, and root mean squares."""
        levels, moves = [], []

        def watch(x_t: Tensor, t: Tensor, x0: Tensor) -> None:
            plain, moved = guide.parts(x_t, t, cond)
            levels.append((-self.schedule.lam(t)).exp().item())
            moves.append((moved - plain).square().mean().sqrt().item())

        self.draw(guide, start, cond, callback=watch)
        return levels[::-1], moves[::-1]

    # ------------------------------------------------------------ prices

    def bill(self, make: Make, steps: int = 16) -> Bill:
        """What one image takes. Steps that ask equally often are taken to cost the same, and priced once."""
        counters: list[cost.CountCalls] = []

        def net(role: str) -> Denoiser:
            counters.append(cost.CountCalls(self._hearing(role, self.networks[role])))
            return counters[-1]

        denoiser, prices, asked = make(net), {}, []
        x, label = torch.zeros(1, *self.shape, device=self.device), torch.zeros(1, dtype=torch.int64)
        with torch.no_grad():
            for t in grids.karras(steps, self.schedule)[:-1]:
                for counter in counters:
                    counter.reset()
                denoiser(x, t, label.to(self.device))
                asked.append(sum(counter.examples for counter in counters))
                if asked[-1] not in prices:
                    prices[asked[-1]] = cost.macs(denoiser, x, t, label.to(self.device))
        return Bill(sum(asked), sum(prices[each] for each in asked))

    def trial(
        self, make: Make, steps: int, judge: fidelity.Judge, start: Tensor, wanted: Tensor, generator: torch.Generator
    ) -> tuple[dict[str, float], Bill]:
        """Draw, and judge: every number of `Judge.score` but their count, those of `praise` and time, and the bill.

        ``fd_other`` is the distance in the features of the second classifier, from as many other test images.
        """
        made = fidelity.draw(
            lambda count: make(lambda role: count(self.net(role))),
            self.schedule, start, grids.karras(steps, self.schedule), wanted,
        )  # fmt: skip
        quality = judge.score(made.images, wanted)
        del quality["samples"]
        other = metrics.features(self.networks["features2"], made.images)
        quality["fd_other"] = metrics.frechet_distance(self._other(len(start)), other)
        quality["own"] = self.praise(made.images, wanted, generator)
        return quality | {"core_seconds_per_1000": 1000 * made.core_seconds}, self.bill(make, steps)

    def _other(self, count: int) -> Tensor:
        """Real images as the second classifier sees them: the same for every trial, so looked at once."""
        if count not in self._others:
            real = data.load(self.dataset, split="test", count=count)
            self._others[count] = metrics.features(self.networks["features2"], real.images)
        return self._others[count]

    @cached_property
    def _others(self) -> dict[int, Tensor]:
        return {}
