"""Judges of scenes: crops frame their boxes, and agreement with a caption is what a caption says."""

import pytest
import torch

from survey_lib.lab.data.captions import Described, describe
from survey_lib.lab.data.scenes import scenes
from survey_lib.lab.evaluation.scenes import (
    CROP,
    Found,
    SceneEvaluator,
    _agreement,
    caption_accuracy,
    crops,
    layout_accuracy,
)
from survey_lib.lab.training import checkpoints


@pytest.fixture(scope="module")
def real():
    return scenes(300, seed=77)


def test_a_crop_is_the_square_around_its_box():
    ramp = torch.linspace(-1, 1, 65)[:-1] + 1 / 64  # the x of each pixel's middle
    image = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64)])[None]
    box = torch.tensor([[0.5, 0.4, 0.4, 0.2]])
    crop = crops(image, box)[0]
    assert crop.shape == (2, CROP, CROP)
    span = 0.4 * 1.25 * (CROP - 1) / CROP  # between the middles of the outer pixels, of half the image's extent
    assert torch.allclose(crop[0, 5, [0, -1]], torch.tensor([-span, span]), atol=1e-5)
    assert torch.allclose(crop[1, [0, -1], 5], torch.tensor([-0.2 - span, -0.2 + span]), atol=1e-5)


def test_judges_read_real_scenes(real):
    reader, finder = (checkpoints.load(f"scenes_{role}") for role in ("reader", "finder"))
    assert layout_accuracy(reader, real.float(), real)["layout"] > 0.99
    assert caption_accuracy(finder, real.float(), real)["all"] > 0.95


def test_other_scenes_are_read_at_chance(real):
    reader, finder = (checkpoints.load(f"scenes_{role}") for role in ("reader", "finder"))
    other = scenes(300, seed=78).float()
    assert layout_accuracy(reader, other, real)["layout"] < 0.25
    assert caption_accuracy(finder, other, real)["all"] < 0.05


def ideal(described: Described, centres) -> list[Found]:
    return [Found(*one, float(x), float(y)) for one, (x, y) in zip(described.objects, centres, strict=False)]


def test_what_a_caption_says_agrees_in_any_order(real):
    for described, box in zip(describe(real), real.extra["box"], strict=True):
        row = _agreement(described, ideal(described, box[:, :2])[::-1])
        assert row.pop("misbound") is False
        assert all(row.values())


TWO = Described(((1, 4, 7), (0, 0, 3)), (2,))  # a large blue 7 above a small red 3


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ([Found(1, 4, 7, 0.5, 0.8), Found(0, 0, 3, 0.5, 0.2)], {"relations"}),
        ([Found(1, 4, 1, 0.5, 0.2), Found(0, 0, 3, 0.5, 0.8)], {"digits"}),
        ([Found(0, 4, 7, 0.5, 0.2), Found(0, 0, 3, 0.5, 0.8)], {"sizes"}),
        ([Found(1, 2, 7, 0.5, 0.2), Found(0, 0, 3, 0.5, 0.8)], {"colours"}),
        ([Found(1, 0, 7, 0.5, 0.2), Found(0, 4, 3, 0.5, 0.8)], {"colours", "binding"}),
        ([Found(1, 4, 7, 0.5, 0.2)], {"objects", "digits", "sizes", "colours", "relations"}),
    ],
)
def test_each_mistake_is_told_apart(found, wrong):
    row = _agreement(TWO, found)
    assert row.pop("misbound") is ("binding" in wrong)
    assert not row.pop("all")
    assert {name for name, right in row.items() if not right} == wrong - {"binding"}


def test_the_evaluator_scores_what_was_asked_for():
    layout, caption = (SceneEvaluator.load_for(70, asked=asked) for asked in ("layout", "caption"))
    images = layout.wanted.images
    for evaluator, name in ((layout, "layout"), (caption, "all")):
        scores = evaluator.score(images)
        assert scores["fd"] < 1e-3 and scores[name] > 0.9
    shuffled = layout.score(images.roll(1, 0))
    assert shuffled["fd"] < 1e-3 and shuffled["layout"] < 0.4  # the same images, in the wrong places
