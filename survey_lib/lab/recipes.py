"""How each shipped checkpoint is made. ``survey train NAME`` runs one from scratch.

For each data set there are four: ``features`` and ``features2`` are classifiers whose hidden layer is the space in
which images are compared; ``base`` is an unconditional denoiser, ``conditional`` one that knows the label.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from survey_lib.core import grids
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.heads import Preconditioned
from survey_lib.core.integrators import multistep
from survey_lib.core.schedules import edm, vp_linear
from survey_lib.lab import checkpoints, metrics
from survey_lib.lab.data import ImageSet, load
from survey_lib.lab.runtime import HOME, suggest
from survey_lib.lab.speed import fast, precision
from survey_lib.lab.train import Recipe, Trainer
from survey_lib.nets.classifier import Classifier
from survey_lib.nets.unet import UNet

BASE = Recipe(batch=128, rate=5e-3)
_STEPS = {"glyphs": 10000, "mnist": 6000}  # glyphs have 21 faces, slants and colours: there is more to learn
_FEATURES = {"features": dict(widths=(24, 48, 96), kernel=3), "features2": dict(widths=(32, 64, 64), kernel=5)}
_CLASSIFIER = dict(steps=3000, batch=128, rate=3e-3, noise=0.1)  # noise: the largest standard deviation on the inputs


def names() -> list[str]:
    """The checkpoints that `train` can make."""
    return [f"{dataset}_{role}" for dataset in _STEPS for role in (*_FEATURES, "base", "conditional")]


def train(name: str, *, device: str = "cpu", steps: int | None = None, root: Path | None = None) -> Path:
    """Make the checkpoint ``name`` from scratch and save it with its manifest.

    A denoiser takes up to three quarters of an hour, and a stopped training of one resumes; a classifier takes minutes.
    ``steps`` shortens the recipe (to try it out, best with a ``root`` of its own). Raises ValueError for an
    unknown name.
    """
    if name not in names():
        raise ValueError(f'no recipe "{name}"{suggest(name, names())}; accepted: {", ".join(names())}')
    dataset, _, role = name.partition("_")
    make = train_classifier if role in _FEATURES else train_denoiser
    return make(name, load(dataset), role, device=device, steps=steps, root=root)


def denoiser_for(images: ImageSet, *, conditional: bool = False, seed: int = 0) -> Preconditioned:
    """The course's U-Net (0.6 M parameters) for these images, untrained, as a denoiser."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # torch's initialisers know no generator
        net = UNet(images.shape[0], widths=(32, 64), middle=4, classes=len(images.classes) if conditional else None)
    return Preconditioned(net, edm(), "edm", sigma_data=0.5)


def denoiser_recipe(dataset: str, role: str) -> Recipe:
    """How ``dataset_base`` or ``dataset_conditional`` is trained; a test holds the shipped ones to it."""
    recipe = replace(BASE, steps=_STEPS[dataset])
    if role == "base":
        return recipe
    # A label takes much of the guessing away: a third of the steps comes as far.
    return replace(recipe, steps=recipe.steps // 3, label_dropout=0.15, seed=1)


def train_denoiser(
    name: str, images: ImageSet, role: str, *, device: str, steps: int | None, root: Path | None
) -> Path:
    """An EDM denoiser by the loop of `survey_lib.lab.train`."""
    conditional, recipe = role == "conditional", denoiser_recipe(images.name, role)
    recipe = recipe if steps is None else replace(recipe, steps=steps)
    model = denoiser_for(images, conditional=conditional, seed=recipe.seed)
    state = HOME / "build" / "training" / (f"{name}.safetensors" if steps is None else f"{name}_{steps}.safetensors")
    trainer = Trainer(model, images, recipe, device=device, save_to=state)
    for _ in trainer.run(every=200, progress=True):
        pass
    about = _data(images) | {"recipe": asdict(recipe), "seed": recipe.seed}
    scores = {"loss": trainer.history[-1].loss, **_frechet(trainer.average, images.name, conditional, root)}
    about |= _circumstances(trainer.seconds, device) | {"scores": scores}
    path = checkpoints.save(name, trainer.average, about, root=root)
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
    fd = metrics.frechet_distance(real[:count], metrics.features(eye, drawn))
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
    about = _data(images) | {"recipe": recipe, "seed": seed, "scores": scores}
    return checkpoints.save(name, net.eval(), about | _circumstances(time.perf_counter() - began, device), root=root)


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
    """Adam under a one-cycle learning rate, on the sum of the heads' cross-entropies."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    falling = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    net.train()
    for _ in tqdm(range(steps), desc="training", unit="step"):
        index = torch.randint(len(images), (batch,), generator=generator)
        x = images.float(index)
        x = x + noise * torch.rand(len(x), 1, 1, 1, generator=generator) * torch.randn(x.shape, generator=generator)
        with precision(device):
            logits = net(x.to(device, memory_format=torch.channels_last)).split(net.heads, dim=1)
            losses = [F.cross_entropy(a, targets[index, i].to(device)) for i, a in enumerate(logits)]
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
        falling.step()
    net.eval()


def _data(images: ImageSet) -> dict[str, Any]:
    """Which images these are, down to the last byte."""
    digest = hashlib.sha256(images.images.numpy().tobytes()).hexdigest()
    return {"dataset": images.name, "images": len(images), "images_sha256": digest}


def _circumstances(seconds: float, device: str) -> dict[str, Any]:
    """How long it took, and on what."""
    processor = platform.processor() or platform.machine()
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{os.cpu_count()} cores, {processor}"
    return {"minutes": round(seconds / 60, 1), "device": where, "torch": torch.__version__}
