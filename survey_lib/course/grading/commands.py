"""The commands for a class: the students' version of a lesson, a course for nbgrader, and grading."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command()
@click.argument("lesson")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("assignments"), show_default=True)
def assignment(lesson, out) -> None:
    """Make the students' version of a lesson for a class.

    It has no solutions, hidden tests or outputs, and does not replace a notebook with other cells.
    """
    from survey_lib.course.publishing import assignments

    click.echo(f"wrote {assignments.make(lesson, out)}")


@click.group("class")
def class_() -> None:
    """Lay out a course for a class."""


@class_.command("init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("lesson", nargs=-1)
def init(folder, lesson) -> None:
    """Lay out a course for nbgrader in FOLDER.

    It has the lessons asked for (all by default) as sources, and settings whose time-outs fit them.
    """
    from survey_lib.course.grading import courses

    names = courses.init(folder, lesson)
    click.echo(
        f"wrote {len(names)} assignments to {folder}; next: cd {folder}, nbgrader generate_assignment {names[0]}"
    )


@click.command()
@click.argument("submissions", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--seed-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("grading-secret"),
    show_default=True,
    help="A secret text, from which the problems are drawn; made if it is not there.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("grades.csv"), show_default=True)
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Answers at a time. Default: one for each core.")
@click.option("--timeout", type=click.IntRange(1), default=60, show_default=True, help="Seconds for an answer.")
@click.option("--memory", type=click.IntRange(64), default=2048, show_default=True, help="MiB for an answer.")
@click.option("--again", is_flag=True, help="Grade answers again that are in the table.")
def grade(submissions, seed_file, out, jobs, timeout, memory, again) -> None:
    """Grade a class.

    SUBMISSIONS holds a folder for each student with the notebooks that were handed in. Only the cells with answers are
    used. Each answer runs in a process of its own, without files, network and other processes where the system allows
    it, and what comes back is measured here on secret problems. A table, and a sheet for each student beside it, are
    written; an interrupted run goes on where it stopped.
    """
    from survey_lib.course import progress
    from survey_lib.course.grading import grade as grading
    from survey_lib.course.grading import sheets
    from survey_lib.course.grading import submissions as handed_in
    from survey_lib.course.grading.remote import Limits

    found = handed_in.find(submissions)
    planned = grading.plan(found, grading.secret_from(seed_file), Limits(timeout, memory * 2**20))
    if not planned:
        raise ValueError(f"no notebook in {submissions} has an answer to an exercise of this course")
    found = progress.run_grading(planned, out, workers=jobs or os.cpu_count() or 1, again=again)
    written = sheets.write(out.with_name(f"{out.stem}_sheets"), found)
    reached, of = sum(one.points for one in found), sum(one.of for one in found)
    students = f"{len(written)} student{'s' * (len(written) > 1)}"
    click.echo(f"{students}, {reached:g} of {of:g} points; {out}, and sheets in {written[0].parent}")
