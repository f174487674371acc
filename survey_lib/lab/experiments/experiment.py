"""Experiments: one measurement repeated over settings, and the results on record.

::

    steps = Experiment("25.samplers", product(sampler=SOLVERS, nfe=(5, 10, 20)), measured)
    rows = steps(run, measure=measure)
    plots.error_against_evaluations(rows.curves("sampler", "evaluations", "fd"))
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tqdm.auto import tqdm

from survey_lib.lab.evaluation.evaluator import Measurement
from survey_lib.lab.experiments import store
from survey_lib.lab.experiments.results import Results
from survey_lib.lab.runtime import Run

Setting = Mapping[str, str | int | float]


def product(**values: Iterable[Any]) -> list[dict[str, Any]]:
    """All combinations of the values as settings: ``product(sampler=("DDIM", "2M"), nfe=(5, 10))`` gives four."""
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


@dataclass(frozen=True)
class Experiment:
    """One measurement repeated over settings.

    name: the experiment's name in the store and in claims, as "25.samplers".
    settings: a mapping for each measurement; a "seed" in it replaces the run's seed.
    measure: ``measure(**settings)`` returns a `Measurement` or a mapping of numbers, in which ``images`` is N and
        ``evaluations, macs, core_seconds`` are costs of one image. An ArithmeticError (a sampler that diverged or
        exceeded its budget) gives a warning and no result.
    dataset: replaces the run's data set, for results that do not depend on it.
    """

    name: str
    settings: Sequence[Setting]
    measure: Callable[..., Measurement | Mapping[str, float]]
    dataset: str | None = None

    def __call__(self, run: Run, *, measure: bool = False) -> Results:
        """Results on record; with ``measure``, measure first. A smoke run always measures, by default two settings."""
        if measure or run.profile == "smoke":
            self.run(run, self.settings if measure else self.settings[:2])
        return self.results(run)

    def run(self, run: Run, settings: Sequence[Setting] | None = None) -> None:
        """Measure at ``settings``, by default all, and save a local result for each."""
        settings = self.settings if settings is None else settings
        for one in tqdm(settings, desc=self.name, leave=False, disable=len(settings) < 3):
            try:
                found = self.measure(**one)
            except ArithmeticError as error:
                about = ", ".join(f"{name} {value}" for name, value in one.items())
                warnings.warn(f"no result of {self.name} at {about}: {error}", RuntimeWarning, stacklevel=2)
                continue
            self._keep(run, one, found)

    def results(self, run: Run) -> Results:
        """The shipped and local results on the run's data set, averaged over seeds."""
        dataset = self.dataset or run.dataset
        lesson = run.lesson.partition("_")[0]
        missing = (
            f"No results on {dataset} yet. To measure them: survey run {lesson} --dataset {dataset} -p measure True"
        )
        return Results.of(self.name, dataset, missing=missing)

    def _keep(self, run: Run, setting: Setting, found: Measurement | Mapping[str, float]) -> None:
        found = found.numbers() if isinstance(found, Measurement) else dict(found)
        about = {name: found.pop(name) for name in ("images", *store.COST) if name in found}
        where = replace(run, dataset=self.dataset or run.dataset, seed=setting.get("seed", run.seed))
        kept = {name: value for name, value in setting.items() if name != "seed"}
        store.save(self.name, where, kept, quality=found, **about)
