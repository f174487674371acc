"""Pages show formulas and pictures without a network, in one reading order, solutions folded."""

import base64
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from survey_lib.course.publishing import layout, pages
from survey_lib.course.publishing.assignments import cell_metadata
from survey_lib.course.publishing.mathml import mathml
from survey_lib.course.publishing.runner import Outcome

OUTCOME = Outcome(
    "01_small", "A small lesson", "passed", 1.26, 3, 3, {"profile": "cpu", "dataset": "glyphs", "seed": 0}
)
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    """Verdicts that the tests know: of the first lesson alone."""
    lessons = {"01": "2 reproduced, 1 inconclusive"}
    monkeypatch.setattr(layout, "verdicts", lambda: layout.Verdicts(lessons, lessons["01"]))
    return lessons


def shown(*cells, **about):
    return BeautifulSoup(pages.lesson_page(new_notebook(cells=list(cells)), OUTCOME, **about), "html.parser")


def code(*bundles, source="draw()"):
    return new_code_cell(source, outputs=[new_output("display_data", data=one) for one in bundles])


def outside_references(page):
    """What a browser would load by itself: not the links that a reader may follow."""
    loaded = [node.get(name, "") for node in page.find_all(True) for name in ("src", "srcset", "data", "poster")]
    loaded += [node.get("href", "") for node in page.find_all("link")]
    loaded += re.findall(r"url\(([^)]*)\)|@import\s+(\S+)", "".join(node.text for node in page.find_all("style")))
    return [one for one in loaded if one and not str(one).startswith("data:")]


def test_a_page_loads_nothing_and_runs_nothing(ran):
    pages.write(ran.build, ran.home)
    written = sorted(ran.build.glob("*.html"))
    assert [path.stem for path in written] == ["01_passes", "02_fails", "03_dies", "index"]
    for path in written:
        page = BeautifulSoup(path.read_text(), "html.parser")
        assert not page.find_all("script") and not page.find_all("iframe")
        assert not outside_references(page)


def test_pages_link_to_each_other_and_every_link_has_an_end(ran):
    pages.write(ran.build, ran.home)
    for path in ran.build.glob("*.html"):
        page = BeautifulSoup(path.read_text(), "html.parser")
        anchors = {node["id"] for node in page.find_all(id=True)} | {node["name"] for node in page.select("a[name]")}
        for link in page.select("a[href]"):
            target, _, anchor = link["href"].partition("#")
            if target == "https://arxiv.org/abs/2210.09292":
                continue  # the survey itself
            if target:
                assert (ran.build / target).exists(), f"{path.name} links to {target}"
            else:
                assert anchor in anchors
    middle = BeautifulSoup((ran.build / "02_fails.html").read_text(), "html.parser")
    assert [link["href"] for link in middle.select(".bar .steps a")] == ["01_passes.html", "03_dies.html"]


def test_a_page_is_kept_where_nothing_changed(ran):
    pages.write(ran.build, ran.home)
    page = ran.build / "01_passes.html"
    before = page.stat().st_mtime_ns
    pages.write(ran.build, ran.home)
    assert page.stat().st_mtime_ns == before


def test_a_failed_lesson_shows_its_traceback_and_says_so(ran):
    pages.write(ran.build, ran.home)
    page = BeautifulSoup((ran.build / "02_fails.html").read_text(), "html.parser")
    assert "IndexError: list index out of range" in page.select_one(".output_error").text
    assert page.select_one(".status.failed").text.startswith("Failed")
    assert "IndexError: list index out of range" in page.select_one(".status.failed").text
    assert page.select(".toc a")[-1]["href"] == "#failed" and page.find(id="failed") is not None


def test_one_line_below_the_title_tells_how_it_went():
    page = shown(new_markdown_cell("# T"), claims="2 reproduced, 1 <odd>")
    line = page.select_one("header > h1 + .status")
    assert line.text == (
        "Ran to its end in 1.3 min · 3 of 3 checks passed · profile cpu, dataset glyphs, seed 0 · "
        "claims: 2 reproduced, 1 <odd>"
    )
    assert "claims" not in shown(new_markdown_cell("# T")).select_one(".status").text


def test_a_page_is_made_again_where_its_verdicts_changed(ran, counted):
    pages.write(ran.build, ran.home)
    counted["01"] = "7 reproduced"
    pages.write(ran.build, ran.home)
    assert "7 reproduced" in (ran.build / "01_passes.html").read_text()


def test_title_then_contents_then_text():
    page = shown(new_markdown_cell("# The title\n\nFirst words.\n\n## One\n\n## Two"))
    order = [node.name for node in page.find_all(["h1", "nav", "article"])]
    assert order == ["nav", "h1", "nav", "article"], "the way home, the title, the contents, the text"
    assert [link.text for link in page.select(".toc a")] == ["One", "Two"]
    skip = page.body.find("a")
    assert skip["class"] == ["skip"] and page.find(id=skip["href"][1:]).name == "article"


def test_a_solution_is_folded_and_hidden_tests_are_left_out():
    solution = "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"
    test = "assert double(2) == 4\n### BEGIN HIDDEN TESTS\nassert double(21) == 42\n### END HIDDEN TESTS"
    page = shown(
        new_markdown_cell("# T"),
        new_code_cell(solution, metadata=cell_metadata("99A")),
        new_code_cell(test, metadata=cell_metadata("99A-check", points=1)),
    )
    fold = page.select_one("details.solution")
    assert "return" in fold.text and not fold.has_attr("open") and fold.find("summary").text == "Solution"
    assert "def double" in page.text.replace(fold.text, "") and "return 2" not in page.text.replace(fold.text, "")
    assert "double(2)" in page.text and "double(21)" not in page.text
    assert "### " not in page.text


def test_heads_of_tables_say_what_they_belong_to_and_wide_tables_scroll():
    markdown = "# T\n\n| | |\n|---|---|\n| a | b |\n"
    frame = "<table border='1'><thead><tr><th>x</th></tr></thead><tbody><tr><th>0</th><td>1</td></tr></tbody></table>"
    page = shown(new_markdown_cell(markdown), code({"text/html": frame}))
    assert [head["scope"] for head in page.select("th")] == ["col", "row"], "a head without words is gone"
    assert all(table.parent["class"] == ["scroll"] for table in page.select("table"))
    assert not page.select("table[border]")


def test_markup_in_a_title_is_shown_not_obeyed():
    made = pages.lesson_page(new_notebook(), replace(OUTCOME, title="<script>x</script>"), neighbours=(OUTCOME, None))
    assert "<script>" not in made and "&lt;script&gt;" in made


def test_formulas_become_mathml_and_keep_their_tex():
    page = shown(new_markdown_cell("# T\n\nWith $x_s$ and\n\n$$\\begin{aligned} a &= b \\\\ &< c \\end{aligned}$$"))
    inline, block = page.find_all("math")
    assert (inline["display"], block["display"]) == ("inline", "block")
    assert len(block.find_all("mtr")) == 2
    assert inline.find("annotation").text == "x_s"
    assert "$" not in page.find("main").text.replace("$$", "$")


def test_latex_outputs_are_formulas_too():
    page = shown(new_markdown_cell("# T"), code({"text/latex": "$\\displaystyle \\frac{1}{2}$", "text/plain": "1/2"}))
    assert page.find("math").find("mfrac") is not None


def test_a_formula_that_cannot_be_set_stays_readable_tex():
    assert shown(new_markdown_cell("# T\n\n$\\nonsense{x}$")).select_one("code.tex").text == "\\nonsense{x}"


def test_a_disclosure_keeps_what_it_discloses():
    text = "# T\n\n<details><summary>Hint</summary>\n\nThink of $x_0$.\n\n</details>\n\nAfter."
    details = shown(new_markdown_cell(text)).select_one("article details")
    assert "Think of" in details.text and "After." not in details.text


def test_pictures_lie_in_the_page_also_those_of_markdown(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "dot.png").write_bytes(base64.b64decode(PIXEL))
    cells = [new_markdown_cell("# T\n\n![a dot](../figures/dot.png)"), code({"image/png": PIXEL, "text/plain": "."})]
    text = pages.lesson_page(new_notebook(cells=cells), OUTCOME, source=tmp_path / "notebooks")
    page = BeautifulSoup(text, "html.parser")
    assert [image["src"][:15] for image in page.find_all("img")] == ["data:image/png;"] * 2
    assert page.find("img")["alt"] == "a dot"


def test_a_widget_leaves_its_picture_and_alone_leaves_nothing():
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "IntSlider(value=0)"}
    page = shown(new_markdown_cell("# T"), code(widget), code(widget | {"image/png": PIXEL}))
    assert "IntSlider" not in page.text and len(page.find_all("img")) == 1


def test_links_between_notebooks_become_links_between_pages():
    page = shown(new_markdown_cell("# T\n\n[next](02_next.ipynb#idea), [paper](https://arxiv.org/abs/1)"))
    links = [link["href"] for link in page.select(".cell p a")]
    assert links == ["02_next.html#idea", "https://arxiv.org/abs/1"]


@pytest.mark.parametrize(
    ("tex", "sentence"),
    [
        (r"\frac{1", "do not pair"),
        (r"\nonsense x", r"holds \\nonsense"),
        (r"\left( x", "cannot be set"),
        (r"a_b_c", "cannot be set"),
    ],
)
def test_a_bad_formula_is_named(tex, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        mathml(tex)
    assert repr(tex)[1:-1] in str(caught.value)


@pytest.mark.parametrize(
    ("tex", "expected"),
    [
        (r"\mathrm{d}x", '<mi mathvariant="normal">&#x00064;</mi>'),  # a lone letter would be slanted
        (r"a \sim b", "<mo>&#x0223C;</mo>"),
        (r"a \pm b", "<mo>&#x000B1;</mo>"),
        (r"\operatorname*{argmin}_x", "<mo>argmin</mo>"),
        (r"\begin{equation} x = 1 \tag{7} \end{equation}", "<mtext>(7)</mtext>"),
        (r"\log\frac{a}{b}", '<mi>log</mi><mspace width="0.167em" /><mfrac>'),
    ],
)
def test_what_the_converter_gets_wrong_is_put_right(tex, expected):
    assert expected in mathml(tex)


def test_every_formula_is_one_well_formed_element():
    for tex in (
        r"a < b",
        r"q \,\|\, p",
        r"\lVert x \rVert^2",
        r"\{0, 1\}",
        r"x \;\! y",
        r"\begin{gathered} a \\ b \end{gathered}",
    ):
        assert ElementTree.fromstring(mathml(tex, block=True)).get("display") == "block"
