"""The grammar of claims, and the files that hold them.

A claim has a ``source`` ("ours" for a claim of our own), what it ``says``, and our test: ``expect``, one of ::

    "fd: a < b"     "fd: a < 0.5 * b"     "fd: a < 1.05 * b"     "bits: a < 4"     (or > in place of <)

A factor on the claimed side of 1 requires an effect of this size; a factor on the other side is the largest difference
that counts as equal. ``a`` and ``b`` select rows by their settings, both after the group's ``where``. Of these rows,
``best = NAME`` takes in each seed the row with the smallest NAME, and ``nearest = NAME`` the row whose NAME is nearest
to that of the other side. A group may also give ``source``, ``effect``, ``kind`` and ``networks`` for all its claims:

* ``effect``: the smallest relative difference that matters, 0.03 by default.
* ``kind``: "sampled" (the default: a and b use the same networks), "trained" (they do not), "exact" (not random).
* ``networks``: the number of trainings for each side; required for "trained".
* ``headline``: true for a claim that a lesson shows unfolded.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from survey_lib.lab import runtime

KINDS = ("sampled", "trained", "exact")
OURS = "ours"
BEST, NEAREST = "best", "nearest"
TRAININGS = 3

_NUMBER = r"\d+(?:\.\d+)?"
_EXPECT = re.compile(rf"(\w+): a ([<>]) (?:(?:({_NUMBER}) \* )?(b)|({_NUMBER}))")
_TYPES = {str: "a text", bool: "true or false", int: "a whole number"}
_FIELDS = {"source": str, "says": str, "expect": str, "kind": str, "headline": bool, "networks": int}
_SHARED = ("source", "effect", "kind", "networks")
_NEEDED = ("source", "says", "expect", "a")


class Expected(NamedTuple):
    """A parsed test: the quantity, whether a is claimed to be less, the factor of b, or a constant in its place."""

    quantity: str
    less: bool
    factor: float
    constant: float | None

    @classmethod
    def of(cls, text: str) -> Expected:
        """Parse ``text``. Raises ValueError unless it is one of the expressions above."""
        match = _EXPECT.fullmatch(text)
        factor, constant = (float(match[3] or 1), match[5] and float(match[5])) if match else (0, None)
        if factor == 0 or constant == 0:
            raise ValueError(f'expect is {text!r}; accepted: "fd: a < b", "fd: a < 0.9 * b", "fd: a < 8", or > for <')
        return cls(match[1], match[2] == "<", factor, constant)

    @property
    def difference(self) -> bool:
        """Whether a difference is claimed, and not that a is as good as b, as in "fd: a < 1.05 * b"."""
        return self.factor <= 1 if self.less else self.factor >= 1


@dataclass(frozen=True)
class Claim:
    """One claim with its test. Raises ValueError or TypeError, naming the claim, for a field that is invalid."""

    id: str
    experiment: str
    source: str
    says: str
    expect: str
    a: Mapping[str, Any]
    b: Mapping[str, Any] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    effect: float = 0.03
    kind: str = "sampled"
    networks: int | None = None
    headline: bool = False

    def __post_init__(self):
        for name, kind in _FIELDS.items():
            value = getattr(self, name)
            if type(value) is not kind and not (name == "networks" and value is None):
                raise TypeError(f"claim {self.id}: {name} is {value!r}; {_TYPES[kind]} is accepted")
        for name in ("where", "a", "b"):
            self._check_selection(name, getattr(self, name))
        try:
            constant = self.expected.constant
        except ValueError as error:
            raise ValueError(f"claim {self.id}: {error}") from None
        if bool(self.b) == (constant is not None):
            raise ValueError(f"claim {self.id}: {self.expect!r} {'takes no' if self.b else 'needs a'} selection b")
        if self.a == self.b:
            raise ValueError(f"claim {self.id}: a and b select the same rows")
        if self.kind not in KINDS:
            raise ValueError(f"claim {self.id}: kind is {self.kind!r}; accepted: {', '.join(KINDS)}")
        number = isinstance(self.effect, int | float) and not isinstance(self.effect, bool)
        if not number or not 0 <= self.effect < 1:
            raise ValueError(f"claim {self.id}: effect is {self.effect!r}; a number from 0 to below 1 is accepted")
        if self.kind == "trained" and self.networks is None:
            raise ValueError(f'claim {self.id}: kind "trained" has to state networks, the trainings behind each side')

    def _check_selection(self, name: str, selection: Any) -> None:
        if not isinstance(selection, Mapping):
            raise TypeError(f"claim {self.id}: {name} is {selection!r}; a table of settings is accepted")
        for setting, value in selection.items():
            plain = all(isinstance(one, str | int | float) for one in (value if isinstance(value, list) else [value]))
            if not plain or value == [] or (setting in (BEST, NEAREST) and not isinstance(value, str)):
                kind = "the name of a number" if setting in (BEST, NEAREST) else "a text, a number or a list of them"
                raise TypeError(f"claim {self.id}: {setting} in {name} is {value!r}; {kind} is accepted")

    @property
    def lesson(self) -> str:
        """The number of its lesson, as "01"."""
        return self.experiment.partition(".")[0]

    @property
    def name(self) -> str:
        """The id without the lesson, as words."""
        return self.id.partition(".")[2].replace("-", " ")

    @cached_property
    def expected(self) -> Expected:
        """The parsed expression of the test."""
        return Expected.of(self.expect)

    @property
    def limit(self) -> str:
        """A remark on verdicts if too few networks were trained to compare trainings; else empty."""
        if self.kind != "trained" or self.networks >= TRAININGS:
            return ""
        return "one network each" if self.networks == 1 else f"{self.networks} networks each"

    @property
    def selected(self) -> str:
        """The selections of a and b, in words."""
        sides = (("a", self.a), ("b", self.b), ("both" if self.b else "", self.where))
        return "; ".join(f"{name}: {_words(chosen)}".lstrip(": ") for name, chosen in sides if chosen)

    @property
    def test(self) -> str:
        """Our test in words: the expression, and the selections of a and b."""
        return f"{self.expect}; {self.selected}"


def load(lesson: str | None = None, *, folder: Path | None = None) -> tuple[Claim, ...]:
    """Claims of one lesson ("01"), or of all lessons in their order; empty for a lesson without a file.

    Raises ValueError or TypeError with the file's name for a file that is invalid.
    """
    folder = folder or runtime.HOME / "data" / "claims"
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: claims are read from the project's data")
    if lesson is not None and not re.fullmatch(r"\d\d", lesson):
        raise ValueError(f"lesson is {lesson!r}; a number of two digits, as in '01', is accepted")
    return tuple(claim for path in sorted(folder.glob(f"{lesson or '[0-9][0-9]'}.toml")) for claim in _read(path))


def _read(path: Path) -> list[Claim]:
    try:
        groups = tomllib.loads(path.read_bytes().decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8 text: byte {error.start} cannot be read") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path.name} is not valid TOML: {error}") from None
    found: dict[str, Claim] = {}
    for experiment, listed in groups.items():
        if not isinstance(listed, list) or not all(isinstance(group, dict) for group in listed):
            raise ValueError(f'{path.name}: {experiment} is not a list of tables; write [["{experiment}"]]')
        if not experiment.startswith(f"{path.stem}."):
            raise ValueError(f"{path.name}: {experiment} is not an experiment of lesson {path.stem}")
        for claim in (claim for group in listed for claim in _claims(path.name, experiment, group)):
            if claim.id in found:
                raise ValueError(f"{path.name} holds two claims {claim.id}")
            found[claim.id] = claim
    return list(found.values())


def _claims(file: str, experiment: str, group: dict[str, Any]) -> list[Claim]:
    shared = {name: group[name] for name in ("where", *_SHARED) if name in group}
    own = {name: claim for name, claim in group.items() if name not in shared}
    accepted = [name for name in Claim.__dataclass_fields__ if name not in ("id", "experiment", "where")]
    found = []
    for name, fields in own.items():
        about = f"{file}: claim {name} of {experiment}"
        if not isinstance(fields, dict):
            raise ValueError(f"{about} is {fields!r}; a table of fields is accepted")
        for unknown in set(fields) - set(accepted):
            near = runtime.suggest(unknown, accepted)
            raise ValueError(f'{about} has no field "{unknown}"{near}; accepted: {", ".join(accepted)}')
        if missing := [need for need in _NEEDED if need not in shared | fields]:
            raise ValueError(f"{about} lacks {', '.join(missing)}")
        try:
            found.append(Claim(f"{experiment.partition('.')[0]}.{name}", experiment, **shared | fields))
        except (ValueError, TypeError) as error:
            raise type(error)(f"{file}: {error}") from None
    return found


def _words(selection: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in selection.items())


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " or ".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
