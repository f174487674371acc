"""Lessons with widgets, as a learner meets them: JupyterLab in a browser, all cells run, every control moved."""

import ast
from pathlib import Path

import pytest

from survey_lib.course.publishing import notebooks

HOME = Path(__file__).parents[2]
PROMISED = {"01", "25"}

# Where the tests are spread over processes by group, one process has all of these; nothing else is needed.
pytestmark = pytest.mark.xdist_group("browser")


def makes_widgets(lesson):
    """Whether a code cell calls a function of ours that makes a slider or an explorer."""
    calls = [
        node.func
        for cell in lesson.notebook.cells
        if cell.cell_type == "code"
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Call)
    ]
    names = [getattr(function, "attr", getattr(function, "id", "")) for function in calls]
    return any(name.lower().endswith(("slider", "explorer")) for name in names)


ALL = notebooks.all_lessons(HOME)
WITH_WIDGETS = [lesson for lesson in ALL if makes_widgets(lesson)]


def test_the_promised_lessons_are_among_those_that_are_opened():
    assert PROMISED & {one.number for one in ALL} <= {one.number for one in WITH_WIDGETS}


@pytest.mark.parametrize("lesson", WITH_WIDGETS, ids=lambda lesson: lesson.name)
def test_a_lesson_runs_and_its_controls_change_what_is_shown(open_lesson, lesson):
    with open_lesson(lesson.path) as page:
        page.run_all_cells()
        controls = page.controls()
        assert controls, "no slider and no menu is on the page"
        for control in controls:
            seen = page.move(control)
            assert len(seen) > 1, f"{control.name} cannot be moved"
            assert control.cut_off() == []
        for shown in page.pictures.values():  # of each output that holds any
            assert len(shown) > 1, "the words change with the controls, the picture does not"
        assert page.complaints == []
