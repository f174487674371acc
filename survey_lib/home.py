"""The folder that an installed package works in.

In a clone the course's home is the clone. A wheel carries lessons, checkpoints, claims and results in ``_home``; they
are copied once to the user's own folder, where caches, new results and pages are kept too, and the installed files
stay as they are.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

BUNDLED = Path(__file__).parent / "_home"
STAMP = "stamp"  # a file with a digest of the others


def settle(environment: MutableMapping[str, str] = os.environ, bundled: Path = BUNDLED) -> None:
    """Name the user's copy of the course in ``SURVEY_HOME``, unless that is set, or the package lies in a clone."""
    if not environment.get("SURVEY_HOME") and bundled.is_dir():
        environment["SURVEY_HOME"] = str(copied(bundled))


def copied(bundled: Path, root: Path | None = None) -> Path:
    """The user's copy of ``bundled``, made if it is not there: complete, or not at all.

    root: the folder of the copies of all versions; the system's place for a user's data by default. Raises OSError with
    one sentence where it cannot be written.
    """
    import shutil
    import tempfile

    if root is None:
        import platformdirs

        root = platformdirs.user_data_path("survey_lib")
    copy = root / (bundled / STAMP).read_text().strip()
    if copy.is_dir():
        return copy
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as folder:
            made = Path(folder) / "home"
            shutil.copytree(bundled, made)
            if not copy.is_dir():  # another process may have been faster
                made.rename(copy)
    except OSError as error:
        if copy.is_dir():
            return copy
        raise OSError(
            f"the course cannot be copied to {copy} ({error.strerror or error}); make room there, or name a folder "
            "with lessons and data in SURVEY_HOME"
        ) from error
    return copy
