"""Records: what was measured, by which code, on what. One JSON file a measurement, read back as one table.

::

    records.save("01.steps", run, settings={"steps": 20}, quality={"fd": 3.1}, samples={"fd": 2000}, evaluations=20)
    table = records.load("01.steps")

The file's name says what was measured (experiment, data set, profile, seed, settings), so measuring again
replaces the file. What this machine measures goes to ``data/results/local/``, which git ignores, and stands
for the shipped record of the same name; the environment's ``SURVEY_RESULTS`` names another folder to write to.
Where that is the folder of the shipped ones, these stand alone: an author sees what everybody will see.

A record's ``code`` is the fingerprint of the sources that its numbers came from (`course.sources` says which count),
and `older` compares it with the sources as they are. Records from before fingerprints stay readable; what has changed
since they were made is "unknown".
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import survey_lib
from survey_lib.lab import runtime
from survey_lib.lab.experiments import provenance

if TYPE_CHECKING:
    import pandas

#: Columns that every record has; quality, sample counts and settings follow under their own names.
FIELDS = (
    "experiment", "lesson", "dataset", "profile", "seed", "device", "evaluations", "macs", "core_seconds", "when",
    "versions", "settings", "quality", "samples",
)  # fmt: skip
VERSIONS = ("python", "torch", "survey_lib", "code")


def shipped() -> Path:
    """The folder of the records that come with the course."""
    return runtime.HOME / "data" / "results"


def destination() -> Path:
    """Where new records go: the environment's ``SURVEY_RESULTS``, else ``data/results/local``.

    A relative path counts from the course's folder, wherever a kernel runs.
    """
    named = os.environ.get("SURVEY_RESULTS")
    return runtime.HOME / Path(named).expanduser() if named else shipped() / "local"


def save(
    experiment: str,
    run: runtime.Run,
    *,
    quality: Mapping[str, float],
    samples: Mapping[str, int] | None = None,
    settings: Mapping[str, str | int | float | bool] | None = None,
    evaluations: int | None = None,
    macs: int | None = None,
    core_seconds: float | None = None,
    seed: int | None = None,
    folder: Path | None = None,
) -> Path:
    """Write one record and return its path. ``seed`` stands for ``run.seed`` where a lesson measures over several.

    ``quality`` names the numbers found and ``samples`` how many examples stand behind each; ``settings`` are what
    distinguishes this measurement from others of its experiment (``{"sampler": "ddim", "steps": 20}``);
    ``evaluations`` and ``macs`` are those of one sample. Raises ValueError for an id that makes no file name or a name
    used twice, TypeError for what is no number.
    """
    if not re.fullmatch(r"[\w.-]+", experiment):
        raise ValueError(f"an experiment's id is made of letters, digits, dots and dashes; got {experiment!r}")
    settings, quality, samples = dict(settings or {}), dict(quality), dict(samples or {})
    if clash := (set(settings) & set(quality)) | ({*FIELDS, *VERSIONS, "path"} & (set(settings) | set(quality))):
        raise ValueError(f"these names stand for two things in one record: {', '.join(sorted(clash))}")
    if unknown := set(samples) - set(quality):
        raise ValueError(f"sample counts for what was not measured: {', '.join(sorted(unknown))}")
    record = {
        "experiment": experiment,
        "lesson": run.lesson,
        "dataset": run.dataset,
        "profile": run.profile,
        "seed": run.seed if seed is None else seed,
        "device": _device(run.device),
        "evaluations": evaluations,
        "macs": macs,
        "core_seconds": core_seconds,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(run.lesson, run.dataset),
        "settings": settings,
        "quality": {name: _number(name, value) for name, value in quality.items()},
        "samples": samples,
    }
    path = (folder or destination()) / experiment / _file_name(record)
    runtime.write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())
    return path


def load(experiment: str | None = None, *, folder: Path | None = None) -> pandas.DataFrame:
    """All records, or those of one experiment, a row each; local ones in place of shipped ones of the same name.

    Columns: `FIELDS` but the last four, `VERSIONS` (``code`` is compared by `older`), every setting and every quality
    number under its name, ``samples_<name>``, and ``path``. A file that is no record is named in a warning and
    skipped. An empty table has the columns of every record.
    """
    import pandas

    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for path in _files(folder):
        row = _read(path)
        if row is not None and experiment in (None, row["experiment"]):
            rows[row["experiment"], path.name] = row
    if not rows:
        return pandas.DataFrame(columns=[*FIELDS[:-4], *VERSIONS, "path"])
    return pandas.DataFrame(list(rows.values()))


def older(table: pandas.DataFrame) -> list[str]:
    """For each row of `load` what has changed since: "library", "cells", "checkpoints", joined; empty for nothing."""
    about = zip(table["code"], table["lesson"], table["dataset"], strict=True)
    return [
        ", ".join(provenance.changed(code, provenance.fingerprint(lesson, dataset))) for code, lesson, dataset in about
    ]


def versions(lesson: str, dataset: str) -> dict[str, str]:
    """Of Python, torch and the course, with the fingerprint of the code behind a lesson's numbers on a data set."""
    import torch

    code = str(provenance.fingerprint(lesson, dataset))
    found = (platform.python_version(), torch.__version__, survey_lib.__version__, code)
    return dict(zip(VERSIONS, found, strict=True))


def _file_name(record: Mapping[str, Any]) -> str:
    dataset = re.sub(r"[^\w.-]+", "-", Path(record["dataset"]).name)  # a folder of images gives its name
    distinct = json.dumps([record["dataset"], record["settings"]], sort_keys=True)
    key = hashlib.sha256(distinct.encode()).hexdigest()[:10]
    return f"{dataset}-{record['profile']}-seed{record['seed']}-{key}.json"


def _files(folder: Path | None) -> Iterator[Path]:
    """Shipped records first, so that those written here replace them."""
    local = shipped() / "local"
    if folder is None and destination().resolve() != shipped().resolve():
        folders = dict.fromkeys((shipped(), local, destination()))
    else:
        folders = (folder or shipped(),)
    for one in folders:
        apart = one != local and local.is_relative_to(one)
        yield from (path for path in sorted(one.rglob("*.json")) if not (apart and path.is_relative_to(local)))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_bytes())
        row = {name: record[name] for name in FIELDS[:-4]}
        row |= record["versions"] | record["settings"] | record["quality"]
        return row | {f"samples_{name}": count for name, count in record["samples"].items()} | {"path": str(path)}
    except (ValueError, KeyError, TypeError) as error:
        warnings.warn(f"{path} holds no record and is left out: {type(error).__name__}: {error}", stacklevel=4)
        return None


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or (not isinstance(value, int | float) and not hasattr(value, "item")):
        raise TypeError(f"{name} is {value!r}; a record holds numbers")
    return float(value)


def _device(device: str) -> str:
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{device}, {torch.get_num_threads()} threads"
