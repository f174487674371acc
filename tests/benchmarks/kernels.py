"""Gain or loss of a sweep that runs two kernels at a time: they share the threads, so it must not lose."""

from __future__ import annotations

import tempfile
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from survey_lib.course.publishing.notebooks import Lesson
from survey_lib.course.sweeps import worker
from survey_lib.course.sweeps.sweep import Sweep, run
from survey_lib.lab.evaluation.cost import Ratio, ratio

PARAMETERS = 'profile = "cpu"\nseed = 0\ndataset = "glyphs"\ntrain = False'
WORK = """
import torch
x = torch.ones(16, 32, 64, 64)
layer = torch.nn.Conv2d(32, 32, 3, padding=1)
with torch.no_grad():
    for _ in range(200):
        layer(x)
"""


def two_kernels(repeats: int = 3) -> dict[str, tuple[Ratio, float]]:
    """A sweep of two runs that convolve for some seconds: both at once, against one after the other.

    Raises RuntimeError where ``OMP_NUM_THREADS`` leaves cores idle while one runs alone: two would win by that.
    """
    if worker.threads(1) < worker.cores():
        raise RuntimeError(f"OMP_NUM_THREADS leaves one run {worker.threads(1)} of {worker.cores()} cores; unset it")
    with tempfile.TemporaryDirectory() as home:
        path = Path(home, "notebooks", "01_convolves.ipynb")
        path.parent.mkdir()
        cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), new_code_cell(WORK)]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(new_notebook(cells=cells, metadata=kernel), path)
        sweep = Sweep("two", Lesson(path), ("seed",), ({"seed": 0}, {"seed": 1}))

        def both(jobs: int) -> None:
            failed = [one.error for one in run(sweep, Path(home, "build"), jobs=jobs, again=True) if one.error]
            if failed:
                raise RuntimeError(failed[0])

        return {"sweep: two kernels at once": (ratio(lambda: both(2), lambda: both(1), repeats), 1.0)}
