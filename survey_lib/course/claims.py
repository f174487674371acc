"""Claims: what the survey or a study says, and the verdict that the records give. No verdict is written by hand.

``data/claims.toml`` holds a table ``[[claim]]`` each::

    id = "01.ddim-few-steps"
    lesson = "01"
    says = "DDIM (Song et al. 2021), table 1"
    sentence = "With few steps the deterministic sampler is better than the random one."
    experiment = "01.steps"          # whose records decide
    quantity = "fd"                  # a column of `store.load`
    a = { eta = 0.0, steps = 10 }    # the rows compared: a against b, seed by seed
    b = { eta = 1.0, steps = 10 }
    comparison = "less"              # a less than b; or "greater"; or "ratio below", of a / b
    threshold = 0.5                  # the size of the effect: a <= 0.5 b
    kind = "trained"                 # or "sampled": at least three seeds; or "exact": one record is enough

The effect is the ratio of the means of a and b, its interval a bootstrap over seeds (95 %).
"""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from survey_lib.course.publishing.notebooks import CLAIMS
from survey_lib.lab import runtime
from survey_lib.lab.experiments import store
from survey_lib.lab.plots.tables import Table, table

if TYPE_CHECKING:
    import pandas

REPRODUCED, DIRECTION, NOT_HERE, INCONCLUSIVE = "reproduced", "direction only", "not at this scale", "inconclusive"
VERDICTS = (REPRODUCED, DIRECTION, NOT_HERE, INCONCLUSIVE)
COMPARISONS = ("less", "greater", "ratio below")
KINDS = ("trained", "sampled", "exact")
SEEDS = 3
RESAMPLES = 4000
WIDTH = 100


@dataclass(frozen=True)
class Claim:
    """One line of ``claims.toml``, checked."""

    id: str
    lesson: str
    says: str
    sentence: str
    experiment: str
    quantity: str
    a: Mapping[str, Any]
    b: Mapping[str, Any]
    comparison: str
    threshold: float = 1.0
    kind: str = "trained"

    def __post_init__(self):
        if self.comparison not in COMPARISONS:
            raise ValueError(f"claim {self.id}: comparison is one of {', '.join(COMPARISONS)}; got {self.comparison!r}")
        if self.kind not in KINDS:
            raise ValueError(f"claim {self.id}: kind is one of {', '.join(KINDS)}; got {self.kind!r}")
        wrong_way = self.threshold < 1 if self.comparison == "greater" else self.threshold > 1
        if self.threshold <= 0 or (self.comparison != "ratio below" and wrong_way):
            raise ValueError(f"claim {self.id}: a threshold of {self.threshold:g} contradicts {self.comparison!r}")


@dataclass(frozen=True)
class Verdict:
    """A claim on one data set: the ratio a / b with its interval, from how many seeds, and what follows."""

    claim: Claim
    dataset: str
    verdict: str
    reason: str
    seeds: int = 0
    ratio: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True)
class Ledger:
    """Verdicts as a table and as text; in a notebook they also reach the runner's summary."""

    verdicts: tuple[Verdict, ...]

    @property
    def table(self) -> Table:
        """A row for each verdict."""
        return table(
            [
                {
                    "claim": one.claim.sentence,
                    "who says it": one.claim.says,
                    "data": one.dataset,
                    "measured": one.reason,
                    "verdict": one.verdict,
                }
                for one in self.verdicts
            ]
        )

    @property
    def counts(self) -> Table:
        """A row for each lesson: how many claims, and how often each verdict was reached."""
        lessons = dict.fromkeys(one.claim.lesson for one in self.verdicts)
        own = {lesson: [one for one in self.verdicts if one.claim.lesson == lesson] for lesson in lessons}
        return table(
            {"lesson": lesson, "claims": len({one.claim.id for one in found})}
            | {verdict: sum(one.verdict == verdict for one in found) for verdict in VERDICTS}
            for lesson, found in own.items()
        )

    def by_claim(self) -> list[tuple[Claim, list[Verdict]]]:
        """Each claim with its verdicts, one a data set."""
        found: dict[str, list[Verdict]] = {}
        for one in self.verdicts:
            found.setdefault(one.claim.id, []).append(one)
        return [(of_one[0].claim, of_one) for of_one in found.values()]

    def __str__(self) -> str:
        if not self.verdicts:
            return "No claim is made here."
        data, words = (max(len(getattr(one, name)) for one in self.verdicts) for name in ("dataset", "verdict"))
        lines = []
        for claim, found in self.by_claim():
            lines += [f"{claim.id}: {claim.says}"]
            lines += textwrap.wrap(claim.sentence, WIDTH - 4, initial_indent="    ", subsequent_indent="    ")
            lines += [f"      {one.dataset:{data}}  {one.verdict:{words}}  {one.reason}" for one in found] + [""]
        counted = ((verdict, sum(one.verdict == verdict for one in self.verdicts)) for verdict in VERDICTS)
        lines += [
            f"Verdicts on {len(self.by_claim())} claims, by data set: "
            + ", ".join(f"{count} {verdict}" for verdict, count in counted if count)
        ]
        return "\n".join(lines)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        handed = [{"claim": f"{one.claim.id} ({one.dataset})", "verdict": one.verdict} for one in self.verdicts]
        page = self.table.html if self.verdicts else f"<p>{self}</p>"
        return {"text/html": page, "text/plain": str(self), CLAIMS: handed}


def load(path: Path | None = None) -> tuple[Claim, ...]:
    """All claims, lesson by lesson. Raises ValueError where one lacks a field, has an unknown one or repeats an id."""
    path = path or runtime.HOME / "data" / "claims.toml"
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}: claims are read from the project's data folder")
    found: dict[str, Claim] = {}
    for entry in tomllib.loads(path.read_text()).get("claim", []):
        try:
            claim = Claim(**entry)
        except TypeError as error:
            raise ValueError(
                f"claim {entry.get('id', '?')} in {path.name}: {error}".replace("Claim.__init__() ", "")
            ) from None
        if claim.id in found:
            raise ValueError(f"{path.name} holds two claims {claim.id}")
        found[claim.id] = claim
    return tuple(sorted(found.values(), key=lambda claim: claim.lesson))


def verdicts(
    lesson: str | None = None,
    *,
    dataset: str | None = None,
    claims: tuple[Claim, ...] | None = None,
    table: pandas.DataFrame | None = None,
) -> tuple[Verdict, ...]:
    """The verdict on each claim, of one lesson ("01") or of all, for each data set that has records.

    Records of smoke runs are too small to decide and are left out.
    """
    claims = load() if claims is None else claims
    rows = store.load() if table is None else table
    rows = rows[rows["profile"] != "smoke"]
    found = []
    for claim in claims:
        if lesson is not None and claim.lesson != lesson[:2]:
            continue
        own = rows[rows["experiment"] == claim.experiment]
        names = [dataset] if dataset is not None else sorted(own["dataset"].unique()) or ["–"]  # noqa: RUF001
        found += [judge(claim, own[own["dataset"] == name], name) for name in names]
    return tuple(found)


def ledger(lesson: str | None = None, *, dataset: str | None = None, table: pandas.DataFrame | None = None) -> Ledger:
    """Claims and their verdicts, of one lesson or of the whole course, from all records or from those of ``table``."""
    return Ledger(verdicts(lesson, dataset=dataset, table=table))


def judge(claim: Claim, rows: pandas.DataFrame, dataset: str) -> Verdict:
    """The verdict on one claim from the records of its experiment on one data set."""
    a, b = (_by_seed(rows, claim.quantity, where) for where in (claim.a, claim.b))
    seeds = sorted(set(a) & set(b))
    if not seeds:
        return Verdict(claim, dataset, INCONCLUSIVE, "no records that compare the two")
    pairs = np.array([[a[seed], b[seed]] for seed in seeds])
    if (pairs <= 0).any():
        return Verdict(claim, dataset, INCONCLUSIVE, f"{claim.quantity} is not positive: no ratio", len(seeds))
    ratio, low, high = _interval(pairs)
    reason = (
        f"{ratio:.3g} [{low:.3g}, {high:.3g}] times, {len(seeds)} seeds" if len(seeds) > 1 else f"{ratio:.3g} times"
    )
    if claim.kind != "exact" and len(seeds) < SEEDS:
        verdict, reason = INCONCLUSIVE, f"{reason}; {SEEDS} seeds are needed"
    else:
        verdict = _verdict(claim, low, high)
    return Verdict(claim, dataset, verdict, reason, len(seeds), ratio, low, high)


def _verdict(claim: Claim, low: float, high: float) -> str:
    threshold, direction = claim.threshold, 1.0
    if claim.comparison == "greater":
        threshold, low, high = 1 / threshold, 1 / high, 1 / low
    if claim.comparison == "ratio below":
        direction = threshold  # nothing is claimed of a direction
    if high <= threshold:
        return REPRODUCED
    if high < direction:
        return DIRECTION
    return NOT_HERE if low > direction else INCONCLUSIVE


def _interval(pairs: np.ndarray) -> tuple[float, float, float]:
    """The ratio of the means of two columns, and 95 % of it when whole rows are drawn with replacement."""
    draws = np.random.default_rng(0).integers(len(pairs), size=(RESAMPLES, len(pairs)))
    sums = pairs[draws].sum(1)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], (0.025, 0.975))
    return float(pairs[:, 0].sum() / pairs[:, 1].sum()), float(low), float(high)


def _by_seed(rows: pandas.DataFrame, quantity: str, where: Mapping[str, Any]) -> dict[int, float]:
    """``quantity`` of the rows that match, by seed; the mean where one seed has several (profiles, say)."""
    if quantity not in rows or any(name not in rows for name in where):
        return {}
    for name, value in where.items():
        rows = rows[rows[name] == value]
    return rows.dropna(subset=[quantity]).groupby("seed")[quantity].mean().to_dict()
