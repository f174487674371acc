"""Judges of scenes, which compare a picture with the layout or the caption that it was drawn for.

Fréchet distances alone mislead here: grain that hardly changes what a picture shows moves them far. So a reader names
the character in every box, and a finder lists the objects of a picture without being told where to look.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from survey_lib.design.latent.layout import paint
from survey_lib.design.latent.pipeline import LatentDiffusion
from survey_lib.lab.data.captions import Described, captions, describe, encode
from survey_lib.lab.data.images import ImageSet, to_float
from survey_lib.lab.data.scenes import layout
from survey_lib.lab.evaluation.evaluator import Evaluator
from survey_lib.lab.evaluation.speed import precision
from survey_lib.lab.training import checkpoints
from survey_lib.nets.classifier import Classifier
from survey_lib.nets.finder import Finder

CROP = 32  # pixels of the square around a box that a reader sees
PAD = 1.25  # its side, in longer sides of the box
_BATCH = 250


class Found(NamedTuple):
    """An object that a finder sees: its description as in a caption, and its centre."""

    large: int
    colour: int
    character: int
    x: float
    y: float


def crops(images: Tensor, boxes: Tensor) -> Tensor:
    """The square around a box in each image, resized to `CROP` pixels: (B, C, H, W), (B, 4) -> (B, C, CROP, CROP)."""
    side = boxes[:, 2:].amax(1) * PAD
    zero = torch.zeros_like(side)
    rows = [side, zero, 2 * boxes[:, 0] - 1, zero, side, 2 * boxes[:, 1] - 1]
    grid = functional.affine_grid(
        torch.stack(rows, 1).reshape(-1, 2, 3), [len(images), images.shape[1], CROP, CROP], align_corners=False
    )
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


@torch.no_grad()
def read(reader: Classifier, images: Tensor, boxes: Tensor) -> Tensor:
    """The character that ``reader`` sees in each box: images (N, 3, H, W) in [-1, 1], (N, 4, 4) -> (N, 4) of int64."""
    n, objects = boxes.shape[:2]
    index = torch.arange(n).repeat_interleave(objects)
    with precision():
        seen = [
            reader.classify(crops(images[part], box).to(memory_format=torch.channels_last))[0]
            for part, box in zip(index.split(_BATCH), boxes.flatten(0, 1).clamp_min(0.05).split(_BATCH), strict=True)
        ]
    return torch.cat(seen).reshape(n, objects)


def layout_accuracy(reader: Classifier, images: Tensor, asked: ImageSet) -> dict[str, float]:
    """Fraction of boxes in which the right character is read: ``layout`` of all, ``layout_small`` of small objects."""
    right = read(reader, images, asked.extra["box"]) == asked.extra["character"]
    present = asked.extra["box"][..., 2] > 0
    small = present & ~asked.extra["large"]
    return {"layout": float(right[present].double().mean()), "layout_small": float(right[small].double().mean())}


def find(finder: Finder, images: Tensor) -> list[list[Found]]:
    """The objects that ``finder`` sees in each image (N, 3, H, W) in [-1, 1], from left to right."""
    found = []
    for part in images.split(_BATCH):  # in float32: in bfloat16 neighbouring cells tie, and count twice
        there, boxes, labels = finder.find(part.to(memory_format=torch.channels_last))
        for mask, box, label in zip(there, boxes, labels, strict=True):
            rows = zip(label[mask].tolist(), box[mask].tolist(), strict=True)
            found.append(sorted((Found(*kind, *place[:2]) for kind, place in rows), key=lambda one: one.x))
    return found


def caption_accuracy(finder: Finder, images: Tensor, asked: ImageSet) -> dict[str, float]:
    """Fraction of the images in which all ``objects`` (their number), ``digits``, ``sizes``, ``colours`` or
    ``relations`` are as the caption says, and in which ``all`` are.

    ``misbound`` is the fraction with the right digits and the right colours, but not on each other. The objects found
    are matched to those asked for as well as possible; with a wrong number of objects, nothing is right.
    """
    rows = [_agreement(*pair) for pair in zip(describe(asked), find(finder, images), strict=True)]
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _agreement(asked: Described, found: list[Found]) -> dict[str, bool]:
    names = ("objects", "digits", "sizes", "colours", "relations", "all", "misbound")
    if len(found) != len(asked.objects):
        return dict.fromkeys(names, False)
    digits, colours = ([sorted(one[k] for one in side) for side in (asked.objects, found)] for k in (2, 1))
    best = max(permutations(found), key=lambda order: _matches(asked, order))
    same = [
        [a == b for a, b in zip(one, other[:3], strict=True)] for one, other in zip(asked.objects, best, strict=True)
    ]
    right = {
        "objects": True,
        "digits": all(one[2] for one in same),
        "sizes": all(one[0] for one in same),
        "colours": all(one[1] for one in same),
        "relations": all(_holds(*pair) for pair in zip(asked.relations, best, best[1:], strict=False)),
    }
    bound = right["digits"] and right["colours"]
    return right | {
        "all": all(right.values()),
        "misbound": digits[0] == digits[1] and colours[0] == colours[1] and not bound,
    }


def _matches(asked: Described, order: tuple[Found, ...]) -> tuple[int, int, int]:
    """Digits first, then colours and sizes, then relations."""
    pairs = list(zip(asked.objects, order, strict=True))
    digits = sum(one[2] == other.character for one, other in pairs)
    rest = sum((one[1] == other.colour) + (one[0] == other.large) for one, other in pairs)
    return digits, rest, sum(_holds(*pair) for pair in zip(asked.relations, order, order[1:], strict=False))


def _holds(relation: int, one: Found, other: Found) -> bool:
    """Whether ``one`` lies to ``other`` as `captions.RELATIONS` says: left of, right of, above, below."""
    return (one.x < other.x, one.x > other.x, one.y < other.y, one.y > other.y)[relation]


def draw(pipeline: LatentDiffusion, noise: Tensor, cond: Tensor) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] from noise (N, dims, h, w) and conditions (N, ...), in batches, at full speed."""
    for part in (pipeline.autoencoder, pipeline.denoiser):
        part.to(memory_format=torch.channels_last)
    with torch.no_grad(), precision(noise.device):
        parts = zip(noise.split(_BATCH), cond.split(_BATCH), strict=True)
        images = [pipeline.sample(z.contiguous(memory_format=torch.channels_last), c) for z, c in parts]
    return torch.cat(images).float().clamp_(-1, 1)


@dataclass(frozen=True, eq=False)
class SceneEvaluator(Evaluator):
    """An `Evaluator` that also scores how well scenes follow the layouts or captions of the first N test scenes.

    asked: "layout", "caption", or None for images that were drawn without a condition.
    """

    reader: Classifier | None = field(default=None, kw_only=True)
    finder: Finder | None = field(default=None, kw_only=True)
    asked: str | None = field(default="layout", kw_only=True)

    @classmethod
    def load_for(cls, count: int, *, asked: str | None = "layout", size: int = 64, root: Path | None = None) -> Self:
        """Load test scenes of ``size`` pixels and the judges."""
        from survey_lib.lab.data import load

        test = load("scenes", split="test", count=2 * count, size=size)
        features, held_out, reader, finder = (
            checkpoints.load(f"scenes_{role}", root=root) for role in ("features", "features2", "reader", "finder")
        )
        return cls(test, features, held_out, reader=reader, finder=finder, asked=asked)

    @property
    def wanted(self) -> ImageSet:
        """The first N test scenes, whose layouts or captions are the conditions."""
        return self.test.take(slice(self.count))

    def condition(self, side: int) -> Tensor:
        """Conditions for a denoiser: painted layouts (N, 13, side, side), or captions as integers (N, LENGTH)."""
        if self.asked == "layout":
            return paint(layout(self.wanted), side)
        return encode(captions(self.wanted))

    def judge(self, images: Tensor) -> dict[str, float]:
        """Accuracy of N images, uint8 or floats in [-1, 1], as `layout_accuracy` or `caption_accuracy` measures it."""
        images = to_float(images) if images.dtype == torch.uint8 else images.clamp(-1, 1)
        if self.asked == "layout":
            return layout_accuracy(self.reader, images, self.wanted)
        return caption_accuracy(self.finder, images, self.wanted) if self.asked == "caption" else {}

    def score(self, images: Tensor, labels: Tensor | None = None) -> dict[str, float]:
        """Quality as `Evaluator.score` measures it, and the agreement with the conditions (`judge`)."""
        return super().score(images, labels) | self.judge(images)
