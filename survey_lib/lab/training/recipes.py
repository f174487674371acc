"""How each shipped checkpoint is made. ``survey train NAME`` runs one from scratch.

For each data set there are six: ``features`` and ``features2`` are classifiers whose hidden layer is the space in
which images are compared; ``base`` is an unconditional denoiser, ``conditional`` one that knows the label. Guidance
needs two more: ``noisy`` names labels at any noise level, and ``weak`` is a conditional denoiser that is smaller and
stops early.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from survey_lib.core import grids
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.heads import LabelPosterior, Preconditioned
from survey_lib.core.integrators import multistep
from survey_lib.core.losses import lognormal_times
from survey_lib.core.schedules import edm, vp_linear
from survey_lib.lab.data import ImageSet, load
from survey_lib.lab.evaluation import metrics
from survey_lib.lab.evaluation.speed import fast, precision
from survey_lib.lab.runtime import HOME, suggest
from survey_lib.lab.training import checkpoints
from survey_lib.lab.training.trainer import Recipe, Trainer
from survey_lib.nets.classifier import Classifier, NoisyClassifier
from survey_lib.nets.unet import UNet

BASE = Recipe(batch=128, rate=5e-3)
_STEPS = {"glyphs": 10000, "mnist": 6000}  # glyphs have 21 faces, slants and colours: there is more to learn
_FEATURES = {"features": dict(widths=(24, 48, 96), kernel=3), "features2": dict(widths=(32, 64, 64), kernel=5)}
_DENOISERS = {"base": (32, 64), "conditional": (32, 64), "weak": (16, 32)}  # widths
_CLASSIFIER = dict(steps=3000, batch=128, rate=3e-3, noise=0.1)  # noise: the largest standard deviation on the inputs
_NOISY = dict(steps=2000, batch=128, rate=2e-3, log_sigma_mean=BASE.log_sigma_mean, log_sigma_std=BASE.log_sigma_std)
LEVELS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # of sigma / alpha, at which a noisy classifier is scored


def names() -> list[str]:
    """The checkpoints that `train` can make."""
    return [f"{dataset}_{role}" for dataset in _STEPS for role in (*_FEATURES, *_DENOISERS, "noisy")]


def train(name: str, *, device: str = "cpu", steps: int | None = None, root: Path | None = None) -> Path:
    """Make the checkpoint ``name`` from scratch and save it with its manifest.

    A denoiser takes up to three quarters of an hour, and a stopped training of one resumes; the others take minutes.
    ``steps`` shortens the recipe (to try it out, best with a ``root`` of its own). Raises ValueError for an
    unknown name.
    """
    if name not in names():
        raise ValueError(f'no recipe "{name}"{suggest(name, names())}; accepted: {", ".join(names())}')
    dataset, _, role = name.partition("_")
    make = train_classifier if role in _FEATURES else train_noisy if role == "noisy" else train_denoiser
    return make(name, load(dataset), role, device=device, steps=steps, root=root)


def denoiser_for(
    images: ImageSet, *, conditional: bool = False, seed: int = 0, widths: tuple[int, ...] = _DENOISERS["base"]
) -> Preconditioned:
    """The course's U-Net (0.6 M parameters) for these images, untrained, as a denoiser."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # torch's initialisers know no generator
        net = UNet(images.shape[0], widths=widths, middle=4, classes=len(images.classes) if conditional else None)
    return Preconditioned(net, edm(), "edm", sigma_data=0.5)


def denoiser_recipe(dataset: str, role: str) -> Recipe:
    """How ``dataset_base``, ``_conditional`` or ``_weak`` is trained; a test holds the shipped ones to it."""
    recipe = replace(BASE, steps=_STEPS[dataset])
    if role == "base":
        return recipe
    # A label takes much of the guessing away: a third of the steps comes as far, and a tenth not far enough.
    return replace(recipe, steps=recipe.steps // (10 if role == "weak" else 3), label_dropout=0.15, seed=1)


def train_denoiser(
    name: str, images: ImageSet, role: str, *, device: str, steps: int | None, root: Path | None
) -> Path:
    """An EDM denoiser by the loop of `survey_lib.lab.training.trainer`."""
    conditional, recipe = role != "base", denoiser_recipe(images.name, role)
    recipe = recipe if steps is None else replace(recipe, steps=steps)
    model = denoiser_for(images, conditional=conditional, seed=recipe.seed, widths=_DENOISERS[role])
    state = state_of(name, steps)
    trainer = Trainer(model, images, recipe, device=device, save_to=state)
    trained = trainer.finish(progress=True)
    about = data_facts(images) | {"recipe": asdict(recipe), "seed": recipe.seed}
    scores = {"loss": trainer.history[-1].loss, **_frechet(trained, images.name, conditional, root)}
    about |= circumstances(trainer.seconds, device) | {"scores": scores}
    path = checkpoints.save(name, trained, about, root=root)
    state.unlink(missing_ok=True)  # done: the next call begins anew
    return path


def _frechet(model: Preconditioned, dataset: str, conditional: bool, root: Path | None) -> dict[str, float]:
    """Fréchet distance of 2000 samples at 20 evaluations (2M), and its floor; nothing before there are features."""
    if f"{dataset}_features" not in checkpoints.names(root):
        return {}
    count, generator = 2000, torch.Generator().manual_seed(0)
    eye, schedule = checkpoints.load(f"{dataset}_features", root=root), vp_linear()
    test = load(dataset, split="test", count=2 * count)
    denoiser = fast(Preconditioned(model.net.cpu(), schedule, model.kind, model.sigma_data))
    noise = Gaussian(schedule).prior((count, *test.shape), generator=generator)
    cond = test.labels[:count] if conditional else None
    drawn = multistep(denoiser, schedule, noise, grids.karras(20, schedule), cond=cond).clamp(-1, 1)
    real = metrics.features(eye, test.images)
    return distances(real, metrics.features(eye, drawn), generator)


def distances(real: Tensor, fake: Tensor, generator: torch.Generator) -> dict[str, float]:
    """``fd`` of features ``fake`` (N, d) from the first N of ``real`` (2 N, d), and its ``fd_floor``."""
    count = len(fake)
    fd = metrics.frechet_distance(real[:count], fake)
    return {"fd": fd, "fd_floor": metrics.floor(metrics.frechet_distance, real, count, generator=generator)}


def train_classifier(
    name: str, images: ImageSet, role: str, *, device: str, steps: int | None, root: Path | None
) -> Path:
    """A classifier of the labels (and, for glyphs, of the faces) with mild noise on its inputs."""
    targets = list(_targets(images).values())
    heads = [int(target.max()) + 1 for target in targets]  # labels and faces are numbered from 0
    seed = list(_FEATURES).index(role)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Classifier(images.shape[0], heads, **_FEATURES[role])
    net = net.to(device, memory_format=torch.channels_last)
    began = time.perf_counter()
    recipe = _CLASSIFIER if steps is None else _CLASSIFIER | {"steps": steps}
    _fit_classifier(net, images, torch.stack(targets, 1), seed, device, **recipe)
    test = load(images.name, split="test")
    scores = {
        f"accuracy_{what}": float((found == wanted).double().mean())
        for (what, wanted), found in zip(_targets(test).items(), metrics.classify(net, test.images), strict=True)
    }
    about = data_facts(images) | {"recipe": recipe, "seed": seed, "scores": scores}
    return checkpoints.save(name, net.eval(), about | circumstances(time.perf_counter() - began, device), root=root)


def train_noisy(name: str, images: ImageSet, role: str, *, device: str, steps: int | None, root: Path | None) -> Path:
    """A classifier of the labels that sees what a denoiser sees: images at every noise level, and the level."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        labels = LabelPosterior(NoisyClassifier(images.shape[0], len(images.classes)), edm())
    began, recipe = time.perf_counter(), _NOISY if steps is None else _NOISY | {"steps": steps}
    _fit_noisy(labels.to(device, memory_format=torch.channels_last), images, device, **recipe)
    scores = noisy_accuracy(labels, load(images.name, split="test"))
    about = data_facts(images) | {"recipe": recipe, "seed": 0, "scores": scores}
    return checkpoints.save(name, labels, about | circumstances(time.perf_counter() - began, device), root=root)


def _fit_noisy(
    labels: LabelPosterior,
    images: ImageSet,
    device: str,
    *,
    steps: int,
    batch: int,
    rate: float,
    log_sigma_mean: float,
    log_sigma_std: float,
) -> None:
    """`_one_cycle` on CLIP's loss at the noise levels of a denoiser's training."""
    generator, corruption = torch.Generator().manual_seed(0), Gaussian(labels.schedule)

    def loss() -> Tensor:
        index = torch.randint(len(images), (batch,), generator=generator)
        t = lognormal_times(batch, labels.schedule, mean=log_sigma_mean, std=log_sigma_std, generator=generator)
        x_t = corruption.corrupt(images.float(index), t, generator=generator)
        with precision(device):
            logits = labels(x_t.to(device, memory_format=torch.channels_last), t)
        return contrastive_loss(logits, images.labels[index].to(device))

    _one_cycle(labels, loss, steps, rate)


def contrastive_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """CLIP's loss (Radford et al. 2021, fig. 3) where the captions are the K labels: the mean of both directions.

    Image to caption: cross-entropy among all K labels. Caption to image: cross-entropy among the images of the batch,
    in which all images of the label share. Where the labels are equally frequent, both are least for
    ``logits = log p(y | x) / p(y)``, up to a constant. ``logits`` (B, K), ``wanted`` (B,).
    """
    to_images = logits.log_softmax(0).gather(1, wanted[:, None])[:, 0]
    shares = wanted.bincount(minlength=logits.shape[1])[wanted]  # each caption that occurs counts once
    to_images = -(to_images / shares).sum() / len(wanted.unique())
    return (F.cross_entropy(logits, wanted) + to_images) / 2


def noisy_accuracy(labels: LabelPosterior, images: ImageSet, count: int = 2000) -> dict[str, float]:
    """Of up to ``count`` images, the part whose label is found at each of `LEVELS` of sigma / alpha."""
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


def _targets(images: ImageSet) -> dict[str, Tensor]:
    """What a classifier has to name: the label, and the face where images have one; a head each, in this order."""
    return {"label": images.labels} | ({"face": images.extra["face"]} if "face" in images.extra else {})


def _fit_classifier(
    net: Classifier,
    images: ImageSet,
    targets: Tensor,  # (N, heads)
    seed: int,
    device: str,
    *,
    steps: int,
    batch: int,
    rate: float,
    noise: float,
) -> None:
    """`_one_cycle` on the sum of the heads' cross-entropies."""
    generator = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        index = torch.randint(len(images), (batch,), generator=generator)
        x = images.float(index)
        x = x + noise * torch.rand(len(x), 1, 1, 1, generator=generator) * torch.randn(x.shape, generator=generator)
        with precision(device):
            logits = net(x.to(device, memory_format=torch.channels_last)).split(net.heads, dim=1)
            return sum(F.cross_entropy(a, targets[index, i].to(device)) for i, a in enumerate(logits))

    _one_cycle(net, loss, steps, rate)


def _one_cycle(net: nn.Module, loss: Callable[[], Tensor], steps: int, rate: float) -> None:
    """Adam under a one-cycle learning rate; ``loss()`` draws a batch. Leaves the network in eval mode."""
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    falling = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    net.train()
    for _ in tqdm(range(steps), desc="training", unit="step"):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        falling.step()
    net.eval()


def state_of(name: str, steps: int | None) -> Path:
    """Where the training of a checkpoint keeps its state until it is done."""
    return HOME / "build" / "training" / (f"{name}.safetensors" if steps is None else f"{name}_{steps}.safetensors")


def data_facts(images: ImageSet) -> dict[str, Any]:
    """Which images these are, down to the last byte."""
    digest = hashlib.sha256(images.images.numpy().tobytes()).hexdigest()
    return {"dataset": images.name, "images": len(images), "images_sha256": digest}


def circumstances(seconds: float, device: str) -> dict[str, Any]:
    """How long it took, and on what."""
    processor = platform.processor() or platform.machine()
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{os.cpu_count()} cores, {processor}"
    return {"minutes": round(seconds / 60, 1), "device": where, "torch": torch.__version__}
