"""Exercises checked by properties with exact values, and by a catalogue of common mistakes.

An exercise draws a problem from the grader's seed. Each `Property` measures the learner's answer on that problem
and compares the result with the exact value. If one fails, the catalogued wrong answers are measured too, and the
mistake whose measurements agree with the learner's is named. Most mistakes are edits of the reference's source.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from typing import Any

import torch
from torch import Tensor

DIFFICULTY = {"A": "guided", "B": "supported", "C": "independent"}


class Unsolved(Exception):
    """The error for an answer that is still the unfilled stub."""


@dataclass(frozen=True)
class Property:
    """A number or tensor measured on an answer, and its exact value.

    measure(answer, problem, *given): a number or a tensor, measured on the answer.
    exact(problem, *given): the exact value, of the same shape; or a constant.
    tolerance: the largest difference, absolute plus the same fraction of the exact value.
    given: further arguments of ``measure`` and ``exact``.
    alike: the largest difference between two random wrong answers of one kind; the tolerance by default.
    show(value): the value in words.
    """

    measure: Callable[..., Tensor | float]
    exact: Callable[..., Tensor | float] | Tensor | float
    tolerance: float = 1e-6
    given: tuple = ()
    alike: float | None = None
    show: Callable[[float], str] = "{:.4g}".format


@dataclass(frozen=True)
class Mistake:
    """A common wrong answer.

    why: the cause of the mistake, in words for the learner.
    edit: (old, new), or several such pairs, replaced one after the other in the source of the exercise's reference.
    answer: the wrong answer itself, if it is another algorithm and not an edit.
    """

    why: str
    edit: tuple = ()
    answer: Any = None


@dataclass(frozen=True)
class Exercise:
    """A task with its checks and its common mistakes.

    id: lesson and letter, such as ``"01.A"``; the letter sets the difficulty.
    problem(generator): the problem on which answers are measured.
    reference: the solution, as in the notebook.
    properties, mistakes: mappings from the names that a learner reads.
    importance: a remark on the card, empty by default.
    """

    id: str
    title: str
    minutes: int
    hints: tuple[str, ...]
    problem: Callable[[torch.Generator], Any]
    reference: Any
    properties: Mapping[str, Property]
    mistakes: Mapping[str, Mistake]
    importance: str = ""

    @property
    def difficulty(self) -> str:
        """Guided (two missing lines), supported or independent."""
        return DIFFICULTY[self.id[-1]]

    @property
    def stub(self) -> Any:
        """The unfilled frame: the reference's signature, or a dictionary of ``...`` where the reference is one."""
        if isinstance(self.reference, dict):
            return dict.fromkeys(self.reference, ...)
        signature = inspect.signature(self.reference)

        def unfilled(*args: Any, **kwargs: Any) -> Any:
            signature.bind(*args, **kwargs)
            raise NotImplementedError

        return unfilled

    def wrong(self, mistake: Mistake) -> Any:
        """The answer that makes this mistake. Raises ValueError for an edit that does not match exactly once."""
        if not mistake.edit:
            return mistake.answer
        pairs = (mistake.edit,) if isinstance(mistake.edit[0], str) else mistake.edit
        return _edited(self.reference, pairs)


@dataclass(frozen=True)
class Card:
    """The card of an exercise in a notebook: title, difficulty, time, and hints that open one at a time."""

    exercise: Exercise

    def __repr__(self) -> str:
        return f"Exercise {self.exercise.id} · {self.exercise.title} ({self._about()})"

    def _repr_html_(self) -> str:
        hints = "".join(
            f"<details><summary>Hint {number}</summary><p>{_with_code(hint)}</p></details>"
            for number, hint in enumerate(self.exercise.hints, 1)
        )
        return (  # without a background colour, for light and dark pages
            '<div style="border:1px solid rgba(128,128,128,.6);border-radius:6px;padding:.6em 1em;margin:.5em 0;'
            'max-width:46em;overflow-wrap:anywhere">'
            f"<b>Exercise {self.exercise.id} · {escape(self.exercise.title)}</b><br>"
            f"<small>{escape(self._about())}</small>{hints}</div>"
        )

    def _about(self) -> str:
        one = self.exercise
        checked = f"{len(one.properties)} properties are checked"
        minutes = f"about {one.minutes} minute{'s' * (one.minutes > 1)}"
        return " · ".join(filter(None, (one.difficulty, minutes, checked, one.importance)))


@dataclass(frozen=True)
class Passed:
    """The result of a correct answer: the properties that hold."""

    exercise: Exercise

    def __repr__(self) -> str:
        return f"{self.exercise.id} {self.exercise.title}: {self._count()} ({'; '.join(self.exercise.properties)})."

    def _ipython_display_(self) -> None:
        """Display without a result: nbgrader reads the result of a cell as a number of points."""
        from IPython.display import display

        display({"text/plain": repr(self), "text/html": self._repr_html_()}, raw=True)

    def _repr_html_(self) -> str:
        rows = "".join(f"<li>✓ {escape(name)}</li>" for name in self.exercise.properties)
        return (
            '<div style="border-left:4px solid #009e73;padding:.3em .9em;margin:.5em 0">'
            f"<b>{self.exercise.id} · {escape(self.exercise.title)}: {self._count()}.</b>"
            f'<ul style="list-style:none;margin:.3em 0;padding:0">{rows}</ul></div>'
        )

    def _count(self) -> str:
        count = len(self.exercise.properties)
        return f"{count} of {count} properties hold"


@dataclass(frozen=True)
class Assessment:
    """Result of measuring an answer: the number of properties that hold, and the first failure of a wrong answer.

    status: ``"right"``, ``"wrong"``, or ``"empty"`` for an unfilled stub; grading a class adds others.
    failed: the first property that fails; mistake: the name of the known mistake that the answer makes.
    message: one paragraph for the learner, empty for a right answer.
    """

    status: str
    held: int = 0
    failed: str = ""
    mistake: str = ""
    message: str = ""


def check(exercise: Exercise, answer: Any, seed: int = 0) -> Passed:
    """Accept a correct answer. Raises AssertionError for a wrong answer, with one paragraph for the learner.

    The paragraph names the first property that fails, both values, and the known mistake if there is one.
    ``seed`` draws the problem; it is the grader's, not the learner's.
    """
    try:
        found = assess(exercise, answer, seed)
    except Exception as error:
        raise AssertionError(
            f"{exercise.id} {exercise.title}: the answer stopped with {type(error).__name__}: {error}. "
            "Look at the shapes and the names in the lines you wrote."
        ) from error
    if found.status != "right":
        raise AssertionError(f"{exercise.id} {exercise.title}: {found.message}")
    return Passed(exercise)


def assess(exercise: Exercise, answer: Any, seed: int = 0) -> Assessment:
    """Measure an answer on the problem that ``seed`` draws. Raises what the answer raises."""
    problem = exercise.problem(torch.Generator().manual_seed(seed))
    try:
        found = {name: _measure(one, answer, problem) for name, one in exercise.properties.items()}
    except Unsolved:
        message = "nothing to check yet. Replace the missing lines of the frame; the hints open one by one."
        return Assessment("empty", message=message)
    exact = {name: _exact(one, problem) for name, one in exercise.properties.items()}
    failed = [name for name, one in exercise.properties.items() if not _agree(found[name], exact[name], one.tolerance)]
    held = len(found) - len(failed)
    if not failed:
        return Assessment("right", held)
    first = failed[0]
    message = (
        f"{held} of {len(found)} properties hold. "
        f"“{first}” fails: {_difference(exercise.properties[first], found[first], exact[first])}"
    )
    mistake = diagnose(exercise, problem, found, first)
    if mistake is not None:
        message += f" It behaves like a known mistake, “{mistake}”: {exercise.mistakes[mistake].why}"
    return Assessment("wrong", held, first, mistake or "", message)


def diagnose(exercise: Exercise, problem: Any, found: Mapping[str, Tensor], first: str) -> str | None:
    """The name of the mistake that agrees with ``found`` on most properties, ``first`` among them, if there is one."""
    best, most = None, 0
    for name, mistake in exercise.mistakes.items():
        wrong = exercise.wrong(mistake)

        def agrees(what: str, wrong: Any = wrong) -> bool:
            one = exercise.properties[what]
            return _agree(found[what], _measure(one, wrong, problem), one.alike or one.tolerance)

        score = sum(map(agrees, exercise.properties)) if agrees(first) else 0
        if score > most:
            best, most = name, score
    return best


def answered(value: Any) -> Any:
    """Return ``value``. Raises Unsolved for an unfilled frame: None, ``...`` or a collection that holds one of them."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else (value,)
    if any(part is None or part is ... for part in parts):
        raise Unsolved
    return value


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """A uniform random number from [low, high), in double precision."""
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


@cache
def _edited(function: Callable, pairs: tuple[tuple[str, str], ...]) -> Callable:
    """The function with each old text replaced by the new one in its source, compiled in its module's namespace."""
    source = inspect.getsource(function)
    for old, new in pairs:
        if (count := source.count(old)) != 1:
            raise ValueError(f"{old!r} occurs {count} times in {function.__name__}; an edit must match exactly once")
        source = source.replace(old, new)
    made: dict[str, Any] = {}
    exec(compile(source, f"<{function.__name__}, edited>", "exec"), function.__globals__, made)
    return made[function.__name__]


def _measure(one: Property, answer: Any, problem: Any) -> Tensor:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):  # an answer may draw from the global generator: undo it
        try:
            guarded = _Guarded(answer) if callable(answer) else answered(answer)
            return _numbers(one.measure(guarded, problem, *one.given))
        except NotImplementedError as error:
            raise Unsolved from error


@dataclass(frozen=True)
class _Guarded:
    """Wraps an answer so that an unfilled stub is reported at the call."""

    answer: Callable

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return answered(self.answer(*args, **kwargs))


def _exact(one: Property, problem: Any) -> Tensor:
    return _numbers(one.exact(problem, *one.given) if callable(one.exact) else one.exact)


def _numbers(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value).detach().to("cpu", torch.float64)


def _agree(found: Tensor, exact: Tensor, tolerance: float) -> bool:
    return found.shape == exact.shape and torch.allclose(found, exact, rtol=tolerance, atol=tolerance, equal_nan=True)


def _difference(one: Property, found: Tensor, exact: Tensor) -> str:
    if found.shape != exact.shape:
        return f"the shape is {tuple(found.shape)} where {tuple(exact.shape)} is right."
    at = int((found - exact).abs().nan_to_num(nan=torch.inf).argmax()) if found.ndim else 0
    mine, right = found.flatten()[at].item(), exact.flatten()[at].item()
    return f"found {one.show(mine)} where {one.show(right)} is exact."


def _with_code(text: str) -> str:
    """Convert text to HTML, with code between backticks."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
