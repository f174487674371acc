"""Denoisers and classifiers of images.

``base`` is an unconditional denoiser and ``conditional`` one that knows the label. ``features`` and ``features2`` are
classifiers whose hidden layer is the space in which images are compared. Guidance needs two more: ``noisy`` names
labels at any noise level, and ``weak`` is a conditional denoiser that is smaller and stops early.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from survey_lib.core import grids
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.heads import LabelPosterior, Preconditioned
from survey_lib.core.integrators import multistep
from survey_lib.core.losses import lognormal_times
from survey_lib.core.schedules import edm, vp_linear
from survey_lib.lab import data
from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.evaluation import metrics
from survey_lib.lab.evaluation.evaluator import Evaluator
from survey_lib.lab.evaluation.speed import fast
from survey_lib.lab.training.recipes import training
from survey_lib.lab.training.recipes.training import Training
from survey_lib.lab.training.trainer import Loss, Recipe
from survey_lib.nets.classifier import Classifier, NoisyClassifier
from survey_lib.nets.unet import UNet

LEVELS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # of sigma / alpha, at which a noisy classifier is scored
BASE = Recipe(steps=13_500, batch=128, rate=4e-3, optimizer="muon", average=0.999)
_GLYPHS = {"steps": 17_000, "batch": 256}  # in BASE, for glyphs: 21 faces, slants and colours take longer
_ADAM = Recipe(batch=128, rate=5e-3)


@dataclass(frozen=True)
class ClassifierRecipe(Recipe):
    """A `Recipe` for classifiers of clean images: one cycle of the learning rate, and a little noise on the inputs."""

    rate_schedule: str = "one_cycle"
    warmup: int = 0
    average: float = 0.0
    clip: float | None = None
    noise: float = 0.1  # the largest standard deviation of the noise


def contrastive_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """CLIP's loss (Radford et al. 2021, fig. 3) with the K labels as captions: the mean of both directions.

    Image to caption: cross-entropy among all K labels. Caption to image: cross-entropy among the images of the batch,
    shared equally by all images of the label. With equally frequent labels, both are minimal at
    ``logits = log p(y | x) / p(y)``, up to a constant. ``logits`` (B, K), ``wanted`` (B,).
    """
    to_images = logits.log_softmax(0).gather(1, wanted[:, None])[:, 0]
    same = wanted.bincount(minlength=logits.shape[1])[wanted]  # each caption that occurs counts once
    to_images = -(to_images / same).sum() / len(wanted.unique())
    return (F.cross_entropy(logits, wanted) + to_images) / 2


def noisy_accuracy(labels: LabelPosterior, images: ImageSet, count: int = training.COUNT) -> dict[str, float]:
    """Fraction of up to ``count`` images whose label is found, at each of `LEVELS` of sigma / alpha."""
    index = torch.arange(min(count, len(images)))
    x0, generator, schedule = images.float(index), torch.Generator().manual_seed(0), labels.schedule
    labels, found = labels.cpu().eval(), {}
    for level in LEVELS:
        t = schedule.time_at(level)
        x_t = Gaussian(schedule).corrupt(x0, t, generator=generator)
        with torch.inference_mode():
            named = torch.cat([labels(part, t).argmax(1) for part in x_t.split(500)])
        found[f"accuracy_at_{level:g}"] = float((named == images.labels[index]).double().mean())
    return found


# ---------------------------------------------------------------------- denoisers


#: By channels: grey digits need depth at the coarse level, coloured glyphs need width at the fine level.
_NETS: Mapping[int, Mapping[str, Any]] = {
    1: {"widths": (32, 64), "middle": 6, "attention": (1,)},
    3: {"widths": (44, 64), "middle": 4, "attention": (1,)},
}
_LARGE = 40  # pixels, above which the U-Net has three levels
_SMALL: Mapping[str, Any] = {"widths": (16, 32), "middle": 4, "attention": ()}


def _unet(images: ImageSet, *, conditional: bool = False, **net: Any) -> Preconditioned:
    """The course's U-Net as a denoiser: 0.8 to 0.9 M parameters unless ``net`` says otherwise."""
    channels, classes = images.shape[0], len(images.classes) if conditional else None
    net = {**_NETS[channels], **net}
    if images.shape[1] > _LARGE:  # a level more, so that its bottom sees as much of the image
        levels = tuple(level + 1 for level in net["attention"])
        net |= {"widths": (*net["widths"], net["widths"][-1]), "attention": levels}
    return Preconditioned(UNet(channels, classes=classes, **net), edm(), "edm", sigma_data=0.5)


def _images(dataset: str, root: Path | None) -> ImageSet:
    return data.load(dataset)


def _denoiser_score(model: Preconditioned, dataset: str, root: Path | None) -> dict[str, float]:
    """Quality of samples at 20 evaluations (2M)."""
    schedule, labelled = vp_linear(), model.net.classes is not None

    def sample(evaluator: Evaluator) -> Tensor:
        denoiser = fast(Preconditioned(model.net, schedule, model.kind, model.sigma_data))
        shape = (evaluator.count, *evaluator.shape)
        times = grids.karras(20, schedule)
        noise = Gaussian(schedule).prior(shape, times[0], generator=torch.Generator().manual_seed(0))
        cond = evaluator.test.labels[: evaluator.count] if labelled else None
        return multistep(denoiser, schedule, noise, times, cond=cond)

    return training.score(sample, dataset, root, labelled=labelled)


def _denoiser(recipe: Recipe, glyphs: Mapping[str, Any], **net: Any) -> Training:
    """A denoiser; ``glyphs`` are the changes of its recipe on glyphs."""
    return Training(
        data=_images,
        model=lambda images: _unet(images, **net),
        loss=None,
        recipe=recipe,
        score=_denoiser_score,
        changes={"glyphs": glyphs},
    )


# ---------------------------------------------------------------------- classifiers


def _targets(images: ImageSet) -> dict[str, Tensor]:
    """Targets of a classifier, a head each: the label; the face of a glyph; which characters a scene shows."""
    if "character" in images.extra:
        shown = F.one_hot(images.extra["character"]).amax(1)[:, :-1]  # without the empty slot
        return {"label": images.labels} | {f"shows_{i}": part for i, part in enumerate(shown.unbind(1))}
    return {"label": images.labels} | ({"face": images.extra["face"]} if "face" in images.extra else {})


def _turned(images: ImageSet) -> ImageSet:
    """The images; where all have the same label, each in four directions, its quarter turns as the label.

    To tell which way up an image is takes features of what it shows (Gidaris et al. 2018).
    """
    if len(images.classes) > 1:
        return images
    turns, names = range(4), ("0", "90", "180", "270")
    pixels = torch.cat([torch.rot90(images.images, k, (2, 3)) for k in turns])
    return ImageSet(images.name, pixels, torch.arange(4).repeat_interleave(len(images)), names)


def _with_targets(dataset: str, root: Path | None) -> TensorDataset:
    images = _turned(data.load(dataset))
    return TensorDataset(images.images, torch.stack(list(_targets(images).values()), 1))


def _classification(net: Classifier, recipe: ClassifierRecipe) -> Loss:
    """The sum of the heads' cross-entropies on images with Gaussian noise of a random strength."""

    def loss(model: nn.Module, x0: Tensor, cond: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
        random = {"generator": generator, "device": x0.device}
        x = x0 + recipe.noise * torch.rand(len(x0), 1, 1, 1, **random) * torch.randn(x0.shape, **random)
        logits = model(x.contiguous(memory_format=torch.channels_last)).split(net.heads, dim=1)
        return sum(F.cross_entropy(a, cond[:, i], reduction="none") for i, a in enumerate(logits)), None

    return loss


def _accuracy(net: Classifier, dataset: str, root: Path | None) -> dict[str, float]:
    test = _turned(data.load(dataset, split="test"))
    found = zip(_targets(test).items(), metrics.classify(net, test.images), strict=True)
    return {f"accuracy_{what}": float((seen == wanted).double().mean()) for (what, wanted), seen in found}


def _classifier(seed: int, **net: object) -> Training:
    def model(examples: TensorDataset) -> Classifier:
        images, targets = examples.tensors
        return Classifier(images.shape[1], (targets.amax(0) + 1).tolist(), **net)  # targets are numbered from 0

    recipe = ClassifierRecipe(steps=3000, batch=128, rate=3e-3, seed=seed)
    fewer = {"scenes": {"steps": 800}}  # four times as many pixels
    return Training(_with_targets, model, _classification, recipe, _accuracy, changes=fewer)


def _contrast(labels: LabelPosterior, recipe: Recipe) -> Loss:
    """CLIP's loss at the noise levels of a denoiser's training; it is one number for a batch, so all B are equal."""
    corruption, levels = Gaussian(labels.schedule), {"mean": recipe.log_sigma_mean, "std": recipe.log_sigma_std}

    def loss(model: nn.Module, x0: Tensor, cond: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
        t = lognormal_times(len(x0), labels.schedule, **levels, generator=generator)
        x_t = corruption.corrupt(x0, t, generator=generator).contiguous(memory_format=torch.channels_last)
        return contrastive_loss(model(x_t, t), cond).expand(len(x0)), None

    return loss


def _noisy() -> Training:
    return Training(
        data=_images,
        model=lambda images: LabelPosterior(NoisyClassifier(images.shape[0], len(images.classes)), edm()),
        loss=_contrast,
        recipe=replace(_ADAM, steps=2000, rate=2e-3, rate_schedule="one_cycle", warmup=0, average=0.0, clip=None),
        score=lambda model, dataset, root: noisy_accuracy(model, data.load(dataset, split="test")),
    )


_LABELLED = {"label_dropout": 0.15, "seed": 1}

TRAININGS: Mapping[str, Training] = {
    "features": _classifier(seed=0, widths=(24, 48, 96), kernel=3),
    "features2": _classifier(seed=1, widths=(32, 64, 64), kernel=5),
    "base": _denoiser(BASE, _GLYPHS),
    "conditional": _denoiser(replace(BASE, **_LABELLED), _GLYPHS | {"steps": 16_500}, conditional=True),
    "weak": _denoiser(replace(_ADAM, steps=600, **_LABELLED), {"steps": 1000}, conditional=True, **_SMALL),
    "noisy": _noisy(),
}
