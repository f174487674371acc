"""Neighbours that never met, counted by hand."""

import pytest
import torch

from survey_lib.design.discrete import unseen_pair_rate


def test_a_set_knows_itself_and_not_its_transpose():
    # 0 1    across: 01 and 23; down: 02 and 13. Transposed it has none of these.
    # 2 3
    one = torch.tensor([[0, 1, 2, 3]])
    assert unseen_pair_rate(one, one, (2, 2)) == 0
    assert unseen_pair_rate(torch.tensor([[0, 2, 1, 3]]), one, (2, 2)) == 1


def test_each_new_pair_counts_once():
    library = torch.tensor([[0, 0, 0, 0, 0, 0]])
    assert unseen_pair_rate(torch.tensor([[0, 0, 0, 0, 0, 5]]), library, (2, 3)) == pytest.approx(2 / 7)


def test_tokens_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"tokens must be \(B, 6\) for a map of \(2, 3\); got \(1, 4\)"):
        unseen_pair_rate(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 6, dtype=torch.int64), (2, 3))
