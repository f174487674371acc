"""The site in a browser, offline: its search finds, formulas are set, a checker of accessibility does not complain."""

import pytest

from survey_lib.course.grading import grade, sheets
from survey_lib.course.publishing import layout, notebooks, pages, site
from survey_lib.course.publishing.runner import Outcome

pytestmark = pytest.mark.xdist_group("browser")
RULES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]},
    "resultTypes": ["violations"],  # what passes is not listed, which would take most of the time
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    pytest.importorskip("sphinx", reason="Sphinx is missing: pip install -e '.[site]'")
    folder = tmp_path_factory.mktemp("site")
    assert site.build(folder) == 0
    return folder / "html"


def test_the_search_finds_a_lesson_without_a_network(browser, built):
    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((built / "index.html").as_uri())
    page.fill("input[name=q]", "Langevin")
    page.press("input[name=q]", "Enter")
    page.wait_for_selector("ul.search li a", timeout=60_000)
    found = page.eval_on_selector_all("ul.search li a", "links => links.map(link => link.href)")
    assert any("12_eds_score_sde" in one for one in found)
    assert all(one.startswith(("file:", "data:", "blob:")) for one in asked), "no network is asked"


def test_formulas_and_pictures_are_there(browser, built):
    page = browser.new_page()
    page.goto((built / "lessons" / "25_eps_sampling.html").as_uri())
    assert page.locator("math").count() > 20 and "$$" not in page.inner_text("article")
    broken = page.eval_on_selector_all("img", "all => all.filter(one => !one.complete || !one.naturalWidth).length")
    assert page.locator("article img").count() >= 5 and broken == 0
    assert "BEGIN SOLUTION" not in page.content() and page.locator("summary", has_text="Solution").count() == 3


def test_a_checker_of_accessibility_has_no_complaint(browser, built, tmp_path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing").Axe()
    (lesson,) = notebooks.select(["25"])
    outcome = Outcome(
        lesson.name, lesson.title, "passed", 1.0, 3, 3, {"profile": "cpu", "seed": 0, "dataset": "glyphs"}
    )
    own = tmp_path / "lesson.html"
    own.write_text(pages.lesson_page(lesson.notebook, outcome, layout.verdicts().lessons.get("25", "")))
    row = ("01", "01.A", 0.0, 2.0, 2, 5, "wrong", "the root is missing", "it is so", 1.5, "what was found", "abc")
    (sheet,) = sheets.write(tmp_path, [grade.Grade("ada", *row)])
    looked_at = [built / "index.html", built / "lessons" / "25_eps_sampling.html", built / "reference_core.html"]
    for path in (*looked_at, own, sheet):
        page = browser.new_page()
        page.goto(path.as_uri())
        found = axe.run(page, options=RULES).response["violations"]
        complaints = [(one["id"], one["nodes"][0]["html"][:200]) for one in found]
        assert not complaints, f"{path.name}: {complaints}"
        page.close()
