"""Scenes: what is drawn is where the layout says, and every scene depends on its seed and number alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survey_lib.lab import data
from survey_lib.lab.data.drawing import FACES
from survey_lib.lab.data.images import resize
from survey_lib.lab.data.scenes import COLOURS, OBJECTS, layout, scenes

COUNT = 2000


@pytest.fixture(scope="module")
def made():
    return scenes(COUNT)


@settings(deadline=None, derandomize=True, max_examples=8)
@given(st.data())
def test_scene_i_depends_on_seed_and_i_alone(made, data):
    start = data.draw(st.integers(0, COUNT - 1))
    count = data.draw(st.integers(1, min(100, COUNT - start)))
    part = scenes(count, start=start)
    assert torch.equal(part.images, made.images[start : start + count])
    for name, values in made.extra.items():
        assert torch.equal(part.extra[name], values[start : start + count])


def test_another_seed_draws_other_scenes(made):
    other = {image.numpy().tobytes() for image in scenes(200, seed=1).images}
    assert not other & {image.numpy().tobytes() for image in made.images}


def test_empty_slots_come_last_and_the_label_counts_the_others(made):
    present = made.extra["character"] < 10
    assert torch.equal(present.sum(1), made.labels + 1)
    assert torch.equal(present, torch.arange(OBJECTS) < present.sum(1, keepdim=True))
    assert torch.equal(present, made.extra["colour"] < len(COLOURS))
    assert torch.equal(present, made.extra["face"] < len(FACES))
    assert torch.equal(present, made.extra["box"][..., 2] > 0)
    assert not made.extra["large"][~present].any()


def test_boxes_lie_inside_and_do_not_overlap(made):
    box = made.extra["box"].double()
    low, high = box[..., :2] - box[..., 2:] / 2, box[..., :2] + box[..., 2:] / 2
    present = box[..., 2] > 0
    assert (low[present] > 0.02).all() and (high[present] < 0.98).all()
    for a in range(OBJECTS):
        for b in range(a):
            both = present[:, a] & present[:, b]
            apart = (low[both, a] - high[both, b]).maximum(low[both, b] - high[both, a]).amax(1)
            assert (apart > 0.05).all()  # along one axis, by two margins


def test_boxes_are_tight_to_the_ink():
    """The ground is smooth: where neighbours differ much, there is ink. At 128 px, to the blur of 2.5 pixels."""
    big = scenes(300, seed=2, size=128)
    images, box = big.images.float(), big.extra["box"] * 128
    edges = torch.zeros(len(big), 128, 128, dtype=torch.bool)
    edges[:, :, 1:] |= (images[..., 1:] - images[..., :-1]).abs().amax(1) > 40
    edges[:, 1:] |= (images[:, :, 1:] - images[:, :, :-1]).abs().amax(1) > 40
    pixel, inside = torch.arange(128) + 0.5, torch.zeros_like(edges)
    for slot in range(OBJECTS):
        x, y, width, height = box[:, slot, :, None].unbind(1)
        across = (pixel - x).abs() <= width / 2 + 2.5
        down = (pixel - y).abs() <= height / 2 + 2.5
        here = across[:, None] & down[:, :, None] & (width > 0)[..., None]
        inside |= here
        for side, length in ((2, height), (1, width)):  # rows and columns with ink
            ink = (edges & here).any(side)[width[:, 0] > 0].int()
            span = 128 - ink.flip(1).argmax(1) - ink.argmax(1)
            assert (span - length[width > 0]).abs().quantile(0.99) <= 5  # hairlines of some faces are fainter
    assert not (edges & ~inside).any()


def test_words_of_size_leave_a_gap():
    """By the height of a "0", to the hinting of fonts: other digits are higher in some faces."""
    zeros = scenes(COUNT, characters="0").extra
    height, large = zeros["box"][..., 3], zeros["large"]
    assert height[(height > 0) & ~large].max() < 0.33 < 0.41 < height[large].min()
    assert 0.2 < large[height > 0].double().mean() < 0.6


def test_every_character_colour_and_count_is_frequent(made):
    present = made.extra["character"] < 10
    for name, number in (("character", 10), ("face", len(FACES)), ("colour", len(COLOURS))):
        share = made.extra[name][present].bincount(minlength=number).double() / present.sum()
        assert len(share) == number and share.min() > 0.6 / number
    assert (made.labels.bincount().double() / COUNT - 0.25).abs().max() < 0.04


def test_the_same_scene_at_every_size(made):
    for size in (32, 128):
        other = scenes(100, size=size)
        assert all(torch.equal(other.extra[name], values[:100]) for name, values in made.extra.items())
        same = resize(other.images, 32).float() - resize(made.images[:100], 32).float()
        assert same.abs().mean() < 2.5  # of 255: each size averages samples of its own


def test_ink_stands_out_from_the_ground():
    """The contrast ratio of WCAG 2, of which 3 is asked for large print, of the ink and the median of the ground."""
    one = scenes(1000, seed=5, size=128)
    images = one.images[one.labels == 0].double() / 255
    linear = torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055) ** 2.4)
    light = (linear * torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.float64)[:, None, None]).sum(1).flatten(1)
    ground = light.median(1).values + 0.05
    assert torch.maximum((light.amax(1) + 0.05) / ground, ground / (light.amin(1) + 0.05)).min() > 3


def test_a_layout_is_characters_and_boxes(made):
    condition = layout(made)
    assert condition.shape == (COUNT, OBJECTS, 5)
    assert torch.equal(condition[..., 0].long(), made.extra["character"])
    assert torch.equal(condition[..., 1:], made.extra["box"])


def test_load_draws_the_beginning_of_a_longer_set():
    few = data.load("scenes", split="test", count=5)
    assert few.shape == (3, 64, 64)
    assert torch.equal(few.images, scenes(8, seed=1).images[:5])
    assert data.load("scenes", count=2, size=32).shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": 16}, "size is 16"),
        ({"size": 129}, "size is 129"),
        ({"count": 0}, "count is 0"),
        ({"seed": -1}, "seed"),
    ],
)
def test_refuses_other_sizes(wrong, said):
    with pytest.raises(ValueError, match=said):
        scenes(**{"count": 1, **wrong})
