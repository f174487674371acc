"""Text on figures: number formats, readable colours, and labels that do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike
from torch import Tensor


def number(value: float, digits: int = 3) -> str:
    """Format a number for prose: ``digits`` significant digits, no trailing zeros, thousands with commas."""
    value = float(value)
    if not np.isfinite(value):
        return "not a number" if np.isnan(value) else ("infinity" if value > 0 else "minus infinity")
    if value and not 1e-4 <= abs(value) < 1e7:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"
    decimals = max(0, digits - 1 - int(np.floor(np.log10(abs(value))))) if value else 0
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def plain_log(axis: Axis) -> None:
    """Label a log axis with plain numbers, at 1, 2 and 5 in each decade if it spans few decades."""
    low, high = axis.get_view_interval()
    few = high / max(low, 1e-300) < 2000
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def array(values: ArrayLike | Tensor) -> np.ndarray:
    """Convert numbers, or a tensor on any device, to a float64 array."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=float)


def capital(text: str) -> str:
    """Capitalise the first letter."""
    return text[:1].upper() + text[1:]


def ink(colour: str) -> str:
    """Darken a colour until text in it is readable on white (contrast 4.5 : 1, WCAG 2.1)."""
    rgb = np.array(to_rgb(colour))

    def luminance(c: np.ndarray) -> float:
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    while 1.05 / (luminance(rgb) + 0.05) < 4.5:
        rgb = rgb * 0.95
    return to_hex(rgb)


def halo(width: float = 2.5) -> list:
    """A white outline that keeps text readable over lines."""
    return [withStroke(linewidth=width, foreground="white")]


def spread(wanted: Sequence[float], gap: float, low: float = -np.inf, high: float = np.inf) -> np.ndarray:
    """Positions nearest to ``wanted`` (least squares), in the same order and at least ``gap`` apart.

    All positions lie between ``low`` and ``high`` if there is room for them.
    """
    wanted = np.asarray(wanted, dtype=float)
    order = np.argsort(wanted, kind="stable")
    blocks: list[tuple[float, int]] = []  # (mean, size): pool neighbours that would overlap
    for rank, index in enumerate(order):
        mean, size = wanted[index] - rank * gap, 1
        while blocks and blocks[-1][0] > mean:
            before, count = blocks.pop()
            mean, size = (mean * size + before * count) / (size + count), size + count
        blocks.append((mean, size))
    offsets = np.repeat([mean for mean, _ in blocks], [size for _, size in blocks])
    placed = np.empty_like(wanted)
    placed[order] = np.clip(offsets, low, max(low, high - gap * (len(wanted) - 1))) + gap * np.arange(len(wanted))
    return placed


def end_labels(ax: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Label curve ends ``(x, y, text, colour)`` on the right, moved apart so that no labels overlap."""
    labels = []
    for x, y, text, colour in ends:
        leader = {
            "arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 3, "visible": False,
            "relpos": (0, 0.5),  # it ends at the middle of the label's left edge
        }  # fmt: skip
        labels.append(
            ax.annotate(
                text, (x, y), (8, 0), textcoords="offset points", va="center", color=ink(colour),
                path_effects=halo(), annotation_clip=False, arrowprops=leader,
            )
        )  # fmt: skip
    _lay_out(ax)
    points = 72 / ax.figure.dpi
    wanted = ax.transData.transform([(x, y) for x, y, *_ in ends])[:, 1] * points
    frame = ax.get_window_extent()
    size = max((label.get_fontsize() for label in labels), default=9)
    placed = spread(wanted, 1.3 * size, frame.y0 * points + size / 2, frame.y1 * points)
    moved = np.abs(placed - wanted) > 0.5 * size
    for label, shift, far in zip(labels, placed - wanted, moved, strict=True):
        label.set_position((18 if moved.any() else 8, shift))
        label.arrow_patch.set_visible(far)


def place_labels(ax: Axes, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Label points ``(x, y, text, colour)``, each on the side that overlaps least with points, labels and lines."""
    labels = [
        ax.annotate(text, (x, y), (8, 0), textcoords="offset points", color=ink(colour), path_effects=halo())
        for x, y, text, colour in points
    ]
    _lay_out(ax)
    frame = ax.get_window_extent()
    unit = ax.figure.dpi / 72
    dots = [Bbox.from_bounds(x - 5 * unit, y - 5 * unit, 10 * unit, 10 * unit)
            for x, y in ax.transData.transform([(x, y) for x, y, *_ in points])]  # fmt: skip
    taken = dots + _along_lines(ax, 3 * unit) + [part.get_window_extent() for bar in ax.containers for part in bar[2]]
    for label in labels:
        best = (float("inf"), None)
        for rank, (dx, dy, ha, va) in enumerate(_SIDES):
            label.set(position=(dx, dy), ha=ha, va=va)
            box = label.get_window_extent()
            cost = rank * 1e-3 + sum(_shared(box, other) for other in taken) + 3 * (1 - _shared(box, frame))
            best = min(best, (cost, (dx, dy, ha, va)), key=lambda pair: pair[0])
        dx, dy, ha, va = best[1]
        label.set(position=(dx, dy), ha=ha, va=va)
        taken.append(label.get_window_extent())


def _lay_out(ax: Axes) -> None:
    """Run the layout of the figure, so that the axes have the position in which they will be drawn."""
    engine = ax.figure.get_layout_engine()
    if engine is None:
        ax.figure.draw_without_rendering()
    else:
        engine.execute(ax.figure)


def _along_lines(ax: Axes, half: float) -> list[Bbox]:
    """Small boxes along the lines of the axes, in pixels."""
    boxes = []
    for line in ax.lines:
        corners = ax.transData.transform(line.get_xydata())
        for start, end in pairwise(corners):
            for part in np.linspace(0, 1, 2 + int(np.abs(end - start).max() / (4 * half))):
                x, y = start + part * (end - start)
                boxes.append(Bbox.from_bounds(x - half, y - half, 2 * half, 2 * half))
    return boxes


_SIDES = (
    (8, 0, "left", "center"), (6, 6, "left", "bottom"), (6, -6, "left", "top"), (0, 9, "center", "bottom"),
    (0, -9, "center", "top"), (-6, 6, "right", "bottom"), (-6, -6, "right", "top"), (-8, 0, "right", "center"),
    (14, 16, "left", "bottom"), (14, -16, "left", "top"), (-14, 16, "right", "bottom"), (-14, -16, "right", "top"),
)  # fmt: skip


def _shared(box: Bbox, other: Bbox) -> float:
    """Fraction of the area of ``box`` that lies in ``other``."""
    both = Bbox.intersection(box, other)
    return 0.0 if both is None else both.width * both.height / (box.width * box.height)
