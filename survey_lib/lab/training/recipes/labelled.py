"""Class-conditional denoisers in the latents of real images, such as CIFAR-10.

``denoiser_f2`` and ``denoiser_f4`` build on the autoencoders ``f2`` and ``f4`` of the same data set, which come first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from torch.utils.data import TensorDataset

from survey_lib.core.heads import Preconditioned
from survey_lib.lab.training.recipes.scenes import DENOISER, in_latents, latent_denoiser
from survey_lib.lab.training.recipes.training import Training
from survey_lib.nets.unet import UNet


def _labelled_net(examples: TensorDataset) -> Preconditioned:
    z, labels = examples.tensors
    classes = int(labels.max()) + 1
    return latent_denoiser(UNet(z.shape[1], widths=(64, 128), middle=4, patch=1, attention=(1,), classes=classes))


TRAININGS: Mapping[str, Training] = {
    f"denoiser_{role}": Training(
        data=partial(in_latents, lambda images: images.labels, role=role),
        model=_labelled_net,
        loss=None,
        recipe=replace(DENOISER, batch=128, steps=20_000),
        score=lambda model, dataset, root: {},  # the feature networks of the course do not know these images
    )
    for role in ("f2", "f4")
}
