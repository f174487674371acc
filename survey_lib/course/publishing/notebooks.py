"""Lessons as files: their list, the names that a learner may use, and the parameters of each."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from survey_lib.lab import own, runtime

if TYPE_CHECKING:
    import nbformat

_DOWNLOADED = ("mnist", "fashion_mnist", "cifar10")  # unless they are there


@dataclass(frozen=True)
class Lesson:
    """One notebook of the course."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def number(self) -> str:
        return self.name.partition("_")[0]

    @cached_property
    def notebook(self) -> nbformat.NotebookNode:
        """The notebook as it lies on disk. Raises ValueError for a file that is not a notebook."""
        return read(self.path)

    @property
    def title(self) -> str:
        """The first heading, without the number."""
        return title(self.notebook) or self.name

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Name and default of each parameter, in the order of the cell tagged ``parameters``."""
        cells = [cell for cell in self.notebook.cells if "parameters" in cell.metadata.get("tags", ())]
        if len(cells) != 1:
            raise ValueError(f'{self.path.name} has {len(cells)} cells tagged "parameters"; a lesson has one')
        return _literals(cells[0].source, self.path.name)

    def parse(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """Convert texts from a command line to the types of the defaults; a text that does not fit stays a text."""
        return {name: _parse(text, self.parameters.get(name)) for name, text in texts.items()}

    @cached_property
    def roles(self) -> frozenset[str]:
        """Roles of the trained networks that its code cells load for a data set, as ``base`` in ``glyphs_base``."""
        code = "\n".join(cell.source for cell in self.notebook.cells if cell.cell_type == "code")
        if not re.search(r"\b(checkpoints|Evaluator)\b", code):
            return frozenset()
        known = _roles(str(self.parameters.get("dataset", "glyphs")))
        named = {role for role in known if re.search(rf"""["'}}]_?{role}["']""", code)}
        return frozenset(named | ({"features", "features2"} if "Evaluator" in code else set()))

    @property
    def datasets(self) -> list[str]:
        """The data sets for which there are trained networks of all its roles."""
        return [name for name in (*runtime.DATASETS, *own.names()) if self.roles <= _roles(name)]

    def check(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters ``given`` with the types of the lesson.

        Raises ValueError or TypeError with what is accepted.
        """
        defaults, checked = self.parameters, {}
        for name, value in given.items():
            if name not in defaults:
                near, accepted = runtime.suggest(name, defaults), ", ".join(defaults)
                raise ValueError(f'{self.name} has no parameter "{name}"{near}; accepted: {accepted}')
            checked[name] = _check(name, value, defaults[name])
        if "dataset" in checked and (lacking := self.roles - _roles(checked["dataset"])):
            raise ValueError(
                f'dataset is "{checked["dataset"]}", for which {self.name} lacks trained networks '
                f"({', '.join(sorted(lacking))}); accepted: {', '.join(self.datasets)}"
                f"{_way_out(checked['dataset'], lacking)}"
            )
        return checked


def all_lessons(home: Path = runtime.HOME) -> list[Lesson]:
    """List the lessons in the order of the course. Raises FileNotFoundError where there are none."""
    lessons = [Lesson(path) for path in sorted((home / "notebooks").glob("[0-9][0-9]_*.ipynb"))]
    if not lessons:
        raise FileNotFoundError(
            f"there are no lessons under {home / 'notebooks'}: work in a clone of the project, "
            "or name its folder in SURVEY_HOME"
        )
    return lessons


def select(names: Iterable[str], home: Path = runtime.HOME) -> list[Lesson]:
    """The lessons that are named: by number (1 or 01), by name or by the start of a name; all for no names."""
    lessons = all_lessons(home)
    names = [Path(name).stem for name in names]
    found = {_find(name, lessons).name for name in names}
    return [lesson for lesson in lessons if not names or lesson.name in found]


def read(path: Path) -> nbformat.NotebookNode:
    """Read a notebook. Raises ValueError for a file that is not a notebook."""
    import nbformat  # its schemas take longer to load than all else that a lesson imports from here

    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, AttributeError, KeyError) as error:
        raise ValueError(f"{path.name} is not a notebook: {str(error).splitlines()[0][:120]}") from error


def title(notebook: nbformat.NotebookNode) -> str:
    """The first heading of a notebook, without its number; empty where there is none."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (heading := re.search(r"^#\s+(.+)$", cell.source, re.MULTILINE)):
            return re.sub(r"^(?:Lesson\s+)?\d\d\W+", "", plain(heading[1]))
    return ""


def summary(notebook: nbformat.NotebookNode) -> str:
    """The paragraph under the first heading of a notebook, without marks; empty where something else follows."""
    paragraph = re.compile(r"^#\s.+\n+([^\n|#<].*(?:\n[^\n|#<].*)*)")
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (found := paragraph.search(cell.source)):
            return plain(found[1].replace("\n", " "))
    return ""


def plain(markdown: str) -> str:
    """A heading without its marks of emphasis, code and links."""
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", markdown).replace("*", "").replace("`", "").strip()


def source_hash(notebook: nbformat.NotebookNode) -> str:
    """SHA-256 of the kind and the source of every cell, in order."""
    sources = [[cell.cell_type, cell.source] for cell in notebook.cells]
    return hashlib.sha256(json.dumps(sources, ensure_ascii=False).encode()).hexdigest()


def _find(name: str, lessons: list[Lesson]) -> Lesson:
    wanted = name.zfill(2) if name.isdigit() else name
    matches = [one for one in lessons if one.name == wanted]
    matches = matches or [
        one for one in lessons if wanted and (one.name.startswith(wanted) or one.name[3:].startswith(wanted))
    ]
    if len(matches) == 1:
        return matches[0]
    accepted = ", ".join(one.name for one in lessons)
    if matches:
        raise ValueError(f'"{name}" could mean {" or ".join(one.name for one in matches)}; name one of them')
    near = runtime.suggest(name, [one.name for one in lessons] + [one.name[3:] for one in lessons])
    raise ValueError(f'there is no lesson "{name}"{near}; accepted: {accepted}, or their numbers')


def _literals(source: str, where: str) -> dict[str, Any]:
    values = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a string that explains
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        if not isinstance(target, ast.Name):
            raise ValueError(f"{where}: the parameters cell holds more than NAME = VALUE in line {statement.lineno}")
        try:
            values[target.id] = ast.literal_eval(statement.value)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where}: the parameter {target.id} is not a plain literal") from error
    return values


def _roles(dataset: str) -> set[str]:
    """Roles of the checkpoints of a data set: ``base`` for ``glyphs_base``. A folder without a name has none."""
    folder, prefix = runtime.HOME / "data" / "checkpoints", f"{dataset}_"
    return {path.stem.removeprefix(prefix) for path in folder.rglob("*.safetensors") if path.stem.startswith(prefix)}


def _way_out(dataset: str, lacking: Iterable[str]) -> str:
    """Command that makes the networks that a data set lacks, and its minutes; empty where they cannot be made."""
    from survey_lib.lab.training import recipes  # which loads torch

    roles = [role for role in recipes.roles(dataset) if role in lacking]
    if set(roles) != set(lacking):
        return ""
    is_name = dataset in (*runtime.DATASETS, *own.names())
    names = " ".join(f"{dataset if is_name else own.proposal(dataset)}_{role}" for role in roles)
    folder = "" if is_name else f" --dataset {dataset}"
    there = dataset not in _DOWNLOADED  # an estimate trains for some steps, and nothing is downloaded for it
    minutes = f", in about {sum(recipes.minutes(dataset, role) for role in roles):.2g} minutes here" if there else ""
    return f"; or make them once{minutes}: survey train {names}{folder}"


def _parse(text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _check(name: str, value: Any, default: Any) -> Any:
    if name == "profile":
        return runtime.require(name, value, str, choices=("auto", *runtime.PROFILES))
    if name == "dataset":
        return runtime.check_dataset(value)
    low, high = {"seed": 0, "steps": 1}.get(name), {"seed": 2**32 - 1}.get(name)
    return value if default is None else runtime.require(name, value, type(default), low=low, high=high)
