"""A cell of an exercise comes apart at nbgrader's marks, and the stub is the one that nbgrader would make."""

import pytest

from survey_lib.course.publishing import assignments, notebooks, solutions

CELL = "def f(x):\n    ### BEGIN SOLUTION\n    y = 2\n    return y * x\n    ### END SOLUTION\n\nf(1)"


def test_the_parts_of_a_cell_hold_its_lines_without_the_marks():
    assert solutions.split(CELL) == [
        ("text", "def f(x):"),
        ("solution", "    y = 2\n    return y * x"),
        ("text", "\nf(1)"),
    ]
    assert solutions.split("x = 1") == [("text", "x = 1")]
    hidden = "a\n### BEGIN HIDDEN TESTS\nb\n### END HIDDEN TESTS"
    assert solutions.split(hidden) == [("text", "a"), ("hidden tests", "b")]


def test_a_stub_keeps_the_frame():
    lines = ["def f(x):", "    # YOUR CODE HERE", "    raise NotImplementedError()", "", "f(1)"]
    assert solutions.stub(CELL) == "\n".join(lines)


@pytest.mark.parametrize(
    "source",
    ["### BEGIN SOLUTION\n1", "1\n### END SOLUTION", "### BEGIN SOLUTION\n### BEGIN HIDDEN TESTS\n### END SOLUTION"],
)
def test_a_mark_without_its_counterpart_is_named(source):
    with pytest.raises(ValueError, match=r"has no counterpart|is missing"):
        solutions.split(source)


@pytest.mark.parametrize("lesson", notebooks.all_lessons(), ids=lambda lesson: lesson.name)
def test_the_stubs_of_a_lesson_are_those_of_nbgrader(lesson):
    students = assignments.strip(lesson.notebook).cells
    for own, theirs in zip(lesson.notebook.cells, students, strict=True):
        if "nbgrader" in own.metadata:
            assert solutions.stub(own.source).strip() == theirs.source.strip()
