"""The notebooks of a class, and the cells of answers in them.

A class lies in one folder, and each student's notebooks in a folder of their own below it, at any depth; this is also
how nbgrader keeps what was handed in (``submitted/STUDENT/lesson01/01_foundations_ddpm.ipynb``). A notebook that lies
in the class's folder itself belongs to a student of the notebook's name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from survey_lib.course.publishing import notebooks, solutions

_LARGEST = 50 * 2**20  # bytes of a notebook


class Task(NamedTuple):
    """An exercise as a lesson sets it: its points, the answer's name, its frame, and the cells with answers so far."""

    exercise: str
    name: str
    points: float
    frame: str  # what is handed out in the place of the answer
    cells: tuple[str, ...]  # nbgrader's names of the cells with answers, this exercise's last
    imports: tuple[str, ...]


class Submission(NamedTuple):
    """A student's notebook of a lesson: the sources of its cells with answers by nbgrader's name, or what is wrong."""

    student: str
    path: Path
    lesson: str = ""
    answers: dict[str, str] = {}  # noqa: RUF012
    problem: str = ""


@cache
def tasks(lesson: str) -> tuple[Task, ...]:
    """The exercises of a lesson, by its number, in the order of the notebook."""
    (found,) = notebooks.select([lesson])
    cells = [(cell, ast.parse(cell.source)) for cell in found.notebook.cells if cell.cell_type == "code"]
    imports = tuple(ast.unparse(node) for _, tree in cells for node in tree.body if _needed(node))
    answers, made, frame = [], [], ""
    for cell, tree in cells:
        marks = cell.metadata.get("nbgrader", {})
        if marks.get("solution"):
            answers.append(marks["grade_id"])
            frame = solutions.stub(cell.source)
        elif marks.get("grade"):
            exercise, name = _checked(tree)
            made.append(Task(exercise, name, float(marks["points"]), frame, tuple(answers), imports))
    return tuple(made)


def find(folder: Path) -> list[Submission]:
    """The notebooks of a class. Raises FileNotFoundError without any."""
    paths = sorted(path for path in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
    if not paths:
        raise FileNotFoundError(f"no notebook is in {folder}; a folder for each student is expected in it")
    return [read(folder, path) for path in paths]


def read(folder: Path, path: Path) -> Submission:
    """Read one notebook. Raises nothing: the ``problem`` of a submission says why its notebook cannot be read."""
    inner = path.relative_to(folder).parts
    student = inner[0] if len(inner) > 1 else path.stem
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError("it is a link to a place outside")
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"it is larger than {_LARGEST >> 20} MiB")
        cells = notebooks.read(path).cells
    except Exception as error:  # a broken file of one student must not stop the others
        return Submission(student, path, problem=f"the notebook cannot be read: {error}"[:300])
    marked = {cell.metadata.get("nbgrader", {}).get("grade_id"): cell.source for cell in cells}
    for lesson in notebooks.all_lessons():
        wanted = {name for task in tasks(lesson.number) for name in task.cells}
        if wanted & marked.keys():
            answers = {name: str(source) for name, source in marked.items() if name in wanted}
            return Submission(student, path, lesson.number, answers)
    return Submission(student, path, problem="it has no cell with an answer to an exercise of this course")


def _checked(tree: ast.Module) -> tuple[str, str]:
    """The exercise and the name of the answer in a cell that checks: ``check("01.A", corrupt)``."""
    call = tree.body[0].value
    return call.args[0].value, call.args[1].id


def _needed(node: ast.stmt) -> bool:
    """Whether a statement is an import that an answer may use: of anything but the course itself."""
    if isinstance(node, ast.ImportFrom):
        return not (node.module or "").startswith("survey_lib.course")
    return isinstance(node, ast.Import)


def imports_of(task: Task, cells: Iterable[str]) -> list[str]:
    """The lesson's imports that these cells name, so that an answer need not wait for the others."""
    names: set[str] = set()
    for cell in cells:
        try:
            names |= {node.id for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Name)}
        except (SyntaxError, ValueError, RecursionError):
            continue
    found = []
    for line in task.imports:
        node = ast.parse(line).body[0]
        node.names = [one for one in node.names if (one.asname or one.name).split(".")[0] in names]
        if node.names and ast.unparse(node) not in found:
            found.append(ast.unparse(node))
    return found
