"""A folder of images as a data set.

Three layouts are understood: ``train/`` and ``test/`` with class folders in each, class folders alone, and images
without classes. Where the folder makes no split, a fixed random tenth of it is the test set.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from survey_lib.lab.data.cache import cached
from survey_lib.lab.data.images import ImageSet

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")

_LARGEST = 64  # pixels: the side chosen where none is asked for and the images are larger
_WORTH_CACHING = 2000
_WIDE_MODES = ("I", "F")  # PIL's modes of more than 8 bits a channel begin so


def load_folder(
    folder: str | Path, *, split: str = "train", count: int | None = None, size: int | None = None
) -> ImageSet:
    """The images under ``folder`` as squares of ``size`` pixels, in a fixed random order.

    An image is cropped to its central square and resized; without ``size`` the first image's shorter side is taken,
    at most 64. Grey images stay grey where all are. Hidden files and files that are not named like images are passed
    over. Raises FileNotFoundError for a folder missing or empty, ValueError for a file that is no image.
    """
    folder = Path(folder).expanduser()
    files, labels, classes = _list(folder, split)
    if count is not None and count > len(files):
        raise ValueError(f"{folder} has {len(files)} images for the {split} split; count asks for {count}")
    files, labels = files[:count], torch.tensor(labels[:count], dtype=torch.int64)
    if size is None:
        size = min(*_open(files[0]).size, _LARGEST)

    def make() -> ImageSet:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            images = torch.from_numpy(np.stack(list(pool.map(lambda file: _decode(file, size), files, chunksize=64))))
        if bool((images[..., :1] == images).all()):
            images = images[..., :1]
        return ImageSet(folder.resolve().name, images.permute(0, 3, 1, 2).contiguous(), labels, classes)

    if len(files) < _WORTH_CACHING:
        return make()
    stamps = [(str(file), stat.st_size, stat.st_mtime_ns) for file in files if (stat := file.stat())]
    return cached(f"{folder.resolve().name}-{split}-{size}px", (stamps, classes, size), make)


def _list(folder: Path, split: str) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """Files, labels and classes of a split, shuffled: class folders come sorted, and a prefix must mix them."""
    if not folder.is_dir():
        what = (
            "is a file, not a folder of images" if folder.exists() else "does not exist; a folder of images is needed"
        )
        raise FileNotFoundError(f"{folder} {what}")
    split_by_folder = (folder / "train").is_dir() or (folder / "test").is_dir()
    if split_by_folder and not (folder / split).is_dir():
        raise FileNotFoundError(f"{folder} is split into folders, but has no folder {split}/")
    top = folder / split if split_by_folder else folder
    loose = _images_in(top, deep=False)
    named = {entry.name: _images_in(entry) for entry in sorted(top.iterdir()) if entry.is_dir()}
    named = {name: files for name, files in named.items() if files and not name.startswith(".")}
    if loose and named:
        raise ValueError(
            f"{top} holds both images ({loose[0].name}) and class folders ({next(iter(named))}/): keep one"
        )
    if not loose and not named:
        raise FileNotFoundError(f"{top} holds no images; files that end in {', '.join(SUFFIXES)} are read")
    if loose:
        named = {"image": loose}
    pairs = [(file, label) for label, files in enumerate(named.values()) for file in files]
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0)).tolist()
    if not split_by_folder:
        if len(pairs) < 2:
            raise ValueError(f"{folder} holds one image; a training and a test set need two at least")
        held = max(1, len(pairs) // 10)
        order = order[:held] if split == "test" else order[held:]
    return [pairs[i][0] for i in order], [pairs[i][1] for i in order], tuple(named)


def _images_in(folder: Path, deep: bool = True) -> list[Path]:
    found = []
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if deep and not name.startswith("."))
        found += [Path(path, name) for name in sorted(names) if name.lower().endswith(SUFFIXES) and name[0] != "."]
    return found


def _open(file: Path) -> Image.Image:
    """The image, upright. Raises ValueError with the file's name for one that cannot be read."""
    try:
        image = Image.open(file)
        image.load()
        return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = "not a known format" if isinstance(error, Image.UnidentifiedImageError) else error
        raise ValueError(f"{file} is no image that can be read ({reason}); mend it or take it away") from error


def _decode(file: Path, size: int) -> np.ndarray:
    """uint8 (size, size, 3): the central square, on white where the image is transparent."""
    image = _open(file)
    if image.mode.startswith(_WIDE_MODES):
        raise ValueError(f"{file} has more than 8 bits a channel; convert it to 8 bits")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    how = Image.Resampling.BOX if size < side else Image.Resampling.BICUBIC
    return np.asarray(image.resize((size, size), how, box=(left, top, left + side, top + side)))
