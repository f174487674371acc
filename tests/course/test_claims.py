"""Verdicts follow from rows: the interval covers what it says, the rule has no gaps, bad files get one sentence."""

import math
from dataclasses import replace

import numpy as np
import pandas
import pytest
from bs4 import BeautifulSoup
from click.testing import CliRunner

from survey_lib.course import claims, cli
from survey_lib.course.claims import Claim, Ledger, interval, judge, load, rule, verdicts
from survey_lib.course.claims.judging import chance

DRAWS = 4000


def claim(expect="fd: a < b", **more):
    fields = dict(a={"eta": 0.0}, b={"eta": 1.0}, source="a study (2020), table 1", says="a is better.")
    return Claim("01.x", "01.e", **fields | dict(expect=expect) | more)


def rows(pairs, **more):
    """A row of each side for each seed."""
    about = {"experiment": "01.e", "dataset": "glyphs", "profile": "cpu", "images": 400, "stale": ""} | more
    return pandas.DataFrame(
        about | {"seed": seed, "eta": eta, "fd": value}
        for seed, pair in enumerate(pairs)
        for eta, value in zip((0.0, 1.0), pair, strict=True)
    )


BETTER, WORSE = [(1, 2), (1.02, 2), (1, 2.04)], [(2, 1), (2.04, 1), (2, 1.02)]


# ------------------------------------------------------------------ the interval, and how often the words err


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_covers_the_ratio_as_often_as_it_says(seeds):
    """Both sides scatter with the seed, together and apart, as networks drawn with the same noise do."""
    source = np.random.default_rng(seeds)
    shared, a, b = source.normal(size=(3, DRAWS, seeds))
    logs = (shared + 0.3 * a) - (shared + 0.3 * b + math.log(0.7))
    ends = [interval(one)[1:] for one in logs]
    covered = sum(low < 1 / 0.7 < high for low, high in ends) / DRAWS
    assert 0.93 < covered < 0.97


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_verdict_on_the_edge_errs_in_a_fortieth_of_cases(seeds):
    """The truth lies on the edge of what each word says: the rate at which it is said all the same is 2.5 %."""
    edges = [
        ("fd: a < b", 1.0, "reproduced", 0.2),
        ("fd: a < b", 1.0, "not reproduced here", 0.2),
        ("fd: a < 0.5 * b", 0.5, "reproduced", 0.2),
        ("fd: a > 2 * b", 2.0, "reproduced", 0.2),
        ("fd: a < 1.05 * b", 1.05, "not reproduced here", 0.2),
        ("fd: a < b", 1.03, "no difference", 0.002),
    ]
    noise = np.random.default_rng(seeds).normal(size=(DRAWS, seeds))
    around_1 = {spread: [interval(spread * one)[1:] for one in noise] for spread in (0.002, 0.2)}
    for expect, truth, word, spread in edges:
        asked = claim(expect)
        said = [rule(asked, truth * low, truth * high) for low, high in around_1[spread]]
        assert 0.017 < said.count(word) / DRAWS < 0.033, (expect, word)


def test_nothing_is_called_reproduced_too_often_where_nothing_is_there():
    """Two sides of one distribution, at any scatter: a one-sided decision errs in 2.5 % of draws at most."""
    noise = np.random.default_rng(0).normal(size=(DRAWS, 3))
    for spread in (0.003, 0.03, 0.3):
        said = [rule(claim(), *interval(spread * one)[1:]) for one in noise]
        assert said.count("reproduced") / DRAWS < 0.033 and said.count("not reproduced here") / DRAWS < 0.033


def test_three_seeds_have_the_factor_of_students_table():
    ratio, low, high = interval(np.log([1.0, 2.0, 4.0]))
    assert ratio == pytest.approx(2)
    assert math.log(high / ratio) == pytest.approx(4.3027 * math.log(2) / math.sqrt(3), rel=1e-4)
    assert high / ratio == pytest.approx(ratio / low)


# ------------------------------------------------------------------ the rule


@pytest.mark.parametrize(
    ("expect", "low", "high", "word"),
    [
        ("fd: a < b", 0.5, 0.9, "reproduced"),
        ("fd: a < b", 0.5, 1.1, "inconclusive"),
        ("fd: a < b", 0.98, 1.01, "no difference"),
        ("fd: a < b", 0.98, 0.99, "no difference"),
        ("fd: a < b", 0.9, 0.99, "reproduced"),
        ("fd: a < b", 1.1, 1.3, "not reproduced here"),
        ("fd: a < 0.5 * b", 0.3, 0.49, "reproduced"),
        ("fd: a < 0.5 * b", 0.3, 0.6, "direction only"),
        ("fd: a < 0.5 * b", 0.6, 0.9, "direction only"),
        ("fd: a < 0.5 * b", 0.4, 1.2, "inconclusive"),
        ("fd: a > 2 * b", 2.1, 4.0, "reproduced"),
        ("fd: a > 2 * b", 1.2, 4.0, "direction only"),
        ("fd: a > 2 * b", 0.5, 0.8, "not reproduced here"),
        ("fd: a < 1.05 * b", 0.9, 1.04, "reproduced"),
        ("fd: a < 1.05 * b", 0.99, 1.01, "reproduced"),
        ("fd: a < 1.05 * b", 1.0, 1.1, "inconclusive"),
        ("fd: a < 1.05 * b", 1.06, 1.1, "not reproduced here"),
        ("fd: a > 0.95 * b", 0.96, 1.2, "reproduced"),
    ],
)
def test_the_words_for_an_interval(expect, low, high, word):
    assert rule(claim(expect), low, high) == word


def test_a_claim_may_state_the_smallest_effect():
    assert rule(claim(effect=0.1), 0.92, 1.05) == "no difference"
    assert rule(claim(effect=0.001), 0.98, 0.99) == "reproduced"


@pytest.mark.parametrize(("seeds", "word"), [(1, "inconclusive"), (2, "inconclusive"), (3, "reproduced")])
def test_three_seeds_are_needed(seeds, word):
    found = judge(claim(), rows(BETTER[:seeds]), "glyphs")
    assert (found.found, found.seeds) == (word, seeds)
    assert ("3 are needed" in found.measured) == (seeds < 3)


def test_an_exact_quantity_needs_one_row_and_has_no_interval():
    found = judge(claim("fd: a < 0.6 * b", kind="exact"), rows(BETTER[:1]), "glyphs")
    assert (found.found, found.measured) == ("reproduced", "0.500, exact")


def test_a_comparison_of_one_network_each_says_so():
    one, three = (judge(claim(kind="trained", networks=n), rows(BETTER), "glyphs") for n in (1, 3))
    assert one.words == "reproduced, one network each" and three.words == "reproduced"
    assert claims.in_words([one, three]) == "2 reproduced (1 on one network each)"


# ------------------------------------------------------------------ the rows that are compared


def test_only_seeds_with_both_sides_count():
    table = rows([*BETTER, (1, 2)])
    table = table[~((table["seed"] == 3) & (table["eta"] == 1.0))]
    assert judge(claim(), table, "glyphs").seeds == 3


@pytest.mark.parametrize("other", [{"images": 70}, {"profile": "gpu"}])
def test_rows_of_another_n_or_profile_are_never_averaged_in(other):
    alone = judge(claim(), rows(BETTER), "glyphs")
    beside = judge(claim(), pandas.concat([rows(WORSE[:1], **other), rows(BETTER)]), "glyphs")
    assert beside == alone and alone.seeds == 3
    mixed = pandas.concat([rows(BETTER).query("eta == 0"), rows(BETTER, **other).query("eta == 1")])
    assert judge(claim(), mixed, "glyphs").reason == "no seed has both sides"


def test_of_equally_many_seeds_the_larger_n_stands():
    small, large = rows(WORSE, images=100), rows(BETTER, images=1000)
    for order in ([small, large], [large, small]):
        assert judge(claim(), pandas.concat(order), "glyphs").found == "reproduced"


def test_data_sets_are_judged_apart_and_smoke_runs_decide_nothing(monkeypatch):
    table = pandas.concat([rows(BETTER), rows(WORSE, dataset="mnist"), rows(WORSE, profile="smoke", images=1000)])
    monkeypatch.setattr(claims.judging, "load", lambda lesson: (claim(),))
    found = {one.dataset: one.verdict for one in verdicts(table=table)}
    assert found == {"glyphs": "reproduced", "mnist": "not reproduced here"}
    (only,) = verdicts(table=table, dataset="mnist")
    assert only.dataset == "mnist"
    with pytest.raises(
        ValueError, match=r'no claim was tested on "mnits" \(did you mean "mnist"\?\); accepted: glyphs'
    ):
        verdicts(table=table, dataset="mnits")


def test_rows_older_than_their_code_are_out_of_date_and_say_what_the_verdict_was():
    table = rows(BETTER)
    table.loc[0, "stale"] = "library, cells"
    found = judge(claim(), table, "glyphs")
    assert (found.verdict, found.words) == ("out of date", "out of date (was: reproduced)")
    assert found.stale == "library, cells" and found.measured.startswith("0.500 [")
    assert claims.in_words([found]) == "1 out of date (were: 1 reproduced)"


def test_a_selection_of_several_rows_of_one_seed_decides_nothing():
    table = pandas.concat([rows(BETTER).assign(steps=8), rows(BETTER).assign(steps=16)])
    found = judge(claim(), table, "glyphs")
    assert found.found == "inconclusive" and "seed 0 has 2 rows of eta 0.0" in found.reason
    assert judge(claim(where={"steps": 8}), table, "glyphs").found == "reproduced"


def test_a_number_that_is_not_positive_has_no_ratio():
    assert "fd is not positive" in judge(claim(), rows([(0, 1)] * 3), "glyphs").measured


def test_a_constant_may_stand_for_b():
    table = rows([(3.9, 0), (4.0, 0), (4.1, 0)])
    assert judge(claim("fd: a < 8", b={}), table, "glyphs").found == "reproduced"
    assert judge(claim("fd: a < 4", b={}), table, "glyphs").found == "inconclusive"
    assert judge(claim("fd: a > 8", b={}), table, "glyphs").found == "not reproduced here"


def _scales():
    """For each seed two scales of a way; the one with the smaller held-out distance has the larger fd."""
    lines = [("guided", 1.0, 5, 20, 0.9), ("guided", 2.0, 6, 10, 0.5), ("plain", 1.0, 12, 15, 0.52)]
    return pandas.DataFrame(
        {"experiment": "01.e", "dataset": "glyphs", "profile": "cpu", "images": 400, "stale": "", "seed": seed}
        | {"way": way, "scale": scale, "fd": fd + 0.01 * seed, "held_out": held_out, "recall": recall}
        for seed in range(3)
        for way, scale, fd, held_out, recall in lines
    )


def test_best_takes_the_row_with_the_smallest_number_in_each_seed():
    asked = claim("fd: a < b", a={"way": "guided", "best": "held_out"}, b={"way": "plain"})
    assert judge(asked, _scales(), "glyphs").ratio == pytest.approx(0.5, abs=0.01)
    listed = claim("fd: a < b", a={"way": "guided", "scale": [1.0, 7.0], "best": "held_out"}, b={"way": "plain"})
    assert judge(listed, _scales(), "glyphs").ratio == pytest.approx(5 / 12, abs=0.01)


def test_nearest_takes_the_row_that_is_like_the_other_side():
    near, plain = {"way": "guided", "nearest": "recall"}, {"way": "plain"}
    for a, b, ratio in ((near, plain, 0.5), (plain, near, 2.0)):
        assert judge(claim("fd: a < b", a=a, b=b), _scales(), "glyphs").ratio == pytest.approx(ratio, abs=0.01)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict(expect="fdd: a < b"), r'is about the quantity "fdd" \(did you mean "fd"\?\), which 01.e lacks'),
        (dict(a={"etta": 0.0}), r'is about the setting "etta" \(did you mean "eta"\?\), which 01.e lacks'),
        (dict(a={"eta": 0.5}), r"is about eta 0\.5, of which 01\.e has no results"),
        (dict(a={"eta": 0.0, "best": "held"}), 'is about the quantity "held", which 01.e lacks'),
    ],
)
def test_what_the_results_lack_is_refused_by_name(monkeypatch, change, sentence):
    monkeypatch.setattr(claims.judging, "load", lambda lesson: (claim(**change),))
    with pytest.raises(ValueError, match=f"claim 01.x {sentence}"):
        verdicts(table=rows(BETTER))


def test_a_misspelt_experiment_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(claims.judging, "load", lambda lesson: (claim(),))
    with pytest.raises(ValueError, match=r'the experiment "01.e" \(did you mean "01.f"\?\), of which there are no'):
        verdicts(table=rows(BETTER, experiment="01.f"))


# ------------------------------------------------------------------ files


def _file(tmp_path, text, name="01.toml"):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(folder=tmp_path)


GOOD = '[["01.e"]]\nwhere = { steps = 8 }\nsource = "a study"\n["01.e".x]\nsays = "a."\nexpect = "fd: a < b"\n'
SIDES = "a = { eta = 0.0 }\nb = { eta = 1.0 }\n"


def test_a_group_gives_its_claims_what_they_share(tmp_path):
    (one,) = _file(tmp_path, GOOD + SIDES)
    assert (one.id, one.lesson, one.name, one.source, one.where) == ("01.x", "01", "x", "a study", {"steps": 8})
    assert one.test == "fd: a < b; a: eta 0; b: eta 1; both: steps 8"
    assert load("01", folder=tmp_path) == (one,) and load("02", folder=tmp_path) == ()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"\xff", "01.toml is not UTF-8 text"),
        ("a = ", "01.toml is not valid TOML"),
        ('["01.e"]\nx = 1\n', r'01.toml: 01.e is not a list of tables; write \[\["01.e"\]\]'),
        ('"01.e" = 3\n', "01.toml: 01.e is not a list of tables"),
        ('"01.e" = [3]\n', "01.toml: 01.e is not a list of tables"),
        (GOOD.replace("01.e", "02.e") + SIDES, "01.toml: 02.e is not an experiment of lesson 01"),
        ('[["01.e"]]\nx = 3\n', "01.toml: claim x of 01.e is 3; a table of fields is accepted"),
        (GOOD + SIDES + "verdict = 1\n", 'claim x of 01.e has no field "verdict"; accepted: source'),
        (GOOD + SIDES + 'kinds = "x"\n', r'has no field "kinds" \(did you mean "kind"\?\)'),
        (GOOD, "claim x of 01.e lacks a"),
        (GOOD + "a = { eta = 0 }\n", "claim 01.x: 'fd: a < b' needs a selection b"),
        (GOOD + "a = { eta = 0 }\nb = { eta = 0 }\n", "claim 01.x: a and b select the same rows"),
        (GOOD + "a = 3\nb = { eta = 0 }\n", "claim 01.x: a is 3; a table of settings is accepted"),
        (GOOD + "a = { eta = { x = 1 } }\nb = { eta = 0 }\n", "claim 01.x: eta in a is .*; a text, a number or a list"),
        (GOOD + "a = { best = 3 }\nb = { eta = 0 }\n", "claim 01.x: best in a is 3; the name of a number is accepted"),
        (GOOD.replace("a < b", "a < half * b") + SIDES, "claim 01.x: expect is 'fd: a < half"),
        (GOOD.replace("a < b", "a < 0 * b") + SIDES, "claim 01.x: expect is 'fd: a < 0"),
        (GOOD.replace("a < b", "a < 8") + SIDES, "claim 01.x: 'fd: a < 8' takes no selection b"),
        (GOOD + SIDES + 'effect = "3 %"\n', "claim 01.x: effect is '3 %'; a number"),
        (GOOD + SIDES + "effect = 1.5\n", "claim 01.x: effect is 1.5; a number from 0 to below 1"),
        (GOOD + SIDES + 'kind = "guess"\n', "claim 01.x: kind is 'guess'; accepted: sampled, trained, exact"),
        (GOOD + SIDES + 'kind = "trained"\n', 'claim 01.x: kind "trained" has to state networks'),
        (GOOD + SIDES + "networks = true\n", "claim 01.x: networks is True; a whole number is accepted"),
        (GOOD + SIDES + "headline = 1\n", "claim 01.x: headline is 1; true or false is accepted"),
        (GOOD + SIDES + GOOD + SIDES, "01.toml holds two claims 01.x"),
    ],
)
def test_a_bad_file_gets_one_sentence_with_its_name(tmp_path, text, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence) as caught:
        _file(tmp_path, text)
    assert str(caught.value).startswith("01.toml") and "\n" not in str(caught.value)


def test_a_lesson_is_named_by_two_digits():
    with pytest.raises(ValueError, match="lesson is 'foo'; a number of two digits"):
        load("foo")


# ------------------------------------------------------------------ the claims of the course


def test_the_claims_of_the_course_are_well_formed():
    everything = load()
    assert len({one.id for one in everything}) == len(everything)
    for one in everything:
        assert one.says.endswith((".", ".)")) and one.source
    for lesson in {one.lesson for one in everything}:
        own = load(lesson)
        assert len(own) <= 8 or 1 <= sum(one.headline for one in own) <= 8, f"lesson {lesson}: mark the headlines"


def test_every_claim_of_the_course_selects_one_row_a_seed_and_at_least_three_seeds():
    for one in verdicts(shipped=True):
        assert not one.reason, f"{one.claim.id} on {one.dataset}: {one.reason}"
        assert one.seeds >= 3 or one.claim.kind == "exact", one.claim.id


# ------------------------------------------------------------------ the ledger


def many(n=12, says="a is better than b."):
    table = pandas.concat([rows(BETTER), rows(WORSE, dataset="mnist")])
    made = [replace(claim(says=says, headline=at % 3 == 1), id=f"01.claim-{at}") for at in range(n)]
    names = ("glyphs", "mnist")
    return Ledger(tuple(judge(one, table[table["dataset"] == name], name) for one in made for name in names))


def test_a_ledger_is_a_row_a_claim_and_folds_all_but_the_headlines():
    page = BeautifulSoup(many().html, "html.parser")
    shown = page.find("table").find_all("tr")[1:]
    assert [row.find("b").text for row in shown] == ["1 claim 1", "2 claim 4", "3 claim 7", "4 claim 10"]
    assert page.find("summary").text == "8 more claims"
    assert len(page.find("details").find_all("tr")) == 9
    assert [cell.text for cell in shown[0].find_all("i")] == ["glyphs", "mnist"]
    assert "24 comparisons that claim one, at most about 0.6 would be called reproduced" in page.text


def test_chance_does_not_count_claims_of_no_difference():
    tests = ("fd: a < b", "fd: a < 1.05 * b", "fd: a > 0.95 * b", "fd: a > 2 * b", "fd: a < 0.5 * b")
    found = [judge(claim(expect=test), rows(BETTER), "glyphs") for test in tests]
    assert "in any of the 3 comparisons that claim one" in chance(found)


def test_without_headlines_eight_claims_are_shown():
    assert Ledger(tuple(judge(replace(claim(), id=f"01.{at}"), rows(BETTER), "glyphs") for at in range(10))).shown == 8


def test_the_picture_is_narrow_and_its_words_are_computed():
    figure = many().figure
    assert figure.figure.get_figwidth() * 100 <= 768 and not figure.note
    assert "claim 1, claimed below 1: glyphs 0.5 (reproduced), mnist 2 (not reproduced here)" in figure.description
    assert figure.png[:4] == b"\x89PNG"


def test_the_picture_takes_what_has_no_ratio_and_what_lies_far_out():
    far = judge(claim(), rows([(900, 1)] * 3), "glyphs")
    none = judge(claim(), rows([(0, 1)] * 3), "glyphs")
    figure = Ledger((far, none)).figure
    _, high = figure.figure.axes[0].get_xlim()
    assert high < 12, "the axis is cut at ten times the threshold"
    assert "900" in [text.get_text() for text in figure.figure.axes[0].texts]


def test_markup_in_claims_is_shown_not_obeyed():
    assert "<script>" not in many(says="<script>x</script>.").html


def test_the_ledger_reads_well_in_a_terminal():
    text = str(many(30, says="a is better than b " * 9 + "."))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert "30 claims, verdicts by data set: 30 reproduced, 30 not reproduced here." in " ".join(lines[-4:])
    assert str(Ledger(())) == "No claim is tested here."


def test_a_notebook_shows_the_picture_and_under_it_the_table(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    many()._ipython_display_()
    assert [type(one).__name__ for one in shown] == ["Figure", "HTML"]
    Ledger(())._ipython_display_()
    assert shown[-1].data == "<p>No claim is tested here.</p>"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["99"], 'Error: there is no lesson "99"; accepted: 00_survey_map'),
        (["foo"], 'Error: there is no lesson "foo"; accepted: 00_survey_map'),
        (
            ["1", "--dataset", "glyps"],
            'Error: no claim was tested on "glyps" (did you mean "glyphs"?); accepted: glyphs',
        ),
    ],
)
def test_an_unknown_lesson_or_data_set_gets_one_sentence(arguments, sentence):
    result = CliRunner().invoke(cli.main, ["claims", *arguments])
    assert result.exit_code == 1 and result.output.startswith(sentence) and result.output.count("\n") == 1


def test_a_lesson_may_be_named_by_its_number_or_its_name():
    one, other = (CliRunner().invoke(cli.main, ["claims", name]) for name in ("1", "01_foundations_ddpm"))
    assert one.exit_code == 0 and one.output == other.output and "01.ddim-few-steps" in one.output


def test_counts_are_a_row_a_lesson():
    assert claims.counts(many().verdicts).rows == (("01", "12", "12 reproduced, 12 not reproduced here"),)
