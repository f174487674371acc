"""Results of an experiment: mean, minimum and maximum over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from survey_lib.lab.experiments import store

if TYPE_CHECKING:
    import pandas

    from survey_lib.lab.plots.tables import Table

#: Displayed names and factors of common columns.
SHOWN = {
    "fd": ("FD", 1),
    "fd_held_out": ("FD, held-out features", 1),
    "evaluations": ("NFE", 1),
    "macs": ("GMACs", 1e-9),
    "core_seconds": ("core-s per 1000", 1000),
}


@dataclass(frozen=True, eq=False)
class Results:
    """Results of one experiment on one data set, a row for each combination of settings.

    ``frame`` has means over seeds, with minimum and maximum as ``NAME_low`` and ``NAME_high``, and the number of
    ``seeds``. ``missing`` is a sentence shown in place of figures and tables without rows.
    """

    frame: pandas.DataFrame
    settings: tuple[str, ...]
    numbers: tuple[str, ...]
    missing: str = "There are no results."

    @classmethod
    def of(cls, experiment: str, dataset: str, *, missing: str = "There are no results yet.") -> Results:
        """Results on record. Rows of different profile or N are never averaged; the largest N is used.

        Smoke runs are used only if there are no other results.
        """
        import pandas

        rows = [row for row in store.rows(experiment) if row["dataset"] == dataset]
        rows = [row for row in rows if row["run"]["profile"] != "smoke"] or rows
        settings = tuple(dict.fromkeys(name for row in rows for name in row["settings"]))
        quality = dict.fromkeys(name for row in rows for name in row["quality"])
        costs = [name for name in store.COST if any(row[name] is not None for row in rows)]
        frame = pandas.DataFrame([store.flat(row) for row in rows])
        return cls(_averaged(frame, settings, (*costs, *quality)), settings, (*costs, *quality), missing)

    def __len__(self) -> int:
        return len(self.frame)

    @cached_property
    def note(self) -> str:
        """Sentence with the number of rows that are older than their code; empty without such rows."""
        old = int((self.frame["stale"] != "").sum()) if len(self) else 0
        return f"{old} of {len(self)} results are older than their code" if old else ""

    def at(self, **columns: Any) -> Results:
        """Rows selected by columns: by one value, by several accepted values, or by a function of the column.

        ``rows.at(sampler=("DDIM", "2M"), nfe=10)``, ``rows.at(fd=lambda fd: fd < 5)``.
        """
        frame = self.frame
        for name, wanted in columns.items():
            if name not in frame:
                return replace(self, frame=frame.iloc[:0])
            several = isinstance(wanted, tuple | list | set | range)
            frame = frame[
                wanted(frame[name]) if callable(wanted) else frame[name].isin(wanted if several else [wanted])
            ]
        return replace(self, frame=frame)

    def named(self, **names: Mapping[Any, str]) -> Results:
        """Rows with the given values of columns, in that order, with the values renamed.

        ``rows.named(eta={0.0: "DDIM", 1.0: "DDPM"})``.
        """
        rows = self
        for column, words in names.items():
            rows = rows.at(**{column: tuple(words)})
            if len(rows):
                places = {value: place for place, value in enumerate(words)}
                frame = rows.frame.iloc[rows.frame[column].map(places).argsort(kind="stable")]
                rows = replace(rows, frame=frame.assign(**{column: frame[column].map(words)}))
        return rows

    def sort(self, *columns: str) -> Results:
        """Sort the rows by columns in ascending order."""
        return replace(self, frame=self.frame.sort_values(list(columns))) if len(self) else self

    def best(self, per: str, by: str) -> Results:
        """The row with the smallest ``by`` for each value of the setting ``per``."""
        frame = self._with(by)
        return replace(self, frame=frame.loc[frame.groupby(per, sort=False)[by].idxmin()] if len(frame) else frame)

    def front(self, x: str, y: str) -> Results:
        """Pareto front of two numbers, of which smaller values are better."""
        frame = self._with(x, y)
        if len(frame):
            frame = frame.sort_values([x, y])
            frame = frame[frame[y] < frame[y].cummin().shift(fill_value=float("inf"))]
        return replace(self, frame=frame)

    def first(self, setting: str, by: str) -> Any:
        """The value of ``setting`` in the row with the smallest ``by``; None without rows."""
        frame = self._with(by)
        return frame.sort_values(by)[setting].iloc[0] if len(frame) else None

    def listed(self, *columns: str) -> str:
        """The rows as text, such as "2M 8, DDIM 15"."""
        rows = (" ".join(_plain(row[name]) for name in columns) for row in self.frame.to_dict("records"))
        return ", ".join(rows) or "none"

    def value(self, number: str, **settings: Any) -> float:
        """Mean of ``number`` over the rows with these settings; NaN without rows."""
        frame = self.at(**settings).frame
        return float(frame[number].mean()) if number in frame and len(frame) else float("nan")

    def curves(self, name: str, x: str, y: str, along: str | None = None) -> Series:
        """``{label: (x, y, low, high)}`` for each value of the setting ``name``, as plots accept it.

        Points are sorted by the column ``along``, by default x.
        """
        made, frame = {}, self._with(x, y)
        for label, rows in frame.groupby(name, sort=False) if len(frame) else ():
            made[str(label)] = _curve(rows.sort_values(along or x), x, y)
        return Series(made, self)

    def trends(self, x: str, *numbers: str) -> Series:
        """``{number: (x, number, low, high)}``: curves of several numbers over the same rows."""
        frames = {number: self._with(x, number) for number in numbers}
        return Series({y: _curve(rows.sort_values(x), x, y) for y, rows in frames.items() if len(rows)}, self)

    def points(self, *names: str, x: str, y: str) -> Series:
        """``{label: (x, y, low, high)}`` for each row, labelled by the settings ``names``."""
        made = {}
        for row in self._with(x, y).to_dict("records"):
            made[" ".join(_plain(row[name]) for name in names)] = (row[x], row[y], row[f"{y}_low"], row[f"{y}_high"])
        return Series(made, self)

    def bars(self, *names: str, y: str) -> Series:
        """``{label: (y, low, high)}`` for each row, labelled by the settings ``names``."""
        return Series({label: point[1:] for label, point in self.points(*names, x=y, y=y).items()}, self)

    def table(self, *columns: str, caption: str = "", names: Mapping[str, str] | None = None) -> Table | Missing:
        """Table of ``columns``, by default all, with numbers as mean (lowest to highest) over seeds.

        names: titles of columns, in addition to `SHOWN`. The caption states the number of seeds, N and the floor.
        """
        from survey_lib.lab.plots.tables import table

        if not len(self):
            return Missing(self.missing)
        titles = {name: title for name, (title, _) in SHOWN.items()} | dict(names or {})
        columns = columns or (*self.settings, *(name for name in self.numbers if self.frame[name].notna().any()))
        rows = [
            {titles.get(name, name): _shown(row, name) for name in columns} for row in self.frame.to_dict("records")
        ]
        return table(rows, caption="; ".join(filter(None, (caption, self._about(), self.note))))

    def _with(self, *numbers: str) -> pandas.DataFrame:
        """The rows in which these numbers were measured."""
        known = all(name in self.frame for name in numbers)
        return self.frame.dropna(subset=list(numbers)) if known else self.frame.iloc[:0]

    def _about(self) -> str:
        frame = self.frame
        seeds = "1 seed" if frame["seeds"].max() == 1 else f"mean (lowest to highest) of {_span(frame['seeds'])} seeds"
        parts = [f"{frame['dataset'].iloc[0]}, {seeds}"]
        if frame["images"].notna().any():  # images, or points of a plane
            parts.append(f"{_span(frame['images'].dropna())} samples")
        if "floor" in frame and frame["floor"].notna().any():
            parts.append(f"floor of FD {frame['floor'].mean():.3g}")
        return "; ".join(parts)


class Series(dict):
    """Named series of numbers for a figure.

    ``stand_in`` is shown in place of a figure without results, ``note`` below a figure of results older than their
    code.
    """

    def __init__(self, values: Mapping[str, tuple], of: Results):
        super().__init__(values)
        self.stand_in, self.note = Missing(of.missing), of.note


@dataclass(frozen=True)
class Missing:
    """A sentence in place of a figure or table that has no results to show."""

    sentence: str

    def __repr__(self) -> str:
        return self.sentence


def _curve(rows: pandas.DataFrame, x: str, y: str) -> tuple[list, list, list, list]:
    """``x, y, low, high`` of the rows, in their order."""
    return tuple(rows[column].tolist() for column in (x, y, f"{y}_low", f"{y}_high"))


def _averaged(rows: pandas.DataFrame, settings: Sequence[str], numbers: Sequence[str]) -> pandas.DataFrame:
    """Mean, minimum and maximum over seeds, within one profile and the largest N of each combination of settings."""
    if rows.empty:
        return rows
    keys = list(settings) or ["dataset"]
    if rows["images"].notna().any():
        largest = rows.groupby(keys, dropna=False)["images"].transform("max")
        rows = rows[rows["images"].isna() | (rows["images"] == largest)]
    profile = rows.groupby(keys, dropna=False)["profile"].transform(lambda one: one.value_counts().idxmax())
    rows = rows[rows["profile"] == profile]
    groups = rows.groupby(keys, dropna=False, sort=False)
    found = groups[list(numbers)].mean()
    found[[f"{name}_low" for name in numbers]] = groups[list(numbers)].min()
    found[[f"{name}_high" for name in numbers]] = groups[list(numbers)].max()
    found["seeds"], found["images"] = groups["seed"].nunique(), groups["images"].first()
    found["stale"] = groups["stale"].agg(
        lambda notes: ", ".join(sorted({part for note in notes for part in note.split(", ") if part}))
    )
    found = found.reset_index()
    return found.assign(dataset=rows["dataset"].iloc[0])


def _shown(row: Mapping[str, Any], name: str) -> Any:
    """A setting as it is; a number as (mean, low, high) where seeds differ."""
    if f"{name}_low" not in row:
        return row.get(name)
    factor = SHOWN.get(name, ("", 1))[1]
    mean, low, high = (row[part] * factor for part in (name, f"{name}_low", f"{name}_high"))
    return mean if low == high or mean != mean else (mean, low, high)


def _plain(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _span(counts: pandas.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"
