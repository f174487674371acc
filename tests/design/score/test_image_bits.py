"""Bits per dimension of dequantised images."""

from __future__ import annotations

import math

import pytest
import torch

from survey_lib.core.exact import GaussianLaw
from survey_lib.core.losses import BYTE_STEP
from survey_lib.core.schedules import ve, vp_linear
from survey_lib.design import score as scores
from tests.support import generator


def test_dequantised_greys_round_back_and_fill_their_step():
    grey = (torch.randint(0, 256, (4000, 1, 2, 2), generator=generator()).double() * BYTE_STEP) - 1
    moved = scores.dequantise(grey, generator(1))
    assert torch.equal((moved + 1).div(BYTE_STEP).round(), (grey + 1).div(BYTE_STEP).round())
    rest = (moved - grey).flatten()
    assert rest.abs().max() < BYTE_STEP / 2 and rest.std().item() == pytest.approx(BYTE_STEP / math.sqrt(12), rel=0.02)


@pytest.mark.parametrize("schedule", [vp_linear(), ve(), scores.sub_vp()], ids=lambda one: one.name)
def test_bits_of_a_normal_law_are_its_entropy_under_every_schedule(schedule):
    law = GaussianLaw(torch.zeros(1, 2, 2), 0.3)
    x = law.sample(500, generator=generator(), dtype=torch.float64)
    found = scores.image_bits(law.denoiser(schedule), schedule, x, tolerance=1e-6, generator=generator(1))
    exact = -law.log_prob(x) / (4 * math.log(2)) - math.log2(BYTE_STEP)
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-3)  # the bell at lam = -3.9 stands for the noised law
