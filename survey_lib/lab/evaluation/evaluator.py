"""Evaluation of a sampler: draw N images, count and time, and compare with N real test images and their floor.

    evaluator = Evaluator.load("mnist", 1000)
    found = evaluator.measure(lambda net: heun(net, schedule, noise, times), denoiser)
    found.quality["fd"], found.evaluations, evaluator.floor["fd"]

The number of function evaluations (NFE) is the number of evaluations of the denoiser for one image: a guided step in
one doubled batch is two. Distances are computed in the features of one network and, held out, of a second. The second
network also classifies the images, and takes no part in sampling them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import torch
from torch import Tensor, nn

from survey_lib.lab.data import load
from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.evaluation import cost, metrics
from survey_lib.lab.training import checkpoints

LEAST = 80  # images on each side, more than there are features
SPLITS = 8  # random splits of the real images, averaged in a floor


class Measurement(NamedTuple):
    """Images of one sampler, their quality, and the cost of one image."""

    images: Tensor
    quality: dict[str, float]
    evaluations: float
    macs: int
    core_seconds: float

    def numbers(self) -> dict[str, float]:
        """The measurement without its images: quality, N and costs, by name."""
        costs = {name: getattr(self, name) for name in ("evaluations", "macs", "core_seconds")}
        return self.quality | {"images": len(self.images)} | costs


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Comparison of N generated images with N real test images; N more real images give the floor.

    test: 2 N real images, of which the first N are the reference.
    feature_net: the network in whose features distances are computed.
    held_out_net: a second classifier, whose features give ``fd_held_out`` and whose labels give the accuracy.
    """

    test: ImageSet
    feature_net: nn.Module
    held_out_net: nn.Module

    @classmethod
    def load(
        cls,
        dataset: str,
        count: int,
        *,
        test: ImageSet | None = None,
        device: str = "cpu",
        root: Path | None = None,
    ) -> Evaluator:
        """Load the evaluator of a data set: its first ``2 count`` test images, or ``test``, and its two classifiers.

        A data set with fewer test images is halved. Raises ValueError for fewer than `LEAST` on each side, and where
        ``test`` is smaller than was asked for.
        """
        found = load(dataset, split="test", most=2 * count) if test is None else test.take(slice(2 * count))
        least = 2 * (count if test is not None else min(count, LEAST))
        if len(found) < least:
            raise ValueError(f"{least // 2} images on each side need {least} test images; there are {len(found)}")
        nets = (checkpoints.load(f"{dataset}_{role}", device=device, root=root) for role in ("features", "features2"))
        return cls(found, *nets)

    @property
    def count(self) -> int:
        """N, the number of images on each side."""
        return len(self.test) // 2

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return next(self.feature_net.parameters()).device

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.test.shape

    @property
    def real(self) -> Tensor:
        """Features (N, d) of the N real reference images."""
        return self._features[: self.count]

    @cached_property
    def floor(self) -> dict[str, float]:
        """Fréchet distance between N real images and N others: the score of a perfect sampler.

        ``fd`` is the mean over random splits of the test images, ``fd_std`` the standard deviation.
        """
        generator = torch.Generator().manual_seed(0)
        splits = [
            metrics.floor(metrics.frechet_distance, self._features, self.count, generator=generator)
            for _ in range(SPLITS)
        ]
        return {"fd": fmean(splits), "fd_std": stdev(splits)}

    def score(self, images: Tensor, labels: Tensor | None = None) -> dict[str, float]:
        """Quality of N images, uint8 or floats that are clamped to [-1, 1].

        ``fd, fd_held_out, precision, recall, density, coverage, floor`` and, with labels (N,), ``accuracy``: the
        fraction of images that the held-out classifier assigns to their labels. Raises ValueError for images that are
        not finite, for another N, and for labels of another shape.
        """
        if labels is not None and labels.shape != images.shape[:1]:
            raise ValueError(f"labels are one for each of {len(images)} images; got shape {tuple(labels.shape)}")
        if broken := _broken(images):
            raise ValueError(f"{broken} of {len(images)} images hold NaN or infinity: the sampler diverged")
        images = images.clamp(-1, 1) if images.is_floating_point() else images
        seen = metrics.features(self.feature_net, images)
        quality = {
            "fd": metrics.frechet_distance(self.real, seen),
            "fd_held_out": metrics.frechet_distance(self._held_out, metrics.features(self.held_out_net, images)),
            **metrics.precision_recall(self.real, seen)._asdict(),
            **metrics.density_coverage(self.real, seen)._asdict(),
            "floor": self.floor["fd"],
        }
        if labels is not None:
            quality["accuracy"] = metrics.label_accuracy(self.held_out_net, images, labels)
        return quality

    def measure(
        self,
        sample: Callable[..., Tensor],
        *denoisers: Callable,
        labels: Tensor | None = None,
        classifiers: Iterable[Callable] = (),
    ) -> Measurement:
        """Draw N images with ``sample(*denoisers, *classifiers)``, count, time and score.

        Evaluations are counted for the denoisers. MACs are counted for all networks, and for gradients with respect to
        x where the sampler enables them. If some images are not finite, the only quality is their fraction
        ``diverged``.
        """
        counted = [cost.CountCalls(one) for one in denoisers]
        others = [cost.CountCalls(one) for one in classifiers]
        with torch.no_grad(), cost.measure(self.device) as run:
            try:
                images = sample(*counted, *others)
            except FloatingPointError:  # a sampler stops where no image is finite any more
                images = torch.full((self.count, *self.shape), torch.nan)
        n = len(images)
        broken = _broken(images)
        quality = {"diverged": broken / n} if broken else self.score(images, labels)
        evaluations = sum(one.examples for one in counted) / n
        macs = sum(one.macs for one in (*counted, *others)) / n
        return Measurement(images, quality, evaluations, round(macs), run.cost.core_seconds / n)

    @cached_property
    def _features(self) -> Tensor:
        return metrics.features(self.feature_net, self.test.images)

    @cached_property
    def _held_out(self) -> Tensor:
        return metrics.features(self.held_out_net, self.test.images[: self.count])


def _broken(images: Tensor) -> int:
    """The number of images that are not finite."""
    return int((~images.flatten(1).isfinite()).any(1).sum())
