"""Which code a measurement comes from: a fingerprint that changes when its numbers may change.

A hash of the whole package would call every record old after any edit. Numbers come from less than that, and so
does the fingerprint, in three parts that are compared one by one:

* **library**: the modules of the package that the lesson's cells import, directly or through others. Left out are
  ``course`` and what only shows or records things (``lab/plots``, ``lab/widgets``, ``lab/experiments``).
* **cells**: the lesson's own code cells, all of them: which of them a number passed through is not known.
* **checkpoints**: the weights of the record's data set that the cells name.

Comments, docstrings, blank lines and where one cell ends do not count. What is compared is what lies on disk when a
process first asks, so a lesson that runs while its sources are edited may be noted as the newer one.
"""

from __future__ import annotations

import ast
import functools
import glob
import hashlib
import io
import json
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import survey_lib
from survey_lib.lab import runtime

PACKAGE = Path(survey_lib.__file__).parent
#: The rooms whose code decides numbers, and what in them does not.
ROOMS = ("core", "nets", "design", "process", "lab")
SHOWING = ("lab/plots/", "lab/widgets/", "lab/experiments/")


class Fingerprint(NamedTuple):
    """Eight digits of SHA-256 for each part; as text ``library-cells-checkpoints``."""

    library: str
    cells: str
    checkpoints: str

    def __str__(self) -> str:
        return "-".join(self)


def fingerprint(lesson: str, dataset: str) -> Fingerprint:
    """Of the code behind a measurement that ``lesson`` (a notebook's name) makes today on ``dataset``.

    For what is no lesson (a benchmark, say) the library is all of it.
    """
    return _fingerprint(lesson, dataset, runtime.HOME)


def changed(code: str, now: Fingerprint) -> tuple[str, ...]:
    """The parts in which a record's ``code`` differs from ``now``; "unknown" for a record from before there were parts.

    The order of `Fingerprint`; empty where nothing has changed.
    """
    parts = code.split("-")
    if len(parts) != len(now):
        return ("unknown",)
    return tuple(name for name, then, today in zip(now._fields, parts, now, strict=True) if then != today)


def modules(cells: Iterable[str]) -> list[Path]:
    """The package's files behind code cells: what they import and what that imports, without what only shows."""
    seen: set[Path] = set()
    left = [file for cell in cells for file in _imports(cell)]
    while left:
        file = left.pop()
        if file not in seen and _decides(file):
            seen.add(file)
            left.extend(_imports(file.read_text()))
    return sorted(seen)


def bare(source: str) -> str:
    """Source without comments, docstrings and blank lines; as it stands where it does not parse (a magic)."""
    try:
        tree = ast.parse(source)
        comments = [
            one for one in tokenize.generate_tokens(io.StringIO(source).readline) if one.type == tokenize.COMMENT
        ]
    except (SyntaxError, tokenize.TokenError):
        return source
    lines = source.splitlines()
    for token in comments:
        row, column = token.start
        lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                lines[first.lineno - 1 : first.end_lineno] = [""] * (first.end_lineno - first.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


@functools.cache
def _fingerprint(lesson: str, dataset: str, home: Path) -> Fingerprint:
    path = home / "notebooks" / f"{lesson}.ipynb"
    cells = _code(path) if path.exists() else []
    files = modules(cells) if path.exists() else [file for file in sorted(PACKAGE.rglob("*.py")) if _decides(file)]
    return Fingerprint(
        library=_digest(part for file in files for part in (_name(file), bare(file.read_text()))),
        cells=_digest(["\n".join(map(bare, cells))]),
        checkpoints=_digest(_weights(cells, dataset, home) if PACKAGE / "lab/training/checkpoints.py" in files else ()),
    )


def _code(path: Path) -> list[str]:
    cells = json.loads(path.read_bytes())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def _imports(source: str) -> Iterator[Path]:
    """Files of the package that a source imports, anywhere in it."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            top, *rest = name.split(".")
            if top == PACKAGE.name:
                stem = PACKAGE.joinpath(*rest)
                yield from (file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file())


def _decides(file: Path) -> bool:
    name = _name(file)
    return name.split("/")[0] in ROOMS and not name.startswith(SHOWING)


def _name(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def _weights(cells: list[str], dataset: str, home: Path) -> list[str]:
    """Name and hash of each checkpoint of a data set that the cells name; of all where they name none."""
    prefix = f"{Path(dataset).name}_"
    manifests = sorted((home / "data" / "checkpoints").glob(f"{glob.escape(prefix)}*.json"))
    text = "\n".join(map(bare, cells))
    named = [path for path in manifests if re.search(rf"(?<![a-zA-Z0-9]){re.escape(path.stem[len(prefix) :])}\b", text)]
    return [part for path in named or manifests for part in (path.stem, json.loads(path.read_bytes())["sha256"])]


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:8]
