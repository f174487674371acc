"""Progress bars of the command line, over the cells of lessons, the runs of a sweep, and the answers of a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from survey_lib.course.grading.grade import Grade, Job
    from survey_lib.course.publishing.notebooks import Lesson
    from survey_lib.course.publishing.runner import Outcome
    from survey_lib.course.sweeps.sweep import Result, Sweep

LESSON_BAR = "{percentage:3.0f}%|{bar:24}| {desc}"
GRADING_BAR = "{percentage:3.0f}%|{bar:24}| {n_fmt} of {total_fmt} answers, {elapsed} so far, {remaining} left"
SWEEP_BAR = "{percentage:3.0f}%|{bar:24}| {n_fmt} of {total_fmt} runs, {elapsed} so far, {desc} left"


def run_sweep(planned: Sweep, out: Path, options: dict[str, Any]) -> list[Result]:
    """Do what is left of a sweep under a progress bar with the time that remains."""
    from time import monotonic

    from tqdm import tqdm

    from survey_lib.course.sweeps import sweep

    total, began = len(planned.runs), monotonic()
    left, done, ends = total, 0, None
    with tqdm(total=total, disable=None, leave=False, bar_format=SWEEP_BAR, desc="?") as bar:

        def on_start(before, remain) -> None:
            nonlocal left
            left, bar.n = remain, len(before)
            bar.clear()
            click.echo(
                f"{planned.lesson.name}: {total} run{'s' * (total > 1)}, {len(before)} finished before, {remain} left"
            )

        def on_done(result) -> None:
            nonlocal done, ends
            bar.clear()
            click.echo(f"{result.label}: {'failed' if result.error else 'passed'} after {result.minutes:.1f} min")
            bar.update()
            done, now = done + 1, monotonic()
            ends = now + (now - began) / done * (left - done)

        def on_tick() -> None:
            if ends is not None:
                bar.set_description_str(tqdm.format_interval(max(0, ends - monotonic())), refresh=False)
            bar.refresh()

        return sweep.run(planned, out, **options, on_start=on_start, on_done=on_done, on_tick=on_tick)


def run_lessons(chosen: Sequence[Lesson], given: Mapping[str, Any], out: Path, timeout: int | None) -> list[Outcome]:
    """Run lessons under a progress bar that names lesson and section; pages and summary at the end."""
    from tqdm import tqdm

    from survey_lib.course.publishing import index, layout, pages, runner

    done, total = 0, sum(len(lesson.notebook.cells) for lesson in chosen)
    bar = tqdm(total=total, unit="cell", disable=None, leave=False, bar_format=LESSON_BAR)

    def on_cell(lesson, at, cells, heading) -> None:
        bar.n = done + at
        bar.set_description_str(f"{lesson.name}, cell {at + 1} of {cells}: {heading}"[:90])

    def on_done(outcome) -> None:
        nonlocal done
        done += len(next(lesson for lesson in chosen if lesson.name == outcome.lesson).notebook.cells)
        bar.clear()
        click.echo(f"{outcome.lesson} {outcome.status} after {outcome.minutes:.1f} min")
        pages.write(out)

    with bar:
        outcomes = runner.run(chosen, given, out, on_cell=on_cell, on_done=on_done, cell_seconds=timeout)
    click.echo(f"\n{index.summary(outcomes, layout.verdicts())}\n\nRead them: {pages.write(out)}")
    return outcomes


def run_grading(jobs: Sequence[Job], out: Path, *, workers: int, again: bool) -> list[Grade]:
    """Grade the answers of a class under a progress bar; a warning, once, of limits that are not in force here."""
    from tqdm import tqdm

    from survey_lib.course.grading import grade

    warned: set[str] = set()
    with tqdm(total=len(jobs), disable=None, leave=False, bar_format=GRADING_BAR) as bar:

        def on_start(left: int) -> None:
            bar.n = len(jobs) - left
            bar.clear()
            click.echo(f"{len(jobs)} answers, {len(jobs) - left} graded before, {left} left")

        def on_done(one: Grade, missing: list[str]) -> None:
            for limit in set(missing) - warned:
                bar.clear()
                click.echo(f"warning: this system cannot keep answers from {limit}; grade in a container", err=True)
            warned.update(missing)
            bar.update()

        return grade.grade(jobs, out, workers=workers, again=again, on_start=on_start, on_done=on_done)
