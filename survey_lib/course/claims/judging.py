"""Verdicts: a Student's t interval of the log ratio of a and b, paired by seed, and the rule that decides by it.

The ratio is the geometric mean over seeds; half the width of its interval is t(n - 1, 97.5 %) standard deviations of
the log ratio over root n, 4.30 / root 3 at three seeds. The true ratio lies beyond each end of such an interval in
2.5 % of all cases, and a verdict is wrong only if it lies beyond the one end on which the verdict rests.

Rows are compared within one data set, one profile and one N, and never averaged over them; the group with the most
seeds decides.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import stdtrit

from survey_lib.course.claims.reading import BEST, NEAREST, Claim, load
from survey_lib.lab import runtime
from survey_lib.lab.experiments import store

if TYPE_CHECKING:
    import pandas

REPRODUCED, DIRECTION, NO_DIFFERENCE = "reproduced", "direction only", "no difference"
NOT_HERE, INCONCLUSIVE, OUT_OF_DATE = "not reproduced here", "inconclusive", "out of date"
VERDICTS = (REPRODUCED, DIRECTION, NO_DIFFERENCE, NOT_HERE, INCONCLUSIVE, OUT_OF_DATE)
SEEDS = 3
ONE_SIDED = 0.025
NO_DATA = "–"  # noqa: RUF001


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim for one data set.

    ``found`` is the verdict of the rows, ``stale`` the parts of the code that have changed since they were measured.
    ``ratio`` is a / b with its interval ``low`` to ``high``; if it is NaN, ``reason`` says why.
    """

    claim: Claim
    dataset: str
    found: str
    seeds: int = 0
    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan
    stale: str = ""
    reason: str = ""

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        return OUT_OF_DATE if self.stale else self.found

    @property
    def words(self) -> str:
        """The verdict with its limitations: the verdict before it was out of date, and too few trained networks."""
        was = f" (was: {self.found})" if self.stale else ""
        limit = f", {self.claim.limit}" if self.claim.limit and self.seeds else ""
        return f"{self.verdict}{was}{limit}"

    @property
    def measured(self) -> str:
        """The ratio with its interval, and the number of seeds unless it is three; or the reason for its absence."""
        if math.isnan(self.ratio):
            return self.reason
        if self.claim.kind == "exact":
            return f"{_number(self.ratio)}, exact"
        shown = _number(self.ratio)
        if self.seeds > 1:
            shown += f" [{_number(self.low)}, {_number(self.high)}]"
        if self.seeds != SEEDS:
            shown += f", {self.seeds} seed{'s' * (self.seeds > 1)}"
        return f"{shown}; {self.reason}" if self.reason else shown


def verdicts(
    lesson: str | None = None,
    *,
    dataset: str | None = None,
    shipped: bool = False,
    table: pandas.DataFrame | None = None,
) -> tuple[Verdict, ...]:
    """Verdicts on the claims of one lesson ("01"), or of all, for each data set with results.

    Smoke runs are left out, since their N is too small.

    dataset: only this data set.
    shipped: use only the results that come with the course.
    table: rows to use in place of the results.

    Raises ValueError for a claim about an experiment, setting, value or quantity that the results lack, and for a data
    set without rows.
    """
    claims = load(lesson)
    if not claims:
        return ()
    if table is None:
        folder, names = store.shipped() if shipped else None, dict.fromkeys(claim.experiment for claim in claims)
        experiments, known = {name: store.load(name, folder=folder) for name in names}, store.select()
    else:
        experiments = dict(iter(table.groupby("experiment")))
        known = list(experiments)
    found = []
    for claim in claims:
        rows = experiments.get(claim.experiment)
        _refuse_unknown(claim, rows, known)
        found += _by_dataset(claim, rows)
    if dataset is not None:
        accepted = sorted({one.dataset for one in found} - {NO_DATA})
        if dataset not in accepted:
            near = runtime.suggest(dataset, accepted)
            raise ValueError(f'no claim was tested on "{dataset}"{near}; accepted: {", ".join(accepted)}')
    return tuple(one for one in found if dataset in (None, one.dataset))


def judge(claim: Claim, rows: pandas.DataFrame, dataset: str) -> Verdict:
    """The verdict on one claim from rows of its experiment on one data set."""
    best: tuple[tuple[int, float], Verdict] | None = None
    for _, comparable in rows.groupby(["profile", "images"], dropna=False):
        one = _judge_comparable(claim, comparable, dataset)
        rank = one.seeds, comparable["images"].max()
        if best is None or rank > best[0]:
            best = rank, one
    return best[1] if best else Verdict(claim, dataset, INCONCLUSIVE, reason="no results yet")


def rule(claim: Claim, low: float, high: float) -> str:
    """The verdict for an interval of a / b.

    * reproduced: it lies beyond the threshold.
    * direction only: it lies beyond 1 on the claimed side.
    * not reproduced here: it lies beyond 1 on the other side.
    * no difference: it lies within the smallest effect of 1, whatever else holds.
    * inconclusive: none of these conditions holds.

    For a claim such as "a < 1.05 * b", that a is as good as b, only the side of the threshold counts.
    """
    factor = claim.expected.factor
    if not claim.expected.less:
        low, high, factor = 1 / high, 1 / low, 1 / factor
    if not claim.expected.difference:
        return REPRODUCED if high < factor else NOT_HERE if low > factor else INCONCLUSIVE
    if 1 / (1 + claim.effect) < low and high < 1 + claim.effect:
        return NO_DIFFERENCE
    if high < 1:
        return REPRODUCED if high < factor or factor == 1 else DIRECTION
    return NOT_HERE if low > 1 else INCONCLUSIVE


def interval(logs: np.ndarray) -> tuple[float, float, float]:
    """exp of the mean of log ratios (n,), and the ends of its 95 % interval by Student's t; n >= 2."""
    half = stdtrit(len(logs) - 1, 1 - ONE_SIDED) * logs.std(ddof=1) / math.sqrt(len(logs))
    return tuple(float(end) for end in np.exp(logs.mean() + np.array([0.0, -half, half])))


def in_words(found: Iterable[Verdict]) -> str:
    """The count of each verdict, as "3 reproduced, 1 inconclusive"; "none" without verdicts."""
    found = list(found)
    parts = [_counted(one.verdict for one in found)]
    if stale := [one.found for one in found if one.stale]:
        parts.append(f"(were: {_counted(stale)})")
    if limited := sum(bool(one.claim.limit) for one in found if one.seeds):
        parts.append(f"({limited} on one network each)")
    return " ".join(parts) if found else "none"


def chance(found: Iterable[Verdict]) -> str:
    """A sentence on the number of verdicts that would be wrong by chance alone."""
    compared = (one for one in found if one.claim.kind != "exact" and one.seeds >= SEEDS)
    drawn = sum(one.claim.expected.difference for one in compared)
    return (
        "A 95 % interval misses by chance on each side in 2.5 % of cases: were there no difference in any of the "
        f"{drawn} comparisons that claim one, at most about {drawn * ONE_SIDED:.1f} would be called reproduced all the "
        "same, and as many the other way round."
    )


def _counted(words: Iterable[str]) -> str:
    counted = Counter(words)
    return ", ".join(f"{counted[word]} {word}" for word in VERDICTS if counted[word])


def _number(ratio: float) -> str:
    """Format with three decimals near 1, to distinguish 0.998 from 1.003; else with three significant digits."""
    return f"{ratio:.3f}" if 0.1 <= ratio < 10 else f"{ratio:.3g}"


def _refuse_unknown(claim: Claim, rows: pandas.DataFrame | None, known: Sequence[str]) -> None:
    """Raise ValueError for an experiment, setting, value or quantity that the results lack."""
    about = f"claim {claim.id} is about"
    if claim.experiment not in known and known:
        near = runtime.suggest(claim.experiment, known)
        raise ValueError(f'{about} the experiment "{claim.experiment}"{near}, of which there are no results')
    if rows is None or rows.empty:
        return
    own = rows.dropna(axis=1, how="all")
    selections = (claim.where, claim.a, claim.b)
    named = [(name, value) for one in selections for name, value in one.items()]
    settings = [(name, value) for name, value in named if name not in (BEST, NEAREST)]
    quantities = [claim.expected.quantity, *(value for name, value in named if name in (BEST, NEAREST))]
    for what, names in (("setting", [name for name, _ in settings]), ("quantity", quantities)):
        for name in names:
            if name not in own:
                near = runtime.suggest(name, own)
                raise ValueError(f'{about} the {what} "{name}"{near}, which {claim.experiment} lacks')
    for name, value in settings:
        for one in value if isinstance(value, list) else [value]:
            if not (own[name] == one).any():
                near = runtime.suggest(one, own[name].dropna().unique()) if isinstance(one, str) else ""
                raise ValueError(f"{about} {name} {one!r}{near}, of which {claim.experiment} has no results")


def _by_dataset(claim: Claim, rows: pandas.DataFrame | None) -> list[Verdict]:
    """The verdict on each data set with rows of either side; smoke runs do not count."""
    if rows is None or rows.empty:
        return [Verdict(claim, NO_DATA, INCONCLUSIVE, reason="no results yet")]
    own = rows[rows["profile"] != "smoke"]
    names = {name for side in (claim.a, claim.b) if side for name in _matching(own, {**claim.where, **side})["dataset"]}
    return [judge(claim, own[own["dataset"] == name], name) for name in sorted(names) or [NO_DATA]]


def _judge_comparable(claim: Claim, rows: pandas.DataFrame, dataset: str) -> Verdict:
    quantity, constant = claim.expected.quantity, claim.expected.constant
    a, b = ({**claim.where, **side} for side in (claim.a, claim.b))
    try:
        if NEAREST in a:
            right = _by_seed(rows, b)
            left = _by_seed(rows, a, right)
        else:
            left = _by_seed(rows, a)
            right = {} if constant is not None else _by_seed(rows, b, left)
    except LookupError as error:
        return Verdict(claim, dataset, INCONCLUSIVE, reason=str(error.args[0]))
    pairs = [(left[seed], right.get(seed)) for seed in sorted(left) if constant is not None or seed in right]
    values = [(one[quantity], constant if other is None else other[quantity]) for one, other in pairs]
    known = [at for at, pair in enumerate(values) if not any(math.isnan(value) for value in pair)]
    if not known:
        return Verdict(claim, dataset, INCONCLUSIVE, reason="no seed has both sides")
    used = [row for at in known for row in pairs[at] if row is not None]
    stale = ", ".join(dict.fromkeys(part for row in used for part in str(row.get("stale", "")).split(", ") if part))
    values = np.array([values[at] for at in known])
    if (values <= 0).any():
        reason = f"{quantity} is not positive, so it has no ratio"
        return Verdict(claim, dataset, INCONCLUSIVE, len(known), stale=stale, reason=reason)
    return _decided(claim, dataset, np.log(values[:, 0] / values[:, 1]), stale)


def _decided(claim: Claim, dataset: str, logs: np.ndarray, stale: str) -> Verdict:
    n, reason = len(logs), ""
    if claim.kind == "exact":
        ends = tuple(float(end) for end in np.exp([logs.mean(), logs.min(), logs.max()]))
    else:
        ends = interval(logs) if n > 1 else (math.exp(logs[0]), 0.0, math.inf)
        reason = f"{SEEDS} are needed" if n < SEEDS else ""
    word = INCONCLUSIVE if reason else rule(claim, *ends[1:])
    return Verdict(claim, dataset, word, n, *ends, stale, reason)


def _matching(rows: pandas.DataFrame, selection: Mapping[str, Any]) -> pandas.DataFrame:
    for name, value in selection.items():
        if name not in (BEST, NEAREST):
            known = rows[name] if name in rows else rows["seed"] * math.nan
            rows = rows[known.isin(value if isinstance(value, list) else [value])]
    return rows


def _by_seed(
    rows: pandas.DataFrame, selection: Mapping[str, Any], other: Mapping[int, Mapping[str, Any]] | None = None
) -> dict[int, dict[str, Any]]:
    """The row of each seed that ``selection`` selects. Raises LookupError if it selects several."""
    found = {}
    for seed, of_one in _matching(rows, selection).groupby("seed"):
        if BEST in selection:
            of_one = of_one.nsmallest(1, selection[BEST])
        if NEAREST in selection and seed in (other or {}):
            name = selection[NEAREST]
            of_one = of_one.loc[[(of_one[name] - other[seed][name]).abs().idxmin()]]
        if len(of_one) > 1:
            chosen = ", ".join(f"{name} {value}" for name, value in selection.items())
            raise LookupError(f"seed {seed} has {len(of_one)} rows of {chosen}: the claim has to select one")
        found[int(seed)] = of_one.iloc[0].to_dict()
    return found
