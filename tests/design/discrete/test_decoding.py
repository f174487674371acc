"""Parallel and autoregressive decoding, held to joint distributions."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from survey_lib.core import grids
from survey_lib.core.categorical import (
    absorbing,
    mask_and_replace,
    uniform,
)
from survey_lib.core.exact import CategoricalTable
from survey_lib.core.samplers import ancestral
from survey_lib.design import discrete
from survey_lib.nets.transformer import Transformer
from tests.design.discrete.support import assert_drawn_from, frequencies, table, total_variation
from tests.support import generator, nonzero

ORDERS = {
    "purest": (discrete.purity, 0.0),
    "by purity": (discrete.purity, 1.0),
    "anywhere": (discrete.random_order, 1.0),
    "as a text": (discrete.raster_order, 0.0),
}


def decoded(law: CategoricalTable, steps: int, score, temperature: float, count: int = 20_000) -> Tensor:
    chain = absorbing(len(law.probabilities) - 1)
    ordered = discrete.ConfidenceDecoding(chain, score, temperature)
    x = ordered.prior((count, law.probabilities.ndim), generator=generator())
    return ancestral(law.denoiser(chain), ordered, x, grids.uniform(steps), generator=generator(1))


@pytest.mark.parametrize(("score", "temperature"), ORDERS.values(), ids=ORDERS)
def test_one_entry_a_step_has_the_joint_law_in_any_order(score, temperature: float) -> None:
    law = table(2, 3, 3)
    assert_drawn_from(decoded(law, 3, score, temperature), law, law.probabilities)


def test_all_entries_in_one_step_are_independent() -> None:
    law = table(2, 3, 3)
    first, second, third = (law.probabilities.sum(axes) for axes in ((1, 2), (0, 2), (0, 1)))
    apart = torch.einsum("i,j,k->ijk", first, second, third)
    assert total_variation(apart, law.probabilities) > 0.2
    assert_drawn_from(decoded(law, 1, discrete.purity, 1.0), law, apart)


def test_confidence_in_what_was_drawn_is_no_order_but_a_choice() -> None:
    """MaskGIT's score prefers likely draws: even one at a time the likeliest cell comes too often."""
    law = table(2, 3, 3)
    found = frequencies(decoded(law, 3, discrete.confidence, 0.0), law)
    best = law.probabilities.argmax()
    assert found.flatten()[best] > law.probabilities.flatten()[best] + 0.05


def test_as_many_are_filled_in_as_the_chain_would_and_at_least_one() -> None:
    chain, left = absorbing(3), []
    ordered = discrete.ConfidenceDecoding(chain)

    def vague(x: Tensor, t: Tensor, cond: None = None) -> Tensor:
        left.append((x == 3).sum(1).tolist())
        return torch.tensor([0.5, 0.3, 0.2, 0.0]).double().expand(*x.shape, 4)

    x = ordered.prior((2, 10), generator=generator())
    done = ancestral(vague, ordered, x, grids.uniform(4), generator=generator())
    assert left == [[10, 10], [8, 8], [5, 5], [2, 2]] and done.max() < 3
    left.clear()
    ancestral(vague, ordered, x, discrete.cosine_times(4), generator=generator())
    assert left == [[10, 10], [9, 9], [7, 7], [4, 4]]
    left.clear()
    ancestral(vague, ordered, torch.where(torch.arange(10) < 9, 1, x), grids.uniform(3), generator=generator())
    assert left[0] == [1, 1] and left[1] == [0, 0], "what was filled in before stays"


def test_what_is_filled_in_is_the_purest() -> None:
    ordered = discrete.ConfidenceDecoding(absorbing(2), temperature=0.0)
    sure = torch.tensor([0.5, 0.9, 0.6, 0.7]).double()
    answer = torch.stack([sure, 1 - sure, torch.zeros(4)], dim=-1)[None]
    x = ordered.bridge(torch.full((1, 4), 2), answer, 1.0, 0.5, generator=generator())
    assert (x != 2).tolist() == [[False, True, False, True]]


def test_cosine_times_are_a_grid() -> None:
    times = discrete.cosine_times(3)
    torch.testing.assert_close(times, torch.tensor([1, math.sqrt(0.75), 0.5, 0]).double())


def test_parallel_decoding_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="needs a chain that ends in masks alone"):
        discrete.ConfidenceDecoding(uniform(3))
    with pytest.raises(ValueError, match="needs a chain that ends in masks alone"):
        discrete.ConfidenceDecoding(mask_and_replace(3))
    with pytest.raises(ValueError, match="temperature must not be negative"):
        discrete.ConfidenceDecoding(absorbing(3), temperature=-1.0)
    with pytest.raises(ValueError, match="pass generator="):
        discrete.ConfidenceDecoding(absorbing(2)).bridge(torch.full((1, 2), 2), torch.ones(1, 2, 3) / 3, 1.0, 0.5)


class Joint(nn.Module):
    """A causal network that knows a joint law: its logits are the exact conditionals."""

    def __init__(self, law: CategoricalTable):
        super().__init__()
        self.law = law.probabilities

    def forward(self, x: Tensor, c_noise: None, cond: None = None) -> Tensor:
        rows = []
        for place in range(x.shape[1]):
            before = self.law.sum(tuple(range(place + 1, x.shape[1]))) if place + 1 < x.shape[1] else self.law
            joint = before[tuple(x[:, :place].T)] if place else before.expand(len(x), -1)
            rows.append((joint / joint.sum(-1, keepdim=True)).log())
        return torch.stack(rows, 1)


def test_one_after_another_draws_from_the_joint_law_and_knows_its_likelihood() -> None:
    law = table(3, 2)
    net = Joint(law)
    assert_drawn_from(discrete.autoregressive(net, (20_000, 2), generator=generator()), law, law.probabilities)
    x = torch.tensor(list(itertools.product(range(3), repeat=2)))
    torch.testing.assert_close(discrete.log_likelihood(net, x), law.log_prob(x).float(), atol=1e-4, rtol=1e-4)


def test_a_cache_draws_the_same_tokens() -> None:
    net = nonzero(Transformer, 4, 4, 9, width=16, layers=2, causal=True, classes=2)
    how = {"cond": torch.tensor([0, 1, 1])}
    plain, cached = (
        discrete.autoregressive(net, (3, 9), cached=cached, generator=generator(3), **how) for cached in (False, True)
    )
    assert plain.equal(cached) and len(plain.unique()) > 1
