"""Lesson 20: students of a trained network on small grey images, and the networks that they learn from.

``student_N`` takes N steps, and learns them from ``student_2N``; the first of the chain learns from ``noise_gaussian``
on a grid of 16 steps. ``pairs`` draws in one evaluation, ``consistency`` in one or a few, ``guided`` knows the scale of
guidance of ``labelled``, and ``variances`` chooses the variance of a step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from survey_lib.core import grids
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.heads import Preconditioned
from survey_lib.core.integrators import multistep
from survey_lib.core.protocols import Denoiser
from survey_lib.core.samplers import ancestral
from survey_lib.core.schedules import vp_cosine
from survey_lib.design.guidance import ClassifierFree
from survey_lib.lab.data import quantised
from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.evaluation.evaluator import Evaluator
from survey_lib.lab.evaluation.speed import precision
from survey_lib.lab.training.recipes import noise, training
from survey_lib.lab.training.recipes.noise import RECIPE
from survey_lib.lab.training.recipes.training import Data, Training
from survey_lib.lab.training.trainer import Loss, Recipe
from survey_lib.nets.guided import GuidedUNet
from survey_lib.nets.unet import UNet
from survey_lib.process.training import (
    LogNormalLevels,
    TwoSteps,
    consistency_loss,
    guided_loss,
    pair_loss,
    progressive_loss,
    variance_loss,
)

SCHEDULE = vp_cosine()
START = noise.WAYS["gaussian"].start
SCALES = (1.0, 4.0)  # of guidance, that ``guided`` learns
CHAIN = (8, 4, 2, 1)  # steps of the students, each the teacher of the next
PAIRS = 10_000  # noises and images of the teacher, for ``pairs``
_STEPS = 20  # of the teacher, for an image of a pair
_PAIRS_SEED = 20_210_107  # of the noises, which are not those that are judged
_DISCRETE = 18  # steps of the grid of ``consistency``, as in Karras et al. 2022


class Taught(TensorDataset):
    """Examples, and the network from which a student learns."""

    def __init__(self, teacher: Preconditioned, *tensors: Tensor):
        super().__init__(*tensors)
        self.teacher = teacher


@dataclass(frozen=True)
class Distillation(Training):
    """A row whose loss is made of the teacher: ``loss(teacher, recipe)``."""

    def loss_for(self, model: nn.Module, recipe: Recipe, examples: Data) -> Loss | None:
        """The loss against the examples' teacher."""
        return training.Beside(examples.teacher, self.loss(examples.teacher, recipe))


def grid(steps: int) -> Tensor:
    """Times of a student of ``steps`` steps: equal steps, of which a teacher makes two each."""
    return grids.uniform(steps, start=START)


def walk(denoiser: Denoiser, x: Tensor, times: Tensor) -> Tensor:
    """DDIM from ``x`` along the times."""
    return ancestral(denoiser, Gaussian(SCHEDULE, eta=0), x, times)


def prior(count: int, seed: int = 0) -> Tensor:
    """Noise (N, 1, 16, 16) at the start."""
    shape, generator = (count, 1, noise.SIDE, noise.SIDE), torch.Generator().manual_seed(seed)
    return Gaussian(SCHEDULE).prior(shape, START, generator=generator)


# ---------------------------------------------------------------------- examples and networks


def _taught(role: str, dataset: str, root: Path | None, *, labels: bool = False) -> Taught:
    images = quantised.small_images(dataset)
    teacher = training.load(f"{dataset}_{role}", root, schedule=SCHEDULE)
    return Taught(teacher, images.float(), *([images.labels] if labels else []))


def _pairs(dataset: str, root: Path | None) -> Taught:
    """Images that the teacher draws, and the noises from which it draws them, scaled to unit variance."""
    teacher = training.load(f"{dataset}_noise_gaussian", root, schedule=SCHEDULE)
    eps = prior(PAIRS, seed=_PAIRS_SEED) / SCHEDULE.scales(START)[1]
    times = grids.karras(_STEPS, SCHEDULE)
    with torch.no_grad(), precision():
        x0 = [multistep(teacher, SCHEDULE, part, times) for part in eps.float().split(500)]
    return Taught(teacher, torch.cat(x0).clamp(-1, 1), eps.float())


def _copied(examples: Taught) -> Preconditioned:
    """A student that begins as its teacher."""
    return copy.deepcopy(examples.teacher).train().requires_grad_(True)


def _guided_net(examples: Taught) -> Preconditioned:
    teacher = examples.teacher
    net = GuidedUNet(**teacher.net.config)
    net.load_state_dict(teacher.net.state_dict(), strict=False)  # all but the scale's embedding
    return Preconditioned(net, SCHEDULE, teacher.kind, teacher.sigma_data)


def _labelled(images: ImageSet) -> Preconditioned:
    return Preconditioned(UNet(1, widths=noise.WIDTHS, classes=len(images.classes)), SCHEDULE, "edm", 0.5)


def _variance_net(examples: Taught) -> Preconditioned:
    """Logits of the variance's share. Small, for it is evaluated beside the denoiser at every step."""
    return Preconditioned(UNet(1, widths=(8, 16)), SCHEDULE, "x0", 0.5)


# ---------------------------------------------------------------------- losses and scores


def _progressive(steps: int, teacher: Preconditioned, recipe: Recipe) -> Loss:
    return progressive_loss(TwoSteps(teacher, SCHEDULE, grid(2 * steps)))


def _consistency(teacher: Preconditioned, recipe: Recipe) -> Loss:
    return consistency_loss(SCHEDULE, grids.karras(_DISCRETE, SCHEDULE), teacher=teacher)


def _guided(teacher: Preconditioned, recipe: Recipe) -> Loss:
    levels = LogNormalLevels(recipe.log_sigma_mean, recipe.log_sigma_std)
    return guided_loss(partial(ClassifierFree, teacher, teacher.net.classes), SCHEDULE, SCALES, levels)


def _drawn(sample: Callable[..., Tensor], labelled: bool, model: Preconditioned, dataset: str, root: Path | None):
    """Quality of samples from noise, drawn by ``sample(model, x, labels)``."""
    test = quantised.enlarged_images(dataset, split="test", count=2 * training.COUNT)

    def images(evaluator: Evaluator) -> Tensor:
        x = prior(evaluator.count)
        return noise.seen(sample(model, x, test.labels[: len(x)]), evaluator)

    with torch.no_grad():
        return training.score(images, dataset, root, test=test, labelled=labelled)


def _in_steps(steps: int) -> Callable[..., Tensor]:
    return lambda model, x, labels: walk(model, x, grid(steps))


_STUDENT = replace(RECIPE, steps=800, rate=2e-3, matrix_rate=0.006)  # gentler, for it begins as its teacher


def _student(
    loss: Callable, sample: Callable, teacher: str, data: Callable | None = None, **changes: float
) -> Distillation:
    return Distillation(
        data=data or partial(_taught, teacher),
        model=_copied,
        loss=loss,
        recipe=replace(_STUDENT, **changes),
        score=partial(_drawn, sample, False),
        builds_on=teacher,
    )


def _teacher_of(steps: int) -> str:
    return "noise_gaussian" if steps == CHAIN[0] else f"student_{2 * steps}"


def _guided_sample(model: Preconditioned, x: Tensor, labels: Tensor) -> Tensor:
    return walk(lambda x_t, t, cond=None: model(x_t, t, (labels, torch.tensor(2.0))), x, grid(16))


TRAININGS: Mapping[str, Training] = {
    "labelled": Training(
        data=lambda dataset, root: quantised.small_images(dataset),
        model=_labelled,
        loss=None,
        recipe=replace(RECIPE, label_dropout=0.15),
        score=partial(_drawn, lambda model, x, labels: multistep(model, SCHEDULE, x, grid(20), cond=labels), True),
    ),
    **{
        f"student_{steps}": _student(partial(_progressive, steps), _in_steps(steps), _teacher_of(steps))
        for steps in CHAIN
    },
    "pairs": _student(
        lambda teacher, recipe: pair_loss(SCHEDULE, START), _in_steps(1), "noise_gaussian", _pairs, steps=1500
    ),
    "consistency": _student(_consistency, _in_steps(1), "noise_gaussian", steps=1500),
    "guided": Distillation(
        data=partial(_taught, "labelled", labels=True),
        builds_on="labelled",
        model=_guided_net,
        loss=_guided,
        recipe=_STUDENT,
        score=partial(_drawn, _guided_sample, True),
    ),
    "variances": Distillation(
        data=partial(_taught, "noise_gaussian"),
        builds_on="noise_gaussian",
        model=_variance_net,
        loss=lambda teacher, recipe: variance_loss(teacher, SCHEDULE, grid(50)),
        recipe=replace(RECIPE, steps=1000),
        score=lambda model, dataset, root: {},  # the lesson measures its bound
    ),
}
