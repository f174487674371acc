"""The student's version holds no solution, keeps what checks it, and says what is missing."""

import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from survey_lib.course import assignments
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
