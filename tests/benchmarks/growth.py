"""The course's recipe for denoisers against the one that it replaced, after equal core-minutes of training.

Every length is a training of its own, for the learning rate falls to zero at its end.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from survey_lib.core.heads import Preconditioned
from survey_lib.core.losses import edm_weight
from survey_lib.core.schedules import edm
from survey_lib.lab.data import load
from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.evaluation.cost import Ratio
from survey_lib.lab.plots import table
from survey_lib.lab.training.recipes import TRAININGS
from survey_lib.lab.training.recipes.spaces import train_for
from survey_lib.lab.training.trainer import Recipe
from survey_lib.nets.unet import UNet
from survey_lib.process.training import LogNormalLevels, weighted_loss

BASE = TRAININGS["base"]
COUNT = 2000  # test images for the loss


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
    for name, (training, recipe) in sides.items():
        model, seconds, steps = train_for(training, images, recipe, 60 * minutes)
        found = {"loss": held_out_loss(model, dataset), "FD": training.score(model, dataset, None)["fd"]}
        rows.append({"recipe": name, "core-minutes": seconds / 60, "steps": steps} | found)
    print(table(rows, caption=f"{dataset}: the two recipes"))
    ratios = {what: rows[1][what] / rows[0][what] for what in ("loss", "FD")}
    return {
        f"{dataset}: {what} after {minutes:g} core-minutes": (Ratio(*[ratio] * 3), 1.0)
        for what, ratio in ratios.items()
    }


@torch.no_grad()
def held_out_loss(model: Preconditioned, dataset: str) -> float:
    """The loss of a training on test images, with the same noise for every model."""
    levels = LogNormalLevels(BASE.recipe.log_sigma_mean, BASE.recipe.log_sigma_std)
    loss = weighted_loss(levels, partial(edm_weight, sigma_data=model.sigma_data), model.schedule)
    generator, images = torch.Generator().manual_seed(0), load(dataset, split="test", count=COUNT).float()
    return torch.cat([loss(model.eval(), x, None, generator)[0] for x in images.split(250)]).mean().item()
