"""How an exercise is checked: by properties whose exact values are known, and by mistakes known by name.

An exercise poses a problem drawn from a seed of the grader's. Each `Property` measures something of the
learner's answer on that problem and compares it with the exact value. Where one fails, the same
measurements are made of the catalogued wrong answers: the one that behaves alike gives the mistake its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor


class Unsolved(Exception):
    """The answer is still the stub."""


@dataclass(frozen=True)
class Property:
    """Something that every right answer has.

    ``measure(answer, problem)`` and ``exact(problem)`` give numbers of one shape; they may differ by
    ``tolerance`` (absolute, plus the same fraction of the exact value). Two wrong answers that depend on chance
    behave alike within ``alike``, by default the tolerance. ``show`` puts a value in words.
    """

    name: str
    measure: Callable[[Any, Any], Tensor | float]
    exact: Callable[[Any], Tensor | float]
    tolerance: float = 1e-6
    alike: float | None = None
    show: Callable[[float], str] = "{:.4g}".format


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that people really give, and why it tempts them."""

    name: str
    why: str
    answer: Any


@dataclass(frozen=True)
class Exercise:
    """A task, its checks, and what goes wrong with it. ``problem`` draws what the checks are made on."""

    id: str
    title: str
    difficulty: str
    minutes: int
    hints: tuple[str, ...]
    problem: Callable[[torch.Generator], Any]
    properties: tuple[Property, ...]
    mistakes: tuple[Mistake, ...]
    reference: Any
    stub: Any

    def _repr_html_(self) -> str:
        return card(self)


@dataclass(frozen=True)
class Passed:
    """What a right answer is told."""

    exercise: Exercise

    def __repr__(self) -> str:
        count = len(self.exercise.properties)
        names = "; ".join(one.name for one in self.exercise.properties)
        return f"{self.exercise.id} {self.exercise.title}: {count} of {count} properties hold ({names})."

    def _ipython_display_(self) -> None:
        """Shown, not returned: nbgrader takes the result of a cell for a number of points."""
        from IPython.display import display

        display({"text/plain": repr(self), "text/html": self._repr_html_()}, raw=True)

    def _repr_html_(self) -> str:
        rows = "".join(f"<li>✓ {escape(one.name)}</li>" for one in self.exercise.properties)
        count = len(self.exercise.properties)
        return (
            '<div style="border-left:4px solid #009e73;padding:.3em .9em;margin:.5em 0">'
            f"<b>{self.exercise.id} · {escape(self.exercise.title)}: {count} of {count} properties hold.</b>"
            f'<ul style="list-style:none;margin:.3em 0;padding:0">{rows}</ul></div>'
        )


def check(exercise: Exercise, answer: Any, seed: int = 0) -> Passed:
    """Accept a right answer; tell a wrong one which property fails, by how much, and which mistake it resembles.

    Raises AssertionError with one paragraph. ``seed`` draws the problem: the grader's, not the learner's.
    """
    problem = exercise.problem(torch.Generator().manual_seed(seed))
    heading = f"{exercise.id} {exercise.title}"
    try:
        found = [_measure(one, answer, problem) for one in exercise.properties]
    except Unsolved:
        raise AssertionError(
            f"{heading}: nothing to check yet. Replace the missing lines of the frame; the hints open one by one."
        ) from None
    except Exception as error:
        raise AssertionError(
            f"{heading}: the answer stopped with {type(error).__name__}: {error}. "
            "Look at the shapes and the names in the lines you wrote."
        ) from error
    exact = [_numbers(one.exact(problem)) for one in exercise.properties]
    failed = [i for i, one in enumerate(exercise.properties) if not _agree(found[i], exact[i], one.tolerance)]
    if not failed:
        return Passed(exercise)
    first = failed[0]
    message = (
        f"{heading}: {len(found) - len(failed)} of {len(found)} properties hold. "
        f"{_difference(exercise.properties[first], found[first], exact[first])}"
    )
    mistake = diagnose(exercise, problem, found, failed)
    if mistake is not None:
        message += f" It behaves like a known mistake, “{mistake.name}”: {mistake.why}"
    raise AssertionError(message)


def diagnose(exercise: Exercise, problem: Any, found: Sequence[Tensor], failed: Sequence[int]) -> Mistake | None:
    """The catalogued mistake that measures as the answer did: on all properties, else on the first that fails."""
    best, most = None, 0
    for mistake in exercise.mistakes:
        theirs = [_measure(one, mistake.answer, problem) for one in exercise.properties]
        alike = [
            _agree(mine, other, one.tolerance if one.alike is None else one.alike)
            for one, mine, other in zip(exercise.properties, found, theirs, strict=True)
        ]
        score = sum(alike) if alike[failed[0]] else 0
        if score > most:
            best, most = mistake, score
    return best


def card(exercise: Exercise) -> str:
    """The exercise as HTML: title, difficulty, minutes, and hints that open one at a time."""
    hints = "".join(
        f"<details><summary>Hint {number}</summary><p>{escape(hint)}</p></details>"
        for number, hint in enumerate(exercise.hints, 1)
    )
    return (
        '<div style="border:1px solid #bbb;border-radius:6px;padding:.6em 1em;margin:.5em 0">'
        f"<b>Exercise {exercise.id} · {escape(exercise.title)}</b><br>"
        f"<small>{escape(exercise.difficulty)} · about {exercise.minutes} minutes · "
        f"{len(exercise.properties)} properties are checked</small>{hints}</div>"
    )


def answered(value: Any) -> Any:
    """``value`` itself, unless it is what an unfilled frame gives: None, ``...`` or a collection that holds one."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else (value,)
    if any(part is None or part is ... for part in parts):
        raise Unsolved
    return value


def _measure(one: Property, answer: Any, problem: Any) -> Tensor:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):  # an answer may draw from the global generator: undo it
        try:
            return _numbers(one.measure(_Guarded(answer) if callable(answer) else answered(answer), problem))
        except NotImplementedError as error:
            raise Unsolved from error


@dataclass(frozen=True)
class _Guarded:
    """An answer whose empty result is noticed where it is given, not where it is used."""

    answer: Callable

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return answered(self.answer(*args, **kwargs))


def _numbers(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value).detach().to("cpu", torch.float64)


def _agree(found: Tensor, exact: Tensor, tolerance: float) -> bool:
    return found.shape == exact.shape and torch.allclose(found, exact, rtol=tolerance, atol=tolerance, equal_nan=True)


def _difference(one: Property, found: Tensor, exact: Tensor) -> str:
    if found.shape != exact.shape:
        return f"“{one.name}” fails: the shape is {tuple(found.shape)} where {tuple(exact.shape)} is right."
    at = int((found - exact).abs().nan_to_num(nan=torch.inf).argmax()) if found.ndim else 0
    mine, right = found.flatten()[at].item(), exact.flatten()[at].item()
    return f"“{one.name}” fails: found {one.show(mine)} where {one.show(right)} is exact."
