"""Haar wavelets, and the exact diffusion of one scale after the other."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from survey_lib.core import grids
from survey_lib.core.integrators import multistep
from survey_lib.core.schedules import vp_linear
from survey_lib.design import pyramid
from tests.support import draw

SCHEDULE = vp_linear()
SAMPLER = partial(multistep, order=1)


def field(count: int) -> Tensor:
    """Covariance of a periodic signal with the spectrum 1 / k^2 and variance 1."""
    power = torch.fft.fftfreq(count, 1 / count).abs().clamp_min(1).double() ** -2
    waves = torch.fft.fft(torch.eye(count, dtype=torch.float64), norm="ortho")
    cov = (waves.conj().T @ (power[:, None] * waves)).real
    return cov / cov.diagonal().mean()


def whole(cov: Tensor) -> pyramid.Scale:
    """A signal as one scale: without wavelets."""
    return pyramid.Scale(cov.new_zeros(len(cov), 0), cov, cov.new_zeros(0, 0))


# ---------------------------------------------------------------------- images


def test_the_transform_is_orthonormal_and_is_undone():
    x = draw(2, 3, 8, 6)
    maps = pyramid.haar(x)
    assert maps.shape == (2, 12, 4, 3)
    assert torch.allclose(maps.square().sum(), x.square().sum())
    assert torch.allclose(pyramid.unhaar(maps), x, atol=1e-6)


def test_coarse_maps_are_means_and_details_are_differences():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    coarse, across, down, diagonal = pyramid.haar(x)[0]
    assert torch.equal(coarse, 2 * torch.nn.functional.avg_pool2d(x, 2)[0, 0])
    assert (across == -1).all() and (down == -4).all() and (diagonal == 0).all()
    assert torch.equal(pyramid.haar(x.repeat(1, 2, 1, 1))[0, 4:], pyramid.haar(x)[0])  # channel by channel


@pytest.mark.parametrize("shape", [(1, 1, 3, 4), (1, 4, 4)])
def test_images_with_odd_sides_are_refused(shape):
    with pytest.raises(ValueError, match="even sides"):
        pyramid.haar(torch.zeros(shape))
    with pytest.raises(ValueError, match="4 C"):
        pyramid.unhaar(torch.zeros(1, 3, 2, 2))


# ---------------------------------------------------------------------- normal signals


def assembled(parts: list[pyramid.Scale], weights: list[Tensor], covs: list[Tensor]) -> Tensor:
    """The covariance of a signal whose details are ``N(weights c, cov)``, from the coarsest scale to the finest."""
    law = covs[0]
    for weight, cov in zip(weights[1:], covs[1:], strict=True):
        n = len(cov)
        joint = torch.cat(
            [torch.cat([law, law @ weight.T], 1), torch.cat([weight @ law, weight @ law @ weight.T + cov], 1)]
        )
        back = torch.zeros(2 * n, 2 * n, dtype=torch.float64)  # neighbours from their sum and difference
        for i in range(n):
            back[2 * i, i] = back[2 * i + 1, i] = back[2 * i, n + i] = 1 / math.sqrt(2)
            back[2 * i + 1, n + i] = -1 / math.sqrt(2)
        law = back @ joint @ back.T
    return law


def test_scales_hold_the_whole_law():
    cov = field(16)
    parts = pyramid.scales(cov)
    assert [len(part.cov) for part in parts] == [1, 1, 2, 4, 8]
    again = assembled(parts, [part.weights for part in parts], [part.cov for part in parts])
    torch.testing.assert_close(again, cov, rtol=0, atol=1e-12)
    assert len(pyramid.scales(cov, coarsest=4)) == 3
    with pytest.raises(ValueError, match="do not split"):
        pyramid.scales(field(12))


def test_divergences_of_the_scales_are_that_of_the_signal():
    """The law that the chain of samplers draws, put together, against the true law."""
    cov, times = field(8), grids.uniform(6)
    parts, weights, covs = pyramid.scales(cov), [], []
    alpha, sigma = SCHEDULE.scales(times[0])
    for part in parts:
        unit = part.cov.diagonal().mean()
        values, axes = torch.linalg.eigh(part.cov / unit)

        def denoiser(x_t, t, cond=None, values=values):
            a, s = SCHEDULE.scales(t)
            return a * values / (a**2 * values + s**2) * x_t

        factor = SAMPLER(denoiser, SCHEDULE, torch.ones(1, len(values)).double(), times)[0]
        weights.append(axes @ ((1 - factor * alpha)[:, None] * (axes.T @ part.weights)))
        covs.append(unit * axes @ torch.diag((factor * sigma) ** 2) @ axes.T)
    drawn = assembled(parts, weights, covs)
    ratio = torch.linalg.solve(drawn, cov)
    expected = 0.5 * (ratio.trace() - len(cov) - ratio.logdet())
    found = sum(pyramid.divergence(part, SCHEDULE, times, SAMPLER) for part in parts)
    assert expected > 0.1  # six steps are few
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("order", [1, 2])
def test_steps_grow_with_the_signal_but_not_with_the_number_of_scales(order):
    """What WSGM proves for normal distributions, on a field with a power-law spectrum (Guth et al. 2022)."""
    sampler = partial(multistep, order=order)
    sizes = (16, 32, 64, 128, 256)
    plain = [pyramid.steps_needed([whole(field(n))], SCHEDULE, grids.uniform, sampler) for n in sizes]
    chain = [pyramid.steps_needed(pyramid.scales(field(n)), SCHEDULE, grids.uniform, sampler) for n in sizes]
    assert max(chain) <= 1.2 * min(chain)
    assert all(b > 1.25 * a for a, b in pairwise(plain)) and plain[0] > max(chain)


def test_steps_needed_are_the_fewest():
    parts, at = pyramid.scales(field(32)), partial(pyramid.steps_needed, grid=grids.uniform, sampler=SAMPLER)
    steps = at(parts, SCHEDULE, tolerance=0.01)
    left = [sum(pyramid.divergence(p, SCHEDULE, grids.uniform(n), SAMPLER) for p in parts) for n in (steps - 1, steps)]
    assert left[0] > 0.01 * 32 >= left[1]
    with pytest.raises(ValueError, match=r"4 steps leave more than 0\.01 nats"):
        at(parts, SCHEDULE, tolerance=0.01, most=4)
