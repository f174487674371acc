"""Executed lessons as pages that need no network: formulas in MathML, pictures inside, no script at all.

A solution is folded, hidden tests are left out, and a widget leaves its static picture.
"""

from __future__ import annotations

import base64
import copy
import mimetypes
import re
from html import escape
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup, Tag
from jinja2 import pass_context
from nbconvert import HTMLExporter
from nbconvert.filters.highlight import Highlight2HTML
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from traitlets.config import Config

from survey_lib.course.publishing import index, layout, solutions
from survey_lib.course.publishing.mathml import mathml
from survey_lib.course.publishing.notebooks import read
from survey_lib.course.publishing.outputs import WIDGET
from survey_lib.course.publishing.runner import Outcome, read_outcomes
from survey_lib.lab.runtime import HOME, write_atomically

_SHOWN = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/latex", "text/plain")


def write(destination: Path, home: Path = HOME) -> Path:
    """Write a page for each lesson that ran into ``destination``, and the index of the course; return the index.

    A page is made again where its notebook is newer, or its neighbours or the verdicts on its claims have changed.
    Pictures that a lesson's prose shows, and the lessons that have not run, are looked for in ``home``.
    """
    outcomes, verdicts = read_outcomes(destination), layout.verdicts()
    for at, outcome in enumerate(outcomes):
        neighbours = (outcomes[at - 1] if at else None, outcomes[at + 1] if at + 1 < len(outcomes) else None)
        claims = verdicts.lessons.get(outcome.number, "")
        notebook, page = destination / "notebooks" / f"{outcome.lesson}.ipynb", destination / f"{outcome.lesson}.html"
        fresh = page.exists() and page.stat().st_mtime >= notebook.stat().st_mtime
        kept = page.read_text() if fresh else ""
        if not (layout.bar(*neighbours) in kept and layout.status(outcome, claims) in kept):
            made = lesson_page(read(notebook), outcome, claims, neighbours, home / "notebooks")
            write_atomically(page, made.encode())
    target = destination / "index.html"
    write_atomically(target, index.page(index.entries(outcomes, destination, home), verdicts, home).encode())
    return target


def lesson_page(
    notebook: nbformat.NotebookNode,
    outcome: Outcome,
    claims: str = "",
    neighbours: tuple[Outcome | None, Outcome | None] = (None, None),
    source: Path = HOME / "notebooks",
) -> str:
    """One executed lesson as a page.

    notebook    : as the run left it
    outcome     : how the run went
    claims      : the counts of verdicts on its claims, in words
    neighbours  : the lessons before and after it
    source      : the folder from which the paths of its pictures count
    """
    body = BeautifulSoup(_body(notebook), "html.parser")
    for link in body.select('a[href$=".ipynb"], a[href*=".ipynb#"]'):
        link["href"] = re.sub(r"^(?:\./)?(\d\d_\w+)\.ipynb", r"\1.html", link["href"])
    for image in body.select("img[src]"):
        image["src"] = _embedded(image["src"], source)
    for table in body.select("table"):
        _mend_table(body, table)
    for block in body.select("div.solution"):  # nbconvert lets no fold through in code
        block.name = "details"
        block.insert(0, BeautifulSoup("<summary>Solution</summary>", "html.parser"))
    title = first.extract() if (first := body.find("h1")) is not None else f"<h1>{escape(outcome.title)}</h1>"
    return layout.page(
        outcome.title,
        f'{layout.bar(*neighbours)}<main class="lesson">'
        f"<header>{title}{layout.status(outcome, claims)}</header>"
        f"{_contents(body)}"
        f'<article id="text" tabindex="-1">{body}{layout.foot(outcome, *neighbours)}</article></main>',
    )


def _contents(body: BeautifulSoup) -> str:
    """The sections as a folded list of links, which a wide page shows beside the text."""
    entries = [(heading.get("id"), heading.get_text().rstrip("¶")) for heading in body.select("h2[id]")]
    if body.find(id="failed") is not None:
        entries.append(("failed", "Where it stopped"))
    items = "".join(f'<li><a href="#{escape(anchor)}">{escape(text)}</a></li>' for anchor, text in entries)
    fold = f"<details><summary>Contents</summary><ol>{items}</ol></details>" if entries else ""
    return f'<nav class="toc" aria-label="Contents">{fold}</nav>'


class _Renderer(IPythonRenderer):
    """Markdown to HTML, formulas to MathML; one that cannot be set stays TeX, for a reader to see."""

    def inline_math(self, body: str) -> str:
        return _formula(body, block=False)

    def block_math(self, body: str) -> str:
        return _formula(body, block=True)

    def latex_environment(self, name: str, body: str) -> str:
        return _formula(f"\\begin{{{name}}}{body}\\end{{{name}}}", block=True)


class _Exporter(HTMLExporter):
    """nbconvert's plain template, which loads nothing, with our formulas."""

    @pass_context
    def markdown2html(self, context, source):
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = _Renderer(escape=False, attachments=attachments)
        return MarkdownWithMath(renderer=renderer).render(source)


def _highlighted(source: str, language: str | None = None, metadata: dict | None = None) -> str:
    """A cell's code in colour: the text, a block for each solution, and nothing of hidden tests."""
    colour = Highlight2HTML(pygments_lexer="ipython3")
    try:
        parts = solutions.split(source)
    except ValueError:  # a stray mark: the cell is shown as it is
        parts = [solutions.Part(solutions.TEXT, source)]
    made = []
    for part in parts:
        if part.kind == solutions.SOLUTION:
            made.append(f'<div class="solution">{colour(part.source, language, metadata)}</div>')
        elif part.kind == solutions.TEXT:
            made.append(colour(part.source, language, metadata))
    return "".join(made)


def _body(notebook: nbformat.NotebookNode) -> str:
    notebook = copy.deepcopy(notebook)
    notebook.metadata.pop("widgets", None)
    marks = [cell for cell in notebook.cells if "papermill-error-cell-tag" in cell.metadata.get("tags", ())]
    for cell in marks[:-1]:  # papermill's large red banner: the line below the title tells more
        notebook.cells.remove(cell)
    for cell in marks[-1:]:
        cell.source = '<p id="failed">The lesson stopped here.</p>'
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if _still(output)]
    exporter = _Exporter(
        template_name="basic",
        filters={"highlight_code": _highlighted},
        config=Config(NbConvertBase={"display_data_priority": list(_SHOWN)}),
    )
    body, _resources = exporter.from_notebook_node(notebook)
    return body


def _mend_table(body: BeautifulSoup, table: Tag) -> None:
    """Let a wide table scroll in a frame of its own, say what its heads belong to, and drop a head without words."""
    del table["border"]
    for row in table.select("thead tr"):
        if not row.get_text(strip=True):
            row.extract()
    for head in table.select("th:not([scope])"):
        head["scope"] = "col" if head.find_parent("thead") else "row"
    table.wrap(body.new_tag("div", attrs={"class": "scroll"}))


def _embedded(address: str, source: Path) -> str:
    """A picture of the project as a data address; any other address as it is."""
    path = (source / address).resolve()
    if ":" in address or not path.is_relative_to(source.resolve().parent) or not path.is_file():
        return address
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _still(output: nbformat.NotebookNode) -> bool:
    """Make an output one that needs no kernel and no script; False where nothing is left to see."""
    data = output.get("data")
    if data is None:
        return True
    was_widget = data.pop(WIDGET, None) is not None
    data.pop("application/javascript", None)
    if "text/latex" in data and "text/html" not in data:
        tex = data.pop("text/latex").strip()
        data["text/html"] = _formula(tex.strip("$").removeprefix(r"\displaystyle"), block=True)
    shown = [kind for kind in data if kind in _SHOWN]
    return bool(shown) and not (was_widget and shown == ["text/plain"])


def _formula(tex: str, *, block: bool) -> str:
    try:
        return mathml(tex, block=block)
    except ValueError:
        return f'<code class="tex">{escape(tex)}</code>'
