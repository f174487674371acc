"""Committed outputs belong to their cells, hold nothing that changes without meaning, and need no kernel to be seen."""

import nbformat
import pytest
from nbformat.v4 import new_output

from survey_lib.course import claims
from survey_lib.course.publishing import notebooks, outputs, readme

WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "IntSlider()"}


@pytest.fixture
def adopted(ran):
    """The lesson that passed, and its file after it took over the outputs of its run."""
    lesson = notebooks.all_lessons(ran.home)[0]
    before = lesson.path.read_bytes()
    outputs.commit_outputs(lesson, notebooks.read(ran.build / "notebooks" / lesson.path.name), ran.outcomes[0])
    yield lesson, notebooks.read(lesson.path)
    lesson.path.write_bytes(before)


def test_the_lesson_keeps_its_cells_and_takes_the_outputs(adopted):
    lesson, after = adopted
    assert [cell.source for cell in after.cells] == [cell.source for cell in lesson.notebook.cells]
    assert [cell.execution_count for cell in after.cells if cell.cell_type == "code"] == [1, 2, 3, 4]
    assert any("<b>found</b>" in str(cell.get("outputs")) for cell in after.cells)
    assert after.metadata.survey.source_sha256 == notebooks.source_hash(after)
    nbformat.validate(after)


def test_nothing_stays_that_changes_from_run_to_run(adopted):
    _, after = adopted
    text = nbformat.writes(after)
    assert "papermill" not in text and "start_time" not in text and "injected-parameters" not in text


def test_outputs_of_a_failed_run_or_of_other_sources_are_refused(ran):
    passes, fails, _ = notebooks.all_lessons(ran.home)
    executed = notebooks.read(ran.build / "notebooks" / passes.path.name)
    with pytest.raises(ValueError, match="02_fails failed"):
        outputs.commit_outputs(fails, executed, ran.outcomes[1])
    with pytest.raises(ValueError, match="was changed while it ran"):
        outputs.commit_outputs(fails, executed, ran.outcomes[0])


def test_a_widget_goes_where_a_picture_stands_in():
    picture = new_output("display_data", data={"image/png": "aGk=", "text/plain": "<Figure>"})
    widget = new_output("display_data", data=WIDGET)
    assert outputs.strip_outputs([widget, picture]) == [picture]
    assert outputs.strip_outputs([widget]) == [widget], "alone it stays: a reader should see that something is missing"


def test_progress_bars_are_not_committed():
    bar = new_output("stream", name="stderr", text="\r 10%|#     |\r100%|######|\n")
    live = new_output("display_data", data=WIDGET | {"text/plain": "01.steps:   0%|          | 0/8"})
    kept = outputs.strip_outputs([bar, live, new_output("stream", name="stdout", text="half\rwhole\n")])
    assert [one.text for one in kept] == ["whole\n"]


MARKS = "<!-- {0}: begin (written by `survey tables`) -->\nold\n<!-- {0}: end -->\n"


@pytest.fixture
def verdicts():
    sides = {"a": {"eta": 0.0}, "b": {"eta": 1.0}}
    claim = claims.Claim("01.some-steps", "01.steps", "a study", "a | b.", "fd: a < b", **sides)
    return [claims.Verdict(claim, name, "reproduced", 3, 0.5, 0.4, 0.625) for name in ("glyphs", "mnist")]


def test_the_tables_of_the_readme_stand_between_their_marks(adopted, ran, verdicts):
    lessons = notebooks.all_lessons(ran.home)
    others = f"{MARKS.format('samplers')}{MARKS.format('speed')}"
    before = f"before\n{MARKS.format('lessons')}between\n{MARKS.format('claims')}{others}after\n"
    text = readme.readme(before, lessons, verdicts)
    assert (
        "\nold\n" not in text and text.startswith("before\n") and "\nbetween\n" in text and text.endswith("\nafter\n")
    )
    assert "| [01 One that passes](notebooks/01_passes.ipynb) | 5 | 0." in text
    assert "| [02 One that fails](notebooks/02_fails.ipynb) | 5 | ? |" in text
    assert "| 01 | 1 | 2 reproduced |" in text
    assert "| 2M | DPM-Solver++ (Lu et al. 2022) | 2 | 10 |" in text
    assert readme.readme(text, lessons, verdicts) == text
    with pytest.raises(ValueError, match="needs the two marks"):
        readme.readme("no marks", [], verdicts)


def test_the_list_of_claims_is_a_table_a_lesson(ran, verdicts):
    page = readme.claims_page(verdicts, notebooks.all_lessons(ran.home))
    assert "\n## 01 One that passes\n" in page
    row = "| **some steps**<br>a \\| b. (a study) | `fd: a < b`<br>a: eta 0; b: eta 1 "
    assert row + "| glyphs: reproduced<br>mnist: reproduced | 0.500 [0.400, 0.625]<br>0.500 [0.400, 0.625] |" in page


def test_generated_files_are_those_of_the_lessons_claims_and_results():
    for path, text in readme.generated().items():
        assert path.read_text() == text, f"{path.name} is out of date; run: survey tables"


def test_lesson_00_shows_counts_and_no_list_of_all_claims():
    sources = [cell.source for cell in notebooks.select(["00"])[0].notebook.cells]
    assert "claims.counts()" in sources and 'claims.ledger("00")' in sources
    assert not any("claims.ledger()" in source for source in sources)
