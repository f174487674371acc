"""Records: written whole, read back as a table, replaced rather than repeated; a broken file is named and skipped."""

import json

import pytest

from survey_lib.lab import runtime
from survey_lib.lab.experiments import provenance, records, results


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
    assert row.code == str(provenance.fingerprint("01_foundations_ddpm", "glyphs")) and row.torch
    assert row.when.endswith("+00:00")


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


def test_a_relative_folder_counts_from_the_course_wherever_a_kernel_runs(home, run, monkeypatch):
    (home / "notebooks").mkdir()
    monkeypatch.chdir(home / "notebooks")
    monkeypatch.setenv("SURVEY_RESULTS", "data/elsewhere")
    assert _save(run).is_relative_to(home / "data" / "elsewhere")


def test_an_author_sees_the_shipped_records_alone(home, run, monkeypatch):
    _save(run, 1.0, folder=records.shipped())
    _save(run, 2.0)
    assert list(records.load(folder=records.shipped()).fd) == [1.0]
    monkeypatch.setenv("SURVEY_RESULTS", "data/results")
    assert list(records.load().fd) == [1.0]


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
    with pytest.raises(ValueError, match="two things in one record: code"):
        records.save("01.steps", run, settings={"code": 1}, quality={"fd": 1.0})
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


def test_a_record_says_what_has_changed_since(home, run):
    path = _save(run)
    assert records.older(records.load()) == [""]
    record = json.loads(path.read_text())
    library, cells, weights = record["versions"]["code"].split("-")
    for code, said in (
        (f"00000000-{cells}-{weights}", "library"),
        (f"{library}-00000000-11111111", "cells, checkpoints"),
        ("d51218421d1d", "unknown"),
    ):
        path.write_text(json.dumps(record | {"versions": record["versions"] | {"code": code}}))
        assert records.older(records.load()) == [said]


def test_results_draw_seeds_together_and_tell_what_is_older(home, run):
    for seed, fd in enumerate((1.0, 2.0, 6.0)):
        _save(run, fd, seed=seed)
    text = results.show(records.load())
    assert "01.steps\n" in text and "3 (1 to 6)" in text and "3 records, all of the code as it is" in text
    assert len(results.show(records.load(), each=True).splitlines()) == len(text.splitlines()) + 2
    old = next((home / "data").rglob("*.json"))
    old.write_text(old.read_text().replace(records.load().code[0], "d51218421d1d"))
    assert "unknown (1 of 3)" in results.show(records.load())


def test_results_can_be_chosen_from_and_say_what_there_is(home, run):
    _save(run)
    _save(runtime.Run("02_foundations_measuring", "smoke", 0, "mnist", False, "cpu"))
    table = records.load()
    assert list(results.select(table, lesson="2").dataset) == ["mnist"]
    assert list(results.select(table, lesson="01_found", profile="cpu").dataset) == ["glyphs"]
    with pytest.raises(ValueError, match='no record has dataset "cifar10"; there are glyphs, mnist'):
        results.select(table, dataset="cifar10")


def test_seeds_are_drawn_together_by_the_settings_asked_for(home):
    for seed, fd in enumerate((1.0, 2.0, 6.0)):
        about = {"settings": {"steps": 5, "images": 100}, "quality": {"fd": fd}, "seed": seed}
        records.save("11.kinds", runtime.start("11_x", profile="cpu"), **about)
    records.save(
        "11.kinds", runtime.start("11_x", profile="cpu"), settings={"steps": 5, "images": 9}, quality={"fd": 99}
    )
    records.save("11.kinds", runtime.start("11_x", profile="smoke"), settings={"steps": 5}, quality={"fd": 99})
    (row,) = results.over_seeds("11.kinds", "glyphs", "steps").to_dict("records")
    assert (row["fd"], row["low"], row["high"], row["seeds"]) == (3, 1, 6, 3)
    assert results.over_seeds("11.kinds", "mnist", "steps").empty
