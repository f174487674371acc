"""A run is resolved or refused with one sentence; a file is whole or absent."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survey_lib.lab import runtime

SMALL = settings(deadline=None, derandomize=True, max_examples=30)


@pytest.fixture(autouse=True)
def no_profile_from_outside(monkeypatch):
    monkeypatch.delenv("SURVEY_PROFILE", raising=False)


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def run(**parameters):
    return runtime.start("01_foundations_ddpm", **{"profile": "cpu"} | parameters)


def test_auto_is_resolved_by_the_environment_then_by_the_hardware(monkeypatch, without_gpu):
    assert run(profile="auto").profile == "cpu"
    monkeypatch.setenv("SURVEY_PROFILE", "smoke")
    assert run(profile="auto").profile == "smoke"
    assert run(profile="cpu").profile == "cpu", "a profile that is named wins over the environment"
    monkeypatch.setenv("SURVEY_PROFILE", "smokey")
    with pytest.raises(ValueError, match=r'SURVEY_PROFILE is "smokey" \(did you mean "smoke"\?\)'):
        run(profile="auto")


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert (run(profile="auto").profile, run(profile="auto").device) == ("gpu", "cuda")
    assert run(profile="cpu").device == "cpu", "the profile cpu means the same run on every machine"
    assert run(device="cuda:0").device == "cuda:0"
    with pytest.raises(RuntimeError, match="cuda:1"):
        run(device="cuda:1")


def test_a_gpu_that_is_not_there_is_refused_in_one_sentence(without_gpu):
    with pytest.raises(RuntimeError, match='profile "gpu" asks for a GPU that torch does not see'):
        run(profile="gpu")
    with pytest.raises(RuntimeError, match='device "cuda" asks for a GPU'):
        run(device="cuda")
    assert run(profile="gpu", device="cpu").device == "cpu"


@pytest.mark.parametrize(
    ("parameters", "error", "sentence"),
    [
        ({"profile": "gpuu"}, ValueError, r'profile is "gpuu" .*"gpu"\?.* accepted: auto, smoke, cpu, gpu'),
        ({"dataset": "mnits"}, ValueError, r'did you mean "mnist"\?.*cifar10, or a folder of images'),
        ({"dataset": ""}, ValueError, "accepted: glyphs"),
        ({"dataset": 3}, TypeError, r"dataset is 3 \(int\); a string is accepted"),
        ({"seed": "ten"}, TypeError, r'seed is "ten" \(str\); an int is accepted'),
        ({"seed": True}, TypeError, r"seed is True \(bool\); an int is accepted"),
        ({"seed": -1}, ValueError, "at least 0"),
        ({"train": "false"}, TypeError, "every non-empty string for true"),
        ({"train": 1}, TypeError, r"train is 1 \(int\); a bool"),
        ({"device": "tpu"}, ValueError, "accepted: auto, cpu, cuda"),
        ({"device": "cuda:"}, ValueError, "accepted: auto, cpu, cuda"),
    ],
)
def test_a_bad_parameter_is_named_with_what_is_accepted(parameters, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        run(**parameters)
    assert "\n" not in str(caught.value)


def test_a_folder_of_images_is_a_data_set(tmp_path, monkeypatch):
    assert run(dataset=str(tmp_path)).dataset == str(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "glyphs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run(dataset="images").dataset == str(tmp_path / "images")
    assert run(dataset="glyphs").dataset == "glyphs", "a name is a name, whatever folders there are"


def test_a_device_is_checked_in_one_sentence(without_gpu):
    assert runtime.check_device("cpu") == runtime.check_device("auto") == "cpu"
    for device, kind in (("gpu", ValueError), ("mps", ValueError), (0, TypeError), ("cuda:1", RuntimeError)):
        with pytest.raises(kind, match="device") as caught:
            runtime.check_device(device)
        assert "\n" not in str(caught.value)


def test_require_checks_a_lessons_own_parameters():
    assert runtime.require("scale", 2, float) == 2.0
    assert isinstance(runtime.require("scale", 2, float), float)
    assert runtime.require("sampler", "ddim", str, choices=("ddpm", "ddim")) == "ddim"
    with pytest.raises(ValueError, match="steps is -3; at least 1 is accepted"):
        runtime.require("steps", -3, int, low=1)
    with pytest.raises(ValueError, match=r"t is 1\.5; at most 1 is accepted"):
        runtime.require("t", 1.5, float, low=0, high=1)
    with pytest.raises(ValueError, match="a finite number"):
        runtime.require("scale", float("nan"), float)
    with pytest.raises(TypeError, match=r"steps is 2.5 \(float\); an int"):
        runtime.require("steps", 2.5, int)
    with pytest.raises(ValueError, match=r'did you mean "ddim"\?\); accepted: ddpm, ddim'):
        runtime.require("sampler", "dimm", str, choices=("ddpm", "ddim"))


@SMALL
@given(st.integers(0, 2**32 - 1), st.integers(0, 50), st.integers(0, 50))
def test_a_generator_depends_on_seed_and_salt_alone(seed, salt, other):
    chosen = run(seed=seed)
    first = torch.randn(4, generator=chosen.generator(salt))
    assert torch.equal(first, torch.randn(4, generator=chosen.generator(salt)))
    assert torch.equal(first, torch.randn(4, generator=chosen.generator(other))) == (salt == other)


def test_salt_zero_is_the_seed_itself():
    expected = torch.randn(4, generator=torch.Generator().manual_seed(7))
    assert torch.equal(expected, torch.randn(4, generator=run(seed=7).generator()))


def test_pick_and_note_follow_the_profile():
    smoke, cpu = run(profile="smoke"), run(profile="cpu")
    assert [r.pick(smoke=1, cpu=2, gpu=3) for r in (smoke, cpu)] == [1, 2]
    assert "smoke" in smoke.note and cpu.note == ""


def test_write_atomically_replaces_the_whole_file_and_makes_folders(tmp_path):
    path = tmp_path / "new" / "file.bin"
    runtime.write_atomically(path, b"first, and longer")
    runtime.write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(path.parent) == ["file.bin"]


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path, monkeypatch):
    path = tmp_path / "file.bin"
    runtime.write_atomically(path, b"old")

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"no space left for the 2.0 MB of file.bin"):
        runtime.write_atomically(path, bytes(2_000_000))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "file.bin"
    code = (
        "from survey_lib.lab.runtime import write_atomically\n"
        f"for n in range(10**9): write_atomically({str(path)!r}, bytes([n % 256]) * 300_000)\n"
    )
    for wait in (0.0, 0.01, 0.033):
        writer = subprocess.Popen([sys.executable, "-c", code])
        while not path.exists():
            assert writer.poll() is None
            time.sleep(0.005)
        time.sleep(wait)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        content = path.read_bytes()
        assert len(content) == 300_000 and len(set(content)) == 1
        path.unlink()
