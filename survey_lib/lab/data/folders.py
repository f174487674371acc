"""A folder of images as a data set.

Three layouts are read: ``train/`` and ``test/`` with class folders in each, class folders alone, and images
without classes. Where the folder has no split, a fixed random tenth of it is the test set.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from survey_lib.lab.data.cache import cached
from survey_lib.lab.data.images import LEAST_SIDE, ImageSet

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")

_LARGEST = 64  # pixels: the side of larger images where none is given
_STEP = 8  # pixels, of which larger sides are multiples
_WORTH_CACHING = 2000
_WIDE_MODES = ("I", "F")  # PIL's modes of more than 8 bits a channel begin with one of these


def load_folder(
    folder: str | Path, *, split: str = "train", count: int | None = None, size: int | None = None
) -> ImageSet:
    """The images under ``folder`` as squares of ``size`` pixels, in a fixed random order.

    An image is cropped to its central square and resized; without ``size``, to the median of the shorter sides, at
    most 64, and from 16 on to the nearest multiple of 8, as the networks need it. Images stay grey if all of both
    splits are grey. Size, channels and classes are those of the whole data set, whatever ``split`` and ``count``.
    Hidden files and files without a suffix of an image are ignored.
    Raises FileNotFoundError for a folder that is missing or empty, ValueError for a file that cannot be read.
    """
    folder = Path(folder).expanduser()
    found, classes = _list(folder)
    if split not in found:
        place = folder / split
        what = "holds no images" if place.is_dir() else "does not exist, though the other split does"
        raise FileNotFoundError(f"the folder {split}/ of {folder} {what}")
    chosen = found[split]
    if count is not None and count > len(chosen):
        raise ValueError(f"{folder} has {len(chosen)} images for the {split} split; count asks for {count}")
    whole = [one for name in sorted(found) for one in found[name]]
    files = [one.file for one in whole]
    if size is None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            sides = sorted(pool.map(_shorter_side, files, chunksize=64))
        size = min(max(sides[(len(sides) - 1) // 2], LEAST_SIDE), _LARGEST)
        size = size if size < 2 * _STEP else round(size / _STEP) * _STEP

    def make() -> ImageSet:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            images = torch.from_numpy(np.stack(list(pool.map(lambda file: _decode(file, size), files, chunksize=64))))
        if bool((images[..., :1] == images).all()):
            images = images[..., :1]
        labels = torch.tensor([one.label for one in whole], dtype=torch.int64)
        return ImageSet(folder.resolve().name, images.permute(0, 3, 1, 2).contiguous(), labels, classes)

    if len(files) < _WORTH_CACHING:
        images = make()
    else:
        stamps = [(str(file), stat.st_size, stat.st_mtime_ns) for file in files if (stat := file.stat())]
        images = cached(f"{folder.resolve().name}-{size}px", (stamps, classes, size), make)
    first = whole.index(chosen[0])
    return images.take(slice(first, first + (len(chosen) if count is None else count)))


class _Example(NamedTuple):
    file: Path
    label: int


def _list(folder: Path) -> tuple[dict[str, list[_Example]], tuple[str, ...]]:
    """The examples of each split, and the classes of both; shuffled, so that a prefix mixes the class folders."""
    if not folder.is_dir():
        what = (
            "is a file, not a folder of images" if folder.exists() else "does not exist; a folder of images is needed"
        )
        raise FileNotFoundError(f"{folder} {what}")
    split_by_folder = [name for name in ("test", "train") if (folder / name).is_dir()]
    named = {name: _by_class(folder / name) for name in split_by_folder} or {"": _by_class(folder)}
    named = {name: groups for name, groups in named.items() if groups}
    if not named:
        raise FileNotFoundError(f"{folder} holds no images; files that end in {', '.join(SUFFIXES)} are read")
    if sum(None in groups for groups in named.values()) == 1 < len(named):
        raise ValueError(f"{folder} has class folders in one of train/ and test/, and images without them in the other")
    classes = sorted({name for groups in named.values() for name in groups}, key=str)
    found = {}
    for split, groups in named.items():
        pairs = [_Example(file, classes.index(name)) for name, files in groups.items() for file in files]
        order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0)).tolist()
        found[split] = [pairs[i] for i in order]
    if not split_by_folder:
        examples = found.pop("")
        if len(examples) < 2:
            raise ValueError(f"{folder} holds one image; a training and a test set need two at least")
        held = max(1, len(examples) // 10)
        found = {"test": examples[:held], "train": examples[held:]}
    return found, tuple("image" if name is None else name for name in classes)


def _by_class(top: Path) -> dict[str | None, list[Path]]:
    """Sorted image files of each class folder; without class folders, all files under the key None."""
    loose = _images_in(top, deep=False)
    named = {entry.name: _images_in(entry) for entry in sorted(top.iterdir()) if entry.is_dir()}
    named = {name: files for name, files in named.items() if files and not name.startswith(".")}
    if loose and named:
        raise ValueError(
            f"{top} holds both images ({loose[0].name}) and class folders ({next(iter(named))}/): keep one"
        )
    return {None: loose} if loose else named


def _images_in(folder: Path, deep: bool = True) -> list[Path]:
    found = []
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if deep and not name.startswith("."))
        found += [Path(path, name) for name in sorted(names) if name.lower().endswith(SUFFIXES) and name[0] != "."]
    return found


def _shorter_side(file: Path) -> int:
    try:
        with Image.open(file) as image:  # reads the header alone
            return min(image.size)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from error


def _open(file: Path) -> Image.Image:
    """The image, upright. Raises ValueError with the file's name for a file that cannot be read or has 16 bits."""
    try:
        image = Image.open(file)
        wide = image.mode.startswith(_WIDE_MODES) or any(_is_wide(codec, args) for codec, _, _, args in image.tile)
        image.load()
        image = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from error
    if wide:
        raise ValueError(f"{file} has more than 8 bits a channel; convert it to 8 bits")
    return image


def _is_wide(codec: str, args: object) -> bool:
    """Whether PIL will reduce 16 bits a channel to 8, as it does for colour: its raw mode or largest value says so."""
    args = args if isinstance(args, tuple) else (args,)
    largest = [one for one in args if codec.startswith("ppm") and isinstance(one, int)]
    return any(isinstance(one, str) and ";16" in one for one in args) or any(one > 255 for one in largest)


def _unreadable(file: Path, error: Exception) -> ValueError:
    reason = "not a known format" if isinstance(error, Image.UnidentifiedImageError) else error
    return ValueError(f"cannot read {file} as an image ({reason}); repair or remove it")


def _decode(file: Path, size: int) -> np.ndarray:
    """The central square, on white where the image is transparent: uint8 (size, size, 3)."""
    image = _open(file)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    how = Image.Resampling.BOX if size < side else Image.Resampling.BICUBIC
    return np.asarray(image.resize((size, size), how, box=(left, top, left + side, top + side)))
