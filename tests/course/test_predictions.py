"""Predictions: buttons where a kernel runs, a list elsewhere, and at the end nothing that calls a reader wrong."""

import re

import nbformat
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output

from survey_lib.course.exercises import compare, predict
from survey_lib.course.publishing import notebooks, outputs
from survey_lib.lab.widgets.sliders import WIDGET

LESSONS = notebooks.all_lessons()


def quiet(*args):
    return predict(*args, show=lambda prediction: None)


@pytest.fixture
def asked():
    return quiet("blur", "One step draws …", ("a blur", "a digit")), quiet("gain", "The error falls by …", (2, 5, 10))


def test_a_click_is_the_choice_and_nothing_is_chosen_before(asked):
    blur, gain = asked
    assert blur.chosen is None and gain.chosen is None
    assert gain.choices == gain.buttons.options == ("less than 2", "2 to 5", "5 to 10", "10 or more")
    blur.buttons.value = "a digit"
    assert blur.chosen == "a digit" and gain.chosen is None


@pytest.mark.parametrize(
    ("measured", "choice"),
    [(1.99, 0), (2, 1), (4.9, 1), (5.0, 2), (10, 3), (float("inf"), 3), (-1, 0)],
)
def test_a_number_falls_into_one_range(asked, measured, choice):
    assert asked[1].choice_of(measured) == asked[1].choices[choice]


def test_it_is_shown_as_it_is_made():
    shown = []
    made = predict("blur", "One step draws …", ("a blur", "a digit"), show=shown.append)
    assert shown == [made]


def test_a_reader_without_a_kernel_sees_a_list(asked):
    bundle = asked[1]._repr_mimebundle_()
    output = new_output("display_data", bundle)
    (kept,) = outputs.strip_outputs([output])
    assert WIDGET in bundle and WIDGET not in kept.data
    notebook = new_notebook(cells=[new_code_cell("predict(…)", outputs=[kept])])
    page = BeautifulSoup(HTMLExporter().from_notebook_node(notebook)[0], "html.parser")
    shown = page.select_one(".jp-RenderedHTMLCommon")
    assert [one.text for one in shown.select("li")] == list(asked[1].choices)
    assert "The error falls by …" in shown.text and not shown.select("button, script")


def test_the_comparison_names_what_was_measured_and_judges_nobody(asked):
    result = compare(asked, {"blur": "a blur", "gain": 3.57})
    page = BeautifulSoup(result._repr_html_(), "html.parser")
    assert [cell.text for cell in page.select("tbody td")] == [
        "One step draws …", "a blur", "The error falls by …", "2 to 5 (3.57)",
    ]  # fmt: skip
    assert [cell.text for cell in page.select("th[scope=col]")] == ["question", "measured"]
    for text in (repr(result), page.text):
        assert not re.search(r"right|wrong|not so|predicted|chose|✓|✗| of \d", text)


def test_the_comparison_follows_the_clicks_of_a_reader(asked):
    result = compare(asked, {"blur": "a blur", "gain": 3.57})
    assert "you chose" not in result.box.value
    asked[0].buttons.value = "a digit"
    page = BeautifulSoup(result.box.value, "html.parser")
    assert [cell.text for cell in page.select("th")] == ["question", "measured", "you chose"]
    assert [row.select("td")[-1].text for row in page.select("tbody tr")] == ["a digit", ""]
    assert repr(result).count("you chose") == 1
    asked[0].buttons.value = "a blur"
    assert "a digit" not in result.box.value


@pytest.mark.parametrize("nothing", [None, float("nan"), np.float64("nan"), torch.tensor(torch.nan)])
def test_what_was_not_measured_is_said_to_be_open(asked, nothing):
    assert repr(compare(asked, {"blur": nothing, "gain": nothing})).count("not measured yet") == 2


def test_markup_in_a_question_is_shown_not_obeyed():
    asked = quiet("x", "<b>?</b>", ("<i>a</i>", "b"))
    for html in (asked._repr_html_(), compare([asked], {"x": "<i>a</i>"})._repr_html_(), asked.box.children[0].value):
        assert "<b>" not in html and "<i>" not in html and "&lt;b&gt;" in html


@pytest.mark.parametrize(
    ("choices", "kind", "sentence"),
    [
        (("a",), ValueError, "at least two choices"),
        ((), ValueError, "at least two choices, all different; got none"),
        (("a", "a"), ValueError, "all different; got a, a"),
        ((3, 2), ValueError, "rise; got 3, 2"),
        ((2, 2), ValueError, "rise"),
        (("a", 2), TypeError, "texts, or numbers that bound ranges; got 2"),
        ((True, False), TypeError, "got True"),
    ],
)
def test_bad_choices_are_refused(choices, kind, sentence):
    with pytest.raises(kind, match=sentence):
        quiet("key", "?", choices)


@pytest.mark.parametrize(
    ("measured", "kind", "sentence"),
    [
        ({"blur": "a blur"}, ValueError, "nothing was measured for gain; measured: blur"),
        ({"blur": "a cat", "gain": 1}, ValueError, "'a cat' is not among the choices of 'blur': a blur, a digit"),
        ({"blur": 3.0, "gain": 1}, TypeError, "one of a blur, a digit; got 3.0"),
        ({"blur": "a blur", "gain": "much"}, ValueError, "is a number; got 'much'"),
    ],
)
def test_a_measured_answer_that_does_not_fit_is_refused(asked, measured, kind, sentence):
    with pytest.raises(kind, match=sentence):
        compare(asked, measured)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_every_lesson_asks_and_compares(lesson):
    sources = [cell.source for cell in lesson.notebook.cells if cell.cell_type == "code"]
    (asking,) = [source for source in sources if "predict(\n" in source]
    found: dict = {"check": None, "compare": None, "predict": quiet}
    exec(re.sub(r"^from survey_lib.*$", "", asking, flags=re.M), found)
    assert 2 <= len(found["predictions"]) <= 4
    assert len({one.key for one in found["predictions"]}) == len(found["predictions"])
    (comparing,) = [source for source in sources if "compare(" in source]
    told = comparing + "".join(source for source in sources if "measured = {" in source)
    assert all(f'"{one.key}": ' in told for one in found["predictions"])
    nbformat.validate(lesson.notebook)
