"""Verdicts follow from records: each of the four from numbers that leave no choice."""

import pandas
import pytest

from survey_lib.course import claims
from survey_lib.course.claims import Claim, judge, ledger, load, verdicts

LINE = dict(id="x", lesson="01", says="a study", sentence="a is better.", experiment="e", quantity="fd")


def _claim(comparison="less", threshold=1.0, kind="trained", **more):
    sides = {"a": {"eta": 0.0}, "b": {"eta": 1.0}}
    return Claim(**(LINE | sides | dict(comparison=comparison, threshold=threshold, kind=kind) | more))


def _rows(pairs, **more):
    rows = [
        {"experiment": "e", "dataset": "glyphs", "profile": "cpu", "seed": seed, "eta": eta, "fd": value} | more
        for seed, pair in enumerate(pairs)
        for eta, value in zip((0.0, 1.0), pair, strict=True)
    ]
    return pandas.DataFrame(rows)


@pytest.mark.parametrize(
    "comparison, threshold, pairs, expected",
    [
        ("less", 1.0, [(1, 2), (1.1, 2), (1, 2.2)], "reproduced"),
        ("less", 0.6, [(1, 2), (1.1, 2), (1, 2.2)], "reproduced"),
        ("less", 0.2, [(1, 2), (1.1, 2), (1, 2.2)], "direction only"),
        ("less", 1.0, [(2, 1), (2.1, 1), (2, 1.1)], "not at this scale"),
        ("less", 1.0, [(1, 2), (2, 1), (1, 1)], "inconclusive"),
        ("greater", 1.5, [(2, 1), (2.1, 1), (2, 1.1)], "reproduced"),
        ("greater", 3.0, [(2, 1), (2.1, 1), (2, 1.1)], "direction only"),
        ("greater", 1.0, [(1, 2), (1.1, 2), (1, 2.2)], "not at this scale"),
        ("ratio below", 2.5, [(2, 1), (2.1, 1), (2, 1)], "reproduced"),
        ("ratio below", 1.5, [(2, 1), (2.1, 1), (2, 1)], "not at this scale"),
        ("ratio below", 2.05, [(2, 1), (2.2, 1), (2, 1)], "inconclusive"),
    ],
)
def test_the_four_verdicts(comparison, threshold, pairs, expected):
    assert judge(_claim(comparison, threshold), _rows(pairs), "glyphs").verdict == expected


def test_two_seeds_decide_nothing_unless_the_quantity_is_exact():
    pairs = [(1, 2), (1, 2)]
    assert judge(_claim(), _rows(pairs), "glyphs").verdict == claims.INCONCLUSIVE
    assert judge(_claim(kind="sampled"), _rows(pairs), "glyphs").verdict == claims.INCONCLUSIVE
    assert judge(_claim(kind="exact"), _rows(pairs), "glyphs").verdict == claims.REPRODUCED


def test_only_seeds_with_both_sides_count():
    rows = _rows([(1, 2), (1, 2), (1, 2), (1, 2)])
    rows = rows.drop(rows[(rows.seed == 3) & (rows.eta == 1.0)].index)
    assert judge(_claim(), rows, "glyphs").seeds == 3


def test_no_records_no_verdict_but_a_reason():
    empty = _rows([(1, 2)]).iloc[:0]
    (one,) = verdicts(claims=(_claim(),), table=empty)
    assert (one.verdict, one.reason) == ("inconclusive", "no records that compare the two")


def test_smoke_runs_do_not_decide_and_data_sets_are_judged_apart():
    smoke = _rows([(2, 1)] * 3, profile="smoke")
    table = pandas.concat([_rows([(1, 2)] * 3), _rows([(2, 1)] * 3, dataset="mnist"), smoke])
    found = verdicts(claims=(_claim(),), table=table)
    assert {one.dataset: one.verdict for one in found} == {"glyphs": "reproduced", "mnist": "not at this scale"}


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(comparison="smaller"), "comparison is one of less, greater, ratio below"),
        (dict(kind="guess"), "kind is one of trained, sampled, exact"),
        (dict(threshold=2.0), "contradicts 'less'"),
        (dict(comparison="greater", threshold=0.5), "contradicts 'greater'"),
    ],
)
def test_a_claim_that_cannot_be_judged_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        _claim(**change)


def test_a_file_with_a_wrong_line_is_refused_by_the_claim(tmp_path):
    path = tmp_path / "claims.toml"
    path.write_text('[[claim]]\nid = "x"\nlesson = "01"\nverdict = "reproduced"\n')
    with pytest.raises(ValueError, match=r"claim x in claims.toml: .*'verdict'"):
        load(path)


def test_the_claims_of_the_course_are_well_formed():
    for one in load():
        assert one.id.startswith(one.lesson) and one.sentence.endswith(".") and one.says
        assert one.a != one.b


def test_the_ledger_is_shown_as_a_page_and_as_text():
    assert {"text/html", "text/plain"} == set(ledger()._repr_mimebundle_())


def test_the_ledger_reads_well_for_many_claims():
    rows = pandas.concat([_rows([(1, 2)] * 3), _rows([(2, 1)] * 3, dataset="mnist")])
    many = tuple(_claim(id=f"01.{n}", sentence="a is better than b " * 9 + ".") for n in range(30))
    made = claims.Ledger(verdicts(claims=many, table=rows))
    lines = str(made).splitlines()
    assert max(map(len, lines)) <= 100 and len(made.by_claim()) == 30
    assert lines[-1] == "Verdicts on 30 claims, by data set: 30 reproduced, 30 not at this scale"
    assert made.counts.rows == (("01", "30", "30", "0", "30", "0"),)
