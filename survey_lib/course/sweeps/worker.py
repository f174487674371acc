"""Process for one run of a sweep, which ends with the process that started it.

A thread of a pool or a dask worker calls `run`. It starts ``python -m survey_lib.course.sweeps.worker``, writes the job
to its input and leaves the input open. When the input closes, by `stop` or because its holder was killed, the process
stops its kernel and ends: no run outlives its driver, even after kill -9.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: Environment variables that limit the threads of the libraries under torch and numpy.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
#: Seconds that a process gets to stop its kernel before it is ended.
GRACE = 15
ATTEMPTS = 2


@dataclass(frozen=True)
class Job:
    """A lesson with its parameters, the folder of its notebook and outcome, and the environment of its kernel."""

    lesson: Path
    parameters: Mapping[str, Any]
    folder: Path
    environment: Mapping[str, str]
    call: str  # identifies a call of `sweep.run`; `stop` stops all jobs of one call
    slots: int | Mapping[str, int]  # how many runs share this machine, or for each dask worker its machine's
    cell_seconds: int

    @property
    def kept(self) -> Path:
        """The file of the outcome."""
        return self.folder / "outcomes" / f"{self.lesson.stem}.json"

    @property
    def notebook(self) -> Path:
        """The executed notebook."""
        return self.folder / "notebooks" / self.lesson.name


_lock = threading.Lock()
_processes: dict[str, set[subprocess.Popen]] = {}
_stopped: set[str] = set()


def run(job: Job) -> str:
    """Do a job and return its error, empty where it passed. It is done once more where its process was killed."""
    log = job.folder / "log.txt"
    job.folder.mkdir(parents=True, exist_ok=True)
    for _attempt in range(ATTEMPTS):
        job.kept.unlink(missing_ok=True)
        with open(log, "wb") as errors:
            code = _in_process(job, errors)
        if job.kept.exists():
            log.unlink()
            return json.loads(job.kept.read_bytes())["error"]
        if job.call in _stopped:
            return "stopped"
        if code >= 0:
            said = log.read_text(errors="replace").strip()
            return said.splitlines()[-1] if said else f"its process left with code {code}"
    return f"its process was killed ({signal.Signals(-code).name}), {ATTEMPTS} times"


def stop(call: str) -> None:
    """Stop the jobs that a call of `sweep.run` has running in this process, and start no more of them."""
    with _lock:
        _stopped.add(call)
        processes = _processes.pop(call, set())
    for process in processes:
        process.stdin.close()
    end = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(slots: int) -> int:
    """The number of threads of a kernel where ``slots`` runs share this machine; ``OMP_NUM_THREADS`` limits it."""
    share, asked = max(1, cores() // slots), os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(asked)) if asked.isdigit() and int(asked) else share


def _in_process(job: Job, errors) -> int:
    slots = job.slots if isinstance(job.slots, int) else job.slots.get(_address(), cores())
    environment = os.environ | dict.fromkeys(THREADS, str(threads(slots))) | dict(job.environment)
    with _lock:
        if job.call in _stopped:
            return 1
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, env=environment, start_new_session=True,
        )  # fmt: skip
        _processes.setdefault(job.call, set()).add(process)
    try:
        process.stdin.write(json.dumps(asdict(job), default=str).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it died at once; its exit code tells
    code = process.wait()
    process.stdin.close()
    with _lock:
        _processes.get(job.call, set()).discard(process)
    return code


def _address() -> str:
    from distributed import get_worker

    return get_worker().address


def main() -> None:
    """Do the job that the first line of the input holds; leave when the input closes."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.default_int_handler)
    given = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_leave_with_input, daemon=True).start()

    from survey_lib.course.publishing.notebooks import Lesson
    from survey_lib.course.publishing.runner import run_one

    try:
        run_one(Lesson(Path(given["lesson"])), given["parameters"], Path(given["folder"]),
                cell_seconds=given["cell_seconds"])  # fmt: skip
    except KeyboardInterrupt:
        sys.exit("stopped")
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def _leave_with_input() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(GRACE - 5)
    os._exit(1)


if __name__ == "__main__":
    main()
