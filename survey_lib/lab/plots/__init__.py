"""Figures in one style, each with alt text from its data: contact sheets, planes, charts and tables."""

from survey_lib.lab.plots.bars import bars_with_interval, histogram, rows_of_points
from survey_lib.lab.plots.charts import curves, error_against_evaluations, loss_by_lam, pareto
from survey_lib.lab.plots.crowds import field2d, paths, scatters
from survey_lib.lab.plots.images import Recorder, forward_strip, sheet, steps_sheet
from survey_lib.lab.plots.labels import end_labels, number, place_labels
from survey_lib.lab.plots.planes import density2d, forward_scatter, scatter2d, trajectories
from survey_lib.lab.plots.style import CYCLE, PALETTE, Figure, describe, finish, panels, use
from survey_lib.lab.plots.symbols import covered, matrices, symbols
from survey_lib.lab.plots.tables import Table, table

__all__ = [
    "CYCLE",
    "PALETTE",
    "Figure",
    "Recorder",
    "Table",
    "bars_with_interval",
    "covered",
    "curves",
    "density2d",
    "describe",
    "end_labels",
    "error_against_evaluations",
    "field2d",
    "finish",
    "forward_scatter",
    "forward_strip",
    "histogram",
    "loss_by_lam",
    "matrices",
    "number",
    "panels",
    "pareto",
    "paths",
    "place_labels",
    "rows_of_points",
    "scatter2d",
    "scatters",
    "sheet",
    "steps_sheet",
    "symbols",
    "table",
    "trajectories",
    "use",
]
