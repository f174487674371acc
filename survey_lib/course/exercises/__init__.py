"""Exercises, checked by properties with exact values and by a catalogue of common mistakes.

In a lesson::

    from survey_lib.course.exercises import card, check
    card("01.A")
    check("01.A", corrupt)

Lesson 01 keeps its exercises in ``survey_lib.course.lessons.l01.exercises`` as ``A``, ``B`` and ``C``.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from survey_lib.course import lessons
from survey_lib.course.exercises import framework
from survey_lib.course.exercises.framework import Card, Exercise, Mistake, Passed, Property
from survey_lib.course.exercises.predictions import Comparison, Prediction, compare, predict

__all__ = [
    "Card",
    "Comparison",
    "Exercise",
    "Mistake",
    "Passed",
    "Prediction",
    "Property",
    "card",
    "check",
    "compare",
    "every",
    "get",
    "predict",
]


def every() -> tuple[Exercise, ...]:
    """All exercises of all lessons, in order."""
    return tuple(getattr(_module(lesson), letter) for lesson in _lessons() for letter in framework.DIFFICULTY)


def get(name: str) -> Exercise:
    """Exercise by its id, such as ``"01.A"``. Raises ValueError for an unknown id."""
    lesson, _, letter = name.partition(".")
    if lesson in _lessons() and letter in framework.DIFFICULTY:
        return getattr(_module(lesson), letter)
    raise ValueError(f"no exercise {name!r}; there are {', '.join(one.id for one in every())}")


def card(name: str) -> Card:
    """The card of the exercise ``name`` for a notebook: title, difficulty, time, and hints that open one at a time."""
    return Card(get(name))


def check(exercise: Exercise | str, answer: Any, seed: int = 0) -> Passed:
    """Check an answer to an exercise, given as an `Exercise` or by its id; see `framework.check`."""
    return framework.check(get(exercise) if isinstance(exercise, str) else exercise, answer, seed)


def _lessons() -> list[str]:
    return sorted(module.name.removeprefix("l") for module in pkgutil.iter_modules(lessons.__path__))


def _module(lesson: str) -> Any:
    return importlib.import_module(f"{lessons.__name__}.l{lesson}.exercises")
