"""The atlas is complete, uses no word outside its lists, and every study leads to a lesson and a reference."""

import re

import pytest

from survey_lib.course import atlas
from survey_lib.lab import runtime, widgets

ARXIV = re.compile(r"\d{4}\.\d{4,5}")
STUDIES = atlas.load()


@pytest.mark.parametrize("study", list(STUDIES.itertuples()), ids=lambda study: study.bib)
def test_every_study_has_its_place(study):
    assert study.lesson in atlas.LESSONS and study.strategy in atlas.STRATEGIES and study.part in atlas.PARTS
    assert study.part not in study.also.split("; ")
    assert ARXIV.fullmatch(study.arxiv) and 2015 <= study.year <= 2023
    entry = atlas.bibliography()[study.bib]
    assert entry["eprint"] == study.arxiv and entry["year"] == str(study.year) and entry["title"] == study.title
    assert (study.evidence == "n/a") == (study.claim == "")
    for sentence in (study.changes, study.demonstration, study.claim or "."):
        assert sentence.endswith(".") and len(sentence) < 220


def test_seventy_studies_fill_every_strategy_and_touch_every_part():
    assert list(STUDIES["number"]) == list(range(1, 71))
    assert set(STUDIES["strategy"]) == set(atlas.STRATEGIES) and set(STUDIES["part"]) == set(atlas.PARTS)
    assert STUDIES["bib"].is_unique and STUDIES["arxiv"].is_unique and STUDIES["name"].is_unique


def test_only_what_is_confirmed_is_said_to_be_named_by_the_survey():
    named = STUDIES[STUDIES["standing"] == "named by the survey"]
    assert set(named["name"]) == {"DDPM", "LDM", "Frido"}
    assert set(STUDIES["standing"]) == {"named by the survey", "represents its strategy", "later than the survey"}


def test_the_bibliography_holds_the_survey_and_well_formed_entries():
    entries = atlas.bibliography()
    assert entries["ulhaq2022survey"]["eprint"] == "2210.09292"
    for entry in entries.values():
        assert {"author", "title", "year", "eprint", "url"} <= set(entry) and ARXIV.fullmatch(entry["eprint"])
        assert entry["url"].endswith(entry["eprint"])


def test_later_methods_and_questions_use_the_same_words():
    later, questions = atlas.later(), atlas.questions()
    assert all(ARXIV.fullmatch(one) for ids in later["arxiv"] for one in ids.split("; "))
    assert set(questions["question"]) == set(atlas.QUESTIONS)
    assert all(len(row.passes) > 5 for row in questions.itertuples())


@pytest.mark.parametrize("path", sorted((runtime.HOME / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_notebook_is_a_lesson_of_the_map(path):
    number = path.stem[:2]
    assert path.stem == f"{number}_{atlas.LESSONS[number]}"


def test_choosing():
    assert set(atlas.choose("EPS-4", "integrator")["name"]) == {"PNDM", "DDSS"}
    assert "DDIM" in set(atlas.choose(part="grid")["name"])
    with pytest.raises(ValueError, match="strategy 'EPS-6' is not one of baseline"):
        atlas.choose("EPS-6")
    with pytest.raises(ValueError, match="part 'speed' is not one of bridge"):
        atlas.choose(part="speed")


def test_a_word_outside_the_lists_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "atlas"
    folder.mkdir(parents=True)
    text = (runtime.HOME / "data" / "atlas" / "studies.csv").read_text()
    (folder / "studies.csv").write_text(text.replace(",bridge,", ",bridges,"))
    monkeypatch.setattr(runtime, "HOME", tmp_path)
    with pytest.raises(ValueError, match="part 'bridges' is not one of"):
        atlas.load()
    with pytest.raises(FileNotFoundError, match=r"there is no .*questions\.csv"):
        atlas.questions()


def test_the_map_draws_every_study_once_and_inside_the_page():
    figure = atlas.figure()
    (ax,) = figure.figure.axes
    texts = [text.get_text() for text in ax.texts]
    assert all(texts.count(name) == 1 for name in STUDIES["name"])
    assert "70 studies from 2015 to 2023" in figure.alt
    figure.figure.canvas.draw()
    page = figure.figure.bbox
    names = [text for text in ax.texts if text.get_text() in set(STUDIES["name"])]
    boxes = [text.get_window_extent() for text in names]
    assert all(page.containsx(box.x1) and page.containsy(box.y0) for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_chosen_part_is_lit_and_counted():
    lit = len(atlas.choose(part="grid"))
    assert f"Lit: {lit} of grid" in atlas.figure(part="grid").alt


def test_the_explorer_answers_its_menus():
    explorer = atlas.explorer("EPS-4")
    assert "PNDM" in explorer.page.value and "D3PM" not in explorer.page.value
    explorer.strategy.value, explorer.part.value = "EDS-2", "bridge"
    assert "D3PM" in explorer.page.value and "PNDM" not in explorer.page.value
    explorer.strategy.value, explorer.part.value = "EDS-1", "grid"
    assert "No study of this strategy" in explorer.page.value


def test_without_a_kernel_the_explorer_is_a_page_with_all_studies():
    bundle = atlas.explorer()._repr_mimebundle_()
    assert widgets.WIDGET in bundle
    assert bundle["text/html"].count("https://arxiv.org/abs/") == 70 and bundle["text/html"].count("<details") == 11
    assert '<a href="01_foundations_ddpm.ipynb">' in bundle["text/html"] or not list(
        (runtime.HOME / "notebooks").glob("01_*.ipynb")
    )
