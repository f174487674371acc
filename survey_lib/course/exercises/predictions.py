"""Predictions: what a reader expects before a lesson measures, and the score at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Prediction:
    """An answer given before the measurement: one of ``choices``, or a number that counts within a factor."""

    key: str
    question: str
    answer: str | float
    choices: tuple[str, ...] = ()
    factor: float = 2.0

    def right(self, measured: str | float) -> bool:
        """The same choice, or a number at most ``factor`` away from the measured one."""
        if self.choices:
            return self.answer == measured
        if self.answer * measured <= 0:
            return self.answer == measured
        return abs(math.log(self.answer / measured)) <= math.log(self.factor) + 1e-12


def predict(
    key: str, question: str, answer: str | float, choices: Sequence[str] = (), factor: float = 2.0
) -> Prediction:
    """Write down a prediction. Raises ValueError for a choice that is not offered, TypeError for what is no number."""
    if choices and answer not in choices:
        raise ValueError(f"{answer!r} is none of the choices: {', '.join(choices)}")
    if not choices and (isinstance(answer, bool) or not isinstance(answer, int | float)):
        raise TypeError(f"the prediction {key!r} is a number; got {answer!r}")
    return Prediction(key, question, answer, tuple(choices), factor)


@dataclass(frozen=True)
class Score:
    """Predictions beside what was measured."""

    rows: tuple[tuple[Prediction, str | float], ...]

    @property
    def right(self) -> int:
        return sum(prediction.right(measured) for prediction, measured in self.rows)

    def __repr__(self) -> str:
        lines = [
            f"{'right' if one.right(found) else 'not so':6s}  {one.question}  predicted {_show(one.answer)}, "
            f"measured {_show(found)}"
            for one, found in self.rows
        ]
        return "\n".join([*lines, f"{self.right} of {len(self.rows)} predictions were right."])

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><td style="text-align:left">{escape(one.question)}</td><td>{escape(_show(one.answer))}</td>'
            f'<td><b>{escape(_show(found))}</b></td><td style="white-space:nowrap">'
            f"{'✓ right' if one.right(found) else '✗ not so'}</td></tr>"
            for one, found in self.rows
        )
        return (
            '<table><thead><tr><th style="text-align:left">question</th><th>predicted</th><th>measured</th><th></th>'
            f"</tr></thead><tbody>{rows}</tbody></table><p>{self.right} of {len(self.rows)} predictions were right. "
            "A number counts as right within the factor its question states.</p>"
        )


def score(predictions: Sequence[Prediction], measured: Mapping[str, str | float]) -> Score:
    """Set ``predictions`` against ``measured`` (key to value). Raises ValueError if one was never measured."""
    missing = [one.key for one in predictions if one.key not in measured]
    if missing:
        raise ValueError(f"nothing was measured for {', '.join(missing)}; measured: {', '.join(measured)}")
    return Score(tuple((one, measured[one.key]) for one in predictions))


def _show(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"
