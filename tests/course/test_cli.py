"""The command line answers at once and in one sentence; a run may be stopped or killed at any moment."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from survey_lib.course import cli, progress
from survey_lib.course.publishing import notebooks, runner

SURVEY = [sys.executable, "-c", "from survey_lib.course.cli import main; main()"]


@pytest.fixture
def here(course, monkeypatch):
    """The small course as the home of the commands called in this process."""
    monkeypatch.setattr(notebooks.all_lessons, "__defaults__", (course.home,))
    monkeypatch.setattr(notebooks.select, "__defaults__", (course.home,))
    course.write()
    return course


def survey(*arguments):
    return CliRunner().invoke(cli.main, [str(one) for one in arguments])


def test_every_command_has_help_of_one_line():
    overview = survey("--help")
    assert overview.exit_code == 0
    for name, command in cli.main.commands.items():
        first = command.get_short_help_str(limit=200)
        assert first and len(first) < 70, name
        assert survey(name, "--help").exit_code == 0


def test_help_and_refusals_do_not_load_torch():
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom survey_lib.course.cli import main\n"
        "CliRunner().invoke(main, ['--help'])\nprint([name for name in ('torch', 'papermill') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "7"], 'there is no lesson "7"; accepted: 01_small'),
        (["run", "01", "-p", "sed", "3"], 'did you mean "seed"?'),
        (["run", "01", "-p", "steps", "ten"], 'steps is "ten" (str); an int is accepted'),
        (["run", "01", "-p", "steps", "-3"], "steps is -3; at least 1 is accepted"),
        (["run", "01", "-p", "train", "false"], "only True or False is accepted"),
        (["run", "--dataset", "mnits"], 'did you mean "mnist"?'),
        (["run", "--profile", "fast"], "accepted: auto, smoke, cpu, gpu"),
        (["run", "--profile", "cpu", "-p", "profile", "smoke"], '"profile" is given twice'),
        (["train", "glyphs_bass"], 'did you mean "glyphs_base"?'),
        (["train", "nosuch"], "accepted: glyphs_features, glyphs_features2, glyphs_base"),
        (["train", "digits_codes"], 'no training "digits_codes"'),
        (["train", "glyphs_base", "--device", "gpu"], 'device is "gpu"; accepted: auto, cpu, cuda'),
        (["train", "glyphs_base", "--device", "mps"], 'device is "mps"; accepted'),
        (["train", "glyphs_base", "--device", "cuda:77"], "asks for a GPU that torch does not see here"),
    ],
)
def test_a_mistake_gets_one_sentence(here, monkeypatch, arguments, sentence):
    monkeypatch.setattr(runner, "_papermill", lambda *_: pytest.fail("a kernel was started"))
    result = survey(*arguments)
    assert result.exit_code == 1
    assert sentence in result.output and result.output.startswith("Error: ") and result.output.count("\n") == 1


def test_values_reach_the_lesson_with_their_types(here, monkeypatch):
    seen = {}
    monkeypatch.setattr(progress, "run_lessons", lambda chosen, given, *_: seen.update(given) or [])
    assert (
        survey("run", "-p", "seed", "3", "-p", "scale", "2", "--dataset", "digits", "--profile", "smoke").exit_code == 0
    )
    assert seen == {"seed": 3, "scale": 2, "dataset": "digits", "profile": "smoke"}


def test_outputs_keep_their_results_apart_and_lesson_00_runs_last(here, monkeypatch):
    here.write("00_map")
    seen = []

    def run(chosen, *_):
        seen.append(([one.name for one in chosen], os.environ["SURVEY_RESULTS"]))
        raise ValueError("that will do")

    monkeypatch.setattr(progress, "run_lessons", run)
    monkeypatch.setenv("SURVEY_RESULTS", "elsewhere")
    assert survey("outputs").output == "Error: that will do\n"
    assert seen == [(["01_small", "00_map"], str(cli.HOME / "build" / "results"))]
    assert os.environ["SURVEY_RESULTS"] == "elsewhere"


def test_only_a_whole_training_goes_to_the_shipped_checkpoints(monkeypatch):
    from survey_lib.lab.training import checkpoints, recipes

    asked = []

    def train(name, *, device, steps, root):
        asked.append((steps, root))
        return (root or recipes.trial_folder(steps)) / f"{name}.safetensors"

    monkeypatch.setattr(recipes, "train", train)
    whole, trial = survey("train", "glyphs_base"), survey("train", "glyphs_base", "--steps", 3)
    assert asked == [(None, checkpoints.folder()), (3, None)]
    assert "data/checkpoints/glyphs_base.safetensors" in whole.output and "a trial" not in whole.output
    assert "build/checkpoints/3_steps/glyphs_base.safetensors, a trial" in trial.output
    assert survey("train").output.split() == recipes.names()


@pytest.fixture
def opened(monkeypatch):
    """What JupyterLab was asked to open."""
    paths = []
    monkeypatch.setattr(os, "execv", lambda program, call: paths.append(Path(call[-1])))
    return paths


def test_lab_opens_the_learners_copy_and_solved_the_lesson_itself(here, opened):
    lesson = here.home / "notebooks" / "01_small.ipynb"
    before = lesson.read_bytes()
    assert "01_small.ipynb is your copy without solutions" in survey("lab").output
    assert survey("lab", "1", "--solved").exit_code == 0
    assert opened == [here.home / "lab" / "01_small.ipynb", lesson]
    assert lesson.read_bytes() == before
    both = survey("lab", "--solved", "--fresh")
    assert both.exit_code == 2 and "give one of them" in both.output and len(opened) == 2
    assert survey("lab", "7").output == 'Error: there is no lesson "7"; accepted: 01_small, or their numbers\n'


def test_results_that_cannot_be_kept_are_refused_before_a_kernel_starts(here, monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "_papermill", lambda *_: pytest.fail("a kernel was started"))
    (tmp_path / "file").touch()
    monkeypatch.setenv("SURVEY_RESULTS", str(tmp_path / "file" / "results"))
    result = survey("run", "--out", here.build)
    assert result.exit_code == 1 and result.output.count("\n") == 1
    assert "cannot be written (Not a directory); SURVEY_RESULTS names another folder for results" in result.output
    file = here.home / "two.yml"
    file.write_text('lesson: "01"\ngrid: {seed: [0, 1]}\n')
    assert survey("sweep", file, "--out", here.build).output == result.output


def test_the_package_is_the_command():
    done = subprocess.run([sys.executable, "-m", "survey_lib", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("survey, version ")


def test_lessons_are_listed_with_their_parameters(here):
    listed = survey("lessons").output
    assert "01  A small lesson\n    profile = 'auto', seed = 0" in listed and "\n    data sets: glyphs, " in listed


def test_a_disk_error_is_a_sentence_too():
    @cli.main.command("full")
    def full():
        raise OSError(28, "No space left on device", "build/x.ipynb")

    try:
        result = survey("full")
    finally:
        del cli.main.commands["full"]
    assert result.output == "Error: No space left on device: build/x.ipynb\n"
    assert isinstance(full, click.Command)


def stopped(course, sign):
    """``survey run`` on a lesson that sleeps, stopped in the middle of it."""
    begun = course.home / "begun"
    course.write(
        "01_small", body=("import time\nfrom pathlib import Path", f"Path({str(begun)!r}).touch()\ntime.sleep(60)")
    )
    process = subprocess.Popen(
        [*SURVEY, "run"],
        env=os.environ | {"SURVEY_HOME": str(course.home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not begun.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(sign)
    _, error = process.communicate(timeout=60)
    return process.returncode, error


def test_a_killed_run_leaves_the_last_whole_files_and_the_next_run_works(course, monkeypatch):
    (course.build / "notebooks").mkdir(parents=True)
    old = course.build / "notebooks" / "01_small.ipynb"
    old.write_bytes(course.write().read_bytes())
    before = old.read_bytes()
    code, _ = stopped(course, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert old.read_bytes() == before
    assert runner.read_outcomes(course.build) == []
    assert len(list(course.build.glob(".partial-*"))) == 1
    course.write()
    (outcome,) = runner.run(notebooks.all_lessons(course.home), {}, course.build)
    assert outcome.passed and notebooks.read(old).cells[-1].execution_count
    assert not list(course.build.glob(".partial-*"))


def test_ctrl_c_gets_one_sentence(course):
    code, error = stopped(course, signal.SIGINT)
    assert code == 130
    assert error.strip() == "Stopped. What was finished is kept, and nothing half-written is left to be read."
    assert not list(course.build.rglob("*.ipynb"))


def test_a_run_makes_pages_and_tells_by_its_exit_code(here, monkeypatch):
    def papermill(lesson, parameters, partial, report, cell_seconds):
        partial.write_bytes(lesson.path.read_bytes())
        report(0)
        if parameters["seed"] == 13:
            raise RuntimeError("Kernel died")

    monkeypatch.setattr(runner, "_papermill", papermill)
    good = survey("run", "-p", "seed", "1", "--out", here.build)
    assert good.exit_code == 0 and "01_small passed" in good.output and (here.build / "01_small.html").exists()
    bad = survey("run", "-p", "seed", "13", "--out", here.build)
    assert bad.exit_code == 1 and "01_small failed at" in bad.output
    assert "failed" in (here.build / "index.html").read_text()
