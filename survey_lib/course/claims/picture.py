"""Figure of verdicts: ratios with their intervals on a log axis, and the thresholds of the claims."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from matplotlib.axes import Axes

from survey_lib.course.claims.judging import Verdict
from survey_lib.course.claims.reading import Claim
from survey_lib.lab.plots.labels import capital, halo, ink, number, plain_log
from survey_lib.lab.plots.style import PALETTE, Figure, colours, finish, panels, styled

ROLES = {"glyphs": "data", "mnist": "model"}
MARKS = "osD^v"
WIDTH = 5.2  # inches of 100 pixels: text stays readable on a phone that shows the figure at 330
LABEL, LINE, GAP = 0.62, 0.44, 0.34  # heights of a claim's name, of a data set's line, and between claims
CUT = 10.0  # the axis ends at this multiple of the outermost threshold; an arrow marks a ratio beyond it


@styled
def intervals(rows: Sequence[tuple[Claim, Sequence[Verdict]]]) -> Figure:
    """Draw claims with their verdicts: intervals, thresholds with the claimed side, and the band of no difference.

    A hollow marker is out of date. The line of a verdict without a ratio is empty.
    """
    names = list(dict.fromkeys(one.dataset for _, found in rows for one in found))
    names.sort(key=lambda name: name not in ROLES)  # so that these keep their marks in every lesson
    paint = colours(names, {name: role for name, role in ROLES.items() if name in names})
    left, right = _ends(rows)
    height = sum(LABEL + LINE * len(found) + GAP for _, found in rows)
    ax = panels(width=WIDTH, height=0.85 + 0.42 * height)[1]
    ax.set(xscale="log", xlim=(left, right), ylim=(height, -0.2), xlabel="a / b, with its 95 % interval")
    plain_log(ax.xaxis)
    ax.axvline(1, color="#999999", linewidth=0.9, zorder=1)
    top = 0.0
    for place, (claim, found) in enumerate(rows, start=1):
        bottom = top + LABEL + LINE * len(found)
        ax.text(0, top + LABEL / 2, f"{place}  {claim.name}", transform=ax.get_yaxis_transform(), va="center",
                fontsize=10, path_effects=halo())  # fmt: skip
        _draw_claim(ax, claim, top + LABEL * 0.8, bottom)
        for line, one in enumerate(found):
            at = top + LABEL + LINE * (line + 0.5)
            _draw_interval(ax, one, at, paint[one.dataset], MARKS[names.index(one.dataset) % len(MARKS)])
        top = bottom + GAP
    for rank, name in enumerate(names):
        ax.text(rank / max(3, len(names)), 1.01, f"{'●■◆▲▼'[rank % 5]} {name}", color=ink(paint[name]), fontsize=10,
                transform=ax.transAxes, va="bottom", weight="bold")  # fmt: skip
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    return replace(finish(ax, _alt(rows)), note="")  # smoke runs show these verdicts too, but do not measure them


def _ends(rows: Sequence[tuple[Claim, Sequence[Verdict]]]) -> tuple[float, float]:
    """The limits of the axis: all intervals, cut at ten times the outermost threshold."""
    asked = [1.0, *(claim.expected.factor for claim, _ in rows)]
    shown = [end for _, found in rows for one in found for end in (one.ratio, one.low, one.high) if 0 < end < math.inf]
    low = max(min(asked + shown), min(asked) / CUT)
    high = min(max(asked + shown), max(asked) * CUT)
    return min(low, 0.8) / 1.12, max(high, 1.25) * 1.12


def _draw_claim(ax: Axes, claim: Claim, top: float, bottom: float) -> None:
    """The band of no difference, and the threshold with an arrow to the claimed side."""
    factor, less, band = claim.expected.factor, claim.expected.less, 1 + claim.effect
    ax.fill_betweenx([top, bottom], 1 / band, band, color=PALETTE["faint"], linewidth=0, zorder=0)
    ax.plot([factor, factor], [top, bottom], color=PALETTE["theory"], linewidth=1.1, linestyle=(0, (3, 2)), zorder=1)
    ax.plot(factor, top, "<" if less else ">", color=PALETTE["theory"], markersize=5, zorder=3)


def _draw_interval(ax: Axes, one: Verdict, at: float, colour: str, mark: str) -> None:
    if math.isnan(one.ratio):
        return
    left, right = ax.get_xlim()
    face = "white" if one.stale else colour
    if left < one.ratio < right:
        ends = max(one.low, left), min(one.high, right)
        ax.plot(ends, [at, at], color=colour, linewidth=2, zorder=4)
        ax.plot(one.ratio, at, mark, color=colour, markerfacecolor=face, markersize=6.5, zorder=5)
        return
    beyond = one.ratio >= right
    ax.plot(right / 1.04 if beyond else left * 1.04, at, ">" if beyond else "<", color=colour, markersize=6.5, zorder=5)
    ax.annotate(
        number(one.ratio), (right if beyond else left, at), (-12 if beyond else 12, 0), textcoords="offset points",
        ha="right" if beyond else "left", va="center", fontsize=9, color=ink(colour), path_effects=halo(),
    )  # fmt: skip


def _alt(rows: Sequence[tuple[Claim, Sequence[Verdict]]]) -> str:
    parts = []
    for claim, found in rows:
        side = f"{'below' if claim.expected.less else 'above'} {number(claim.expected.factor)}"
        words = ", ".join(f"{one.dataset} {number(one.ratio)} ({one.verdict})" for one in found)
        parts.append(f"{claim.name}, claimed {side}: {words}")
    return f"{capital('intervals')} of a ratio on a log axis. {'; '.join(parts)}."
