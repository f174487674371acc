"""Fingerprints of the code behind a measurement, which change when its numbers may change.

A hash of the whole package would mark every result as stale after any edit. A fingerprint covers only code that can
change the numbers, in three parts that are compared separately:

* **library**: the modules of the package that the cells import, directly or through other modules. ``course`` and
  modules that only show or record numbers (`PRESENTATION`) are left out.
* **cells**: the lesson's code cells from the first to the last that names the experiment, as ``"25.samplers"``.
* **checkpoints**: the weights of the data set that these cells name, and the weights that an `Evaluator` loads.

Comments, docstrings, blank lines, imports of the package's own modules and cell boundaries do not count, so a module
may move without making results stale. The files on disk are hashed.
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
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import survey_lib
from survey_lib.lab import runtime

PACKAGE = Path(survey_lib.__file__).parent
#: The packages whose code can change numbers, and the modules in them that cannot.
PACKAGES = ("core", "nets", "design", "process", "lab")
PRESENTATION = ("lab/plots/", "lab/widgets/", "lab/experiments/")
_EVALUATOR = PACKAGE / "lab" / "evaluation" / "evaluator.py"


class Fingerprint(NamedTuple):
    """Eight hexadecimal digits of SHA-256 for each part; as text ``library-cells-checkpoints``."""

    library: str
    cells: str
    checkpoints: str

    def __str__(self) -> str:
        return "-".join(self)


def fingerprint(lesson: str, dataset: str, experiment: str = "") -> Fingerprint:
    """Fingerprint of the code with which ``lesson`` (a notebook's name) measures ``experiment`` on ``dataset`` today.

    If the lesson does not name the experiment, all of its cells count; if there is no such notebook (a benchmark), the
    whole library counts.
    """
    return _fingerprint(lesson, dataset, experiment, runtime.HOME)


def difference(code: str, now: Fingerprint) -> tuple[str, ...]:
    """Names of the parts in which the fingerprint ``code``, as text, differs from ``now``."""
    parts = code.split("-")
    if len(parts) != len(now):
        return ("unknown",)
    return tuple(name for name, then, today in zip(now._fields, parts, now, strict=True) if then != today)


def modules(cells: Iterable[str]) -> list[Path]:
    """Files of the package that code cells import, directly or indirectly, and that can change numbers."""
    seen: set[Path] = set()
    left = [file for cell in cells for file in _imports(cell)]
    while left:
        file = left.pop()
        if file not in seen and _decides(file):
            seen.add(file)
            left.extend(_imports(_source(file)))
    return sorted(seen)


@functools.cache
def strip_comments(source: str) -> str:
    """Remove comments, docstrings, blank lines and imports of this package; a cell with a magic is unchanged."""
    try:
        tree = ast.parse(source)
        tokens = [one for one in tokenize.generate_tokens(io.StringIO(source).readline) if one.type == tokenize.COMMENT]
    except (SyntaxError, tokenize.TokenError):
        return source
    lines = source.splitlines()
    for token in tokens:
        row, column = token.start
        lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(tree):
        for dropped in (_docstring(node), node if _imports_package(node) else None):
            if dropped is not None:
                lines[dropped.lineno - 1 : dropped.end_lineno] = [""] * (dropped.end_lineno - dropped.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _docstring(node: ast.AST) -> ast.Expr | None:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
            return first
    return None


def _imports_package(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name


@functools.cache
def _fingerprint(lesson: str, dataset: str, experiment: str, home: Path) -> Fingerprint:
    path = home / "notebooks" / f"{lesson}.ipynb"
    cells = _cells(path, experiment) if path.exists() else []
    files = modules(cells) if path.exists() else [file for file in sorted(PACKAGE.rglob("*.py")) if _decides(file)]
    loads = PACKAGE / "lab/training/checkpoints.py" in files
    naming = [*map(strip_comments, cells), *(_code(file) for file in files if file == _EVALUATOR)]
    return Fingerprint(
        library=_digest(sorted(filter(None, map(_code, files)))),
        cells=_digest(["\n".join(map(strip_comments, cells))]),
        checkpoints=_digest(_weights("\n".join(naming), dataset, home) if loads else ()),
    )


def _cells(path: Path, experiment: str) -> list[str]:
    """Code cells up to the last that names the experiment; all code cells if the lesson does not name it."""
    cells = json.loads(path.read_bytes())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    named = [at for at, cell in enumerate(code) if experiment and f'"{experiment}"' in cell]
    return code[: named[-1] + 1] if named else code


@functools.cache
def _source(file: Path) -> str:
    return file.read_text()


def _code(file: Path) -> str:
    return strip_comments(_source(file))


@functools.cache
def _imports(source: str) -> tuple[Path, ...]:
    """Files of the package that a source imports at any level."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ()
    return tuple(file for node in ast.walk(tree) for name in _names(node) for file in _files(name))


def _names(node: ast.AST) -> list[str]:
    """Names of the modules that a statement may import; of a ``from``, also those of what it takes from its module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def _files(module: str) -> list[Path]:
    """Files of a module of the package: itself, or its ``__init__``."""
    top, *rest = module.split(".")
    stem = PACKAGE.joinpath(*rest)
    return [file for file in (stem.with_suffix(".py"), stem / "__init__.py") if top == PACKAGE.name and file.is_file()]


def _decides(file: Path) -> bool:
    name = file.relative_to(PACKAGE).as_posix()
    return name.split("/")[0] in PACKAGES and not name.startswith(PRESENTATION)


def _weights(code: str, dataset: str, home: Path) -> list[str]:
    """Name and hash of the checkpoints of a data set that the code names, or of all its checkpoints."""
    prefix = f"{Path(dataset).name}_"
    manifests = sorted((home / "data" / "checkpoints").rglob(f"{glob.escape(prefix)}*.json"))
    named = [path for path in manifests if re.search(rf"(?<![a-zA-Z0-9]){re.escape(path.stem[len(prefix) :])}\b", code)]
    return [part for path in named or manifests for part in (path.stem, json.loads(path.read_bytes())["sha256"])]


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:8]
