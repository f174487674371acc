"""Spaces: pixels and latents in which a denoiser of scenes works, trained from one budget."""

from dataclasses import replace

import pytest
import torch
from torch.utils.data import TensorDataset

from survey_lib.lab.data.scenes import layout, scenes
from survey_lib.lab.evaluation.cost import macs
from survey_lib.lab.evaluation.scenes import draw
from survey_lib.lab.training import checkpoints
from survey_lib.lab.training.recipes import TRAININGS, spaces
from survey_lib.lab.training.recipes.scenes import latents, painted, perceptual_distance, reconstruct


@pytest.mark.parametrize("name", spaces.SPACES)
def test_network_and_autoencoder_of_a_space_fit_each_other(name):
    space = spaces.SPACES[name]
    net, autoencoder = space.networks()
    for size in (32, 64):
        z = autoencoder.encode(torch.zeros(1, 3, size, size))
        assert z.shape[1:] == space.shape(size)
        assert net(z, torch.zeros(1), painted(layout(scenes(1)), z)).shape == z.shape
        assert autoencoder.decode(z).shape == (1, 3, size, size)


def test_folding_keeps_all_numbers_and_latents_do_not():
    numbers = {name: torch.Size(space.shape(64)).numel() for name, space in spaces.SPACES.items()}
    assert numbers["p1"] == numbers["p2"] == numbers["p4"] == 3 * 64 * 64
    assert numbers["f4"] == numbers["f8"] < numbers["f2"] < numbers["p1"] / 3


@pytest.mark.parametrize("name", ["p4", "f4"])
def test_a_trained_space_draws_scenes(name):
    made = spaces.train_space(name, 0.002, size=32, count=64)
    assert made.denoiser_seconds > 0 and made.steps >= 1
    assert (made.autoencoder_seconds > 0.05) == (name == "f4")
    shape = spaces.SPACES[name].shape(32)
    noise = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    images = draw(made.pipeline, noise, painted(layout(scenes(2)), noise))
    assert images.shape == (2, 3, 32, 32) and images.isfinite().all()
    assert spaces.judged(images).shape == (2, 3, 64, 64)


def test_the_transformer_has_the_work_of_the_u_net_of_its_latents_with_and_without_long_skips():
    examples = TensorDataset(torch.zeros(1, 4, 16, 16), layout(scenes(1)))
    z, cond = torch.zeros(1, 4, 16, 16), painted(layout(scenes(1)), torch.zeros(1, 4, 16, 16))
    work = [macs(spaces.transformer(examples, long_skips=long).net, z, torch.zeros(1), cond) for long in (True, False)]
    u_net = macs(spaces.SPACES["f4"].networks()[0], z, torch.zeros(1), cond)
    assert work[0] > work[1] > 0.75 * u_net and work[0] < 1.5 * u_net


def test_a_training_for_some_seconds_takes_about_as_long():
    examples = TensorDataset(torch.randn(8, 4, 16, 16), layout(scenes(8)))
    training = TRAININGS["layout"]
    model, seconds, steps = spaces.train_for(training, examples, replace(training.recipe, batch=4), 1.0)
    assert steps >= 1 and 0.2 < seconds < 5 and not model.training


def test_refuses_another_space():
    with pytest.raises(ValueError, match='no space "f3"; accepted: p1, p2'):
        spaces.train_space("f3", 1.0)


def test_the_shipped_latents_have_the_deviation_of_the_course_and_decode_to_their_scenes():
    images, autoencoder = scenes(100, seed=5), checkpoints.load("scenes_f4")
    z = latents(autoencoder, images)
    assert z.shape == (100, 4, 16, 16)
    assert (z.std((0, 2, 3)) - autoencoder.SCALE).abs().max() < 0.1
    error = (reconstruct(autoencoder, images) - images.float()).square().mean()
    assert 10 * torch.log10(4 / error) > 29


def test_the_perceptual_distance_is_none_between_equals_and_grows_with_blur():
    judge, x = checkpoints.load("scenes_features"), scenes(4).float()
    blurred = [torch.nn.functional.avg_pool2d(x, k, 1, k // 2, count_include_pad=False) for k in (1, 3, 5)]
    distances = [perceptual_distance(judge, part, x).mean() for part in blurred]
    assert distances[0] == 0 < distances[1] < distances[2]
