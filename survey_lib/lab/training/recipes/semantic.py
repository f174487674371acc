"""The training of a diffusion autoencoder (Preechakul et al. 2022): a code of the clean image, for its denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from survey_lib.core.heads import Preconditioned
from survey_lib.core.schedules import edm
from survey_lib.lab import data
from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.training.recipes.scenes import DENOISER, conditional_loss
from survey_lib.lab.training.recipes.training import Training
from survey_lib.nets.semantic import SemanticUNet


def semantic_net(images: ImageSet) -> Preconditioned:
    """A denoiser of small images that sees a code of the clean image."""
    unet = SemanticUNet(images.shape[0], widths=(32, 64), patch=1)
    return Preconditioned(unet, edm(), "edm", sigma_data=0.5)


TRAININGS: Mapping[str, Training] = {
    "semantic": Training(
        data=lambda dataset, root: data.load(dataset, size=16),
        model=semantic_net,
        loss=partial(conditional_loss, lambda cond, x0: x0),  # the clean image itself, which the network encodes
        recipe=replace(DENOISER, steps=6000, label_dropout=0.0),
        score=lambda model, dataset, root: {},  # the loss says enough
    )
}
