"""A course of small notebooks to run, so that these tests do not depend on the real lessons."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = 'profile = "auto"\nseed = 0\ndataset = "glyphs"\ntrain = False\nsteps = 10\nscale = 1.0'


def small_notebook(title="A small lesson", number="01", body=("answer = seed + 1", "assert answer == seed + 1")):
    """Heading, parameters, and the cells of ``body``; strings are code, tuples ("markdown", text)."""
    cells = [
        new_markdown_cell(f"# {number} · {title}\n\nWe take $x_t = \\alpha x_0 + \\sigma\\epsilon$ apart."),
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        new_markdown_cell("## The idea"),
    ]
    cells += [new_markdown_cell(one[1]) if isinstance(one, tuple) else new_code_cell(one) for one in body]
    for at, cell in enumerate(cells):
        cell["id"] = f"cell-{at}"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return new_notebook(cells=cells, metadata=kernel)


@pytest.fixture
def write_lesson(tmp_path):
    """Write a lesson into the home of the test; return its path."""

    def write(name="01_small", notebook=None, **parts):
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(notebook or small_notebook(**parts), path)
        return path

    return write
