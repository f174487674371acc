"""Scenes: one to four coloured characters of different size, at places that do not overlap, on a shaded ground.

The layout of every image is known: character, face, colour, size and box of each object. Scene i depends on
``(seed, i)`` alone, and the same scene can be had at 32 to 128 pixels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

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

OBJECTS = 4  # the most objects of a scene, and the length of the arrays in `ImageSet.extra`
COLOURS = ("red", "orange", "green", "teal", "blue", "purple")

_HUES = np.array([0.45, 1.15, 2.50, 3.40, 4.55, 5.50])  # radians in OKLab, the middle of each colour
_HUE_WIDTH = 0.15  # a hue lies within this of the middle: colours leave gaps between them
_APART = 0.7  # radians between the hues of an object and of the ground
_SMALL, _LARGE = (0.22, 0.32), (0.42, 0.75)  # heights of a "0" as parts of the image: a gap between the words
_MARGIN = 0.03  # between the ink and the border of its part of the image
SOURCE = source_of(__file__)  # of the code that runs
_SLANT = 0.07
_BATCH = 64
_OBJECT = 16  # random numbers for each object, after those of the ground and the plan
_GROUND = 32
_DRAWS = _GROUND + OBJECTS * _OBJECT


def scenes(count: int, *, seed: int = 0, size: int = 64, characters: str = DIGITS, start: int = 0) -> ImageSet:
    """``count`` random scenes, from number ``start`` of the sequence of ``seed``: images (N, 3, size, size).

    The label is the number of objects - 1. ``extra`` describes the objects in random order, four an image:
    ``character`` (N, 4), the index in ``characters``; ``face``, in `FACES`; ``colour``, in `COLOURS`; ``large``, bool;
    ``box`` (N, 4, 4), the centre (x, y), width and height of the ink as parts of the image. Where there is no object,
    ``character``, ``face`` and ``colour`` hold the number of their values, and ``box`` holds zeros.
    """
    require("count", count, int, low=1)
    require("size", size, int, low=32, high=128)
    check_characters(characters)
    draws = uniform(seed, start, count, _DRAWS)
    ground, objects = draws[:, :_GROUND], draws[:, _GROUND:].reshape(count, OBJECTS, _OBJECT)
    parts, number = _parts(ground)
    masters, inks = master_drawings(characters)
    character = (objects[..., 0] * len(characters)).astype(int)
    face = (objects[..., 1] * len(FACES)).astype(int)
    which = face * len(characters) + character
    box, large, affine = _placements(objects, parts, inks[which])
    colour, ink, knots = _colours(ground, objects)
    present = np.arange(OBJECTS) < number[:, None]
    layers = {"which": which, "affine": affine, "ink": ink, "present": present}
    with one_thread():
        masters = functional.avg_pool2d(masters.float(), 2)  # half as large: small characters would be aliased
        images = _draw(masters, {k: torch.from_numpy(v) for k, v in layers.items()}, torch.from_numpy(knots), size)
    order = np.argsort(np.where(present, objects[..., 15], 2), axis=1)  # the objects first, in random order
    described = {
        "character": np.where(present, character, len(characters)),
        "face": np.where(present, face, len(FACES)),
        "colour": np.where(present, colour, len(COLOURS)),
        "large": large & present,
        "box": np.where(present[..., None], box, 0).astype(np.float32),
    }
    extra = {
        name: torch.from_numpy(np.take_along_axis(values, order.reshape(*order.shape, *[1] * (values.ndim - 2)), 1))
        for name, values in described.items()
    }
    classes = tuple(f"{n} object{'s' * (n > 1)}" for n in range(1, OBJECTS + 1))
    return ImageSet("scenes", images, torch.from_numpy(number - 1), classes, extra)


def _parts(ground: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut the image into one to four parts: (N, 4, 4) of left, top, right, bottom, and their number (N,).

    The first cut runs at 0.36 to 0.64 of the image; a second and a third cut run across the larger and the smaller
    part, at 0.4 to 0.6 of it.
    """
    number = 1 + (ground[:, 0] * OBJECTS).astype(int)
    rows, parts = np.arange(len(ground)), np.tile([0.0, 0.0, 1.0, 1.0], (len(ground), OBJECTS, 1))
    upright, first = ground[:, 1] < 0.5, 0.36 + 0.28 * ground[:, 2]
    larger = np.where(first > 0.5, 0, 1)
    cuts = (
        (np.zeros_like(larger), first, upright),
        (larger, 0.4 + 0.2 * ground[:, 3], ~upright),
        (1 - larger, 0.4 + 0.2 * ground[:, 4], ~upright),
    )
    for new, (old, ratio, vertical) in enumerate(cuts, start=1):
        left, top, right, bottom = parts[rows, old].T
        x, y = left + ratio * (right - left), top + ratio * (bottom - top)
        one = np.stack([left, top, np.where(vertical, x, right), np.where(vertical, bottom, y)], 1)
        other = np.stack([np.where(vertical, x, left), np.where(vertical, top, y), right, bottom], 1)
        cut = number > new
        parts[rows[cut], old[cut]], parts[cut, new] = one[cut], other[cut]
    return parts, number


def _placements(objects: np.ndarray, parts: np.ndarray, inks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (N, 4, 4), whether objects are large (N, 4), and maps to the master drawing (N, 4, 2, 3).

    Where a large character fits its part of the image, six of ten are large; every part has room for a small character.
    """
    slant = (2 * objects[..., 2] - 1) * _SLANT
    tall = inks[..., 1] / HEIGHT  # in heights of a "0"
    wide = inks[..., 0] / HEIGHT + np.abs(slant) * tall
    room = parts[..., 2:] - parts[..., :2] - 2 * _MARGIN
    fits = np.minimum(room[..., 0] / wide, room[..., 1] / tall)
    large = (fits >= _LARGE[0]) & (objects[..., 6] < 0.6)
    low, high = (np.minimum(np.where(large, a, b), fits) for a, b in zip(_LARGE, _SMALL, strict=True))
    height = low + (high - low) * objects[..., 3]
    size = height[..., None] * np.stack([wide, tall], -1)
    centre = parts[..., :2] + _MARGIN + size / 2 + objects[..., 4:6] * (room - size)
    x, y = np.moveaxis(2 * centre - 1, -1, 0)
    scale = HEIGHT / SIDE / height  # of the map from the image to the master drawing
    zero = np.zeros_like(scale)
    rows = [scale, slant * scale, -scale * (x + slant * y), zero, scale, -scale * y]
    return np.concatenate([centre, size], -1), large, np.stack(rows, -1).reshape(*height.shape, 2, 3)


def _colours(ground: np.ndarray, objects: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours (N, 4), their inks (N, 4, 3) and the ground at 3 x 3 knots (N, 9, 3), in 0 to 255.

    The ground is light or dark, and shaded in a random direction; inks are on the other side of its lightness, at least
    0.25 away in OKLab, and of another hue.
    """
    light, hue = ground[:, 5] < 0.5, 2 * math.pi * ground[:, 7]
    lightness = np.where(light, 0.86, 0.28) + 0.09 * ground[:, 6]
    knots = _knots(ground, lightness, hue)
    gap = np.abs((_HUES - hue[:, None] + math.pi) % (2 * math.pi) - math.pi)
    allowed = (gap >= _APART).cumsum(1)[:, None]  # (N, 1, 6): how many colours up to each are allowed
    wanted = (objects[..., 7:8] * allowed[..., -1:]).astype(int) + 1
    colour = (allowed == wanted).argmax(-1)
    ink_hue = _HUES[colour] + _HUE_WIDTH * (2 * objects[..., 8] - 1)
    ink_lightness = np.where(light[:, None], 0.40, 0.72) + 0.14 * objects[..., 9]
    chroma = 0.13 + 0.06 * objects[..., 10]
    ink = oklab(ink_lightness.ravel(), chroma.ravel(), ink_hue.ravel())
    return colour, ink.reshape(*colour.shape, 3), knots


def _knots(ground: np.ndarray, lightness: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """Colours of the ground at 3 x 3 places, row by row: (N, 9, 3) in 0 to 255."""
    y, x = np.divmod(np.arange(9), 3)
    angle = 2 * math.pi * ground[:, 8:9]
    ramp = np.cos(angle) * (x - 1) + np.sin(angle) * (y - 1)  # from one side of the image to the other
    own = 2 * ground[:, 12:21] - 1
    lightness = lightness[:, None] + 0.04 * ramp + 0.025 * own
    hue = hue[:, None] + (0.3 + 0.6 * ground[:, 9:10]) * ramp + 0.25 * own
    chroma = np.broadcast_to(0.03 + 0.07 * ground[:, 10:11], hue.shape)
    return oklab(lightness.ravel(), chroma.ravel(), hue.ravel()).reshape(len(ground), 9, 3)


def _draw(masters: Tensor, layers: dict[str, Tensor], knots: Tensor, size: int) -> Tensor:
    """The scenes as bytes, drawn one object after another: (N, 3, size, size)."""
    images = []
    for index in torch.arange(len(knots)).split(_BATCH):
        which, affine, ink, present = (layers[k][index] for k in ("which", "affine", "ink", "present"))
        coarse = knots[index].float().mT.reshape(-1, 3, 3, 3)
        image = functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)
        image = image.round_().clamp_(0, 255).to(torch.uint8)
        for slot in range(OBJECTS):
            here = present[:, slot]
            cover = warp(masters[which[here, slot]], affine[here, slot].float(), size)
            image[here] = blend(cover, ink[here, slot], image[here])
        images.append(image)
    return torch.cat(images)


def layout(images: ImageSet) -> Tensor:
    """Characters and boxes of scenes as a condition: float32 (N, 4, 5); an empty slot holds the character 10."""
    return torch.cat([images.extra["character"][..., None].float(), images.extra["box"]], dim=2)
