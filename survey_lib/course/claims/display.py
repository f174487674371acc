"""The ledger at the end of a lesson: verdicts as a figure, a table and text; and the counts of verdicts by lesson."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from survey_lib.course.claims.judging import Verdict, chance, in_words, verdicts
from survey_lib.course.claims.picture import intervals
from survey_lib.course.claims.reading import OURS, Claim
from survey_lib.lab.plots.style import Figure
from survey_lib.lab.plots.tables import Table, table

ROWS = 8
WIDTH = 100
#: What a verdict compares, and what its seeds share.
COMPARED = (
    "A test compares a with b: the ratio a / b is a geometric mean over seeds, with its 95 % interval (Student's t, "
    "paired by seed; three seeds unless another number is given). A seed changes the noise of sampling: unless a claim "
    "compares trainings, a trained network, where there is one, is the same for all seeds, and the interval holds no "
    "chance of training. The thresholds are ours."
)
NOTE = (
    f"{COMPARED} In the picture grey is no difference, a dashed line the threshold, its arrow the side that is claimed."
)


@dataclass(frozen=True)
class Ledger:
    """Verdicts, a row for each claim; a notebook shows a figure and a table of up to eight, and folds the others."""

    verdicts: tuple[Verdict, ...]

    @property
    def rows(self) -> list[tuple[Claim, list[Verdict]]]:
        """Each claim with its verdicts, one for each data set; headline claims come first."""
        found: dict[str, list[Verdict]] = {}
        for one in self.verdicts:
            found.setdefault(one.claim.id, []).append(one)
        rows = [(of_one[0].claim, of_one) for of_one in found.values()]
        return sorted(rows, key=lambda row: not row[0].headline)

    @property
    def shown(self) -> int:
        """The number of rows that are not folded."""
        marked = sum(claim.headline for claim, _ in self.rows)
        return min(marked or ROWS, ROWS)

    @property
    def figure(self) -> Figure:
        """The intervals of the rows that are not folded."""
        return intervals(self.rows[: self.shown])

    @property
    def html(self) -> str:
        """The table, its folded rows, and a note on the reliability of the verdicts."""
        rows = self.rows
        shown, folded = rows[: self.shown], rows[self.shown :]
        parts = [_table(shown, 1)]
        if folded:
            parts.append(
                f"<details><summary>{len(folded)} more claims</summary>{_table(folded, self.shown + 1)}</details>"
            )
        return f"{''.join(parts)}<p>{escape(f'{self.summary}. {chance(self.verdicts)} {NOTE}', quote=False)}</p>"

    @property
    def summary(self) -> str:
        """The number of claims, and the count of each verdict."""
        return f"{len(self.rows)} claims, verdicts by data set: {in_words(self.verdicts)}"

    def __str__(self) -> str:
        if not self.verdicts:
            return "No claim is tested here."
        data, words = (max(len(getattr(one, name)) for one in self.verdicts) for name in ("dataset", "words"))
        lines = []
        for claim, found in self.rows:
            for text, indent in ((f"{claim.id}: {said(claim)}", ""), (f"our test: {claim.test}", "    ")):
                lines += textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent="    ")
            for one in found:
                line = f"      {one.dataset:{data}}  {one.words:{words}}  {one.measured}"
                lines += [line] if len(line) <= WIDTH else [line[:WIDTH].rstrip(), f"{'':{data + 8}}{one.measured}"]
            lines.append("")
        return "\n".join([*lines, *textwrap.wrap(f"{self.summary}. {chance(self.verdicts)}", WIDTH)])

    def _ipython_display_(self) -> None:
        from IPython.display import HTML, display

        if any(one.ratio == one.ratio for _, found in self.rows[: self.shown] for one in found):
            display(self.figure)
        display(HTML(self.html) if self.verdicts else HTML(f"<p>{self}</p>"))


def ledger(lesson: str | None = None, *, dataset: str | None = None) -> Ledger:
    """Ledger of one lesson ("10"), or of the course."""
    return Ledger(verdicts(lesson, dataset=dataset))


def counts(found: Sequence[Verdict] | None = None) -> Table:
    """Table of the lessons with the number of their claims and the count of each verdict, over data sets."""
    found = verdicts() if found is None else found
    lessons = dict.fromkeys(one.claim.lesson for one in found)
    own = {lesson: [one for one in found if one.claim.lesson == lesson] for lesson in lessons}
    return table(
        {"lesson": lesson, "claims": len({one.claim.id for one in of_one}), "verdicts": in_words(of_one)}
        for lesson, of_one in own.items()
    )


def said(claim: Claim) -> str:
    """The claim of the source, with the source."""
    return f"{claim.says} ({'our own claim' if claim.source == OURS else claim.source})"


def _table(rows: Sequence[tuple[Claim, list[Verdict]]], first: int) -> str:
    """Table of two columns that fits a phone: the claim with our test, and its verdicts.

    Styles are inline, because pages and notebooks drop style sheets.
    """
    cell = 'align="left" style="text-align:left;vertical-align:top;overflow-wrap:anywhere;white-space:normal"'
    lines = []
    for place, (claim, found) in enumerate(rows, start=first):
        verdict = "".join(
            '<div style="flex:1 1 8em;min-width:7em">'
            f"<i>{escape(one.dataset)}</i><br><b>{escape(one.words)}</b><br>{escape(one.measured)}</div>"
            for one in found
        )
        about = f"<b>{place} {escape(claim.name)}</b><br>{escape(said(claim))}<br><small>{escape(claim.test)}</small>"
        boxes = f'<div style="display:flex;flex-wrap:wrap;gap:.4em .8em">{verdict}</div>'
        lines.append(f"<tr><td {cell}>{about}</td><td {cell}>{boxes}</td></tr>")
    head = f"<tr><th {cell}>claim, and our test</th><th {cell}>verdicts</th></tr>"
    style = "table-layout:fixed;width:100%;max-width:768px;margin-left:0"
    columns = '<colgroup><col style="width:55%"><col style="width:45%"></colgroup>'
    return f'<table style="{style}">{columns}<thead>{head}</thead><tbody>{"".join(lines)}</tbody></table>'
