"""How far to trust a metric: intervals from random halves, and the floor that a perfect sampler would score."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from survey_lib.core.protocols import normal

#: A distance of two sets of features, ``metric(real, fake)``, each (N, d).
Metric = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Interval:
    """A value and where, at some level, the truth lies."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def bootstrap(
    metric: Metric, real: Tensor, fake: Tensor, *, generator: torch.Generator, resamples: int = 200,
    level: float = 0.95, debias: bool = False,
) -> Interval:  # fmt: skip
    """Interval for what ``metric`` gives on average over fresh sets of this same N, from random halves of both sets.

    With ``debias`` also the part of the value that falls as 1 / N is taken off (Quenouille 1949; FD-infinity of
    Chong & Forsyth 2020), and the interval is for endless sets. Raises ValueError for a level outside (0, 1).
    """
    # The usual bootstrap draws with replacement, and is wrong here: it adds the bias of the Fréchet distance a second
    # time (the interval can miss its own value), and its duplicates have no distance to their nearest neighbour. Halves
    # drawn without replacement hold no duplicates, and for them the spread about their mean is that of full sets: a
    # part m of N varies by tau^2 (1 / m - 1 / N), which at m = N / 2 is tau^2 / N. Their own, larger bias goes with
    # the mean. At distance 0, where the metric has no linear part, the interval comes out too wide: the safe side.
    if not 0 < level < 1 or resamples < 2:
        raise ValueError(f"a level lies in (0, 1) with at least 2 resamples; got level {level} and {resamples}")
    value, n = metric(real, fake), len(real)
    m = n // 2
    halves = [
        metric(real[shuffle(n, generator)[:m]], fake[shuffle(n, generator)[:m]]) for _ in range(resamples)
    ]  # fmt: skip
    halves = torch.tensor(halves, dtype=torch.float64)
    spread = (halves - halves.mean()) * math.sqrt(m / (n - m))
    if debias:
        value -= float(halves.mean() - value) * m / (n - m)
    tail = torch.tensor([(1 + level) / 2, (1 - level) / 2], dtype=torch.float64)
    low, high = (value - spread.quantile(tail)).tolist()  # too large a value means that the truth lies below
    return Interval(value, low, high)


def floor(metric: Metric, real: Tensor, count: int, *, generator: torch.Generator) -> float:
    """``metric`` of two disjoint random parts of the real set, ``count`` each: what a perfect sampler would score."""
    if not 2 <= 2 * count <= len(real):
        raise ValueError(f"a floor at {count} a side needs {2 * count} real samples; there are {len(real)}")
    order = shuffle(len(real), generator)
    return metric(real[order[:count]], real[order[count : 2 * count]])


def shuffle(n: int, generator: torch.Generator) -> Tensor:
    """A random order of ``n`` things, on the CPU."""
    return normal((n,), generator, torch.float64).argsort().cpu()
