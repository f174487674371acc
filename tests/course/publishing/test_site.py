"""The site's sources: solutions are folded away, links lead somewhere, and formulas need no network."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from survey_lib.course.publishing import notebooks, site

SOLVED = "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"
CHECKED = "check(double)\n### BEGIN HIDDEN TESTS\ncheck(double, seed=5)\n### END HIDDEN TESTS"


def test_a_solution_is_folded_away_and_hidden_tests_are_gone():
    lesson = new_notebook(cells=[new_markdown_cell("# 99 · Doubling"), new_code_cell(SOLVED), new_code_cell(CHECKED)])
    made = site.for_readers(lesson)
    _title, frame, folded, check = made.cells
    assert "2 * x" not in frame.source and "raise NotImplementedError" in frame.source
    assert folded.source.startswith("<details><summary>Solution</summary>") and "return 2 * x" in folded.source
    assert "SOLUTION" not in folded.source and check.source == "check(double)"
    assert lesson.cells[1].source == SOLVED, "the lesson itself stays as it is"
    nbformat.validate(made)


def test_a_lesson_links_to_binder_and_colab_where_the_address_is_known():
    assert site.launch_links("01_x.ipynb", "") == ""
    links = site.launch_links("01_x.ipynb", "https://github.com/somebody/survey.git")
    assert "https://mybinder.org/v2/gh/somebody/survey/HEAD?labpath=notebooks%2F01_x.ipynb" in links
    assert "https://colab.research.google.com/github/somebody/survey/blob/main/notebooks/01_x.ipynb" in links
    with pytest.raises(ValueError, match="the public address is"):
        site.launch_links("01_x.ipynb", "somewhere")
    lesson = new_notebook(cells=[new_markdown_cell("# 99 · Doubling"), new_code_cell("1")])
    assert [cell.cell_type for cell in site.for_readers(lesson, links).cells] == ["markdown", "markdown", "code"]


def test_the_sources_hold_every_lesson_guide_and_module(tmp_path):
    site.write_sources(tmp_path)
    lessons = {path.name for path in (tmp_path / "lessons").glob("*.ipynb")}
    assert lessons == {lesson.path.name for lesson in notebooks.all_lessons()}
    for name, (title, sections) in site.GUIDES.items():
        text = (tmp_path / f"{name}.md").read_text()
        assert text.startswith(f"# {title}\n")
        assert all(f"\n## {one}\n" in text for one in sections), f"{name}: the README lacks one of {sections}"
    core = (tmp_path / "reference_core.md").read_text()
    assert "automodule:: survey_lib.core.integrators" in core and "automodule:: survey_lib.core.exact.gaussian" in core
    assert "](survey_lib/" not in (tmp_path / "researchers.md").read_text()


def test_what_the_theme_leaves_out_is_added():
    page = site.accessible('<p class="caption" role="heading">Lessons</p><pre>code</pre>')
    assert 'role="heading" aria-level="2"' in page and '<pre tabindex="0">code</pre>' in page
