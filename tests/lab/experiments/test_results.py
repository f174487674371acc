"""Results: what is averaged and what never is, and the rows as tables, curves, points and bars."""

import math

import pytest

from survey_lib.lab import plots, runtime
from survey_lib.lab.experiments import Missing, Results, store


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "HOME", tmp_path)
    monkeypatch.delenv("SURVEY_RESULTS", raising=False)
    return tmp_path


def save(fd, sampler="DDIM", nfe=10, *, seed=0, profile="cpu", images=400, dataset="glyphs", **quality):
    run = runtime.Run("25_small", profile, seed, dataset, False, "cpu")
    about = {"quality": {"fd": fd, **quality}, "images": images, "evaluations": nfe, "macs": nfe * 10**9}
    store.save("25.samplers", run, {"sampler": sampler, "nfe": nfe}, **about)


def results(dataset="glyphs"):
    return Results.of("25.samplers", dataset)


@pytest.fixture
def rows():
    """Two samplers at two budgets, three seeds each; "2M" is the better one."""
    for seed, more in enumerate((0.0, 1.0, 5.0)):
        for sampler, fd in (("DDIM", 30.0), ("2M", 20.0)):
            for nfe in (10, 5):
                save(fd - nfe + more, sampler, nfe, seed=seed, floor=2.0 + seed)
    return results()


# ------------------------------------------------------------------ averages


def test_seeds_are_averaged_with_the_lowest_and_the_highest(rows):
    assert len(rows) == 4 and rows.settings == ("sampler", "nfe")
    one = rows.at(sampler="DDIM", nfe=10)
    (row,) = one.frame.to_dict("records")
    assert (row["fd"], row["fd_low"], row["fd_high"], row["seeds"], row["images"]) == (22, 20, 25, 3, 400)
    assert one.value("fd") == rows.value("fd", sampler="DDIM", nfe=10) == 22


@pytest.mark.parametrize("other", [{"images": 80}, {"profile": "smoke"}, {"profile": "gpu"}, {"dataset": "mnist"}])
def test_rows_of_another_n_profile_or_data_set_are_never_averaged(rows, other):
    save(1000.0, **other)
    assert results().frame.fd.max() == 27 and results().value("fd", sampler="DDIM", nfe=10) == 22


def test_the_largest_n_stands_alone(rows):
    save(1000.0, images=2000)
    (row,) = results().at(sampler="DDIM", nfe=10).frame.to_dict("records")
    assert (row["fd"], row["fd_low"], row["seeds"], row["images"]) == (1000, 1000, 1, 2000)
    assert "400 to 2000 samples" in results().table().caption


def test_smoke_runs_count_where_there_is_nothing_else():
    save(7.0, profile="smoke", images=80)
    assert results().value("fd") == 7
    save(8.0, "2M")
    assert results().value("fd") == 8 and len(results()) == 1


def test_a_number_that_some_rows_lack_is_averaged_over_the_others():
    save(1.0, seed=0, trajectory=4.0)
    save(3.0, seed=1)
    save(9.0, "2M")
    assert results().value("fd", sampler="DDIM") == 2 and results().value("trajectory", sampler="DDIM") == 4
    assert list(results().curves("sampler", "evaluations", "trajectory")) == ["DDIM"]
    assert "–" in str(results().table("sampler", "trajectory"))  # noqa: RUF001


# ------------------------------------------------------------------ rows


def test_rows_are_chosen_by_a_value_by_several_or_by_a_condition(rows):
    assert len(rows.at(nfe=5)) == 2 and len(rows.at(sampler=("DDIM", "2M"), nfe=5)) == 2
    assert len(rows.at(fd=lambda fd: fd < 15)) == 1 and len(rows.at(sampler="nobody")) == 0
    assert len(rows.at(unknown=1)) == 0 and math.isnan(rows.value("fd", sampler="nobody"))
    assert math.isnan(rows.value("unknown"))


def test_rows_are_shown_under_other_names_in_the_order_of_the_names(rows):
    names = {"2M": "two steps of memory", "DDIM": "no memory"}
    named = rows.sort("nfe").named(sampler=names, nfe={10: "ten", 5: "five"})
    assert named.listed("sampler", "nfe") == ", ".join(
        f"{name} {nfe}" for nfe in ("ten", "five") for name in names.values()
    )
    assert list(rows.named(sampler=names).curves("sampler", "evaluations", "fd")) == list(names.values())
    assert rows.named(sampler={"2M": "it"}).listed("sampler") == "it, it"
    assert not len(rows.named(sampler={"nobody": "x"})) and not len(rows.at(unknown=1).named(unknown={1: "x"}))


def test_the_best_the_front_and_the_first(rows):
    assert rows.best("sampler", by="fd").sort("fd").listed("sampler", "nfe") == "2M 10, DDIM 10"
    assert rows.front("evaluations", "fd").listed("sampler", "nfe") == "2M 5, 2M 10"
    save(12.5, "dear and no better", 20)
    save(0.5, "dear and better", 40)
    assert results().front("evaluations", "fd").listed("sampler") == "2M, 2M, dear and better"
    assert results().first("sampler", by="fd") == "dear and better"


def test_listed_numbers_are_short(rows):
    assert rows.at(sampler="2M", nfe=10).listed("sampler", "evaluations", "fd") == "2M 10 12"
    assert rows.at(sampler="nobody").listed("sampler") == "none"


# ------------------------------------------------------------------ figures and tables


def test_curves_points_and_bars_have_intervals(rows):
    curves = rows.curves("sampler", "evaluations", "fd")
    assert curves["2M"] == ([5, 10], [17, 12], [15, 10], [20, 15])
    assert rows.points("sampler", "nfe", x="macs", y="fd")["2M 10"] == (10**10, 12, 10, 15)
    assert rows.bars("sampler", "nfe", y="fd")["DDIM 5"] == (27, 25, 30)
    figure = plots.error_against_evaluations(curves, slopes=(), error="FD")
    assert "2M goes from 17 at 5 to 12 at 10" in figure.alt and figure.note == ""


def test_a_table_has_titles_units_and_says_seeds_n_and_floor(rows):
    made = rows.sort("fd").table(
        "sampler", "evaluations", "fd", "macs", names={"sampler": "method"}, caption="Measured"
    )
    assert made.header == ("method", "NFE", "FD", "GMACs")
    assert made.rows[0] == ("2M", "10", "12 (10 to 15)", "10")
    assert made.caption == "Measured; glyphs, mean (lowest to highest) of 3 seeds; 400 samples; floor of FD 3"
    assert rows.table().header == ("sampler", "nfe", "NFE", "GMACs", "FD", "floor")
    save(1.0, "alone", dataset="mnist")
    assert results("mnist").table().caption == "mnist, 1 seed; 400 samples"


def test_rows_older_than_their_code_are_marked_in_tables_and_figures(rows, monkeypatch):
    old = {"sampler": "DDIM", "nfe": 5, "seed": 1}
    monkeypatch.setattr(store, "stale", lambda row: "library" if old.items() <= row.items() else "")
    old = results()
    assert old.note == "1 of 4 results are older than their code" and old.note in old.table().caption
    figure = plots.error_against_evaluations(old.curves("sampler", "evaluations", "fd"), slopes=())
    assert figure.note == old.note and "older than their code" in figure.description
    one = old.at(sampler="2M")
    assert one.note == "" and plots.bars_with_interval(one.bars("nfe", y="fd"), quantity="FD").note == ""


def test_no_results_are_a_sentence_wherever_they_would_be_shown():
    none = Results.of("25.samplers", "glyphs", missing="Nothing here.")
    for empty in (none, none.at(nfe=5), none.sort("fd"), none.best("sampler", by="fd"), none.front("macs", "fd")):
        curves, points, bars = (
            empty.curves("sampler", "nfe", "fd"),
            empty.points("sampler", x="nfe", y="fd"),
            empty.bars("sampler", y="fd"),
        )
        for shown in (
            empty.table("sampler", "fd"),
            plots.error_against_evaluations(curves),
            plots.pareto(points, cost="NFE", quality="FD"),
            plots.bars_with_interval(bars, quantity="FD"),
        ):
            assert shown == Missing("Nothing here.") and repr(shown) == "Nothing here."
        assert not empty.note and empty.first("sampler", by="fd") is None and empty.listed("sampler") == "none"
        assert not len(empty.named(sampler={"2M": "x"})) and math.isnan(empty.value("fd"))
