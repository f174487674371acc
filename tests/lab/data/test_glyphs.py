"""Glyphs: what is drawn is what the labels say, each image depends on its seed and number alone."""

import matplotlib
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from survey_lib.lab.data.drawing import DIGITS, FACES, LETTERS
from survey_lib.lab.data.glyphs import glyphs
from survey_lib.lab.data.images import resize

COUNT = 3000
few = settings(deadline=None, derandomize=True, max_examples=8)


@pytest.fixture(scope="module")
def colour():
    return glyphs(COUNT)


@pytest.fixture(scope="module")
def ink(colour):
    """How much ink covers each pixel, (COUNT, 32, 32) in [0, 1]: the distance from the colour of the corner."""
    grey = glyphs(COUNT, colour=False).images[:, 0].float()
    distance = (grey - grey[:, :1, :1]).abs()
    return distance / distance.amax((1, 2), keepdim=True)


@few
@given(st.data())
def test_image_i_depends_on_seed_and_i_alone(colour, data):
    start = data.draw(st.integers(0, COUNT - 1))
    count = data.draw(st.integers(1, min(100, COUNT - start)))
    part = glyphs(count, start=start)
    assert torch.equal(part.images, colour.images[start : start + count])
    assert torch.equal(part.labels, colour.labels[start : start + count])
    assert torch.equal(part.extra["face"], colour.extra["face"][start : start + count])


def test_another_seed_draws_other_images(colour):
    other = glyphs(500, seed=1)
    assert not {image.numpy().tobytes() for image in other.images} & {
        image.numpy().tobytes() for image in colour.images
    }


@few
@given(size=st.integers(16, 128), characters=st.sampled_from([DIGITS, LETTERS, "8", "aQ7"]), colour=st.booleans())
def test_any_size_characters_and_channels(size, characters, colour):
    made = glyphs(3, size=size, characters=characters, colour=colour)
    assert made.shape == (3 if colour else 1, size, size)
    assert made.classes == tuple(characters)


def test_the_same_picture_at_every_size(colour):
    """32 px and 16 px average the same samples, in blocks of 3 and of 6: they may differ by rounding alone."""
    small = glyphs(300, size=16)
    assert torch.equal(small.labels, colour.labels[:300])
    assert (small.images.int() - resize(colour.images[:300], 16).int()).abs().max() <= 1
    large = glyphs(100, size=128)
    assert (resize(large.images, 32).float() - colour.images[:100].float()).abs().mean() < 1.5


def test_grey_and_colour_show_the_same_shape(colour, ink):
    distance = (colour.images.float() - colour.images[:, :, :1, :1].float()).norm(dim=1)
    shape = distance / distance.amax((1, 2), keepdim=True)
    assert (shape - ink).abs().amax((1, 2)).quantile(0.99) < 0.1


def test_every_character_comes_in_every_face_equally_often(colour):
    mode = colour.extra["face"] * 10 + colour.labels
    counts = mode.bincount(minlength=10 * len(FACES)).double()
    expected = COUNT / len(counts)
    chi2 = ((counts - expected) ** 2 / expected).sum()
    freedom = len(counts) - 1
    assert abs(chi2 - freedom) < 4 * (2 * freedom) ** 0.5


def test_no_glyph_is_cut_by_the_border():
    images = glyphs(1000, characters=DIGITS + LETTERS, colour=False).images[:, 0].int()
    ring = torch.cat([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], 1)
    contrast = (images - ring[:, :1, None]).abs().amax((1, 2))
    assert ((ring - ring[:, :1]).abs().amax(1) < 0.3 * contrast).all()


def test_ink_stands_out_from_paper():
    """The contrast ratio of WCAG 2, of which 3 is asked for large print, of ink and paper."""
    images = glyphs(500, size=64, seed=5).images.double().flatten(2) / 255
    linear = torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055) ** 2.4)
    luminance = torch.einsum("c,ncp->np", torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.float64), linear)
    ratio = (luminance.amax(1) + 0.05) / (luminance.amin(1) + 0.05)
    assert ratio.min() > 3


def test_paper_and_ink_are_each_the_lighter_about_half_the_time(ink, colour):
    grey = colour.images.float().mean(1)
    brightest_is_ink = (
        (ink.flatten(1).argmax(1, keepdim=True) == grey.flatten(1).argmax(1, keepdim=True)).float().mean()
    )
    dark_paper = (grey[:, 0, 0] < 128).float().mean()
    assert 0.45 < dark_paper < 0.55
    assert brightest_is_ink > 0.3


def test_a_label_looks_the_same_in_a_face_never_seen(colour, ink):
    """The mean shape of each character in 20 faces names the characters of the 21st."""
    shapes = torch.stack([_fill(image) for image in ink]).flatten(1)
    label, face = colour.labels, colour.extra["face"]
    means = torch.stack([
        torch.stack([shapes[(label == digit) & (face == number)].mean(0) for digit in range(10)])
        for number in range(len(FACES))
    ])  # fmt: skip
    right = 0
    for number in range(len(FACES)):
        others = torch.cat([means[:number], means[number + 1 :]]).mean(0)
        right += int((torch.cdist(means[number], others).argmin(1) == torch.arange(10)).sum())
    assert right >= 0.97 * 10 * len(FACES)


def _fill(ink):
    """The box around the ink, stretched to 16 x 16."""
    rows, columns = ((ink > 0.3).any(axis).nonzero()[:, 0] for axis in (1, 0))
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return functional.interpolate(box[None, None], (16, 16), mode="bilinear", align_corners=False)[0, 0]


@pytest.mark.parametrize(
    ("regular", "bold"),
    [(name, name + "-Bold") for name in ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif")]
    + [("STIXGeneral", "STIXGeneralBol"), ("cmr10", "cmb10")],
)
def test_a_bold_face_has_more_ink(colour, ink, regular, bold):
    def weight(name, digit):
        chosen = (colour.extra["face"] == FACES.index(name)) & (colour.labels == digit)
        return torch.stack([_fill(image).mean() for image in ink[chosen]]).mean()

    for digit in (0, 2, 3, 5, 6, 8, 9):  # a 1 or 7 fills its box less the more its box widens
        assert weight(bold, digit) > weight(regular, digit)


def test_the_random_slant_never_makes_an_upright_face_oblique():
    drawn = glyphs(2500, characters="0", size=32, colour=False)
    cover = drawn.images[:, 0].double()
    cover = (cover - cover[:, :1, :1]).abs()
    axis = torch.arange(32.0, dtype=torch.float64)
    mass = cover.sum((1, 2))
    x, y = (cover * axis).sum((1, 2)) / mass, (cover * axis[:, None]).sum((1, 2)) / mass
    across, along = axis - x[:, None, None], axis[:, None] - y[:, None, None]
    lean = -(cover * across * along).sum((1, 2)) / (cover * along**2).sum((1, 2))
    for upright, oblique in [("DejaVuSans", "DejaVuSans-Oblique"), ("DejaVuSansMono", "DejaVuSansMono-Oblique")]:
        first, second = (lean[drawn.extra["face"] == FACES.index(name)] for name in (upright, oblique))
        assert -0.08 < first.min() < -0.05 and 0.05 < first.max() < 0.08
        assert second.min() > first.max() + 0.01


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"count": 0}, ValueError, "count is 0; at least 1"),
        ({"count": 2.0}, TypeError, "count is 2.0"),
        ({"count": True}, TypeError, "count is True"),
        ({"size": 15}, ValueError, "size is 15; at least 16"),
        ({"size": 129}, ValueError, "size is 129; at most 128"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"start": -1}, ValueError, "start is -1"),
        ({"characters": ""}, ValueError, "digits and letters"),
        ({"characters": "aa"}, ValueError, "each once"),
        ({"characters": "ä"}, ValueError, "got 'ä'"),
        ({"characters": 7}, TypeError, "string of digits and letters"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        glyphs(**{"count": 1} | arguments)


def test_a_missing_font_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"DejaVuSans\.ttf"):
        glyphs(1)
