"""One style for every figure: few colours, each with a role; light grids; direct labels; alt text.

A plotting function takes data and returns a `Figure`: a matplotlib figure with one sentence of alt text computed from
that data. pyplot is not used, so that no figure stays open or is shown twice.
"""

from __future__ import annotations

import base64
import functools
import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from survey_lib.lab.runtime import Run, write_atomically

#: Colours by role: Okabe and Ito's palette, which colour-blind readers can tell apart.
PALETTE = MappingProxyType(
    {
        "data": "#0072B2",
        "model": "#D55E00",
        "theory": "#222222",
        "peer": "#009E73",
        "accent": "#CC79A7",
        "extra": "#E69F00",
        "sky": "#56B4E9",
        "noise": "#8C8C8C",
        "faint": "#D9D9D9",
    }
)
#: The colours of curves without a role, in order.
CYCLE = tuple(PALETTE[role] for role in ("data", "model", "peer", "accent", "extra", "sky", "noise", "theory"))
PIXELS_PER_INCH = 100  # as a page shows the figure
SHARPNESS = 2  # PNG pixels for each page pixel: sharp on dense screens, an exact half on others

STYLE = MappingProxyType(
    {
        "font.family": "DejaVu Sans",
        "mathtext.fontset": "dejavusans",
        "font.size": 9.5,
        "figure.dpi": PIXELS_PER_INCH,
        "figure.figsize": (7.2, 3.9),
        "figure.facecolor": "white",
        "axes.facecolor": "white",
        "axes.edgecolor": "#777777",
        "axes.labelcolor": "#333333",
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.titlelocation": "left",
        "axes.titlesize": 10.5,
        "axes.titlecolor": "#333333",
        "text.color": "#333333",
        "axes.titlepad": 9,
        "axes.labelpad": 5,
        "axes.prop_cycle": matplotlib.cycler(color=CYCLE),
        "grid.color": "#E8E8E8",
        "grid.linewidth": 0.7,
        "xtick.color": "#777777",
        "ytick.color": "#777777",
        "xtick.labelcolor": "#333333",
        "ytick.labelcolor": "#333333",
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "lines.linewidth": 1.8,
        "lines.markersize": 4.5,
        "lines.solid_capstyle": "round",
        "legend.frameon": False,
        "image.cmap": "Greys",
        "image.interpolation": "nearest",
    }
)

_note = ""


def use(run: Run | None = None) -> None:
    """Apply this style to the reader's own matplotlib figures, and mark every figure of a smoke run.

    Figures made after this call carry ``run.note``; `use()` without a run removes it.
    """
    global _note
    matplotlib.rcParams.update(STYLE)
    _note = run.note if run is not None else ""


def styled(draw: Callable) -> Callable:
    """Decorate a plotting function to use this style, whatever the caller's matplotlib settings are.

    An empty series of results (`lab.experiments`) is shown as its ``stand_in``, a sentence; its ``note``, on results
    that are older than their code, is added below the figure.
    """

    @functools.wraps(draw)
    def inner(*args, **kwargs):
        results = args[0] if args and hasattr(args[0], "stand_in") else None
        if results is not None and not results:
            return results.stand_in
        with matplotlib.rc_context(STYLE):
            figure = draw(*args, **kwargs)
        if results is not None and results.note and isinstance(figure, Figure):
            return replace(figure, note="; ".join(filter(None, (figure.note, results.note))))
        return figure

    return inner


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure and its alt text.

    A notebook shows it as ``image/png``; the alt text is its ``text/plain`` and the ``alt`` of the image's metadata.
    ``lossless`` keeps every pixel, which contact sheets need; charts are stored in at most 256 colours, a third of the
    size.
    """

    figure: Canvas
    alt: str
    lossless: bool = False
    note: str = field(default_factory=lambda: _note)

    def pixels(self) -> np.ndarray:
        """The image as (height, width, 3) bytes, with the note of a smoke run in a strip below."""
        with matplotlib.rc_context(STYLE):
            self.figure.canvas.draw()
        picture = np.array(self.figure.canvas.buffer_rgba())[..., :3]
        return np.concatenate([picture, _strip(self.note, picture.shape[1])]) if self.note else picture

    @functools.cached_property
    def png(self) -> bytes:
        """The image as the bytes of a PNG file."""
        return png(self.pixels(), lossless=self.lossless)

    @property
    def description(self) -> str:
        """The alt text, followed by the note of a smoke run."""
        return f"{self.alt} ({self.note[0].upper()}{self.note[1:]}.)" if self.note else self.alt

    def save(self, path: str | Path) -> None:
        """Write the PNG file."""
        write_atomically(path, self.png)

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        width = round(self.figure.get_figwidth() * PIXELS_PER_INCH)
        data = {"image/png": base64.b64encode(self.png).decode(), "text/plain": self.description}
        return data, {"image/png": {"width": width, "alt": self.description}}

    def __repr__(self) -> str:
        return self.description


def describe(figure: Figure | Canvas, alt: str | None = None) -> Figure:
    """Wrap a figure with its alt text, by default the joined alt texts of its panels."""
    if isinstance(figure, Figure):
        return replace(figure, alt=alt or figure.alt)
    return Figure(figure, alt or " ".join(ax.get_label() for ax in figure.axes if ax.get_label()))


def finish(ax: Axes, alt: str) -> Figure:
    """Store the alt text of a panel, without TeX, and wrap its figure; the last call of a plotting function."""
    ax.set_label(re.sub(r"[$\\\\{}]", "", alt))
    return describe(ax.figure)


@styled
def panels(columns: int = 1, rows: int = 1, *, width: float = 7.2, height: float | None = None, **options: Any):
    """An empty figure and its axes: one `Axes`, or an array of `Axes`, to be passed to functions as ``ax``.

    ``width`` and ``height`` are inches of 100 page pixels; ``options`` go to `Figure.subplots`. `describe` wraps the
    finished panels as one `Figure`.
    """
    size = (width, height or 3.9 * rows**0.9 / columns**0.25)
    figure = Canvas(size, dpi=PIXELS_PER_INCH * SHARPNESS, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.09, h_pad=0.09, wspace=0.06)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **options)


def png(pixels: np.ndarray, *, lossless: bool = True) -> bytes:
    """Encode (height, width, 3) or (height, width) bytes as PNG: greyscale if possible, lossless or in 256 colours."""
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if not lossless and image.mode == "RGB":
        image = image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        image.putpalette([255 if level > 253 else level for level in image.getpalette()])  # its white is off by one
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def colours(names: Iterable[str], roles: dict[str, str] | None = None) -> dict[str, str]:
    """A colour for each name: the colour of its role if ``roles`` has one, else the next colour of `CYCLE`."""
    roles = roles or {}
    fixed = {name: PALETTE.get(roles[name], roles[name]) for name in names if name in roles}
    free = [colour for colour in CYCLE if colour not in fixed.values()] or list(CYCLE)
    rest = [name for name in names if name not in fixed]
    return fixed | {name: free[i % len(free)] for i, name in enumerate(rest)}


def _strip(note: str, width: int) -> np.ndarray:
    height = 13 * SHARPNESS
    strip = Image.new("RGB", (width, height), "white")
    font = ImageFont.truetype(findfont("DejaVu Sans"), 9.5 * SHARPNESS)
    ImageDraw.Draw(strip).text(
        (width - 6 * SHARPNESS, height // 2), note, fill=PALETTE["noise"], font=font, anchor="rm"
    )
    return np.asarray(strip)
