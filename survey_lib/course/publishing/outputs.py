"""Outputs that are committed with a lesson, and generated text: the tables of the README, and the list of claims.

A lesson is executed with the profile ``cpu`` and its defaults; what changes from run to run without meaning
(times, widget state, papermill's notes) is taken out, and the hash of the sources is put in: a test then
knows outputs that no longer belong to their cells.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import nbformat

from survey_lib.course import claims
from survey_lib.course.claims import Ledger, Verdict, chance, counts, said
from survey_lib.course.publishing.notebooks import Lesson, all_lessons, source_hash
from survey_lib.course.publishing.runner import Outcome
from survey_lib.lab.runtime import HOME, write_atomically

WORDS_A_MINUTE = 180
SECONDS_A_CODE_CELL = 30

CLAIMS_INTRODUCTION = """\
Written by `survey claims --write` from the files in this folder and the results that come with the course. A claim is
what a source says, or our own; the test of it and its threshold are ours. A test compares a with b: a / b is the
geometric mean of their ratio over seeds, with its 95 % interval (Student's t, paired by seed; three seeds unless
another number is given).

* *Reproduced*: the interval lies beyond the threshold. *Direction only*: it lies on the claimed side of 1, but the size
  that is asked for is not shown.
* *No difference*: it lies within the smallest effect worth the name, 3 % unless the claim states another.
* *Not reproduced here*: it lies on the other side of 1; of a claim "as good as", beyond the threshold.
* *Inconclusive*: none of these, or too few seeds.
* *Out of date*: the results are older than the code that made them; the interval and the verdict then are still shown.
* *One network each*: the claim compares trained networks, of which each side has one. The interval holds the chance of
  sampling, not that of training."""

#: The type of a live widget, which a reader without a kernel cannot use.
WIDGET = "application/vnd.jupyter.widget-view+json"


def commit_outputs(lesson: Lesson, executed: nbformat.NotebookNode, outcome: Outcome) -> None:
    """Write the outputs of a run into the file of its lesson, without what changes from run to run.

    Raises ValueError for a run that failed, and for one of other cells than the lesson has.
    """
    if not outcome.passed:
        raise ValueError(f"{lesson.name} failed, so its outputs stay as they were: {outcome.error}")
    if executed.metadata["survey"]["source_sha256"] != source_hash(lesson.notebook):
        raise ValueError(f"{lesson.name} was changed while it ran; run it again")
    cells = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", ())]
    fresh = nbformat.from_dict(lesson.notebook)
    count = 0
    for own, ran in zip(fresh.cells, cells, strict=True):
        own.metadata.pop("papermill", None)
        own.metadata.pop("execution", None)
        if own.cell_type == "code":
            count += 1
            own.outputs, own.execution_count = strip_outputs(ran.outputs), count
    fresh.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "survey": {"minutes": round(outcome.minutes, 1), "source_sha256": source_hash(lesson.notebook)},
    }
    write_atomically(lesson.path, (nbformat.writes(nbformat.from_dict(fresh)).rstrip("\n") + "\n").encode())


def strip_outputs(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Return outputs for readers without a kernel: no widget where something static stands in, no progress bars."""
    pictured = any(_pictures(output) for output in outputs)
    kept = []
    for output in outputs:
        output = nbformat.from_dict(output)
        data, was_widget = output.get("data", {}), False
        if WIDGET in data and (pictured or _pictures(output)):
            was_widget = data.pop(WIDGET) is not None
        if was_widget and not _pictures(output):
            continue  # only the widget's name is left
        if output.output_type == "stream":
            output.text = re.sub(r"[^\n]*\r", "", output.text)  # what a carriage return wrote over
            if output.name == "stderr" and "%|" in output.text:
                continue
        if "execution_count" in output:
            output.execution_count = None
        kept.append(output)
    return kept


def reading_minutes(notebook: nbformat.NotebookNode) -> int:
    """Minutes to read a lesson: its words at 180 a minute and half a minute a code cell, to the next five."""
    words = sum(len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown")
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    return max(5, 5 * round((words / WORDS_A_MINUTE + cells * SECONDS_A_CODE_CELL / 60) / 5))


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
    parts = ["# Claims, our tests of them, and the verdicts", CLAIMS_INTRODUCTION, chance(verdicts)]
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


def readme(text: str, lessons: list[Lesson], verdicts: Sequence[Verdict]) -> str:
    """The README's text with its tables generated again. Raises ValueError where their marks are missing."""
    for what, table in (("lessons", lesson_map(lessons)), ("claims", claims_table(verdicts))):
        begin, end = f"<!-- {what}: begin (written by `survey outputs`) -->", f"<!-- {what}: end -->"
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


def _pictures(output: nbformat.NotebookNode) -> bool:
    return any(kind.startswith("image/") or kind == "text/html" for kind in output.get("data", {}))
