"""The polynomial MMD by hand, on average, and beside KID."""

import pytest
import torch

from survey_lib.core.mmd import polynomial_mmd
from survey_lib.lab.evaluation import metrics
from tests.support import draw


def test_the_kernel_distance_is_zero_on_average_and_sees_a_shift() -> None:
    x, y = draw(2, 400, 8, dtype=torch.float64)
    assert abs(polynomial_mmd(x, y[:300])) < 0.15 < polynomial_mmd(x, y + 1)
    small = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])  # by hand: 1 + 343 - 2 (1 + 1 + 27 + 64) / 4
    assert polynomial_mmd(*small).item() == pytest.approx(1 + 343 - 2 * (1 + 1 + 27 + 64) / 4)


def test_it_is_kid_for_sets_of_one_size() -> None:
    x, y = draw(2, 40, 5, dtype=torch.float64)
    assert polynomial_mmd(x, y).item() == pytest.approx(metrics.kid(x, y), rel=1e-12)


def test_features_of_other_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(3, 3\)"):
        polynomial_mmd(torch.ones(3, 2), torch.ones(3, 3))
