"""Exercises: checked by property against exact answers, with the usual mistakes known by name.

In a lesson::

    from survey_lib.course.exercises import check
    check("01.A", corrupt)

A lesson's exercises stand in the module ``lesson_NN`` as ``A``, ``B`` and ``C``.
"""

from __future__ import annotations

import importlib.util
import pkgutil
from typing import Any

from survey_lib.course.exercises import framework
from survey_lib.course.exercises.framework import Exercise, Mistake, Passed, Property, card
from survey_lib.course.exercises.predictions import Comparison, Prediction, compare, predict

__all__ = [
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
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name.startswith("lesson_"))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return tuple(getattr(module, letter) for module in modules for letter in "ABC" if hasattr(module, letter))


def get(name: str) -> Exercise:
    """The exercise ``"01.A"``. Raises ValueError with those that exist."""
    lesson, _, letter = name.partition(".")
    if importlib.util.find_spec(f"{__name__}.lesson_{lesson}") and letter in ("A", "B", "C"):
        return getattr(importlib.import_module(f"{__name__}.lesson_{lesson}"), letter)
    raise ValueError(f"no exercise {name!r}; there are {', '.join(one.id for one in every())}")


def check(exercise: Exercise | str, answer: Any, seed: int = 0) -> Passed:
    """Check an answer: see `core.check`. The exercise is given itself or by its id, such as ``"01.A"``."""
    return framework.check(get(exercise) if isinstance(exercise, str) else exercise, answer, seed)
