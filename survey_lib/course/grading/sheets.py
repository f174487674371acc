"""A sheet for each student: what every answer is worth, and why."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from survey_lib.course import exercises
from survey_lib.course.grading.grade import STATUSES, Grade
from survey_lib.lab.runtime import write_atomically

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid #8886;
  overflow-wrap: anywhere }}
.points {{ white-space: nowrap }}
</style></head><body>
<h1>{title}</h1>
<p>{points:g} of {of:g} points.</p>
<table><thead><tr><th scope="col">exercise</th><th scope="col">points</th>
<th scope="col">what was found</th></tr></thead>
<tbody>{rows}</tbody></table>
</body></html>
"""


def write(folder: Path, grades: Sequence[Grade]) -> list[Path]:
    """Write a sheet for each student into a folder; their paths, in the order of names."""
    paths = []
    for student, rows in groupby(sorted(grades, key=lambda one: one.student), key=lambda one: one.student):
        path = folder / f"{student}.html"
        write_atomically(path, page(student, list(rows)).encode())
        paths.append(path)
    return paths


def page(student: str, grades: Sequence[Grade]) -> str:
    """The sheet of one student, in HTML."""
    rows = "".join(map(_row, sorted(grades, key=lambda one: one.exercise)))
    points, of = sum(one.points for one in grades), sum(one.of for one in grades)
    return _PAGE.format(title=escape(student), points=points, of=of, rows=rows)


def _row(one: Grade) -> str:
    title = exercises.get(one.exercise).title
    held = f"; {one.held} of {one.properties} properties hold" if one.status == "wrong" else ""
    mistake = f"<br>A known mistake: <b>{escape(one.mistake)}</b>" if one.mistake else ""
    told = f"<br><small>{escape(one.message)}</small>" if one.message not in ("", STATUSES[one.status]) else ""
    return (
        f'<tr><th scope="row">{one.exercise} {escape(title)}</th><td class="points">{one.points:g} of {one.of:g}</td>'
        f"<td>{STATUSES[one.status]}{held}{mistake}{told}<br><small>{one.seconds:.1f} seconds</small></td></tr>"
    )
