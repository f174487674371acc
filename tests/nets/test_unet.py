"""The U-Net: shapes, gradients, memory, cost, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from survey_lib.lab.evaluation.cost import macs
from survey_lib.nets.layers import SelfAttention, initialised
from survey_lib.nets.unet import UNet
from tests.support import draw, nonzero


def make(seed: int = 0, **config) -> UNet:
    return initialised(seed, lambda: UNet(**config))


GRID = [
    dict(channels=1, size=16, widths=(8,), patch=1),
    dict(channels=3, size=16, widths=(8, 16, 24), blocks=2, classes=4),
    dict(channels=1, size=28, widths=(8, 16), patch=2, classes=10, attention=(1,)),
    dict(channels=3, size=28, widths=(8, 12, 16), patch=1, attention=(2,)),
    dict(channels=3, size=32, widths=(16, 8), blocks=2, middle=3, patch=2),
    dict(channels=1, size=32, widths=(8, 8, 8, 8), patch=1, classes=2, attention=(2, 3)),
    dict(channels=3, size=64, widths=(8, 16), patch=2, classes=3, attention=(1,)),
    dict(channels=1, size=64, widths=(8, 16, 32), patch=2),
]


@pytest.mark.parametrize("case", GRID, ids=lambda case: "-".join(f"{value}" for value in case.values()))
def test_keeps_the_shape_and_moves_every_parameter(case):
    """After one step of the zero-initialised layers, every single tensor of weights receives a gradient."""
    config = dict(case)
    size, classes = config.pop("size"), config.get("classes")
    net, x = make(**config), draw(4, config["channels"], size, size)
    cond = None if classes is None else torch.arange(4) % classes
    c_noise = torch.linspace(-1, 1, 4)
    assert net(x, c_noise, cond).shape == x.shape
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(3):  # the output wakes first, then the last layer of each block, then what lies before it
        optimizer.zero_grad()
        (net(x, c_noise, cond) - x).square().mean().backward()
        optimizer.step()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_a_new_network_answers_zero():
    net = make(channels=1, widths=(8, 16))
    assert net(draw(2, 1, 16, 16), torch.zeros(2)).abs().max() == 0


def test_rectangles_are_images_too():
    assert make(channels=1, widths=(8, 16))(draw(2, 1, 8, 24), torch.zeros(2)).shape == (2, 1, 8, 24)


def test_examples_do_not_see_each_other():
    """No layer mixes a batch: an example's answer is the same alone and in company."""
    net = nonzero(UNet, channels=1, widths=(8, 16), classes=3, attention=(1,))
    x, c_noise, cond = draw(3, 1, 16, 16), torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([0, 2, 3])
    together = net(x, c_noise, cond)
    for i in range(3):
        torch.testing.assert_close(net(x[i : i + 1], c_noise[i : i + 1], cond[i : i + 1]), together[i : i + 1])
    assert (together[0] - net(x, c_noise, torch.tensor([1, 2, 3]))[0]).abs().max() > 0, "the label changes nothing"
    assert (together[0] - net(x, c_noise + 1, cond)[0]).abs().max() > 0, "the noise level changes nothing"


def test_no_label_is_the_last_row():
    net, x, c_noise = nonzero(UNet, channels=1, widths=(8,), classes=3), draw(2, 1, 8, 8), torch.zeros(2)
    assert net(x, c_noise).equal(net(x, c_noise, torch.tensor([3, 3])))
    assert not net(x, c_noise).equal(net(x, c_noise, torch.tensor([2, 2])))


def test_overfits_one_batch():
    """Four patterns, each asked for by its label at full noise: a working network knows them by heart."""
    net, wanted = make(channels=1, widths=(16, 32), classes=4), draw(4, 1, 8, 8).sign()
    noise, cond = draw(4, 1, 8, 8, seed=1), torch.arange(4)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (net(noise, torch.ones(4), cond) - wanted).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.01


def hand_count(channels, size, widths, blocks, middle, patch, attention, embedding, labels) -> int:
    """Multiply-accumulates of one image, layer by layer, from the docstring's description of the network."""

    def conv(inputs, outputs, places, kernel=3):
        return inputs * outputs * kernel**2 * places

    def block(inputs, outputs, places, attends):
        count = conv(inputs, outputs, places) + conv(outputs, outputs, places) + embedding * 2 * outputs
        count += conv(inputs, outputs, places, 1) if inputs != outputs else 0
        if attends:  # queries, keys and values; every place with every other, twice; out
            count += conv(outputs, 4 * outputs, places, 1) + 2 * places**2 * outputs
        return count

    places = [(size // patch // 2**level) ** 2 for level in range(len(widths))]
    folded = channels * patch**2
    total = conv(folded, widths[0], places[0]) + conv(widths[0], folded, places[0])
    total += 2 * 16 * embedding + embedding**2  # sines and cosines of 16 frequencies, two layers
    for level, width in enumerate(widths):
        total += blocks * block(width, width, places[level], level in attention)
        total += blocks * block(2 * width, width, places[level], level in attention)
        if level:
            total += conv(widths[level - 1], width, places[level])  # on the way down
            total += conv(width, widths[level - 1], places[level], 1)  # on the way up, before the map grows
    return total + middle * block(widths[-1], widths[-1], places[-1], len(widths) - 1 in attention)


@pytest.mark.parametrize(
    "config",
    [
        dict(channels=1, size=28, widths=(8, 16), blocks=1, middle=4, patch=2, attention=(), embedding=32, labels=None),
        dict(
            channels=3,
            size=32,
            widths=(8, 16, 32),
            blocks=2,
            middle=1,
            patch=1,
            attention=(2,),
            embedding=64,
            labels=10,
        ),
        dict(
            channels=3,
            size=16,
            widths=(32, 64),
            blocks=1,
            middle=2,
            patch=2,
            attention=(0, 1),
            embedding=64,
            labels=None,
        ),
    ],
)
def test_costs_what_a_hand_counts(config):
    c = dict(config)
    size, labels = c.pop("size"), c.pop("labels")
    net, batch = make(**c, classes=labels), 2
    cond = None if labels is None else torch.zeros(batch, dtype=torch.long)
    counted = macs(net, torch.zeros(batch, c["channels"], size, size), torch.zeros(batch), cond)
    assert counted == batch * hand_count(**config)


@pytest.mark.parametrize(
    ("build", "x", "cond", "sentence"),
    [
        ({}, (2, 1, 30, 28), None, r"multiples of 4; got \(2, 1, 30, 28\)"),
        ({}, (2, 3, 28, 28), None, r"takes images \(B, 1, H, W\)"),
        ({}, (1, 28, 28), None, r"takes images \(B, 1, H, W\)"),
        ({}, (2, 1, 28, 28), [0, 1], "without classes, cond_channels or context, so cond must be None"),
        ({"classes": 3}, (2, 1, 28, 28), [0, 4], "labels run from 0 to 2, and 3 means no label; got 0 to 4"),
        ({"classes": 3}, (2, 1, 28, 28), [-1, 1], "labels run from 0 to 2, and 3 means no label; got -1 to 1"),
        ({"classes": 3}, (2, 1, 28, 28), [0, 1, 2], r"one whole number per example, shape \(2,\)"),
        ({"classes": 3}, (2, 1, 28, 28), [0.0, 1.0], "one whole number per example.*float32"),
    ],
)
def test_refuses_in_one_sentence(build, x, cond, sentence):
    net = make(channels=1, widths=(8, 16), **build)
    cond = None if cond is None else torch.tensor(cond)
    with pytest.raises(ValueError, match=sentence) as caught:
        net(torch.zeros(x), torch.zeros(x[0]), cond)
    assert "\n" not in str(caught.value)


def test_refuses_attention_where_there_is_no_level():
    with pytest.raises(ValueError, match="attention must name levels 0 to 1; got"):
        UNet(widths=(8, 16), attention=(2,))


def test_refuses_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="100 channels do not divide into 3 heads"):
        SelfAttention(100)


def test_attention_is_the_softmax_of_products():
    """Against the textbook's formula, written with explicit sums for two heads."""
    layer = nonzero(SelfAttention, 8, head=4)
    x = draw(2, 8, 3, 5)
    q, k, v = layer.qkv(layer.norm(x)).flatten(2).chunk(3, dim=1)  # (B, C, places)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        weights = (torch.einsum("bci,bcj->bij", q[:, part], k[:, part]) / 2).softmax(-1)
        heads.append(torch.einsum("bij,bcj->bci", weights, v[:, part]))
    torch.testing.assert_close(layer(x), x + layer.out(torch.cat(heads, 1).reshape(x.shape)))


# ---------------------------------------------------------------------- conditioned on an image


def concatenating() -> UNet:
    return nonzero(UNet, 2, cond_channels=3, widths=(8, 16))


def test_an_image_conditions_by_concatenation_and_none_is_zeros():
    net, x, c_noise = concatenating(), draw(2, 2, 8, 8), torch.zeros(2)
    alone = net(x, c_noise)
    assert alone.shape == x.shape
    assert alone.equal(net(x, c_noise, torch.zeros(2, 3, 8, 8)))
    assert (net(x, c_noise, draw(2, 3, 8, 8)) - alone).abs().max() > 1e-3


def test_a_concatenating_network_is_made_again_from_its_config():
    net = concatenating()
    again = UNet(**net.config)
    again.load_state_dict(net.state_dict())
    x, cond = draw(1, 2, 8, 8), draw(1, 3, 8, 8, seed=1)
    assert net(x, torch.zeros(1), cond).equal(again(x, torch.zeros(1), cond))


@pytest.mark.parametrize("shape", [(2, 2, 8, 8), (2, 3, 4, 4), (1, 3, 8, 8)])
def test_a_condition_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"cond must be an image of shape \(2, 3, 8, 8\); got"):
        concatenating()(draw(2, 2, 8, 8), torch.zeros(2), draw(*shape))


def test_two_kinds_of_condition_at_once_are_refused():
    with pytest.raises(ValueError, match="not by several"):
        UNet(2, classes=3, cond_channels=1)
