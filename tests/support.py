"""Helpers that several test files share; import them with ``from tests.support import ...``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from survey_lib.core import corruptions, protocols
from survey_lib.nets.layers import initialised

#: Property tests: the same examples at every run, and no deadline on a busy machine.
quick = settings(deadline=None, derandomize=True, max_examples=30)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype | None = None) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


def nonzero(make: Callable[..., nn.Module], *args, **kwargs) -> nn.Module:
    """A network whose layers that start at zero are filled with random numbers, so that it predicts something."""
    net, source = initialised(0, partial(make, *args, **kwargs)), generator(1)
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3, generator=source)
    return net


class Moments(NamedTuple):
    """Mean (D,) and covariance (D, D), and how many noises were drawn on the way."""

    mean: Tensor
    cov: Tensor
    draws: int = 0

    def distance(self, other: tuple[Tensor, Tensor]) -> float:
        """Sum of the norms of the differences of means and covariances."""
        return sum((a - b).norm().item() for a, b in zip(self[:2], other[:2], strict=True))


def exact_moments(run: Callable[[Tensor], Tensor], mean: Tensor, cov: Tensor, shape: Sequence[int]) -> Moments:
    """Moments of ``run(x)`` for ``x ~ N(mean, cov)`` of ``shape``, without a random number.

    On normal data the exact denoiser is affine, so a sampler is an affine map of its start and of the noises it draws.
    Basis vectors, fed through a scripted source of noise, read off the matrices. ``run`` must call `protocols.normal`.
    """
    size, sizes = math.prod(shape), []

    def silence(wanted, generator=None, dtype=None):
        sizes.append(math.prod(wanted[1:]))
        return torch.zeros(tuple(wanted), dtype=dtype)

    with pytest.MonkeyPatch.context() as patch:
        for module in (protocols, corruptions):
            patch.setattr(module, "normal", silence)
        run(torch.zeros(1, *shape, dtype=torch.float64))
        # Row 0 is all zeros; then one row for each coordinate of the start, and of each noise.
        rows = torch.eye(size + sum(sizes), dtype=torch.float64)
        columns = iter(torch.cat([torch.zeros_like(rows[:1]), rows]).split([size, *sizes], dim=1))
        for module in (protocols, corruptions):
            patch.setattr(module, "normal", lambda wanted, *_, **__: next(columns).reshape(-1, *wanted[1:]))
        out = run(next(columns).reshape(-1, *shape)).flatten(1)
    offset, matrix = out[0], (out[1:] - out[0]).T
    start, noises = matrix[:, :size], matrix[:, size:]
    return Moments(offset + start @ mean, start @ cov @ start.T + noises @ noises.T, len(sizes))
