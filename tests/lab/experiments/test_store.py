"""The store of results: files whole or absent, rows that replace each other, tables that ship without a loss."""

import builtins
import json
import os
from pathlib import Path

import pytest

from survey_lib.lab import runtime
from survey_lib.lab.experiments import provenance, store, tables

RUN = runtime.Run("01_small", "cpu", 3, "glyphs", False, "cpu")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "HOME", tmp_path)
    monkeypatch.delenv("SURVEY_RESULTS", raising=False)
    return tmp_path


def save(fd=2.5, steps=20, *, seed=3, profile="cpu", dataset="glyphs", date=None, experiment="01.steps", **about):
    path = store.save(
        experiment,
        runtime.Run("01_small", profile, seed, dataset, False, "cpu"),
        {"steps": steps, **about.pop("settings", {})},
        quality={"fd": fd},
        **{"images": 500, **about},
    )
    return path if date is None else edit(path, lambda row: row["run"].update(date=date))


def edit(path, change):
    row = json.loads(path.read_text())
    change(row)
    path.write_text(json.dumps(row))
    return path


def found(experiment="01.steps", column="fd"):
    return sorted(store.load(experiment)[column])


def shipped_files(home):
    return {path.name: path.read_bytes() for path in (home / "data" / "results").glob("*.csv")}


# ------------------------------------------------------------------ one measurement


def test_a_measurement_comes_back_as_a_row_with_its_run(home):
    path = save(evaluations=20, macs=10**9, core_seconds=0.25, settings={"sampler": "2M", "guided": True, "eta": 1.0})
    assert path.is_relative_to(home / "data" / "results" / "local" / "01.steps")
    row = store.load("01.steps").iloc[0]
    assert (row.experiment, row.lesson, row.dataset, row.profile, row.seed) == (
        "01.steps",
        "01_small",
        "glyphs",
        "cpu",
        3,
    )
    assert (row.fd, row.images, row.steps, row.evaluations, row.macs, row.core_seconds) == (
        2.5,
        500,
        20,
        20,
        10**9,
        0.25,
    )
    assert (row.sampler, row.guided, row.eta, row.stale) == ("2M", True, 1.0, "")
    assert row.code == str(provenance.fingerprint("01_small", "glyphs", "01.steps")) and row.torch and row.date
    assert store.load("02.other").empty and "profile" in store.load("02.other")


def test_measuring_again_replaces_and_another_setting_seed_n_or_profile_adds(home):
    save(1.0)
    save(2.0)
    others = {"steps": 10}, {"seed": 4}, {"images": 80}, {"profile": "gpu"}, {"dataset": "mnist"}
    for number, other in enumerate(others, 3):
        save(float(number), **other)
    assert found() == [2, 3, 4, 5, 6, 7]
    for parent in ("a", "b"):
        save(dataset=f"/{parent}/pictures")
    assert len(found()) == 8


def test_a_write_that_fails_leaves_the_old_file(monkeypatch):
    path = save(1.0)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(OSError, match="no"):
        save(2.0)
    assert found() == [1.0] and [one.name for one in path.parent.iterdir()] == [path.name]


def test_the_environment_names_another_folder_that_counts_from_the_course(home, monkeypatch):
    monkeypatch.chdir("/")
    monkeypatch.setenv("SURVEY_RESULTS", "build/results")
    assert save().is_relative_to(home / "build" / "results") and len(store.load()) == 1
    monkeypatch.setenv("SURVEY_RESULTS", str(home / "elsewhere"))
    assert save().is_relative_to(home / "elsewhere") and len(store.load()) == 1


@pytest.mark.parametrize(
    ("experiment", "settings", "numbers", "kind", "sentence"),
    [
        ("../out", {}, {}, ValueError, "letters, digits, dots and dashes; got '../out'"),
        ("01.x", {"fd": 1}, {}, ValueError, "these names have two meanings in one result: fd"),
        ("01.x", {"code": 1}, {}, ValueError, "two meanings in one result: code"),
        ("01.x", {"times": [1, 2]}, {}, TypeError, r"the setting times is \[1, 2\]; a text, a number or a bool"),
        ("01.x", {"times": None}, {}, TypeError, "the setting times is None"),
        ("01.x", {"steps": "5"}, {}, ValueError, 'the setting steps is the text "5"; give a number or a bool'),
        ("01.x", {"steps": "True"}, {}, ValueError, 'the text "True"'),
        ("01.x", {"steps": ""}, {}, ValueError, 'the text ""'),
        ("01.x", {"eta": float("nan")}, {}, ValueError, "eta is nan; a finite number"),
        ("01.x", {}, {"quality": {"fd": float("nan")}}, ValueError, "fd is nan; a finite number is accepted"),
        ("01.x", {}, {"evaluations": float("inf")}, ValueError, "evaluations is inf; a finite number is accepted"),
        ("01.x", {}, {"quality": {"fd": "good"}}, TypeError, "fd is 'good'; a number is accepted"),
        ("01.x", {}, {"quality": {"fd": True}}, TypeError, "fd is True; a number is accepted"),
    ],
)  # fmt: skip
def test_what_is_not_a_result_is_refused(home, experiment, settings, numbers, kind, sentence):
    with pytest.raises(kind, match=sentence):
        store.save(experiment, RUN, settings, **{"quality": {"fd": 1.0}, **numbers})
    assert not (home / "data").exists()


# ------------------------------------------------------------------ damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: "[]",
        lambda text: '"text"',
        lambda text: '{"experiment": "01.steps"}',
        lambda text: "\udcff",
        lambda text: text.replace('"fd": 2.5', '"fd": NaN'),
        lambda text: text.replace('"steps": 20', '"steps": [20]'),
        lambda text: text.replace('"code": "', '"code": 1, "was": "'),
    ],
    ids=["cut", "list", "text", "thin", "bytes", "NaN", "list setting", "code"],
)
def test_a_damaged_local_file_is_named_and_left_out(damage):
    whole = save()
    broken = whole.with_name("broken.json")
    broken.write_bytes(damage(whole.read_text()).encode("utf-8", "surrogateescape"))
    with pytest.warns(UserWarning, match=r"broken\.json is not a result and is left out"):
        assert found() == [2.5]
    with pytest.warns(UserWarning):
        store.ship()
    assert broken.exists() and not whole.exists()


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("01.steps.csv", lambda text: text + "<<<<<<< ours\n"),
        ("01.steps.csv", lambda text: ""),
        ("01.steps.csv", lambda text: text.replace("seed", "sead")),
        ("01.steps.csv", lambda text: text.replace("glyphs,3", "glyphs,three")),
        ("01.steps.csv", lambda text: text[:-1] + "0\n"),
        ("01.steps.csv", lambda text: "\udcff" + text),
        ("runs.csv", lambda text: text.partition("\n")[0] + "\n"),
        ("runs.csv", lambda text: text.replace("device", "devise")),
    ],
)
def test_a_damaged_table_is_named(home, file, damage):
    save()
    store.ship()
    path = home / "data" / "results" / file
    path.write_bytes(damage(path.read_text()).encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"(01\.steps|runs)\.csv (is damaged|cannot be read)[^\n]*; restore the file$"):
        store.load("01.steps")


def test_a_table_without_its_runs_is_named(home):
    save()
    store.ship()
    (home / "data" / "results" / "runs.csv").unlink()
    with pytest.raises(ValueError, match=r"runs\.csv cannot be read .*; restore the file"):
        store.load("01.steps")


# ------------------------------------------------------------------ shipping


def exact_parts():
    """The parts of all rows that are kept to the last digit, by their number of steps."""
    rounded = ("quality", "core_seconds", "path")
    return {row["settings"]["steps"]: {k: v for k, v in row.items() if k not in rounded} for row in store.rows()}


def test_shipped_rows_are_the_local_ones_with_six_digits(home):
    save(1 / 3, evaluations=20.0, macs=123456789, core_seconds=1e-7 / 3, settings={"eta": 0.0, "text": 'a, "b"\nc'})
    save(2.0, 50, settings={"guided": True})
    before = exact_parts()
    assert store.ship() == ["01.steps"]
    assert not list((home / "data" / "results" / "local").rglob("*.json"))
    assert exact_parts() == before
    first, second = sorted(store.rows(), key=lambda row: row["settings"]["steps"])
    assert first["quality"] == {"fd": 0.333333} and first["core_seconds"] == 3.33333e-8
    assert [type(value) for value in first["settings"].values()] == [int, float, str]
    assert second["settings"] == {"steps": 50, "guided": True} and second["evaluations"] is None


def test_a_local_row_replaces_the_shipped_row_of_the_same_key_and_no_other():
    save(1.0)
    save(5.0, images=80)
    store.ship()
    save(2.0, date="2000-01-01")
    assert found() == [2.0, 5.0]


def test_shipping_keeps_the_newest_of_doubled_rows_and_leaves_smoke_behind(home):
    save(1.0, date="2026-01-02")
    save(9.0, profile="smoke")
    store.ship()
    save(2.0, date="2026-01-01")
    assert store.ship() == ["01.steps"] and found() == [1.0, 9.0]
    save(3.0, date="2026-01-03")
    save(4.0, experiment="02.other")
    assert store.ship() == ["01.steps", "02.other"] and found() == [3.0, 9.0]
    assert b"smoke" not in b"".join(shipped_files(home).values())
    assert len(store.rows("01.steps", folder=home / "nothing here")) == 1


def test_a_merge_that_doubles_a_row_is_read_as_the_newest_and_tidied(home):
    def ours():
        return (home / "data" / "results" / "01.steps.csv").read_text().splitlines(keepends=True)

    save(3.0, date="2026-01-03")
    store.ship()
    rows, runs = ours(), (home / "data" / "results" / "runs.csv").read_text()
    save(4.0, date="2026-01-04")
    store.ship()
    merged = [*ours(), rows[1]]
    (home / "data" / "results" / "01.steps.csv").write_text("".join(merged))
    (home / "data" / "results" / "runs.csv").open("a").write(runs.splitlines(keepends=True)[1])
    assert found() == [4.0]
    assert store.ship() == [] and ours() == merged[:2]


def test_shipping_again_changes_nothing_whatever_the_settings(home):
    for number, settings in enumerate(({"b": "x"}, {"a": "y", "c": 1}, {"c": 2.0, "b": "z"})):
        save(float(number), settings=settings)
    save(7.0, experiment="02.other", settings={"grid": "even"})
    store.ship()
    once = shipped_files(home)
    assert set(once) == {"01.steps.csv", "02.other.csv", "runs.csv"}
    assert store.ship() == [] and shipped_files(home) == once


@pytest.mark.parametrize("writes", range(5))
def test_a_shipment_that_is_stopped_loses_nothing_and_the_next_completes_it(home, monkeypatch, writes):
    for experiment in ("01.steps", "02.other"):
        save(1.0, date="2026-01-01", experiment=experiment)
    store.ship()
    for experiment in ("01.steps", "02.other"):
        save(2.0, experiment=experiment)
        save(3.0, 50, experiment=experiment)
    write, left = tables._write, list(range(writes))

    def stops(*given):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        write(*given)

    monkeypatch.setattr(tables, "_write", stops)
    if writes < 4:
        with pytest.raises(KeyboardInterrupt):
            store.ship()
    else:
        store.ship()
    assert found("01.steps") == found("02.other") == [2.0, 3.0]
    monkeypatch.setattr(tables, "_write", write)
    store.ship()
    assert found("01.steps") == found("02.other") == [2.0, 3.0]
    assert len(tables.read(store.shipped())) == 4 and not list((home / "data").rglob("*.json"))
    assert len((home / "data" / "results" / "runs.csv").read_text().splitlines()) == 2, "the old run is gone"


# ------------------------------------------------------------------ reading


def test_loading_one_experiment_opens_two_files_and_the_local_ones(monkeypatch):
    for experiment in ("01.steps", "01.other", "02.third"):
        save(experiment=experiment)
    store.ship()
    local = {save(steps=50).name, save(steps=60).name}
    save(experiment="01.other", steps=50)
    opened, read_bytes, real_open = [], Path.read_bytes, builtins.open
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path.name) or read_bytes(path))
    monkeypatch.setattr(
        builtins, "open", lambda path, *a, **b: opened.append(Path(path).name) or real_open(path, *a, **b)
    )
    assert len(store.load("01.steps")) == 3
    assert sorted(name for name in opened if name.endswith(("csv", "json"))) == sorted(
        {"01.steps.csv", "runs.csv"} | local
    )


def test_a_row_says_what_has_changed_since(home):
    path = save()
    library, cells, checkpoints = json.loads(path.read_text())["run"]["code"].split("-")
    for code, said in (
        (f"{library}-{cells}-{checkpoints}", ""),
        (f"00000000-{cells}-{checkpoints}", "library"),
        (f"{library}-00000000-11111111", "cells, checkpoints"),
        ("d51218421d1d", "unknown"),
    ):
        edit(path, lambda row, code=code: row["run"].update(code=code))
        assert found(column="stale") == [said]
    store.ship()
    assert found(column="stale") == ["unknown"]


def test_results_are_selected_by_lesson_or_name_and_a_wrong_name_gets_a_suggestion():
    for experiment in ("01.steps", "10.sweep", "10.best"):
        save(experiment=experiment)
    store.ship()
    save(experiment="11.local")
    assert store.select() == ["01.steps", "10.best", "10.sweep", "11.local"]
    assert store.select("10") == ["10.best", "10.sweep"] and store.select("1") == store.select("01") == ["01.steps"]
    assert store.select("11.local") == ["11.local"]
    with pytest.raises(
        ValueError, match=r'no results of "10.swep" \(did you mean "10.sweep"\?\); there are 01.steps, '
    ):
        store.select("10.swep")
