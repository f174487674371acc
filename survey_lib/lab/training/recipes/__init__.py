"""The table of trainings, with a row for each role of a checkpoint, and one function that trains.

    survey train                    lists the names: a data set and a role, as in glyphs_base
    survey train glyphs_base        makes a shipped checkpoint from scratch; a stopped training resumes

A lesson adds a file of rows.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from survey_lib.lab import data
from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.runtime import HOME, check_device, suggest
from survey_lib.lab.training import checkpoints
from survey_lib.lab.training.recipes import discrete, images, labelled, pyramids, scenes, semantic
from survey_lib.lab.training.recipes.training import Training
from survey_lib.lab.training.trainer import Recipe, Trainer

TRAININGS: Mapping[str, Training] = {
    role: row
    for table in (images, discrete, scenes, pyramids, semantic, labelled)
    for role, row in table.TRAININGS.items()
}
#: The roles of each data set.
ROLES: Mapping[str, tuple[str, ...]] = {
    "glyphs": (*images.TRAININGS, *discrete.TRAININGS, *semantic.TRAININGS),
    "mnist": (*images.TRAININGS, *discrete.TRAININGS),
    "scenes": ("features", "features2", *scenes.TRAININGS, *pyramids.TRAININGS),
    "cifar10": ("f2", "f4", *labelled.TRAININGS),
}
NOT_SHIPPED = ("cifar10",)  # data sets that do not come with the course, and neither do checkpoints


def names() -> list[str]:
    """Names of the checkpoints that `train` can make."""
    return [f"{dataset}_{role}" for dataset, roles in ROLES.items() for role in roles]


def train(
    name: str,  # a data set and a role, as in "glyphs_base"
    *,
    device: str = "cpu",
    steps: int | None = None,  # in place of the recipe's, for a trial: it is not scored, but for its loss
    root: Path | None = None,  # folder of the checkpoint; see `trial_folder`
    progress: bool = True,
) -> Path:
    """Make a checkpoint from scratch and save it with its manifest; return the path of its weights.

    Minutes to hours: the manifests say how long each took, and on what. A training that was stopped resumes. Unless
    ``root`` says otherwise, the checkpoint is a trial with a folder of its own:
    ``checkpoints.load(name, root=path.parent)``. Raises ValueError for an unknown name or device.
    """
    dataset, training = _find(name)
    device = check_device(device)
    root = trial_folder(steps) if root is None else Path(root)
    recipe = training.recipe_for(dataset, steps=steps)
    state = HOME / "build" / "training" / f"{name}{'' if steps is None else f'_{steps}'}.safetensors"
    training_run = trainer(training, training.data(dataset, root), recipe, device=device, save_to=state)
    model = training_run.finish(progress=progress).cpu()
    about = _facts(data.load(dataset, count=training.images)) | {"recipe": asdict(recipe), "seed": recipe.seed}
    about |= {"minutes": round(training_run.seconds / 60, 1), **_circumstances(device)}
    about["scores"] = {"loss": training_run.history[-1].loss}
    if steps is None:
        about["scores"] |= training.score(model, dataset, root)
    path = checkpoints.save(name, model, about, root=root)
    state.unlink(missing_ok=True)  # done: the next call begins again
    return path


def fit(
    training: Training, dataset: str, *, seed: int = 0, steps: int | None = None, progress: bool = False
) -> nn.Module:
    """Train on the CPU without saving: the model in eval mode, without gradients."""
    recipe = training.recipe_for(dataset, steps=steps, seed=seed)
    return trainer(training, training.data(dataset, None), recipe).finish(progress=progress)


def trainer(training: Training, examples: Any, recipe: Recipe, **options: Any) -> Trainer:
    """The `Trainer` of a row of the table, to be watched; ``options`` are those of a `Trainer`."""
    model = training.untrained(examples, recipe.seed)
    loss = None if training.loss is None else training.loss(model, recipe)
    return Trainer(model, examples, recipe, loss=loss, **options)


def trial_folder(steps: int | None) -> Path:
    """Folder of the checkpoints that do not come with the course: one for each number of steps, so that none mix."""
    return HOME / "build" / "checkpoints" / ("full" if steps is None else f"{steps}_steps")


def _find(name: str) -> tuple[str, Training]:
    if name not in names():
        raise ValueError(f'no training "{name}"{suggest(name, names())}; accepted: {", ".join(names())}')
    dataset, _, role = name.partition("_")
    return dataset, TRAININGS[role]


def _facts(images: ImageSet) -> dict[str, Any]:
    """Identity of the images: data set, number, sha256."""
    digest = hashlib.sha256(images.images.numpy().tobytes()).hexdigest()
    return {"dataset": images.name, "images": len(images), "images_sha256": digest}


def _circumstances(device: str) -> dict[str, Any]:
    processor = platform.processor() or platform.machine()
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{os.cpu_count()} cores, {processor}"
    return {"device": where, "torch": torch.__version__}
