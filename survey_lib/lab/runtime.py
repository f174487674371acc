"""Parameters of a run (profile, device, seed, data set), their checks, and atomic writes.

A lesson begins with one call, which refuses what is not accepted and resolves the rest::

    run = runtime.start("01_foundations_ddpm", profile=profile, seed=seed, dataset=dataset, train=train)
    steps = run.pick(smoke=5, cpu=20, gpu=50)
    x = corruption.prior(shape, generator=run.generator())

torch is imported only inside the functions that need it, so that the command line starts at once.
"""

from __future__ import annotations

import difflib
import errno
import math
import os
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

#: The folder that holds ``data/`` and ``notebooks/``; the environment's ``SURVEY_HOME`` overrides it.
HOME = Path(os.environ.get("SURVEY_HOME") or Path(__file__).parents[2]).expanduser().resolve()

PROFILES = ("smoke", "cpu", "gpu")
#: Environment variables that hold paths; `environment` makes them absolute.
PATHS = ("SURVEY_DATA", "SURVEY_HOME", "SURVEY_RESULTS")
DATASETS = ("glyphs", "scenes", "digits", "mnist", "fashion_mnist", "cifar10")

_TYPE_NAMES = {bool: "a bool (True or False)", int: "an int", float: "a number", str: "a string", list: "a list"}


@dataclass(frozen=True)
class Run:
    """One run of one lesson with every "auto" resolved. Made by `start`."""

    lesson: str
    profile: str
    seed: int
    dataset: str
    train: bool
    device: str

    def generator(self, salt: int = 0) -> torch.Generator:
        """A new generator on the run's device, determined by (seed, salt).

        Give each independent use its own ``salt``, so that a change to one leaves the others alone.
        Its seed is ``seed + salt * m mod 2**32`` with an odd ``m``, so that no two salts of a seed coincide.
        """
        import torch

        salt = require("salt", salt, int)
        return torch.Generator(device=self.device).manual_seed((self.seed + salt * 0x9E3779B9) % 2**32)

    def pick(self, *, smoke: T, cpu: T, gpu: T) -> T:
        """The value for this run's profile."""
        return {"smoke": smoke, "cpu": cpu, "gpu": gpu}[self.profile]

    @property
    def note(self) -> str:
        """Note printed on figures of smoke runs; empty otherwise."""
        return "smoke run: too small to conclude from" if self.profile == "smoke" else ""


def start(
    lesson: str,
    *,
    profile: str = "auto",
    seed: int = 0,
    dataset: str = "glyphs",
    train: bool = False,
    device: str = "auto",
) -> Run:
    """Check a lesson's parameters and resolve every "auto".

    ``profile`` "auto" is the environment's ``SURVEY_PROFILE`` where set, else "gpu" if a GPU is available,
    else "cpu". ``device`` "auto" is the GPU under the profile "gpu" and the CPU otherwise. ``dataset`` is a
    name or a folder of images. Raises TypeError or ValueError with the accepted values, and RuntimeError
    for a GPU that is not available.
    """
    profile = _resolve_profile(require("profile", profile, str, choices=("auto", *PROFILES)))
    return Run(
        lesson=require("lesson", lesson, str),
        profile=profile,
        seed=require("seed", seed, int, low=0, high=2**32 - 1),
        dataset=check_dataset(dataset),
        train=require("train", train, bool),
        device=_resolve_device(require("device", device, str), profile),
    )


def require(
    name: str,
    value: Any,
    kind: type[T],
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[T] | None = None,
) -> T:
    """Return ``value`` if it is a ``kind`` between ``low`` and ``high`` and among ``choices``.

    Stricter than Python: True is not an int, "false" is not a bool, NaN is not a number. An int is accepted as a
    float, and returned as one. Raises TypeError for the kind and ValueError for the value, with what is accepted.
    """
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{name} is {_show(value)} ({type(value).__name__}); {_accepted(kind, value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}; a finite number is accepted")
    if low is not None and value < low:
        raise ValueError(f"{name} is {_show(value)}; at least {low} is accepted")
    if high is not None and value > high:
        raise ValueError(f"{name} is {_show(value)}; at most {high} is accepted")
    if choices is not None and value not in (choices := tuple(choices)):
        raise ValueError(f"{name} is {_show(value)}{suggest(value, choices)}; accepted: {', '.join(map(str, choices))}")
    return value


def check_dataset(dataset: Any) -> str:
    """Return a data set's name, or the absolute path of a folder of images; a kernel may run in another folder.

    A folder with a name (see `own`) is returned by its name. Raises TypeError or ValueError with what is accepted.
    """
    from survey_lib.lab import own

    dataset, names = require("dataset", dataset, str), (*DATASETS, *own.names())
    if dataset in names:
        return dataset
    if dataset and (path := Path(dataset).expanduser()).is_dir():
        return own.name_of(path) or str(path.absolute())
    raise ValueError(
        f"dataset is {_show(dataset)}{suggest(dataset, names)}; accepted: {', '.join(names)}, or a folder of images"
    )


def environment() -> dict[str, str]:
    """The ``SURVEY_`` variables for a process that runs in another folder: their paths (`PATHS`) made absolute."""
    found = {name: value for name, value in os.environ.items() if name.startswith("SURVEY_")}
    return found | {name: str(Path(found[name]).expanduser().absolute()) for name in PATHS if found.get(name)}


def check_device(device: Any, *, asked: str | None = None) -> str:
    """Return "cpu" or an available GPU, as in "cuda:1"; "auto" is a GPU where there is one.

    ``asked`` names the parameter at fault in an error. Raises ValueError for an unknown device and RuntimeError for
    a GPU that is not available.
    """
    device = require("device", device, str)
    if device == "auto":
        return "cuda" if _gpu() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ValueError(f"device is {_show(device)}; accepted: auto, cpu, cuda, or one GPU as in cuda:1")
    if device != "cpu" and not _gpu(device):
        asked = asked or f'device "{device}"'
        raise RuntimeError(
            f'{asked} asks for a GPU that torch does not see here; profile "cpu" and device "cpu" run anywhere'
        )
    return device


def suggest(value: Any, accepted: Iterable[Any]) -> str:
    """`` (did you mean "cpu"?)`` if an accepted name is similar to ``value``, else an empty string."""
    near = difflib.get_close_matches(str(value).lower(), [str(name) for name in accepted], n=1)
    return f' (did you mean "{near[0]}"?)' if near else ""


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` so that ``path`` is at every moment the old file, or the new one, or absent.

    The bytes go to a ``.partial`` file in the same folder, are flushed to the disk, and renamed. Folders
    are made. Raises OSError with one sentence if no space is left; the old file is then unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            size = f"{len(data) / 1e6:.1f} MB"
            raise OSError(
                error.errno, f"no space left for the {size} of {path.name}; free some and run again"
            ) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def _resolve_profile(profile: str) -> str:
    if profile != "auto":
        return profile
    wanted = os.environ.get("SURVEY_PROFILE", "")
    if wanted and wanted != "auto":
        return require("SURVEY_PROFILE", wanted, str, choices=PROFILES)
    return "gpu" if _gpu() else "cpu"


def _resolve_device(device: str, profile: str) -> str:
    if device != "auto":
        return check_device(device)
    return check_device("cuda", asked='profile "gpu"') if profile == "gpu" else "cpu"


def _gpu(device: str = "cuda") -> bool:
    import torch

    return torch.cuda.is_available() and int(device.partition(":")[2] or 0) < torch.cuda.device_count()


def _show(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _accepted(kind: type, value: Any) -> str:
    if kind is bool and isinstance(value, str):
        return (
            "Python takes every non-empty string for true, so only True or False is accepted (papermill: -p NAME True)"
        )
    return f"{_TYPE_NAMES.get(kind, kind.__name__)} is accepted"
