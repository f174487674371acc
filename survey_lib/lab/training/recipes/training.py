"""One row of the table of trainings, and the pieces that rows share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.evaluation import metrics
from survey_lib.lab.training import checkpoints
from survey_lib.lab.training.trainer import Loss, Recipe

Data = ImageSet | TensorDataset
COUNT = 2000  # images behind the scores in a manifest


@dataclass(frozen=True)
class Training:
    """How the checkpoints of one role are made, a data set each."""

    data: Callable[[str, Path | None], Data]  # of a data set's name and the folder of checkpoints that it builds on
    model: Callable[[Data], nn.Module]  # untrained; torch's global seed is that of the recipe
    loss: Callable[[nn.Module, Recipe], Loss] | None  # None: EDM's weighted denoising loss
    recipe: Recipe
    score: Callable[[nn.Module, str, Path | None], dict[str, float]]  # of the trained model, data set and folder
    steps: Mapping[str, int] = field(default_factory=dict)  # of data sets that need another number than the recipe's

    def recipe_for(self, dataset: str, *, steps: int | None = None, seed: int | None = None) -> Recipe:
        """The recipe for a data set, with other ``steps`` or another ``seed`` where they are given."""
        steps = self.steps.get(dataset, self.recipe.steps) if steps is None else steps
        return replace(self.recipe, steps=steps, seed=self.recipe.seed if seed is None else seed)

    def untrained(self, data: Data, seed: int) -> nn.Module:
        """The model as its training begins."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # torch's initialisers do not take a generator
            return self.model(data)


def load(name: str, root: Path | None) -> nn.Module:
    """The checkpoint ``name`` in ``root``, or the one that comes with the course where ``root`` has none."""
    return checkpoints.load(name, root=root if name in checkpoints.names(root) else None)


def has_features(dataset: str, root: Path | None) -> bool:
    """Whether there is a feature network, in which images of the data set can be compared."""
    return any(f"{dataset}_features" in checkpoints.names(place) for place in (root, None))


def distance(dataset: str, root: Path | None, real: Tensor, fake: Tensor) -> dict[str, float]:
    """Fréchet distance ``fd`` of N images from the first N of ``real``; ``fd_floor`` too where ``real`` has 2 N."""
    net, count = load(f"{dataset}_features", root), len(fake)
    seen = metrics.features(net, real)
    found = {"fd": metrics.frechet_distance(seen[:count], metrics.features(net, fake))}
    if len(seen) >= 2 * count:
        generator = torch.Generator().manual_seed(0)
        found["fd_floor"] = metrics.floor(metrics.frechet_distance, seen, count, generator=generator)
    return found
