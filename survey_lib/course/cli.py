"""The ``survey`` command line. Slow modules are imported by the commands that need them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from survey_lib import __version__
from survey_lib.course import progress
from survey_lib.course.grading import commands
from survey_lib.lab.runtime import HOME, PROFILES, write_atomically


class _OneSentence(click.Group):
    """Commands whose errors are one sentence, without a traceback unless SURVEY_TRACEBACK=1."""

    def invoke(self, context: click.Context):
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            click.echo("\nStopped. What was finished is kept, and nothing half-written is left to be read.", err=True)
            context.exit(130)
        except (ValueError, TypeError, OSError, RuntimeError, ImportError, ArithmeticError) as error:
            if isinstance(error, click.exceptions.Exit | BrokenPipeError) or os.environ.get("SURVEY_TRACEBACK"):
                raise
            raise click.ClickException(_sentence(error)) from error


@click.group(cls=_OneSentence, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="survey")
def main() -> None:
    """Efficient diffusion models for vision: a course that runs.

    \b
    survey lessons                              list the lessons
    survey lab 01                               solve lesson 01 in JupyterLab
    survey lab 01 --solved                      open it with its solutions
    survey run 01 --profile smoke               run it here, without a browser
    survey run 01 -p dataset mnist -p seed 3    with other parameters
    survey run                                  run all lessons; pages and summary in build/index.html
    survey sweep data/sweeps/02_seeds.yml       run a lesson over a grid of parameters
    """


@main.command()
@click.argument("lesson", nargs=-1)
@click.option(
    "-p", "--parameter", "pairs", type=(str, str), multiple=True, metavar="NAME VALUE", help="Set a parameter."
)
@click.option("--profile", metavar="|".join(("auto", *PROFILES)), help="How much to compute (short for -p profile).")
@click.option("--dataset", metavar="NAME", help="Which images: glyphs, mnist, … (short for -p dataset).")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=HOME / "build", help="Default: build/."
)
@click.option("--timeout", type=click.IntRange(1), metavar="SECONDS", help="The longest a single cell may take.")
def run(lesson, pairs, profile, dataset, out, timeout) -> None:
    """Run lessons (all by default) and make their pages.

    LESSON is a number or a name. A lesson that fails does not stop the others: its notebook is kept with the traceback,
    and the exit code is 1.
    """
    from survey_lib.course.publishing import notebooks

    chosen = notebooks.select(lesson)
    given = _given(chosen, pairs, profile=profile, dataset=dataset)
    outcomes = progress.run_lessons(chosen, given, out, timeout)
    sys.exit(any(not outcome.passed for outcome in outcomes))


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Runs at a time. Default: one for each core.")
@click.option("--scheduler", metavar="tcp://HOST:PORT", help="Run on this dask cluster, on the same file system.")
@click.option("--again", is_flag=True, help="Do finished runs again.")
@click.option("--shipped", is_flag=True, help="For authors: renew the results that come with the course.")
@click.option(
    "--timeout", type=click.IntRange(1), metavar="SECONDS", help="The longest a cell may take. Default: half a day."
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=HOME / "build", help="Default: build/."
)
def sweep(file, jobs, scheduler, again, shipped, timeout, out) -> None:
    """Run a lesson over a grid of parameters.

    FILE is YAML: the lesson, parameters for all runs, and a grid of which every combination is a run (see data/sweeps).
    Finished runs are skipped, so an interrupted sweep can be resumed. A run that fails does not stop the others; it is
    listed with its notebook, and the exit code is 1.
    """
    from survey_lib.course.sweeps import sweep
    from survey_lib.lab.experiments import store

    planned = sweep.read(file)
    where = out.absolute() / "results" if shipped else store.destination()
    options = {"jobs": jobs, "scheduler": scheduler, "again": again, "folder": where}
    options |= {"cell_seconds": timeout} if timeout else {}
    found = progress.run_sweep(planned, out, options)
    if shipped:
        store.ship(where)
    failed = [one for one in found if one.error]
    kept = _near(store.shipped() if shipped else where)
    click.echo(f"\n{len(found) - len(failed)} of {len(found)} runs passed; their results are in {kept}")
    for one in failed:
        where = f"\n    {_near(one.notebook)}" if one.notebook.exists() else ""
        click.echo(f"failed: {one.label}: {one.error}{where}")
    sys.exit(bool(failed))


@main.command("lessons")
def list_lessons() -> None:
    """List the lessons, their parameters and data sets."""
    from survey_lib.course.publishing import notebooks

    for lesson in notebooks.all_lessons():
        click.secho(f"{lesson.number}  {lesson.title}", bold=True)
        click.echo(f"    {', '.join(f'{name} = {value!r}' for name, value in lesson.parameters.items())}")
        click.echo(f"    data sets: {', '.join(lesson.datasets)}")


@main.command()
@click.argument("lesson", required=False)
@click.option("--solved", is_flag=True, help="Open the lesson itself, with its solutions.")
@click.option("--fresh", is_flag=True, help="Begin your copy again; the old one is kept beside it as .bak.")
def lab(lesson, solved, fresh) -> None:
    """Open a lesson in JupyterLab to solve it (the first by default).

    This opens your own copy without solutions, in lab/. Your work there is never lost.
    """
    from survey_lib.course.publishing import notebooks, workbooks

    if solved and fresh:
        raise click.UsageError("--fresh is about your copy, which --solved leaves alone; give one of them")
    chosen = notebooks.select([lesson] if lesson else [])[0]
    path = chosen.path
    if not solved:
        path, told = workbooks.prepare(chosen, chosen.path.parents[1] / "lab", fresh=fresh)
        click.echo(told)
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", str(path)])


@main.command()
@click.argument("name", nargs=-1)
@click.option("--dataset", metavar="FOLDER", help="A folder of images, which gets the name before the role.")
@click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda, or one GPU as in cuda:1.")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Take N steps in place of the recipe's.")
def train(name, dataset, device, steps) -> None:
    """Train the networks of the course, or networks for your own images.

    NAME is a data set and a role, as in glyphs_base; without NAME, the names are listed. With pets_base and a FOLDER,
    the folder is called pets from then on. An interrupted training resumes. For a data set whose networks come with the
    course, --steps makes a trial in a folder of its own under build/checkpoints, and no lesson reads it.
    """
    from survey_lib.lab.training import recipes

    if not name:
        click.echo("\n".join(recipes.names()))
    for one in name:
        data, _ = recipes.adopt(one, dataset) if dataset else recipes.split(one)
        trial = steps is not None and data in recipes.SHIPPED
        path = recipes.train(one, device=device, steps=steps, root=None if trial else recipes.home(data))
        click.echo(f"saved {_near(path)}" + (", a trial: lessons go on using data/checkpoints" if trial else ""))


@main.command()
@click.argument("experiment", required=False)
@click.option("--dataset", metavar="NAME", help="On this data set alone.")
def results(experiment, dataset) -> None:
    """Show results, and how many are older than their code.

    All experiments, the experiments of a lesson (10), or one EXPERIMENT (10.sweep).
    """
    from survey_lib.lab.experiments import Results, store

    shown, old = 0, 0
    for name in store.select(experiment):
        rows = store.load(name)
        for one in sorted(set(rows["dataset"]) if dataset is None else {dataset} & set(rows["dataset"])):
            click.echo(f"{Results.of(name, one).table(caption=name)}\n")
        rows = rows if dataset is None else rows[rows["dataset"] == dataset]
        shown, old = shown + len(rows), old + int((rows["stale"] != "").sum())
    if not shown:
        raise ValueError(f"no results{f' of {experiment}' if experiment else ''}{f' on {dataset}' if dataset else ''}")
    click.echo(f"{shown} results, {old} of them older than their code.")


@main.command()
@click.option("--from", "folder", type=click.Path(path_type=Path, file_okay=False), help="Default: data/results/local.")
def ship(folder) -> None:
    """For authors: merge local results into the tables of the course.

    Rows measured again replace older rows. Duplicate rows left by a git merge are removed.
    """
    from survey_lib.lab.experiments import store

    changed = store.ship(folder)
    click.echo(f"shipped: {', '.join(changed) or 'nothing new'}")


@main.command()
@click.argument("lesson", required=False)
@click.option("--dataset", metavar="NAME", help="On this data set alone.")
def claims(lesson, dataset) -> None:
    """Show each claim with our test and its verdict."""
    from survey_lib.course import claims
    from survey_lib.course.publishing import notebooks

    number = notebooks.select([lesson])[0].number if lesson else None
    click.echo(str(claims.ledger(number, dataset=dataset)))


for command in (commands.assignment, commands.class_, commands.grade):
    main.add_command(command)


@main.command()
@click.argument("lesson", nargs=-1)
def outputs(lesson) -> None:
    """For authors: renew the outputs stored in lessons.

    Runs them with the profile cpu, puts clean outputs into notebooks/ and their results into data/results/, and writes
    the generated tables.
    """
    from survey_lib.course.publishing import notebooks
    from survey_lib.course.publishing import outputs as committed
    from survey_lib.lab.experiments import store

    out = HOME / "build"
    # lesson 00 shows what the others measured
    chosen = sorted(notebooks.select(lesson), key=lambda one: one.number == "00")
    with _results_to(out / "results"):
        outcomes = progress.run_lessons(chosen, {"profile": "cpu"}, out, None)
    store.ship(out / "results")
    for one, outcome in zip(chosen, outcomes, strict=True):
        committed.commit_outputs(one, notebooks.read(out / "notebooks" / one.path.name), outcome)
    _write_tables()


@main.command()
def tables() -> None:
    """For authors: write the generated tables again.

    They are in the README and in data/claims/README.md.
    """
    _write_tables()


def _write_tables() -> None:
    from survey_lib.course.publishing import readme

    for path, text in readme.generated().items():
        write_atomically(path, text.encode())


@contextmanager
def _results_to(folder: Path) -> Iterator[None]:
    """Let kernels that start in this context keep results in ``folder``, with the shipped results alone beside it."""
    before = os.environ.get("SURVEY_RESULTS")
    os.environ["SURVEY_RESULTS"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("SURVEY_RESULTS")
        if before is not None:
            os.environ["SURVEY_RESULTS"] = before


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)


def _given(chosen, pairs, **named) -> dict:
    """The given parameters as values of the types of the lessons' defaults. Raises ValueError for a repeated name."""
    texts = {name: text for name, text in named.items() if text is not None}
    for name, text in pairs:
        if name in texts:
            raise ValueError(f'the parameter "{name}" is given twice')
        texts[name] = text
    parsed: dict = {}
    for lesson in chosen:
        parsed = lesson.parse(texts) | {name: value for name, value in parsed.items() if name not in lesson.parameters}
    return parsed


def _near(path: Path) -> Path:
    """The path relative to the current folder, if it lies in it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    main()
