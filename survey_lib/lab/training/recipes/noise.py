"""Lesson 21: a network for each way to destroy small grey images, all trained alike.

``noise_WAY`` differ in the corruption alone, and in how the network is told how much is destroyed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from survey_lib.core import grids
from survey_lib.core.corruptions import Cold, Gaussian
from survey_lib.core.heads import Kind, Preconditioned
from survey_lib.core.losses import denoising_loss, edm_weight, lognormal_times, stratified_times
from survey_lib.core.protocols import Corruption, Denoiser
from survey_lib.core.samplers import ancestral
from survey_lib.core.schedules import Schedule, rectified, vp_cosine
from survey_lib.lab.data import quantised
from survey_lib.lab.evaluation.evaluator import Evaluator
from survey_lib.lab.training.recipes import training
from survey_lib.lab.training.recipes.training import Training
from survey_lib.lab.training.trainer import Loss, Recipe
from survey_lib.nets.unet import UNet
from survey_lib.process import noise

SIDE = quantised.SIZE
WIDTHS = (24, 40)  # of the networks: 170,000 parameters
NOISIEST = 80.0  # sigma / alpha at which sampling begins: beyond it Gamma noise has no digits left
GRAIN = 0.02  # standard deviation of the noise that heat dissipation adds to its blur, 0.01 in units of white
RECIPE = Recipe(
    steps=1500,
    batch=64,
    rate=4e-3,
    optimizer="muon",
    matrix_rate=0.012,
    average=0.995,
    log_sigma_mean=-0.4,
    log_sigma_std=1.4,
)


@dataclass(frozen=True)
class Way:
    """A corruption, and the schedule by which a network is told the time.

    start: the time at which sampling begins.
    levels: whether the schedule's noise levels mean something: they are drawn and weighted as in EDM then, and times
        are uniform and weights equal otherwise.
    """

    corruption: Corruption
    schedule: Schedule
    start: float = 1.0
    levels: bool = True

    @property
    def head(self) -> Kind:
        """The network's head. Under the straight schedule ``flow`` predicts ``(x_t - x0) / t``."""
        return "edm" if self.levels else "flow"


def _hot(t: Tensor) -> Tensor:
    """Widths of a blur in pixels from 0.3 to 12, in equal ratios (IHDM), and 0 at t = 0."""
    return torch.where(t > 0, 0.3 * 40.0**t, 0.0)


def _warm(t: Tensor) -> Tensor:
    """Widths of a blur in pixels, to 3 (blurring diffusion's ``sin^2``)."""
    return 3 * torch.sin(math.pi / 2 * t) ** 2


def _order() -> Tensor:
    """Times at which pixels are masked, (16, 16): evenly spread in a random order."""
    shuffled = torch.randperm(SIDE**2, generator=torch.Generator().manual_seed(0))
    return ((shuffled + 1) / SIDE**2).reshape(SIDE, SIDE).double()


def _ways() -> dict[str, Way]:
    cosine, straight = vp_cosine(), rectified()
    grain = Schedule(torch.ones_like, lambda t: torch.full_like(t, GRAIN), name="grain")
    frequencies = {
        "blur": noise.Frequencies(cosine, noise.heat_blur(SIDE, _warm)),
        "heat": noise.Frequencies(grain, noise.heat_blur(SIDE, _hot)),
    }
    noisy = {
        "gaussian": Gaussian(cosine),
        "gamma": noise.Gamma(cosine, 0.1),
        "laplace": noise.Shaped(cosine, noise.generalised_normal(1.0)),
        "two_normals": noise.Shaped(cosine, noise.two_normals(0.95)),
        "blur": noise.ByFrequency(frequencies["blur"]),
    }
    cold = {
        "heat": noise.ByFrequency(frequencies["heat"], eta=0.0),
        "mask": Cold(noise.masked(_order())),
        "pixels": Cold(noise.pixelated(int(math.log2(SIDE)))),
    }
    start = float(cosine.time_at(NOISIEST))
    return {name: Way(one, cosine, start) for name, one in noisy.items()} | {
        name: Way(one, straight, levels=False) for name, one in cold.items()
    }


#: Ways to destroy an image: noise of four shapes, noise and blur together, and three that hardly need noise.
WAYS: Mapping[str, Way] = _ways()


def start(way: Way, count: int, images: Tensor, *, generator: torch.Generator) -> Tensor:
    """States at which sampling begins: noise, or, where some of the image is always left, other images destroyed."""
    if way.levels:
        return way.corruption.prior((count, 1, SIDE, SIDE), way.start, generator=generator)
    some = images[torch.randint(len(images), (count,), generator=generator)]
    return way.corruption.corrupt(some, way.start, generator=generator)


def draw(
    way: Way,
    denoiser: Denoiser,
    x: Tensor,
    steps: int,
    *,
    corruption: Corruption | None = None,
    generator: torch.Generator,
) -> Tensor:
    """Images (N, 1, 16, 16) from states at the start, in equal steps of time with the way's own bridge or another."""
    times = grids.uniform(steps, start=way.start)
    return ancestral(denoiser, corruption or way.corruption, x, times, generator=generator)


def _loss(way: Way, model: Preconditioned, recipe: Recipe) -> Loss:
    def loss(net: nn.Module, x0: Tensor, cond: None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        if not way.levels:
            return denoising_loss(
                net, way.corruption, x0, stratified_times(len(x0), generator=generator), generator=generator
            ), None
        spread = {"mean": recipe.log_sigma_mean, "std": recipe.log_sigma_std}
        t = lognormal_times(len(x0), way.schedule, **spread, generator=generator)
        t = t.clamp(max=way.start)
        lam = way.schedule.lam(t)
        weight = edm_weight(lam, model.sigma_data)
        return denoising_loss(net, way.corruption, x0, t, weight=weight, generator=generator), lam

    return loss


def judged(dataset: str, count: int) -> Evaluator:
    """Comparison of N small images, enlarged, with N test images, in the features of the data set's classifiers."""
    return Evaluator.load(dataset, count, test=quantised.enlarged_images(dataset, split="test", count=2 * count))


def seen(images: Tensor, evaluator: Evaluator) -> Tensor:
    """Small images (N, 1, 16, 16) as an evaluator of `judged` takes them."""
    return quantised.enlarged(images.clamp(-1, 1), evaluator.shape[0])


def _score(way: Way, model: Preconditioned, dataset: str, root: Path | None) -> dict[str, float]:
    """Quality of samples at 50 evaluations; of a mask and of coarse pixels, the squared error at half of the way."""
    if isinstance(way.corruption, Cold):
        x0 = quantised.small_images(dataset, split="test", count=training.COUNT).float()
        half = torch.tensor(0.5, dtype=torch.float64)
        with torch.no_grad():
            restored = model(way.corruption.corrupt(x0, half), half)
        return {"mean_square": float((restored - x0).square().mean())}

    def sample(evaluator: Evaluator) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        some = quantised.small_images(dataset, count=evaluator.count).float()
        x = start(way, evaluator.count, some, generator=generator)
        return seen(draw(way, model, x, 50, generator=generator), evaluator)

    test = quantised.enlarged_images(dataset, split="test", count=2 * training.COUNT)
    return training.score(sample, dataset, root, test=test)


def _row(way: Way) -> Training:
    return Training(
        data=lambda dataset, root: quantised.small_images(dataset),
        model=lambda images: Preconditioned(UNet(1, widths=WIDTHS), way.schedule, way.head, 0.5),
        loss=partial(_loss, way),
        recipe=RECIPE,
        score=partial(_score, way),
    )


TRAININGS: Mapping[str, Training] = {f"noise_{name}": _row(way) for name, way in WAYS.items()}
