"""Lessons are found by what a learner calls them; their parameters are checked before a kernel starts."""

from pathlib import Path

import pytest

from survey_lib.course.publishing import notebooks


@pytest.fixture
def three(course):
    for name in ("00_survey_map", "01_foundations_ddpm", "02_foundations_measuring"):
        course.write(name)
    return course


def names(course, *wanted):
    return [lesson.name for lesson in notebooks.select(wanted, course.home)]


def test_a_lesson_answers_to_its_number_its_name_and_the_start_of_it(three):
    for wanted in (
        "1",
        "01",
        "01_foundations_ddpm",
        "01_found",
        "foundations_ddpm",
        "notebooks/01_foundations_ddpm.ipynb",
    ):
        assert names(three, wanted) == ["01_foundations_ddpm"]
    assert names(three) == names(three, "02", "0", "1")


def test_an_unknown_or_ambiguous_lesson_is_refused_with_those_there_are(three):
    with pytest.raises(ValueError, match=r'"survey_mop" \(did you mean "survey_map"\?\); accepted: 00_survey_map, 01'):
        names(three, "survey_mop")
    with pytest.raises(ValueError, match="01_foundations_ddpm or 02_foundations_measuring; name one"):
        names(three, "foundations")


def test_a_home_without_lessons_says_where_it_looked(tmp_path):
    with pytest.raises(FileNotFoundError, match="SURVEY_HOME"):
        notebooks.all_lessons(tmp_path)


def test_a_file_that_is_no_notebook_is_named(course):
    path = course.write()
    path.write_text(path.read_text()[:300])
    with pytest.raises(ValueError, match=r"01_small.ipynb is not a notebook"):
        notebooks.read(path)


def test_parameters_are_the_literals_of_the_tagged_cell(course):
    course.write(parameters='"""What to choose."""\nseed = 0\nrate: float = 1e-3\nsizes = [8, 16]  # pixels')
    (lesson,) = notebooks.all_lessons(course.home)
    assert lesson.parameters == {"seed": 0, "rate": 1e-3, "sizes": [8, 16]}


@pytest.mark.parametrize("source", ["seed = 1 + x", "import os", "a, b = 1, 2"])
def test_a_parameters_cell_with_anything_else_is_refused(course, source):
    course.write(parameters=source)
    (lesson,) = notebooks.all_lessons(course.home)
    with pytest.raises(ValueError, match=r"01_small.ipynb"):
        _ = lesson.parameters


def test_text_from_a_command_line_becomes_what_the_defaults_are(course):
    course.write()
    (lesson,) = notebooks.all_lessons(course.home)
    texts = {"seed": "3", "dataset": "3", "train": "True", "scale": "2"}
    assert lesson.check(lesson.parse(texts | {"dataset": "digits"})) == {
        "seed": 3, "dataset": "digits", "train": True, "scale": 2.0,
    }  # fmt: skip
    assert lesson.parse(texts)["dataset"] == "3"


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({"sed": 3}, ValueError, r'no parameter "sed" \(did you mean "seed"\?\); accepted: profile, seed, dataset'),
        ({"steps": "ten"}, TypeError, r'steps is "ten" \(str\); an int is accepted'),
        ({"steps": -3}, ValueError, "steps is -3; at least 1"),
        ({"train": "false"}, TypeError, "only True or False"),
        ({"profile": "fast"}, ValueError, "accepted: auto, smoke, cpu, gpu"),
        ({"dataset": "mnits"}, ValueError, r'did you mean "mnist"\?'),
        ({"seed": 1.5}, TypeError, "an int is accepted"),
        ({"seed": 2**32}, ValueError, "seed is 4294967296; at most 4294967295 is accepted"),
    ],
)
def test_bad_parameters_are_refused_with_what_is_accepted(course, given, error, sentence):
    course.write()
    (lesson,) = notebooks.all_lessons(course.home)
    with pytest.raises(error, match=sentence):
        lesson.check(given)


def test_the_hash_of_sources_knows_a_changed_cell_and_ignores_outputs(course):
    notebook = notebooks.read(course.write())
    before = notebooks.source_hash(notebook)
    notebook.cells[1].outputs, notebook.cells[1].execution_count = [], 7
    assert notebooks.source_hash(notebook) == before
    notebook.cells[-1].source += " "
    assert notebooks.source_hash(notebook) != before


@pytest.fixture
def trained(course, monkeypatch):
    """A course whose checkpoints are all of the glyphs, two of MNIST, and none of others."""
    monkeypatch.setattr(notebooks.runtime, "HOME", course.home)
    for name in ("glyphs_base", "glyphs_noisy", "glyphs_features", "glyphs_features2", "mnist_base", "mnist_noisy"):
        path = course.home / "data" / "checkpoints" / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return course


@pytest.mark.parametrize(
    ("body", "accepted"),
    [
        ("x = 'base noisy features'", {"glyphs", "mnist", "digits", "cifar10"}),
        ("checkpoints.load(f'{dataset}_base')", {"glyphs", "mnist"}),
        ("checkpoints\nx = {'base plans': 1, 'fine_features': 2}", {"glyphs", "mnist", "digits", "cifar10"}),
        ("checkpoints.load(f'{dataset}_features')", {"glyphs"}),
        ("checkpoints\nEvaluator.load(dataset, 10)", {"glyphs"}),
    ],
)
def test_a_lesson_refuses_data_sets_whose_networks_it_lacks(trained, tmp_path, body, accepted):
    """What the code cells load decides; the answer names what is missing, and the data sets that have it."""
    trained.write("01_small", body=(body,))
    lesson = notebooks.all_lessons(trained.home)[0]
    for name in ("glyphs", "mnist", "digits", "cifar10"):
        if name in accepted:
            assert lesson.check({"dataset": name, "train": True}) == {"dataset": name, "train": True}
        else:
            with pytest.raises(ValueError, match="lacks trained networks") as caught:
                lesson.check({"dataset": name, "train": True})
            message = str(caught.value)
            assert f'dataset is "{name}"' in message and "\n" not in message
            assert set(message.partition("accepted: ")[2].partition(";")[0].split(", ")) == accepted


def test_a_relative_folder_becomes_absolute_before_a_kernel_starts(course, tmp_path, monkeypatch):
    """A kernel runs in the folder of its notebook: a path has to mean the same there."""
    course.write()
    (tmp_path / "x" / "images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "x")
    monkeypatch.setenv("HOME", str(tmp_path))
    lesson = notebooks.all_lessons(course.home)[0]
    for given in ("images", "../x/images", "~/x/images"):
        checked = lesson.check({"dataset": given})["dataset"]
        assert Path(checked).is_absolute() and Path(checked).resolve() == (tmp_path / "x" / "images").resolve()
