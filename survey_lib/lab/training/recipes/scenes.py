"""Judges, autoencoders and denoisers of scenes.

``reader`` names the character in a box and ``finder`` lists the objects of a scene: both judge samples and take no
part in drawing them. ``f2``, ``f4`` and ``f8`` are autoencoders, by their downsampling factor. ``layout`` and
``captions`` are denoisers of the latents of ``f4``, conditioned on boxes and on text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from survey_lib.core.corruptions import Gaussian
from survey_lib.core.heads import Preconditioned
from survey_lib.core.losses import denoising_loss, edm_weight, lognormal_times
from survey_lib.core.schedules import edm, vp_linear
from survey_lib.design.latent import layout as layouts
from survey_lib.design.latent.pipeline import LatentDiffusion
from survey_lib.lab import data
from survey_lib.lab.data import captions
from survey_lib.lab.data.drawing import DIGITS, FACES
from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.data.scenes import COLOURS, layout
from survey_lib.lab.evaluation import scenes as judges
from survey_lib.lab.evaluation.speed import precision
from survey_lib.lab.training import checkpoints
from survey_lib.lab.training.recipes.images import ClassifierRecipe
from survey_lib.lab.training.recipes.training import Beside, Training, load
from survey_lib.lab.training.trainer import Loss, Recipe
from survey_lib.nets.autoencoder import KLAutoencoder, gaussian_kl
from survey_lib.nets.captioned import CaptionedUNet
from survey_lib.nets.classifier import Classifier
from survey_lib.nets.finder import Finder
from survey_lib.nets.unet import UNet

# ---------------------------------------------------------------------- judges


def _described(dataset: str, root: Path | None) -> TensorDataset:
    """Scenes with a description of each object, float32 (N, 4, 8): character, face, colour, large, box."""
    images = data.load(dataset)
    parts = [images.extra[name][..., None].float() for name in ("character", "face", "colour", "large")]
    return TensorDataset(images.images, torch.cat([*parts, images.extra["box"]], 2))


def _noisy(x0: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Images with Gaussian noise of a random strength up to ``most``."""
    random = {"generator": generator, "device": x0.device}
    x = x0 + most * torch.rand(len(x0), 1, 1, 1, **random) * torch.randn(x0.shape, **random)
    return x.contiguous(memory_format=torch.channels_last)


def _reading(net: Classifier, recipe: ClassifierRecipe) -> Loss:
    """Cross-entropies of character, face and colour of one object of each scene, in a box that is a little off."""

    def loss(model: nn.Module, x0: Tensor, cond: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
        random = {"generator": generator, "device": x0.device}
        keys = torch.rand(cond.shape[:2], **random) + (cond[..., 6] > 0)
        one = cond[torch.arange(len(x0), device=x0.device), keys.argmax(1)]
        box = one[:, 4:] + 0.05 * (2 * torch.rand(len(x0), 4, **random) - 1) * one[:, 6:].repeat(1, 2)
        logits = model(_noisy(judges.crops(x0, box), recipe.noise, generator)).split(net.heads, dim=1)
        return sum(F.cross_entropy(a, one[:, i].long(), reduction="none") for i, a in enumerate(logits)), None

    return loss


def _finding(net: Finder, recipe: ClassifierRecipe) -> Loss:
    """Cross-entropies in the cells of the objects, and of whether a cell holds one; the cells around are left out."""

    def loss(model: nn.Module, x0: Tensor, cond: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
        logits = model(_noisy(x0, recipe.noise, generator)).float()
        rows, columns = logits.shape[2:]
        present = cond[..., 6] > 0
        image, slot = present.nonzero(as_tuple=True)
        one = cond[image, slot]
        x, y = (one[:, 4] * columns).long(), (one[:, 5] * rows).long()
        there = torch.zeros_like(logits[:, 0])
        there[image, y, x] = 1
        near = F.max_pool2d(there[:, None], 3, stride=1, padding=1)[:, 0]
        is_one = F.binary_cross_entropy_with_logits(logits[:, 0], there, reduction="none")
        cells = (is_one * (1 - near + there)).flatten(1).sum(1)
        here = logits[image, :, y, x]  # (objects, 3 + heads)
        errors = 4 * (here[:, 1:3] - one[:, 6:]).abs().sum(1)
        targets = (one[:, 3], one[:, 2], one[:, 0])  # as in a caption: large, colour, character
        for group, wanted in zip(here[:, 3:].split(net.heads, 1), targets, strict=True):
            errors = errors + F.cross_entropy(group, wanted.long(), reduction="none")
        return cells.index_add(0, image, errors), None

    return loss


def _judge_score(model: nn.Module, dataset: str, root: Path | None) -> dict[str, float]:
    """Accuracy on test scenes."""
    test = data.load(dataset, split="test", count=2000)
    if isinstance(model, Classifier):
        return judges.layout_accuracy(model, test.float(), test)
    return judges.caption_accuracy(model, test.float(), test)


_JUDGE = ClassifierRecipe(steps=2500, batch=128, rate=3e-3)

# ---------------------------------------------------------------------- autoencoders


@dataclass(frozen=True)
class AutoencoderRecipe(Recipe):
    """A `Recipe` for autoencoders: the error, and the weights of the terms beside it."""

    perceptual: float = 0.1  # of the L1 distance in the first two stages of the feature network
    kl: float = 3e-3  # of the divergence from N(0, I), a mean over the latents
    power: int = 1  # of the error: 1 for absolute, 2 for squared errors


def _autoencoding(net: KLAutoencoder, recipe: AutoencoderRecipe) -> Loss:
    """Error, perceptual distance and KL divergence (LDM, app. G, without its discriminator)."""
    judge = checkpoints.load("scenes_features") if recipe.perceptual else None

    def loss(model: nn.Module, x0: Tensor, cond: None, generator: torch.Generator) -> tuple[Tensor, None]:
        mean, log_variance = model.posterior(x0)
        noise = torch.randn(mean.shape, generator=generator, device=x0.device)
        z = mean + (0.5 * log_variance.float()).exp() * noise
        model.follow(z.detach())
        decoded = model.decoder(z).float()
        error = (decoded - x0).abs().pow(recipe.power).flatten(1).mean(1)
        total = error + recipe.kl * gaussian_kl(mean.float(), log_variance.float())
        if judge is not None:
            total = total + recipe.perceptual * perceptual_distance(judge, decoded, x0)
        return total, None

    return loss if judge is None else Beside(judge, loss)


def perceptual_distance(judge: Classifier, one: Tensor, other: Tensor, stages: int = 2) -> Tensor:
    """L1 distance in the first ``stages`` of a classifier, (B,): LPIPS (Zhang et al. 2018) in the course's features."""
    total: Tensor | float = 0.0
    for layer in judge.stages[: 6 * stages]:
        one, other = layer(one), layer(other)
        if isinstance(layer, nn.ReLU):
            total = total + (one - other).float().abs().flatten(1).mean(1)
    return total


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], images: ImageSet | Tensor) -> Tensor:
    """``function`` of images in [-1, 1] in float32, 250 at a time and at full speed."""
    few = torch.arange(len(images)).split(250)
    with precision():
        return torch.cat([function(images[k] if isinstance(images, Tensor) else images.float(k)).float() for k in few])


def reconstruct(autoencoder: KLAutoencoder, images: ImageSet) -> Tensor:
    """The images encoded and decoded, (N, C, H, W) in [-1, 1]."""
    return in_batches(autoencoder, images).clamp_(-1, 1)


def psnr(images: Tensor, others: Tensor) -> float:
    """Peak signal-to-noise ratio of images in [-1, 1], a mean over the images, in dB."""
    return float((10 * (4 / (images - others).square().flatten(1).mean(1)).log10()).mean())


def _autoencoder_score(model: KLAutoencoder, dataset: str, root: Path | None) -> dict[str, float]:
    """Signal-to-noise ratio of 1000 reconstructed test images in dB; of scenes, their quality and accuracy as well."""
    evaluator = judges.SceneEvaluator.load_for(1000) if dataset == "scenes" else None
    test = evaluator.wanted if evaluator else data.load(dataset, split="test", count=1000)
    images = reconstruct(model, test)
    return {"psnr": psnr(images, test.float())} | (evaluator.score(images) if evaluator else {})


#: Channels of the latents by factor: from 4 to 8 the same numbers are spread over a quarter of the places.
DIMS: Mapping[int, int] = {2: 3, 4: 4, 8: 16}


def _autoencoder(factor: int, steps: int) -> Training:
    net = {"halvings": factor.bit_length() - 1, "dims": DIMS[factor]}
    return Training(
        data=lambda dataset, root: data.load(dataset),
        model=lambda images: KLAutoencoder(images.shape[-3], **net),
        loss=_autoencoding,
        recipe=AutoencoderRecipe(steps=steps, batch=8, rate=2e-3, optimizer="muon", matrix_rate=0.03, average=0.99),
        score=_autoencoder_score,
    )


# ---------------------------------------------------------------------- denoisers


def latents(autoencoder: KLAutoencoder, images: ImageSet) -> Tensor:
    """The latents of images, (N, dims, h, w) in the units of the denoiser."""
    return in_batches(autoencoder.to(memory_format=torch.channels_last).encode, images).contiguous()


def in_latents(
    told: Callable[[ImageSet], Tensor],
    dataset: str,
    root: Path | None,
    *,
    role: str = "f4",
    count: int | None = None,
    encode: Callable[[nn.Module, ImageSet], Tensor] = latents,
) -> TensorDataset:
    """``count`` training images in the latents of an autoencoder, and what ``told`` makes of them as conditions."""
    images = data.load(dataset, count=count)
    return TensorDataset(encode(load(f"{dataset}_{role}", root), images), told(images))


def latent_denoiser(net: nn.Module) -> Preconditioned:
    """A network as a denoiser of latents, in their units."""
    return Preconditioned(net, edm(), "edm", sigma_data=KLAutoencoder.SCALE)


def painted(cond: Tensor, x0: Tensor) -> Tensor:
    """Layouts (B, 4, 5) as images of the size of ``x0``."""
    return layouts.paint(cond, x0.shape[-1])


def unchanged(cond: Tensor, x0: Tensor) -> Tensor:
    """Conditions as the network takes them."""
    return cond


def conditional_loss(prepare: Callable[[Tensor, Tensor], Tensor], net: Preconditioned, recipe: Recipe) -> Loss:
    """EDM's loss given ``prepare(cond, x0)``, which is zero for a fraction ``label_dropout`` of the examples."""
    levels = {"mean": recipe.log_sigma_mean, "std": recipe.log_sigma_std}

    def loss(model: nn.Module, x0: Tensor, cond: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        t = lognormal_times(len(x0), net.schedule, **levels, generator=generator)
        lam, cond = net.schedule.lam(t), prepare(cond, x0)
        kept = (
            torch.rand(len(x0), *[1] * (cond.ndim - 1), generator=generator, device=x0.device) >= recipe.label_dropout
        )
        how = {"weight": edm_weight(lam, net.sigma_data), "generator": generator}
        return denoising_loss(model, Gaussian(net.schedule), x0, t, cond=cond * kept, **how), lam

    return loss


def layout_net_for(channels: int, **net: object) -> UNet:
    """The network of denoisers that see layouts."""
    return UNet(channels, middle=4, cond_channels=layouts.CHANNELS, **net)


def layout_net(examples: TensorDataset, **net: object) -> Preconditioned:
    """A denoiser of images or latents that sees layouts."""
    return latent_denoiser(layout_net_for(examples.tensors[0].shape[1], **net))


def tokens(images: ImageSet) -> Tensor:
    """The captions of scenes as integers (N, LENGTH)."""
    return captions.encode(captions.captions(images))


#: The text encoder, and the network of denoisers that see captions.
WORDS: Mapping[str, int] = {"words": len(captions.VOCABULARY), "length": captions.LENGTH, "width": 96}
CAPTIONED: Mapping[str, Any] = {"widths": (48, 96), "patch": 1, "middle": 4, "attention": (0, 1)}


def _caption_net(examples: TensorDataset) -> Preconditioned:
    return latent_denoiser(CaptionedUNet(**WORDS, channels=examples.tensors[0].shape[1], **CAPTIONED))


def _denoiser_score(asked: str, model: Preconditioned, dataset: str, root: Path | None) -> dict[str, float]:
    """Quality of 1000 samples at 20 guided steps."""
    return drawn_score(LatentDiffusion(load(f"{dataset}_f4", root), model), (model.net.channels, 16, 16), asked)


def drawn_score(pipeline: Any, shape: tuple[int, ...], asked: str = "layout") -> dict[str, float]:
    """Quality of 1000 scenes that a pipeline draws from noise of ``shape`` under `vp_linear`."""
    evaluator, model = judges.SceneEvaluator.load_for(1000, asked=asked), pipeline.denoiser
    denoiser = Preconditioned(model.net, vp_linear(), model.kind, model.sigma_data)
    noise = torch.randn(1000, *shape, generator=torch.Generator().manual_seed(0))
    return evaluator.score(judges.draw(replace(pipeline, denoiser=denoiser), noise, evaluator.condition(16)))


DENOISER = Recipe(
    batch=32,  # smaller batches reach further in equal time, down to 16
    rate=4e-3,
    optimizer="muon",
    matrix_rate=0.012,
    label_dropout=0.1,
    average=0.999,
)


#: In place of the recipe's values for pixels: more of the training at little noise, where their details are. At -1.6
#: the distance was smaller by 6 % than at -0.8 after 1.5 core-minutes in patches of 4. After 5 core-minutes in patches
#: of 2 (FD 117 to 154) rates twice and half as large (193, 128) and batches of 16 (140) were no better.
PIXELS: Mapping[str, float] = {"log_sigma_mean": -1.6}


#: In place of the recipe's values for latents: less of the training at little noise, for details are the decoder's
#: business. After 5000 steps in latents of f4 95 % of the digits were read, and 89 and 91 % with the recipe's values.
LATENTS: Mapping[str, float] = {"log_sigma_mean": -0.3, "log_sigma_std": 1.2}


MANY = 120_000  # scenes for the denoisers: few enough for memory, too many to be learned by heart


def _denoiser(asked: str, told: Callable, net: Callable, prepare: Callable, steps: int, batch: int) -> Training:
    return Training(
        data=partial(in_latents, told, count=MANY),
        model=net,
        loss=partial(conditional_loss, prepare),
        recipe=replace(DENOISER, steps=steps, batch=batch),  # large enough to keep a GPU busy
        score=partial(_denoiser_score, asked),
        images=MANY,
    )


TRAININGS: Mapping[str, Training] = {
    "reader": Training(
        data=_described,
        model=lambda examples: Classifier(3, (len(DIGITS), len(FACES), len(COLOURS))),
        loss=_reading,
        recipe=_JUDGE,
        score=_judge_score,
    ),
    "finder": Training(
        data=_described,
        model=lambda examples: Finder(3, (2, len(COLOURS), len(DIGITS))),
        loss=_finding,
        recipe=replace(_JUDGE, batch=32, steps=3000),
        score=_judge_score,
    ),
    "f2": _autoencoder(2, 2500),
    "f4": _autoencoder(4, 8000),
    "f8": _autoencoder(8, 2500),
    "layout": _denoiser("layout", layout, partial(layout_net, widths=(32, 64), patch=1), painted, 22_000, 128),
    "captions": _denoiser("caption", tokens, _caption_net, unchanged, 10_500, 256),
}
