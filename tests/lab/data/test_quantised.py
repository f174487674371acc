"""Small images of few grey levels, and images for tokens."""

from __future__ import annotations

import torch

from survey_lib.lab.data import quantised
from survey_lib.lab.data.images import ImageSet


def test_levels_are_equal_eighths_of_the_mean(monkeypatch) -> None:
    """Two by two pixels of one brightness make one entry; colour counts by luminance; 28 pixels get a rim."""
    bytes_ = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    images = {
        "grey": bytes_.repeat_interleave(2, 2).repeat_interleave(2, 3),
        "colour": bytes_.repeat_interleave(2, 2).repeat_interleave(2, 3).expand(1, 3, 32, 32),
        "narrow": torch.full((1, 1, 28, 28), 255, dtype=torch.uint8),
    }
    monkeypatch.setattr(
        quantised.data, "load", lambda name, **_: ImageSet(name, images[name], torch.zeros(1).long(), ("a",))
    )
    for name in ("grey", "colour"):
        x, labels = quantised.levels(name)
        assert torch.equal(x.flatten(), torch.arange(256) // 32) and labels.shape == (1,)
    x, _ = quantised.levels("narrow")
    assert (x[..., 1:15, 1:15] == 7).all() and x.sum() == 7 * 14**2


def test_of_the_glyphs_the_faces_without_serifs_are_taken() -> None:
    x, labels = quantised.levels("glyphs", split="test", count=30)
    again, _ = quantised.levels("glyphs", split="test", count=50)
    assert x.shape == (30, 1, 16, 16) and labels.shape == (30,) and torch.equal(again[:30], x)
    every = quantised.data.load("glyphs", split="test", count=100)
    assert torch.equal(labels[:20], every.labels[every.extra["face"] < quantised.SANS_SERIF][:20])


def test_the_foreground_is_white_whatever_the_colours_are() -> None:
    """Dark on light and light on dark in any colours: the same strokes on black."""
    strokes = torch.zeros(3, 32, 32, dtype=torch.bool)
    strokes[:, 8:24, 14:18] = True
    x = torch.stack([torch.where(strokes, a, b).byte() for a, b in ((250, 10), (10, 250), (90, 130))])
    x[1, 2] = 77  # a channel that says nothing
    assert torch.equal(quantised.foreground_mask(x), (255 * strokes).byte().expand(3, 3, 32, 32))
    glyphs = quantised.token_images("glyphs", split="test", count=20)
    assert glyphs.shape == (3, 32, 32) and (glyphs.images[:, :, 0, 0] == 0).all()
    assert (glyphs.images.amax((1, 2, 3)) == 255).all() and glyphs.extra["face"].max() < quantised.SANS_SERIF


def test_levels_and_numbers_there_and_back() -> None:
    x = torch.arange(8).reshape(1, 1, 2, 4)
    assert torch.equal(quantised.from_image(quantised.to_image(x)), x)
    assert quantised.to_image(x).aminmax() == (-1, 1)
    assert torch.equal(quantised.from_image(torch.tensor([-3.0, -0.99, 0.2, 9.0])), torch.tensor([0, 0, 4, 7]))
    assert quantised.for_features(x.expand(2, 1, 2, 4), 3).shape == (2, 3, 4, 8)
