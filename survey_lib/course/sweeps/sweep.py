"""Sweeps: one lesson over a grid of parameters, here or on a dask cluster. Finished runs are not repeated.

A sweep is a YAML file::

    lesson: "02"                  # a number or a name, as for `survey run`
    parameters:                   # the same for every run
      profile: cpu
    grid:                         # every combination is a run
      dataset: [glyphs, mnist]
      seed: [0, 1, 2]

Each run has a folder under ``build/sweeps/``, named after a hash of what decides it: the lesson, all of its
parameters, the code behind its numbers (`lab.experiments.provenance`), and where its results go. A folder that holds
the outcome of a run that passed is finished; the rest is what is left. An outcome is one small file, whole or absent:
a driver or a worker that is killed loses only what it was doing (and on a cluster, what the workers of a killed
driver had begun they bring to its end). Running two drivers on one sweep is safe; some runs are repeated.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from survey_lib.course.publishing import notebooks, runner
from survey_lib.course.sweeps import worker
from survey_lib.course.sweeps.worker import Job
from survey_lib.lab import runtime
from survey_lib.lab.experiments import provenance, store

KEYS = ("lesson", "parameters", "grid")


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read and checked: which parameters vary, and the parameters of every run."""

    name: str
    lesson: notebooks.Lesson
    varied: tuple[str, ...]
    runs: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Result:
    """The result of one run: ``error`` is empty where it passed, ``before`` is true for a run of an earlier call."""

    label: str
    error: str
    minutes: float
    notebook: Path
    before: bool = False


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses a name that stands twice, where YAML would take the last."""

    def construct_mapping(self, node, deep=False):
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f'"{name}" stands twice', node.start_mark)
        return super().construct_mapping(node, deep)


def read(path: Path) -> Sweep:
    """Read and check a sweep file. Raises ValueError for a sweep that cannot be run."""
    try:
        given = _parsed(path)
        lesson = notebooks.select([str(given["lesson"])])[0]
        same, grid = given.get("parameters") or {}, given["grid"]
        if both := set(same) & set(grid):
            raise ValueError(f"{', '.join(sorted(both))} stands in parameters and in grid")
        points = (dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values()))
        runs = tuple(lesson.check(same | point) for point in points)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path.name}: {error}") from error
    return Sweep(path.stem, lesson, tuple(grid), runs)


def plan(sweep: Sweep, destination: Path, folder: Path, **options: Any) -> dict[str, Job]:
    """A job for each run, by its label; results go to ``folder``. ``options`` are fields of `Job`."""
    home = sweep.lesson.path.parents[1]
    environment = runtime.environment() | {"SURVEY_HOME": str(home), "SURVEY_RESULTS": str(folder)}
    jobs = {}
    for given in sweep.runs:
        label = ", ".join(f"{name} {given[name]}" for name in sweep.varied)
        readable = re.sub(r"[^\w.]+", "-", "-".join(str(given[name]) for name in sweep.varied))[:60]
        where = destination.absolute() / "sweeps" / sweep.name / f"{readable}-{_key(sweep.lesson, given, folder)}"
        jobs[label] = Job(sweep.lesson.path, given, where, environment, **options)
    return jobs


def run(
    sweep: Sweep,
    destination: Path,
    *,
    jobs: int | None = None,
    scheduler: str | None = None,
    again: bool = False,
    folder: Path | None = None,
    cell_seconds: int = runner.TRAINING_CELL_SECONDS,
    on_start: Callable[[list[Result], int], None] = lambda before, left: None,
    on_done: Callable[[Result], None] = lambda result: None,
    on_tick: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Do what is left of a sweep and return all results. A run that fails stops no other; Ctrl-C stops all of them.

    jobs          : runs at a time; by default one for each core
    scheduler     : the address of a dask scheduler whose workers see the same files
    again         : finished runs are done again too
    folder        : the folder of results; by default `store.destination`
    cell_seconds  : the longest that a cell may take
    on_start      : called with the results of finished runs and the number that is left
    on_done       : called with each result
    on_tick       : called about every second

    Raises OSError or RuntimeError for a scheduler that is not there or has no workers, and OSError for a folder of
    results that cannot be written.
    """
    call, target = uuid.uuid4().hex, (folder or store.destination()).resolve()
    for given in sweep.runs:
        if not scheduler:
            runner.refuse_missing_gpu(given)
        runner.refuse_read_only(target, train=bool(given.get("train")))
    with _cluster(scheduler) if scheduler else _here(jobs or worker.cores()) as (executor, sharing, stop):
        planned = plan(sweep, destination, target, call=call, slots=sharing, cell_seconds=cell_seconds)
        finished = {} if again else {label: one for label, job in planned.items() if (one := _finished(label, job))}
        left = {label: job for label, job in planned.items() if label not in finished}
        on_start(list(finished.values()), len(left))
        futures = {executor.submit(worker.run, job): label for label, job in left.items()}
        found = dict(finished)
        try:
            for future in _as_done(futures, on_tick):
                label = futures[future]
                found[label] = _result(label, left[label], future)
                on_done(found[label])
        except BaseException:
            for future in futures:
                future.cancel()
            stop(call)
            raise
    return [found[label] for label in planned]


def slots(threads: Mapping[str, int]) -> dict[str, int]:
    """The number of runs that the machine of each dask worker may have at once: the threads of all workers on it."""
    machines: Counter[str] = Counter()
    for address, count in threads.items():
        machines[address.rpartition(":")[0]] += count
    return {address: machines[address.rpartition(":")[0]] for address in threads}


@contextmanager
def _here(jobs: int) -> Iterator[tuple[Executor, int, Callable[[str], None]]]:
    """Threads that each wait for a process: nothing is in a process that may be killed but the run itself."""
    with ThreadPoolExecutor(jobs) as executor:
        yield executor, jobs, worker.stop


@contextmanager
def _cluster(address: str) -> Iterator[tuple[Executor, dict[str, int], Callable[[str], None]]]:
    if not re.fullmatch(r"(tcp|tls|ucx|wss?)://.+:\d+", address):
        raise ValueError(f'scheduler is "{address}"; an address is accepted, as in tcp://127.0.0.1:8786')
    try:
        from distributed import Client
    except ImportError as error:
        raise RuntimeError("--scheduler needs dask.distributed: pip install distributed") from error
    with Client(address, timeout=10, set_as_default=False) as client:
        threads = client.nthreads()
        if not threads:
            raise RuntimeError(f"the scheduler at {address} has no workers; start some: dask worker {address}")
        yield client.get_executor(pure=False), slots(threads), lambda call: client.run(worker.stop, call)


def _as_done(futures: Iterable[Future], on_tick: Callable[[], None]) -> Iterator[Future]:
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
        yield from done
        on_tick()


def _finished(label: str, job: Job) -> Result | None:
    outcome = _outcome(job)
    return (
        Result(label, "", outcome["minutes"], job.notebook, before=True) if outcome.get("status") == "passed" else None
    )


def _result(label: str, job: Job, future: Future) -> Result:
    try:
        error = future.result()
    except Exception as failure:  # of the cluster: its workers died, or cannot import the course
        error = f"{type(failure).__name__}: {str(failure).partition(chr(10))[0]}"
    return Result(label, error, _outcome(job).get("minutes", 0.0), job.notebook)


def _outcome(job: Job) -> dict[str, Any]:
    """The outcome that a run left; empty where there is none that can be read."""
    try:
        return json.loads(job.kept.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}


def _key(lesson: notebooks.Lesson, given: Mapping[str, Any], folder: Path) -> str:
    """Ten digits of SHA-256 over what decides a run."""
    home, whole = lesson.path.parents[1], lesson.parameters | given
    code = str(provenance.fingerprint(lesson.name, str(whole.get("dataset", ""))))
    profile = os.environ.get("SURVEY_PROFILE", "") if whole.get("profile") == "auto" else ""
    target = str(folder.relative_to(home) if folder.is_relative_to(home) else folder)
    about = json.dumps([lesson.name, whole, code, profile, target], sort_keys=True)
    return hashlib.sha256(about.encode()).hexdigest()[:10]


def _parsed(path: Path) -> dict[str, Any]:
    """The file as a mapping whose keys are those of a sweep and whose grid is one of lists."""
    try:
        given = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        json.dumps(given)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"the file is not YAML{line}: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"the file is not a text: {str(error).splitlines()[0]}") from error
    except TypeError as error:
        raise ValueError(f"only numbers, texts, lists and true or false are accepted: {error}") from error
    if not isinstance(given, dict) or not {"lesson", "grid"} <= set(given):
        raise ValueError("a sweep needs lesson and grid, and may have parameters")
    for name in given:
        if name not in KEYS:
            raise ValueError(
                f'"{name}" is not a part of a sweep{runtime.suggest(name, KEYS)}; accepted: {", ".join(KEYS)}'
            )
    if isinstance(given["lesson"], bool) or not isinstance(given["lesson"], str | int):
        raise ValueError(f'lesson is {given["lesson"]!r}; a number or a name is accepted, as in "02"')
    for part in ("parameters", "grid"):
        if not isinstance(given.get(part) or {}, dict):
            raise ValueError(f"{part} is a {type(given[part]).__name__}; names with their values are accepted")
    if not given["grid"]:
        raise ValueError("grid is empty; a name with a list of values is accepted, as in seed: [0, 1, 2]")
    for name, values in given["grid"].items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"grid: {name} is {values!r}; a list of values is accepted, as in [0, 1, 2]")
        if len({json.dumps(value) for value in values}) < len(values):
            raise ValueError(f"grid: {name} has a value twice")
    return given
