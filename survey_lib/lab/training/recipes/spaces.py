"""Denoisers of scenes in pixels and in latents, each trained for the same number of core-minutes.

A space is where a denoiser works: the pixels, folded into patches, or the latents of an autoencoder, whose own training
is paid from the same budget. All denoisers see layouts; optimiser, batch and noise levels are those of the recipe, but
for what was tuned for pixels.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from survey_lib.core.heads import Preconditioned
from survey_lib.core.schedules import vp_linear
from survey_lib.design.latent.layout import CHANNELS
from survey_lib.design.latent.pipeline import LatentDiffusion
from survey_lib.lab import data
from survey_lib.lab.data.images import resize, to_uint8
from survey_lib.lab.data.scenes import layout
from survey_lib.lab.training import recipes
from survey_lib.lab.training.recipes import scenes
from survey_lib.lab.training.recipes.training import Training
from survey_lib.lab.training.trainer import Recipe, Trainer
from survey_lib.nets.autoencoder import Pixels
from survey_lib.nets.unet import UNet
from survey_lib.nets.vit import UViT

AUTOENCODER_SHARE = 0.2  # of the budget
_ANY = torch.zeros(1, 3, 64, 64)  # images whose channels an autoencoder is made for
_WARM, _TIMED = 5, 20  # steps before and while the speed of a training is measured


@dataclass(frozen=True)
class Space:
    """Pixels in patches (``factor`` 1), or the latents of an autoencoder that shrinks a side by ``factor``.

    widths: of the U-Net; its finest maps have ``size / (factor * patch)`` places a side.
    """

    factor: int
    patch: int
    widths: tuple[int, ...]

    @property
    def role(self) -> str | None:
        """The row of the autoencoder in the table of trainings."""
        return None if self.factor == 1 else f"f{self.factor}"

    def shape(self, size: int) -> tuple[int, int, int]:
        """(channels, H, W) of what the denoiser sees of scenes of ``size`` pixels."""
        side = size // self.factor
        return (3 if self.role is None else scenes.DIMS[self.factor], side, side)

    def networks(self) -> tuple[UNet, nn.Module]:
        """The denoiser's network and the autoencoder, untrained."""
        autoencoder = Pixels() if self.role is None else scenes.TRAININGS[self.role].untrained(_ANY, 0)
        return scenes.layout_net_for(self.shape(64)[0], widths=self.widths, patch=self.patch), autoencoder


#: About as much work for an evaluation as each space allows a network of half a million parameters and more.
SPACES: Mapping[str, Space] = {
    "p1": Space(1, 1, (16, 32, 64, 64)),
    "p2": Space(1, 2, (32, 64, 64)),
    "p4": Space(1, 4, (64, 64)),
    "f2": Space(2, 1, (32, 64, 64)),
    "f4": Space(4, 1, (32, 64)),
    "f8": Space(8, 1, (64, 96)),
}


def transformer(examples: TensorDataset, *, long_skips: bool) -> Preconditioned:
    """A U-ViT that sees layouts, with about the work of the U-Net of ``f4``."""
    net = {"patch": 2, "width": 96, "layers": 7, "heads": 3, "cond_channels": CHANNELS, "long_skips": long_skips}
    return scenes.latent_denoiser(UViT(examples.tensors[0].shape[1], **net))


class Trained(NamedTuple):
    """A pipeline, and the core-seconds that its parts were trained for."""

    pipeline: LatentDiffusion
    autoencoder_seconds: float
    denoiser_seconds: float
    steps: int


def train_space(name: str, minutes: float, *, size: int = 64, seed: int = 0, count: int | None = None) -> Trained:
    """Train the parts of a space for ``minutes`` of one core together, on ``count`` scenes of ``size`` pixels."""
    if name not in SPACES:
        raise ValueError(f'no space "{name}"; accepted: {", ".join(SPACES)}')
    space, images = SPACES[name], data.load("scenes", size=size, count=count)
    budget, autoencoder, first = 60 * minutes, Pixels(), 0.0
    if space.role is not None:
        training = scenes.TRAININGS[space.role]
        autoencoder, first, _ = train_for(
            training, images, training.recipe_for("scenes", seed=seed), AUTOENCODER_SHARE * budget
        )
    began = time.process_time()
    z = images.images if space.role is None else scenes.latents(autoencoder, images)
    first += time.process_time() - began
    net = partial(scenes.layout_net, widths=space.widths, patch=space.patch)
    training = replace(scenes.TRAININGS["layout"], model=net)
    recipe = replace(scenes.DENOISER, seed=seed)
    if space.role is None:
        recipe = replace(recipe, **scenes.PIXELS)
    model, second, steps = train_for(training, TensorDataset(z, layout(images)), recipe, budget - first)
    denoiser = Preconditioned(model.net, vp_linear(), model.kind, model.sigma_data)
    return Trained(LatentDiffusion(autoencoder, denoiser), round(first, 1), round(second, 1), steps)


def train_for(training: Training, examples: Any, recipe: Recipe, seconds: float) -> tuple[nn.Module, float, int]:
    """Train for about ``seconds`` of one core: the model, the seconds taken, and the steps.

    The number of steps is fixed before the training begins, for the learning rate follows it: by a short trial.
    """
    trial = recipes.trainer(training, examples, replace(recipe, steps=_WARM + _TIMED))
    _run(trial, _WARM)
    began = time.process_time()
    _run(trial, _WARM + _TIMED)
    pace = (time.process_time() - began) / _TIMED
    steps = max(1, round(seconds / pace))
    began = time.process_time()
    model = recipes.trainer(training, examples, replace(recipe, steps=steps)).finish(every=steps)
    return model, time.process_time() - began, steps


def _run(trainer: Trainer, until: int) -> None:
    for _ in trainer.run(every=until, until=until):
        pass


def judged(images: Tensor, size: int = 64) -> Tensor:
    """Images in [-1, 1] as bytes, at the size that the judges of scenes know."""
    return resize(to_uint8(images), size)
