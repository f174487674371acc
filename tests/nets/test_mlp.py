"""The multilayer perceptron: shapes, gradients, memory, cost, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from survey_lib.lab.evaluation.cost import macs
from survey_lib.nets.layers import initialised
from survey_lib.nets.mlp import MLP
from tests.support import draw


def make(*args, **config) -> MLP:
    return initialised(0, lambda: MLP(*args, **config))


@pytest.mark.parametrize("dims", [1, 2, 7])
@pytest.mark.parametrize("layers", [1, 4])
@pytest.mark.parametrize("classes", [None, 3])
def test_keeps_the_shape_and_moves_every_parameter(dims, layers, classes):
    net, x, c_noise = make(dims, width=16, layers=layers, classes=classes), draw(5, dims), torch.linspace(-1, 1, 5)
    cond = None if classes is None else torch.arange(5) % (classes + 1)
    answer = net(x, c_noise, cond)
    assert answer.shape == x.shape
    answer.square().mean().backward()
    for name, parameter in net.named_parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().max() > 0, name


def test_overfits_one_batch():
    net, wanted = make(2, width=32, layers=2, classes=8), draw(8, 2)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        loss = (net(torch.zeros(8, 2), torch.zeros(8), torch.arange(8)) - wanted).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 1e-3


def test_no_label_is_the_last_row():
    net, x = make(2, classes=3), draw(4, 2)
    assert net(x, torch.zeros(4)).equal(net(x, torch.zeros(4), torch.full((4,), 3)))
    assert not net(x, torch.zeros(4)).equal(net(x, torch.zeros(4), torch.full((4,), 2)))


def test_costs_what_a_hand_counts():
    width, layers, dims, batch = 24, 3, 2, 5
    net = make(dims, width=width, layers=layers)
    noise = 2 * 16 * width + width**2  # sines and cosines of 16 frequencies, two layers
    body = layers * 2 * width**2  # each layer and its scale
    assert macs(net, draw(batch, dims), torch.zeros(batch)) == batch * (noise + body + 2 * dims * width)


@pytest.mark.parametrize(
    ("classes", "shape", "cond", "sentence"),
    [
        (None, (4, 3), None, r"takes points of shape \(B, 2\); got \(4, 3\)"),
        (None, (2,), None, r"takes points of shape \(B, 2\); got \(2,\)"),
        (None, (4, 2), [0, 0, 0, 0], "built without classes, so cond must be None"),
        (3, (4, 2), [0, 1, 2, 9], "labels run from 0 to 2, and 3 means no label; got 0 to 9"),
        (3, (4, 2), [0, 1], r"one whole number per example, shape \(4,\)"),
    ],
)
def test_refuses_in_one_sentence(classes, shape, cond, sentence):
    cond = None if cond is None else torch.tensor(cond)
    with pytest.raises(ValueError, match=sentence) as caught:
        make(2, classes=classes)(torch.zeros(shape), torch.zeros(shape[0]), cond)
    assert "\n" not in str(caught.value)
