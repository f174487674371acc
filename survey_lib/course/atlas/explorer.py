"""A widget that shows the studies of a strategy and a part of the loop, with a page for readers without a kernel."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets
import pandas

from survey_lib.course.atlas.data import EVIDENCE, LESSONS, PARTS, STRATEGIES, choose, lesson_file
from survey_lib.course.atlas.map import PART_COLOURS
from survey_lib.lab.plots.labels import ink
from survey_lib.lab.widgets import WIDGET

#: The first option of a menu. Its value is not None, for which ipywidgets would leave the menu blank.
ALL = ("all", "")


def explorer(strategy: str | None = "EPS-4", part: str | None = None) -> Explorer:
    """The explorer with a strategy and a part chosen; None chooses all."""
    return Explorer(strategy, part)


class Explorer:
    """Two menus and the chosen studies; without a kernel, all studies in folded sections."""

    def __init__(self, strategy: str | None = None, part: str | None = None):
        choose(strategy, part)  # raises ValueError for unknown names
        names = [(f"{code} {name}" if code != "baseline" else name, code) for code, name in STRATEGIES.items()]
        self.strategy = ipywidgets.Dropdown(options=[ALL, *names], value=strategy or "", description="strategy")
        self.part = ipywidgets.Dropdown(options=[ALL, *((name, name) for name in PARTS)], value=part or "",
                                        description="changes")  # fmt: skip
        self.page = ipywidgets.HTML()
        self.box = ipywidgets.VBox([ipywidgets.HBox([self.strategy, self.part]), self.page])
        for menu in (self.strategy, self.part):
            menu.observe(self._show, names="value")
        self._show()

    def _show(self, change: dict | None = None) -> None:
        self.page.value = cards(choose(self.strategy.value or None, self.part.value or None))

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        sections = "".join(
            f"<details{' open' * (code == self.strategy.value)}><summary><b>{escape(name)}</b> "
            f"({len(chosen)} studies)</summary>{cards(chosen)}</details>"
            for code, name in STRATEGIES.items()
            if len(chosen := choose(code, self.part.value or None))
        )
        count = len(choose(None, self.part.value or None))
        bundle = {"text/html": sections, "text/plain": f"{count} studies to explore"}
        return bundle | {WIDGET: self.box._repr_mimebundle_()[WIDGET]}


def cards(studies: pandas.DataFrame) -> str:
    """HTML table of studies: authors, change to the loop, published result, demonstration and lesson."""
    if studies.empty:
        return "<p>No study of this strategy changes this part. That is an answer too: nobody here tried it.</p>"
    head = "".join(
        f'<th style="text-align:left">{name}</th>'
        for name in ("study", "changes", "published", "what to expect, small", "lesson")
    )
    body = "".join(_row(study) for study in studies.sort_values(["year", "arxiv"]).itertuples())
    return (
        f'<table style="font-size:90%"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        f"<p><small>Evidence: {'; '.join(f'{code}, {words}' for code, words in EVIDENCE.items())}.</small></p>"
    )


def _row(study: Any) -> str:
    parts = " ".join(_chip(part) for part in [study.part, *filter(None, study.also.split("; "))])
    published = f"{escape(study.claim)} <small>[{study.evidence}]</small>" if study.claim else "<small>[n/a]</small>"
    cells = (
        f'<a href="https://arxiv.org/abs/{study.arxiv}" title="{escape(study.title)}">{escape(study.name)}</a><br>'
        f"<small>{escape(study.authors)}, {study.year}</small>",
        f"{parts}<br>{escape(study.changes)}",
        published,
        escape(study.demonstration),
        _lesson(study.lesson),
    )
    return "<tr>" + "".join(f'<td style="text-align:left;vertical-align:top">{cell}</td>' for cell in cells) + "</tr>"


def _chip(part: str) -> str:
    return f'<b style="color:{ink(PART_COLOURS[part])}">{part}</b>'


def _lesson(number: str) -> str:
    path = lesson_file(number)
    name = f"{number} {LESSONS[number].replace('_', ' ')}"
    return f'<a href="{path}">{name}</a>' if path else f"{name} <small>(to come)</small>"
