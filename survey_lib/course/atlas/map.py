"""Map of the survey: a column for each strategy, a dot for each study, coloured by the part of the loop it changes."""

from __future__ import annotations

from textwrap import fill
from types import MappingProxyType

import pandas
from matplotlib.axes import Axes

from survey_lib.course.atlas.data import PARTS, STRATEGIES, choose, load
from survey_lib.lab.plots.labels import ink
from survey_lib.lab.plots.style import PALETTE, Figure, finish, panels, styled

PART_COLOURS = MappingProxyType(
    {
        "bridge": PALETTE["model"],
        "denoiser": PALETTE["data"],
        "grid": PALETTE["peer"],
        "integrator": PALETTE["accent"],
        "space": PALETTE["extra"],
    }
)
_BANDS = (
    ("where it starts, and what is designed", [name for name in STRATEGIES if not name.startswith("EPS")]),
    ("how it is trained and sampled", [name for name in STRATEGIES if name.startswith("EPS")]),
)
#: The sampling loop in pieces: (text, its part, "note" or None).
_LOOP = (
    (("for t, s in pairwise(", None), ("times", "grid"), ("):", None)),
    (("    ", None), ("x", "space"), (" = ", None), ("bridge", "bridge"), ("(x, ", None), ("denoiser", "denoiser"),
     ("(x, t), t, s)", None), ("    # answers joined to a path: ", "note"), ("integrator", "integrator")),
)  # fmt: skip
_ROW, _WIDTH, _HEAD = 0.2, 9.0, 1.62  # inches
_LETTER = 0.602 / 72  # the width of a letter of DejaVu Sans Mono, in inches for each point of size


@styled
def figure(strategy: str | None = None, part: str | None = None) -> Figure:
    """All studies by strategy and year; studies of ``strategy`` and ``part`` are highlighted."""
    table, lit = load(), set(choose(strategy, part)["number"])
    rows = [max((table["strategy"] == name).sum() for name in names) for _, names in _BANDS]
    height = _HEAD + sum((count + 4.1) * _ROW for count in rows)
    canvas, ax = panels(width=_WIDTH, height=height)
    canvas.set_layout_engine("none")  # one unit of the axes is one inch of the page
    ax.set_position((0, 0, 1, 1))
    ax.set(xlim=(0, _WIDTH), ylim=(height, 0))
    ax.axis("off")
    _legend(ax, table)
    top = _HEAD
    for (title, names), count in zip(_BANDS, rows, strict=True):
        ax.plot([0.1, _WIDTH - 0.1], [top, top], color=PALETTE["faint"], linewidth=0.8)
        ax.text(0.1, top + 0.13, title, fontsize=8, style="italic", color="#777777", va="center")
        for column, name in enumerate(names):
            _column(
                ax,
                0.34 + column * (_WIDTH - 0.05) / len(names),
                top + 0.42,
                name,
                table[table["strategy"] == name],
                lit,
            )
        top += (count + 4.1) * _ROW
    return finish(ax, _alt(table, strategy, part, lit))


def _legend(ax: Axes, table: pandas.DataFrame) -> None:
    for number, line in enumerate(_LOOP):
        x = 0.1
        for text, part in line:
            colour = ink(PART_COLOURS[part]) if part in PARTS else "#888888" if part else "#444444"
            weight = "bold" if part in PARTS else "normal"
            ax.text(
                x, 0.2 + 0.23 * number, text, family="monospace", fontsize=12, color=colour, weight=weight, va="center"
            )
            x += 12 * _LETTER * len(text)
    counts = table["part"].value_counts()
    for index, (part, words) in enumerate(PARTS.items()):
        x, y = 0.2 + index * 1.78, 0.86
        ax.plot(x, y, "o", color=PART_COLOURS[part], markersize=8)
        name = f"{part} · {counts[part]}"
        ax.text(x + 0.14, y, name, fontsize=9.5, weight="bold", color=ink(PART_COLOURS[part]), va="center")
        ax.text(x + 0.14, y + 0.13, fill(words, 29), fontsize=7, color="#666666", va="top", linespacing=1.3)


def _column(ax: Axes, left: float, top: float, name: str, studies: pandas.DataFrame, lit: set[int]) -> None:
    lessons = list(dict.fromkeys(studies["lesson"]))
    code = "" if name == "baseline" else f"{name} · "
    below = f"{code}lesson{'s' * (len(lessons) > 1)} {', '.join(sorted(lessons))}"
    ax.text(left - 0.07, top, STRATEGIES[name], fontsize=9.5, weight="bold", color="#222222", va="center")
    ax.text(left - 0.07, top + 0.17, below, fontsize=7, color="#777777", va="center")
    first = top + 0.4
    ax.plot([left, left], [first, first + (len(studies) - 1) * _ROW], color=PALETTE["faint"], linewidth=1.2, zorder=1)
    year = 0
    for row, study in enumerate(studies.sort_values(["year", "arxiv"]).itertuples()):
        y, shown = first + row * _ROW, study.number in lit
        colour = PART_COLOURS[study.part] if shown else PALETTE["faint"]
        ax.plot(left, y, "o", markersize=7.5, color=colour, zorder=2, markeredgecolor="white", markeredgewidth=0.8)
        ax.text(left + 0.1, y, study.name, fontsize=7.1, va="center", color="#222222" if shown else "#B5B5B5")
        if study.year != year:
            ax.text(left - 0.1, y, str(study.year), fontsize=5.8, va="center", ha="right", color="#8A8A8A")
            year = study.year


def _alt(table: pandas.DataFrame, strategy: str | None, part: str | None, lit: set[int]) -> str:
    counts = table["part"].value_counts()
    words = ", ".join(f"{counts[name]} the {name}" for name in PARTS)
    chosen = "" if len(lit) == len(table) else f" Lit: {len(lit)} of {' '.join(filter(None, (strategy, part)))}."
    years = f"{table['year'].min()} to {table['year'].max()}"
    return (
        f"{len(table)} studies from {years} in {len(STRATEGIES)} columns, a strategy each; what they change first: "
        f"{words}.{chosen}"
    )
