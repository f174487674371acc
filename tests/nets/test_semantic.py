"""The U-Net of a diffusion autoencoder."""

from __future__ import annotations

import pytest
import torch

from survey_lib.lab import data
from survey_lib.lab.training.recipes import TRAININGS, trainer
from survey_lib.lab.training.recipes.semantic import semantic_net
from survey_lib.nets.semantic import SemanticUNet
from tests.support import draw, nonzero

SMALL = {"channels": 2, "code": 5, "widths": (16, 32), "patch": 1}


def test_a_clean_image_stands_for_its_code():
    net, x, clean, c_noise = nonzero(SemanticUNet, **SMALL).eval(), draw(3, 2, 8, 8), draw(3, 2, 8, 8, seed=1), draw(3)
    codes = net.encode(clean)
    assert codes.shape == (3, 5)
    assert torch.equal(net(x, c_noise, clean), net(x, c_noise, codes))


def test_the_code_matters_and_none_is_no_code():
    net, x, c_noise = nonzero(SemanticUNet, **SMALL).eval(), draw(3, 2, 8, 8), draw(3)
    one, other = net(x, c_noise, draw(3, 5)), net(x, c_noise, draw(3, 5, seed=1))
    assert not torch.allclose(one, other)
    assert not torch.allclose(one, net(x, c_noise))
    # The code is told at every place alike, so what it changes does not depend on the order of the examples.
    assert torch.allclose(net(x.flip(0), c_noise.flip(0), draw(3, 5).flip(0)).flip(0), one, atol=1e-5)


def test_the_encoder_does_not_see_the_noised_image():
    net, clean, x = nonzero(SemanticUNet, **SMALL).eval(), draw(2, 2, 8, 8), draw(2, 2, 8, 8, seed=1).requires_grad_()
    seen = []
    net.encoder.register_forward_hook(lambda module, given, code: seen.append(given[0]))
    net(x, draw(2), clean).sum().backward()
    assert len(seen) == 1 and torch.equal(seen[0], clean) and x.grad.abs().sum() > 0


def test_a_code_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"tokens \(2, L, 5\)"):
        SemanticUNet(**SMALL)(draw(2, 2, 8, 8), draw(2), draw(2, 4))


def test_the_denoising_loss_trains_the_encoder():
    images = data.load("glyphs", count=64, size=16)
    training = TRAININGS["semantic"]
    learning = trainer(training, images, training.recipe_for("glyphs", steps=3))
    before = {name: p.detach().clone() for name, p in learning.model.named_parameters()}
    learning.finish()
    moved = {name for name, p in learning.model.named_parameters() if not torch.equal(p, before[name])}
    assert any("encoder" in name for name in moved) and any("unet" in name for name in moved)
    assert semantic_net(images).net.encode(images.float()[:2]).shape == (2, 32)
