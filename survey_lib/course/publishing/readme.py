"""Generated text: the tables of the README, and the list of claims."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import nbformat

from survey_lib.core.schedules import vp_linear
from survey_lib.course import claims
from survey_lib.course.claims import COMPARED, Ledger, Verdict, chance, counts, said
from survey_lib.course.publishing.notebooks import Lesson, all_lessons
from survey_lib.lab.evaluation.solvers import SOLVERS
from survey_lib.lab.experiments import store
from survey_lib.lab.runtime import HOME

_WORDS_A_MINUTE = 180
_SECONDS_A_CODE_CELL = 30

_CLAIMS = f"""\
Written by `survey tables` from the files in this folder and the results that come with the course. A claim is
what a source says, or our own.
{fill(COMPARED, 118)}

* *Reproduced*: the interval lies beyond the threshold. *Direction only*: it lies on the claimed side of 1, but the size
  that is asked for is not shown.
* *No difference*: it lies within the smallest effect worth the name, 3 % unless the claim states another.
* *Not reproduced here*: it lies on the other side of 1; of a claim "as good as", beyond the threshold.
* *Inconclusive*: none of these, or too few seeds.
* *Out of date*: the results are older than the code that made them; the interval and the verdict then are still shown.
* *One network each*: the claim compares trained networks, of which each side has one. The interval holds the chance of
  sampling, not that of training."""


def reading_minutes(notebook: nbformat.NotebookNode) -> int:
    """Minutes to read a lesson: its words at 180 a minute and half a minute a code cell, to the next five."""
    words = sum(len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown")
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    return max(5, 5 * round((words / _WORDS_A_MINUTE + cells * _SECONDS_A_CODE_CELL / 60) / 5))


def lesson_map(lessons: list[Lesson]) -> str:
    """The map of lessons as a Markdown table: what each is called, minutes to read and to run."""
    lines = ["| lesson | minutes to read | minutes to run (`cpu`) |", "|---|---:|---:|"]
    for lesson in lessons:
        ran = lesson.notebook.metadata.get("survey", {}).get("minutes")
        minutes = "?" if ran is None else f"{ran:.1f}"
        link = f"[{lesson.number} {lesson.title}](notebooks/{lesson.path.name})"
        lines.append(f"| {link} | {reading_minutes(lesson.notebook)} | {minutes} |")
    return "\n".join(lines)


def claims_table(verdicts: Sequence[Verdict]) -> str:
    """The counts of verdicts as a Markdown table, a row a lesson, and how many of them chance would turn."""
    counted = counts(verdicts)
    lines = [f"| {' | '.join(counted.header)} |", "|---|---:|---|"]
    lines += [f"| {' | '.join(row)} |" for row in counted.rows]
    return "\n".join([*lines, "", chance(verdicts)])


def claims_page(verdicts: Sequence[Verdict], lessons: list[Lesson]) -> str:
    """Every claim with its test and its verdicts as a Markdown page, a table a lesson."""
    titles = {lesson.number: f"{lesson.number} {lesson.title}" for lesson in lessons}
    parts = ["# Claims, our tests of them, and the verdicts", _CLAIMS, chance(verdicts)]
    for number in dict.fromkeys(one.claim.lesson for one in verdicts):
        parts.append(f"## {titles.get(number, number)}")
        lines = ["| claim | our test | verdict | a / b |", "|---|---|---|---|"]
        for claim, found in Ledger(tuple(one for one in verdicts if one.claim.lesson == number)).rows:
            words = "<br>".join(f"{one.dataset}: {one.words}" for one in found)
            measured = "<br>".join(one.measured for one in found)
            cells = (f"**{claim.name}**<br>{said(claim)}", f"`{claim.expect}`<br>{claim.selected}", words, measured)
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def solvers_table() -> str:
    """The solvers that are compared as a Markdown table: source, order, and the NFE of ten steps."""
    schedule, lines = vp_linear(), ["| sampler | source | order | NFE of 10 steps |", "|---|---|---:|---:|"]
    for solver in SOLVERS.values():
        order = "random" if solver.stochastic else "by tolerance" if solver.adaptive else str(solver.order)
        nfe = "by tolerance" if solver.adaptive else str(solver.nfe(schedule, solver.grid(10, schedule)))
        lines.append(f"| {solver.name} | {solver.source} | {order} | {nfe} |")
    return "\n".join(lines)


def speed_table() -> str:
    """The benchmarks on record as a Markdown table: ratios to the peer, their goals, device and date."""
    lines = ["| ours over the peer's | ratio | goal | on | date |", "|---|---|---|---|---|"]
    for row in store.load("bench", folder=store.shipped()).sort_values("what").to_dict("records"):
        span = f" ({row['low']:.2g} to {row['high']:.2g})" if row["low"] < row["high"] else ""
        goal = f"at most {row['goal']:.2g}{'' if row['ratio'] <= row['goal'] else ', missed'}"
        date = f"{row['date']}{', older than its code' if row['stale'] else ''}"
        cells = (row["what"], f"{row['ratio']:.2g}{span}", goal, row["device"], date)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def readme(text: str, lessons: list[Lesson], verdicts: Sequence[Verdict]) -> str:
    """The README's text with its tables generated again. Raises ValueError where their marks are missing."""
    tables = {"lessons": lesson_map(lessons), "claims": claims_table(verdicts)}
    tables |= {"samplers": solvers_table(), "speed": speed_table()}
    for what, table in tables.items():
        begin, end = f"<!-- {what}: begin (written by `survey tables`) -->", f"<!-- {what}: end -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"the README needs the two marks {begin} and {end}, once each")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"
    return text


def generated(home: Path = HOME) -> dict[Path, str]:
    """The files of generated text as they should be: the README and the list of claims, by the shipped results."""
    lessons, verdicts = all_lessons(home), claims.verdicts(shipped=True)
    page = home / "README.md"
    return {
        page: readme(page.read_text(), lessons, verdicts),
        home / "data" / "claims" / "README.md": claims_page(verdicts, lessons),
    }
