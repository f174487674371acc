"""Pages in a browser: nothing is cut off on a screen, a tablet or a phone, in light or dark, or on paper."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from survey_lib.course.publishing import index, layout, pages
from survey_lib.course.publishing.runner import Outcome
from survey_lib.lab.plots.tables import table

pytestmark = pytest.mark.xdist_group("browser")

LONG = "A title with many long words, of which uncharacteristicallyoverlongcompounds should not leave the page"
OUTCOME = Outcome("01_small", LONG, "passed", 1.2, 3, 3, {"profile": "cpu", "seed": 0, "dataset": "glyphs"})
WIDE = table([{f"a column named {n}": (n + 0.123, n, n + 1) for n in range(12)}], caption="Twelve columns")
FORMULA = "$$" + " + ".join(f"\\frac{{x_{{{n}}}}}{{y_{{{n}}}}}" for n in range(30)) + "$$"
FOLD = "<details><summary>Why?</summary>Therefore.</details>"
LINE = " ".join(f"number {n}" for n in range(60)) + " " + "x" * 300

#: What reaches beyond the page and is in no frame that scrolls.
BEYOND = """() => [...document.querySelectorAll('body *')].filter((one) => {
  if (!one.getBoundingClientRect().width || one.matches('.skip')) return false;
  if (one.getBoundingClientRect().right <= innerWidth + 1) return false;
  for (let above = one.parentElement; above && above !== document.body; above = above.parentElement)
    if (getComputedStyle(above).overflowX === 'auto') return false;
  return true;
}).map((one) => one.tagName + ' ' + one.className)"""

#: Smallest contrast of text with the page (WCAG 2.1), over all elements that hold words of their own.
CONTRAST = """() => {
  const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((c) => (c /= 255) <= .04045 ? c / 12.92
    : ((c + .055) / 1.055) ** 2.4).reduce((sum, c, at) => sum + c * [.2126, .7152, .0722][at], 0);
  const ground = (one) => { for (; one; one = one.parentElement) { const colour = getComputedStyle(one).backgroundColor;
    if (!/, 0\\)|transparent/.test(colour)) return light(colour); } };
  const worst = [...document.querySelectorAll('body *')].filter((one) => one.offsetParent && !one.matches('.skip')
    && getComputedStyle(one).opacity > 0 && [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .map((one) => { const [a, b] = [light(getComputedStyle(one).color), ground(one)].sort((x, y) => y - x);
      return [(a + .05) / (b + .05), one.tagName + '.' + one.className + ' ' + one.innerText.slice(0, 40)]; });
  return worst.sort((a, b) => a[0] - b[0])[0];
}"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A lesson's page with everything that is too wide, and an index of long titles."""
    folder = tmp_path_factory.mktemp("pages")
    code = f"# {LINE}\nimport math\n\n\ndef f(x: float) -> str:\n    return f'{{x:.2f}}', 1.5, None  # said\n"
    said = [new_output("stream", text=LINE), new_output("display_data", {"text/html": WIDE.html})]
    failed = new_output("error", ename="E", evalue=LINE, traceback=[f"\x1b[0;31mE\x1b[0m: \x1b[1;32m{LINE}\x1b[0m"])
    cells = [
        new_markdown_cell(f"# 01 · {LONG}\n\nA sentence.\n\n| | |\n|---|---|\n| **Papers** | {LINE} |\n\n## {LONG}"),
        new_markdown_cell(f"{FORMULA}\n\n[{'link' * 60}](#x)\n\n> `{'code' * 60}`\n\n{FOLD}"),
        new_code_cell(code, outputs=said),
        new_code_cell("1", outputs=[failed]),
    ]
    page = pages.lesson_page(new_notebook(cells=cells), OUTCOME, "3 reproduced, 1 inconclusive", (OUTCOME, OUTCOME))
    (folder / "lesson.html").write_text(page)
    entries = [index.Entry(f"{n:02}", LONG, f"{n:02}_x", LINE, outcome=OUTCOME) for n in range(4)]
    verdicts = layout.Verdicts({"01": "3 reproduced"}, "3 reproduced")
    (folder / "index.html").write_text(index.page([*entries, index.Entry("14", LONG)], verdicts))
    return folder


@pytest.mark.parametrize("name", ["lesson", "index"])
@pytest.mark.parametrize("width", [1280, 768, 360])
def test_nothing_is_cut_off(browser, written, name, width):
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto((written / f"{name}.html").as_uri())
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert page.evaluate(BEYOND) == []
    page.emulate_media(media="print")
    assert page.locator(".bar, .toc").evaluate_all("all => all.filter((one) => one.offsetParent).length") == 0
    if name == "lesson":
        wide = "all => all.filter((one) => one.scrollWidth > one.clientWidth + 1).length"
        assert page.locator("pre").evaluate_all(wide) == 0, "printed lines are wrapped"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["lesson", "index"])
def test_words_can_be_read_in_light_and_dark(browser, written, name, scheme):
    page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    page.goto((written / f"{name}.html").as_uri())
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    ratio, where = page.evaluate(CONTRAST)
    assert ratio >= 4.5, where


def test_the_keyboard_reaches_the_text_first_and_is_seen(browser, written):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto((written / "lesson.html").as_uri())
    page.keyboard.press("Tab")
    first = page.locator(":focus")
    assert first.inner_text() == "Skip to the text" and first.bounding_box()["x"] >= 0
    assert first.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.locator(":focus").evaluate("one => one.tagName") == "ARTICLE"


def test_the_contents_stand_beside_a_wide_text_and_fold_on_a_phone(browser, written):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto((written / "lesson.html").as_uri())
    entry, text = page.locator(".toc li a"), page.locator("article")
    box = entry.bounding_box()
    assert entry.is_visible() and box["x"] + box["width"] <= text.bounding_box()["x"]
    page.set_viewport_size({"width": 360, "height": 800})
    assert not entry.is_visible()
    page.locator(".toc summary").click()
    assert entry.is_visible()
    boxes = [page.locator(one).bounding_box() for one in ("header h1", ".toc", "article")]
    assert [box["y"] for box in boxes] == sorted(box["y"] for box in boxes)
