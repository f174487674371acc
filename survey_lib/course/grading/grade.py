"""Points for the answers of a class: each answer in a process of its own, on problems that a secret draws.

The table is written after every answer. An interrupted run goes on where it stopped; an answer is graded again when it
has changed, and so is every answer under another secret.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import multiprocessing
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from survey_lib import __version__
from survey_lib.course import exercises
from survey_lib.course.exercises import framework
from survey_lib.course.grading import submissions
from survey_lib.course.grading.remote import USUAL, Answer, AnswerEnded, Limits
from survey_lib.course.grading.submissions import Submission, Task
from survey_lib.lab.runtime import write_atomically

#: What a status means, in words for the student.
STATUSES = {
    "right": "all properties hold",
    "wrong": "a property does not hold",
    "empty": "not answered",
    "missing": "the notebook has no cell for this answer",
    "unreadable": "the notebook cannot be read",
    "stopped": "the answer stopped with an error",
    "too slow": "the answer took too long",
    "ended": "the answer ended its process, or used too much memory or processor time",
}


class Grade(NamedTuple):
    """Points of one answer of one student, with the reason. ``key`` names the answer, the secret and the course."""

    student: str
    lesson: str
    exercise: str
    points: float
    of: float
    held: int
    properties: int
    status: str
    mistake: str
    failed: str
    seconds: float
    message: str
    key: str


class Job(NamedTuple):
    """An answer to be graded."""

    student: str
    lesson: str
    task: Task
    cells: tuple[str, ...]
    secret: str
    limits: Limits
    problem: str = ""

    @property
    def key(self) -> str:
        """Ten digits that change with the answer, the secret, and the version of the course."""
        parts = (self.task.exercise, self.problem, self.secret, __version__, *self.cells)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]

    @property
    def seed(self) -> int:
        """The seed of the problem: one for each exercise, the same for all students."""
        return int(hashlib.sha256(f"{self.secret}\0{self.task.exercise}".encode()).hexdigest()[:12], 16)


def secret_from(path: Path) -> str:
    """The secret in a file, which is made if it is not there. Raises ValueError for an empty file."""
    if not path.exists():
        write_atomically(path, f"{secrets.token_hex(16)}\n".encode())
        path.chmod(0o600)
    if not (secret := path.read_text(encoding="utf-8").strip()):
        raise ValueError(f"{path} is empty; write a secret into it, or name a file that is not there yet")
    return secret


def plan(found: Iterable[Submission], secret: str, limits: Limits = USUAL) -> list[Job]:
    """The answers of a class that are to be graded, in the order of students and exercises.

    Of several notebooks of one student and lesson, the one that was changed last counts. Every student has a row for
    each exercise of every lesson that anybody has handed in, and of none else.
    """
    newest: dict[tuple[str, str], Submission] = {}
    for one in sorted(found, key=lambda one: one.path.stat().st_mtime):
        newest[one.student, one.lesson] = one
    lessons = sorted({lesson for _, lesson in newest} - {""})
    students = sorted({student for student, _ in newest})
    jobs = []
    for student, lesson in itertools.product(students, lessons):
        given = newest.get((student, lesson)) or newest.get((student, "")) or Submission(student, Path(), lesson)
        for task in submissions.tasks(lesson):
            has = task.cells[-1] in given.answers
            cells = tuple(given.answers[name] for name in task.cells if name in given.answers) if has else ()
            jobs.append(Job(student, lesson, task, cells, secret, limits, given.problem))
    return jobs


def grade(
    jobs: Sequence[Job],
    out: Path,
    *,
    workers: int = 1,
    again: bool = False,
    on_start: Callable[[int], None] = lambda left: None,
    on_done: Callable[[Grade, list[str]], None] = lambda grade, missing: None,
) -> list[Grade]:
    """Grade answers, and keep the table in ``out`` complete after each; in the order of ``jobs``.

    on_start(left): called with how many are not in the table already. on_done(grade, missing): called after each, with
    the limits that could not be put in force.
    """
    kept = {} if again else {(one.student, one.exercise, one.key): one for one in read(out)}
    grades = {job: kept.get((job.student, job.task.exercise, job.key)) for job in jobs}
    left = [job for job in jobs if grades[job] is None]
    on_start(len(left))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, min(workers, len(left))), mp_context=context) as pool:
        try:
            running = {pool.submit(grade_one, job): job for job in left}
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    found, missing = future.result()
                    grades[running.pop(future)] = found
                    write(out, [one for one in grades.values() if one])
                    on_done(found, missing)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    write(out, list(grades.values()))
    return list(grades.values())


def grade_one(job: Job) -> tuple[Grade, list[str]]:
    """Grade one answer; also the limits that could not be put in force."""
    began, missing = time.monotonic(), []
    exercise = exercises.get(job.task.exercise)
    if job.problem or not job.cells:
        found = framework.Assessment("unreadable" if job.problem else "missing", message=job.problem)
    elif job.cells[-1].strip() == job.task.frame.strip():
        found = framework.Assessment("empty")
    else:
        found, missing = _assessed(job, exercise)
    held, count = found.held, len(exercise.properties)
    points = job.task.points if found.status == "right" else 0.0
    message = found.message or STATUSES[found.status]
    row = (job.student, job.lesson, exercise.id, points, job.task.points, held, count, found.status, found.mistake)
    return Grade(*row, found.failed, round(time.monotonic() - began, 1), message, job.key), missing


def _assessed(job: Job, exercise: framework.Exercise) -> tuple[framework.Assessment, list[str]]:
    imports, answer = submissions.imports_of(job.task, job.cells), None
    try:
        with Answer(imports, job.cells, job.task.name, job.limits) as answer:
            found = framework.assess(exercise, answer.value(), job.seed)
    except framework.Unsolved:
        found = framework.Assessment("empty")
    except TimeoutError as error:
        found = framework.Assessment("too slow", message=str(error))
    except AnswerEnded as error:
        found = framework.Assessment("ended", message=str(error))
    except Exception as error:
        found = framework.Assessment("stopped", message=f"it stopped with {type(error).__name__}: {error}"[:400])
    return found, answer.missing if answer else []


def read(path: Path) -> list[Grade]:
    """Read the rows of a table of grades, none without a file. Raises ValueError for a file of another kind."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if not rows or tuple(rows[0]) != Grade._fields:
        raise ValueError(f"{path} is no table of grades; name another file, or move it away")
    types = {"points": float, "of": float, "held": int, "properties": int, "seconds": float}
    return [
        Grade(*(types.get(name, _plain)(cell) for name, cell in zip(Grade._fields, row, strict=True)))
        for row in rows[1:]
    ]


def write(path: Path, grades: Sequence[Grade]) -> None:
    """Write the table, completely or not at all."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(Grade._fields)
    writer.writerows([_cell(value) for value in one] for one in grades)
    write_atomically(path, buffer.getvalue().encode())


def _cell(value: object) -> object:
    """A text that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@'\t\r" and value else value


def _plain(text: str) -> str:
    return text[1:] if text[:1] == "'" else text
