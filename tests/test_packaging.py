"""What a newcomer relies on: one list of dependencies, commands that exist, a clone that is small."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from survey_lib.course import cli

HOME = Path(__file__).parents[1]
PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
README = (HOME / "README.md").read_text()


def required():
    """The dependencies of the package and of its tests, extras of its own unfolded."""
    extras = PROJECT["optional-dependencies"]
    own = [one for one in extras["test"] if one.startswith("survey_lib[")]
    named = {name for one in own for name in re.search(r"\[(.*)\]", one)[1].split(",")}
    listed = [*PROJECT["dependencies"], *extras["test"], *(one for name in named for one in extras[name])]
    return {one for one in listed if one not in own}


def commands():
    """Every command line in the README's blocks, without its comment."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line.split("#")[0].split() for language, block in blocks if not language for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_list_for_conda_is_that_of_pip():
    environment = yaml.safe_load((HOME / "environment.yml").read_text())["dependencies"]
    (from_pip,) = [one["pip"] for one in environment if isinstance(one, dict)]
    assert len(set(from_pip)) == len(from_pip)
    assert set(from_pip) == required() | {"-e ."}
    assert f"python{PROJECT['requires-python']}" in environment


def test_no_version_is_pinned_from_above():
    assert not [one for one in required() if re.search(r"==|<|~=", one)]


def test_every_command_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z]+):", (HOME / "Makefile").read_text(), re.MULTILINE))
    found = commands()
    assert {"make", "survey"} <= {line[0] for line in found}
    for name, command, *rest in (line for line in found if line[0] in ("make", "survey")):
        if name == "make":
            assert command in targets, f"make {command}"
            assert all(re.fullmatch(r"(LESSON|PROFILE|DATASET|SEED)=\w+", one) for one in rest)
        else:
            known = {option for parameter in cli.main.commands[command].params for option in parameter.opts}
            assert {one for one in rest if one.startswith("-")} <= known, f"survey {command}"


def test_every_file_that_the_readme_names_exists():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links and all((HOME / link).exists() for link in links), links


def test_what_make_passes_to_the_command_line_is_accepted_there():
    dry = ["make", "--always-make", "--dry-run", "course", "LESSON=01", "PROFILE=smoke", "DATASET=mnist", "SEED=3"]
    printed = subprocess.run(dry, cwd=HOME, capture_output=True, text=True, check=True).stdout
    assert ".venv/bin/survey run 01 --profile smoke --dataset mnist -p seed 3" in printed


def test_an_old_python_is_refused_with_one_sentence(tmp_path):
    old = tmp_path / "python-of-2015"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    (tmp_path / "pyproject.toml").touch()
    answer = subprocess.run(
        ["make", "-f", str(HOME / "Makefile"), "course", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert answer.returncode != 0
    assert "needs Python 3.11 or later" in answer.stdout and not (tmp_path / ".venv").exists()


@pytest.mark.skipif(not (HOME / ".git").exists(), reason="not a clone")
def test_a_clone_of_depth_1_downloads_less_than_100_mb():
    packing = ["git", "pack-objects", "--revs", "--stdout", "--delta-base-offset", "--quiet"]
    pack = subprocess.run(packing, cwd=HOME, input=b"HEAD^{tree}\n", capture_output=True, check=True).stdout
    assert 1e6 < len(pack) < 100e6, f"git sends {len(pack) / 1e6:.0f} MB"
