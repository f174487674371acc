"""A course for nbgrader: lessons as its sources, and time-outs that fit them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from survey_lib.course.publishing import notebooks
from survey_lib.lab.runtime import write_atomically

_CONFIG = """# Settings of nbgrader for this class; see https://nbgrader.readthedocs.io
import os

os.environ.setdefault("SURVEY_PROFILE", "smoke")  # handed-in lessons run in seconds; the checks are the same
c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "survey"
c.ExecutePreprocessor.timeout = 600  # seconds for a cell
c.ExecutePreprocessor.startup_timeout = 120
c.ExecutePreprocessor.allow_errors = True  # an unfilled answer stops its own cells, not the notebook
"""


def init(folder: Path, lessons: Sequence[str]) -> list[str]:
    """Lay out a course in a folder with these lessons (all by default); the names of its assignments.

    Raises FileExistsError for a file that is there and differs; nothing is written then.
    """
    files = {folder / "nbgrader_config.py": _CONFIG.encode()}
    chosen = notebooks.select(list(lessons))
    for lesson in chosen:
        files[folder / "source" / f"lesson{lesson.number}" / lesson.path.name] = lesson.path.read_bytes()
    for path, content in files.items():
        if path.exists() and path.read_bytes() != content:
            raise FileExistsError(f"{path} is there and differs; name another folder, or move it away")
    for path, content in files.items():
        write_atomically(path, content)
    return [f"lesson{lesson.number}" for lesson in chosen]
