"""The table of trainings, with a row for each role of a checkpoint, and one function that trains.

    survey train                    lists the names: a data set and a role, as in glyphs_base
    survey train glyphs_base        makes a shipped checkpoint from scratch; a stopped training resumes
    survey train pets_base --dataset ~/pets     makes one for a folder of images, which is now called pets

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

from survey_lib.core.schedules import Schedule
from survey_lib.lab import data, own
from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.evaluation.evaluator import LEAST
from survey_lib.lab.runtime import DATASETS, HOME, check_device, suggest
from survey_lib.lab.training import checkpoints
from survey_lib.lab.training.recipes import discrete, images, labelled, noise, pyramids, scenes, semantic, students
from survey_lib.lab.training.recipes.training import Training
from survey_lib.lab.training.trainer import Recipe, Trainer

TRAININGS: Mapping[str, Training] = {
    role: row
    for table in (images, discrete, scenes, pyramids, semantic, labelled, noise, students)
    for role, row in table.TRAININGS.items()
}
#: The roles of the data sets with recipes of their own.
ROLES: Mapping[str, tuple[str, ...]] = {
    "glyphs": (*images.TRAININGS, *discrete.TRAININGS, *noise.TRAININGS, *students.TRAININGS, *semantic.TRAININGS),
    "mnist": (*images.TRAININGS, *discrete.TRAININGS, *noise.TRAININGS, *students.TRAININGS),
    "scenes": ("features", "features2", *scenes.TRAININGS, *pyramids.TRAININGS),
    "cifar10": (*images.TRAININGS, "f2", "f4", *labelled.TRAININGS),
}
SHIPPED = ("glyphs", "mnist", "scenes")  # data sets whose checkpoints come with the course

_OF_LABELS = ("conditional", "weak", "noisy")
_PACED = 3  # steps by which a training's pace is measured


def roles(dataset: str) -> tuple[str, ...]:
    """The roles that can be trained for a data set: any has those of images."""
    return ROLES.get(dataset, tuple(images.TRAININGS))


def names() -> list[str]:
    """Names of the checkpoints that `train` can make."""
    return [f"{dataset}_{role}" for dataset in (*DATASETS, *own.names()) for role in roles(dataset)]


def split(name: str) -> tuple[str, str]:
    """Data set and role of a checkpoint's name. Raises ValueError for a name that ends in no role."""
    for dataset in (*ROLES, *own.names(), *DATASETS):
        role = name.removeprefix(f"{dataset}_")
        if role != name and role in roles(dataset):
            return dataset, role
    raise ValueError(f'no training "{name}"{suggest(name, names())}; accepted: {", ".join(names())}')


def adopt(name: str, folder: str | Path) -> tuple[str, str]:
    """Give a folder of images the data set's part of a checkpoint's name; return that part and the role.

    Raises ValueError for a name that ends in no role, and as `own.adopt` does.
    """
    for role in images.TRAININGS:
        if name.endswith(f"_{role}"):
            own.adopt(dataset := name.removesuffix(f"_{role}"), folder)
            return dataset, role
    raise ValueError(f'"{name}" ends in no role; accepted: a name and {", ".join(images.TRAININGS)}, as in pets_base')


def home(dataset: str) -> Path:
    """The folder of the checkpoints that lessons use for a data set; the reader's own lie apart."""
    return checkpoints.folder() if dataset in SHIPPED else checkpoints.own_folder()


def train(
    name: str,  # a data set and a role, as in "glyphs_base"
    *,
    device: str = "cpu",
    steps: int | None = None,  # in place of the recipe's, for a trial: scored by its loss, unless the data are your own
    seed: int | None = None,  # in place of the recipe's
    root: Path | None = None,  # folder of the checkpoint; see `trial_folder`
    progress: bool = True,
) -> Path:
    """Make a checkpoint from scratch and save it with its manifest; return the path of its weights.

    Minutes to hours: the manifests say how long each took, and on what. A training that was stopped resumes. Unless
    ``root`` says otherwise, the checkpoint is a trial with a folder of its own:
    ``checkpoints.load(name, root=path.parent)``. Raises ValueError for an unknown name or device.
    """
    dataset, role = split(name)
    training, device = TRAININGS[role], check_device(device)
    root = trial_folder(steps) if root is None else Path(root)
    recipe, examples = _prepared(dataset, role, root, steps, seed)
    asked = "".join(f"_{word}_{value}" for word, value in (("steps", steps), ("seed", seed)) if value is not None)
    state = HOME / "build" / "training" / f"{name}{asked}.safetensors"
    training_run = trainer(training, examples, recipe, device=device, save_to=state)
    model = training_run.finish(progress=progress).cpu()
    about = _facts(data.load(dataset, count=training.images)) | {"recipe": asdict(recipe), "seed": recipe.seed}
    about |= {"minutes": round(training_run.seconds / 60, 1), **_circumstances(device)}
    about["scores"] = {"loss": training_run.history[-1].loss}
    if steps is None or dataset not in SHIPPED:
        about["scores"] |= training.score(model, dataset, root)
    path = checkpoints.save(name, model, about, root=root)
    state.unlink(missing_ok=True)  # done: the next call begins again
    return path


def network(name: str, *, seed: int, schedule: Schedule | None = None, progress: bool = False) -> nn.Module:
    """The network of another seed: the course's own for the recipe's seed, otherwise trained here unless it is there.

    A network that it builds on is one of the same seed, and comes first. ``schedule`` is that of `checkpoints.load`.
    """
    dataset, role = split(name)
    recipe = TRAININGS[role].recipe_for(dataset, seed=seed)
    if recipe == TRAININGS[role].recipe_for(dataset):
        return checkpoints.load(name, schedule=schedule)
    root = HOME / "build" / "checkpoints" / f"seed_{seed}"
    if TRAININGS[role].builds_on is not None:
        network(f"{dataset}_{TRAININGS[role].builds_on}", seed=seed, progress=progress)
    if name not in checkpoints.names(root) or checkpoints.manifest(name, root=root)["recipe"] != asdict(recipe):
        train(name, seed=seed, root=root, progress=progress)
    return checkpoints.load(name, schedule=schedule, root=root)


def fit(
    training: Training, dataset: str, *, seed: int = 0, steps: int | None = None, progress: bool = False
) -> nn.Module:
    """Train on the CPU without saving: the model in eval mode, without gradients."""
    recipe = training.recipe_for(dataset, steps=steps, seed=seed)
    return trainer(training, training.data(dataset, None), recipe).finish(progress=progress)


def trainer(training: Training, examples: Any, recipe: Recipe, **options: Any) -> Trainer:
    """The `Trainer` of a row of the table, to be watched; ``options`` are those of a `Trainer`."""
    model = training.untrained(examples, recipe.seed)
    return Trainer(model, examples, recipe, loss=training.loss_for(model, recipe, examples), **options)


def minutes(dataset: str, role: str, *, device: str = "cpu") -> float:
    """The minutes that a training will take here, by the pace of its steps after the first."""
    recipe, examples = _prepared(dataset, role, None)
    paced = trainer(TRAININGS[role], examples, recipe, device=device)
    first, last = paced.run(every=_PACED, until=2 * _PACED)
    return (last.seconds - first.seconds) / _PACED * recipe.steps / 60


def trial_folder(steps: int | None) -> Path:
    """Folder of the checkpoints that do not come with the course: one for each number of steps, so that none mix."""
    return HOME / "build" / "checkpoints" / ("full" if steps is None else f"{steps}_steps")


def _prepared(
    dataset: str, role: str, root: Path | None, steps: int | None = None, seed: int | None = None
) -> tuple[Recipe, Any]:
    """Recipe and examples of a training.

    Raises ValueError for a role that needs labels, where all are alike, and for too few test images for a comparison.
    """
    training = TRAININGS[role]
    examples = training.data(dataset, root)
    if role in _OF_LABELS and isinstance(examples, ImageSet) and len(examples.classes) == 1:
        raise ValueError(
            f"{dataset} has one class, and {role} tells classes apart: put the images into a folder a class"
        )
    if dataset in SHIPPED:
        return training.recipe_for(dataset, steps=steps, seed=seed), examples
    if (there := len(data.load(dataset, split="test"))) < 2 * LEAST:
        raise ValueError(
            f"{dataset} has {there} test images, and the lessons compare with {2 * LEAST} at least: add images "
            "(of a folder without train/ and test/ a tenth is set apart for testing)"
        )
    return training.recipe_for(dataset, steps=steps, seed=seed, count=len(examples)), examples


def _facts(images: ImageSet) -> dict[str, Any]:
    """Identity of the images: data set, number, sha256."""
    digest = hashlib.sha256(images.images.numpy().tobytes()).hexdigest()
    return {"dataset": images.name, "images": len(images), "images_sha256": digest}


def _circumstances(device: str) -> dict[str, Any]:
    processor = platform.processor() or platform.machine()
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{os.cpu_count()} cores, {processor}"
    return {"device": where, "torch": torch.__version__}
