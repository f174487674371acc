"""Images of the reader's own: a name for a folder, networks for it, lessons on it, and what is refused."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from survey_lib.course import cli
from survey_lib.course.publishing import notebooks
from survey_lib.lab import data, own, runtime
from survey_lib.lab.evaluation.evaluator import LEAST, Evaluator
from survey_lib.lab.training import checkpoints, recipes
from tests.support import generator

TRAINED = ("features", "features2", "base")
COURSE = Path(__file__).parents[2]
SHIPPED = COURSE / "data" / "checkpoints"


@pytest.fixture
def home(monkeypatch, tmp_path):
    """A home without networks."""
    for module in (runtime, checkpoints, recipes):
        monkeypatch.setattr(module, "HOME", tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def stocked(home):
    """A home with the networks of the course."""
    (home / "data" / "checkpoints").mkdir(parents=True)
    for file in SHIPPED.glob("*.*"):
        (home / "data" / "checkpoints" / file.name).symlink_to(file)
    return home


def folder(place, classes=("a", "b"), count=2 * LEAST, side=18):
    """Random grey images: as many for training as for testing."""
    for split in ("train", "test"):
        for number in range(count):
            file = place / split / classes[number % len(classes)] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = torch.randint(256, (side, side), generator=generator(number), dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(file)
    return place


def test_a_folder_gets_a_name_and_is_known_by_both(home, tmp_path):
    place = folder(tmp_path / "my pets", count=4)
    assert own.names() == [] and own.proposal(place) == "my_pets" and own.proposal(tmp_path / "mnist") == "mine"
    assert runtime.check_dataset(str(place)) == str(place)
    own.adopt("pets", place)
    own.adopt("pets", place)  # again: nothing to do
    assert own.names() == ["pets"] and own.name_of(place) == "pets" and own.name_of(tmp_path) is None
    assert runtime.check_dataset(str(place)) == runtime.check_dataset("pets") == "pets"
    by_name, by_path = data.load("pets"), data.load(place)
    assert by_name.name == "pets" and by_name.images.equal(by_path.images) and by_name.shape == (1, 16, 16)
    assert "pets_base" in recipes.names() and recipes.split("pets_features2") == ("pets", "features2")


def test_names_that_are_refused(home, tmp_path):
    for name in ("glyphs", "2pets", "a/b", "", "a b"):
        with pytest.raises(ValueError, match="letters, digits and _, a letter first, and not glyphs"):
            own.adopt(name, folder(tmp_path / "x", count=2))
    with pytest.raises(ValueError, match="is not a folder; a folder of images is accepted"):
        own.adopt("pets", tmp_path / "nowhere")
    own.adopt("pets", tmp_path / "x")
    with pytest.raises(ValueError, match=r'"pets" is .*x already; choose another name, or delete .*pets'):
        own.adopt("pets", tmp_path)
    with pytest.raises(ValueError, match=r'"pets" ends in no role; accepted: a name and features, .*pets_base'):
        recipes.adopt("pets", tmp_path / "x")
    with pytest.raises(ValueError, match=r'dataset is "pet" \(did you mean "pets"\?\); accepted: .*pets, or a folder'):
        runtime.check_dataset("pet")


def test_at_most_is_a_beginning(home, tmp_path):
    place = folder(tmp_path / "few", count=5)
    assert len(data.load(place, most=3)) == 3 and len(data.load(place, most=99)) == 5
    assert data.load(place, most=3).images.equal(data.load(place, count=3).images)
    with pytest.raises(ValueError, match="count and most are both given"):
        data.load(place, count=1, most=1)


def test_networks_are_made_scored_and_found_and_nothing_of_the_course_is_touched(home, tmp_path):
    place = folder(tmp_path / "pets")
    before = {path.name: path.stat().st_mtime_ns for path in SHIPPED.iterdir()}
    names = [f"pets_{role}" for role in TRAINED]
    found = CliRunner().invoke(cli.main, ["train", *names, "--dataset", str(place), "--steps", "2"])
    assert found.exit_code == 0, found.output
    assert checkpoints.names() == sorted(names) and (checkpoints.own_folder() / "pets_base.json").exists()
    about = checkpoints.manifest("pets_base")
    assert about["dataset"] == "pets" and about["recipe"]["steps"] == 2 and about["scores"]["fd"] > 0
    assert checkpoints.load("pets_base").net.channels == 1
    assert Evaluator.load("pets", 5000).count == LEAST  # half of the test images
    assert {path.name: path.stat().st_mtime_ns for path in SHIPPED.iterdir()} == before


def test_a_recipe_shrinks_with_the_root_of_the_number_of_examples():
    base = recipes.TRAININGS["base"]
    full = base.recipe_for("pets").steps
    steps = [base.recipe_for("pets", count=count).steps for count in (300, 30_000, 3_000_000)]
    assert steps == [full // 10, full, full] and base.recipe_for("pets", count=300, steps=7).steps == 7


def test_larger_images_get_a_level_more(home, tmp_path):
    nets = [
        recipes.TRAININGS["base"].model(data.load(folder(tmp_path / str(side), count=2, side=side)))
        for side in (32, 50)
    ]
    assert [len(one.net.config["widths"]) for one in nets] == [2, 3]
    assert nets[1](torch.zeros(1, 1, 48, 48), torch.tensor(0.5)).shape == (1, 1, 48, 48)


def test_images_of_one_class_are_told_by_their_direction(home, tmp_path):
    own.adopt("loose", folder(tmp_path / "loose", classes=("all",)))
    examples = recipes.TRAININGS["features"].data("loose", None)
    assert len(examples) == 4 * 2 * LEAST and examples.tensors[1].unique().tolist() == [0, 1, 2, 3]
    assert examples.tensors[0][2 * LEAST].equal(torch.rot90(examples.tensors[0][0], 1, (1, 2)))
    for role in ("conditional", "weak", "noisy"):
        with pytest.raises(ValueError, match=f"loose has one class, and {role} tells classes apart"):
            recipes.train(f"loose_{role}", steps=1, progress=False)


def test_too_few_test_images_are_refused_before_a_training(home, tmp_path):
    own.adopt("few", folder(tmp_path / "few", count=2 * LEAST - 1))
    with pytest.raises(
        ValueError, match=f"few has {2 * LEAST - 1} test images, and the lessons compare with {2 * LEAST}"
    ):
        recipes.train("few_base", steps=1, progress=False)


def test_a_lesson_says_before_it_starts_what_to_train_and_for_how_long(stocked, tmp_path):
    lessons = {one.number: one for one in notebooks.all_lessons(COURSE)}
    place = folder(tmp_path / "pets")
    command = f"survey train pets_features pets_features2 pets_base --dataset {place}"
    with pytest.raises(ValueError, match=rf"in about [\d.e+]+ minutes here: {command}$"):
        lessons["01"].check({"dataset": str(place)})
    with pytest.raises(ValueError, match="lacks trained networks") as caught:
        lessons["11"].check({"dataset": str(place)})
    assert "survey train" not in str(caught.value), "its networks of grey levels are made for glyphs and MNIST alone"
    for role in TRAINED:
        recipes.adopt(f"pets_{role}", place)
        recipes.train(f"pets_{role}", steps=1, root=recipes.home("pets"), progress=False)
    assert lessons["01"].check({"dataset": str(place)}) == {"dataset": "pets"}
    assert {number for number, one in lessons.items() if "pets" in one.datasets} == {"00", "01", "02", "12", "23", "25"}
    with pytest.raises(ValueError, match=r"survey train pets_conditional pets_weak pets_noisy$"):
        lessons["10"].check({"dataset": "pets"})


def test_a_folder_that_is_called_like_a_data_set_has_none_of_its_networks(stocked, tmp_path):
    lesson = notebooks.all_lessons(COURSE)[1]
    with pytest.raises(ValueError, match=r"lacks trained networks .*survey train mine_features"):
        lesson.check({"dataset": str(folder(tmp_path / "mnist"))})
