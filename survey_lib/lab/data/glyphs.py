"""Glyphs: an unlimited set of coloured characters in 21 faces, drawn from the fonts that matplotlib ships.

Character and face of every image are known, so the (character, face) modes that a generator covers can be counted,
and there are always new test images. Nothing is downloaded.

Image i depends on ``(seed, i)`` alone: a set of 100 is the beginning of a set of 1000, and the same image can be had
at every size, in colour and in grey.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from survey_lib.lab.data.drawing import (
    DIGITS,
    FACES,
    HEIGHT,
    SIDE,
    blend,
    check_characters,
    master_drawings,
    oklab,
    one_thread,
    source_of,
    uniform,
    warp,
)
from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.runtime import require

SOURCE = source_of(__file__)  # of the code that runs
_SLANT = 0.07  # oblique faces lean by 0.17 and more: a random slant never turns one face into another
_BATCH = 64  # drawn at once: they fit in the processor's cache; 512 take twice as long
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
    check_characters(characters)
    draws = uniform(seed, start, count, _DRAWS)
    masters, boxes = master_drawings(characters)
    label = torch.from_numpy(draws[:, 0] * len(characters)).long()
    face = torch.from_numpy(draws[:, 1] * len(FACES)).long()
    which = face * len(characters) + label
    affine = _placements(draws, boxes[which.numpy()])
    ink, paper = _colours(draws, colour)
    with one_thread():
        images = [
            blend(warp(masters[which[i]], affine[i], size), ink[i], paper[i]) for i in torch.arange(count).split(_BATCH)
        ]
    return ImageSet("glyphs", torch.cat(images), label, tuple(characters), {"face": face})


def _placements(draws: np.ndarray, boxes: np.ndarray) -> Tensor:
    """(count, 2, 3) maps from the image to the master drawing, both in [-1, 1]: random slant, size and place.

    The glyph is 0.54 to 0.82 of the image high (as a "0" of its face), smaller if it would not fit, and lies
    anywhere inside, nearer to the middle than to the border.
    """
    width, height = boxes.T / SIDE  # in [0, 1], as parts of the master's side
    slant = (2 * draws[:, 2] - 1) * _SLANT
    width = width + np.abs(slant) * height
    wanted = (0.54 + 0.28 * draws[:, 3]) * SIDE / HEIGHT
    scale = np.minimum(wanted, 0.9 / np.maximum(width, height))
    free = np.stack([1 - scale * width, 1 - scale * height], 1) - 0.06  # a margin of 3 % on either side
    shift = (draws[:, 4:6] + draws[:, 6:8] - 1) * free  # triangular, in [-free, free]
    x_x, x_y, y_y = 1 / scale, slant / scale, 1 / scale
    rows = [x_x, x_y, -x_x * shift[:, 0] - x_y * shift[:, 1], 0 * x_x, y_y, -y_y * shift[:, 1]]
    return torch.from_numpy(np.stack(rows, 1).reshape(-1, 2, 3)).float()


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
    ink = oklab(np.where(flip, dark, light), chroma[:, 0] * colour, ink_hue)
    paper = oklab(np.where(flip, light, dark), chroma[:, 1] * colour, paper_hue)
    channels = 3 if colour else 1
    return torch.from_numpy(ink[:, :channels]), torch.from_numpy(paper[:, :channels])
