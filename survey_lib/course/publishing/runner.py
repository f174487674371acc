"""Execution of lessons by papermill in a worker thread; a kernel that does not start is tried once more.

papermill writes the notebook after every cell, into a ``.partial`` folder. The file takes its place beside the others
when the lesson has ended, so that a run that is killed leaves the last whole one.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import nbformat
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.execute import execute_notebook

from survey_lib.course.publishing.notebooks import Lesson, plain, read, source_hash
from survey_lib.lab import runtime
from survey_lib.lab.experiments import store

#: Called before each cell with the lesson, the cell's index, the number of cells, and the heading it stands under.
OnCell = Callable[[Lesson, int, int, str], None]

CELL_SECONDS = 900
TRAINING_CELL_SECONDS = 12 * 3600


@dataclass(frozen=True)
class Outcome:
    """The result of one run of a lesson, kept in ``build/outcomes/``."""

    lesson: str
    title: str
    status: str  # "passed" or "failed"
    minutes: float
    checks_passed: int
    checks: int
    parameters: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def number(self) -> str:
        return self.lesson.partition("_")[0]

    @property
    def passed(self) -> bool:
        return self.status == "passed"


class _Engine(NBClientEngine):
    """papermill's engine, which calls ``on_cell`` with the index of each cell before it runs."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, on_cell, **options):
        start = nb_man.cell_start

        def cell_start(cell, cell_index=None, **more):
            on_cell(cell_index)
            start(cell, cell_index, **more)

        nb_man.cell_start = cell_start
        return super().execute_managed_notebook(nb_man, kernel_name, **options)


papermill_engines.register("survey", _Engine)


def run(
    lessons: Iterable[Lesson],
    given: Mapping[str, Any],
    destination: Path,
    *,
    on_cell: OnCell | None = None,
    on_done: Callable[[Outcome], None] | None = None,
    cell_seconds: int | None = None,
) -> list[Outcome]:
    """Execute lessons one after the other into ``destination/notebooks``; one that fails does not stop the rest.

    ``given`` is checked against every lesson before the first kernel starts: each parameter has to be known
    to one of them at least, and goes to those that know it. Raises ValueError or TypeError for a bad one, and OSError
    where results or checkpoints cannot be kept.
    """
    lessons = list(lessons)
    plan = [(lesson, _share(lesson, given, lessons)) for lesson in lessons]
    refuse_missing_gpu(given)
    os.environ.update(runtime.environment())  # a kernel runs in the folder of its notebook
    refuse_read_only(store.destination(), train=bool(given.get("train")))
    outcomes = []
    for lesson, parameters in plan:
        outcome = run_one(lesson, parameters, destination, on_cell=on_cell, cell_seconds=cell_seconds)
        outcomes.append(outcome)
        if on_done:
            on_done(outcome)
    return outcomes


def run_one(
    lesson: Lesson,
    parameters: Mapping[str, Any],
    destination: Path,
    *,
    on_cell: OnCell | None = None,
    cell_seconds: int | None = None,
) -> Outcome:
    """Execute one lesson; keep its notebook, with the traceback where it failed, and its outcome.

    What processes that were killed have left half-written in ``destination`` is removed.
    """
    if cell_seconds is None:
        cell_seconds = TRAINING_CELL_SECONDS if parameters.get("train") else CELL_SECONDS
    destination.mkdir(parents=True, exist_ok=True)
    _sweep_up(destination)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=_partial(os.getpid()), dir=destination) as folder:
        partial = Path(folder, f"{lesson.name}.ipynb")
        error = _execute(lesson, parameters, partial, on_cell or (lambda *_: None), cell_seconds)
        notebook = read(partial)
    notebook.metadata["survey"] = {"source_sha256": source_hash(lesson.notebook)}
    passed, checks = count_checks(notebook)
    outcome = Outcome(
        lesson=lesson.name,
        title=lesson.title,
        status="failed" if error else "passed",
        minutes=round((time.monotonic() - began) / 60, 2),
        checks_passed=passed,
        checks=checks,
        parameters={**lesson.parameters, **parameters},
        error=error,
    )
    runtime.write_atomically(destination / "notebooks" / partial.name, nbformat.writes(notebook).encode())
    kept = json.dumps(asdict(outcome), indent=1).encode()
    runtime.write_atomically(destination / "outcomes" / f"{lesson.name}.json", kept)
    return outcome


def read_outcomes(destination: Path) -> list[Outcome]:
    """Read the outcomes kept under ``destination``, in the order of the course."""
    kept = [json.loads(path.read_text()) for path in sorted((destination / "outcomes").glob("*.json"))]
    names = {field.name for field in fields(Outcome)}  # an older course kept others too
    return [Outcome(**{name: value for name, value in one.items() if name in names}) for one in kept]


def count_checks(notebook: nbformat.NotebookNode) -> tuple[int, int]:
    """Count the checks of a notebook, ``assert`` statements and calls of ``check``: (passed, all)."""
    passed = total = 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        found = _checks_in(cell.source)
        total += found
        if cell.execution_count and not any(output.output_type == "error" for output in cell.outputs):
            passed += found
    return passed, total


def headings(notebook: nbformat.NotebookNode) -> list[str]:
    """The last heading at or before each cell."""
    current, found = "", []
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (lines := re.findall(r"^#{1,3}\s+(.+)$", cell.source, re.MULTILINE)):
            current = plain(lines[0])
        found.append(current)
    return found


def _execute(lesson: Lesson, parameters: Mapping[str, Any], partial: Path, on_cell: OnCell, cell_seconds: int) -> str:
    """Execute into ``partial``; return the error in one line, empty where there was none."""
    names = headings(lesson.notebook)
    marked = ["parameters" in cell.metadata.get("tags", ()) for cell in lesson.notebook.cells].index(True)
    begun: list[str] = []  # the headings of the cells that a kernel has begun

    def report(index: int) -> None:
        own = index - (bool(parameters) and index > marked)  # papermill puts a cell of its own behind the parameters
        begun.append(names[own])
        on_cell(lesson, own, len(names), names[own])

    for _attempt in range(2):
        failure = _in_thread(lambda: _papermill(lesson, parameters, partial, report, cell_seconds))
        if begun or not isinstance(failure, RuntimeError):
            break
    return _explain(failure, begun, cell_seconds) if failure else ""


def _papermill(lesson, parameters, partial, report, cell_seconds) -> None:
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    execute_notebook(
        str(lesson.path),
        str(partial),
        parameters=dict(parameters),
        engine_name="survey",
        kernel_name="python3",
        progress_bar=False,
        start_timeout=120,
        execution_timeout=cell_seconds,
        resources={"metadata": {"path": str(lesson.path.parent)}},
        extra_arguments=["--IPKernelApp.log_level=50"],  # its warnings would break into the progress bar
        on_cell=report,
    )


def _in_thread(work: Callable[[], None]) -> BaseException | None:
    """Call ``work`` beside the main thread and return the exception that it raised, or None.

    nbclient takes over Ctrl-C in the main thread and turns it into a dead kernel; from a worker it cannot.
    """
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded, daemon=True, name="lesson")
    thread.start()
    while thread.is_alive():
        thread.join(0.2)  # a short wait, so that Ctrl-C is heard at once
    return failures[0] if failures else None


def _explain(failure: BaseException, begun: list[str], cell_seconds: int) -> str:
    if not isinstance(failure, PapermillExecutionError | RuntimeError | TimeoutError):
        raise failure
    if not begun:
        return f"the kernel did not start, twice: {failure}"
    if isinstance(failure, PapermillExecutionError):
        first = str(failure.evalue).strip().partition("\n")[0]
        what = f"{failure.ename}: {first}"
    elif isinstance(failure, TimeoutError):
        what = f"a cell took longer than {cell_seconds} s; --timeout allows more"
    else:
        what = "the kernel died; a system ends it where memory runs out"
    return f"“{begun[-1]}”: {what}" if begun[-1] else what


def _share(lesson: Lesson, given: Mapping[str, Any], lessons: list[Lesson]) -> dict[str, Any]:
    elsewhere = {name for other in lessons if other is not lesson for name in other.parameters}
    return lesson.check(
        {name: value for name, value in given.items() if name in lesson.parameters or name not in elsewhere}
    )


def refuse_missing_gpu(given: Mapping[str, Any]) -> None:
    """Raise RuntimeError before any kernel starts, where the profile in force asks for a GPU that is not there."""
    profile = given.get("profile", "auto")
    if profile == "gpu" or os.environ.get("SURVEY_PROFILE"):
        runtime.start("any lesson", profile=profile)


def refuse_read_only(results: Path, *, train: bool = False) -> None:
    """Raise OSError before any kernel starts, where the folder of results or of checkpoints cannot be written."""
    advice = {results: "SURVEY_RESULTS names another folder for results"}
    if train:
        from survey_lib.lab.training import recipes  # which loads torch

        advice[recipes.trial_folder(None)] = "without train=True a lesson uses the checkpoints that are there"
    for folder, way_out in advice.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise OSError(f"{folder} cannot be written ({error.strerror}); {way_out}") from error


def _partial(process: int | str = "") -> str:
    """Prefix of the half-written folders of this machine, or of one of its processes."""
    return f".partial-{socket.gethostname()}-" + (f"{process}-" if process else "")


def _sweep_up(destination: Path) -> None:
    """Remove half-written notebooks whose process, of this machine, has ended."""
    for folder in destination.glob(f"{_partial()}*"):
        process = folder.name.removeprefix(_partial()).partition("-")[0]
        if process.isdigit() and not _alive(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(process: int) -> bool:
    if os.name != "posix":
        return True  # elsewhere signal 0 is not a question
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def _checks_in(source: str) -> int:
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError:  # a magic; it checks nothing
        return 0
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    names = [call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls]
    return sum(isinstance(node, ast.Assert) for node in nodes) + names.count("check")
