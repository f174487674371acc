"""A fingerprint changes with what may change numbers, and stands still where only words, pictures or places change."""

import json

import pytest

from survey_lib.course.publishing import notebooks
from survey_lib.lab import runtime
from survey_lib.lab.experiments import provenance

IMPORTS = """from survey_lib.core import grids
from survey_lib.lab import plots
from survey_lib.lab.training import checkpoints
"""
BODY = (IMPORTS, "load('glyphs_base')", 'Experiment("01.steps", [], None)', "plots.show()")


@pytest.fixture
def fingerprint(course, monkeypatch):
    """Of the small lesson as it lies on disk now."""
    monkeypatch.setattr(runtime, "HOME", course.home)
    course.write(body=BODY)
    folder = course.home / "data" / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("glyphs_base", "glyphs_features", "glyphs_features2", "mnist_base"):
        (folder / f"{name}.json").write_text(json.dumps({"sha256": name}))

    def take(dataset="glyphs", experiment="01.steps"):
        provenance._fingerprint.cache_clear()
        return provenance.fingerprint("01_small", dataset, experiment)

    yield take
    provenance._fingerprint.cache_clear()


def retrain(course, name):
    (course.home / "data" / "checkpoints" / f"{name}.json").write_text('{"sha256": "other"}')


def named(cells):
    return {path.relative_to(provenance.PACKAGE).as_posix() for path in provenance.modules(cells)}


def test_words_do_not_count_and_code_does(course, fingerprint):
    before = fingerprint()
    course.write(body=(IMPORTS, "# a remark\n\n" + BODY[1] + "  # another", ("markdown", "More prose."), *BODY[2:]))
    assert fingerprint() == before
    course.write(body=(IMPORTS, "steps = 11", *BODY[1:]))
    assert provenance.difference(str(before), fingerprint()) == ("cells",)


def test_cells_count_up_to_the_last_that_names_the_experiment(course, fingerprint):
    before, whole = fingerprint(), fingerprint(experiment="01.other")
    course.write(body=(*BODY[:3], "plots.show(scale=2)"))
    assert fingerprint() == before
    assert provenance.difference(str(whole), fingerprint(experiment="01.other")) == ("cells",)
    course.write(body=(*BODY, 'table = load("01.steps")'))
    assert provenance.difference(str(before), fingerprint()) == ("cells",)


def test_the_place_from_which_a_module_is_imported_does_not_count(course, fingerprint):
    before = fingerprint()
    course.write(body=(IMPORTS.replace("core import grids", "core.grids import karras"), *BODY[1:]))
    assert fingerprint() == before
    course.write(body=(IMPORTS + "from survey_lib.core import samplers", *BODY[1:]))
    assert provenance.difference(str(before), fingerprint()) == ("library",)


def test_only_checkpoints_that_the_cells_name_count(course, fingerprint):
    before, of_mnist = fingerprint(), fingerprint("mnist")
    retrain(course, "glyphs_features")
    assert fingerprint() == before
    retrain(course, "glyphs_base")
    assert provenance.difference(str(before), fingerprint()) == ("checkpoints",)
    assert fingerprint("mnist") == of_mnist
    assert fingerprint("eight_spots").checkpoints == fingerprint("digits").checkpoints, "there are none"


@pytest.mark.parametrize("name", ["glyphs_features", "glyphs_features2"])
def test_the_classifiers_of_an_evaluator_count_without_being_named(course, fingerprint, name):
    course.write(body=(IMPORTS + "from survey_lib.lab.evaluation.evaluator import Evaluator", *BODY[1:]))
    before = fingerprint()
    retrain(course, name)
    assert provenance.difference(str(before), fingerprint()) == ("checkpoints",)


def test_the_library_is_what_the_cells_import_directly_or_through_others():
    names = named(BODY)
    assert {"core/grids.py", "core/schedules.py", "lab/training/checkpoints.py", "nets/unet.py"} <= names
    assert not [name for name in names if name.startswith(("course/", *provenance.PRESENTATION))]
    assert "lab/evaluation/metrics.py" not in names


def test_trainings_and_measures_count_and_the_course_does_not():
    names = named(["from survey_lib.course import claims\nfrom survey_lib.lab.experiments import Experiment"])
    assert not [name for name in names if name.startswith(("course/", "lab/experiments/"))]
    trained = named(["from survey_lib.lab.training import recipes"])
    assert {"lab/training/trainer.py", "design/discrete/denoisers.py", "nets/transformer.py"} <= trained
    assert "lab/evaluation/metrics.py" in named(["from survey_lib.lab.evaluation.evaluator import Evaluator"])


def test_a_module_counts_by_its_code(monkeypatch, fingerprint):
    before, strip_comments = fingerprint(), provenance.strip_comments
    monkeypatch.setattr(provenance, "strip_comments", lambda text: strip_comments(text) + "1" * ("def karras" in text))
    assert provenance.difference(str(before), fingerprint()) == ("library",)


@pytest.mark.parametrize(
    ("source", "left"),
    [
        ('"""Words."""\nx = "# no remark"  # a remark\n', 'x = "# no remark"'),
        ('def f():\n    """Words\n    and more."""\n\n    return 1\n', "def f():\n    return 1"),
        ("%matplotlib inline\nx = 1  # kept", "%matplotlib inline\nx = 1  # kept"),
        ("from survey_lib.core import (\n    grids,\n)\nfrom math import pi\n", "from math import pi"),
    ],
)
def test_what_is_left_of_a_source(source, left):
    assert provenance.strip_comments(source) == left


def test_a_result_from_before_fingerprints_does_not_say(fingerprint):
    assert provenance.difference("d51218421d1d", fingerprint()) == ("unknown",)


def test_a_name_that_belongs_to_no_lesson_counts_with_the_whole_library(fingerprint):
    assert provenance.fingerprint("bench", "glyphs", "bench.sampling").library != fingerprint().library


def test_every_lesson_has_a_fingerprint():
    for lesson in notebooks.all_lessons():
        assert len(set(provenance.fingerprint(lesson.name, "glyphs"))) == 3
