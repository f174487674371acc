"""The parts of an exercise's cell in nbgrader's format: what a learner sees, the solution, and the hidden tests."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

TEXT, SOLUTION, HIDDEN = "text", "solution", "hidden tests"
_BEGIN = {"### BEGIN SOLUTION": SOLUTION, "### BEGIN HIDDEN TESTS": HIDDEN}
_END = {"### END SOLUTION": SOLUTION, "### END HIDDEN TESTS": HIDDEN}

#: What stands in a solution's place, as nbgrader writes it.
STUB = "# YOUR CODE HERE\nraise NotImplementedError()"


class Part(NamedTuple):
    """Lines of a cell, without the marks around them."""

    kind: Literal["text", "solution", "hidden tests"]
    source: str


def split(source: str) -> list[Part]:
    """Return the parts of a cell, in order. Raises ValueError for a mark without its counterpart."""
    parts: list[tuple[str, list[str]]] = [(TEXT, [])]
    for line in source.splitlines():
        kind = parts[-1][0]
        mark = line.strip()
        if mark in _BEGIN and kind == TEXT:
            parts.append((_BEGIN[mark], []))
        elif mark in _END and kind == _END[mark]:
            parts.append((TEXT, []))
        elif mark in _BEGIN or mark in _END:
            raise ValueError(f"{mark!r} has no counterpart")
        else:
            parts[-1][1].append(line)
    if parts[-1][0] != TEXT:
        raise ValueError(f"the mark that ends the {parts[-1][0]} is missing")
    return [Part(kind, "\n".join(lines)) for kind, lines in parts if kind != TEXT or "".join(lines).strip()]


def stub(source: str) -> str:
    """Return a cell without its hidden tests, and with `STUB` in the place of each solution."""
    kept = []
    for part in split(source):
        if part.kind == SOLUTION:
            indent = re.match(r"\s*", part.source)[0]
            kept += [indent + line for line in STUB.splitlines()]
        elif part.kind == TEXT:
            kept.append(part.source)
    return "\n".join(kept)
