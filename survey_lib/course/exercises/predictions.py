"""Predictions: questions with choices before a lesson measures, and the measured answers at its end.

`predict` shows buttons where a kernel runs and a plain list elsewhere; no answer is stored. `compare` shows the
questions with the measured answers, and beside them the choices that the reader made::

    predictions = [
        predict("blur", "The first sample is …", ("a digit", "noise")),
        predict("gain", "Ten times the steps divide the error by …", (2, 5, 10)),
    ]
    compare(predictions, {"blur": "noise", "gain": errors[5] / errors[50]})
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

import ipywidgets
from IPython.display import display

from survey_lib.lab.plots.labels import number
from survey_lib.lab.widgets.sliders import WIDGET

NOT_MEASURED = "not measured yet"


class Prediction:
    """A question with its choices, made by `predict`. ``chosen`` is the choice that the reader clicked, or None."""

    def __init__(self, key: str, question: str, choices: tuple[str, ...], bounds: tuple[float, ...] = ()):
        self.key, self.question, self.choices, self.bounds = key, question, choices, bounds
        self.buttons = ipywidgets.ToggleButtons(options=choices, value=None, style={"button_width": "auto"})
        self.box = ipywidgets.VBox([ipywidgets.HTML(escape(question)), self.buttons])

    @property
    def chosen(self) -> str | None:
        return self.buttons.value

    def choice_of(self, measured: str | float | None) -> str | None:
        """The choice that contains a measured value; None if the value is None or NaN.

        Raises ValueError for a text that is not among the choices, and TypeError for a number where choices are texts.
        """
        if measured is None or measured != measured:  # NaN differs from itself
            return None
        if not self.bounds:
            if not isinstance(measured, str):
                raise TypeError(f"the answer to {self.key!r} is one of {', '.join(self.choices)}; got {measured!r}")
            if measured not in self.choices:
                raise ValueError(f"{measured!r} is not among the choices of {self.key!r}: {', '.join(self.choices)}")
            return measured
        if isinstance(measured, str):
            raise ValueError(f"the answer to {self.key!r} is a number; got {measured!r}")
        return self.choices[sum(measured >= bound for bound in self.bounds)]

    def __repr__(self) -> str:
        return "\n".join([self.question, *(f"  - {choice}" for choice in self.choices)])

    def _repr_html_(self) -> str:
        choices = "".join(f"<li>{escape(choice)}</li>" for choice in self.choices)
        return f"<p>{escape(self.question)}</p><ul>{choices}</ul>"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        return _bundle(self, self.box)


class Comparison:
    """Questions with their measured answers and the reader's choices, updated while a kernel runs."""

    def __init__(self, rows: Sequence[tuple[Prediction, str]]):
        self.rows = tuple(rows)
        self.box = ipywidgets.HTML(self._repr_html_())
        for prediction, _ in self.rows:
            prediction.buttons.observe(self._show, names="value")

    def _show(self, change: Mapping[str, Any]) -> None:
        self.box.value = self._repr_html_()

    def _table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        rows = [(prediction.question, measured) for prediction, measured in self.rows]
        if not any(prediction.chosen for prediction, _ in self.rows):
            return ("question", "measured"), rows
        chosen = (prediction.chosen or "" for prediction, _ in self.rows)
        return ("question", "measured", "you chose"), [(*row, one) for row, one in zip(rows, chosen, strict=True)]

    def __repr__(self) -> str:
        header, rows = self._table()
        lines = []
        for question, *answers in rows:
            told = (f"  {name}: {text}" for name, text in zip(header[1:], answers, strict=True) if text)
            lines += [question, *told]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        header, rows = self._table()
        style = 'style="text-align:left;vertical-align:top;padding:.25em 1em .25em 0"'
        head = "".join(f'<th scope="col" {style}>{name}</th>' for name in header)
        body = "".join(f"<tr>{''.join(f'<td {style}>{escape(text)}</td>' for text in row)}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        return _bundle(self, self.box)


def predict(
    key: str, question: str, choices: Sequence[str | float], *, show: Callable[[Prediction], Any] = display
) -> Prediction:
    """Show a question with its choices, before anything is measured, and return it for `compare`.

    key       : the name under which `compare` finds the measured answer
    question  : a text that each choice completes
    choices   : at least two texts; or rising numbers, the bounds of ranges for a measured number
    show      : called with the prediction; IPython's ``display`` by default

    Raises ValueError for fewer than two texts, repeated texts, or bounds that do not rise.
    """
    choices = tuple(choices)
    if choices and all(isinstance(one, numbers.Real) and not isinstance(one, bool) for one in choices):
        if any(low >= high for low, high in pairwise(choices)):
            raise ValueError(f"the bounds of {key!r} must rise; got {', '.join(map(str, choices))}")
        made = Prediction(key, question, _ranges(choices), choices)
    else:
        if wrong := [one for one in choices if not isinstance(one, str)]:
            raise TypeError(f"the choices of {key!r} are texts, or numbers that bound ranges; got {wrong[0]!r}")
        if len(set(choices)) < max(2, len(choices)):
            raise ValueError(f"{key!r} needs at least two choices, all different; got {', '.join(choices) or 'none'}")
        made = Prediction(key, question, choices)
    show(made)
    return made


def compare(predictions: Sequence[Prediction], measured: Mapping[str, str | float | None]) -> Comparison:
    """Show each prediction beside its measured answer.

    measured  : a choice for each key, or a number where choices are ranges; None and NaN are "not measured yet"

    Raises ValueError for a prediction without an entry, and for an answer that is not among the choices.
    """
    if missing := [one.key for one in predictions if one.key not in measured]:
        raise ValueError(f"nothing was measured for {', '.join(missing)}; measured: {', '.join(measured)}")
    return Comparison([(one, _told(one, measured[one.key])) for one in predictions])


def _told(prediction: Prediction, measured: str | float | None) -> str:
    choice = prediction.choice_of(measured)
    if choice is None:
        return NOT_MEASURED
    return f"{choice} ({number(float(measured))})" if prediction.bounds else choice


def _ranges(bounds: Sequence[float]) -> tuple[str, ...]:
    names = [f"{bound:g}" for bound in bounds]
    between = (f"{low} to {high}" for low, high in pairwise(names))
    return (f"less than {names[0]}", *between, f"{names[-1]} or more")


def _bundle(shown: Prediction | Comparison, box: ipywidgets.Widget) -> dict[str, Any]:
    """The widget, and the same content as HTML and as text for readers without a kernel."""
    return {
        "text/html": shown._repr_html_(),
        "text/plain": repr(shown),
        WIDGET: box._repr_mimebundle_()[WIDGET],
    }
