"""A fingerprint changes with what may change numbers, and stands still where only words or pictures change."""

import json

import pytest

from survey_lib.course.publishing import notebooks
from survey_lib.lab import runtime
from survey_lib.lab.experiments import provenance

BODY = ("from survey_lib.core import grids\nfrom survey_lib.lab import checkpoints, plots\n", "load('glyphs_base')")


@pytest.fixture
def fingerprint(course, monkeypatch):
    """Of the small lesson as it lies on disk now."""
    monkeypatch.setattr(runtime, "HOME", course.home)
    course.write(body=BODY)
    folder = course.home / "data" / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("glyphs_base", "glyphs_features", "mnist_base"):
        (folder / f"{name}.json").write_text(json.dumps({"sha256": name}))

    def take(dataset="glyphs"):
        provenance._fingerprint.cache_clear()
        return provenance.fingerprint("01_small", dataset)

    yield take
    provenance._fingerprint.cache_clear()


def retrain(course, name):
    (course.home / "data" / "checkpoints" / f"{name}.json").write_text('{"sha256": "other"}')


def test_words_do_not_count_and_code_does(course, fingerprint):
    before = fingerprint()
    course.write(body=(*BODY[:1], "# a remark\n\n" + BODY[1] + "  # another", ("markdown", "More prose.")))
    assert fingerprint() == before
    course.write(body=(*BODY, "steps = 11"))
    assert provenance.changed(str(before), fingerprint()) == ("cells",)


def test_only_checkpoints_that_the_cells_name_count(course, fingerprint):
    before, of_mnist = fingerprint(), fingerprint("mnist")
    retrain(course, "glyphs_features")
    assert fingerprint() == before
    retrain(course, "glyphs_base")
    assert provenance.changed(str(before), fingerprint()) == ("checkpoints",)
    assert fingerprint("mnist") == of_mnist
    assert fingerprint("eight_spots").checkpoints == fingerprint("digits").checkpoints, "there are none"


def test_the_library_is_what_the_cells_import_directly_or_through_others():
    names = {path.relative_to(provenance.PACKAGE).as_posix() for path in provenance.modules(BODY)}
    assert {"core/grids.py", "core/schedules.py", "lab/training/checkpoints.py", "nets/unet.py"} <= names
    assert not [name for name in names if name.startswith(("course/", "lab/plots/", "lab/widgets"))]
    assert "lab/evaluation/metrics.py" not in names


def test_trainings_count_and_what_they_import():
    cells = ["from survey_lib.course import records", "from survey_lib.lab.training import recipes"]
    names = {path.relative_to(provenance.PACKAGE).as_posix() for path in provenance.modules(cells)}
    assert {
        "lab/training/recipes/discrete.py",
        "design/discrete/denoisers.py",
        "lab/training/trainer.py",
        "nets/transformer.py",
    } <= names
    assert [name for name in names if name.startswith("course/")] == []


def test_a_module_counts_by_its_code(tmp_path, monkeypatch, fingerprint):
    before = fingerprint()
    true = provenance.bare
    monkeypatch.setattr(provenance, "bare", lambda source: true(source) + "# changed" * ("def karras" in source))
    assert provenance.changed(str(before), fingerprint()) == ("library",)


@pytest.mark.parametrize(
    ("source", "left"),
    [
        ('"""Words."""\nx = "# no remark"  # a remark\n', 'x = "# no remark"'),
        ('def f():\n    """Words\n    and more."""\n\n    return 1\n', "def f():\n    return 1"),
        ("%matplotlib inline\nx = 1  # kept", "%matplotlib inline\nx = 1  # kept"),
    ],
)
def test_what_is_left_of_a_source(source, left):
    assert provenance.bare(source) == left


def test_a_record_from_before_fingerprints_does_not_say(fingerprint):
    assert provenance.changed("d51218421d1d", fingerprint()) == ("unknown",)


def test_every_lesson_has_a_fingerprint():
    for lesson in notebooks.all_lessons():
        assert len(set(provenance.fingerprint(lesson.name, "glyphs"))) == 3
