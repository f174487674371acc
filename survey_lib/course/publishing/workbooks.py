"""Workbooks: a learner's own copies of the lessons, without solutions, in a folder that git ignores.

They lie in ``lab/`` beside ``notebooks/``, so that pictures, data and imports are found as in the lessons. What a
learner has written there is never overwritten.
"""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbformat.v4 import new_markdown_cell

from survey_lib.course.publishing import notebooks, solutions
from survey_lib.course.publishing.notebooks import Lesson
from survey_lib.lab.runtime import HOME, write_atomically

_NOTE = (
    "*This is your own copy of the lesson, without its solutions: write in it what you like. "
    "`survey lab {number}` opens it again, `survey lab {number} --solved` opens the lesson with its solutions, "
    "and `survey lab {number} --fresh` begins again.*"
)


class Workbook(NamedTuple):
    """A learner's copy, and in a sentence what was done to have it."""

    path: Path
    told: str


def prepare(lesson: Lesson, folder: Path = HOME / "lab", *, fresh: bool = False) -> Workbook:
    """Make the learner's copy of a lesson, or keep the one that has been written in.

    A copy as it was made is renewed where the lesson has changed since. ``fresh`` begins again and keeps the old copy
    beside it, as .bak. Raises ValueError for a lesson with a malformed exercise.
    """
    path, made = folder / lesson.path.name, strip(lesson)
    if not path.exists():
        told = f"{path.name} is your copy without solutions"
    elif (written := notebooks.source_hash(old := notebooks.read(path))) == notebooks.source_hash(made):
        return Workbook(path, f"{path.name} is your copy, and nothing is written in it yet")
    elif written == old.metadata.get("survey", {}).get("copy_sha256"):
        told = f"{path.name} is renewed: the lesson has changed, and nothing was written in your copy"
    elif fresh:
        told = f"{path.name} begins again; what you wrote is kept in {_set_aside(path).name}"
    else:
        return Workbook(path, f"{path.name} holds what you wrote, and stays as it is; --fresh begins again")
    write_atomically(path, nbformat.writes(made).encode())
    return Workbook(path, told)


def strip(lesson: Lesson) -> nbformat.NotebookNode:
    """The lesson without solutions, hidden tests and outputs, with a note that says so and a hash of its cells."""
    made = copy.deepcopy(lesson.notebook)
    for cell in made.cells:
        cell.metadata.pop("nbgrader", None)
        if cell.cell_type == "code":
            try:
                cell.source = solutions.stub(cell.source)
            except ValueError as error:
                raise ValueError(f"{lesson.path.name} holds a malformed exercise: {error}") from error
            cell.outputs, cell.execution_count = [], None
    made.cells.insert(1, new_markdown_cell(_NOTE.format(number=lesson.number), id="own-copy"))
    made.metadata["survey"] = {"copy_sha256": notebooks.source_hash(made)}
    return made


def _set_aside(path: Path) -> Path:
    """Rename a file to the first free name that ends in .bak."""
    names = itertools.chain([f"{path.name}.bak"], (f"{path.name}.{count}.bak" for count in itertools.count(2)))
    return path.rename(next(free for name in names if not (free := path.with_name(name)).exists()))
