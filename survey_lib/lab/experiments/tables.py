"""Shipped results as CSV files: ``EXPERIMENT.csv`` with a row for each measurement, and ``runs.csv`` for each run.

    dataset, seed, images, <settings>, evaluations, macs, core_seconds, <quality>, run

In memory a row is a mapping with ``experiment``, the columns of `ROW` and `COST`, and nested ``settings``,
``quality`` and ``run``. Numbers are written with six significant digits.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from survey_lib.lab import runtime

ROW = ("dataset", "seed", "images")
COST = ("evaluations", "macs", "core_seconds")
RUN = ("run", "lesson", "profile", "device", "date", "python", "torch", "survey_lib", "code")
RUNS = "runs.csv"
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[-+]\d+)?")


def names(folder: Path) -> list[str]:
    """Names of the experiments with a table in a folder."""
    return sorted(path.stem for path in folder.glob("*.csv") if path.name != RUNS)


def read(folder: Path, experiment: str | None = None) -> list[dict[str, Any]]:
    """The rows of all experiments, or of one. Raises ValueError with the path of a damaged file."""
    paths = [folder / f"{name}.csv" for name in (names(folder) if experiment is None else [experiment])]
    paths = [path for path in paths if path.exists()]
    if not paths:
        return []
    runs = {line["run"]: {name: line[name] for name in RUN[1:]} for line in _lines(folder / RUNS, RUN)}
    return [_row(path, line, runs) for path in paths for line in _lines(path, (*ROW, *COST, "run"))]


def write(folder: Path, rows: Sequence[Mapping[str, Any]], old: Sequence[Mapping[str, Any]] = ()) -> None:
    """Replace the tables of the experiments in ``rows``, and ``runs.csv``, by these rows.

    old: the rows that are in the tables now. Their runs are kept until all tables are written, so that the files can be
        read after an interrupted call.
    """
    _write(folder / RUNS, _runs([*old, *rows]))
    for name in sorted({row["experiment"] for row in rows}):
        path = folder / f"{name}.csv"
        header = path.read_text(encoding="utf-8").partition("\n")[0].split(",") if path.exists() else []
        _write(path, _table([row for row in rows if row["experiment"] == name], header))
    _write(folder / RUNS, _runs(rows))


def value(text: str) -> Any:
    """Parse a cell: an int, a float, a bool, a text, or None for an empty cell."""
    if text in ("", "True", "False"):
        return {"": None, "True": True, "False": False}[text]
    if not _NUMBER.fullmatch(text):
        return text
    return float(text) if set(text) & set(".e") else int(text)


def text(value: Any) -> str:
    """Format a value as a cell; floats have six significant digits and a point, so that 1.0 stays a float."""
    if isinstance(value, float):
        made = f"{value:.6g}"
        return made if set(made) & set(".e") else f"{made}.0"
    return "" if value is None else str(value)


def _row(path: Path, line: Mapping[str, str], runs: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    try:
        columns = list(line)
        first, last = columns.index(COST[0]), columns.index(COST[-1])
        own = {name: value(cell) for name, cell in line.items()}
        return {
            "experiment": path.stem,
            "dataset": line["dataset"],
            "seed": int(line["seed"]),
            **{name: own[name] for name in ("images", *COST)},
            "settings": {name: own[name] for name in columns[len(ROW) : first] if line[name]},
            "quality": {name: own[name] for name in columns[last + 1 : -1] if line[name]},
            "run": runs[line["run"]],
        }
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: a row has {error!r}; restore the file") from error


def _table(rows: Sequence[Mapping[str, Any]], header: Sequence[str]) -> list[list[str]]:
    """Header and rows of one experiment in a fixed order; columns keep the order of the old header."""
    settings, quality = (_columns([row[part] for row in rows], header) for part in ("settings", "quality"))
    lines = [
        [
            *(text(row[name]) for name in ROW),
            *(text(row["settings"].get(name)) for name in settings),
            *(text(row[name]) for name in COST),
            *(text(row["quality"].get(name)) for name in quality),
            _run_id(row["run"]),
        ]
        for row in rows
    ]
    return [[*ROW, *settings, *COST, *quality, "run"], *sorted(lines, key=lambda line: list(map(_order, line)))]


def _columns(parts: Iterable[Mapping[str, Any]], header: Sequence[str]) -> list[str]:
    found = dict.fromkeys(name for part in parts for name in part)
    return [*(name for name in header if name in found), *(name for name in found if name not in header)]


def _runs(rows: Iterable[Mapping[str, Any]]) -> list[Sequence[str]]:
    runs = {_run_id(row["run"]): row["run"] for row in rows}
    lines = ([key, *(run[name] for name in RUN[1:])] for key, run in runs.items())
    return [RUN, *sorted(lines, key=lambda line: line[1:])]


def _run_id(run: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps([run[name] for name in RUN[1:]]).encode()).hexdigest()[:6]


def _order(cell: str) -> tuple[bool, float, str]:
    return (False, float(cell), "") if _NUMBER.fullmatch(cell) else (True, 0.0, cell)


def _lines(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            header, found = reader.fieldnames or (), list(reader)
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); restore the file") from error
    if missing := [name for name in columns if name not in header]:
        raise ValueError(f"{path} is damaged: it has no column {missing[0]}; restore the file")
    return found


def _write(path: Path, lines: Iterable[Iterable[str]]) -> None:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(lines)
    runtime.write_atomically(path, file.getvalue().encode())
