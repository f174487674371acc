"""The classifiers of clean and of noisy images: shapes, heads, gradients, cost, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from survey_lib.lab.evaluation.cost import macs
from survey_lib.nets.classifier import Classifier, NoisyClassifier
from survey_lib.nets.layers import initialised
from tests.support import draw, generator


def make(*args, **config) -> Classifier:
    return initialised(0, lambda: Classifier(*args, **config))


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


# ---------------------------------------------------------------- of noisy images


def make_noisy(*args, **config) -> NoisyClassifier:
    """With all its weights drawn anew: a fresh one passes its blocks by."""
    net = NoisyClassifier(*args, **config)
    source = generator()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=source)
    return net


@pytest.mark.parametrize(
    ("channels", "size", "classes", "config"),
    [(1, 28, 10, {}), (3, 32, 4, dict(widths=(8, 12, 16), blocks=1)), (3, 16, 2, dict(widths=(8,), patch=1, dims=3))],
)
def test_noisy_shapes_and_gradients(channels, size, classes, config):
    net, x = make_noisy(channels, classes, **config), draw(5, channels, size, size).requires_grad_()
    logits = net(x, torch.linspace(-1, 1, 5))
    assert logits.shape == (5, classes)
    logits.log_softmax(1)[:, 0].sum().backward()
    assert x.grad.abs().amax((1, 2, 3)).min() > 0
    for name, parameter in net.named_parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().max() > 0, name


def test_a_logit_is_a_similarity_of_unit_vectors():
    net, x, c_noise = make_noisy(1, 5, widths=(8,)), draw(4, 1, 8, 8), torch.zeros(4)
    torch.testing.assert_close(net.features(x, c_noise).norm(dim=1), torch.ones(4))
    with torch.no_grad():
        net.log_scale.fill_(2.0)
        before = net(x, c_noise)
        net.captions.mul_(7)  # only directions count
        torch.testing.assert_close(net(x, c_noise), before)
        net.captions[1] = net.features(x, c_noise)[0]
        assert net(x, c_noise)[0, 1].item() == pytest.approx(torch.e**2, rel=1e-5)
        net.log_scale.fill_(50.0)
        assert net(x, c_noise).abs().max() <= 100.001


def test_the_noise_level_is_heard():
    net, x = make_noisy(1, 5, widths=(8, 8)), draw(4, 1, 8, 8)
    gap = net(x, torch.zeros(4)) - net(x, torch.ones(4))
    assert gap.abs().max() > 0.1 * net(x, torch.zeros(4)).abs().max()


def test_noisy_costs_what_a_hand_counts():
    net = NoisyClassifier(3, 10, widths=(8, 16), blocks=1, dims=4, embedding=6)
    embedding = 32 * 6 + 6 * 6 + 6 * 16 + 6 * 32  # of the noise, and into scale and shift of each block
    first = 16 * 16 * (12 * 8 * 9 + 2 * 8 * 8 * 9)
    second = 8 * 8 * (8 * 16 * 9 + 2 * 16 * 16 * 9)
    assert macs(net, torch.zeros(2, 3, 32, 32), torch.zeros(2)) == 2 * (embedding + first + second + 16 * 4)


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (2, 3, 32, 30), (3, 32, 32)])
def test_noisy_refuses_other_images_in_one_sentence(shape):
    with pytest.raises(ValueError, match=r"takes images \(B, 3, H, W\) with H and W multiples of 4; got") as caught:
        make_noisy(3)(torch.zeros(shape), torch.zeros(shape[0]))
    assert "\n" not in str(caught.value)
