"""Outputs that are committed with a lesson.

A lesson is executed with the profile ``cpu`` and its defaults; what changes from run to run without meaning
(times, widget state, papermill's notes) is taken out, and the hash of the sources is put in: a test then
knows outputs that no longer belong to their cells.
"""

from __future__ import annotations

import re

import nbformat

from survey_lib.course.publishing.notebooks import Lesson, source_hash
from survey_lib.course.publishing.runner import Outcome
from survey_lib.lab.runtime import write_atomically

#: The type of a live widget, which a reader without a kernel cannot use.
WIDGET = "application/vnd.jupyter.widget-view+json"
_BAR = "%|"  # in every progress bar of tqdm, as text or beside its widget


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
        if WIDGET in data and _BAR in data.get("text/plain", ""):
            continue
        if WIDGET in data and (pictured or _pictures(output)):
            was_widget = data.pop(WIDGET) is not None
        if was_widget and not _pictures(output):
            continue  # only the widget's name is left
        if output.output_type == "stream":
            output.text = re.sub(r"[^\n]*\r", "", output.text)  # what a carriage return wrote over
            if output.name == "stderr" and _BAR in output.text:
                continue
        if "execution_count" in output:
            output.execution_count = None
        kept.append(output)
    return kept


def _pictures(output: nbformat.NotebookNode) -> bool:
    return any(kind.startswith("image/") or kind == "text/html" for kind in output.get("data", {}))
