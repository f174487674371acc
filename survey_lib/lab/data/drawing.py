"""Drawing of characters: the faces that matplotlib ships, large master drawings, and colours by lightness and hue.

`glyphs` and `scenes` are made of these. Nothing is downloaded.
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

SIDE = 192  # pixels of a master drawing, in which "0" is HEIGHT high
HEIGHT = 96


def uniform(seed: int, start: int, count: int, draws: int) -> np.ndarray:
    """(count, draws) numbers in [0, 1): the rows from ``start`` of an unlimited table for each seed."""
    require("seed", seed, int, low=0)
    require("start", start, int, low=0)
    bits = np.random.PCG64(seed).advance(start * draws).random_raw(count * draws)
    return ((bits >> np.uint64(11)) * 2.0**-53).reshape(count, draws)


def master_drawings(characters: str) -> tuple[Tensor, np.ndarray]:
    """Each character in each face, large, and the extent of its ink.

    Returns uint8 (faces * characters, 1, SIDE, SIDE) with the ink in the middle, and (faces * characters, 2):
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
        font = ImageFont.truetype(path, 200 * HEIGHT / (trial[3] - trial[1]))
        for character in characters:
            ink, box = _draw(character, font)
            drawings.append(ink)
            boxes.append(box)
    return torch.from_numpy(np.stack(drawings)).unsqueeze(1), np.array(boxes, dtype=np.float64)


def _draw(character: str, font: ImageFont.FreeTypeFont) -> tuple[np.ndarray, tuple[int, int]]:
    """The character in the middle of a square of SIDE pixels; the width and height of its ink.

    The font's own box counts the blank beside the ink, so the ink is found by drawing.
    """
    from PIL import Image, ImageDraw

    sheet = Image.new("L", (2 * SIDE, 2 * SIDE))
    ImageDraw.Draw(sheet).text((SIDE // 2, SIDE // 4), character, fill=255, font=font)
    left, top, right, bottom = sheet.getbbox()
    corner = (left + right - SIDE) // 2, (top + bottom - SIDE) // 2
    square = sheet.crop((*corner, corner[0] + SIDE, corner[1] + SIDE))
    return np.asarray(square), (right - left, bottom - top)


def warp(masters: Tensor, affine: Tensor, size: int) -> Tensor:
    """Coverage of each pixel by ink, an average of several samples: uint8 (B, 1, size, size)."""
    over = math.ceil(HEIGHT / size)
    centres = (torch.arange(size * over) * 2 + 1) / (size * over) - 1
    # Element by element: a matrix product rounds differently in batches of different length.
    x, y = centres[None, None, :, None], centres[None, :, None, None]
    grid = affine[:, None, None, :, 0] * x + affine[:, None, None, :, 1] * y + affine[:, None, None, :, 2]
    samples = functional.grid_sample(masters.float(), grid, align_corners=False)
    return functional.avg_pool2d(samples, over).round_().to(torch.uint8)


def blend(cover: Tensor, ink: Tensor, paper: Tensor) -> Tensor:
    """Blend ``ink`` (B, C) and ``paper``, (B, C) or (B, C, H, W), in 0 to 255.

    In integers, so that every machine rounds alike.
    """
    cover, ink = cover.int(), ink[:, :, None, None]
    paper = paper[:, :, None, None] if paper.ndim == 2 else paper.int()
    return torch.div(cover * ink + (255 - cover) * paper + 127, 255, rounding_mode="floor").to(torch.uint8)


def oklab(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
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


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread: batches this small gain little from several, and on a busy machine these wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def provenance(source: str) -> tuple[str, ...]:
    """Everything but their arguments that drawings depend on: code, fonts and the versions of the libraries.

    source: the sha256 of the module that draws, read when it was imported: the file may change later.
    """
    import matplotlib
    import PIL

    return _SOURCE, source, matplotlib.__version__, PIL.__version__, torch.__version__


def source_of(file: str) -> str:
    """The sha256 of a source file."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


_SOURCE = source_of(__file__)


def check_characters(characters: str) -> None:
    """Raise TypeError or ValueError unless ``characters`` are digits and letters, each once."""
    accepted = DIGITS + LETTERS
    if not isinstance(characters, str):
        raise TypeError(f"characters is a string of digits and letters, such as {DIGITS!r}; got {characters!r}")
    if not characters or len(set(characters)) < len(characters) or not set(characters) <= set(accepted):
        raise ValueError(f"characters are digits and letters without accents, each once; got {characters!r}")
