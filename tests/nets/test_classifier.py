"""The classifier: shapes, heads, gradients, memory, cost, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from survey_lib.lab.cost import macs
from survey_lib.nets.classifier import Classifier


def make(*args, **config) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Classifier(*args, **config)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("channels", "size", "heads", "config"),
    [
        (1, 16, (10,), dict(widths=(8, 12), dims=6)),
        (3, 28, (10, 21), dict(widths=(8, 12, 16), kernel=5)),
        (3, 32, (10, 21), dict(widths=(8,))),
        (1, 64, (2, 3, 4), dict(widths=(4, 8, 8, 8))),
    ],
)
def test_shapes_and_gradients(channels, size, heads, config):
    net, x = make(channels, heads, **config), draw(6, channels, size, size)
    logits, features = net(x), net.features(x)
    assert logits.shape == (6, sum(heads)) and features.shape == (6, config.get("dims", 64))
    labels = net.eval().classify(x)
    assert [tuple(found.shape) for found in labels] == [(6,)] * len(heads)
    assert all(found.min() >= 0 and found.max() < count for found, count in zip(labels, heads, strict=True))
    logits.square().mean().backward()
    for name, parameter in net.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        # what a normalisation subtracts again has no effect: the biases of the convolutions before it
        if not (name.startswith("stages") and name.endswith("bias") and "Conv" in type(_owner(net, name)).__name__):
            assert parameter.grad.abs().max() > 0, name


def _owner(net: torch.nn.Module, name: str) -> torch.nn.Module:
    return net.get_submodule(name.rpartition(".")[0])


def test_each_head_reads_its_own_logits():
    net = make(1, (2, 3), widths=(4,))
    with torch.no_grad():
        net.read.weight.zero_()
        net.read.bias.copy_(torch.tensor([0.0, 1.0, 5.0, 9.0, 7.0]))
    first, second = net.eval().classify(draw(4, 1, 8, 8))
    assert first.tolist() == [1] * 4 and second.tolist() == [1] * 4


def test_overfits_one_batch():
    net, x, labels = make(1, (4,), widths=(8, 8), dims=8), draw(8, 1, 8, 8), torch.arange(8) % 4
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-2)
    for _ in range(40):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()
    assert loss < 0.05 and (net(x).argmax(1) == labels).all()


def test_costs_what_a_hand_counts():
    net = make(3, (10, 21), widths=(8, 12), dims=16, kernel=5).eval()
    first = 32 * 32 * 3 * 8 * 25 + 16 * 16 * 8 * 8 * 9
    second = 16 * 16 * 8 * 12 * 25 + 8 * 8 * 12 * 12 * 9
    assert macs(net, torch.zeros(2, 3, 32, 32)) == 2 * (first + second + 12 * 16 + 16 * 31)


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (3, 32, 32)])
def test_refuses_other_channels_in_one_sentence(shape):
    with pytest.raises(ValueError, match=r"takes images \(B, 3, H, W\); got") as caught:
        make(3)(torch.zeros(shape))
    assert "\n" not in str(caught.value)
