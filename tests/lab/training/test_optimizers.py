"""The optimiser: Muon moves the inner matrices as torch's does, Adam the rest, and a resumed training is the same."""

import pytest
import torch
from torch import nn

from survey_lib.lab.training.optimizers import Optimizer
from survey_lib.lab.training.trainer import Recipe
from survey_lib.nets.unet import UNet
from tests.support import generator, nonzero

MUON = Recipe(optimizer="muon", rate=1e-2, matrix_rate=0.02, warmup=0)


def unet():
    net = nonzero(UNet, 3, widths=(16, 32), classes=4).to(memory_format=torch.channels_last)
    source = generator(2)
    for p in net.parameters():
        p.grad = torch.randn(p.shape, generator=source).clone()
    return net


def test_convolutions_move_as_matrices_in_torchs_muon():
    net = unet()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    gradients = {name: p.grad.clone() for name, p in net.named_parameters()}
    Optimizer(net, MUON).step(0)
    convolution = "middle.0.0.conv_in.weight"
    # Columns in another order: an orthogonal update does not depend on it, up to rounding in bfloat16.
    matrix = nn.Parameter(before[convolution].flatten(1).clone())
    matrix.grad = gradients[convolution].flatten(1)
    torch.optim.Muon([matrix], lr=0.02, weight_decay=0.0).step()
    moved = (net.get_parameter(convolution).detach() - before[convolution]).flatten(1)
    expected = matrix.detach() - before[convolution].flatten(1)
    assert (moved - expected).norm() < 0.05 * expected.norm()
    singular = torch.linalg.svdvals(moved) / 0.02
    assert singular.min() > 0.4 and singular.max() < 1.4  # Newton and Schulz's five steps: nearly orthogonal


def test_ends_embeddings_and_vectors_move_as_in_adam():
    net = unet()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    Optimizer(net, MUON).step(0)
    first_step = 1e-2  # of Adam, where no gradient is tiny
    for name in ("enter.weight", "leave.weight", "label.weight", "enter.bias", "norm.weight"):
        moved = (net.get_parameter(name).detach() - before[name]).abs()
        assert torch.allclose(moved, torch.full_like(moved, first_step), rtol=1e-2)


def test_adam_alone_is_torchs():
    net, twin, recipe = unet(), unet(), Recipe(warmup=0)
    adam = torch.optim.Adam(twin.parameters(), **recipe.adam(0))
    ours = Optimizer(net, recipe)
    for _ in range(3):
        ours.step(0)
        adam.step()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))


def test_both_rates_follow_one_schedule():
    net, recipe = unet(), Recipe(optimizer="muon", steps=10, warmup=0)
    optimizer = Optimizer(net, recipe)
    for number in (0, 5, 9):
        optimizer.step(number)
        rates = [one.param_groups[0]["lr"] for one in (optimizer.adam, optimizer.muon)]
        assert rates[1] / recipe.matrix_rate == pytest.approx(rates[0] / recipe.rate)


@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_continues_from_its_moments(kind):
    recipe, nets = Recipe(optimizer=kind), (unet(), unet())
    first, second = (Optimizer(net, recipe) for net in nets)
    first.step(0)
    second.step(0)
    again = Optimizer(nets[1], recipe)
    again.load(second.tensors())
    first.step(1)
    again.step(1)
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_refuses_another_optimiser():
    with pytest.raises(ValueError, match='optimizer is "sgd"'):
        Recipe(optimizer="sgd")
