"""Images that follow a slider or a line of text, with a static figure for readers without a kernel.

A widget is one notebook output with two forms: front ends with a live kernel show the control, all others (a page on
the web, an exported HTML file) the static figure, which is stored as an image. Using the control updates an `Image` and
an `HTML` widget through ``observe``; nothing is captured.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import ipywidgets
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from survey_lib.core.protocols import Corruption, Denoiser
from survey_lib.lab.plots.images import as_bytes, collage, mosaic, same_noise, sheet, steps_sheet, unit
from survey_lib.lab.plots.labels import number
from survey_lib.lab.plots.style import SHARPNESS, Figure, describe, png

WIDGET = "application/vnd.jupyter.widget-view+json"
_WIDEST = 720  # largest width of a frame in page pixels
_WHOLE = {"description_width": "initial"}  # as wide as the text: long labels are not cut off


class Live:
    """A control above an image and one line of HTML, which show ``frame(key)`` for a value of the control.

    Frames are rendered when they are first shown, and cached. ``static`` is the figure for readers without a kernel;
    ``box`` holds the live widgets: the control, ``image`` and ``caption``.
    """

    def __init__(self, control: ipywidgets.Widget, frame: Callable[[Any], tuple[bytes, str]], static: Figure):
        self._frame, self._frames = frame, {}
        self.control, self.static = control, static
        self.image = ipywidgets.Image(format="png")
        self.caption = ipywidgets.HTML()
        self.box = ipywidgets.VBox([control, self.image, self.caption])
        control.observe(lambda change: self._show(change["new"]), names="value")
        self._show(control.value)

    def _show(self, key: Hashable) -> None:
        if key not in self._frames:
            data, text = self._frame(key)
            width = Image.open(io.BytesIO(data)).width // SHARPNESS
            self._frames[key] = data, text, f"{min(width, _WIDEST)}px"
        self.image.value, self.caption.value, self.image.layout.width = self._frames[key]

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        data, metadata = self.static._repr_mimebundle_()
        view = self.box._repr_mimebundle_()
        return {**data, WIDGET: view[WIDGET]}, metadata


class Slider(Live):
    """A slider over ``values`` that shows ``frame(index)``: PNG bytes and one line of HTML below the image."""

    def __init__(
        self,
        frame: Callable[[int], tuple[bytes, str]],
        values: Sequence[Any],
        static: Figure,
        *,
        label: str,
        start: int = 0,
    ):
        if len(values) < 2:
            raise ValueError(f"a slider needs at least two values; got {len(values)}")
        self.slider = ipywidgets.SelectionSlider(
            options=[(_text(value), index) for index, value in enumerate(values)],
            value=start,
            description=label,
            continuous_update=True,
            layout={"width": "420px"},
            style=_WHOLE,
        )
        super().__init__(self.slider, frame, static)


class TextBox(Live):
    """A line of text, shown as ``frame(text)``: PNG bytes and one line of HTML.

    A text that ``frame`` refuses with a ValueError leaves the image as it is; the error's sentence stands below it.
    """

    def __init__(self, frame: Callable[[str], tuple[bytes, str]], start: str, static: Figure, *, label: str):
        self.text = ipywidgets.Text(
            value=start,
            description=label,
            continuous_update=False,  # at Enter
            layout={"width": "95%", "max_width": f"{_WIDEST}px"},
            style=_WHOLE,
        )
        super().__init__(self.text, frame, static)

    def _show(self, key: str) -> None:
        try:
            super()._show(key)
        except ValueError as error:
            self.caption.value = html.escape(str(error))


def image_slider(
    render: Callable[[Any], Tensor | Figure],
    values: Sequence[Any],
    *,
    label: str,
    scale: int = 3,
    columns: int | None = None,
    caption: Callable[[Any], str] = lambda value: "",
    shown: int = 5,
    start: int = 0,
    alt: str | None = None,
) -> Slider:
    """A slider over ``values`` that shows what ``render(value)`` returns.

    ``render`` returns images (N, C, H, W), uint8 or in [-1, 1], shown at whole-number ``scale`` in ``columns`` (fast),
    or a `Figure` (slower). ``caption(value)`` is one line of HTML. The static figure shows ``shown`` evenly spaced
    values.
    """

    def frame(index: int) -> tuple[bytes, str]:
        drawn = render(values[index])
        data = drawn.png if isinstance(drawn, Figure) else _png(drawn, scale, columns)
        return data, caption(values[index])

    chosen = sorted({round(i) for i in np.linspace(0, len(values) - 1, shown)})
    names = [f"{label} = {_text(values[index])}" for index in chosen]
    drawn = [render(values[index]) for index in chosen]
    if isinstance(drawn[0], Figure):
        static = replace(collage([figure.pixels() for figure in drawn], names), lossless=False)  # charts: few colours
        alt = alt or " ".join(f"{name}: {figure.alt}" for name, figure in zip(names, drawn, strict=True))
    else:
        static = sheet(torch.cat([as_bytes(images) for images in drawn]), rows=names)
        alt = alt or f"What the slider shows at {', '.join(names)}. {static.alt}"
    return Slider(frame, values, describe(static, alt), label=label, start=start)


def text_box(render: Callable[[str], Tensor], texts: Sequence[str], *, label: str, scale: int = 3) -> TextBox:
    """A line to type that shows the images ``render(text)``; it begins at the first of ``texts``.

    ``render`` returns images (N, C, H, W), uint8 or in [-1, 1], shown at whole-number ``scale``, or raises ValueError
    with a sentence for the reader. The static figure shows all ``texts``.
    """
    if not texts:
        raise ValueError("a text box needs at least one text to begin with")
    drawn = [as_bytes(render(text)) for text in texts]
    static = sheet(torch.cat(drawn), rows=list(texts), columns=len(drawn[0]))
    told = f"What the box shows for {'; '.join(texts)}. {static.alt}"
    return TextBox(lambda text: (_png(render(text), scale, None), ""), texts[0], describe(static, told), label=label)


def time_slider(
    corruption: Corruption,
    denoiser: Denoiser,
    x0: Tensor,
    *,
    seed: int = 0,
    times: Sequence[float] | Tensor | None = None,
    cond: Any = None,
    scale: int = 3,
    shown: int = 5,
) -> Slider:
    """A slider over t: corrupted images ``x_t`` of ``x0`` (N, C, H, W), and the denoiser's predictions.

    Three rows, with a column for each image: clean data, ``x_t`` (at unit scale), and the prediction. The noise is the
    same at every t. By default there are 21 times from 0.01 to 1. The static figure is a `steps_sheet`.
    """
    times = torch.as_tensor(np.linspace(0.01, 1, 21) if times is None else times, dtype=torch.float64)
    schedule = getattr(corruption, "schedule", None)

    def look(t: Tensor) -> tuple[Tensor, Tensor]:
        generator = torch.Generator(device=x0.device).manual_seed(seed)
        (x_t,) = same_noise(corruption, x0, [t], generator)
        with torch.no_grad():
            return x_t, denoiser(x_t, t, cond)

    def frame(index: int) -> tuple[bytes, str]:
        t = times[index]
        x_t, answer = look(t)
        rows = torch.cat([x0, unit(x_t, t, schedule), answer])
        lam = "" if schedule is None else f", λ = {number(schedule.lam(t), 2)}"
        error = number((answer - x0).square().mean().sqrt(), 2)
        text = f"t = {number(t, 2)}{lam}; the answer is off by {error} (root mean square)"
        return _png(rows, scale, len(x0)), f"{text}.<br>From the top: clean data, x<sub>t</sub>, the answer."

    index = sorted({round(i) for i in np.linspace(0, len(times) - 1, shown)}, reverse=True)
    seen = [look(times[i]) for i in index]
    few = slice(0, 3)
    static = steps_sheet(
        [float(times[i]) for i in index],
        torch.stack([x_t[few] for x_t, _ in seen]),
        torch.stack([answer[few] for _, answer in seen]),
        schedule=schedule,
    )
    return Slider(frame, [number(t, 2) for t in times], static, label="t", start=len(times) // 2)


def _png(images: Tensor, scale: int, columns: int | None) -> bytes:
    images = as_bytes(images)
    return png(mosaic(images, columns or len(images), scale)[0])


def _text(value: Any) -> str:
    return number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
