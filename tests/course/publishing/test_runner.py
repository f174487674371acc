"""Lessons run one after the other; a bad one is kept with its traceback and stops nothing; files are whole."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellTimeoutError

from survey_lib.course.publishing import notebooks, runner


@pytest.fixture
def small(course):
    course.write()
    return notebooks.all_lessons(course.home)


def errors(notebook):
    return [one for cell in notebook.cells for one in cell.get("outputs", ()) if one.output_type == "error"]


def test_outcomes_tell_what_passed_what_failed_and_where(ran):
    passes, fails, dies = ran.outcomes
    assert (passes.passed, passes.checks_passed, passes.checks, passes.error) == (True, 3, 3, "")
    assert passes.parameters["seed"] == 3 and passes.parameters["steps"] == 10, "given ones and defaults"
    assert (fails.passed, fails.checks_passed, fails.checks) == (False, 1, 2)
    assert fails.error == "“The idea”: IndexError: list index out of range"
    assert not dies.passed and "the kernel died" in dies.error
    assert all(0 < one.minutes < 3 for one in ran.outcomes)


def test_the_executed_notebook_is_kept_with_its_traceback(ran):
    kept = {path.stem: notebooks.read(path) for path in (ran.build / "notebooks").iterdir()}
    assert set(kept) == {"01_passes", "02_fails", "03_dies"}
    assert not errors(kept["01_passes"])
    assert [one.ename for one in errors(kept["02_fails"])] == ["IndexError"]
    for name, notebook in kept.items():
        source = notebooks.read(ran.home / "notebooks" / f"{name}.ipynb")
        assert notebook.metadata.survey.source_sha256 == notebooks.source_hash(source)


def test_outcomes_are_read_back_as_they_were_and_nothing_else_is_left(ran):
    assert runner.read_outcomes(ran.build) == ran.outcomes
    left = {path.name for path in ran.build.iterdir() if path.suffix != ".html"}
    assert left == {"notebooks", "outcomes"}, "nothing partial stays"


def test_progress_names_lesson_cell_and_heading(ran):
    of_first = [(index, cells, heading) for lesson, index, cells, heading in ran.cells if lesson.name == "01_passes"]
    assert {index for index, _, _ in of_first} == set(range(6)) and {cells for _, cells, _ in of_first} == {6}
    assert of_first[0][2] == "01 · One that passes" and of_first[-1] == (5, 6, "The idea")


def test_a_bad_parameter_is_refused_before_any_kernel(small, course, monkeypatch):
    monkeypatch.setattr(runner, "_papermill", lambda *_: pytest.fail("a kernel was started"))
    for given in ({"sed": 1}, {"steps": "ten"}, {"profile": "fast"}):
        with pytest.raises((ValueError, TypeError), match="accepted"):
            runner.run(small, given, course.build)
    assert not course.build.exists()


def test_a_parameter_goes_to_the_lessons_that_know_it(course, monkeypatch):
    course.write("01_has_scale")
    course.write("02_has_not", parameters="seed = 0")
    seen = {}
    monkeypatch.setattr(runner, "run_one", lambda lesson, given, *_, **__: seen.update({lesson.name: given}))
    both = notebooks.all_lessons(course.home)
    runner.run(both, {"scale": 2.0, "seed": 1}, course.build)
    assert seen == {"01_has_scale": {"scale": 2.0, "seed": 1}, "02_has_not": {"seed": 1}}
    with pytest.raises(ValueError, match='no parameter "width"'):
        runner.run(both, {"width": 3}, course.build)


def stub(monkeypatch, *attempts):
    """Put ``attempts`` in papermill's place: an exception is raised, a number reports that cell and goes on."""
    left = list(attempts)

    def papermill(lesson, parameters, partial, report, cell_seconds):
        nbformat.write(lesson.notebook, partial)
        for event in left.pop(0):
            if isinstance(event, Exception):
                raise event
            report(event)

    monkeypatch.setattr(runner, "_papermill", papermill)
    return left


def test_a_kernel_that_does_not_start_is_tried_once_more(small, course, monkeypatch):
    dead = RuntimeError("Kernel died before replying to kernel_info")
    left = stub(monkeypatch, [dead], [0, 1])
    assert runner.run(small, {}, course.build)[0].passed and not left
    left = stub(monkeypatch, [dead], [dead], [0])
    (outcome,) = runner.run(small, {}, course.build)
    assert outcome.error == "the kernel did not start, twice: Kernel died before replying to kernel_info"
    assert len(left) == 1, "no third attempt"


def test_a_kernel_that_dies_later_is_not_tried_again(small, course, monkeypatch):
    left = stub(monkeypatch, [0, 1, RuntimeError("Kernel died")], [0])
    assert "the kernel died" in runner.run(small, {}, course.build)[0].error
    assert len(left) == 1


def test_a_cell_that_takes_too_long_says_how_to_allow_more(small, course, monkeypatch):
    stub(monkeypatch, [0, 3, CellTimeoutError("too slow")])
    (outcome,) = runner.run(small, {}, course.build, cell_seconds=5)
    assert outcome.error == "“The idea”: a cell took longer than 5 s; --timeout allows more"


def test_a_full_disk_ends_the_run_and_leaves_what_was_there(small, course, monkeypatch):
    stub(monkeypatch, [0, 1])
    runner.run(small, {}, course.build)
    before = {path: path.read_bytes() for path in course.build.rglob("*") if path.is_file()}
    stub(monkeypatch, [0, OSError(errno.ENOSPC, "No space left on device")])
    with pytest.raises(OSError, match="No space left"):
        runner.run(small, {"seed": 9}, course.build)
    assert {path: path.read_bytes() for path in course.build.rglob("*") if path.is_file()} == before


def test_an_outcome_is_plain_json(ran):
    kept = json.loads((ran.build / "outcomes" / "01_passes.json").read_text())
    assert kept["lesson"] == "01_passes" and kept["parameters"]["seed"] == 3


def test_an_outcome_of_an_older_course_can_be_read(tmp_path, ran):
    kept = json.loads((ran.build / "outcomes" / "01_passes.json").read_text())
    (tmp_path / "outcomes").mkdir()
    (tmp_path / "outcomes" / "01_passes.json").write_text(json.dumps(kept | {"claims": [["a", "reproduced"]]}))
    assert runner.read_outcomes(tmp_path) == ran.outcomes[:1]


def test_a_kernel_is_given_absolute_paths(small, course, tmp_path, monkeypatch):
    """Paths in the environment are those of the folder where `survey` was called, not of the notebook's."""
    seen = {}

    def papermill(lesson, parameters, partial, report, cell_seconds):
        seen.update(os.environ)
        partial.write_bytes(lesson.path.read_bytes())

    monkeypatch.setattr(runner, "_papermill", papermill)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, given in (("SURVEY_DATA", "sets"), ("SURVEY_RESULTS", "~/kept"), ("SURVEY_HOME", "../here")):
        monkeypatch.setenv(name, given)
    runner.run(small, {}, course.build)
    assert seen["SURVEY_DATA"] == str(tmp_path / "sets") and seen["SURVEY_RESULTS"] == str(tmp_path / "kept")
    assert Path(seen["SURVEY_HOME"]).resolve() == (tmp_path.parent / "here").resolve()
    assert Path(seen["SURVEY_HOME"]).is_absolute()


def test_only_what_dead_processes_of_this_machine_left_is_removed(small, course, monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    kept = [runner._partial(os.getpid()), ".partial-another.machine-1-", ".partial-", ".partial-old"]
    for name in (*kept, runner._partial(ended.pid)):
        (course.build / f"{name}x").mkdir(parents=True)
    stub(monkeypatch, [0])
    runner.run(small, {}, course.build)
    assert sorted(path.name for path in course.build.glob(".partial-*")) == sorted(f"{name}x" for name in kept)


def test_checkpoints_that_cannot_be_kept_are_refused_before_a_training(small, course, monkeypatch, tmp_path):
    from survey_lib.lab.training import recipes

    (tmp_path / "file").touch()
    monkeypatch.setattr(recipes, "trial_folder", lambda steps: tmp_path / "file")
    with pytest.raises(OSError, match=r"file cannot be written \(.*\); without train=True a lesson uses"):
        runner.run(small, {"train": True}, course.build)
    stub(monkeypatch, [0])
    assert runner.run(small, {}, course.build)[0].passed
