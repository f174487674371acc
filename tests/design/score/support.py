"""Schedules and tolerances of the tests of scores."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from survey_lib.core.schedules import edm, rectified, ve, vp_linear
from survey_lib.design.score import (
    sub_vp,
)

exactly = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)
SCHEDULES = [edm(), ve(), vp_linear(), sub_vp(), rectified()]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
