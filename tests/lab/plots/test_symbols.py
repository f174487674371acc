"""Masks have a colour that no grey has, exactly where they are."""

import torch

from survey_lib.lab import plots


def test_levels_become_greys_and_the_mask_a_colour():
    drawn = plots.symbols(torch.tensor([[[[0, 3], [7, 8]]]]), 8)
    assert drawn.shape == (1, 3, 2, 2) and drawn.dtype == torch.uint8
    assert drawn[0, :, 0, 0].tolist() == [0, 0, 0] and drawn[0, :, 1, 0].tolist() == [255, 255, 255]
    assert drawn[0, :, 0, 1].unique().numel() == 1 and drawn[0, :, 1, 1].unique().numel() > 1


def test_patches_that_are_hidden_are_covered_and_no_others():
    images = torch.zeros(2, 1, 4, 8)
    hidden = torch.zeros(2, 2, 2, dtype=torch.bool)
    hidden[1, 0, 1] = True
    drawn = plots.covered(images, hidden)
    changed = (drawn != drawn[0, :, :1, :1]).any(1)
    assert changed.sum() == 8 and changed[1, :2, 4:].all()


def test_matrices_say_how_much_stays():
    figure = plots.matrices({"half": torch.full((3, 3), 0.5), "still": torch.eye(3)})
    assert "half 0.5" in figure.alt and "still 1" in figure.alt
    assert len(figure.png) > 1000
