"""A learner's copy holds no solution, runs where it lies, and is never lost."""

import nbformat
import pytest

from survey_lib.course.publishing import notebooks, workbooks

SOLVED = ("def f(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION", "f(1)")


@pytest.fixture
def lesson(course):
    return notebooks.Lesson(course.write(body=SOLVED))


def prepare(lesson, course, **options):
    return workbooks.prepare(notebooks.Lesson(lesson.path), course.home / "lab", **options)


def write_in(path):
    """What a learner does: another cell, saved as JupyterLab saves it, with its metadata."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].source = "my own words"
    nbformat.write(notebook, path)


def test_the_copy_holds_the_lesson_without_solutions_and_says_so(lesson, course):
    path, told = prepare(lesson, course)
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path == course.home / "lab" / "01_small.ipynb" and "without solutions" in told
    assert "2 * x" not in path.read_text() and "NotImplementedError" in path.read_text()
    assert "survey lab 01 --solved" in notebook.cells[1].source
    rest = [notebook.cells[0], *notebook.cells[2:]]
    changed = [own.source != cell.source for own, cell in zip(lesson.notebook.cells, rest, strict=True)]
    assert changed.count(True) == 1
    assert "return 2 * x" in lesson.path.read_text()


def test_what_was_written_stays(lesson, course):
    path, _ = prepare(lesson, course)
    write_in(path)
    before = path.read_bytes()
    assert "stays as it is" in prepare(lesson, course).told
    course.write(body=(*SOLVED, "new = 1"))
    assert "stays as it is" in prepare(lesson, course).told
    assert path.read_bytes() == before


def test_fresh_begins_again_and_keeps_every_old_copy(lesson, course):
    path, _ = prepare(lesson, course)
    clean = path.read_bytes()
    for name in ("01_small.ipynb.bak", "01_small.ipynb.2.bak", "01_small.ipynb.3.bak"):
        write_in(path)
        assert f"kept in {name}" in prepare(lesson, course, fresh=True).told
        assert "my own words" in path.with_name(name).read_text() and path.read_bytes() == clean
    prepare(lesson, course, fresh=True)
    assert len(list(path.parent.iterdir())) == 4, "an untouched copy is not set aside"


def test_an_untouched_copy_follows_the_lesson(lesson, course):
    path, _ = prepare(lesson, course)
    assert "nothing is written" in prepare(lesson, course).told
    course.write(body=(*SOLVED, "new = 1"))
    assert "renewed" in prepare(lesson, course).told and "new = 1" in path.read_text()


def test_a_malformed_exercise_is_named(course):
    lesson = notebooks.Lesson(course.write(body=("### BEGIN SOLUTION\n1",)))
    with pytest.raises(ValueError, match=r"01_small.ipynb holds a malformed exercise: .* is missing"):
        prepare(lesson, course)


@pytest.mark.parametrize("lesson", notebooks.all_lessons(), ids=lambda lesson: lesson.name)
def test_every_lesson_has_a_workbook(lesson, tmp_path):
    path, _ = workbooks.prepare(lesson, tmp_path)
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert text.count("NotImplementedError") >= 3 and "### " + "BEGIN" not in text
    assert notebooks.Lesson(path).parameters == lesson.parameters
    pictures = [part.partition(")")[0] for part in text.split("](../")[1:]]
    assert all((lesson.path.parents[1] / picture).is_file() for picture in pictures), "found from a folder beside"
