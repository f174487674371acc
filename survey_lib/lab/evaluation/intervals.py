"""Uncertainty of a metric: intervals from random halves, and the floor, the score of a perfect sampler."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

import torch
from torch import Tensor

from survey_lib.core.protocols import normal

#: A distance between two sets of features, ``metric(real, fake)``, each (N, d).
Metric = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def bootstrap(
    metric: Metric,
    real: Tensor,
    fake: Tensor,
    *,
    generator: torch.Generator,
    resamples: int = 100,
    level: float = 0.95,
    debias: bool = False,
) -> Interval:
    """Interval for the expectation of ``metric`` at this N, from random halves of both sets.

    ``value ± z(level) * deviation(metric over halves)``. ``debias`` subtracts the bias that falls as 1 / N (Quenouille
    1949; FD-infinity of Chong & Forsyth 2020): the interval is then for infinite N, and the value may be negative.
    Raises ValueError for a level outside (0, 1) and for fewer than 2 resamples.
    """
    # Sets redrawn with replacement, the usual bootstrap, are wrong here: they add the bias of the Fréchet distance a
    # second time, so that the interval misses even its own value, and duplicates are their own nearest neighbours.
    # Halves drawn without replacement have no duplicates, and vary about their mean as full sets do: the variance for
    # m of N samples is tau^2 (1 / m - 1 / N), at m = N / 2 the tau^2 / N of a full set. Their larger bias is removed
    # with their mean. Near distance 0, where the metric has no linear term, the interval is too wide: the safe side.
    if not 0 < level < 1 or resamples < 2:
        raise ValueError(f"a level lies in (0, 1), with at least 2 resamples; got level {level} and {resamples}")
    value, n = metric(real, fake), len(real)
    m = n // 2
    values = [metric(real[shuffle(n, generator)[:m]], fake[shuffle(n, generator)[:m]]) for _ in range(resamples)]
    odd = m / (n - m)  # 1 unless N is odd
    if debias:
        value -= (fmean(values) - value) * odd
    reach = NormalDist().inv_cdf((1 + level) / 2) * stdev(values) * math.sqrt(odd)
    return Interval(value, value - reach, value + reach)


def floor(metric: Metric, real: Tensor, count: int, *, generator: torch.Generator) -> float:
    """``metric`` between two disjoint random subsets of ``count`` real samples: the score of a perfect sampler."""
    if not 2 <= 2 * count <= len(real):
        raise ValueError(f"a floor at {count} a side needs {2 * count} real samples; there are {len(real)}")
    order = shuffle(len(real), generator)
    return metric(real[order[:count]], real[order[count : 2 * count]])


def shuffle(n: int, generator: torch.Generator) -> Tensor:
    """A random permutation of ``n`` indices, on the CPU."""
    return normal((n,), generator, torch.float64).argsort().cpu()
