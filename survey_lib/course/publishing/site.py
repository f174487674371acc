"""The site of the project: executed lessons, guides, claims, and the reference of the library, with search, offline.

``python -m survey_lib.course.publishing.site build/site`` writes sources for Sphinx and builds them. The guides are the
README's sections, so that nothing is said twice; solutions of exercises are folded away, and formulas are MathML.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import nbformat

from survey_lib.course.publishing import notebooks, solutions
from survey_lib.course.publishing.mathml import mathml
from survey_lib.lab.experiments.provenance import PACKAGE, PACKAGES
from survey_lib.lab.runtime import HOME

#: Guides by file name: title, and the README's sections in it.
GUIDES = {
    "start": ("Start", ("Two commands", "Your own network", "Your own pictures")),
    "teachers": ("For teachers", ("In a class",)),
    "researchers": (
        "For researchers",
        ("Running an experiment again", "Samplers", "Conventions, on one page", "Speed"),
    ),
}


def write_sources(folder: Path, repository: str = "") -> None:
    """Write Sphinx's sources into a folder: its settings, lessons, guides, claims, and the reference.

    repository: public address of the project, from which each lesson links to Binder and Colab; none by default.
    """
    shutil.copytree(HOME / "docs", folder, dirs_exist_ok=True)
    (folder / "lessons").mkdir(parents=True, exist_ok=True)
    for lesson in notebooks.all_lessons():
        made = for_readers(lesson.notebook, launch_links(lesson.path.name, repository))
        nbformat.write(made, folder / "lessons" / lesson.path.name)
    sections = _sections((HOME / "README.md").read_text(encoding="utf-8"))
    for name, (title, chosen) in GUIDES.items():
        text = "\n\n".join(f"## {one}\n\n{sections[one]}" for one in chosen)
        (folder / f"{name}.md").write_text(_links(f"# {title}\n\n{text}\n"), encoding="utf-8")
    claims = (HOME / "data" / "claims" / "README.md").read_text(encoding="utf-8")
    (folder / "claims.md").write_text(_links(claims), encoding="utf-8")
    _write_reference(folder)


def for_readers(notebook: nbformat.NotebookNode, links: str = "") -> nbformat.NotebookNode:
    """A copy for reading: solutions folded away under their frames, no hidden tests, and links below the title."""
    made = nbformat.from_dict(notebook)
    cells = []
    for cell in made.cells:
        if cell.cell_type == "code" and any(part.kind == solutions.SOLUTION for part in solutions.split(cell.source)):
            code = "\n".join(part.source for part in solutions.split(cell.source) if part.kind != solutions.HIDDEN)
            folded = f"<details><summary>Solution</summary>\n\n```python\n{code}\n```\n\n</details>"
            cell.source = solutions.stub(cell.source)
            cells += [cell, nbformat.v4.new_markdown_cell(folded)]
            continue
        if cell.cell_type == "code":
            cell.source = solutions.stub(cell.source)
        cells.append(cell)
    if links and cells:
        cells.insert(1, nbformat.v4.new_markdown_cell(links))
    made.cells = cells
    return made


def launch_links(name: str, repository: str) -> str:
    """Links that open a lesson on Binder and on Colab, from the public address ``https://github.com/OWNER/NAME``."""
    if not repository:
        return ""
    found = re.fullmatch(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?/?", repository)
    if not found:
        raise ValueError(f"the public address is https://github.com/OWNER/NAME; got {repository!r}")
    place = "/".join(found.groups())
    binder = f"https://mybinder.org/v2/gh/{place}/HEAD?labpath=notebooks%2F{name}"
    colab = f"https://colab.research.google.com/github/{place}/blob/main/notebooks/{name}"
    return f"Run it: [on Binder]({binder}), [on Colab]({colab}); on Colab, first `!pip install git+{repository}`."


def register_math(app) -> None:
    """Let Sphinx set formulas as MathML, which needs no script and no network."""

    def inline(self, node) -> None:
        self.body.append(mathml(node.astext()))
        _skip()

    def block(self, node) -> None:
        self.body.append(mathml(node.astext(), block=True))
        _skip()

    app.add_html_math_renderer("mathml", (inline, None), (block, None))


def _skip() -> None:
    from docutils.nodes import SkipNode

    raise SkipNode


def build(folder: Path, repository: str = "") -> int:
    """Write the sources into ``folder/source`` and the pages into ``folder/html``; Sphinx's exit code."""
    from sphinx.cmd.build import build_main

    source = folder / "source"
    shutil.rmtree(source, ignore_errors=True)
    write_sources(source, repository)
    failed = build_main(["-b", "html", "-q", "-j", "auto", str(source), str(folder / "html")])
    for page in (folder / "html").rglob("*.html"):
        page.write_text(accessible(page.read_text(encoding="utf-8")), encoding="utf-8")
    return failed


def accessible(page: str) -> str:
    """Add to a page of the theme the levels of headings and the keyboard's access to code that scrolls."""
    page = page.replace('role="heading">', 'role="heading" aria-level="2">')
    return page.replace("<pre>", '<pre tabindex="0">')


def _sections(text: str) -> dict[str, str]:
    """The README's sections of the second level by title."""
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    return {title.strip(): body.strip() for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def _links(text: str) -> str:
    """Links to lessons lead to their pages, and links to other files of the project are plain text."""
    text = re.sub(r"\]\((?:\.\./)*notebooks/([\w]+)\.ipynb\)", r"](lessons/\1.ipynb)", text)
    return re.sub(r"\[([^\]]+)\]\((?!https?://|lessons/|#)[^)]+\)", r"\1", text)


def _write_reference(folder: Path) -> None:
    """A page for each package of the library, with a section for each module that has public names."""
    lines = ["# Reference", "", "```{toctree}", ":maxdepth: 2", ""]
    for package in PACKAGES:
        files = [path for path in sorted((PACKAGE / package).rglob("*.py")) if not path.name.startswith("__")]
        names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in files]
        parts = [f"# {package}", ""]
        for name in names:
            title = name.removeprefix(f"survey_lib.{package}.")
            parts += [f"## {title}", "", "```{eval-rst}", f".. automodule:: {name}", "```", ""]
        (folder / f"reference_{package}.md").write_text("\n".join(parts), encoding="utf-8")
        lines.append(f"reference_{package}")
    (folder / "reference.md").write_text("\n".join([*lines, "```", ""]), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1]), *sys.argv[2:3]))
