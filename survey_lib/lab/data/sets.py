"""Data sets by name: `load`. Glyphs and scenes are drawn, digits come with scikit-learn, the others are files.

MNIST, Fashion-MNIST and CIFAR-10 lie under ``root``, else under the folder that SURVEY_DATA names, else under
``data/`` at home, in torchvision's layout. Where they are missing, torchvision downloads them, with checksums.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from survey_lib.lab import own, runtime
from survey_lib.lab.data import glyphs, scenes
from survey_lib.lab.data.cache import cached
from survey_lib.lab.data.drawing import DIGITS, provenance
from survey_lib.lab.data.folders import load_folder
from survey_lib.lab.data.images import LEAST_SIDE, ImageSet
from survey_lib.lab.runtime import require

_DRAWN = {  # made here: the function, the side in pixels by default, and the code
    "glyphs": (glyphs.glyphs, 32, glyphs.SOURCE),
    "scenes": (scenes.scenes, 64, scenes.SOURCE),
}
_NUMBERS = {"train": (30_000, 0), "test": (10_000, 1)}  # of images drawn by default, and the seed
_QUICK = 4000  # images drawn in some seconds: not worth a file
_DIGITS_TRAIN = 1437  # of 1797, in the order of the file; the rest is the test set
_PATIENCE = 20.0  # seconds without a byte before a download is given up


def load(
    name: str | Path,
    *,
    split: str = "train",
    count: int | None = None,
    most: int | None = None,
    size: int | None = None,
    root: str | Path | None = None,
) -> ImageSet:
    """The data set ``name``, one of `runtime.DATASETS` or of the reader's own (`own`), or a folder of images.

    ``count`` keeps the first images of a fixed order; so does ``most``, or all where there are fewer. ``size`` is the
    side in pixels (default: glyphs 32, scenes 64, digits 16, MNIST and Fashion-MNIST 28, CIFAR-10 32). Glyphs and
    scenes are unlimited: any ``count`` is drawn, by default 30,000 for training and 10,000 for testing. ``root`` is the
    folder of real sets.

    Raises ValueError or TypeError for an argument that is not accepted, FileNotFoundError for a set that can neither be
    found nor downloaded, RuntimeError for damaged files.
    """
    require("split", split, str, choices=("train", "test"))
    if count is not None:
        require("count", count, int, low=1)
    if most is not None:
        require("most", most, int, low=1)
        if count is not None:
            raise ValueError("count and most are both given; one of them is accepted")
        if name in _DRAWN:
            return load(name, split=split, count=most, size=size)
        return load(name, split=split, size=size, root=root).take(slice(most))
    if size is not None:
        require("size", size, int, low=LEAST_SIDE, high=512)
    known = (*runtime.DATASETS, *own.names())
    if isinstance(name, Path) or (isinstance(name, str) and name not in known and _is_path(name)):
        return load_folder(name, split=split, count=count, size=size)
    if runtime.check_dataset(name) in own.names():
        found = load_folder(own.folder(name), split=split, count=count, size=size)
        return replace(found, name=name)
    if name in _DRAWN:
        return _draw(name, split, count, size)
    images = _digits(split) if name == "digits" else _real(name, split, root)
    if count is not None:
        if count > len(images):
            raise ValueError(f"{name} has {len(images)} images in its {split} split; count asks for {count}")
        images = images.take(slice(count))
    if size is None and name == "digits":
        size = 16
    return images if size is None else images.resize(size)


def _is_path(name: str) -> bool:
    return "/" in name or os.sep in name or (name != "" and Path(name).expanduser().is_dir())


def _draw(name: str, split: str, count: int | None, size: int | None) -> ImageSet:
    """Glyphs or scenes. A smaller set is the beginning of a larger, so one file serves all."""
    (make, usual_size, source), (usual, seed) = _DRAWN[name], _NUMBERS[split]
    count, size = usual if count is None else count, usual_size if size is None else size
    if count <= _QUICK:
        return make(count, seed=seed, size=size)
    total = max(count, usual)
    recipe = (total, seed, size, provenance(source))
    return cached(f"{name}-{split}-{size}px", recipe, lambda: make(total, seed=seed, size=size)).take(slice(count))


def _digits(split: str) -> ImageSet:
    from sklearn.datasets import load_digits

    found = load_digits()  # (1797, 8, 8), 0 to 16
    half = slice(_DIGITS_TRAIN) if split == "train" else slice(_DIGITS_TRAIN, None)
    images = torch.from_numpy((found.images[half] * (255 / 16)).round().astype(np.uint8)).unsqueeze(1)
    return ImageSet("digits", images, torch.from_numpy(found.target[half]).long(), tuple(DIGITS))


def _real(name: str, split: str, root: str | Path | None) -> ImageSet:
    """A torchvision set from the first folder that has it, else downloaded to ``root`` or ``data/`` at home."""
    home = runtime.HOME / "data"
    places = [root] if root else [place for place in (os.environ.get("SURVEY_DATA"), home) if place]
    places = [Path(place).expanduser().absolute() for place in places]
    for place in places:
        if (found := _read(name, split, place)) is not None:
            return found
    try:
        _download(name, Path(root) if root else home)
    except (OSError, RuntimeError) as error:  # torchvision says RuntimeError when every mirror failed
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"{name} is not under {' or '.join(map(str, places))} and could not be downloaded ({reason.rstrip('.:')}): "
            f"load it once where there is a network and copy {home / _folder(name)} here, or name the folder that "
            'holds it in SURVEY_DATA; "glyphs", "digits" and a folder of images need no network (lessons with trained '
            'networks: "glyphs" alone)'
        ) from error
    found = _read(name, split, Path(root) if root else home)
    if found is None:
        raise RuntimeError(f"{name} was downloaded to {root or home}, but torchvision does not find it there")
    return found


def _folder(name: str) -> str:
    return {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "cifar-10-batches-py"}[name]


def _torchvision(name: str):
    from torchvision import datasets

    return {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST, "cifar10": datasets.CIFAR10}[name]


def _read(name: str, split: str, place: Path) -> ImageSet | None:
    """The set at ``place``, or None. Raises RuntimeError for files that cannot be read as the set."""
    folder = place / _folder(name)
    if not folder.is_dir() or not any(file.is_file() for file in folder.rglob("*")):
        return None
    try:
        found = _torchvision(name)(place, train=split == "train")
    except (OSError, RuntimeError, ValueError, AssertionError, EOFError, KeyError, TypeError) as error:
        raise RuntimeError(
            f"{name} in {folder} is incomplete or damaged; delete that folder to have it downloaded again"
        ) from error
    images = torch.as_tensor(found.data)
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    labels = torch.as_tensor(found.targets, dtype=torch.int64)
    return ImageSet(name, images, labels, tuple(DIGITS) if name == "mnist" else tuple(found.classes))


def _download(name: str, place: Path) -> None:
    """Download to a temporary folder, then move file by file, so that every file under its own name is complete."""
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, prefix=f".{name}.", suffix=".partial") as aside, _impatient():
        _torchvision(name)(aside, train=True, download=True)
        for file in sorted(Path(aside).rglob("*")):
            target = place / file.relative_to(aside)
            if file.is_dir():
                target.mkdir(exist_ok=True)
            elif not file.name.endswith(".gz"):
                os.replace(file, target)


@contextmanager
def _impatient() -> Iterator[None]:
    """Set a timeout for the network: torchvision would wait for minutes, mirror after mirror."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
