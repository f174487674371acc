"""Records shown as text: a table an experiment, seeds drawn together, and which rows are older than their code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from survey_lib.lab.experiments import records

if TYPE_CHECKING:
    import pandas

    from survey_lib.lab.plots.tables import Table

#: Columns that say under which circumstances, not what: of use in the files, not in a table.
_HIDDEN = {*records.FIELDS, *records.VERSIONS, "path", "older"}
_COST = ("evaluations", "macs", "core_seconds")


def select(
    table: pandas.DataFrame, *, lesson: str | None = None, dataset: str | None = None, profile: str | None = None
) -> pandas.DataFrame:
    """The rows of `records.load` of one lesson (its number or name), data set and profile.

    Raises ValueError with what there is, where no record has the one asked for.
    """
    for column, wanted in (("lesson", lesson), ("dataset", dataset), ("profile", profile)):
        if wanted is None or table.empty:
            continue
        wanted = wanted.zfill(2) if column == "lesson" and wanted.isdigit() else wanted
        found = table[column].str.startswith(wanted) if column == "lesson" else table[column] == wanted
        if not found.any():
            there = ", ".join(sorted(table[column].unique()))
            raise ValueError(f'no record has {column} "{wanted}"; there are {there}')
        table = table[found]
    return table


def over_seeds(experiment: str, dataset: str, *by: str) -> pandas.DataFrame:
    """The records of one experiment on one data set, a row for each combination of the settings ``by``.

    Numbers are means over seeds; ``fd`` has its ``low`` and ``high`` beside it, and ``seeds`` counts them. Smoke runs
    are left out, and of runs with different ``images`` the larger stand. Empty where there are none.
    """
    rows = records.load(experiment)
    rows = rows[(rows["dataset"] == dataset) & (rows["profile"] != "smoke")]
    if rows.empty:
        return rows
    rows = rows[rows["images"] == rows["images"].max()] if "images" in rows else rows
    groups = rows.groupby(list(by))
    numbers = rows.select_dtypes("number").columns.difference([*by, "seed", "images"])
    found = groups[list(numbers)].mean()
    if "fd" in rows:
        found["low"], found["high"] = groups["fd"].min(), groups["fd"].max()
    found["seeds"] = groups["seed"].nunique()
    return found.reset_index()


def show(table: pandas.DataFrame, *, each: bool = False) -> str:
    """One table an experiment: what was measured, over how many seeds, and what has changed since.

    A number stands as "mean (least to most)" over seeds; ``each`` gives every record a row of its own.
    """
    table = table.assign(older=records.older(table))
    parts = [str(_experiment(str(name), rows, each)) for name, rows in table.groupby("experiment")]
    old = int((table["older"] != "").sum())
    parts.append(f"{len(table)} records, all of the code as it is." if not old else _explain(len(table), old))
    return "\n\n".join(parts)


def _experiment(name: str, rows: pandas.DataFrame, each: bool) -> Table:
    from survey_lib.lab.plots.tables import table

    rows = rows.dropna(axis=1, how="all")
    names = dict.fromkeys(
        setting for path in rows["path"] for setting in json.loads(Path(path).read_bytes())["settings"]
    )
    settings = [column for column in names if column in rows]
    own = [column for column in rows if column not in _HIDDEN and not column.startswith("samples_")]
    shown = [column for column in (*own, *_COST) if column in rows and column not in settings]
    keys = ["dataset", "profile", *settings, *(["seed"] if each else [])]
    groups = rows.groupby(keys, dropna=False)
    return table([_row(dict(zip(keys, about, strict=True)), group, shown) for about, group in groups], caption=name)


def _row(about: dict[str, Any], group: pandas.DataFrame, shown: list[str]) -> dict[str, Any]:
    row = {name: _plain(value) for name, value in about.items()}
    if "seed" not in row:
        row["seeds"] = group["seed"].nunique()
    for column in shown:
        values = group[column].dropna()
        mean, least, most = (values.mean(), values.min(), values.max()) if len(values) else (None,) * 3
        row[column] = mean if least == most else (mean, least, most)
    return row | {"changed since": _older(group["older"])}


def _older(notes: pandas.Series) -> str:
    old = notes[notes != ""]
    if old.empty:
        return ""
    changed = ", ".join(dict.fromkeys(part for note in old for part in note.split(", ")))
    return changed if len(old) == len(notes) else f"{changed} ({len(old)} of {len(notes)})"


def _explain(records: int, old: int) -> str:
    return (
        f"{old} of {records} records are older than the code that made them. The last column says what has changed\n"
        "since: the library their lesson imports, the lesson's own cells, the checkpoints; unknown: they do not say.\n"
        "To measure again: survey run, or survey sweep."
    )


def _plain(value: Any) -> Any:
    """Settings as they were given: no point behind ints that became floats beside gaps, nothing for a gap."""
    if value != value:
        return ""
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else str(value)
