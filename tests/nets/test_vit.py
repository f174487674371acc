"""U-ViT: shapes, gradients, positions, long skip connections, cost, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from survey_lib.lab.evaluation.cost import macs
from survey_lib.nets.layers import initialised
from survey_lib.nets.vit import UViT
from tests.support import draw, nonzero

SMALL = {"channels": 1, "patch": 2, "width": 16, "layers": 5, "heads": 2}


def make(**config) -> UViT:
    return initialised(0, lambda: UViT(**{**SMALL, **config}))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"long_skips": False},
        {"classes": 3, "channels": 3, "patch": 4},
        {"cond_channels": 2, "patch": 1, "layers": 3},
        {"layers": 1, "heads": 1},
    ],
    ids=str,
)
def test_keeps_the_shape_and_moves_every_parameter(config) -> None:
    net = make(**config)
    x, c_noise = draw(3, net.channels, 8, 8), torch.linspace(-1, 1, 3)
    cond = torch.arange(3) if net.classes else None
    cond = cond if net.cond_channels is None else draw(3, net.cond_channels, 8, 8, seed=1)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(3):  # what starts at zero wakes from the output inwards
        prediction = net(x, c_noise, cond)
        assert prediction.shape == x.shape
        optimizer.zero_grad()
        (prediction - x).square().mean().backward()
        optimizer.step()
    for name, parameter in net.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_a_new_network_predicts_zero() -> None:
    assert not make()(draw(2, 1, 8, 8), torch.zeros(2)).any()


def test_examples_do_not_mix_and_conditions_matter() -> None:
    net = nonzero(make, classes=3)
    x, c_noise, cond = draw(3, 1, 8, 8), torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([0, 2, 3])
    together = net(x, c_noise, cond)
    for i in range(3):
        torch.testing.assert_close(net(x[i : i + 1], c_noise[i : i + 1], cond[i : i + 1]), together[i : i + 1])
    assert (net(x, c_noise + 0.5, cond) - together).abs().max() > 1e-3
    assert (net(x, c_noise, torch.tensor([1, 3, 0])) - together).abs().max() > 1e-3
    assert net(x, c_noise).equal(net(x, c_noise, torch.tensor([3, 3, 3]))), "no label is the last row"


def test_an_image_conditions_by_concatenation_and_none_is_zeros() -> None:
    net, x, c_noise = nonzero(make, cond_channels=2), draw(2, 1, 8, 8), torch.zeros(2)
    assert net(x, c_noise).equal(net(x, c_noise, torch.zeros(2, 2, 8, 8)))
    assert (net(x, c_noise, draw(2, 2, 8, 8)) - net(x, c_noise)).abs().max() > 1e-3


def test_overfits_one_batch() -> None:
    """Four patterns, each asked for by its label at full noise."""
    net, wanted = make(width=32, classes=4), draw(4, 1, 8, 8).sign()
    noise = draw(1, 1, 8, 8, seed=1).expand(4, -1, -1, -1)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(200):
        optimizer.zero_grad()
        loss = (net(noise, torch.ones(4), torch.arange(4)) - wanted).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.1  # the mean of the four patterns, without a look at the labels, reaches 0.76


# ---------------------------------------------------------------------- positions


def exchanged(x: torch.Tensor, patch: int) -> torch.Tensor:
    """The image with its patches in the reverse order, each of them unchanged."""
    folded = nn.functional.pixel_unshuffle(x, patch)
    return nn.functional.pixel_shuffle(folded.flip(2, 3), patch)


def test_only_positions_tell_apart_where_a_patch_lies() -> None:
    """Without them, patches in another order are predicted in that order; the 3 x 3 convolution looks at one pixel."""
    net, x, c_noise = nonzero(make), draw(2, 1, 8, 12), torch.zeros(2)
    with torch.no_grad():
        net.leave.weight.mul_(torch.tensor([[0, 0, 0], [0, 1.0, 0], [0, 0, 0]]))
        assert (net(exchanged(x, 2), c_noise) - exchanged(net(x, c_noise), 2)).abs().max() > 1e-2
        net.place.weight.zero_()
        torch.testing.assert_close(net(exchanged(x, 2), c_noise), exchanged(net(x, c_noise), 2), rtol=0, atol=1e-5)


def test_every_patch_sees_every_patch() -> None:
    net, x = nonzero(make, layers=1), draw(1, 1, 8, 8)
    before = net(x, torch.zeros(1))
    x[..., 6:, 6:] += 1
    assert (nn.functional.max_pool2d((net(x, torch.zeros(1)) - before).abs(), 2) > 1e-6).all()


@pytest.mark.parametrize("shape", [(4, 4), (16, 8), (2, 32)])
def test_serves_images_of_other_sizes(shape) -> None:
    prediction = nonzero(make)(torch.zeros(1, 1, *shape), torch.zeros(1))
    patches = nn.functional.pixel_unshuffle(prediction, 2).flatten(2)[0].mT
    assert prediction.shape[2:] == shape
    assert torch.cdist(patches, patches).fill_diagonal_(1).min() > 1e-4, "equal patches at different places differ"


# ---------------------------------------------------------------------- long skip connections


def joined(net: UViT, *, before: float, skip: float) -> UViT:
    """``net`` with every join the given sum of the layer before and of the skip."""
    with torch.no_grad():
        for join in net.join:
            eye = torch.eye(join.out_features)
            join.weight.copy_(torch.cat([before * eye, skip * eye], dim=1))
            join.bias.zero_()
    return net


def test_without_long_skips_it_is_the_same_network_with_joins_that_pass_the_layer_before() -> None:
    skipping, plain = nonzero(make), make(long_skips=False)
    weights = skipping.state_dict()
    plain.load_state_dict({key: value for key, value in weights.items() if not key.startswith("join")})
    x, c_noise = draw(2, 1, 8, 8), torch.zeros(2)
    assert (skipping(x, c_noise) - plain(x, c_noise)).abs().max() > 1e-2
    torch.testing.assert_close(joined(skipping, before=1, skip=0)(x, c_noise), plain(x, c_noise))


def test_a_seed_gives_both_networks_the_same_layers() -> None:
    skipping, plain = make().state_dict(), make(long_skips=False).state_dict()
    assert all(key.startswith("join") for key in skipping.keys() - plain.keys())
    assert all(value.equal(skipping[key]) for key, value in plain.items())


def test_the_last_layer_is_joined_to_the_first_and_so_on_inwards() -> None:
    """With joins that pass the skip alone, what lies between the ends of the outermost one has no influence."""
    net = joined(nonzero(make), before=0, skip=1)
    net(draw(2, 1, 8, 8), torch.zeros(2)).square().mean().backward()
    halves = [f"{half}.{i}" for half in ("shallow", "deep") for i in (0, 1)]
    reached = {
        layer
        for layer in [*halves, "middle"]
        for parameter in net.get_submodule(layer).parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    assert reached == {"shallow.0", "deep.1"}


# ---------------------------------------------------------------------- cost and refusals


@pytest.mark.parametrize("long_skips", [True, False])
@pytest.mark.parametrize("classes", [None, 3])
def test_costs_what_a_hand_counts(long_skips: bool, classes: int | None) -> None:
    width, layers, patch, channels, patches = 16, 5, 2, 3, 4 * 6
    net = make(channels=channels, classes=classes, long_skips=long_skips)
    length = patches + 1 + (classes is not None)
    layer = 4 * width**2 + 2 * length * width + 8 * width**2  # projections, attention, the wide layer
    joins = long_skips * (layers // 2) * 2 * width**2
    ends = patches * width * 2 * channels * patch**2 + patches * patch**2 * 9 * channels**2  # in, out, convolution
    image = length * (layers * layer + joins) + ends + 2 * 16 * width + width**2  # the noise level
    places = patches * 16 * width  # once for the batch
    assert macs(net, torch.zeros(2, channels, 8, 12), torch.zeros(2)) == 2 * image + places


def test_is_made_again_from_its_config() -> None:
    net = nonzero(make, cond_channels=2, long_skips=False)
    again = UViT(**net.config)
    again.load_state_dict(net.state_dict())
    x, cond = draw(1, 1, 8, 8), draw(1, 2, 8, 8, seed=1)
    assert net(x, torch.zeros(1), cond).equal(again(x, torch.zeros(1), cond))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"layers": 4}, "layers must be odd: two halves and a middle layer; got 4"),
        ({"heads": 3}, "a width of 16 does not divide into 3 heads"),
        ({"classes": 3, "cond_channels": 1}, "one of classes and cond_channels, not by both"),
    ],
)
def test_refuses_a_network_that_cannot_be(config, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        make(**config)


@pytest.mark.parametrize(
    ("config", "x", "cond", "sentence"),
    [
        ({}, (2, 1, 7, 8), None, r"this U-ViT takes images \(B, 1, H, W\) with H and W multiples of 2"),
        ({}, (2, 1, 8, 8), torch.zeros(2).long(), "without classes or cond_channels, so cond must be None"),
        ({"classes": 3}, (2, 1, 8, 8), torch.tensor([0, 4]), "labels run from 0 to 2"),
        ({"cond_channels": 1}, (2, 1, 8, 8), torch.zeros(2, 2, 8, 8), r"an image of shape \(2, 1, 8, 8\)"),
    ],
)
def test_refuses_what_it_cannot_take(config, x, cond, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        make(**config)(torch.zeros(x), torch.zeros(x[0]), cond)
