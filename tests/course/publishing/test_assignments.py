"""The student's version holds no solution, keeps what checks it, and says what is missing."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from survey_lib.course.grading import courses, submissions
from survey_lib.course.publishing import assignments, notebooks
from survey_lib.lab import runtime

SOLUTION = "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"
TEST = "assert double(2) == 4\n### BEGIN HIDDEN TESTS\nassert double(21) == 21 + 21\n### END HIDDEN TESTS"


def _lesson(solution=SOLUTION):
    cells = [
        new_markdown_cell("# 99 · Doubling"),
        new_code_cell(solution, metadata=assignments.cell_metadata("99A")),
        new_code_cell(TEST, metadata=assignments.cell_metadata("99A-check", points=2)),
        new_code_cell("double(1)", outputs=[new_output("execute_result", {"text/plain": "2"}, execution_count=3)]),
    ]
    return new_notebook(
        cells=cells,
        metadata={
            "survey": {"source_sha256": "0"},
            "kernelspec": {"name": "python3", "display_name": "", "language": "python"},
        },
    )


def test_solutions_hidden_tests_and_outputs_are_gone(tmp_path):
    source = tmp_path / "99_doubling.ipynb"
    nbformat.write(_lesson(), source)
    made = assignments.make(source, tmp_path / "handout")
    text = made.read_text()
    assert "2 * x" not in text and "SOLUTION" not in text and "21 + 21" not in text
    student = nbformat.read(made, as_version=4)
    nbformat.validate(student)
    assert "raise NotImplementedError" in student.cells[1].source and student.cells[1].metadata.get("editable", True)
    assert student.cells[2].source == "assert double(2) == 4" and student.cells[2].metadata.editable is False
    assert student.cells[3].outputs == [] and "survey" not in student.metadata
    assert "return 2 * x" in source.read_text()


def test_the_lesson_itself_is_never_overwritten(tmp_path):
    source = tmp_path / "99_doubling.ipynb"
    nbformat.write(_lesson(), source)
    with pytest.raises(ValueError, match="the lesson itself"):
        assignments.make(source, tmp_path)


def test_no_notebook_with_other_cells_is_replaced(tmp_path):
    source, other = tmp_path / "99_doubling.ipynb", tmp_path / "other" / "99_doubling.ipynb"
    nbformat.write(_lesson(), source)
    made = assignments.make(source, tmp_path / "handout").read_bytes()
    assert assignments.make(source, tmp_path / "handout").read_bytes() == made, "the same again is no harm"
    other.parent.mkdir()
    other.write_bytes(source.read_bytes())
    with pytest.raises(FileExistsError, match="holds other cells, which would be lost"):
        assignments.make(source, other.parent)
    assert other.read_bytes() == source.read_bytes()


def test_a_malformed_exercise_is_named():
    with pytest.raises(ValueError, match="lesson 99 holds a malformed exercise"):
        assignments.strip(_lesson(SOLUTION.replace("### END SOLUTION", "")), "lesson 99")
    with pytest.raises(ValueError, match="holds no exercise"):
        assignments.strip(new_notebook(cells=[new_code_cell("1")]))


def test_without_nbgrader_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "nbgrader", None)
    with pytest.raises(RuntimeError, match=r"pip install \"survey_lib\[class\]\""):
        assignments.strip(_lesson())


@pytest.mark.parametrize("path", sorted((runtime.HOME / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_lesson_can_be_handed_out(path, tmp_path):
    made = nbformat.read(assignments.make(path, tmp_path), as_version=4)
    solved = [cell for cell in made.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    checks = [cell for cell in made.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    assert len(solved) == len(checks) >= 3
    assert all("NotImplementedError" in cell.source or "YOUR" in cell.source for cell in solved)
    assert all("check(" in cell.source for cell in checks)


def test_nbgrader_gives_all_points_for_the_solutions_and_none_for_the_handout(tmp_path):
    """The whole way of a class, with the exercises of all lessons in one notebook: release, hand in, autograde."""
    cells = [cell for lesson in notebooks.all_lessons() for cell in _exercises(lesson)]
    source = tmp_path / "source" / "all" / "exercises.ipynb"
    source.parent.mkdir(parents=True)
    nbformat.write(new_notebook(cells=cells, metadata=_lesson().metadata), source)

    nbgrader = _nbgrader(tmp_path)
    nbgrader("generate_assignment", "all")
    for student, folder in (("right", "source"), ("stub", "release")):
        shutil.copytree(tmp_path / folder / "all", tmp_path / "submitted" / student / "all")
    assert "partial credit" not in nbgrader("autograde", "all")
    points = _points(nbgrader, tmp_path)
    every = sum(task.points for lesson in notebooks.all_lessons() for task in submissions.tasks(lesson.number))
    assert points == {"right": (every, every), "stub": (0, every)}


def test_nbgrader_gives_all_points_for_a_whole_lesson(tmp_path):
    """The README's commands for a class."""
    (name,) = courses.init(tmp_path, ["01"])
    nbgrader = _nbgrader(tmp_path)
    nbgrader("generate_assignment", name)
    shutil.copytree(tmp_path / "source" / name, tmp_path / "submitted" / "ada" / name)
    nbgrader("autograde", name)
    points = _points(nbgrader, tmp_path)["ada"]
    assert points[0] == points[1] >= 3


def _exercises(lesson):
    """The exercises of a lesson without the rest of it: what they import, answers and checks."""
    imports = ["from survey_lib.course.exercises import check", *submissions.tasks(lesson.number)[0].imports]
    graded = [cell for cell in lesson.notebook.cells if "nbgrader" in cell.metadata]
    return [new_code_cell("\n".join(imports)), *graded]


def _nbgrader(course):
    """nbgrader's commands in the folder of a course, each of which has to succeed."""

    def run(*command):  # it starts programs of its own environment
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        call = [sys.executable, "-m", "nbgrader", *command]
        apart = {"PATH": path, "SURVEY_RESULTS": str(course / "results")}
        about = {"cwd": course, "env": os.environ | apart, "timeout": 600}
        done = subprocess.run(call, capture_output=True, text=True, **about)
        assert done.returncode == 0, done.stderr
        return done.stderr

    return run


def _points(nbgrader, course):
    """Points of each student, and how many there are."""
    nbgrader("export")
    with (course / "grades.csv").open() as file:
        return {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)}
