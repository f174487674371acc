"""A course of small notebooks to run, so that these tests do not depend on the real lessons."""

from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = 'profile = "auto"\nseed = 0\ndataset = "glyphs"\ntrain = False\nsteps = 10\nscale = 1.0'


def _notebook(title="A small lesson", body=("answer = seed + 1", "assert answer > seed"), parameters=PARAMETERS):
    """Heading, parameters, and the cells of ``body``: strings are code, ("markdown", text) is prose."""
    cells = [
        new_markdown_cell(f"# 01 · {title}\n\nWe take $x_t = \\alpha x_0 + \\sigma\\epsilon$ apart."),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        new_markdown_cell("## The idea"),
    ]
    cells += [new_markdown_cell(one[1]) if isinstance(one, tuple) else new_code_cell(one) for one in body]
    for at, cell in enumerate(cells):
        cell["id"] = f"cell-{at}"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return new_notebook(cells=cells, metadata=kernel)


def _course(home):
    """A home with a folder of lessons; ``course.write(name, **parts of a notebook)`` adds one."""

    def write(name="01_small", **parts):
        path = home / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(_notebook(**parts), path)
        return path

    return SimpleNamespace(home=home, build=home / "build", write=write)


@pytest.fixture
def course(tmp_path):
    return _course(tmp_path)


@pytest.fixture(scope="session")
def ran(tmp_path_factory):
    """A course of three lessons, run once: one that passes, one that fails, one whose kernel dies."""
    from survey_lib.course.publishing import notebooks, runner

    course = _course(tmp_path_factory.mktemp("course"))
    course.write(
        "01_passes",
        title="One that passes",
        body=(
            "assert (profile, seed, steps) == ('smoke', 3, 10)",
            "from IPython.display import HTML\nHTML('<b>found</b>')",
            "def check(exercise):\n    assert exercise == 'A'\n\n\ncheck('A')",
        ),
    )
    course.write("02_fails", title="One that fails", body=("assert seed == 3", "[][1]", "assert True"))
    course.write("03_dies", title="One that dies", body=("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",))
    course.cells = []
    course.outcomes = runner.run(
        notebooks.all_lessons(course.home),
        {"profile": "smoke", "seed": 3},
        course.build,
        on_cell=lambda *where: course.cells.append(where),
    )
    return course
