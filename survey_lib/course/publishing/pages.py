"""Executed lessons as pages that need no network: formulas in MathML, pictures inside, no script at all."""

from __future__ import annotations

import base64
import copy
import mimetypes
import re
from collections import Counter
from html import escape
from importlib import resources
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from jinja2 import pass_context
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from survey_lib.course.publishing.mathml import mathml
from survey_lib.course.publishing.notebooks import read
from survey_lib.course.publishing.outputs import WIDGET
from survey_lib.course.publishing.runner import Outcome, read_outcomes
from survey_lib.lab.runtime import HOME, write_atomically

_SHOWN = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/latex", "text/plain")


def write(destination: Path, source: Path = HOME / "notebooks") -> Path:
    """Write a page for each lesson under ``destination``, and the index; return the index.

    A page is made anew where its notebook is newer, or its neighbours changed. Pictures that a lesson's prose
    shows are looked for from the folder ``source``.
    """
    outcomes = read_outcomes(destination)
    for at, outcome in enumerate(outcomes):
        neighbours = (outcomes[at - 1] if at else None, outcomes[at + 1] if at + 1 < len(outcomes) else None)
        notebook, page = destination / "notebooks" / f"{outcome.lesson}.ipynb", destination / f"{outcome.lesson}.html"
        fresh = page.exists() and page.stat().st_mtime >= notebook.stat().st_mtime
        if not (fresh and _bar(*neighbours) in page.read_text()):
            write_atomically(page, lesson_page(read(notebook), outcome, neighbours, source).encode())
    index = destination / "index.html"
    write_atomically(index, index_page(outcomes).encode())
    return index


def lesson_page(
    notebook: nbformat.NotebookNode,
    outcome: Outcome,
    neighbours: tuple[Outcome | None, Outcome | None] = (None, None),
    source: Path = HOME / "notebooks",
) -> str:
    """One executed lesson as a page, between the lesson before and the lesson after it."""
    body = BeautifulSoup(_body(notebook), "html.parser")
    for link in body.select('a[href$=".ipynb"], a[href*=".ipynb#"]'):
        link["href"] = re.sub(r"^(?:\./)?(\d\d_\w+)\.ipynb", r"\1.html", link["href"])
    for image in body.select("img[src]"):
        image["src"] = _embedded(image["src"], source)
    for table in body.select("table[border]"):
        del table["border"]
    entries = [(heading.get("id"), heading.get_text().rstrip("¶")) for heading in body.select("h2[id]")]
    if (first := body.find("h1")) is not None:
        first.insert_after(BeautifulSoup(_run_card(outcome), "html.parser"))
    if body.find(id="failed") is not None:
        entries.append(("failed", "Where it stopped"))
    contents = "".join(f'<li><a href="#{escape(anchor)}">{escape(text)}</a></li>' for anchor, text in entries)
    return _page(
        outcome.title,
        f"{_bar(*neighbours)}<div class='layout with-toc'>"
        f"<nav class='toc' aria-label='Contents'><ol>{contents}</ol></nav>"
        f"<main>{body}{_foot(outcome, *neighbours)}</main></div>",
    )


def index_page(outcomes: list[Outcome]) -> str:
    """The table of what was run: lesson, minutes, checks, claims with verdicts."""
    rows = "".join(_row(outcome) for outcome in outcomes)
    minutes = sum(outcome.minutes for outcome in outcomes)
    failed = sum(not outcome.passed for outcome in outcomes)
    verdict = f"{failed} of {len(outcomes)} failed" if failed else "all of them passed"
    return _page(
        "Efficient diffusion models for vision: the course",
        f"{_bar(None, None)}<div class='layout'><main><h1>Efficient diffusion models for vision</h1>"
        f"<p>The survey (arXiv 2210.09292) as a course that runs. These are the lessons as they ran here: "
        f"{len(outcomes)} in {minutes:.1f} minutes, {verdict}.</p>"
        "<table class='wide'><thead><tr><th></th><th>Lesson</th><th class='number'>Minutes</th>"
        f"<th class='number'>Checks passed</th><th>Claims</th></tr></thead><tbody>{rows}</tbody></table>"
        "<p>Read a page here, or open its notebook with <code>make lab</code> and change something.</p></main></div>",
    )


def summary(outcomes: list[Outcome]) -> str:
    """The same table as plain text, of the claims only how many came out how."""
    header = ("lesson", "minutes", "checks passed", "claims")
    rows = [(one.lesson, f"{one.minutes:.1f}", _checks(one), _claims_in_words(one)) for one in outcomes]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(3)]
    lines = [
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip()
        for row in (header, *rows)
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines + [f"\n{one.lesson} failed at {one.error}" for one in outcomes if one.error])


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


def _body(notebook: nbformat.NotebookNode) -> str:
    notebook = copy.deepcopy(notebook)
    notebook.metadata.pop("widgets", None)
    marks = [cell for cell in notebook.cells if "papermill-error-cell-tag" in cell.metadata.get("tags", ())]
    for cell in marks[:-1]:  # papermill's large red banner: the card below the title tells more
        notebook.cells.remove(cell)
    for cell in marks[-1:]:
        cell.source = '<p id="failed">The lesson stopped here.</p>'
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if _still(output)]
    exporter = _Exporter(template_name="basic", config=Config(NbConvertBase={"display_data_priority": list(_SHOWN)}))
    body, _resources = exporter.from_notebook_node(notebook)
    return body


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


def _page(title: str, body: str) -> str:
    style = resources.files(__package__).joinpath("page.css").read_text()
    colours = HtmlFormatter(style="friendly").get_style_defs(".highlight")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,">'
        f"<style>\n{colours}\n{style}\n</style></head>\n<body>{body}</body></html>\n"
    )


def _bar(before: Outcome | None, after: Outcome | None) -> str:
    return (
        '<nav class="bar"><a class="home" href="index.html">Efficient diffusion models for vision</a>'
        f'<span class="steps">{_step(before, "← {}")}{_step(after, "{} →")}</span></nav>'
    )


def _foot(outcome: Outcome, before: Outcome | None, after: Outcome | None) -> str:
    own = f'<a href="notebooks/{outcome.lesson}.ipynb">this page as a notebook</a>'
    return f"<footer><span>{_step(before, '← {}')}</span>{own}<span>{_step(after, '{} →')}</span></footer>"


def _step(outcome: Outcome | None, form: str) -> str:
    return f'<a href="{outcome.lesson}.html">{escape(form.format(outcome.title))}</a>' if outcome else ""


def _run_card(outcome: Outcome) -> str:
    parameters = ", ".join(f"{name} {value}" for name, value in outcome.parameters.items())
    state = "Ran to its end" if outcome.passed else "Failed"
    error = f"<br>{escape(outcome.error)}" if outcome.error else ""
    claims = "".join(f"<li>{escape(claim)}: <b>{escape(verdict)}</b></li>" for claim, verdict in outcome.claims)
    return (
        f'<aside class="run {outcome.status}"><b>{state}</b> in {outcome.minutes:.1f} min · '
        f"{outcome.checks_passed} of {outcome.checks} checks passed · {escape(parameters)}{error}"
        f"<ul>{claims}</ul></aside>"
    )


def _row(outcome: Outcome) -> str:
    claims = "<br>".join(f"{escape(claim)}: <b>{escape(verdict)}</b>" for claim, verdict in outcome.claims)
    return (
        f'<tr class="{outcome.status}"><td>{outcome.lesson[:2]}</td><td><a href="{outcome.lesson}.html">'
        f'{escape(outcome.title)}</a></td><td class="number">{outcome.minutes:.1f}</td>'
        f'<td class="number">{_checks(outcome)}</td><td>{claims or "none"}</td></tr>'
    )


def _checks(outcome: Outcome) -> str:
    counted = f"{outcome.checks_passed} of {outcome.checks}"
    return counted if outcome.passed else f"failed, {counted}"


def _claims_in_words(outcome: Outcome) -> str:
    counts = Counter(verdict for _, verdict in outcome.claims)
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()) or "-"
