"""Predictions as a learner meets them: buttons to click in JupyterLab, and the choice beside what was measured."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.browser.jupyter import NOTEBOOK

pytestmark = pytest.mark.xdist_group("browser")

ASK = """from survey_lib.course.exercises import compare, predict

predictions = [
    predict("blur", "A good denoiser gets pure noise. It draws …", ("a sharp digit", "one blur, always the same")),
    predict("gain", "From 5 steps to 50 the distance falls by a factor of …", (2, 5, 20)),
]"""
COMPARE = 'compare(predictions, {"blur": "one blur, always the same", "gain": 3.57})'
BUTTON = f"{NOTEBOOK} .widget-toggle-button"

#: Buttons whose words do not fit, or that reach beyond the output they are in.
CUT_OFF = """() => [...document.querySelectorAll('.jp-NotebookPanel .widget-toggle-button')].filter((one) =>
  one.scrollWidth > one.clientWidth + 1
  || one.getBoundingClientRect().right > one.closest('.jp-OutputArea-output').getBoundingClientRect().right + 1
).map((one) => one.innerText)"""


def test_a_click_is_shown_beside_what_was_measured(open_lesson, tmp_path):
    path = tmp_path / "asked.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=[new_code_cell(ASK), new_code_cell(COMPARE)], metadata=kernel), path)
    with open_lesson(path) as lesson:
        lesson.run_all_cells()
        page = lesson.page
        assert page.locator(BUTTON).all_inner_texts() == [
            "a sharp digit", "one blur, always the same", "less than 2", "2 to 5", "5 to 20", "20 or more",
        ]  # fmt: skip
        assert page.locator(f"{BUTTON}.mod-active").count() == 0, "nothing is chosen for the reader"
        assert page.evaluate(CUT_OFF) == []
        table = page.locator(f"{NOTEBOOK} table")
        assert "you chose" not in table.inner_text()
        page.locator(BUTTON).get_by_text("5 to 20").click()
        table.get_by_text("you chose").wait_for()
        assert page.locator(f"{BUTTON}.mod-active").all_inner_texts() == ["5 to 20"]
        assert "2 to 5 (3.57)" in table.inner_text() and "5 to 20" in table.inner_text()
        assert lesson.complaints == []
        lesson.screenshot(tmp_path / "asked.png")
