"""The index page: the course in the survey's structure, with a picture, a sentence and the last run of each lesson."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import nbformat
from PIL import Image

from survey_lib.course.publishing import layout, notebooks
from survey_lib.course.publishing.layout import Verdicts
from survey_lib.course.publishing.runner import Outcome
from survey_lib.course.publishing.structure import PARTS, Part
from survey_lib.lab.runtime import HOME

#: The tag of the cell whose first picture stands for its lesson.
COVER = "cover"
_COVER_WIDTH = 720  # pixels, twice what a card shows


@dataclass(frozen=True)
class Entry:
    """A lesson on the index page: run, or only there to be run, or (without a name) to come."""

    number: str
    title: str
    name: str = ""
    summary: str = ""
    cover: bytes = b""  # PNG
    alt: str = ""
    outcome: Outcome | None = None


def entries(outcomes: Sequence[Outcome], destination: Path, home: Path = HOME) -> list[Entry]:
    """List every lesson: those that ran into ``destination``, the others of ``home``, and those to come."""
    ran = {outcome.lesson: outcome for outcome in outcomes}
    sources = {path.stem: path for path in sorted((home / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
    found = []
    for name in sorted(sources | ran):
        executed = destination / "notebooks" / f"{name}.ipynb"
        notebook = notebooks.read(executed if name in ran and executed.exists() else sources[name])
        title = ran[name].title if name in ran else notebooks.title(notebook)
        picture, alt = cover(notebook)
        found.append(Entry(name[:2], title or name, name, notebooks.summary(notebook), picture, alt, ran.get(name)))
    planned = {number: title for part in PARTS for number, title in part.planned.items()}
    there = {entry.number for entry in found}
    found += [Entry(number, title) for number, title in planned.items() if number not in there]
    return sorted(found, key=lambda entry: (entry.number, entry.name))


def cover(notebook: nbformat.NotebookNode) -> tuple[bytes, str]:
    """The picture of a lesson as a small PNG, and its alt text: of the cell tagged "cover", else the first there is."""
    cells = sorted(notebook.cells, key=lambda cell: COVER not in cell.metadata.get("tags", ()))
    for cell in cells:
        for output in cell.get("outputs", ()):
            if (data := output.get("data", {}).get("image/png")) is not None:
                alt = output.metadata.get("image/png", {}).get("alt", "")
                return _small(base64.b64decode(data)), alt
    return b"", ""


def page(lessons: Sequence[Entry], verdicts: Verdicts, home: Path = HOME) -> str:
    """The index page.

    lessons   : from `entries`
    verdicts  : from `layout.verdicts`
    home      : the project, whose ``figures/overview.png`` heads the page
    """
    others = Part("", "More lessons", "", {})
    digits = {part.digit for part in PARTS}
    grouped = [(part, [one for one in lessons if one.number[0] == part.digit]) for part in PARTS]
    grouped.append((others, [one for one in lessons if one.number[0] not in digits]))
    sections = "".join(_section(part, own, verdicts) for part, own in grouped if own)
    return layout.page(
        f"{layout.COURSE}: the course",
        f'<main class="index" id="text" tabindex="-1"><header class="hero"><div><h1>{layout.COURSE}</h1>'
        f"<p>{_told(lessons, verdicts)}</p></div>{_overview(home)}</header>{sections}"
        "<footer><p>Read a page here, or solve a lesson: <code>survey lab 01</code> opens it in JupyterLab without "
        "the solutions, <code>survey lab 01 --solved</code> with them.</p></footer></main>",
    )


def summary(outcomes: Sequence[Outcome], verdicts: Verdicts) -> str:
    """A table of plain text: minutes, checks and counts of verdicts of each lesson, and the failures below it."""
    header = ("lesson", "minutes", "checks passed", "claims")
    rows = [(one.lesson, f"{one.minutes:.1f}", _checks(one), verdicts.lessons.get(one.number, "-")) for one in outcomes]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(3)]
    lines = [
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip()
        for row in (header, *rows)
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines + [f"\n{one.lesson} failed at {one.error}" for one in outcomes if one.error])


def _told(lessons: Sequence[Entry], verdicts: Verdicts) -> str:
    ran = [one.outcome for one in lessons if one.outcome is not None]
    minutes, failed = sum(one.minutes for one in ran), sum(not one.passed for one in ran)
    how = f"{failed} of them failed" if failed else "all of them passed"
    return (
        'The survey <a href="https://arxiv.org/abs/2210.09292">arXiv 2210.09292</a> as a course that runs. '
        f"{len(ran)} of {len(lessons)} lessons ran here in {minutes:.1f} minutes; {how}."
        + (f" Claims so far: {escape(verdicts.course)}." if verdicts.course else "")
    )


def _overview(home: Path) -> str:
    picture = home / "figures" / "overview.png"
    if not picture.is_file():
        return ""
    alt = "The same two noises, walked to pictures by three samplers: with few evaluations a blur, with more a digit."
    about = "Two noises, three samplers, one small network; above each column the evaluations spent."
    return f"<figure>{_image(picture.read_bytes(), alt)}<figcaption>{about}</figcaption></figure>"


def _section(part: Part, lessons: Sequence[Entry], verdicts: Verdicts) -> str:
    there = "".join(_card(one, verdicts.lessons.get(one.number, "")) for one in lessons if one.name)
    coming = "".join(f"<li><b>{one.number}</b> {escape(one.title)}</li>" for one in lessons if not one.name)
    about = f"<p>{escape(part.about)}</p>" if part.about else ""
    return (
        f"<section><h2>{escape(part.name)}</h2>{about}"
        + (f'<ul class="cards">{there}</ul>' if there else "")
        + (f'<div class="coming"><h3>To come</h3><ul>{coming}</ul></div>' if coming else "")
        + "</section>"
    )


def _card(entry: Entry, claims: str) -> str:
    picture = f'<div class="cover">{_image(entry.cover, entry.alt)}</div>' if entry.cover else ""
    title = f"<b>{entry.number}</b> {escape(entry.title)}"
    if (ran := entry.outcome) is None:
        how = f"not run here: <code>survey run {entry.number}</code>"
    else:
        title = f'<a href="{entry.name}.html">{title}</a>'
        how = " · ".join(filter(None, (f"{ran.minutes:.1f} min", f"checks: {_checks(ran)}", escape(claims))))
    words = f"<p>{escape(entry.summary)}</p>" if entry.summary else ""
    state = ran.status if ran else "waiting"
    return f'<li class="card {state}">{picture}<h3>{title}</h3>{words}<p class="how">{how}</p></li>'


def _image(data: bytes, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def _small(data: bytes) -> bytes:
    """A PNG no wider than a card needs, in 256 colours."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image.thumbnail((_COVER_WIDTH, _COVER_WIDTH))
    buffer = io.BytesIO()
    image.quantize(256).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _checks(outcome: Outcome) -> str:
    counted = f"{outcome.checks_passed} of {outcome.checks}"
    return counted if outcome.passed else f"failed, {counted}"
