"""A network that is told the scale of guidance."""

import pytest
import torch

from survey_lib.nets.guided import GuidedUNet
from survey_lib.nets.layers import initialised
from survey_lib.nets.unet import UNet
from tests.support import draw, generator

SMALL = {"widths": (8, 16), "classes": 3}


def _pair():
    """A network with labels, not at its zero start, and a student with its weights."""
    teacher = initialised(0, lambda: UNet(1, **SMALL))
    for parameter in teacher.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator(1)))
    student = GuidedUNet(**teacher.config)
    missing = student.load_state_dict(teacher.state_dict(), strict=False)
    assert not missing.unexpected_keys and all(key.startswith("scale.") for key in missing.missing_keys)
    return teacher, student


@torch.no_grad()
def test_with_the_weights_of_a_teacher_a_student_begins_as_the_teacher_at_every_scale():
    teacher, student = _pair()
    x, c_noise, labels = draw(4, 1, 8, 8), draw(4, seed=1), torch.tensor([0, 1, 2, 3])
    for scale in (torch.tensor(2.0), torch.tensor([1.0, 2.0, 3.0, 4.0])):
        torch.testing.assert_close(student(x, c_noise, (labels, scale)), teacher(x, c_noise, labels))


def test_the_scale_changes_a_student_that_has_learned_and_gets_gradients():
    _, student = _pair()
    student.scale[-1].weight.data.normal_(generator=generator(2))
    x, c_noise, labels = draw(2, 1, 8, 8), draw(2, seed=1), torch.tensor([0, 1])
    low, high = (student(x, c_noise, (labels, torch.tensor(scale))) for scale in (1.0, 4.0))
    assert (low - high).abs().max() > 1e-3
    high.sum().backward()
    assert student.scale[0].weight.grad.abs().sum() > 0


def test_a_condition_that_is_no_pair_is_refused():
    _, student = _pair()
    for cond in (None, torch.tensor([0, 1])):
        with pytest.raises(ValueError, match=r"cond must be a pair \(labels, scale\)"):
            student(draw(2, 1, 8, 8), draw(2), cond)
