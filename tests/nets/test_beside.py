"""A U-Net with a second image beside the first."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from survey_lib.nets.beside import Beside


def make() -> Beside:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Beside(2, 3, widths=(8, 16))
    nn.init.normal_(net.unet.leave.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    return net


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_answers_in_the_shape_of_the_first_image_and_sees_the_second() -> None:
    net, x, noise = make(), draw(2, 2, 8, 8), torch.zeros(2)
    alone = net(x, noise)
    assert alone.shape == x.shape
    assert alone.equal(net(x, noise, torch.zeros(2, 3, 8, 8)))
    assert (net(x, noise, draw(2, 3, 8, 8)) - alone).abs().max() > 1e-3


def test_is_made_again_from_its_config() -> None:
    net = make()
    again = Beside(**net.config)
    again.load_state_dict(net.state_dict())
    x, cond = draw(1, 2, 8, 8), draw(1, 3, 8, 8, seed=1)
    assert net(x, torch.zeros(1), cond).equal(again(x, torch.zeros(1), cond))


@pytest.mark.parametrize("shape", [(2, 2, 8, 8), (2, 3, 4, 4), (1, 3, 8, 8)])
def test_another_shape_beside_is_refused(shape) -> None:
    with pytest.raises(ValueError, match=r"the image beside has shape \(2, 3, 8, 8\) here"):
        make()(draw(2, 2, 8, 8), torch.zeros(2), draw(*shape))
