"""A JupyterLab of the tests' own and a real browser in front of it; both are gone when a test ends.

The browser is the system's Chromium or Chrome, steered by playwright. Without either the tests are skipped,
and say what is missing.
"""

import contextlib
import shutil

import pytest

from tests.browser import jupyter

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def browser():
    """Made for each test, since playwright keeps an event loop running that other tests must not meet."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install -e '.[test]'")
    found = [path for path in map(shutil.which, BROWSERS) if path]
    if not found:
        pytest.skip(f"there is no browser here: {', '.join(BROWSERS)} are looked for")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found[0], timeout=jupyter.PATIENCE * 1000)
        yield browser
        browser.close()


@pytest.fixture
def lab(browser, tmp_path):
    """Asks for the browser first: where there is none, no server has to start."""
    lab = jupyter.Lab(tmp_path)
    yield lab
    lab.stop()


@pytest.fixture
def open_lesson(browser, lab, tmp_path):
    """Open a notebook in JupyterLab; where the test then fails, a picture of the page is kept and named."""

    @contextlib.contextmanager
    def opening(path):
        page = browser.new_page(viewport={"width": 1280, "height": 1000}, reduced_motion="reduce")
        try:
            yield jupyter.LessonPage(page, lab, path)
        except BaseException as error:
            page.screenshot(path=tmp_path / "failed.png", animations="disabled")
            error.add_note(f"The page then: {tmp_path / 'failed.png'}\nJupyterLab's log: {lab.log}")
            raise

    return opening
