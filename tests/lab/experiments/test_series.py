"""Results as plots take them: which rows become which curve."""

from __future__ import annotations

import pandas
import pytest

from survey_lib.lab import plots
from survey_lib.lab.experiments import Results


@pytest.fixture
def rows() -> Results:
    """Two methods at three scales; precision falls with the scale, and recall turns."""
    values = [("a", 3.0, 0.5, 0.7), ("a", 1.0, 0.9, 0.6), ("a", 2.0, 0.7, 0.8), ("b", 1.0, 0.4, 0.2)]
    frame = pandas.DataFrame(values, columns=["method", "scale", "precision", "recall"])
    for name in ("precision", "recall"):
        frame[f"{name}_low"], frame[f"{name}_high"] = frame[name] - 0.1, frame[name] + 0.1
    frame = frame.assign(stale="", seeds=3, images=300, dataset="toy")
    return Results(frame, ("method", "scale"), ("precision", "recall"))


def test_a_curve_rises_in_x_or_along_another_column(rows):
    assert rows.curves("method", "recall", "precision")["a"][:2] == ([0.6, 0.7, 0.8], [0.9, 0.5, 0.7])
    path = rows.curves("method", "recall", "precision", along="scale")
    assert list(path) == ["a", "b"]
    assert path["a"][:2] == ([0.6, 0.8, 0.7], [0.9, 0.7, 0.5])


def test_trends_are_curves_of_several_numbers_with_their_bands(rows):
    found = rows.at(method="a").trends("scale", "precision", "recall")
    assert list(found) == ["precision", "recall"]
    x, y, low, high = found["recall"]
    assert (x, y) == ([1.0, 2.0, 3.0], [0.6, 0.8, 0.7])
    assert low == pytest.approx([0.5, 0.7, 0.6]) and high == pytest.approx([0.7, 0.9, 0.8])


def test_no_results_make_a_sentence_of_a_figure(rows):
    none = Results(rows.frame.iloc[:0], rows.settings, rows.numbers, "Nothing here yet.")
    for lines in (none.trends("scale", "recall"), none.curves("method", "recall", "precision", along="scale")):
        assert repr(plots.curves(lines)) == "Nothing here yet."
