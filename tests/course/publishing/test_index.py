"""The index is the survey's structure, with what ran, what waits to be run, and what is to come."""

import base64
import io
import re
from dataclasses import replace

import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from survey_lib.course import atlas, claims
from survey_lib.course.atlas.data import LESSONS
from survey_lib.course.publishing import index, notebooks
from survey_lib.course.publishing.layout import Verdicts, verdicts
from survey_lib.course.publishing.structure import PARTS

VERDICTS = Verdicts({"01": "3 reproduced, 1 inconclusive"}, "3 reproduced, 1 inconclusive")


def png(colour, size=(1440, 800)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def drawing(colour, alt="", tags=()):
    output = new_output("display_data", {"image/png": png(colour)}, metadata={"image/png": {"alt": alt}})
    return new_code_cell("draw()", outputs=[output], metadata={"tags": list(tags)})


@pytest.fixture
def page(ran):
    entries = index.entries(ran.outcomes, ran.build, ran.home)
    return BeautifulSoup(index.page(entries, VERDICTS, ran.home), "html.parser")


def test_the_parts_of_the_survey_stand_in_its_order(page):
    assert [part.text for part in page.select("section > h2")] == [part.name for part in PARTS]
    numbers = [number for part in PARTS for number in part.planned]
    assert numbers == sorted(numbers) == sorted(LESSONS) and all(n[0] == p.digit for p in PARTS for n in p.planned)
    assert {part.name for part in PARTS} >= {"Efficient design strategies", "Efficient process strategies"}
    assert len(atlas.STRATEGIES) == sum(len(PARTS[at].planned) for at in (1, 2))


def test_a_card_tells_minutes_checks_and_verdicts_of_what_ran(page, ran):
    cards = page.select(".card")
    assert [card.h3.text[3:] for card in cards] == ["One that passes", "One that fails", "One that dies"]
    assert [card.a["href"] for card in cards] == ["01_passes.html", "02_fails.html", "03_dies.html"]
    how = [card.select_one(".how").text for card in cards]
    assert re.fullmatch(r"\d\.\d min · checks: 3 of 3 · 3 reproduced, 1 inconclusive", how[0])
    assert how[1].endswith("failed, 1 of 2") and "failed" in cards[1]["class"]
    assert "2 of them failed" in page.header.text and "3 reproduced, 1 inconclusive" in page.header.text


def test_what_is_to_come_is_named_and_not_linked(page):
    coming = [item.text for item in page.select(".coming li")]
    assert "00 The survey as a map" in coming and "30 Latent diffusion" in coming
    assert not [item for item in coming if item[:2] in ("01", "02")] and not page.select(".coming a")


def test_a_lesson_that_did_not_run_says_how_to_run_it(ran, tmp_path):
    entries = index.entries(ran.outcomes[1:], tmp_path, ran.home)
    page = BeautifulSoup(index.page(entries, Verdicts(), ran.home), "html.parser")
    first = page.select_one(".card")
    assert "survey run 01" in first.text and first.find("a") is None and "waiting" in first["class"]


def test_the_real_course_is_complete(tmp_path):
    entries = index.entries([], tmp_path)
    assert [entry.number for entry in entries] == sorted(LESSONS)
    for lesson in notebooks.all_lessons():
        assert 60 < len(notebooks.summary(lesson.notebook)) < 180
        tags = [tag for cell in lesson.notebook.cells for tag in cell.metadata.get("tags", ())]
        assert tags.count(index.COVER) == 1


def test_the_verdicts_of_the_course_are_counted_lesson_by_lesson():
    found = verdicts()
    assert set(found.lessons) <= {lesson.number for lesson in notebooks.all_lessons()} and found.lessons

    def count(words, verdict):
        words = words.partition(" (")[0]  # what follows says which verdicts out-of-date ones were
        return sum(int(number) for number in re.findall(rf"(\d+) {verdict}", words))

    for verdict in claims.VERDICTS:
        assert sum(count(words, verdict) for words in found.lessons.values()) == count(found.course, verdict)
    assert sum(count(found.course, verdict) for verdict in claims.VERDICTS) == len(claims.verdicts())


def test_the_cover_is_the_tagged_picture_else_the_first_and_small():
    notebook = new_notebook(cells=[drawing("red", "a red one"), drawing("blue", "a blue one", [index.COVER])])
    data, alt = index.cover(notebook)
    image = Image.open(io.BytesIO(data))
    assert alt == "a blue one" and image.convert("RGB").getpixel((5, 5)) == (0, 0, 255) and max(image.size) <= 720
    assert index.cover(new_notebook(cells=notebook.cells[:1]))[1] == "a red one"
    assert index.cover(new_notebook(cells=[new_code_cell("1")])) == (b"", "")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("# 01 · T\n\nIn *one* sentence,\nor two.\n\n| | |\n|---|---|", "In one sentence, or two."),
        ("# 01 · T\n\n| | |\n|---|---|\n\nLater.", ""),
        ("# 01 · T\n## Next\n\nText.", ""),
        ("No heading", ""),
    ],
)
def test_the_summary_is_the_sentence_under_the_title(source, expected):
    assert notebooks.summary(new_notebook(cells=[new_markdown_cell(source)])) == expected


def test_the_plain_summary_has_a_row_for_each_lesson(ran):
    text = index.summary(ran.outcomes, VERDICTS)
    assert re.search(r"01_passes +\d+\.\d +3 of 3  3 reproduced, 1 inconclusive\n", text)
    assert re.search(r"02_fails +\d+\.\d +failed, 1 of 2  -\n", text)
    assert "02_fails failed at “The idea”: IndexError" in text


def test_markup_in_titles_and_verdicts_is_shown_not_obeyed(ran):
    odd = [
        replace(one, title="<script>x</script>", summary="<b>y</b>") for one in index.entries(ran.outcomes, ran.build)
    ]
    page = index.page(odd, Verdicts({"01": "<i>z</i>"}))
    assert "<script>" not in page and "<b>y" not in page and "<i>z" not in page and "&lt;i&gt;z" in page
