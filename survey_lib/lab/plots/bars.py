"""Horizontal bars with intervals, rows of points on one axis, and histograms with the exact density."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from torch import Tensor

from survey_lib.lab.plots.labels import array, capital, halo, ink, number, plain_log
from survey_lib.lab.plots.style import PALETTE, Figure, colours, finish, panels, styled


@styled
def bars_with_interval(
    values: Mapping[str, float | Sequence[float]],
    *,
    quantity: str,
    reference: tuple[float, str] | None = None,
    roles: Mapping[str, str] | None = None,
    log: bool = False,
    ax: Axes | None = None,
) -> Figure:
    """Horizontal bars, one for each name; a value is a number or ``(value, low, high)``.

    ``reference`` is a vertical line, ``(value, name)``. With ``log``, points replace the bars, whose length has no
    meaning on a log axis.
    """
    ax = ax or panels(height=0.95 + 0.38 * len(values) + (0.2 if reference else 0))[1]
    rows = {name: np.atleast_1d(array(value)) for name, value in values.items()}
    colour = colours(rows, roles or dict.fromkeys(rows, "data"))
    for place, (name, row) in enumerate(rows.items()):
        if log:
            ax.plot(row[0], place, "o", color=colour[name], markersize=7)
        else:
            ax.barh(place, row[0], height=0.62, color=colour[name], alpha=0.85)
        if len(row) == 3:
            ax.plot(row[1:], [place] * 2, color=colour[name] if log else "#222222", linewidth=1.2 + log)
        ax.annotate(
            number(row[0]), (row.max(), place), (6, 0), textcoords="offset points", va="center", path_effects=halo()
        )
    ends = [part for row in rows.values() for part in row] + ([reference[0]] if reference else [])
    if log:
        ax.set(
            xscale="log", xlim=(min(end for end in ends if end > 0) / 2, max(ends) * 2.5), ylim=(-0.6, len(rows) - 0.4)
        )
        plain_log(ax.xaxis)
    else:
        ax.set_xlim(right=max(ends) * 1.12)
    if reference:
        ax.axvline(reference[0], color=PALETTE["theory"], linewidth=1.2, linestyle=(0, (4, 2)))
        ax.set_title(f"┆ {reference[1]}: {number(reference[0])}", fontsize=9, color="#333333")
    ax.set_yticks(range(len(rows)), list(rows))
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    ax.invert_yaxis()
    ax.set(xlabel=quantity)
    words = ", ".join(
        f"{name} {number(row[0])}" + (f" ({number(row[1])} to {number(row[2])})" if len(row) == 3 else "")
        for name, row in rows.items()
    )
    line = f"; the line marks {reference[1]}, {number(reference[0])}" if reference else ""
    return finish(ax, f"{capital(quantity)}: {words}{line}.")


@styled
def rows_of_points(
    rows: Mapping[str, ArrayLike],
    *,
    x: str,
    band: tuple[float, float, str] | None = None,
    roles: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Points on one axis, a row for each name, as for time grids; ``band`` shades ``(low, high, name)``."""
    ax = ax or panels(height=0.95 + 0.36 * len(rows) + (0.2 if band else 0))[1]
    rows = {name: array(values).ravel() for name, values in rows.items()}
    colour = colours(rows, roles or dict.fromkeys(rows, "data"))
    if band:
        ax.axvspan(*band[:2], color=PALETTE["faint"], alpha=0.6, linewidth=0, zorder=0)
        ax.set_title(f"grey: {band[2]}", fontsize=9, color="#333333")
    words = []
    for place, (name, values) in enumerate(rows.items()):
        ax.plot(values, np.full(len(values), place), "-", color=PALETTE["faint"], linewidth=1, zorder=1)
        ax.plot(values, np.full(len(values), place), "o", color=colour[name], markersize=6, alpha=0.9, zorder=2)
        middle = f", half of them below {number(np.median(values), 2)}" if len(values) > 2 else ""
        words.append(f"{name} {number(values.min(), 2)} to {number(values.max(), 2)}{middle}")
    ax.set(xlabel=x, ylim=(-0.6, len(rows) - 0.4))
    ax.set_yticks(range(len(rows)), list(rows))
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    ax.invert_yaxis()
    return finish(ax, f"Rows of points along {x}: {'; '.join(words)}.")


@styled
def histogram(
    samples: ArrayLike | Mapping[str, ArrayLike],
    *,
    theory: Callable[[Tensor], Tensor] | None = None,
    quantity: str = "value",
    bins: int | None = None,
    limits: tuple[float, float] | None = None,
    roles: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Histograms of samples as densities, with the exact density ``theory(x)`` (float64 tensors) drawn over them.

    ``bins`` is by default twice the cube root of the number of samples, at most 60.
    """
    ax = ax or panels()[1]
    if not isinstance(samples, Mapping):
        samples = {"samples": samples}
    sets = {name: array(values).ravel() for name, values in samples.items()}
    limits = limits or (min(v.min() for v in sets.values()), max(v.max() for v in sets.values()))
    bins = bins or round(min(60, 2 * min(len(values) for values in sets.values()) ** (1 / 3)))
    edges = np.linspace(*limits, bins + 1)
    colour, marks, words = colours(sets, roles), [], []
    for name, values in sets.items():
        density = np.histogram(values, edges)[0] / len(values) / np.diff(edges)
        ax.stairs(density, edges, fill=True, color=colour[name], alpha=0.35, linewidth=0)
        ax.stairs(density, edges, color=colour[name], linewidth=1.2)
        marks.append((name, colour[name]))
        words.append(f"{name} (n = {len(values):,}) has mean {number(values.mean())}, deviation {number(values.std())}")
    if theory is not None:
        at = np.linspace(*limits, 400)
        ax.plot(at, array(theory(torch.from_numpy(at))), color=PALETTE["theory"], linewidth=1.3)
        marks.append(("exact", PALETTE["theory"]))
    ax.set(xlabel=quantity, ylabel="density", xlim=limits)
    ax.set_ylim(0, 1.06 * ax.get_ylim()[1])
    for rank, (name, shade) in enumerate(marks if len(marks) > 1 else ()):
        ax.text(0.985, 0.97 - 0.075 * rank, name, color=ink(shade), transform=ax.transAxes, ha="right", va="top",
                path_effects=halo(), weight="bold")  # fmt: skip
    return finish(ax, f"Histogram of {quantity}: {'; '.join(words)}{', with the exact density' * bool(theory)}.")
