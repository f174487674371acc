"""Sliders: a change of value changes the picture, frames are kept, and a reader without a kernel sees a figure."""

from __future__ import annotations

import io

import nbformat
import numpy as np
import pytest
import torch
from nbconvert import HTMLExporter
from PIL import Image

from survey_lib.core.corruptions import Gaussian
from survey_lib.core.schedules import vp_cosine
from survey_lib.lab import plots, widgets
from survey_lib.lab.plots.style import SHARPNESS


class Halver:
    """A denoiser that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x_t, t, cond=None):
        self.calls += 1
        return x_t / 2


@pytest.fixture
def x0():
    return torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def slider(x0):
    return widgets.time_slider(Gaussian(vp_cosine()), Halver(), x0, seed=3, times=[0.0, 0.3, 0.6, 1.0], scale=1)


def rows(data: bytes) -> list[np.ndarray]:
    """The three rows of a frame, gutters left out, a pixel a source pixel."""
    grey = np.asarray(Image.open(io.BytesIO(data)).convert("L")).astype(float)[::SHARPNESS, ::SHARPNESS]
    return [grey[k * 11 : k * 11 + 8] for k in range(3)]


def test_the_value_changes_picture_and_caption(slider):
    before = slider.image.value, slider.caption.value
    slider.slider.value = 3
    assert slider.image.value != before[0] and slider.caption.value != before[1]
    assert "t = 1," in slider.caption.value
    slider.slider.value = 0
    clean, noisy, answer = rows(slider.image.value)
    assert (clean == noisy).all(), "at t = 0 nothing is corrupted"
    assert np.abs((answer - 127.5) * 2 - (noisy - 127.5))[:, :8].max() <= 2, "the last row is the denoiser's answer"


def test_frames_are_rendered_when_first_seen_and_then_kept(x0):
    denoiser = Halver()
    slider = widgets.time_slider(Gaussian(vp_cosine()), denoiser, x0, times=torch.linspace(0, 1, 21), shown=5)
    assert denoiser.calls == 5 + 1, "the static figure and the first frame"
    slider.slider.value = 2
    first = slider.image.value
    slider.slider.value = 3
    slider.slider.value = 2
    assert denoiser.calls == 8 and slider.image.value == first


def test_the_seed_decides_the_noise(x0):
    def frame(seed: int) -> bytes:
        return widgets.time_slider(Gaussian(vp_cosine()), Halver(), x0, seed=seed, times=[0.2, 0.9]).image.value

    assert frame(1) == frame(1) != frame(2)


def test_both_faces_stand_in_one_output(slider):
    data, metadata = slider._repr_mimebundle_()
    assert data[widgets.WIDGET]["model_id"] == slider.box.model_id
    assert data["text/plain"] == metadata["image/png"]["alt"] == slider.static.description
    assert "from t = 1 to 0" in slider.static.alt


def test_exported_pages_show_the_static_face(slider):
    data, metadata = slider._repr_mimebundle_()
    output = nbformat.v4.new_output("display_data", data=data, metadata=metadata)
    cell = nbformat.v4.new_code_cell("slider", outputs=[output])
    page, _ = HTMLExporter(template_name="basic").from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert data["image/png"] in page and slider.box.model_id not in page


@pytest.mark.parametrize("as_figure", [False, True])
def test_an_image_slider_shows_what_render_returns(x0, as_figure):
    def render(gain):
        return plots.sheet(x0 * gain, scale=2) if as_figure else x0 * gain

    slider = widgets.image_slider(
        render, [0.1, 0.5, 1.0], label="gain", scale=2, shown=2, caption=lambda gain: f"gain {gain:g}"
    )
    seen = []
    for index in (0, 1, 2):
        slider.slider.value = index
        seen.append(slider.image.value)
    assert len(set(seen)) == 3 and slider.caption.value == "gain 1"
    assert seen[2] == plots.sheet(x0, scale=2).png, "at whole-number scale, like a sheet"
    assert "gain = 0.1" in slider.static.alt and "gain = 1" in slider.static.alt
    assert "gain = 0.1" in [text.get_text() for text in slider.static.figure.texts]


def test_a_slider_needs_a_choice(x0):
    with pytest.raises(ValueError, match="two values"):
        widgets.image_slider(lambda v: x0, [1], label="v")


def test_charts_of_a_slider_stand_side_by_side(x0):
    def render(power):
        return plots.curves({"a": (np.arange(9), np.arange(9) ** power)})

    slider = widgets.image_slider(render, [1.0, 2.0], label="power")
    assert slider.static.pixels().shape[1] <= 1480
    assert "power = 2: Loss against training steps: a goes from 0 to 64." in slider.static.alt


def test_a_text_box_draws_what_is_typed_and_says_what_it_refuses(x0):
    asked = []

    def render(text):
        asked.append(text)
        if "<" in text:
            raise ValueError(f'"{text}" is not a word')
        return x0[:1] if text == "one" else -x0[:1]

    box = widgets.text_box(render, ["one", "two"], label="caption")
    first = box.image.value
    assert "one; two" in box.static.alt and box.text.value == "one"
    box.text.value = "two"
    second = box.image.value
    assert second != first and not box.caption.value
    box.text.value = "<b>"
    assert box.image.value == second and box.caption.value == "&quot;&lt;b&gt;&quot; is not a word"
    box.text.value = "one"
    assert box.image.value == first and not box.caption.value  # the refusal is gone
    assert asked.count("two") == 2  # for the figure, and once for the box
    assert widgets.WIDGET in box._repr_mimebundle_()[0]
    with pytest.raises(ValueError, match="at least one text"):
        widgets.text_box(render, [], label="caption")
