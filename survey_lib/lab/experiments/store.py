"""Store of measurements: shipped results in one CSV for each experiment, local results in one JSON file each.

::

    save("01.steps", run, {"steps": 20}, quality={"fd": 3.1}, images=2000, evaluations=20)
    rows = load("01.steps")

``data/results/EXPERIMENT.csv`` holds the shipped rows (`tables`): data set, seed, the N (``images``) of the quality
numbers, settings, costs of one image, quality, and the run that made them: lesson, profile, device, date, versions, and
the fingerprint of the code (`provenance`). New measurements go to ``data/results/local/``, or to the folder that
SURVEY_RESULTS names, one file each, written atomically. A local row replaces the shipped row of the same data set,
seed, N, settings and profile. `ship` merges local files into the CSVs.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
import platform
import re
import warnings
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import survey_lib
from survey_lib.lab import runtime
from survey_lib.lab.experiments import provenance, tables
from survey_lib.lab.experiments.tables import COST, ROW, RUN

if TYPE_CHECKING:
    import pandas

_RESERVED = {*ROW, *COST, *RUN, "experiment", "stale"}


def shipped() -> Path:
    """The folder of the results that come with the course."""
    return runtime.HOME / "data" / "results"


def destination() -> Path:
    """The folder of new results: the environment's ``SURVEY_RESULTS``, else ``data/results/local``.

    A relative path starts at the course's folder, wherever a kernel runs.
    """
    named = os.environ.get("SURVEY_RESULTS")
    return runtime.HOME / Path(named).expanduser() if named else shipped() / "local"


def save(
    experiment: str,
    run: runtime.Run,
    settings: Mapping[str, str | int | float | bool],
    *,
    quality: Mapping[str, float],
    images: int | None = None,
    evaluations: float | None = None,
    macs: float | None = None,
    core_seconds: float | None = None,
    folder: Path | None = None,
) -> Path:
    """Write one measurement and return its path; measuring again replaces the file.

    settings: distinguish the measurement from others of its experiment, as ``{"sampler": "DDIM", "nfe": 20}``.
    quality: the measured numbers.
    images: N, on which the quality is based.
    evaluations, macs, core_seconds: the cost of one image.

    Raises ValueError for a name that is used twice or a number that is not finite, TypeError for other values.
    """
    if not re.fullmatch(r"[\w.-]+", experiment):
        raise ValueError(f"an experiment's name is made of letters, digits, dots and dashes; got {experiment!r}")
    settings, quality = dict(settings), dict(quality)
    if clash := (set(settings) & set(quality)) | (_RESERVED & (set(settings) | set(quality))):
        raise ValueError(f"these names have two meanings in one result: {', '.join(sorted(clash))}")
    cost = {"evaluations": evaluations, "macs": macs, "core_seconds": core_seconds}
    row = {
        "experiment": experiment,
        "dataset": run.dataset,
        "seed": run.seed,
        "images": images,
        "settings": {name: _setting(name, value) for name, value in settings.items()},
        **{name: None if value is None else _number(name, value) for name, value in cost.items()},
        "quality": {name: _number(name, value) for name, value in quality.items()},
        "run": _circumstances(experiment, run),
    }
    path = (folder or destination()) / experiment / _file_name(row)
    runtime.write_atomically(path, (json.dumps(row, indent=1, allow_nan=False) + "\n").encode())
    return path


def load(experiment: str | None = None, *, folder: Path | None = None) -> pandas.DataFrame:
    """Table of all measurements, or of the measurements of one experiment.

    Columns: ``experiment``, the columns of the CSVs and of ``runs.csv``, and ``stale``: the parts of the code that have
    changed since the measurement ("library, cells"), or empty. An empty table has the columns common to all results.
    """
    import pandas

    found = [flat(row) for row in rows(experiment, folder=folder)]
    columns = ["experiment", *ROW, *COST, *RUN[1:], "stale"]
    return pandas.DataFrame(found) if found else pandas.DataFrame(columns=columns)


def rows(experiment: str | None = None, *, folder: Path | None = None) -> list[dict[str, Any]]:
    """Measurements as mappings with nested ``settings``, ``quality`` and ``run``; local rows replace shipped rows.

    ``folder`` holds the local files, by default `destination`. A damaged local file is left out with a warning; a
    damaged CSV raises ValueError.
    """
    found = _newest(tables.read(shipped(), experiment))
    found |= {_key(row): row for row in _read_local(folder or destination(), experiment)}
    return list(found.values())


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a row of `rows` to a single mapping, and add ``stale``."""
    named = {name: row[name] for name in ("experiment", *ROW)} | row["settings"]
    named |= {name: row[name] for name in COST} | row["quality"] | row["run"]
    return named | {"stale": stale(named)}


def select(name: str | None = None) -> list[str]:
    """Names of the experiments with results: of all lessons, of one ("10"), or a single name ("10.sweep").

    Raises ValueError for a name without results, and suggests a similar name.
    """
    local = (path.parent.name for path in destination().glob("*/*.json"))
    found = sorted({*tables.names(shipped()), *local})
    if name is None:
        return found
    lesson = f"{name.zfill(2)[:2]}." if name[:1].isdigit() and "." not in name else name
    if chosen := [one for one in found if one == name or one.startswith(lesson)]:
        return chosen
    raise ValueError(f'no results of "{name}"{runtime.suggest(name, found)}; there are {", ".join(found) or "none"}')


def stale(row: Mapping[str, Any]) -> str:
    """Parts of the code that have changed since a measurement, as "library, cells"; empty if it is unchanged."""
    now = provenance.fingerprint(row["lesson"], row["dataset"], row["experiment"])
    return ", ".join(provenance.difference(row["code"], now))


def ship(folder: Path | None = None) -> list[str]:
    """Merge the local results of a folder into the CSVs; return the names of the experiments that changed.

    Smoke runs are left out; of rows with the same key the newest is kept. Each file is replaced as a whole and local
    files are deleted last, so that an interrupted call loses nothing and can be repeated.
    """
    local = [row for row in _read_local(folder or destination(), None) if row["run"]["profile"] != "smoke"]
    old = tables.read(shipped())
    tables.write(shipped(), list(_newest([*old, *local]).values()), old)
    for row in local:
        Path(row["path"]).unlink(missing_ok=True)
    return sorted({row["experiment"] for row in local})


# ------------------------------------------------------------------ rows


def _circumstances(experiment: str, run: runtime.Run) -> dict[str, str]:
    import torch

    cuda = run.device.startswith("cuda")
    return {
        "lesson": run.lesson,
        "profile": run.profile,
        "device": torch.cuda.get_device_name(run.device)
        if cuda
        else f"{run.device}, {torch.get_num_threads()} threads",
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "survey_lib": survey_lib.__version__,
        "code": str(provenance.fingerprint(run.lesson, run.dataset, experiment)),
    }


def _key(row: Mapping[str, Any]) -> tuple:
    settings = tuple(sorted((name, tables.text(value)) for name, value in row["settings"].items()))
    return (row["experiment"], *(row[name] for name in ROW), row["run"]["profile"], settings)


def _file_name(row: Mapping[str, Any]) -> str:
    dataset = re.sub(r"[^\w.-]+", "-", Path(row["dataset"]).name)  # the name of a folder of images
    distinct = json.dumps([row["dataset"], row["images"], row["settings"]], sort_keys=True)
    key = hashlib.sha256(distinct.encode()).hexdigest()[:10]
    return f"{dataset}-{row['run']['profile']}-seed{row['seed']}-{key}.json"


def _newest(rows: Iterable[dict[str, Any]]) -> dict[tuple, dict[str, Any]]:
    """The newest row of each key; of rows with the same date, the last."""
    kept: dict[tuple, dict[str, Any]] = {}
    for row in rows:
        if (key := _key(row)) not in kept or row["run"]["date"] >= kept[key]["run"]["date"]:
            kept[key] = row
    return kept


def _setting(name: str, value: Any) -> str | int | float:
    if not isinstance(value, str | int | float):
        raise TypeError(f"the setting {name} is {value!r}; a text, a number or a bool is accepted")
    if isinstance(value, str) and tables.value(value) != value:
        raise ValueError(f'the setting {name} is the text "{value}"; give a number or a bool as itself')
    return value if isinstance(value, str | bool) else _number(name, value)


def _number(name: str, value: Any) -> int | float:
    if isinstance(value, bool) or (not isinstance(value, int | float) and not hasattr(value, "item")):
        raise TypeError(f"{name} is {value!r}; a number is accepted")
    if not math.isfinite(value := value if isinstance(value, int) else float(value)):
        raise ValueError(f"{name} is {value}; a finite number is accepted")
    return value


# ------------------------------------------------------------------ local files


def _read_local(folder: Path, experiment: str | None) -> list[dict[str, Any]]:
    found = []
    for path in sorted(folder.glob(f"{glob.escape(experiment) if experiment else '*'}/*.json")):
        try:
            row = json.loads(path.read_bytes())
            _check(row)
            found.append(row | {"path": str(path)})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            warnings.warn(f"{path} is not a result and is left out ({what})", stacklevel=3)
    return found


def _check(row: Mapping[str, Any]) -> None:
    """Raise an error for a row that is incomplete, or has a value that `save` does not accept."""
    flat(row)
    _key(row)
    for name, value in row["settings"].items():
        _setting(name, value)
    for name, value in (row["quality"] | {name: row[name] for name in COST if row[name] is not None}).items():
        _number(name, value)
