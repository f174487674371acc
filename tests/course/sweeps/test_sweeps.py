"""A sweep does what is left, once, whatever was killed in between; its files are checked before anything starts.

Most of it is shown with a stand-in for the process of a run; the kills are real, of real processes.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from survey_lib.course import cli
from survey_lib.course.publishing import notebooks
from survey_lib.course.sweeps import sweep, worker
from survey_lib.lab import runtime
from survey_lib.lab.experiments import provenance, store

FILE = 'lesson: "01"\nparameters: {profile: smoke}\ngrid: {seed: [0, 1, 2]}\n'
SHIPPED = sorted((runtime.HOME / "data" / "sweeps").glob("*.yml"))


@pytest.fixture
def here(course, monkeypatch):
    """The small course as home, with a sweep file; ``here.sweep()`` runs it and returns how it went."""
    monkeypatch.setattr(notebooks.all_lessons, "__defaults__", (course.home,))
    monkeypatch.setattr(notebooks.select, "__defaults__", (course.home,))
    monkeypatch.setattr(runtime, "HOME", course.home)
    monkeypatch.delenv("SURVEY_RESULTS", raising=False)
    monkeypatch.delenv("SURVEY_PROFILE", raising=False)
    course.file = course.home / "three.yml"
    course.file.write_text(FILE)
    course.write()

    def run(**options):
        provenance._fingerprint.cache_clear()
        return sweep.run(sweep.read(course.file), course.build, jobs=2, **options)

    course.sweep = run
    yield course
    provenance._fingerprint.cache_clear()


class Played(list):
    """The jobs that stand-ins for processes got, and with what the next ones are to exit."""

    codes = ()


@pytest.fixture
def played(monkeypatch):
    """Stand-ins for processes, which leave an outcome and nothing else."""
    jobs = Played()

    def process(job, errors):
        jobs.append(job)
        code = jobs.codes.pop(0) if jobs.codes else 0
        failed = job.parameters["seed"] == 13
        if code == 0:
            about = {"status": "failed" if failed else "passed", "error": "it broke" if failed else "", "minutes": 0.1}
            runtime.write_atomically(job.notebook, b"{}")
            runtime.write_atomically(job.kept, json.dumps(about).encode())
        elif code > 0:
            errors.write(b"Traceback\nOSError: no space left\n")
        return code

    monkeypatch.setattr(worker, "_in_process", process)
    return jobs


def seeds(jobs):
    return sorted(job.parameters["seed"] for job in jobs)


def test_a_second_call_does_only_what_is_left(here, played):
    assert [one.label for one in here.sweep()] == ["seed 0", "seed 1", "seed 2"] and seeds(played) == [0, 1, 2]
    assert all(one.before for one in here.sweep()) and len(played) == 3
    here.file.write_text(FILE.replace("2]", "2, 3]"))
    assert [one.before for one in here.sweep()] == [True] * 3 + [False] and seeds(played[3:]) == [3]
    assert not any(one.before for one in here.sweep(again=True)) and len(played) == 8


def test_what_decides_a_run_is_told_from_what_does_not(here, played, monkeypatch):
    here.sweep()
    here.file.write_text(FILE.replace("smoke}", "smoke, steps: 10}"))  # the default, said aloud
    here.write(body=("answer = seed + 1  # a remark", "assert answer > seed"), title="Other prose")
    assert all(one.before for one in here.sweep())
    here.write(body=("answer = seed + 2", "assert answer > seed"))
    assert not any(one.before for one in here.sweep())
    assert not any(one.before for one in here.sweep(folder=store.shipped()))
    assert {job.environment["SURVEY_RESULTS"] for job in played[:3]} == {str(here.home / "data/results/local")}
    assert {job.environment["SURVEY_RESULTS"] for job in played[-3:]} == {str(here.home / "data/results")}


def test_a_half_written_outcome_is_no_outcome(here, played):
    here.sweep()
    played[0].kept.write_text('{"status": "pas')
    assert [one.before for one in here.sweep()].count(False) == 1


def test_a_failed_run_is_listed_with_its_notebook_and_tried_again(here, played, monkeypatch):
    here.file.write_text(FILE.replace("1, 2]", "13]"))
    monkeypatch.chdir(here.home)
    for _ in range(2):
        result = CliRunner().invoke(cli.main, ["sweep", "three.yml", "--out", str(here.build)])
        assert result.exit_code == 1 and "1 of 2 runs passed" in result.output
        assert "failed: seed 13: it broke\n    build/sweeps/three/13-" in result.output
        assert Path(result.output.split()[-1]).is_file()
    assert seeds(played) == [0, 13, 13]


def test_a_killed_process_gets_a_second_attempt_and_no_third(here, played):
    here.file.write_text(FILE.replace("[0, 1, 2]", "[0]"))
    played.codes = [-signal.SIGKILL]
    assert here.sweep()[0].error == "" and len(played) == 2
    played.codes = [-signal.SIGKILL] * 2
    assert here.sweep(again=True)[0].error == "its process was killed (SIGKILL), 2 times" and len(played) == 4
    played.codes = [1]
    assert here.sweep()[0].error == "OSError: no space left" and len(played) == 5, "a reason is not tried again"


def test_threads_are_shared_out(here, played, monkeypatch):
    here.sweep()
    assert {job.slots for job in played} == {2}
    monkeypatch.setattr(worker, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [worker.threads(slots) for slots in (1, 2, 3, 16)] == [8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert [worker.threads(slots) for slots in (1, 8)] == [2, 1], "fewer, where fewer are asked for"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lesson: '01'\ngrid: {sed: [0]}", 'no parameter "sed" (did you mean "seed"?)'),
        ("lesson: '01'\ngrid: {seed: [0, one]}", 'seed is "one" (str); an int is accepted'),
        ("lesson: '01'\nparameters: {train: 'yes'}\ngrid: {seed: [0]}", "only True or False is accepted"),
        ("lesson: '01'\ngrid: {dataset: [mnits]}", 'did you mean "mnist"?'),
        ("lesson: '07'\ngrid: {seed: [0]}", 'there is no lesson "07"'),
        ("lesson: true\ngrid: {seed: [0]}", "a number or a name is accepted"),
        ("lesson: '01'\ngrid: {seed: 0}", "grid: seed is 0; a list of values is accepted"),
        ("lesson: '01'\ngrid: {seed: []}", "grid: seed is []; a list of values is accepted"),
        ("lesson: '01'\ngrid: {seed: [1, 1]}", "grid: seed has a value twice"),
        ("lesson: '01'\ngrid: {seed: [0], seed: [1]}", '"seed" stands twice'),
        ("lesson: '01'\nparameters: {seed: 1}\ngrid: {seed: [0]}", "seed stands in parameters and in grid"),
        ("lesson: '01'\nparameters: smoke\ngrid: {seed: [0]}", "parameters is a str; names with their values"),
        ("lesson: '01'\ngrid: {}", "grid is empty"),
        ("lesson: '01'\ngird: {seed: [0]}", "a sweep needs lesson and grid"),
        ("lesson: '01'\ngrid: {seed: [0]}\nparameter: {}", 'did you mean "parameters"?'),
        ("lesson: '01'\ngrid: {steps: [2026-01-01]}", "only numbers, texts, lists"),
        ("lesson: '01'\ngrid: {seed: [0", "the file is not YAML in line 2"),
        ("!!python/object/apply:os.getcwd []", "the file is not YAML in line 1"),
        ("just words", "a sweep needs lesson and grid"),
        ("", "a sweep needs lesson and grid"),
    ],
)
def test_a_bad_file_gets_one_sentence_before_anything_starts(here, played, text, sentence):
    here.file.write_text(text)
    result = CliRunner().invoke(cli.main, ["sweep", str(here.file), "--out", str(here.build)])
    assert result.exit_code == 1 and sentence in result.output
    assert result.output.startswith("Error: three.yml: ") and result.output.count("\n") == 1
    assert not played and not here.build.exists()


def test_what_is_no_file_or_no_scheduler_gets_one_sentence(here, played):
    result = CliRunner().invoke(cli.main, ["sweep", str(here.home / "none.yml")])
    assert result.exit_code == 1 and result.output.startswith("Error: No such file")
    here.file.write_bytes(b"\xff\xfe\x00")
    result = CliRunner().invoke(cli.main, ["sweep", str(here.file)])
    assert result.exit_code == 1 and "three.yml: the file is not a text" in result.output
    here.file.write_text(FILE)
    result = CliRunner().invoke(cli.main, ["sweep", str(here.file), "--scheduler", "localhost"])
    assert result.exit_code == 1 and "an address is accepted, as in tcp://" in result.output


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_every_shipped_sweep_is_valid(path):
    assert sweep.read(path).runs


# From here on processes are real. A run of the lesson leaves a file `SEED-PID-PARENT`, and waits for the file `go`.

WAITS = """
import os, time
from pathlib import Path
marks = Path(os.environ["MARKS"])
assert os.environ["SURVEY_RESULTS"] == str(marks.parent / "results")
(marks / f"{seed}-{os.getpid()}-{os.getppid()}").touch()
while seed in WAITING and not (marks / "go").exists():
    time.sleep(0.05)
"""


@pytest.fixture
def real(course):
    """A course whose lesson leaves marks; ``real.start(*arguments)`` is ``survey sweep`` as a process of its own."""
    course.marks = course.home / "marks"
    course.marks.mkdir()
    course.file = course.home / "three.yml"
    course.file.write_text(FILE)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SURVEY_")}
    plain["MARKS"] = str(course.marks)
    named = plain | {"SURVEY_HOME": str(course.home), "SURVEY_RESULTS": str(course.home / "results")}
    started = []

    def start(*command, environment=plain):
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    course.start = start
    course.sweep = lambda *arguments: start("survey_lib.course.cli", "sweep", str(course.file), "--out",
                                            str(course.build), *arguments, environment=named)  # fmt: skip
    course.begun = lambda seed="*": sorted(course.marks.glob(f"{seed}-*"))
    course.finished = lambda: sorted(course.build.rglob("outcomes/*.json"))
    yield course
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def until(condition, process=None, seconds=240):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


def alive(mark):
    """Of the kernel and the process that left a mark, those that still run."""
    pids = map(int, mark.name.split("-")[1:])
    stat = (Path(f"/proc/{pid}/stat") for pid in pids)
    return [one for one in stat if one.exists() and one.read_text().rpartition(")")[2].split()[0] != "Z"]


proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see which processes run")


@proc
def test_a_killed_driver_takes_its_runs_along_and_loses_nothing_finished(real):
    real.write(body=(WAITS.replace("WAITING", "(1,)"),))
    driver = real.sweep("--jobs", "1")
    (mark,) = until(lambda: real.begun(1), driver)
    (first,) = real.finished()
    before = first.read_bytes()
    driver.kill()
    driver.wait()
    until(lambda: not alive(mark))
    assert real.finished() == [first] and not list(real.build.rglob(".partial-*"))
    (real.marks / "go").touch()
    said = real.sweep("--jobs", "2").communicate()[0]
    assert "3 runs, 1 finished before, 2 left" in said and "3 of 3 runs passed" in said
    assert [len(real.begun(seed)) for seed in range(3)] == [1, 2, 1] and first.read_bytes() == before


@proc
def test_a_killed_run_is_done_again_and_ctrl_c_stops_the_rest(real):
    real.write(body=(WAITS.replace("WAITING", "(0, 1, 2)"),))
    driver = real.sweep("--jobs", "2")
    until(lambda: len(real.begun()) == 2, driver)
    (mark,) = real.begun(0)
    os.kill(int(mark.name.split("-")[2]), signal.SIGKILL)
    until(lambda: len(real.begun(0)) == 2, driver)
    driver.send_signal(signal.SIGINT)
    said = driver.communicate(timeout=60)[0]
    assert driver.returncode == 130 and said.strip().endswith("nothing half-written is left to be read.")
    until(lambda: not any(map(alive, real.begun())))
    assert not real.finished() and not real.begun(2), "nothing new was begun"


@proc
@pytest.mark.skipif(not importlib.util.find_spec("distributed"), reason="dask.distributed is not installed")
def test_a_cluster_that_loses_a_worker_loses_no_run_and_ctrl_c_stops_what_runs_there(real):
    about = real.home / "scheduler.json"
    scheduler = real.start("distributed.cli.dask_scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard",
                           "--scheduler-file", str(about))  # fmt: skip
    address = json.loads(until(lambda: about.exists() and about.read_text(), scheduler))["address"]
    workers = [
        real.start("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
        for _ in range(2)
    ]
    real.write(body=(WAITS.replace("WAITING", "(0, 1, 2)"),))
    driver = real.sweep("--scheduler", address)
    marks = until(lambda: len(found := real.begun()) == 2 and found, driver)
    workers[0].kill()
    until(lambda: len([one for one in marks if alive(one)]) == 1, driver)
    (real.marks / "go").touch()
    said = driver.communicate(timeout=240)[0]
    assert driver.returncode == 0 and "3 of 3 runs passed" in said
    assert len(real.begun()) == 4, "the run that was lost was done once more, the others once"
    (real.marks / "go").unlink()
    before, driver = set(real.begun()), real.sweep("--scheduler", address, "--again")
    (mark,) = until(lambda: set(real.begun()) - before, driver)
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=240)
    assert driver.returncode == 130
    until(lambda: not alive(mark))


def test_each_machine_of_a_cluster_shares_its_cores():
    threads = {"tcp://10.0.0.1:1": 2, "tcp://10.0.0.1:2": 2, "tcp://10.0.0.2:1": 1}
    assert sweep.slots(threads) == {"tcp://10.0.0.1:1": 4, "tcp://10.0.0.1:2": 4, "tcp://10.0.0.2:1": 1}
