"""The trainings of lessons 20 and 21: small images, ways to destroy them, and networks of other seeds."""

import pytest
import torch
from torch.nn import functional as F

from survey_lib.core import grids
from survey_lib.lab.data import quantised
from survey_lib.lab.training import checkpoints, recipes
from survey_lib.lab.training.recipes import noise, students
from tests.support import generator


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home of its own for what is trained here; the course's networks stay where they are."""
    monkeypatch.setattr(recipes, "HOME", tmp_path)
    return tmp_path


@pytest.fixture
def shorter(monkeypatch):
    """All trainings of a few steps."""
    recipe_for = recipes.Training.recipe_for

    def brief(self, dataset, *, steps=None, **others):
        return recipe_for(self, dataset, steps=2, **others)

    monkeypatch.setattr(recipes.Training, "recipe_for", brief)
    monkeypatch.setattr(recipes.training, "score", lambda *_, **__: {})


def test_small_images_are_the_means_behind_the_levels():
    images, (levels, labels) = quantised.small_images("glyphs", count=50), quantised.levels("glyphs", count=50)
    assert images.shape == (1, 16, 16) and torch.equal(images.labels, labels)
    apart = (images.images.float() * (quantised.LEVELS / 256)).long() - levels
    assert apart.abs().max() <= 1 and (apart != 0).double().mean() < 0.02  # where rounding crosses an edge
    large = quantised.enlarged(images.float(), 3)
    assert large.shape == (50, 3, 32, 32)
    torch.testing.assert_close(F.avg_pool2d(large, 32).flatten(), images.float().mean((1, 2, 3)).repeat_interleave(3))


@pytest.mark.parametrize("name", noise.WAYS)
def test_with_the_true_image_every_way_walks_back_to_it(name):
    way, x0 = noise.WAYS[name], quantised.small_images("glyphs", split="test", count=4).float()
    x = noise.start(way, 4, x0, generator=generator(1))
    assert x.shape == x0.shape
    if not way.levels:  # its steps cancel what they know of the guess, and keep the rest of x
        x = way.corruption.corrupt(x0, way.start, generator=generator(3))
    ends = noise.draw(way, lambda *_: x0, x, 12, generator=generator(2))
    grain = noise.GRAIN if name == "heat" else 0.0
    assert (ends - x0).abs().max() <= 6 * grain + 1e-4


@pytest.mark.parametrize("name", noise.WAYS)
def test_what_is_left_of_an_image_falls_with_time(name):
    way, x0 = noise.WAYS[name], quantised.small_images("glyphs", split="test", count=200).float()
    centred = x0 - x0.mean((1, 2, 3), keepdim=True)
    left = []
    for t in (0.1, 0.4, 0.7, 0.9):
        x_t = way.corruption.corrupt(x0, t, generator=generator(3))
        x_t = x_t - x_t.mean((1, 2, 3), keepdim=True)
        left.append(float(F.cosine_similarity(x_t.flatten(1), centred.flatten(1)).mean()))
    assert left == sorted(left, reverse=True) and left[0] > 0.5


def test_a_student_begins_as_its_teacher_and_learns_what_two_steps_imply():
    row = recipes.TRAININGS["student_8"]
    examples = students.Taught(
        checkpoints.load("glyphs_noise_gaussian", schedule=students.SCHEDULE),
        quantised.small_images("glyphs", count=64).float(),
    )
    student, x = row.untrained(examples, 0), students.prior(4).float()
    with torch.no_grad():
        torch.testing.assert_close(student(x, 0.5), examples.teacher(x, 0.5))
    assert all(p.requires_grad for p in student.parameters())
    assert not any(p.requires_grad for p in examples.teacher.parameters())
    loss = row.loss_for(student, row.recipe, examples)
    values, lam = loss(student, examples.tensors[0][:8], None, generator(4))
    assert values.shape == lam.shape == (8,) and values.requires_grad and (values > 0).all()


def test_the_chain_of_students_halves_the_steps_down_to_one():
    assert students.CHAIN == (8, 4, 2, 1)
    for steps in students.CHAIN:
        torch.testing.assert_close(students.grid(2 * steps)[::2], students.grid(steps))
    assert {f"student_{steps}" for steps in students.CHAIN} < set(recipes.TRAININGS)


def test_a_network_of_another_seed_is_trained_once_and_kept(home, shorter):
    name, root = "glyphs_noise_gaussian", home / "build" / "checkpoints" / "seed_5"
    first = recipes.network(name, seed=5)
    made = (root / f"{name}.safetensors").stat().st_mtime_ns
    torch.testing.assert_close(first.state_dict(), recipes.network(name, seed=5).state_dict())
    assert (root / f"{name}.safetensors").stat().st_mtime_ns == made
    assert checkpoints.manifest(name, root=root)["seed"] == 5


def test_what_a_network_of_another_seed_builds_on_is_of_this_seed_and_comes_first(home, shorter):
    root = home / "build" / "checkpoints" / "seed_5"
    recipes.network("glyphs_student_4", seed=5)
    made = [root / f"glyphs_{role}.safetensors" for role in ("noise_gaussian", "student_8", "student_4")]
    assert [path.stat().st_mtime_ns for path in made] == sorted(path.stat().st_mtime_ns for path in made)
    x = students.prior(2).float()
    student, teacher, other = (
        checkpoints.load(name, schedule=students.SCHEDULE, root=folder)
        for name, folder in (("glyphs_student_4", root), ("glyphs_noise_gaussian", root), ("glyphs_student_8", None))
    )
    assert (student(x, 0.5) - teacher(x, 0.5)).abs().max() < (student(x, 0.5) - other(x, 0.5)).abs().max()


def test_the_recipes_own_seed_is_the_network_of_the_course():
    ours, theirs = recipes.network("glyphs_student_4", seed=0), checkpoints.load("glyphs_student_4")
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_one_evaluation_of_the_last_student_is_nearer_to_the_teachers_way_than_one_of_the_teacher():
    teacher, student = (
        checkpoints.load(f"glyphs_{role}", schedule=students.SCHEDULE) for role in ("noise_gaussian", "student_1")
    )
    x = students.prior(64).float()
    with torch.no_grad():
        far = students.walk(teacher, x, students.grid(16))
        apart = [(students.walk(net, x, students.grid(1)) - far).square().mean() for net in (student, teacher)]
    assert apart[0] < 0.5 * apart[1]


def test_the_student_of_pairs_draws_what_its_teacher_draws_from_noises_that_it_has_not_seen():
    teacher, student = (
        checkpoints.load(f"glyphs_{role}", schedule=students.SCHEDULE) for role in ("noise_gaussian", "pairs")
    )
    x = students.prior(64).float()
    with torch.no_grad():
        far = students.multistep(teacher, students.SCHEDULE, x, grids.karras(20, students.SCHEDULE))
        found, mean = students.walk(student, x, students.grid(1)), students.walk(teacher, x, students.grid(1))
    assert (found - far).square().mean() < 0.1 * (mean - far).square().mean()
    assert not torch.equal(students.prior(8, seed=students._PAIRS_SEED), students.prior(8))


def test_the_guided_student_stands_for_two_evaluations():
    images = quantised.small_images("glyphs", split="test", count=32)
    teacher, student = (
        checkpoints.load(f"glyphs_{role}", schedule=students.SCHEDULE) for role in ("labelled", "guided")
    )
    t, scale = torch.tensor(0.5, dtype=torch.float64), 3.0
    x_t = noise.WAYS["gaussian"].corruption.corrupt(images.float(), t, generator=generator(6))
    with torch.no_grad():
        wanted = students.ClassifierFree(teacher, teacher.net.classes, scale)(x_t, t, images.labels)
        found = student(x_t, t, (images.labels, torch.tensor(scale)))
        plain = teacher(x_t, t, images.labels)
    assert (found - wanted).square().mean() < 0.7 * (plain - wanted).square().mean()


def test_grids_of_the_ways_start_where_the_noise_is_strongest():
    for way in noise.WAYS.values():
        times = grids.uniform(5, start=way.start)
        assert times[0] == way.start and (way.start == 1 or float(way.schedule.lam(times[0]).exp()) < 0.02)
