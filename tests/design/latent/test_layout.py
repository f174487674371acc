"""Painted layouts: every box is filled with its character, and the place in the box is known."""

import pytest
import torch

from survey_lib.design.latent.layout import CHANNELS, CHARACTERS, empty, paint

ONE = torch.tensor([[[7.0, 0.5, 0.25, 0.5, 0.25], [10.0, 0, 0, 0, 0]]])


def test_the_area_of_a_box_is_kept_at_every_size():
    generator = torch.Generator().manual_seed(0)
    box = 0.25 + 0.5 * torch.rand(50, 1, 4, generator=generator)
    box[..., 2:] *= 0.5
    layout = torch.cat([torch.full((50, 1, 1), 3.0), box], 2)
    for side in (16, 32, 64):
        painted = paint(layout, side)
        assert painted.shape == (50, CHANNELS, side, side)
        area = painted[:, 3].mean((1, 2))
        assert torch.allclose(area, box[:, 0, 2] * box[:, 0, 3], atol=1e-5)
        assert torch.equal(painted[:, CHARACTERS], painted[:, 3])
        others = [k for k in range(CHARACTERS) if k != 3]
        assert not painted[:, others].any()


def test_places_run_across_the_box():
    x, y = paint(ONE, 64)[0, -2:]
    rows, columns = slice(8, 24), slice(16, 48)  # the box in pixels
    assert torch.allclose(x[rows, columns], torch.linspace(-31 / 32, 31 / 32, 32).expand(16, 32), atol=1e-5)
    assert torch.allclose(y[rows, columns], torch.linspace(-15 / 16, 15 / 16, 16)[:, None].expand(16, 32), atol=1e-5)


def test_nothing_is_painted_for_empty_slots():
    assert not paint(empty(ONE), 16).any()
    assert torch.equal(paint(ONE, 16), paint(ONE[:, :1], 16))


def test_objects_may_come_in_any_order():
    two = torch.tensor([[[1, 0.25, 0.25, 0.3, 0.4], [2, 0.7, 0.7, 0.2, 0.3]]], dtype=torch.float32)
    assert torch.allclose(paint(two, 16), paint(two.flip(1), 16))


def test_refuses_another_shape():
    with pytest.raises(ValueError, match=r"a layout is \(B, objects, 5\)"):
        paint(torch.zeros(1, 4), 16)
