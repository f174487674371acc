"""The outputs that are committed with a lesson, and the README's tables: the map of lessons, and the claims.

A lesson is executed with the profile ``cpu`` and its defaults; what changes from run to run without meaning
(times, widget state, papermill's notes) is taken out, and the hash of the sources is put in: a test then
knows outputs that no longer belong to their cells.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import nbformat

from survey_lib.course.publishing.notebooks import Lesson, source_hash
from survey_lib.course.publishing.runner import Outcome
from survey_lib.lab.runtime import write_atomically

if TYPE_CHECKING:
    from survey_lib.course.claims import Ledger

WORDS_A_MINUTE = 180
SECONDS_A_CODE_CELL = 30

#: The type of a live widget, which a reader without a kernel cannot use.
WIDGET = "application/vnd.jupyter.widget-view+json"


def adopt(lesson: Lesson, executed: nbformat.NotebookNode, outcome: Outcome) -> None:
    """Give ``lesson``'s file the outputs of ``executed``; refused for a run that failed or of other sources."""
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
            own.outputs, own.execution_count = still(ran.outputs), count
    fresh.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "survey": {"minutes": round(outcome.minutes, 1), "source_sha256": source_hash(lesson.notebook)},
    }
    write_atomically(lesson.path, (nbformat.writes(nbformat.from_dict(fresh)).rstrip("\n") + "\n").encode())


def still(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Outputs as a reader without a kernel sees them: no widget where a picture stands in, no progress bars."""
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


def verdicts_table(ledger: Ledger) -> str:
    """How often each verdict was reached, a line a lesson, as a Markdown table; and every claim behind a fold."""
    counts = ledger.counts
    lines = [f"| {' | '.join(counts.header)} |", f"|{'---|' * len(counts.header)}"]
    lines += [f"| {' | '.join(row)} |" for row in counts.rows]
    fold = f"<details><summary>Every claim, with what was measured</summary>\n\n{claims_table(ledger)}\n\n</details>"
    return "\n".join([*lines, "", fold])


def claims_table(ledger: Ledger) -> str:
    """The claims as a Markdown table: lesson, sentence, and the verdict with what was measured, a line a data set."""
    lines = ["| | what is claimed | verdict | measured |", "|---|---|---|---|"]
    for claim, found in ledger.by_claim():
        verdicts = "<br>".join(f"{one.dataset}: {one.verdict}" for one in found)
        measured = "<br>".join(one.reason for one in found)
        cells = (claim.lesson, f"{claim.sentence} ({claim.says})", verdicts, measured)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def readme(text: str, lessons: list[Lesson], ledger: Ledger) -> str:
    """The README's text with its generated tables anew. Raises ValueError where their marks are missing."""
    for what, table in (("lessons", lesson_map(lessons)), ("claims", verdicts_table(ledger))):
        begin, end = f"<!-- {what}: begin (written by `survey outputs`) -->", f"<!-- {what}: end -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"the README needs the two marks {begin} and {end}, once each")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"
    return text


def _pictures(output: nbformat.NotebookNode) -> bool:
    return any(kind.startswith("image/") or kind == "text/html" for kind in output.get("data", {}))
