"""The student's version of a lesson, in nbgrader's format, made without nbgrader's database.

A lesson is written with its solutions, between ``### BEGIN SOLUTION`` and ``### END SOLUTION``; that is what makes
it run. `make` takes them out, with the hidden tests and all outputs, and locks the cells that check::

    survey assignment 01 --out handout

For a class: hand out the folder, collect the notebooks, and grade them with ``survey grade``, or with nbgrader's own
commands in a course that ``survey class init`` lays out. nbgrader restores the locked cells and the hidden tests, which
check with other seeds; its feedback pages show them, as they show everything.
"""

from __future__ import annotations

import copy
from pathlib import Path

import nbformat

from survey_lib.course.publishing import notebooks
from survey_lib.lab import runtime

#: nbgrader's metadata, which `cell_metadata` completes.
_SCHEMA = {"schema_version": 3, "locked": False, "solution": False, "grade": False, "task": False}


def make(lesson: str | Path, destination: str | Path) -> Path:
    """Write the student's version of a lesson into a folder; return its path.

    lesson       : a number, a name or a path
    destination  : the folder; a notebook in it that is not this version is never replaced

    Raises RuntimeError without nbgrader, ValueError for a lesson that holds no exercise or a malformed one, and
    FileExistsError where the folder holds the lesson itself, or a version that somebody has changed.
    """
    path = Path(lesson)
    if path.suffix != ".ipynb":
        (found,) = notebooks.select([str(lesson)])
        path = found.path
    target = Path(destination) / path.name
    if target.resolve() == path.resolve():
        raise ValueError(f"{target} is the lesson itself, with the solutions; name another folder")
    student = strip(notebooks.read(path), path.name)
    if target.exists() and notebooks.source_hash(notebooks.read(target)) != notebooks.source_hash(student):
        raise FileExistsError(f"{target} holds other cells, which would be lost; name another folder or move it away")
    runtime.write_atomically(target, nbformat.writes(student).encode())
    return target


def strip(notebook: nbformat.NotebookNode, name: str = "the notebook") -> nbformat.NotebookNode:
    """Return a copy of the notebook without solutions, hidden tests and outputs."""
    preprocessors = _preprocessors()
    student = copy.deepcopy(notebook)
    if not any(cell.metadata.get("nbgrader", {}).get("solution") for cell in student.cells):
        raise ValueError(f"{name} holds no exercise: none of its cells is marked as a solution")
    resources: dict = {}
    for preprocessor in preprocessors:
        try:
            student, resources = preprocessor.preprocess(student, resources)
        except RuntimeError as error:
            raise ValueError(f"{name} holds a malformed exercise: {str(error).rstrip('.')}") from error
    for unwanted in ("survey", "widgets", "papermill"):
        student.metadata.pop(unwanted, None)
    return student


def cell_metadata(grade_id: str, *, points: float | None = None) -> dict:
    """The metadata of a cell that holds a solution, or with ``points`` of one that checks it."""
    if points is None:
        return {"nbgrader": _SCHEMA | {"grade_id": grade_id, "solution": True}}
    return {"nbgrader": _SCHEMA | {"grade_id": grade_id, "grade": True, "locked": True, "points": points}}


def _preprocessors() -> list:
    try:
        from nbgrader import preprocessors
    except ImportError as error:
        raise RuntimeError('the student version needs nbgrader: pip install "survey_lib[class]"') from error
    names = ("LockCells", "ClearSolutions", "ClearHiddenTests", "ClearOutput", "CheckCellMetadata")
    return [getattr(preprocessors, name)() for name in names]
