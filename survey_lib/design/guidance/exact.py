"""Guidance of known distributions: exact labels of a mixture, tilted distributions, densities of guided samples."""

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
from survey_lib.design.guidance.classifier import Classifier
from survey_lib.design.guidance.classifier_free import ClassifierFree

_ROWS = 2**22  # (examples x points) in memory at once


@dataclass(frozen=True, eq=False)
class ExactLabels:
    """The exact classifier ``p(y | x_t)`` of a mixture whose labels are 0 to K - 1.

    Has the methods of `heads.LabelPosterior`, in float64 and differentiable in ``x_t``.
    """

    law: GaussianMixture
    schedule: Schedule

    def __post_init__(self) -> None:
        labels = self.law.labels
        if labels is None or labels.unique().tolist() != list(range(int(labels.max()) + 1)):
            raise ValueError("exact labels need a mixture with labels numbered 0, 1, 2, ... without a gap")

    def log_probs(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """``log p(y | x_t)`` for every y: (B, K) in nats."""
        return self.law.label_log_probs(x_t, t, self.schedule)

    def log_prob(self, x_t: Tensor, t: Tensor | float, cond: Any) -> Tensor:
        """``log p(cond | x_t)``: (B,) in nats."""
        return select_label(self.log_probs(x_t, t), cond)

    def similarity(self, x_t: Tensor, t: Tensor | float, cond: Any) -> Tensor:
        """``log p(cond | x_t) / p(cond)``, the optimum of CLIP's loss: (B,). Its gradient is the one of `log_prob`."""
        prior = torch.stack([self.law.weights[self.law.labels == label].sum() for label in self.law.labels.unique()])
        return self.log_prob(x_t, t, cond) - prior.log()[torch.as_tensor(cond).long()]


@dataclass(frozen=True, eq=False)
class Tilted:
    """The tilted distribution ``p(x0) p(label | x0)^scale / Z`` of a labelled mixture on a line or a plane.

    ``log_prob`` is exact up to Z. Z, the denoiser and the samples are sums over a grid of ``cells`` points per side,
    which extends ``reach`` standard deviations beyond the outermost means. Such sums of smooth functions are accurate
    to rounding; below a noise of two cells the denoiser resolves the single points. ``scale = 0`` is the mixture,
    ``scale = 1`` its class.
    """

    law: GaussianMixture
    label: int
    scale: float
    cells: int = 201
    reach: float = 6.0

    def __post_init__(self) -> None:
        ExactLabels(self.law, edm())  # raises ValueError for a mixture without labels
        if tuple(self.law.event) not in ((1,), (2,)) or not math.isfinite(self.scale):
            raise ValueError(
                f"a tilted distribution needs data on a line or a plane and a finite scale; got events "
                f"{tuple(self.law.event)} and scale {self.scale}"
            )

    @cached_property
    def points(self) -> Tensor:
        """The points of the grid: (N, D) in float64."""
        beyond = self.reach * self.law.variances.max().sqrt()
        low, high = self.law.means.min(0).values - beyond, self.law.means.max(0).values + beyond
        sides = [torch.linspace(a, b, self.cells, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
        return torch.cartesian_prod(*sides).reshape(-1, len(sides))

    @cached_property
    def cell(self) -> Tensor:
        """Side lengths of a cell: (D,)."""
        return (self.points[-1] - self.points[0]) / (self.cells - 1)

    @cached_property
    def log_mass(self) -> Tensor:
        """Normalised log-probabilities of the points: (N,)."""
        return self._unnormalised(self.points).log_softmax(0)

    def log_prob(self, x0: Tensor) -> Tensor:
        """Log-density of ``x0`` (B, D): (B,) in nats."""
        log_z = self._unnormalised(self.points).logsumexp(0) + self.cell.log().sum()
        return self._unnormalised(x0) - log_z

    def denoiser(self, schedule: Schedule) -> Denoiser:
        """``E[x0 | x_t]`` under the tilted distribution. ``cond`` is ignored."""

        def denoise(x_t: Tensor, t: Tensor | float, cond: Any = None) -> Tensor:
            alpha, sigma = (scale.expand(len(x_t)) for scale in schedule.scales(t))
            rows = max(1, _ROWS // len(self.points))
            parts = zip(*(part.split(rows) for part in (x_t.double(), alpha, sigma)), strict=True)
            return torch.cat([self._mean(*part) for part in parts]).to(x_t.dtype)

        return denoise

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """``n`` samples, (n, D): a point by its mass, then uniform in its cell."""
        index = torch.multinomial(self.log_mass.exp().to(generator.device), n, replacement=True, generator=generator)
        within = torch.rand(n, len(self.cell), generator=generator, device=generator.device, dtype=torch.float64) - 0.5
        return (self.points.to(within)[index] + within * self.cell.to(within)).float()

    def _unnormalised(self, x0: Tensor) -> Tensor:
        return self.law.log_prob(x0) + self.scale * self.law.label_log_probs(x0, 0.0, edm())[:, self.label]

    def _mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        alpha, sigma = alpha[:, None], sigma[:, None]
        spread = torch.where(sigma > 0, sigma, 1)
        # -|x - alpha p|^2 / (2 sigma^2) up to terms that are the same for all p
        fit = (alpha * (x @ self.points.T) - 0.5 * alpha**2 * self.points.square().sum(1)) / spread**2
        mean = (self.log_mass + fit).softmax(1) @ self.points
        return torch.where(sigma > 0, mean, x / torch.where(sigma > 0, 1, alpha))


def guided_log_prob(law: GaussianMixture, schedule: Schedule, label: int, scale: float, x0: Tensor) -> Tensor:
    """Log-density of the samples of classifier-free guidance, (B,) in nats.

    Computed by the change of variables along the guided probability flow (`log_likelihood`) with the exact divergence.
    Compare with ``Tilted(law, label, scale).log_prob(x0)``.
    """
    guided = ClassifierFree(law.denoiser(schedule), -1, scale)
    return log_likelihood(guided, schedule, x0, cond=label, probes=None, rtol=1e-6, atol=1e-6)


def guided_error(
    labels: Any, law: GaussianMixture, schedule: Schedule, *, generator: torch.Generator, points: int = 1000
) -> float:
    """Error of the prediction guided by ``labels.log_prob`` at scale 1, relative to the effect of exact guidance.

    Both are root mean squares over ``points`` samples of the mixture at each of six times from 0.1 to 0.6. The exact
    classifier has error 0, a constant classifier error 1.
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
