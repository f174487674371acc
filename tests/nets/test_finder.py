"""The finder: a cell for each square of pixels, and objects where the cells say so."""

import pytest
import torch
from torch import nn

from survey_lib.nets.finder import Finder
from survey_lib.nets.layers import initialised


class Fixed(Finder):
    """A finder with given logits."""

    def __init__(self, logits):
        super().__init__(heads=(2, 3))
        self.logits = logits

    def forward(self, x):
        return self.logits


def test_a_cell_for_each_square():
    net = initialised(0, lambda: Finder(heads=(10, 6)))
    assert net(torch.zeros(2, 3, 64, 32)).shape == (2, 3 + 16, 16, 8)
    with pytest.raises(ValueError, match="multiples of 8"):
        net(torch.zeros(1, 3, 60, 60))


def test_finds_the_peaks_with_their_boxes_and_labels():
    logits = torch.full((1, 3 + 5, 8, 8), -9.0)
    logits[0, 0, 2, 5], logits[0, 0, 2, 6], logits[0, 0, 6, 1] = 4.0, 3.0, 2.0  # the second is next to the first
    logits[0, 1:3, 2, 5] = torch.tensor([0.5, 0.25])
    logits[0, 4, 2, 5], logits[0, 7, 2, 5] = 1.0, 1.0
    there, boxes, labels = Fixed(logits).find(torch.zeros(1, 3, 32, 32))
    assert there[0].tolist() == [True, True, *[False] * 6]
    assert torch.allclose(boxes[0, 0], torch.tensor([5.5 / 8, 2.5 / 8, 0.5, 0.25]))
    assert torch.allclose(boxes[0, 1, :2], torch.tensor([1.5 / 8, 6.5 / 8]))
    assert labels[0, 0].tolist() == [1, 2]


def test_every_parameter_gets_a_gradient():
    net = initialised(0, Finder)
    for module in net.modules():  # residual blocks begin as the identity
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1)
    net(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
