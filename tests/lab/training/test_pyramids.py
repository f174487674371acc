"""Trainings of two scales: the autoencoder and its codes, and denoisers that are told the right plan."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.utils.data import TensorDataset

from survey_lib.core.heads import Preconditioned
from survey_lib.core.schedules import vp_linear
from survey_lib.design.pyramid import Frido, PooledPyramid, unpack
from survey_lib.lab.data.scenes import layout, scenes
from survey_lib.lab.evaluation.scenes import draw, layout_accuracy
from survey_lib.lab.training import checkpoints, recipes, state
from survey_lib.lab.training.recipes import pyramids
from survey_lib.lab.training.recipes.scenes import tokens
from survey_lib.lab.training.recipes.training import Beside
from survey_lib.nets.autoencoder import Pixels
from survey_lib.nets.pyramid import PyramidAutoencoder
from tests.support import draw as noise_of
from tests.support import generator

ROWS = recipes.TRAININGS


@pytest.fixture(scope="module")
def shipped():
    return checkpoints.load("scenes_pyramid")


def test_two_steps_of_the_autoencoder_find_codes():
    row = replace(ROWS["pyramid"], model=lambda images: PyramidAutoencoder(3, width=8, codes=16))
    learning = recipes.trainer(row, scenes(16), row.recipe_for("scenes", steps=2))
    learning.finish()
    for book in learning.model.books:
        assert book.usage.sum() > 0 and book.vectors.std() > 0


def test_dropped_fine_codes_do_not_reach_the_picture():
    """With all fine codes dropped, the loss does not depend on how fine latents are made."""
    net, x0 = PyramidAutoencoder(3, width=8, codes=16).eval(), scenes(4).float()
    loss = pyramids.autoencoding(net, replace(ROWS["pyramid"].recipe, fine_dropout=1.0, commitment=0.0))
    before = loss(net, x0, None, generator())[0]
    torch.nn.init.normal_(net.to_fine[-1].weight, generator=generator())
    assert torch.equal(loss(net, x0, None, generator())[0], before)
    kept = pyramids.autoencoding(net, replace(ROWS["pyramid"].recipe, fine_dropout=0.0, commitment=0.0))
    net.books[1].vectors.normal_(generator=generator())
    assert not torch.allclose(kept(net, x0, None, generator())[0], before)


def test_the_shipped_coarse_codes_are_a_plan(shipped):
    real = scenes(100, seed=9)
    whole, coarse = (pyramids.reconstructions(shipped, real.float(), fine=fine) for fine in (True, False))
    assert pyramids.psnr(whole, real.float()) > 29 and pyramids.psnr(coarse, real.float()) > 24
    assert layout_accuracy(checkpoints.load("scenes_reader"), whole, real)["layout"] > 0.99
    deviations = torch.stack([part.std() for part in unpack(pyramids.latents(shipped, real))])
    assert torch.allclose(deviations, torch.full((2,), shipped.SCALE), rtol=0.15)


@pytest.mark.parametrize("name", ["shared", "separate", "noisy plans", "no plans"])
def test_a_denoiser_of_two_scales_trains_and_draws(shipped, name):
    row = ROWS["frido"]
    row = {
        "shared": row,
        "separate": replace(row, model=pyramids.separate_nets),
        "noisy plans": replace(row, recipe=replace(row.recipe, augmentation=0.2)),
        "no plans": replace(row, loss=partial(pyramids.denoising, plans=False)),
    }[name]
    some = scenes(8)
    learning = recipes.trainer(
        row, TensorDataset(pyramids.latents(shipped, some), layout(some)), replace(row.recipe, steps=2, batch=4)
    )
    model = learning.finish()
    assert learning.history[-1].loss > 0
    frido = Frido(shipped, Preconditioned(model.net, vp_linear()), steps=(2, 2))
    boxes = torch.zeros(2, 13, 16, 16)
    assert draw(frido, noise_of(2, 20, 8, 8), boxes).shape == (2, 3, 64, 64)


def test_the_fine_scale_is_told_the_true_plan_and_the_coarse_one_nothing(shipped):
    told = []

    class Listens(torch.nn.Module):
        def forward(self, x, t, cond):
            told.append((x.shape[-1], cond))
            return x

    row, x0 = ROWS["frido"], noise_of(3, 20, 8, 8)
    net = pyramids.frido_net(None)
    pyramids.denoising(net, row.recipe)(Listens(), x0, layout(scenes(3)), generator())
    pyramids.denoising(net, row.recipe, plans=False)(Listens(), x0, layout(scenes(3)), generator())
    sides, conds = zip(*told, strict=True)
    assert sides == (8, 16, 8, 16)
    assert [cond[0] for cond in conds] == [0, 1, 0, 1]
    assert [cond[1] is None for cond in conds] == [True, False, True, True]
    assert torch.equal(conds[1][1], unpack(x0)[0])


def test_a_cascade_of_images_learns_a_scene_and_its_means():
    some, seen = scenes(3, size=32), []

    class Listens(torch.nn.Module):
        def forward(self, x, t, cond):
            seen.append((x, cond))
            return x

    net = pyramids.frido_net(None, **pyramids.SIZES)
    pyramids.in_pixels(net, ROWS["sizes"].recipe)(Listens(), some.float(), layout(some), generator())
    assert [x.shape[-1] for x, _ in seen] == [16, 32]
    assert torch.allclose(seen[1][1][1], PooledPyramid(Pixels(), 1.0).encode(some.float())[0])


def test_a_caption_reaches_both_scales_as_it_is_or_not_at_all():
    told = []

    class Listens(torch.nn.Module):
        def forward(self, x, t, cond):
            told.append(cond[2])
            return x

    row, some = ROWS["frido_captions"], scenes(40)
    net, words = row.untrained(None, 0), tokens(some)
    row.loss(net, replace(row.recipe, label_dropout=0.5))(Listens(), noise_of(40, 20, 8, 8), words, generator())
    assert len(told) == 2
    for cond in told:
        kept = cond.any(1)
        assert torch.equal(cond[kept], words[kept]) and 0 < kept.sum() < 40
    x, t = noise_of(2, 4, 16, 16), torch.tensor([0.3, 0.7])
    assert net(x, t, (1, noise_of(2, 4, 8, 8), words[:2])).shape == x.shape


def test_a_training_is_resumed_by_the_loss_beside_a_frozen_network():
    row, some = ROWS["pyramid"], scenes(2)
    net = row.untrained(some, 0)
    loss = row.loss(net, row.recipe)
    found, bare = (state.describe(net, some.images, None, one) for one in (loss, loss.func))
    assert found == bare and found["loss"][0].startswith("autoencoding")


def test_a_frozen_network_follows_the_examples_to_their_device():
    frozen = torch.nn.Linear(1, 1)
    loss = Beside(frozen, lambda model, x0, cond, generator: (frozen(x0)[:, 0], None))
    assert loss(None, torch.zeros(3, 1, device="meta"), None, generator())[0].is_meta
    assert frozen.weight.is_meta
