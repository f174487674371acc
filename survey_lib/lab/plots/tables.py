"""Small tables of numbers with units in the caption, as HTML without a style sheet and as plain text."""

from __future__ import annotations

import html
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas

from survey_lib.lab.plots.labels import number


@dataclass(frozen=True)
class Table:
    """A table of formatted cells, shown as ``html`` in a notebook and as aligned text in a terminal."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    caption: str = ""

    @property
    def html(self) -> str:
        """The table as HTML without colours; a table wider than its page scrolls.

        Each cell states its alignment twice, because pages drop style sheets or styles.
        """
        sides = ["right" if numeric else "left" for numeric in self.numeric]

        def line(tag: str, texts: tuple[str, ...], scope: str = "") -> str:
            cells = zip(texts, sides, strict=True)
            made = (
                f'<{tag}{scope} align="{side}" style="text-align:{side}">{_escape(text)}</{tag}>'
                for text, side in cells
            )
            return f"<tr>{''.join(made)}</tr>"

        head, body = line("th", self.header, ' scope="col"'), "".join(line("td", row) for row in self.rows)
        caption = f"<caption>{_escape(self.caption)}</caption>" if self.caption else ""
        made = f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>"
        return f'<div style="overflow-x:auto">{made}</div>'

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = [
            "  ".join(
                text.rjust(width) if numeric else text.ljust(width)
                for text, width, numeric in zip(row, widths, self.numeric, strict=True)
            ).rstrip()
            for row in (self.header, *self.rows)
        ]
        return "\n".join([self.caption, *lines] if self.caption else lines)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": str(self)}


def table(
    rows: Iterable[Mapping[str, Any]] | pandas.DataFrame,
    *,
    units: Mapping[str, str] | None = None,
    digits: int | Mapping[str, int] = 3,
    caption: str = "",
) -> Table:
    """Format rows as a table, with numbers on the right and units in the caption.

    rows     : mappings of column to value, or a DataFrame; a value ``(value, low, high)`` becomes
               "value (low to high)", None and NaN become a dash, whole numbers are written out
    units    : column to unit, as in ``{"time": "s"}``, shown in the caption as "time: s"
    digits   : significant digits, for all columns or by column
    caption  : text above the table

    Raises ValueError for units of columns that the table lacks.
    """
    rows = rows.to_dict("records") if isinstance(rows, pandas.DataFrame) else [dict(row) for row in rows]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    units = dict(units or {})
    if unknown := set(units) - set(columns):
        raise ValueError(f"units name columns that the table lacks: {sorted(unknown)}; it has {columns}")
    places = {column: digits if isinstance(digits, int) else digits.get(column, 3) for column in columns}
    caption = _with_units(caption, units)
    body = tuple(tuple(_text(row.get(column), places[column]) for column in columns) for row in rows)
    numeric = tuple(all(_is_numeric(row.get(column)) for row in rows) for column in columns)
    return Table(tuple(map(str, columns)), body, numeric, caption)


def _with_units(caption: str, units: Mapping[str, str]) -> str:
    listed = "; ".join(f"{column}: {unit}" for column, unit in units.items())
    return f"{caption} ({listed})" if caption and listed else caption or listed


def _text(value: Any, digits: int) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return "–"  # noqa: RUF001
    if isinstance(value, (bool, str)):
        return value if isinstance(value, str) else ("no", "yes")[value]
    if isinstance(value, (tuple, list)) and len(value) == 3:
        middle, low, high = (_text(part, digits) for part in value)
        return f"{middle} ({low} to {high})"
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}"
    return number(value, digits) if isinstance(value, numbers.Real) or hasattr(value, "item") else str(value)


def _is_numeric(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_numeric(part) for part in value)
    return value is None or (
        (isinstance(value, numbers.Real) or hasattr(value, "item")) and not isinstance(value, bool)
    )


def _escape(text: str) -> str:
    return html.escape(text, quote=False)
