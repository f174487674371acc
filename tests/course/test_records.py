"""Records: written whole, read back as a table, replaced rather than repeated; a broken file is named and skipped."""

import json

import pytest

from survey_lib.course import records
from survey_lib.lab import runtime


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "HOME", tmp_path)
    monkeypatch.delenv("SURVEY_RESULTS", raising=False)
    return tmp_path


@pytest.fixture
def run():
    return runtime.Run("01_foundations_ddpm", "cpu", 3, "glyphs", False, "cpu")


def _save(run, fd=2.5, **options):
    return records.save("01.steps", run, settings={"steps": 20}, quality={"fd": fd}, samples={"fd": 500}, **options)


def test_a_record_comes_back_as_a_row(home, run):
    path = _save(run, evaluations=20, macs=10**9, core_seconds=1.5)
    assert path.is_relative_to(home / "data" / "results" / "local")
    row = records.load("01.steps").iloc[0]
    assert (row.lesson, row.dataset, row.profile, row.seed) == ("01_foundations_ddpm", "glyphs", "cpu", 3)
    assert (row.fd, row.samples_fd, row.steps, row.evaluations, row.macs) == (2.5, 500, 20, 20, 10**9)
    assert row.code == records.code_hash() and len(row.code) == 12 and row.torch and row.when.endswith("+00:00")


def test_measuring_again_replaces_and_other_settings_add(home, run):
    _save(run, 1.0)
    _save(run, 2.0)
    _save(run, 3.0, seed=4)
    records.save("01.steps", run, settings={"steps": 10}, quality={"fd": 9.0})
    assert sorted(records.load("01.steps").fd) == [2.0, 3.0, 9.0]
    assert len(records.load("02.other")) == 0 and "profile" in records.load("02.other")


def test_a_local_record_stands_for_the_shipped_one(home, run):
    _save(run, 1.0, folder=records.shipped())
    assert list(records.load().fd) == [1.0]
    _save(run, 2.0)
    assert list(records.load().fd) == [2.0]


def test_the_environment_names_another_folder(home, run, tmp_path, monkeypatch):
    monkeypatch.setenv("SURVEY_RESULTS", str(tmp_path / "elsewhere"))
    assert _save(run).is_relative_to(tmp_path / "elsewhere")
    assert len(records.load()) == 1


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"experiment": "01.steps"}', "\udcff"], ids=["cut", "list", "thin", "bytes"]
)
def test_a_broken_file_is_named_and_skipped(home, run, content):
    whole = _save(run)
    broken = whole.with_name("broken.json")
    broken.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.warns(UserWarning, match="broken.json holds no record"):
        assert len(records.load()) == 1


def test_what_makes_no_record_is_refused(home, run):
    with pytest.raises(ValueError, match="letters, digits"):
        records.save("../out", run, quality={})
    with pytest.raises(ValueError, match="two things in one record: fd"):
        records.save("01.steps", run, settings={"fd": 1}, quality={"fd": 1.0})
    with pytest.raises(TypeError, match="a record holds numbers"):
        records.save("01.steps", run, quality={"fd": "good"})
    with pytest.raises(ValueError, match="not measured: kid"):
        records.save("01.steps", run, quality={"fd": 1.0}, samples={"kid": 5})
    assert not (home / "data").exists()


def test_two_folders_of_images_do_not_share_a_record(home):
    for parent in ("a", "b"):
        _save(runtime.Run("01", "cpu", 0, f"/{parent}/pictures", False, "cpu"))
    assert len(records.load()) == 2


def test_records_are_plain_json(home, run):
    assert json.loads(_save(run).read_text())["quality"] == {"fd": 2.5}
