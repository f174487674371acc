"""Guidance of laws that are known: the labels of a mixture, the law a scale seems to promise, and the one it gives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from survey_lib.core.corruptions import Gaussian
from survey_lib.core.exact import GaussianMixture
from survey_lib.core.heads import select_label
from survey_lib.core.integrators import log_likelihood
from survey_lib.core.protocols import Denoiser
from survey_lib.core.schedules import Schedule, edm
from survey_lib.design.guidance.wrappers import Classifier, ClassifierFree

_ROWS = 2**22  # (examples x points) held at once


@dataclass(frozen=True, eq=False)
class ExactLabels:
    """``p(y | x_t)`` of a mixture whose labels are 0 to K - 1: the classifier that no training reaches.

    The methods of `heads.LabelPosterior`, in float64 and differentiable in ``x_t``.
    """

    law: GaussianMixture
    schedule: Schedule

    def __post_init__(self) -> None:
        labels = self.law.labels
        if labels is None or labels.unique().tolist() != list(range(int(labels.max()) + 1)):
            raise ValueError("exact labels need a mixture with labels, numbered 0, 1, 2, ... without a gap")

    def log_probs(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """``log p(y | x_t)`` of every y: (B, K) in nats."""
        return self.law.label_log_probs(x_t, t, self.schedule)

    def log_prob(self, x_t: Tensor, t: Tensor | float, cond: Any) -> Tensor:
        """``log p(cond | x_t)``: (B,) in nats."""
        return select_label(self.log_probs(x_t, t), cond)

    def similarity(self, x_t: Tensor, t: Tensor | float, cond: Any) -> Tensor:
        """``log p(cond | x_t) / p(cond)``, what CLIP's loss would teach: (B,). Its gradient is that of `log_prob`."""
        shares = torch.stack([self.law.weights[self.law.labels == label].sum() for label in self.law.labels.unique()])
        return self.log_prob(x_t, t, cond) - shares.log()[torch.as_tensor(cond).long()]


@dataclass(frozen=True, eq=False)
class Tilted:
    """``p(x0) p(label | x0)^scale / Z`` of a labelled mixture on a line or a plane: what a scale seems to promise.

    ``log_prob`` is exact up to Z; Z, the denoiser and the samples come from sums over ``cells`` points a side, which
    reach ``reach`` deviations beyond the outermost means. A sum over points of smooth functions is as good as exact;
    below a noise of two cells the denoiser begins to see the points. ``scale = 0`` is the mixture, 1 its class.
    """

    law: GaussianMixture
    label: int
    scale: float
    cells: int = 201
    reach: float = 6.0

    def __post_init__(self) -> None:
        ExactLabels(self.law, edm())  # refuses a law without labels
        if tuple(self.law.event) not in ((1,), (2,)) or not math.isfinite(self.scale):
            raise ValueError(
                f"a tilted law is summed over a line or a plane, at a finite scale; got events {tuple(self.law.event)} "
                f"and scale {self.scale}"
            )

    @cached_property
    def points(self) -> Tensor:
        """Where the sums are taken: (N, D) in float64."""
        beyond = self.reach * self.law.variances.max().sqrt()
        low, high = self.law.means.min(0).values - beyond, self.law.means.max(0).values + beyond
        sides = [torch.linspace(a, b, self.cells, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
        return torch.cartesian_prod(*sides).reshape(-1, len(sides))

    @cached_property
    def cell(self) -> Tensor:
        """The sides of a cell: (D,)."""
        return (self.points[-1] - self.points[0]) / (self.cells - 1)

    @cached_property
    def log_mass(self) -> Tensor:
        """Logarithms of the probabilities of the points: (N,), their exponentials add up to 1."""
        return self._unnormalised(self.points).log_softmax(0)

    def log_prob(self, x0: Tensor) -> Tensor:
        """The density, (B,) in nats."""
        log_z = self._unnormalised(self.points).logsumexp(0) + self.cell.log().sum()
        return self._unnormalised(x0) - log_z

    def denoiser(self, schedule: Schedule) -> Denoiser:
        """``E[x0 | x_t]`` under this law: what a sampler of it would need. ``cond`` is not looked at."""

        def denoise(x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
            alpha, sigma = (scale.expand(len(x_t)) for scale in schedule.scales(t))
            rows = max(1, _ROWS // len(self.points))
            parts = zip(*(part.split(rows) for part in (x_t.double(), alpha, sigma)), strict=True)
            return torch.cat([self._mean(*part) for part in parts]).to(x_t.dtype)

        return denoise

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """``n`` draws, (n, D): a point by its mass, then anywhere in its cell."""
        index = torch.multinomial(self.log_mass.exp(), n, replacement=True, generator=generator)
        within = torch.rand(n, len(self.cell), generator=generator, dtype=torch.float64) - 0.5
        return (self.points[index] + within * self.cell).float()

    def _unnormalised(self, x0: Tensor) -> Tensor:
        return self.law.log_prob(x0) + self.scale * self.law.label_log_probs(x0, 0.0, edm())[:, self.label]

    def _mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        alpha, sigma = alpha[:, None], sigma[:, None]
        spread = torch.where(sigma > 0, sigma, 1)
        # -|x - alpha p|^2 / (2 sigma^2) without what is the same for all p
        fit = (alpha * (x @ self.points.T) - 0.5 * alpha**2 * self.points.square().sum(1)) / spread**2
        mean = (self.log_mass + fit).softmax(1) @ self.points
        return torch.where(sigma > 0, mean, x / torch.where(sigma > 0, 1, alpha))


def guided_log_prob(law: GaussianMixture, schedule: Schedule, label: int, scale: float, x0: Tensor) -> Tensor:
    """The density of what classifier-free guidance really samples from, (B,) in nats, without a single sample.

    The change of variables along its probability flow (`log_likelihood`), whose divergence is exact: the denoisers
    of the mixture are. To be held against ``Tilted(law, label, scale).log_prob(x0)``.
    """
    guided = ClassifierFree(law.denoiser(schedule), -1, scale)
    return log_likelihood(guided, schedule, x0, cond=label, probes=None, rtol=1e-6, atol=1e-6)


def guided_error(
    labels: Any, law: GaussianMixture, schedule: Schedule, *, generator: torch.Generator, points: int = 1000
) -> float:
    """Error of the answer that ``labels.log_prob`` guides at scale 1, over the distance that the truth moves it.

    Both are root mean squares over ``points`` draws of the mixture at each of six times from 0.1 to 0.6: 0 for the
    exact classifier, 1 for one that says nothing.
    """
    x0, y = law.sample_labelled(points, generator=generator)
    plain, missed, moved = law.denoiser(schedule), 0.0, 0.0
    guided = Classifier(plain, labels.log_prob, schedule, 1.0)
    for t in torch.arange(1, 7, dtype=torch.float64) / 10:
        x_t = Gaussian(schedule).corrupt(x0, t, generator=generator)
        truth = plain(x_t, t, y)
        missed += (guided(x_t, t, y) - truth).square().mean().item()
        moved += (plain(x_t, t) - truth).square().mean().item()
    return math.sqrt(missed / moved)
