"""Experiments: which settings are measured, what is kept of each, and what is shown where nothing was measured."""

import warnings

import pytest
import torch

from survey_lib.lab import runtime
from survey_lib.lab.evaluation.evaluator import Measurement
from survey_lib.lab.experiments import Experiment, product, store

SETTINGS = product(sampler=("DDIM", "2M"), nfe=(5, 10))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "HOME", tmp_path)
    monkeypatch.delenv("SURVEY_RESULTS", raising=False)
    return tmp_path


def run(profile="cpu", seed=3):
    return runtime.Run("25_small", profile, seed, "glyphs", False, "cpu")


class Counted:
    """``measure(**settings)`` that remembers what it was asked for."""

    def __init__(self, answer=lambda **settings: {"fd": float(settings["nfe"])}):
        self.calls, self.answer = [], answer

    def __call__(self, **settings):
        self.calls.append(settings)
        return self.answer(**settings)


def test_a_product_is_every_combination_in_order():
    assert SETTINGS == [
        {"sampler": "DDIM", "nfe": 5}, {"sampler": "DDIM", "nfe": 10},
        {"sampler": "2M", "nfe": 5}, {"sampler": "2M", "nfe": 10},
    ]  # fmt: skip
    assert product(seed=range(2)) == [{"seed": 0}, {"seed": 1}]
    assert product(seed=range(2), nfe=()) == []


@pytest.mark.parametrize(
    ("profile", "measure", "settings"),
    [("cpu", False, 0), ("cpu", True, 4), ("smoke", False, 2), ("smoke", True, 4)],
)
def test_a_smoke_run_measures_two_settings_and_others_as_told(profile, measure, settings):
    measured = Counted()
    rows = Experiment("25.samplers", SETTINGS, measured)(run(profile), measure=measure)
    assert measured.calls == SETTINGS[:settings] and len(rows) == len(store.rows()) == settings


def test_numbers_and_costs_of_a_mapping_or_a_measurement_find_their_columns():
    numbers = {"images": 80, "evaluations": 5, "macs": 100, "core_seconds": 0.5, "distance": 1.25}
    Experiment("25.points", [{"nfe": 5}], lambda nfe: dict(numbers))(run(), measure=True)
    made = Measurement(torch.zeros(80, 1, 4, 4), {"fd": 2.0, "floor": 1.0}, 5.0, 100, 0.5)
    Experiment("25.images", [{"nfe": 5}], lambda nfe: made)(run(), measure=True)
    for experiment, quality in (("25.points", {"distance": 1.25}), ("25.images", {"fd": 2.0, "floor": 1.0})):
        (row,) = store.rows(experiment)
        assert row["settings"] == {"nfe": 5} and row["quality"] == quality and row["seed"] == 3
        assert [row[name] for name in ("images", *store.COST)] == [80, 5, 100, 0.5]


def test_a_seed_among_the_settings_is_the_run_s_and_a_data_set_of_its_own_is_kept():
    settings = product(seed=range(5), nfe=(5,))
    experiment = Experiment("00.steps", settings, lambda seed, nfe: {"distance": 1.0 + seed}, "eight_spots")
    rows = experiment(run(), measure=True)
    assert sorted(row["seed"] for row in store.rows()) == [0, 1, 2, 3, 4]
    assert {row["dataset"] for row in store.rows()} == {"eight_spots"} and rows.settings == ("nfe",)
    assert (rows.value("distance"), int(rows.frame.seeds.iloc[0])) == (3.0, 5)


def test_an_arithmetic_error_leaves_a_warning_and_no_row_and_others_go_on():
    def answer(sampler, nfe):
        if nfe == 5:
            raise ArithmeticError("more than 5 evaluations")
        return {"fd": 1.0}

    with pytest.warns(RuntimeWarning) as warned:
        rows = Experiment("25.samplers", SETTINGS, Counted(answer))(run(), measure=True)
    assert [str(one.message) for one in warned] == [
        f"no result of 25.samplers at sampler {sampler}, nfe 5: more than 5 evaluations" for sampler in ("DDIM", "2M")
    ]
    assert [row["settings"]["nfe"] for row in store.rows()] == [10, 10] and len(rows) == 2


def test_another_error_stops_and_what_was_measured_before_it_is_kept():
    def answer(sampler, nfe):
        if sampler == "2M":
            raise KeyError("2M")
        return {"fd": 1.0}

    with pytest.raises(KeyError):
        Experiment("25.samplers", SETTINGS, Counted(answer))(run(), measure=True)
    assert len(store.rows()) == 2


def test_a_diverged_sampler_is_kept_without_a_distance():
    lost = Measurement(torch.full((80, 1, 4, 4), torch.nan), {"diverged": 1.0}, 5.0, 100, 0.5)
    rows = Experiment("25.samplers", [{"nfe": 5}], lambda nfe: lost)(run(), measure=True)
    assert store.rows()[0]["quality"] == {"diverged": 1.0} and rows.numbers == (*store.COST, "diverged")
    assert not rows.curves("nfe", "evaluations", "fd") and rows.first("nfe", by="fd") is None


def test_where_nothing_was_measured_a_sentence_gives_the_command():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = Experiment("25.samplers", SETTINGS, Counted())(run())
    sentence = "No results on glyphs yet. To measure them: survey run 25 --dataset glyphs -p measure True"
    assert not len(rows) and repr(rows.table()) == sentence
    assert repr(rows.curves("sampler", "nfe", "fd").stand_in) == sentence
