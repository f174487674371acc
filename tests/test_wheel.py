"""A wheel is a whole course: its files go to the user's folder once, and the installed package stays as it is."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from survey_lib import home
from survey_lib.course.publishing import notebooks
from survey_lib.lab.runtime import HOME


def _bundle(folder):
    (folder / "notebooks").mkdir(parents=True)
    (folder / "notebooks" / "01_x.ipynb").write_text("{}")
    (folder / home.STAMP).write_text("1.2-abcd\n")
    return folder


def test_a_clone_is_its_own_home(tmp_path):
    environment = {}
    home.settle(environment, tmp_path / "none")
    assert environment == {} and not home.BUNDLED.exists()


def test_the_course_is_copied_once_and_what_is_in_the_copy_stays(tmp_path):
    bundled = _bundle(tmp_path / "bundled")
    copy = home.copied(bundled, tmp_path / "user")
    assert copy.name == "1.2-abcd" and (copy / "notebooks" / "01_x.ipynb").read_text() == "{}"
    (copy / "notebooks" / "01_x.ipynb").write_text("mine")
    assert home.copied(bundled, tmp_path / "user") == copy
    assert (copy / "notebooks" / "01_x.ipynb").read_text() == "mine"
    (bundled / home.STAMP).write_text("1.3-ef01\n")
    assert home.copied(bundled, tmp_path / "user").name == "1.3-ef01" and copy.exists(), "an older copy stays"
    assert sorted(path.name for path in (tmp_path / "user").iterdir()) == ["1.2-abcd", "1.3-ef01"], "and nothing else"


def test_a_given_home_is_kept(tmp_path):
    environment = {"SURVEY_HOME": "/mine"}
    home.settle(environment, _bundle(tmp_path / "bundled"))
    assert environment == {"SURVEY_HOME": "/mine"}


def test_a_place_that_cannot_be_written_is_told_in_a_sentence(tmp_path):
    bundled = _bundle(tmp_path / "bundled")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"the course cannot be copied to .*; make room there, or name a folder"):
        home.copied(bundled, tmp_path / "file" / "user")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A wheel made from this clone, and installed in a folder outside it."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(folder), str(HOME)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True, capture_output=True)
    return wheel, target


def _digests(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".pyc"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_an_installed_wheel_runs_a_lesson_outside_the_clone(installed, tmp_path):
    _, target = installed
    before = _digests(target)
    names = ("PATH", "LANG", "PIP_CONSTRAINT", "OMP_NUM_THREADS", "LD_LIBRARY_PATH")
    environment = {name: os.environ[name] for name in names if name in os.environ}
    environment |= {"PYTHONPATH": str(target), "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    environment |= {"APPDATA": str(tmp_path), "LOCALAPPDATA": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}

    def survey(*arguments):
        command = [sys.executable, "-m", "survey_lib", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    listed = survey("lessons")
    assert listed.returncode == 0, listed.stderr
    assert [line[:2] for line in listed.stdout.splitlines() if line[:1].isdigit()] == [
        lesson.number for lesson in notebooks.all_lessons()
    ]
    done = survey("run", "00", "--profile", "smoke")
    assert done.returncode == 0 and "00_survey_map" in done.stdout, done.stdout + done.stderr
    (page,) = tmp_path.rglob("build/index.html")
    assert page.is_relative_to(tmp_path) and not page.is_relative_to(HOME)
    assert _digests(target) == before, "the installed files stay as they are"


def test_a_wheel_holds_what_is_shipped_and_nothing_else(installed):
    wheel, _ = installed
    names = zipfile.ZipFile(wheel).namelist()
    inside = {name.removeprefix("survey_lib/_home/") for name in names if name.startswith("survey_lib/_home/")}
    tracked = subprocess.run(["git", "ls-files", "-z", "data", "notebooks"], cwd=HOME, capture_output=True, text=True)
    if tracked.returncode == 0:
        assert {name for name in tracked.stdout.split("\0") if name} <= inside
    assert not [
        name for name in inside if Path(name).parts[:2] in {("data", "cache"), ("data", "MNIST")} or "local" in name
    ]
    assert not [name for name in names if name.startswith(("tests/", "figures/"))]
