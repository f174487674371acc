"""Data sets by name: `load`. Glyphs are drawn here, digits come with scikit-learn, the others are looked for.

Real sets lie under ``root``, else under the folder that SURVEY_DATA names, else under ``data/`` at home, in
torchvision's layout. Where they are missing they are downloaded, with checksums, to ``data/`` at home.
"""

from __future__ import annotations

import os
from pathlib import Path

from survey_lib.lab.glyphs import DIGITS, FACES, LETTERS, glyphs
from survey_lib.lab.images import ImageSet, resize, to_float, to_uint8
from survey_lib.lab.runtime import HOME, require

__all__ = ["DIGITS", "FACES", "LETTERS", "ImageSet", "glyphs", "load", "resize", "to_float", "to_uint8"]

_GLYPHS = {"train": (30_000, 0), "test": (10_000, 1)}  # how many by default, and the seed
_OFFLINE = 'Without a network choose "glyphs", "digits" or a folder of images.'


def load(
    name: str | Path,
    *,
    split: str = "train",
    count: int | None = None,
    size: int | None = None,
    root: str | Path | None = None,
) -> ImageSet:
    """The data set ``name``: "glyphs", "digits", "mnist", "fashion_mnist", "cifar10", or a folder of images."""
    require("split", split, str, choices=("train", "test"))
    if count is not None:
        require("count", count, int, low=1)
    if size is not None:
        require("size", size, int, low=4, high=512)
    if name == "glyphs":
        return _load_glyphs(split, count, size)
    images = _torchvision(name, split, root)
    if count is not None:
        images = images.take(slice(count))
    return images if size is None else images.resize(size)


def _load_glyphs(split: str, count: int | None, size: int | None) -> ImageSet:
    default, seed = _GLYPHS[split]
    return glyphs(default if count is None else count, seed=seed, size=32 if size is None else size)


def _torchvision(name, split, root):
    import torchvision

    for place in [root] if root else [os.environ.get("SURVEY_DATA"), HOME / "data"]:
        if place:
            try:
                found = torchvision.datasets.MNIST(place, train=split == "train")
            except RuntimeError:
                continue
            return ImageSet(name, found.data.unsqueeze(1), found.targets, tuple(DIGITS))
    raise FileNotFoundError(name)
