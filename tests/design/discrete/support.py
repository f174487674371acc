"""Chains, joint distributions small enough to be enumerated, and comparisons of samples with them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from survey_lib.core.categorical import (
    absorbing,
    discretised_gaussian,
    mask_and_replace,
    uniform,
)
from survey_lib.core.exact import CategoricalTable
from tests.support import generator

CHAINS = {
    "uniform": uniform,
    "absorbing": absorbing,
    "mask and replace": mask_and_replace,
    "gaussian": discretised_gaussian,
}
each_chain = pytest.mark.parametrize("make", CHAINS.values(), ids=CHAINS)


def integers(high: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(high, shape, generator=generator(seed))


def table(categories: int, length: int, states: int | None = None, seed: int = 0) -> CategoricalTable:
    """A joint law with strong dependence, and no probability for the mask if there is one."""
    p = torch.rand((categories,) * length, generator=generator(seed), dtype=torch.float64) ** 4
    return CategoricalTable(nn.functional.pad(p, (0, (states or categories) - categories) * length))


def total_variation(a: Tensor, b: Tensor) -> float:
    return 0.5 * (a - b).abs().sum().item()


def frequencies(x: Tensor, law: CategoricalTable) -> Tensor:
    """How often each cell of the table occurs in draws (N, L)."""
    states, length = len(law.probabilities), law.probabilities.ndim
    index = sum(x[:, i] * states ** (length - 1 - i) for i in range(length))
    return (torch.bincount(index, minlength=states**length) / len(x)).reshape(law.probabilities.shape)


def assert_drawn_from(x: Tensor, law: Tensor, probabilities: Tensor) -> None:
    error = (frequencies(x, law) - probabilities).abs()
    assert (error < 4.5 * (probabilities * (1 - probabilities) / len(x)).sqrt() + 1e-9).all()
