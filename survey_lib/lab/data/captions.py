"""Captions of scenes: what stands where, in a few words, as text and as integers.

    a large blue 7 above a small red 3 left of a small green 5

A caption names the objects in the order of the scene, each with its size and colour, and says how each lies to the
next: by the axis along which their centres are further apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor

from survey_lib.lab.data.drawing import DIGITS
from survey_lib.lab.data.images import ImageSet
from survey_lib.lab.data.scenes import COLOURS, OBJECTS

SIZES = ("small", "large")
RELATIONS = ("left of", "right of", "above", "below")
#: The words, by number; 0 is padding.
VOCABULARY = ("", "a", *SIZES, *COLOURS, *DIGITS, *RELATIONS)
LENGTH = 5 * OBJECTS - 1  # tokens of the longest caption: four words an object, and a relation between two

_NUMBER = {word: number for number, word in enumerate(VOCABULARY) if word}
_WORD = re.compile("|".join([*RELATIONS, r"\S+"]))


@dataclass(frozen=True)
class Described:
    """A caption as numbers: ``objects`` of (large, colour, character), and ``relations`` from each to the next."""

    objects: tuple[tuple[int, int, int], ...]
    relations: tuple[int, ...]


def captions(images: ImageSet) -> list[str]:
    """The captions of scenes."""
    return [_text(described) for described in describe(images)]


def describe(images: ImageSet) -> list[Described]:
    """The captions of scenes as numbers."""
    parts = (images.extra[name] for name in ("large", "colour", "character"))
    objects, boxes = torch.stack([part.long() for part in parts], 2).tolist(), images.extra["box"]
    step = boxes[:, 1:, :2] - boxes[:, :-1, :2]  # (N, 3, 2) from the centre of each object to the next
    upright = step[..., 1].abs() > step[..., 0].abs()
    towards = step.gather(2, upright.long()[..., None])[..., 0]
    relations = (2 * upright.long() + (towards < 0).long()).tolist()
    counts = (images.labels + 1).tolist()
    return [
        Described(tuple(tuple(one) for one in these[:n]), tuple(between[: n - 1]))
        for these, between, n in zip(objects, relations, counts, strict=True)
    ]


def encode(texts: list[str]) -> Tensor:
    """Encode captions as integers (B, LENGTH), int64, padded with 0. The empty caption stands for no condition.

    Raises ValueError for a word that is not in `VOCABULARY`, and for a caption that is not one (`parse`).
    """
    tokens = torch.zeros(len(texts), LENGTH, dtype=torch.int64)
    for row, text in zip(tokens, texts, strict=True):
        described = parse(text)
        words = _WORD.findall(_text(described))
        row[: len(words)] = torch.tensor([_NUMBER[word] for word in words], dtype=torch.int64)
    return tokens


def decode(tokens: Tensor) -> list[str]:
    """The captions of integers (B, LENGTH)."""
    return [" ".join(VOCABULARY[token] for token in row if token) for row in tokens.tolist()]


def parse(text: str) -> Described:
    """A caption as numbers. Raises TypeError or ValueError, with an example, for text that is not a caption."""
    if not isinstance(text, str):
        raise TypeError(f"a caption is text; got {text!r}")
    words = _WORD.findall(text.lower())
    if unknown := [word for word in words if word not in _NUMBER]:
        raise ValueError(f'unknown word "{unknown[0]}" in a caption; known: {", ".join(VOCABULARY[1:])}')
    objects, relations = [], []
    for start in range(0, len(words), 5):
        phrase, relation = words[start : start + 4], words[start + 4 : start + 5]
        fits = len(phrase) == 4 and all(
            word in kind for word, kind in zip(phrase, (("a",), SIZES, COLOURS, DIGITS), strict=True)
        )
        last = start + 5 >= len(words)
        if not fits or len(objects) == OBJECTS or (relation and (last or relation[0] not in RELATIONS)):
            raise ValueError(
                f'"{text}" is not a caption of one to {OBJECTS} objects, such as "a large blue 7 above a small red 3"'
            )
        objects.append((SIZES.index(phrase[1]), COLOURS.index(phrase[2]), DIGITS.index(phrase[3])))
        relations += [RELATIONS.index(word) for word in relation]
    return Described(tuple(objects), tuple(relations))


def _text(described: Described) -> str:
    words: list[str] = []
    for (large, colour, character), relation in zip_longest(described.objects, described.relations):
        words += ["a", SIZES[large], COLOURS[colour], DIGITS[character]]
        words += [] if relation is None else [RELATIONS[relation]]
    return " ".join(words)
