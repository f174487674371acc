"""Autoencoder and denoisers of two scales: Frido (Fan et al. 2022) on scenes.

``pyramid`` is the autoencoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from survey_lib.lab import data
from survey_lib.lab.evaluation import scenes as judges
from survey_lib.lab.evaluation.speed import precision
from survey_lib.lab.training import checkpoints
from survey_lib.lab.training.recipes.scenes import perceptual_distance
from survey_lib.lab.training.recipes.training import Training
from survey_lib.lab.training.trainer import Loss, Recipe
from survey_lib.nets.pyramid import PyramidAutoencoder


@dataclass(frozen=True)
class PyramidRecipe(Recipe):
    """A `Recipe` for autoencoders of two scales."""

    perceptual: float = 0.1  # of the L1 distance in the first two stages of the feature network
    commitment: float = 0.25  # of the squared distance of latents from their codes (VQ-VAE, eq. 3)
    fine_dropout: float = 0.3  # fraction of examples that are decoded without their fine codes


def autoencoding(net: PyramidAutoencoder, recipe: PyramidRecipe) -> Loss:
    """Error, perceptual distance and commitment; some examples lose their fine codes, so that coarse ones carry more."""
    judge = checkpoints.load("scenes_features")

    def loss(model: nn.Module, x0: Tensor, cond: None, generator: torch.Generator) -> tuple[Tensor, None]:
        quantised, commitment = [], 0.0
        for scale, z in enumerate(model.latents(x0)):
            code, index = model.nearest(z, scale)
            rows = z.detach().movedim(1, -1)
            if model.training:
                model.books[scale].learn(rows, index, generator=generator)
            commitment = commitment + (z - code.detach()).float().square().flatten(1).mean(1)
            quantised.append(z + (code - z).detach())
        kept = torch.rand(len(x0), 1, 1, 1, generator=generator, device=x0.device) >= recipe.fine_dropout
        decoded = model.images(quantised[0], quantised[1] * kept).float()
        error = (decoded - x0).abs().flatten(1).mean(1)
        return error + recipe.commitment * commitment + recipe.perceptual * perceptual_distance(judge, decoded, x0), None

    return loss


@torch.no_grad()
def reconstructions(model: PyramidAutoencoder, images: Tensor, *, fine: bool = True) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] encoded and decoded, with or without their fine codes."""
    with precision():
        parts = [model.encode(part.contiguous(memory_format=torch.channels_last)) for part in images.split(250)]
        decoded = [model.decode(*(z if fine else z[:1])).float() for z in parts]
    return torch.cat(decoded).clamp_(-1, 1)


def psnr(images: Tensor, others: Tensor) -> float:
    """Peak signal-to-noise ratio of images in [-1, 1], a mean over the images, in dB."""
    return float((10 * (4 / (images - others).square().flatten(1).mean(1)).log10()).mean())


def _autoencoder_score(model: PyramidAutoencoder, dataset: str, root: Path | None) -> dict[str, float]:
    """Quality of 1000 reconstructed test scenes, and decibels of both scales and of the coarse scale alone."""
    evaluator = judges.SceneEvaluator.load_for(1000)
    real = evaluator.wanted.float()
    whole, coarse = (reconstructions(model, real, fine=fine) for fine in (True, False))
    return {"psnr": psnr(whole, real), "psnr_coarse": psnr(coarse, real)} | evaluator.score(whole)


TRAININGS: Mapping[str, Training] = {
    "pyramid": Training(
        data=lambda dataset, root: data.load(dataset),
        model=lambda images: PyramidAutoencoder(images.shape[-3]),
        loss=autoencoding,
        recipe=PyramidRecipe(steps=6000, batch=8, rate=2e-3, optimizer="muon", matrix_rate=0.03, average=0.99),
        score=_autoencoder_score,
    ),
}
