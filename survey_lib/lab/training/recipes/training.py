"""`Training`, a row of the table of trainings, and the functions that rows share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from survey_lib.core.schedules import Schedule
from survey_lib.lab import data
from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.evaluation.evaluator import Evaluator
from survey_lib.lab.training import checkpoints
from survey_lib.lab.training.trainer import Loss, Recipe
from survey_lib.nets.layers import initialised

Data = ImageSet | TensorDataset
COUNT = 2000  # images behind the scores in a manifest
_ENOUGH = 30_000  # examples: from there on, all steps of a recipe are taken


@dataclass(frozen=True)
class Training:
    """A row of the table: the training of the checkpoints of one role, on any data set."""

    data: Callable[[str, Path | None], Data]  # of a data set's name and the folder of checkpoints that it builds on
    model: Callable[[Data], nn.Module]  # untrained; torch's global seed is that of the recipe
    loss: Callable[[nn.Module, Recipe], Loss] | None  # None: EDM's weighted denoising loss
    recipe: Recipe
    score: Callable[[nn.Module, str, Path | None], dict[str, float]]  # of the trained model, data set and folder
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of the recipe on some data sets
    images: int | None = None  # behind ``data``, where they are not all training images of the data set
    builds_on: str | None = None  # the role of the network that ``data`` loads, where another seed may have its own

    def recipe_for(
        self, dataset: str, *, steps: int | None = None, seed: int | None = None, count: int | None = None
    ) -> Recipe:
        """The recipe for a data set, with other ``steps`` or another ``seed`` where they are given.

        ``count`` is the number of examples, for data sets that the recipe was not made for: where they are few, the
        steps shrink with the root of their number, so that each example is seen more often, but not without bounds.
        """
        asked = {key: value for key, value in (("steps", steps), ("seed", seed)) if value is not None}
        recipe = replace(self.recipe, **self.changes.get(dataset, {}))
        if count is not None:
            recipe = replace(recipe, steps=math.ceil(recipe.steps * min(1, count / _ENOUGH) ** 0.5))
        return replace(recipe, **asked)

    def untrained(self, data: Data, seed: int) -> nn.Module:
        """The model as its training begins."""
        return initialised(seed, partial(self.model, data))

    def loss_for(self, model: nn.Module, recipe: Recipe, examples: Data) -> Loss | None:
        """The loss of a training of ``model`` on these examples; None stands for EDM's."""
        return None if self.loss is None else self.loss(model, recipe)


@dataclass(frozen=True)
class Beside:
    """A `Loss` that asks a frozen network as well, which follows the examples to their device.

    func: the loss, under the name by which a training that is resumed finds it (`state.describe`).
    """

    frozen: nn.Module
    func: Loss

    def __call__(
        self, model: nn.Module, x0: Tensor, cond: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        self.frozen.to(x0.device)
        return self.func(model, x0, cond, generator)


def load(name: str, root: Path | None, *, schedule: Schedule | None = None) -> nn.Module:
    """The checkpoint ``name`` in ``root``, or the one that comes with the course if ``root`` has none."""
    return checkpoints.load(name, schedule=schedule, root=root if name in checkpoints.names(root) else None)


def score(
    sample: Callable[[Evaluator], Tensor],  # draws `Evaluator.count` images
    dataset: str,
    root: Path | None,
    *,
    test: ImageSet | None = None,  # 2 N real images, where they are not the test images of the data set
    labelled: bool = False,  # whether the images are drawn for the labels of `Evaluator.test`
) -> dict[str, float]:
    """Quality of N images as an `Evaluator` measures it; empty before there are feature networks."""
    roles = [f"{dataset}_{role}" for role in ("features", "features2")]
    if not {*roles} <= {*checkpoints.names(root), *checkpoints.names()}:
        return {}
    test = data.load(dataset, split="test", most=2 * COUNT) if test is None else test
    evaluator = Evaluator(test, *(load(name, root) for name in roles))
    return evaluator.score(sample(evaluator), test.labels[: evaluator.count] if labelled else None)
