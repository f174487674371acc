"""Autoencoder and denoisers of two scales: Frido (Fan et al. 2022) on scenes.

``pyramid`` is the autoencoder. ``frido`` and ``frido_captions`` are denoisers of its latents, conditioned on boxes and
on text. ``sizes`` is a denoiser of scenes at 16 and 32 pixels that sees boxes, and no plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from survey_lib.core.heads import Preconditioned
from survey_lib.design.latent.layout import CHANNELS
from survey_lib.design.pyramid.cascade import OneScale, PooledPyramid, pack, unpack
from survey_lib.design.pyramid.frido import Frido
from survey_lib.lab import data
from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.data.scenes import layout
from survey_lib.lab.evaluation import scenes as judges
from survey_lib.lab.training import checkpoints
from survey_lib.lab.training.recipes.scenes import (
    CAPTIONED,
    DENOISER,
    MANY,
    PIXELS,
    WORDS,
    conditional_loss,
    drawn_score,
    in_batches,
    in_latents,
    latent_denoiser,
    painted,
    perceptual_distance,
    psnr,
    tokens,
    unchanged,
)
from survey_lib.lab.training.recipes.training import Beside, Training, load
from survey_lib.lab.training.trainer import Loss, Recipe
from survey_lib.nets.autoencoder import Pixels
from survey_lib.nets.pyramid import PyramidAutoencoder, PyramidUNet, SeparateUNets


@dataclass(frozen=True)
class PyramidRecipe(Recipe):
    """A `Recipe` for autoencoders of two scales."""

    perceptual: float = 0.1  # of the L1 distance in the first two stages of the feature network
    commitment: float = 0.25  # of the squared distance of latents from their codes (VQ-VAE, eq. 3)
    fine_dropout: float = 0.3  # fraction of examples that are decoded without their fine codes


def autoencoding(net: PyramidAutoencoder, recipe: PyramidRecipe) -> Loss:
    """Error, perceptual distance and commitment; some examples lose their fine codes, so the coarse ones carry more."""
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
        seen = perceptual_distance(judge, decoded, x0)
        return error + recipe.commitment * commitment + recipe.perceptual * seen, None

    return Beside(judge, loss)


def reconstructions(model: PyramidAutoencoder, images: Tensor, *, fine: bool = True) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] encoded and decoded, with or without their fine codes."""

    def again(x: Tensor) -> Tensor:
        coarse, strokes = model.encode(x.contiguous(memory_format=torch.channels_last))
        return model.decode(coarse, strokes if fine else None)

    return in_batches(again, images).clamp_(-1, 1)


def _autoencoder_score(model: PyramidAutoencoder, dataset: str, root: Path | None) -> dict[str, float]:
    """Quality of 1000 reconstructed test scenes, and decibels of both scales and of the coarse scale alone."""
    evaluator = judges.SceneEvaluator.load_for(1000)
    real = evaluator.wanted.float()
    whole, coarse = (reconstructions(model, real, fine=fine) for fine in (True, False))
    return {"psnr": psnr(whole, real), "psnr_coarse": psnr(coarse, real)} | evaluator.score(whole)


# ---------------------------------------------------------------------- denoisers


@dataclass(frozen=True)
class FridoRecipe(Recipe):
    """A `Recipe` for denoisers of two scales."""

    augmentation: float = 0.0  # standard deviation of noise on the coarse codes that the fine scale sees


_RECIPE = FridoRecipe(**asdict(DENOISER))


def latents(autoencoder: PyramidAutoencoder | PooledPyramid, images: ImageSet) -> Tensor:
    """Both scales of images as `pack` orders them, (N, 5 dims, h, w): coarse codes, and fine latents as they are."""
    fast = autoencoder.to(memory_format=torch.channels_last)

    def packed(x: Tensor) -> Tensor:
        coarse, fine = fast.encode(x.contiguous(memory_format=torch.channels_last))
        return pack(fast.snap(coarse, 0), fine)

    return in_batches(packed, images).contiguous()


def denoising(
    net: Preconditioned,
    recipe: FridoRecipe,
    *,
    plans: bool = True,  # whether the fine scale is told the true coarse one, or nearly so
    prepare: Callable[[Tensor, Tensor], Tensor] = painted,  # of the conditions, as for `conditional_loss`
    scales: Callable[[Tensor], Sequence[Tensor]] = unpack,  # coarse and fine, of an example
) -> Loss:
    """EDM's loss at both scales, a mean."""
    at_scale = conditional_loss(unchanged, net, recipe)

    def loss(model: nn.Module, x0: Tensor, cond: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
        coarse, fine = scales(x0)
        told, plan = prepare(cond, fine), coarse
        if recipe.augmentation:
            plan = coarse + recipe.augmentation * torch.randn(coarse.shape, generator=generator, device=x0.device)
        pairs = ((OneScale(model, 0), coarse), (OneScale(model, 1, plan if plans else None), fine))
        return sum(at_scale(one, z, told, generator)[0] for one, z in pairs) / 2, None

    return loss


_UNET = {"cond_channels": CHANNELS, "widths": (32, 64), "middle": 4, "patch": 1}


def frido_net(examples: TensorDataset, **unet: Any) -> Preconditioned:
    """An untrained denoiser of both scales that sees layouts."""
    return latent_denoiser(PyramidUNet(**_UNET | unet))


def separate_nets(examples: TensorDataset, **unet: Any) -> Preconditioned:
    """An untrained denoiser of both scales that sees layouts, with a U-Net for each scale."""
    return latent_denoiser(SeparateUNets(**_UNET | unet))


def caption_net(examples: TensorDataset) -> Preconditioned:
    """An untrained denoiser of both scales that sees captions."""
    return latent_denoiser(PyramidUNet(text=WORDS, **CAPTIONED))


def _denoiser_score(asked: str, model: Preconditioned, dataset: str, root: Path | None) -> dict[str, float]:
    """Quality of 1000 samples at 16 guided steps a scale."""
    return drawn_score(Frido(load(f"{dataset}_pyramid", root), model), (5 * model.net.channels, 8, 8), asked)


def _frido(asked: str, told: Callable, net: Callable, loss: Callable, steps: int, batch: int) -> Training:
    return Training(
        data=partial(in_latents, told, role="pyramid", count=MANY, encode=latents),
        model=net,
        loss=loss,
        recipe=replace(_RECIPE, steps=steps, batch=batch),  # large enough to keep a GPU busy
        score=partial(_denoiser_score, asked),
        images=MANY,
    )


SMALL = 32  # pixels of the scenes of ``sizes``
SIZES = {"dims": 3, "patch": 2}  # its network, and those that it is compared with
TWO_SIZES = PooledPyramid(Pixels(), 1.0)  # images at half of their side, and as they are
in_pixels = partial(denoising, scales=TWO_SIZES.encode)  # the loss of a cascade of images


def sizes(images: ImageSet) -> TensorDataset:
    """Scenes and their layouts."""
    return TensorDataset(images.images, layout(images))


TRAININGS: Mapping[str, Training] = {
    "pyramid": Training(
        data=lambda dataset, root: data.load(dataset),
        model=lambda images: PyramidAutoencoder(images.shape[-3]),
        loss=autoencoding,
        recipe=PyramidRecipe(steps=6000, batch=8, rate=2e-3, optimizer="muon", matrix_rate=0.03, average=0.99),
        score=_autoencoder_score,
    ),
    "frido": _frido("layout", layout, frido_net, denoising, 14_500, 128),
    "frido_captions": _frido("caption", tokens, caption_net, partial(denoising, prepare=unchanged), 22_750, 256),
    "sizes": Training(
        data=lambda dataset, root: sizes(data.load(dataset, size=SMALL)),
        model=partial(frido_net, **SIZES),
        loss=partial(in_pixels, plans=False),
        recipe=replace(_RECIPE, steps=5000, **PIXELS),
        score=lambda model, dataset, root: {},  # the lesson measures what it draws
    ),
}
