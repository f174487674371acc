"""Data sets of the reader's own: folders of images under a name, as links in ``data/own``.

    survey train pets_base --dataset ~/pictures/pets      names the folder, and trains
    survey run 01 --dataset pets                          or: --dataset ~/pictures/pets

A folder that lies in ``data/own`` itself needs no link.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from survey_lib.lab import runtime


def names() -> list[str]:
    """Names of the reader's own data sets."""
    place = _place()
    return sorted(entry.name for entry in place.iterdir() if _NAME.fullmatch(entry.name)) if place.is_dir() else []


def folder(name: str) -> Path:
    """The folder of images behind a name."""
    return _place() / name


def name_of(path: str | Path) -> str | None:
    """The name of a folder of images, None where it has none."""
    path = Path(path).expanduser().resolve()
    return next((name for name in names() if folder(name).resolve() == path), None)


def proposal(path: str | Path) -> str:
    """A name for a folder of images: its last part, in letters that are accepted."""
    found = re.sub(r"\W+", "_", Path(path).expanduser().resolve().name, flags=re.ASCII).strip("_")
    return found if _NAME.fullmatch(found) and found not in runtime.DATASETS else "mine"


def adopt(name: str, path: str | Path) -> None:
    """Give a folder of images a name, for good. Raises ValueError for a name that is not accepted, or taken."""
    path = Path(path).expanduser().absolute()
    if not _NAME.fullmatch(name) or name in runtime.DATASETS:
        taken = f", and not {', '.join(runtime.DATASETS)}"
        raise ValueError(f'no data set can be called "{name}"; accepted: letters, digits and _, a letter first{taken}')
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder; a folder of images is accepted")
    if name in names():
        if folder(name).resolve() != path.resolve():
            raise ValueError(
                f'"{name}" is {folder(name).resolve()} already; choose another name, or delete {folder(name)}'
            )
        return
    _place().mkdir(parents=True, exist_ok=True)
    try:
        os.symlink(path, folder(name), target_is_directory=True)
    except OSError as error:  # some systems allow links to administrators alone
        raise OSError(f"{folder(name)} cannot be linked ({error.strerror}); copy the images there") from error


_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def _place() -> Path:
    return runtime.HOME / "data" / "own"
