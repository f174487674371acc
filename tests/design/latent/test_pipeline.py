"""Latent diffusion with an exact denoiser: laws, strengths and kept parts are what they are called."""

import pytest
import torch
from torch import nn

from survey_lib.core import grids
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.samplers import ancestral
from survey_lib.core.schedules import vp_linear
from survey_lib.design.latent.pipeline import Known, LatentDiffusion
from tests.support import draw, exact_moments, generator


class Same(nn.Module):
    """An autoencoder whose latents are the images, doubled."""

    def encode(self, x):
        return 2 * x

    def decode(self, z):
        return z / 2


class Exact(nn.Module):
    """The denoiser of N(mean, 0.01) in every dimension; a condition replaces the mean."""

    schedule = vp_linear()

    def forward(self, x_t, t, cond=None):
        alpha, sigma = (part.to(x_t) for part in self.schedule.scales(t))
        mean = torch.zeros_like(x_t) if cond is None else cond.to(x_t).reshape(-1, 1, 1, 1).expand_as(x_t)
        gain = 0.01 * alpha / (0.01 * alpha**2 + sigma**2)
        return mean + gain * (x_t - alpha * mean)


def pipeline(**settings):
    return LatentDiffusion(Same(), Exact(), **settings)


def test_samples_decode_what_the_denoiser_knows():
    cond = torch.tensor([1.0, -2.0])
    images = pipeline(scale=1.0, steps=100).sample(draw(2, 4, 8, 8), cond)
    assert torch.allclose(images.mean((1, 2, 3)), cond / 2, atol=0.02)
    assert torch.allclose(images.std((1, 2, 3)), torch.full((2,), 0.05), atol=0.005)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_every_walk_draws_the_same_law_and_new_noise_comes_from_the_generator(eta):
    cond = torch.tensor([1.0, -2.0])

    def images(seed):
        made = pipeline(scale=1.0, steps=200, eta=eta, generator=torch.Generator().manual_seed(seed))
        return made.sample(draw(2, 16, 16, 16), cond)

    first, again, other = images(0), images(0), images(1)
    assert torch.equal(first, again) and torch.equal(first, other) == (eta == 0)
    assert torch.allclose(first.mean((1, 2, 3)), cond / 2, atol=0.02)
    assert torch.allclose(first.std((1, 2, 3)), torch.full((2,), 0.05), atol=0.005)


def test_guidance_extrapolates_from_no_condition():
    """With the same spread, guidance moves the mean of a normal distribution by the scale, exactly."""
    noise, cond = draw(1, 4, 8, 8), torch.ones(1)
    once, twice = (pipeline(scale=scale).sample(noise, cond) for scale in (1.0, 2.0))
    assert torch.allclose(twice - once, torch.full_like(once, 0.5), atol=0.02)


def test_a_faint_edit_keeps_the_image_and_a_full_one_does_not():
    images = draw(2, 4, 8, 8)
    faint, full = (
        pipeline(scale=1.0).edit(images, torch.ones(2), strength, generator=generator(1)) for strength in (0.0, 1.0)
    )
    assert (faint - images).abs().max() < 0.02
    assert abs(float(torch.corrcoef(torch.stack([full.flatten(), images.flatten()]))[0, 1])) < 0.1
    assert torch.allclose(full.mean((1, 2, 3)), torch.full((2,), 0.5), atol=0.02)


def test_inpainting_keeps_the_rest_exactly():
    images, mask = draw(2, 4, 8, 8), torch.zeros(2, 1, 8, 8)
    mask[:, :, :, 4:] = 1
    drawn = pipeline(scale=1.0, steps=10).inpaint(images, mask, torch.ones(2), generator=generator())
    assert torch.equal(drawn[..., :4], images[..., :4])
    assert torch.allclose(drawn[..., 4:].mean((1, 2, 3)), torch.full((2,), 0.5), atol=0.02)


@pytest.mark.parametrize("steps", [8, 64])
def test_known_parts_leave_the_law_of_independent_parts_alone(steps):
    """Where dimensions are independent, the drawn dimension has the law that it has without any known part."""
    schedule, corruption = vp_linear(), Gaussian(vp_linear())
    kept = torch.tensor([True, False])
    times = grids.uniform(steps)

    def denoiser(x_t, t, cond=None):
        alpha, sigma = (part.to(x_t) for part in schedule.scales(t))
        return 0.25 * alpha / (0.25 * alpha**2 + sigma**2) * x_t

    def run(which):
        def sample(x):
            return ancestral(denoiser, which(x), x, times, generator=generator())

        return exact_moments(sample, torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64), (2,))

    free = run(lambda x: corruption)
    held = run(lambda x: Known(corruption, torch.zeros_like(x), kept))
    assert torch.allclose(held.cov[1, 1], free.cov[1, 1]) and held.cov[0].abs().max() < 1e-12
