"""Sample quality: distances between two sets of features of equal size, and the errors of these distances.

All metrics use features (N, d) of the course's own classifiers (`features`), in float64 on the CPU; nothing is
downloaded. Three rules make the numbers comparable, of which the functions enforce the first:

* equal N on both sides, and the same N wherever two numbers are compared: the Fréchet distance is biased upwards,
  between two samples of one N(0, I) by d (d + 5) / (2 N);
* no number without its floor, the same metric between real samples (`floor`);
* no ranking by differences smaller than the interval (`bootstrap`), or by one feature network alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from survey_lib.core.mmd import polynomial_kernel
from survey_lib.core.protocols import normal
from survey_lib.lab.data.images import check_scale, to_float, to_uint8
from survey_lib.lab.evaluation.intervals import Interval, Metric, bootstrap, floor, shuffle

__all__ = [
    "DensityCoverage", "Interval", "Metric", "ModeCoverage", "PrecisionRecall", "bootstrap", "classify",
    "density_coverage", "evaluate", "features", "floor", "frechet_distance", "gaussian_frechet", "kid", "kid_error",
    "label_accuracy", "mode_coverage", "precision_recall", "sliced_wasserstein", "within_class_std",
]  # fmt: skip

_ROWS = 1000  # rows of a distance matrix at once: 40 MB against 5000 columns


# ---------------------------------------------------------------- features


def features(net: nn.Module, images: Tensor, batch: int = 500) -> Tensor:
    """Features ``net.features``, float64 (N, d) on the CPU, of images (N, C, H, W), uint8 or float in [-1, 1].

    Floats are rounded to 8 bits first, so that generated images are compared as 8-bit files, like the real images. The
    network is in eval mode during the call. Raises ValueError for NaN and for floats on a scale of 0 to 255.
    """
    return torch.cat(_apply(net, net.features, images, batch)).double()


def classify(net: nn.Module, images: Tensor, batch: int = 500) -> tuple[Tensor, ...]:
    """Classes ``net.classify`` of images, taken as in `features`: an int64 tensor (N,) on the CPU for each head."""
    return tuple(torch.cat(head) for head in zip(*_apply(net, net.classify, images, batch), strict=True))


def label_accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Fraction of images (N, C, H, W), taken as in `features`, that ``net.classify`` assigns to their labels (N,).

    Raises ValueError unless there is a label for each image.
    """
    if labels.shape != (len(images),):
        raise ValueError(f"{len(images)} images need labels of shape ({len(images)},); got {tuple(labels.shape)}")
    return float((classify(net, images)[0] == labels.cpu()).double().mean())


def _apply(net: nn.Module, function: Callable, images: Tensor, batch: int) -> list:
    if images.ndim != 4 or not len(images):
        raise ValueError(f"images are (N, C, H, W) with N at least 1; these have shape {tuple(images.shape)}")
    if images.is_floating_point():
        if images.isnan().any():
            broken = int(images.isnan().flatten(1).any(1).sum())
            raise ValueError(f"{broken} of {len(images)} images hold NaN: the sampler diverged, there is no quality")
        check_scale(images)
        images = to_uint8(images)
    device, training = next(net.parameters(), images).device, net.training
    net.eval()  # batch statistics would make an image's features depend on its neighbours
    try:
        with torch.inference_mode():
            outputs = [function(to_float(chunk.to(device))) for chunk in images.split(batch)]
    finally:
        net.train(training)
    return [tuple(y.cpu() for y in x) if isinstance(x, tuple) else x.cpu() for x in outputs]


def _pair(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Convert both sets to float64 on the CPU. Raises ValueError if they cannot be compared."""
    for name, x in (("real", real), ("fake", fake)):
        if x.ndim != 2 or len(x) < 2:
            raise ValueError(f"features are (N, d) with N at least 2; the {name} ones have shape {tuple(x.shape)}")
        if not x.isfinite().all():
            broken = int((~x.isfinite()).any(1).sum())
            raise ValueError(f"{broken} of {len(x)} rows of the {name} features hold NaN or infinity")
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"both sides need the same features; got d = {real.shape[1]} and d = {fake.shape[1]}")
    if len(real) != len(fake):  # bias and neighbourhoods depend on N: sides of unequal N are not comparable
        n = min(len(real), len(fake))
        raise ValueError(f"metrics need equal N: got {len(real)} real and {len(fake)} fake; cut both to {n}")
    return real.detach().to("cpu", torch.float64), fake.detach().to("cpu", torch.float64)


# ---------------------------------------------------------------- distances


def gaussian_frechet(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """Squared 2-Wasserstein distance of two Gaussians (Dowson & Landau 1982), exact also for singular covariances.

    ``|mean1 - mean2|^2 + tr(cov1 + cov2 - 2 (cov1 cov2)^(1/2))``. The trace of the root is the sum of the singular
    values of ``cov1^(1/2) cov2^(1/2)``: two symmetric eigenproblems replace a nonsymmetric one, and the condition
    number is not squared.
    """
    overlap = torch.linalg.svdvals(_root(cov1) @ _root(cov2)).sum()
    return float((mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * overlap)


def _root(cov: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(cov)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """Fréchet distance (Heusel et al. 2017, eq. 6) between Gaussians with the mean and covariance of each set (N, d).

    In squared feature units. Biased upwards as ``d^2 / N``: see `floor` and `bootstrap`.
    Raises ValueError unless N > d, since the covariance would be singular.
    """
    real, fake = _pair(real, fake)
    n, d = real.shape
    if n <= d:
        raise ValueError(f"a covariance of {d} features needs more than {d} samples a side; got {n}")
    cov_real, cov_fake = (x.T.cov().reshape(d, d) for x in (real, fake))  # for d = 1 torch returns a scalar
    return gaussian_frechet(real.mean(0), cov_real, fake.mean(0), cov_fake)


def kid(real: Tensor, fake: Tensor) -> float:
    """Kernel distance (Bińkowski et al. 2018): unbiased squared MMD of ``k(x, y) = (x.y / d + 1)^3``.

    All pairs count except a sample with itself. The mean is 0 for equal distributions, so the value is often negative.
    """
    within, across, counts = _kernel_sums(*_pair(real, fake), blocks=1)
    n = counts.sum()
    return float(within.sum() / (n * (n - 1)) - 2 * across.sum() / n**2)


def kid_error(real: Tensor, fake: Tensor, *, generator: torch.Generator, blocks: int = 20) -> float:
    """Standard error of `kid`, by the delete-one-block jackknife over ``blocks`` random blocks of both sets.

    A bootstrap would draw samples twice and include the kernel of a sample with itself. The jackknife variance is never
    too small in expectation (Efron & Stein 1981); for equal distributions the error is about 1.4 times too large.
    """
    real, fake = _pair(real, fake)
    if not 2 <= blocks <= len(real) // 2:
        raise ValueError(f"blocks lie between 2 and half of the {len(real)} samples; got {blocks}")
    # samples are often sorted by class: blocks must be random
    real, fake = real[shuffle(len(real), generator)], fake[shuffle(len(fake), generator)]
    within, across, counts = _kernel_sums(real, fake, blocks)
    n = counts.sum() - counts

    def without(sums: Tensor) -> Tensor:  # the sum over all pairs of blocks without block i
        return sums.sum() - sums.sum(0) - sums.sum(1) + sums.diagonal()

    values = without(within) / (n * (n - 1)) - 2 * without(across) / n**2
    return float(((blocks - 1) * values.var(correction=0)).sqrt())


def _kernel_sums(real: Tensor, fake: Tensor, blocks: int) -> tuple[Tensor, Tensor, Tensor]:
    """Kernel sums over pairs of blocks, within the sets (both added) and across them; the sizes of the blocks."""
    n, d = real.shape
    member = nn.functional.one_hot(torch.arange(n) * blocks // n, blocks).double()  # (N, blocks)

    def sums(x: Tensor, y: Tensor) -> Tensor:
        rows = [polynomial_kernel(chunk, y) @ member for chunk in x.split(_ROWS)]
        return member.T @ torch.cat(rows)

    def itself(x: Tensor) -> Tensor:
        return torch.diag(member.T @ (x.square().sum(1) / d + 1) ** 3)

    within = sums(real, real) - itself(real) + sums(fake, fake) - itself(fake)
    return within, sums(real, fake), member.sum(0)


def sliced_wasserstein(real: Tensor, fake: Tensor, *, generator: torch.Generator, projections: int = 256) -> float:
    """Sliced 2-Wasserstein distance (Bonneel et al. 2015): root of the mean of ``W_2^2`` over random directions.

    In one dimension, W_2 of two sets of N is the distance between the sorted sets. Directions are drawn in orthonormal
    sets of d, so that a shift by ``delta`` gives ``|delta| / sqrt(d)`` without noise if d divides ``projections``. Any
    (N, d) is accepted: features, pixels, patches.
    """
    real, fake = _pair(real, fake)
    d, total = real.shape[1], 0.0
    if projections < 1:
        raise ValueError(f"projections is a positive number of directions; got {projections}")
    for start in range(0, projections, d):
        count = min(d, projections - start)
        directions = torch.linalg.qr(normal((d, count), generator, torch.float64).cpu()).Q
        gap = (real @ directions).sort(0).values - (fake @ directions).sort(0).values
        total += float(gap.square().mean(0).sum())
    return math.sqrt(total / projections)


# ---------------------------------------------------------------- fidelity and diversity


class PrecisionRecall(NamedTuple):
    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    density: float
    coverage: float


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eq. 1 and 2).

    Precision: the fraction of generated samples within the distance of the k-th neighbour of *some* real sample.
    Recall: the same with the roles exchanged. One outlier has a huge ball: compare `density_coverage`.
    """
    real, fake = _pair(real, fake)
    real_radius, fake_radius = _radius(real, k), _radius(fake, k)
    precise, recalled = 0, torch.zeros(len(real), dtype=torch.bool)
    for distance, radius in zip(_distances(fake, real), fake_radius.split(_ROWS), strict=True):  # (rows, N)
        precise += int((distance <= real_radius).any(1).sum())
        recalled |= (distance <= radius[:, None]).any(0)
    return PrecisionRecall(precise / len(fake), float(recalled.double().mean()))


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> DensityCoverage:
    """Density and coverage (Naeem et al. 2020, sec. 3): balls around real samples only.

    Density: the mean number of real balls that contain a generated sample, over k; 1 for equal distributions, and it
    may exceed 1. Coverage: the fraction of real balls that contain some generated sample; about ``1 - 2^-k`` for equal
    distributions.
    """
    real, fake = _pair(real, fake)
    radius = _radius(real, k)
    inside, covered = 0, torch.zeros(len(real), dtype=torch.bool)
    for distance in _distances(fake, real):
        hits = distance <= radius
        inside += int(hits.sum())
        covered |= hits.any(0)
    return DensityCoverage(inside / (k * len(fake)), float(covered.double().mean()))


def _distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """The distance matrix (len(x), len(y)), some rows at a time."""
    centre = y.mean(0)  # cdist multiplies matrices: a common offset would cost precision
    y = y - centre
    for chunk in x.split(_ROWS):
        yield torch.cdist(chunk - centre, y)


def _radius(x: Tensor, k: int) -> Tensor:
    """Distance of each sample to its k-th nearest neighbour, excluding itself."""
    if not 1 <= k < len(x):
        raise ValueError(f"k lies between 1 and the number of samples less one, {len(x) - 1}; got {k}")
    return torch.cat([rows.topk(k + 1, largest=False).values[:, -1] for rows in _distances(x, x)])


def within_class_std(features: Tensor, labels: Tensor) -> float:
    """Standard deviation of features (N, d) within a class: ``sqrt(mean over classes of tr(cov))``.

    A class of a single example is left out. Raises ValueError if no class has two examples.
    """
    labels = labels.to(features.device)
    classes = [features[labels == label] for label in labels.unique()]
    variances = [members.var(0).sum() for members in classes if len(members) > 1]
    if not variances:
        raise ValueError(f"a standard deviation needs two examples of one class; all {len(labels)} classes have one")
    return float(torch.stack(variances).mean().sqrt())


# ---------------------------------------------------------------- known modes


@dataclass(frozen=True)
class ModeCoverage:
    """Result of `mode_coverage`; entropies and divergences in nats."""

    modes: int
    samples: int
    hit: int
    fraction: float  # hit / modes
    ideal_fraction: float  # expected for as many samples of the uniform distribution
    entropy: float
    divergence: float  # KL(samples | uniform) = log(modes) - entropy
    ideal_divergence: float  # expected for as many samples of the uniform distribution: not 0


def mode_coverage(labels: Sequence[Tensor], sizes: Sequence[int]) -> ModeCoverage:
    """Coverage of the ``prod(sizes)`` combinations of labels, and its evenness; for glyphs, (character, face).

    ``labels`` are int tensors (N,), counted from 0, one for each of ``sizes``, as from `classify`. An ideal sampler
    that draws K modes uniformly hits a fraction ``1 - (1 - 1/K)^N`` of them: compare with this fraction, not with 1.
    """
    if len(labels) != len(sizes) or len({len(label) for label in labels}) != 1 or not len(labels[0]):
        raise ValueError(f"mode coverage needs {len(sizes)} label tensors of one length N >= 1, one for each size")
    index = torch.zeros(len(labels[0]), dtype=torch.int64)
    for label, size in zip(labels, sizes, strict=True):
        if not 0 <= int(label.min()) <= int(label.max()) < size:
            raise ValueError(f"labels lie in 0 to {size - 1} here; got {int(label.min())} to {int(label.max())}")
        index = index * size + label.cpu()
    modes, n = math.prod(sizes), len(index)
    counts = index.bincount(minlength=modes).double()
    entropy = -float(torch.special.xlogy(counts / n, counts / n).sum())
    c, p = torch.arange(n + 1, dtype=torch.float64), torch.tensor(1 / modes, dtype=torch.float64)
    ways = math.lgamma(n + 1) - torch.lgamma(c + 1) - torch.lgamma(n - c + 1)
    chance = (ways + c * p.log() + torch.special.xlog1py(n - c, -p)).exp()  # an ideal count is binomial(n, p)
    ideal_entropy = -modes * float((chance * torch.special.xlogy(c / n, c / n)).sum())
    return ModeCoverage(
        modes=modes, samples=n, hit=int((counts > 0).sum()), fraction=float((counts > 0).double().mean()),
        ideal_fraction=1 - float(chance[0]), entropy=entropy, divergence=math.log(modes) - entropy,
        ideal_divergence=math.log(modes) - ideal_entropy,
    )  # fmt: skip


# ---------------------------------------------------------------- all metrics


def evaluate(real: Tensor, fake: Tensor, *, generator: torch.Generator) -> dict[str, float]:
    """All metrics of this module for two sets of features (N, d), by name.

    Two cores take 5 to 10 s for 5000 samples of 128 features.
    """
    return {
        "samples": float(len(real)),
        "fd": frechet_distance(real, fake),
        "kid": kid(real, fake),
        "kid_error": kid_error(real, fake, generator=generator),
        **precision_recall(real, fake)._asdict(),
        **density_coverage(real, fake)._asdict(),
        "sliced_wasserstein": sliced_wasserstein(real, fake, generator=generator),
    }
