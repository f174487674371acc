"""Few evaluations of one checkpoint, from the same noise: our best sampler against six schedulers of diffusers.

What is fair. Every sampler solves the same equation: in ``x / alpha`` and ``u = sigma / alpha`` the probability flow
knows no schedule. So all get one checkpoint, one precision, one batch of unit noise, and N calls of the denoiser.
A scheduler begins at the noisiest level of its own documentation (157 for DDPM's chain, 80 for EDM) with that noise as
its variance-preserving state, and its error is the distance to the exact path from *there*, walked in 250 steps of
third order, whose own distance to 1000 such steps is printed: none pays for where it starts. Ours begins with the
chain, at 157, and is measured against the chain's path: what it saves on the way is charged to it. Heun, whose steps
take two evaluations and the last one, gets 11 for 10.

The peers are chosen with hindsight: 59 documented settings are tried on other noise, the best two of every class go on,
and ours is divided by the best of them on the reported noise itself, once for the error and once for FD.

Ours is one sampler, fixed before; three things make it.
* The start costs nothing. Where the noise is four times the data's largest deviation, a denoiser can see no more of the
  data than mean and covariance, and there the path has a closed form (`GaussianLaw.flow`; Wang & Vastola 2024). It
  leads from 157 to there, and all evaluations are spent below. This takes the mean and covariance of the training
  images, which no scheduler is given; and where the network was hardly trained it answers with a mean of its own, which
  shifts all paths alike, by an offset that is measured once on the noise of the search.
* Order: `multistep` of third order in x0 with the corrector, which is UniPC-3 with exact weights.
* Grid: found by coordinate search on the distance to the exact path, on other noise (align-your-steps in small). The
  weights being exact, what is left is mostly that the corrector trusts answers at states which the predictor missed;
  it is large where answers turn quickly, and where that is only the network can tell.

What FD cannot show. The exact path itself has an FD: the network's error, and that of N samples. A sampler that
misses the path can have a smaller one, if it misses in a lucky direction. `compare` prints the exact path's FD over the
best scheduler's: where it is not below the goal, no solver of this equation reaches the goal by being exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import fmean, median

import torch
from torch import Tensor

from survey_lib.core import grids, schedules
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.exact import GaussianLaw
from survey_lib.core.heads import Preconditioned
from survey_lib.core.integrators import multistep
from survey_lib.lab import runtime
from survey_lib.lab.data import load
from survey_lib.lab.evaluation.cost import CountCalls, Ratio
from survey_lib.lab.evaluation.evaluator import Evaluator
from survey_lib.lab.evaluation.speed import fast
from survey_lib.lab.experiments import store
from survey_lib.lab.plots import table
from survey_lib.lab.training import checkpoints
from survey_lib.process import scheduling
from tests.benchmarks import schedulers
from tests.benchmarks.schedulers import Scheduler

CHAIN = schedules.from_betas(schedulers.BETAS)
TOP = torch.exp(-CHAIN.lam(1.0)).item()  # sigma / alpha of its noisiest level
BATCH = 250
GOAL = 12  # evaluations


@dataclass(frozen=True)
class Sizes:
    """How much is measured; the defaults are those of the benchmark."""

    seeds: tuple[int, ...] = (11, 12, 13)  # of the reported noise; nothing was designed while looking at these
    search: int = 0  # the noise on which ours is found and the peers are preselected
    count: int = 1000  # images for FD
    paths: int = 256  # images whose path is compared
    steps: int = 250  # of the reference of these, third order; `_report` holds it against four times as many
    checked: int = 32  # images for that
    fine: int = 80  # of the reference of all, third order too: closer than FD can see
    fitted: int = 20_000  # training images in the normal law
    rounds: int = 4  # of the search


@dataclass(frozen=True)
class Subject:
    """The checkpoint, as a denoiser in DDPM's chain for ours, and on ``x / alpha`` for the peers; calls are counted."""

    dataset: str
    sizes: Sizes = Sizes()

    @cached_property
    def denoiser(self) -> CountCalls:
        return CountCalls(fast(checkpoints.load(f"{self.dataset}_base", schedule=CHAIN)))

    @cached_property
    def answer(self) -> Callable[[Tensor, float], Tensor]:
        plain = checkpoints.load(f"{self.dataset}_base")
        schedule = schedules.edm(2 * TOP)
        denoiser = fast(Preconditioned(plain.net, schedule, plain.kind, plain.sigma_data))
        return lambda x, u: denoiser(x, schedule.time_at(u))

    @cached_property
    def evaluator(self) -> Evaluator:
        return Evaluator.load(self.dataset, self.sizes.count)

    def noise(self, seed: int, count: int) -> Tensor:
        shape = (count, *self.evaluator.shape)
        return Gaussian(CHAIN).prior(shape, generator=torch.Generator().manual_seed(seed))

    def frechet(self, drawn: Tensor) -> float:
        return self.evaluator.score(drawn)["fd"]

    def exact(self, noise: Tensor, steps: int, start: float = TOP) -> Tensor:
        """The end of the path from this noise at level ``start``: third order with the corrector, even in lam."""
        times = even(steps, CHAIN.time_at(start).item())
        return in_batches(lambda part: _solver(self.denoiser, CHAIN, part, times), noise)

    @cached_property
    def law(self) -> GaussianLaw:
        """The training images as one normal law."""
        return GaussianLaw.fit(load(self.dataset, count=self.sizes.fitted).float())

    @cached_property
    def first(self) -> float:
        """The time at which ours begins to ask: noise of four times the law's largest deviation."""
        return CHAIN.time_at(4 * self.law.variances.max().sqrt()).item()

    @cached_property
    def offset(self) -> Tensor:
        """Difference between the network's exact path and the law's at the start of ours: the mean over some noise."""
        noise = self.noise(self.sizes.search, self.sizes.paths)
        lam = torch.linspace(CHAIN.lam(1.0).item(), CHAIN.lam(self.first).item(), self.sizes.fine + 1)
        exact = _solver(self.denoiser, CHAIN, noise, CHAIN.time(lam))
        return (exact - self.law.flow(noise, 1.0, self.first, CHAIN)).mean(0)

    def ours(self, noise: Tensor, times: Tensor) -> Tensor:
        """From pure noise to the grid's first time in closed form, from there with an evaluation a step."""
        if times[0] != self.first:
            raise ValueError(f"ours asks first at t = {self.first:g}; this grid begins at {times[0]:g}")
        return _solver(self.denoiser, CHAIN, self.law.flow(noise, 1.0, self.first, CHAIN) + self.offset, times)


_solver = partial(multistep, order=3, correct=True)


def in_batches(sample: Callable[[Tensor], Tensor], noise: Tensor) -> Tensor:
    return torch.cat([sample(part) for part in noise.split(BATCH)])


def even(steps: int, first: float) -> Tensor:
    """Equal steps in lam from this time down to noise of 0.002, then to clean data."""
    return grids.uniform_lambda(steps, CHAIN, CHAIN.time_at(0.002).item(), first)


def rms(a: Tensor, b: Tensor) -> float:
    return (a - b).square().mean().sqrt().item()


def our_grid(subject: Subject, evaluations: int) -> Tensor:
    """The grid of ours, found on the search's noise from equal steps of the chain, coarse moves before fine ones."""
    noise = subject.noise(subject.sizes.search, subject.sizes.paths)
    reference = subject.exact(noise, subject.sizes.fine)

    def error(times: Tensor) -> float:
        return rms(subject.ours(noise, times), reference)

    start = grids.uniform(evaluations, subject.first)
    return scheduling.coordinate_search(error, CHAIN, start, rounds=subject.sizes.rounds).times


def preselected(subject: Subject, evaluations: int, keep: int = 2) -> list[Scheduler]:
    """Of every class of diffusers' the settings with the least error on the search's noise."""
    noise = subject.noise(subject.sizes.search, subject.sizes.paths // 2)
    exact: dict[float, Tensor] = {}
    found: dict[type, dict[float, Scheduler]] = {}
    for peer in schedulers.documented():
        if peer.start not in exact:
            exact[peer.start] = subject.exact(noise, subject.sizes.fine, peer.start)
        error = rms(peer(subject.answer, noise, evaluations), exact[peer.start])
        if error == error:  # some divide by zero in some versions
            found.setdefault(peer.kind, {}).setdefault(error, peer)  # some settings do the same
    return [peer for ranked in found.values() for _, peer in sorted(ranked.items())[:keep]]


@dataclass(frozen=True)
class Score:
    """One sampler on one seed."""

    name: str
    fd: float
    error: float
    evaluations: float  # of an image, counted


def measure(subject: Subject, seed: int, times: Tensor, peers: list[Scheduler]) -> list[Score]:
    """The two bounds first, then ours, then the peers."""
    sizes, noise = subject.sizes, subject.noise(seed, subject.sizes.count)
    starts = {TOP, *(peer.start for peer in peers)}
    paths = {start: subject.exact(noise[: sizes.paths], sizes.steps, start) for start in starts}

    def score(name: str, sample: Callable[[Tensor], Tensor], counted: CountCalls, start: float = TOP) -> Score:
        counted.reset()
        drawn = in_batches(sample, noise)
        return Score(
            name, subject.frechet(drawn), rms(drawn[: sizes.paths], paths[start]), counted.examples / len(noise)
        )

    ours, answer, evaluations = subject.denoiser, CountCalls(subject.answer), len(times) - 1
    scores = [
        score("exact path", partial(subject.exact, steps=sizes.fine), ours),
        score("our start, then exact", partial(subject.ours, times=even(sizes.fine, subject.first)), ours),
        score("ours", partial(subject.ours, times=times), ours),
    ]
    if scores[-1].evaluations != evaluations:
        raise RuntimeError(f"ours took {scores[-1].evaluations:g} evaluations, not {evaluations}")
    return scores + [
        score(peer.name, partial(peer, answer, evaluations=evaluations), answer, peer.start) for peer in peers
    ]


def fewest(subject: Subject, times: Tensor, exact: dict[int, float], margin: float = 1.05, most: int = 24) -> float:
    """The fewest evaluations of ours with a mean FD at most ``margin`` times the exact path's; its grid stretched.

    Infinite where none up to ``most`` suffices.
    """
    for evaluations in range(3, most + 1):
        grid = scheduling.resample_grid(times, evaluations, CHAIN)
        fd = [
            subject.frechet(in_batches(partial(subject.ours, times=grid), subject.noise(seed, subject.sizes.count)))
            for seed in exact
        ]
        if fmean(fd) <= margin * fmean(exact.values()):
            return evaluations
    return math.inf


def compare(
    dataset: str = "mnist", evaluations: int = 10, sizes: Sizes | None = None
) -> dict[str, tuple[Ratio, float]]:
    """The ratios: error and FD of ours over the best peer's, and evaluations to the exact FD."""
    subject = Subject(dataset, sizes or Sizes())
    times, peers = our_grid(subject, evaluations), preselected(subject, evaluations)
    scores = {seed: measure(subject, seed, times, peers) for seed in subject.sizes.seeds}
    _report(subject, evaluations, times, scores)
    exact = {seed: rows[0].fd for seed, rows in scores.items()}
    least = fewest(subject, times, exact)
    print(f"fewest evaluations of ours with FD within 5 % of the exact path's: {least}")
    where = f"{dataset}, {evaluations} evaluations"
    found = {
        f"{where}: error over the best scheduler's": (_over_best(scores.values(), "error"), 0.7),
        f"{where}: FD over the best scheduler's": (_over_best(scores.values(), "fd"), 0.9),
    }
    if least < math.inf:
        ratio = Ratio(*[least / GOAL] * 3)
        found[f"{dataset}: evaluations to an FD at most 5 % above the exact path's, over {GOAL}"] = ratio, 1.0
    return found


def _over_best(seeds: Iterable[list[Score]], field: str, of: int = 2) -> Ratio:
    """Row ``of`` over the least of the peers, seed by seed."""
    ratios = [getattr(rows[of], field) / min(getattr(row, field) for row in rows[3:]) for rows in seeds]
    return Ratio(median(ratios), min(ratios), max(ratios))


def _report(subject: Subject, evaluations: int, times: Tensor, scores: dict[int, list[Score]]) -> None:
    """Print what every sampler reached and what bounds it, and keep the results."""
    rows = []
    for row in zip(*scores.values(), strict=True):
        fd, error = ([getattr(score, field) for score in row] for field in ("fd", "error"))
        values = {"fd": fmean(fd), "error": fmean(error)}
        rows.append({"sampler": row[0].name, "FD": values["fd"], "error": values["error"]})
        for seed, score in zip(scores, row, strict=True):
            run = runtime.start("benchmarks", profile="cpu", seed=seed, dataset=subject.dataset)
            store.save("bench.sampling", run, {"sampler": score.name, "nfe": evaluations},
                         quality={"fd": score.fd, "error": score.error}, evaluations=score.evaluations,
                         images=subject.sizes.count)  # fmt: skip
    ends = rows[:3] + sorted(rows[3:], key=lambda row: row["FD"])
    print(table(ends, caption=f"{subject.dataset}, {evaluations} evaluations, mean of {len(scores)} seeds"))
    print("noise levels of our grid:", ", ".join(f"{u:.3g}" for u in torch.exp(-CHAIN.lam(times[:-1])).tolist()))
    some, steps = subject.noise(subject.sizes.search, subject.sizes.checked), subject.sizes.steps
    left = rms(subject.exact(some, steps), subject.exact(some, 4 * steps))
    print(f"the reference of {steps} steps is {left:.2g} from one of {4 * steps}")
    perfect = _over_best(scores.values(), "fd", 0)
    print(f"FD of the exact path over the best scheduler's, the ratio of a perfect solver: {perfect}")
