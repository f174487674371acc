"""Frido: two stages of one denoiser, and what the second is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from survey_lib.core import grids
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.heads import Preconditioned
from survey_lib.core.integrators import multistep
from survey_lib.core.samplers import ancestral
from survey_lib.core.schedules import vp_linear
from survey_lib.design.guidance import ClassifierFree
from survey_lib.design.latent import LatentDiffusion
from survey_lib.design.pyramid import Frido, OneScale, PooledPyramid, pack, unpack
from survey_lib.nets.autoencoder import KLAutoencoder
from survey_lib.nets.pyramid import PyramidUNet
from tests.nets.test_pyramid import SMALL, trained_codes
from tests.support import draw, nonzero

SCHEDULE = vp_linear()


@pytest.fixture(scope="module")
def frido():
    denoiser = Preconditioned(nonzero(PyramidUNet, **SMALL).eval(), SCHEDULE)
    return Frido(trained_codes(), denoiser, steps=(3, 4))


def test_packing_loses_nothing():
    coarse, fine = draw(2, 3, 4, 4), draw(2, 3, 8, 8, seed=1)
    again = unpack(pack(coarse, fine))
    assert torch.equal(again[0], coarse) and torch.equal(again[1], fine)


@torch.no_grad()
def test_it_is_two_loops_and_one_decoding(frido):
    noise, boxes = draw(2, 10, 4, 4), draw(2, 3, 8, 8, seed=1)
    plan = None
    for scale, start in enumerate(unpack(noise)):
        times = grids.karras(frido.steps[scale], SCHEDULE)

        def guided(x, t, cond, scale=scale, plan=plan):
            without, given = (frido.denoiser(x, t, (scale, plan, told)) for told in (0 * cond, cond))
            return without + 2.0 * (given - without)

        z = multistep(guided, SCHEDULE, SCHEDULE.scales(times[0])[1].float() * start, times, cond=boxes)
        codes = frido.autoencoder.snap(z, scale)
        plan, fine = (codes, None) if plan is None else (plan, codes)
    assert torch.allclose(frido.sample(noise, boxes), frido.autoencoder.decode(plan, fine), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_every_picture_keeps_its_own_plan(frido, scale):
    one = replace(frido, scale=scale)
    plans, noise, boxes = one.latents(draw(3, 10, 4, 4), draw(3, 3, 8, 8))[0], draw(3, 2, 8, 8), draw(3, 3, 8, 8)
    together = one.finish(plans, noise, boxes)
    for i in range(3):
        alone = one.finish(plans[i : i + 1], noise[i : i + 1], boxes[i : i + 1])
        assert torch.allclose(together[i : i + 1], alone, atol=1e-3)


@torch.no_grad()
def test_finishing_a_drawn_plan_is_sampling(frido):
    noise, boxes = draw(2, 10, 4, 4), draw(2, 3, 8, 8, seed=1)
    plan = frido.latents(noise, boxes)[0]
    assert torch.allclose(frido.finish(plan, unpack(noise)[1], boxes), frido.sample(noise, boxes), atol=1e-4)


@torch.no_grad()
def test_new_noise_enters_the_scales_that_ask_for_it(frido):
    """With eta a stage is DDPM's or DDIM's walk; the other scale stays as it was."""
    noise, boxes = draw(2, 10, 4, 4), draw(2, 3, 8, 8, seed=1)
    still = frido.latents(noise, boxes)

    def noisy(eta):
        return replace(frido, eta=eta, generator=torch.Generator().manual_seed(0)).latents(noise, boxes)

    fine_only = noisy((None, 1.0))
    assert torch.equal(fine_only[0], still[0]) and not torch.equal(fine_only[1], still[1])
    assert not torch.equal(noisy((1.0, None))[0], still[0])
    assert all(torch.equal(a, b) for a, b in zip(noisy((1.0, 0.5)), noisy((1.0, 0.5)), strict=True))

    times = grids.karras(frido.steps[1], SCHEDULE)
    one = ClassifierFree(OneScale(frido.denoiser, 1, still[0]), 0, 2.0)
    start = SCHEDULE.scales(times[0])[1].float() * unpack(noise)[1]
    z = ancestral(one, Gaussian(SCHEDULE), start, times, cond=boxes, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fine_only[1], frido.autoencoder.snap(z, 1))


def test_plans_are_repeated_as_guidance_doubles_a_batch():
    seen = []
    one = OneScale(lambda x, t, cond: seen.append(cond) or x, 1, draw(2, 1, 2, 2))
    one(draw(4, 1, 4, 4), 0.5, "told")
    scale, plan, told = seen[0]
    assert (scale, told) == (1, "told") and torch.equal(plan, torch.cat([one.coarse, one.coarse]))


@torch.no_grad()
def test_averaged_plans_are_the_same_space():
    autoencoder, x = KLAutoencoder(3, width=8, halvings=2, dims=2).eval(), draw(2, 3, 16, 16)
    pyramid = PooledPyramid(autoencoder, unit=1.5)
    coarse, fine = pyramid.encode(x)
    assert torch.equal(fine, autoencoder.encode(x)) and torch.allclose(coarse, 1.5 * F.avg_pool2d(fine, 2))
    assert torch.equal(pyramid.decode(coarse, fine), LatentDiffusion(autoencoder, None).autoencoder.decode(fine))
    assert torch.allclose(pyramid.decode(1.5 * torch.ones_like(coarse)), autoencoder.decode(torch.ones_like(fine)))
    assert pyramid.snap(coarse, 0) is coarse
