"""Glyphs: an unlimited set of coloured characters in 21 faces, drawn from the fonts that matplotlib ships.

Character and face of every image are known, so the (character, face) modes that a generator covers can be counted,
and there are always new test images. Nothing is downloaded.

Image i depends on ``(seed, i)`` alone: a set of 100 is the beginning of a set of 1000, and the same image can be had
at every size, in colour and in grey.
"""

from __future__ import annotations

import hashlib
import math
import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.runtime import require

if TYPE_CHECKING:
    from PIL import ImageFont

DIGITS = string.digits
LETTERS = string.ascii_letters

#: Every face of matplotlib with all digits and letters; the rest are symbols, or have old-style digits (cmmi10).
FACES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic",
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta",
    "cmr10", "cmb10", "cmti10", "cmss10", "cmtt10",
)  # fmt: skip

_SIDE = 192  # pixels of a master drawing, in which "0" is _HEIGHT high
_HEIGHT = 96
_SLANT = 0.07  # oblique faces lean by 0.17 and more: a random slant never turns one face into another
_BATCH = 64  # drawn at once: they fit in the processor's cache; 512 take twice as long
_SOURCE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()  # of the code that runs: the file may change later
_DRAWS = 16  # random numbers for each image; fixed, so that image i starts at number 16 i


def glyphs(
    count: int, *, seed: int = 0, size: int = 32, characters: str = DIGITS, colour: bool = True, start: int = 0
) -> ImageSet:
    """``count`` random glyphs, from number ``start`` of the sequence of ``seed``.

    The label is the index in ``characters`` (digits and letters, each once), ``extra["face"]`` the index in
    `FACES`. Images are (3, size, size), or (1, size, size) in grey, with ``size`` from 16 to 128 pixels.
    """
    require("count", count, int, low=1)
    require("size", size, int, low=16, high=128)
    _check_characters(characters)
    draws = _uniform(seed, start, count)
    masters, boxes = _masters(characters)
    label = torch.from_numpy(draws[:, 0] * len(characters)).long()
    face = torch.from_numpy(draws[:, 1] * len(FACES)).long()
    which = face * len(characters) + label
    affine = _placements(draws, boxes[which.numpy()])
    ink, paper = _colours(draws, colour)
    with _one_thread():
        images = [
            _compose(_warp(masters[which[i]], affine[i], size), ink[i], paper[i])
            for i in torch.arange(count).split(_BATCH)
        ]
    return ImageSet("glyphs", torch.cat(images), label, tuple(characters), {"face": face})


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: batches this small gain little from several, and on a busy machine these wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def provenance() -> tuple[str, ...]:
    """Everything but their arguments that glyphs depend on: this file, the fonts, and the versions of the libraries."""
    import matplotlib
    import PIL

    return _SOURCE, matplotlib.__version__, PIL.__version__, torch.__version__


def _check_characters(characters: str) -> None:
    accepted = DIGITS + LETTERS
    if not isinstance(characters, str):
        raise TypeError(f"characters is a string of digits and letters, such as {DIGITS!r}; got {characters!r}")
    if not characters or len(set(characters)) < len(characters) or not set(characters) <= set(accepted):
        raise ValueError(f"characters are digits and letters without accents, each once; got {characters!r}")


def _uniform(seed: int, start: int, count: int) -> np.ndarray:
    """(count, _DRAWS) numbers in [0, 1): the rows from ``start`` of an unlimited table for each seed."""
    require("seed", seed, int, low=0)
    require("start", start, int, low=0)
    bits = np.random.PCG64(seed).advance(start * _DRAWS).random_raw(count * _DRAWS)
    return ((bits >> np.uint64(11)) * 2.0**-53).reshape(count, _DRAWS)


def _masters(characters: str) -> tuple[Tensor, np.ndarray]:
    """Each character in each face, large, and the extent of its ink.

    Returns uint8 (faces * characters, 1, _SIDE, _SIDE) with the ink in the middle, and (faces * characters, 2):
    its width and height in pixels.
    """
    import matplotlib
    from PIL import ImageFont

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    drawings, boxes = [], []
    for face in FACES:
        path = folder / f"{face}.ttf"
        if not path.is_file():
            raise FileNotFoundError(f"glyphs are drawn from matplotlib's fonts, and {path.name} is not among them")
        trial = ImageFont.truetype(path, 200).getbbox("0")
        font = ImageFont.truetype(path, 200 * _HEIGHT / (trial[3] - trial[1]))
        for character in characters:
            ink, box = _draw(character, font)
            drawings.append(ink)
            boxes.append(box)
    return torch.from_numpy(np.stack(drawings)).unsqueeze(1), np.array(boxes, dtype=np.float64)


def _draw(character: str, font: ImageFont.FreeTypeFont) -> tuple[np.ndarray, tuple[int, int]]:
    """The character in the middle of a square of _SIDE pixels; the width and height of its ink.

    The font's own box counts the blank beside the ink, so the ink is found by drawing.
    """
    from PIL import Image, ImageDraw

    sheet = Image.new("L", (2 * _SIDE, 2 * _SIDE))
    ImageDraw.Draw(sheet).text((_SIDE // 2, _SIDE // 4), character, fill=255, font=font)
    left, top, right, bottom = sheet.getbbox()
    corner = (left + right - _SIDE) // 2, (top + bottom - _SIDE) // 2
    square = sheet.crop((*corner, corner[0] + _SIDE, corner[1] + _SIDE))
    return np.asarray(square), (right - left, bottom - top)


def _placements(draws: np.ndarray, boxes: np.ndarray) -> Tensor:
    """(count, 2, 3) maps from the image to the master drawing, both in [-1, 1]: random slant, size and place.

    The glyph is 0.54 to 0.82 of the image high (as a "0" of its face), smaller if it would not fit, and lies
    anywhere inside, nearer to the middle than to the border.
    """
    width, height = boxes.T / _SIDE  # in [0, 1], as parts of the master's side
    slant = (2 * draws[:, 2] - 1) * _SLANT
    width = width + np.abs(slant) * height
    wanted = (0.54 + 0.28 * draws[:, 3]) * _SIDE / _HEIGHT
    scale = np.minimum(wanted, 0.9 / np.maximum(width, height))
    free = np.stack([1 - scale * width, 1 - scale * height], 1) - 0.06  # a margin of 3 % on either side
    shift = (draws[:, 4:6] + draws[:, 6:8] - 1) * free  # triangular, in [-free, free]
    x_x, x_y, y_y = 1 / scale, slant / scale, 1 / scale
    rows = [x_x, x_y, -x_x * shift[:, 0] - x_y * shift[:, 1], 0 * x_x, y_y, -y_y * shift[:, 1]]
    return torch.from_numpy(np.stack(rows, 1).reshape(-1, 2, 3)).float()


def _warp(masters: Tensor, affine: Tensor, size: int) -> Tensor:
    """Coverage of each pixel by ink, an average of several samples: uint8 (B, 1, size, size)."""
    over = math.ceil(_HEIGHT / size)
    centres = (torch.arange(size * over) * 2 + 1) / (size * over) - 1
    # Element by element: a matrix product rounds differently in batches of different length.
    x, y = centres[None, None, :, None], centres[None, :, None, None]
    grid = affine[:, None, None, :, 0] * x + affine[:, None, None, :, 1] * y + affine[:, None, None, :, 2]
    samples = functional.grid_sample(masters.float(), grid, align_corners=False)
    return functional.avg_pool2d(samples, over).round_().to(torch.uint8)


def _compose(cover: Tensor, ink: Tensor, paper: Tensor) -> Tensor:
    """Blend ``ink`` and ``paper``, (B, C) in 0 to 255; in integers, so that every machine rounds alike."""
    cover, ink, paper = cover.int(), ink[:, :, None, None], paper[:, :, None, None]
    return torch.div(cover * ink + (255 - cover) * paper + 127, 255, rounding_mode="floor").to(torch.uint8)


def _colours(draws: np.ndarray, colour: bool) -> tuple[Tensor, Tensor]:
    """Ink and paper, int32 (count, 3 or 1) each, chosen in OKLab, whose lightness is perceptual.

    Their lightness differs by at least 0.45; black and white differ by 1. The hue of the paper is a neighbour of the
    ink's or its opposite, which go together better than random hues.
    """
    dark = 0.22 + 0.26 * draws[:, 8]
    light = dark + 0.45 + (0.97 - dark - 0.45) * draws[:, 9]
    flip = draws[:, 10] < 0.5
    ink_hue = 2 * math.pi * draws[:, 11]
    paper_hue = ink_hue + math.pi * ((draws[:, 15] < 0.5) + (draws[:, 12] - 0.5) * 0.7)
    chroma = 0.03 + 0.09 * draws[:, 13:15]
    ink = _oklab(np.where(flip, dark, light), chroma[:, 0] * colour, ink_hue)
    paper = _oklab(np.where(flip, light, dark), chroma[:, 1] * colour, paper_hue)
    channels = 3 if colour else 1
    return torch.from_numpy(ink[:, :channels]), torch.from_numpy(paper[:, :channels])


def _oklab(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """OKLab (Ottosson 2020) to sRGB in 0 to 255, int32 (count, 3); colours out of gamut are clipped."""
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    cones = np.stack([
        lightness + 0.3963377774 * a + 0.2158037573 * b,
        lightness - 0.1055613458 * a - 0.0638541728 * b,
        lightness - 0.0894841775 * a - 1.2914855480 * b,
    ]) ** 3  # fmt: skip
    mix = np.array([
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ])  # fmt: skip
    linear = (mix[:, :, None] * cones).sum(1).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (255 * encoded.T).round().astype(np.int32)
