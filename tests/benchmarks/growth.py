"""The course's recipe for denoisers against the one that it replaced, after equal core-minutes of training.

Every length is a training of its own, for the learning rate falls to zero at its end. So the number of steps is fixed
before, by a trial. Trial and training take the two recipes in turn: what slows the machine, slows both.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from statistics import median

import torch

from survey_lib.core.heads import Preconditioned
from survey_lib.core.losses import edm_weight
from survey_lib.core.schedules import edm
from survey_lib.lab.data import load
from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.evaluation.cost import Ratio
from survey_lib.lab.plots import table
from survey_lib.lab.training import recipes
from survey_lib.lab.training.trainer import Recipe, Trainer
from survey_lib.nets.unet import UNet
from survey_lib.process.training import LogNormalLevels, weighted_loss

BASE = recipes.TRAININGS["base"]
COUNT = 2000  # test images for the loss
BLOCKS, STEPS = 7, 10  # of the trial; the first block is not counted
TURNS = 100


def earlier(images: ImageSet) -> Preconditioned:
    """The network of the earlier recipe: no attention, and narrower at the fine level."""
    return Preconditioned(UNet(images.shape[0], widths=(32, 64), middle=4), edm(), "edm", sigma_data=0.5)


def compare(minutes: float, dataset: str = "glyphs") -> dict[str, tuple[Ratio, float]]:
    """Loss on test images and FD at 20 evaluations, the course's over the earlier recipe's, one training each."""
    images, rows = load(dataset), []
    sides = {
        "the earlier": (replace(BASE, model=earlier), Recipe(batch=128, rate=5e-3)),
        "the course's": (BASE, BASE.recipe_for(dataset)),
    }
    trials = [recipes.trainer(training, images, recipe) for training, recipe in sides.values()]
    trainers = [
        recipes.trainer(training, images, replace(recipe, steps=max(1, round(60 * minutes / pace))))
        for (training, recipe), pace in zip(sides.values(), paces(trials), strict=True)
    ]
    seconds = in_turn(trainers)
    for name, trainer, spent in zip(sides, trainers, seconds, strict=True):
        model = trainer.finish()
        found = {"loss": held_out_loss(model, dataset), "FD": BASE.score(model, dataset, None)["fd"]}
        rows.append({"recipe": name, "core-minutes": spent / 60, "steps": trainer.step} | found)
    print(table(rows, caption=f"{dataset}: the two recipes"))
    ratios = {what: rows[1][what] / rows[0][what] for what in ("loss", "FD")}
    return {
        f"{dataset}: {what} after {minutes:g} core-minutes": (Ratio(*[ratio] * 3), 1.0)
        for what, ratio in ratios.items()
    }


def paces(trainers: list[Trainer]) -> list[float]:
    """Core-seconds of a step of each, the median of blocks that are taken in turn."""
    blocks = [[advance(one, one.step + STEPS) / STEPS for one in trainers] for _ in range(BLOCKS)]
    return [median(of_one) for of_one in zip(*blocks[1:], strict=True)]


def in_turn(trainers: list[Trainer]) -> list[float]:
    """Train all to the end, a hundredth of each in turn: the core-seconds of each."""
    parts = [[advance(one, one.recipe.steps * turn // TURNS) for one in trainers] for turn in range(1, TURNS + 1)]
    return [sum(of_one) for of_one in zip(*parts, strict=True)]


def advance(trainer: Trainer, until: int) -> float:
    """Train up to a step: the core-seconds that it took."""
    began = time.process_time()
    list(trainer.run(until=until))
    return time.process_time() - began


@torch.no_grad()
def held_out_loss(model: Preconditioned, dataset: str) -> float:
    """The loss of a training on test images, with the same noise for every model."""
    levels = LogNormalLevels(BASE.recipe.log_sigma_mean, BASE.recipe.log_sigma_std)
    loss = weighted_loss(levels, partial(edm_weight, sigma_data=model.sigma_data), model.schedule)
    generator, images = torch.Generator().manual_seed(0), load(dataset, split="test", count=COUNT).float()
    return torch.cat([loss(model.eval(), x, None, generator)[0] for x in images.split(250)]).mean().item()
