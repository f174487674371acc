"""Discrete chains by enumeration: nothing here is a sample unless it says so."""

import itertools
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from survey_lib.core.categorical import (
    Categorical,
    absorbing,
    cosine_survival,
    discretised_gaussian,
    linear_survival,
    mask_and_replace,
    posterior_without_bayes,
    uniform,
)
from survey_lib.core.exact import CategoricalTable
from tests.support import generator

CHAINS = {
    "uniform": uniform,
    "absorbing": absorbing,
    "mask and replace": mask_and_replace,
    "discretised gaussian": discretised_gaussian,
    "wide gaussian": lambda k: discretised_gaussian(k, width=2.0, survival=cosine_survival),
}
each_chain = pytest.mark.parametrize("make", CHAINS.values(), ids=CHAINS)
quick = settings(deadline=None, derandomize=True, max_examples=15)
three_times = st.lists(st.floats(0, 1), min_size=3, max_size=3, unique=True).map(sorted)


def exactly(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def data_law(categories: int, states: int, seed: int = 0) -> Tensor:
    """Random probabilities over the categories, and none on the mask, if there is one."""
    p = torch.rand(categories, generator=generator(seed), dtype=torch.float64) ** 3
    return torch.cat([p / p.sum(), torch.zeros(states - categories, dtype=torch.float64)])


def generated(corruption: Categorical, law: Tensor, times: Tensor, posterior) -> Tensor:
    """The exact law of x_0 after the whole reverse chain with the exact denoiser: products of matrices."""
    denoise, now = CategoricalTable(law).denoiser(corruption), corruption.stationary
    for t, s in pairwise(times):
        live = (now > 0).nonzero()  # (states, 1)
        now = now[live[:, 0]] @ posterior(live, denoise(live, t), t, s)[:, 0]
    return now


@each_chain
@quick
@given(categories=st.integers(2, 6), times=three_times)
def test_rows_are_laws_and_spans_compose(make, categories: int, times: list[float]) -> None:
    """Chapman-Kolmogorov: from r to s and on to t is from r to t."""
    corruption = make(categories)
    r, s, t = map(exactly, times)
    first, second, both = corruption.matrix(r, s), corruption.matrix(s, t), corruption.matrix(r, t)
    for matrix in (first, second, both):
        assert (matrix >= 0).all()
        torch.testing.assert_close(matrix.sum(-1), torch.ones_like(matrix[0]), atol=1e-13, rtol=0)
    torch.testing.assert_close(first @ second, both, atol=1e-12, rtol=0)


@each_chain
def test_nothing_happens_in_no_time_and_all_is_stationary_at_the_end(make) -> None:
    corruption = make(5)
    start, end = exactly(0.0), exactly(1.0)
    eye = torch.eye(len(corruption.stationary), dtype=torch.float64)
    torch.testing.assert_close(corruption.matrix(start, start), eye, atol=1e-13, rtol=0)
    data = corruption.matrix(start, end)[:5]  # the mask itself, where there is one, is no data
    torch.testing.assert_close(data, corruption.stationary.expand_as(data), atol=1e-13, rtol=0)


@each_chain
@pytest.mark.parametrize("categories", [2, 4, 6])
@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_the_generated_law_is_the_data_law(make, categories: int, count: int) -> None:
    """With the exact denoiser any grid, even one step, ends at the data: to rounding, not on average."""
    corruption = make(categories)
    law = data_law(categories, len(corruption.stationary))
    times = torch.linspace(1, 0, count + 1, dtype=torch.float64)
    torch.testing.assert_close(generated(corruption, law, times, corruption.posterior), law, atol=1e-12, rtol=0)


@each_chain
def test_the_posterior_is_bayes_rule_spelt_out(make) -> None:
    """Every (x0, x_s, x_t) weighed by hand: p(x_s | x_t) under the answer ``x0`` of some denoiser, not the true one."""
    corruption, s, t = make(3), exactly(0.3), exactly(0.6)
    states = len(corruption.stationary)
    answer = data_law(3, states, seed=3)
    to_s, step, to_t = (corruption.matrix(*span) for span in ((exactly(0.0), s), (s, t), (exactly(0.0), t)))
    for x_t in range(3):
        expected = torch.zeros(states, dtype=torch.float64)
        for x0, x_s in itertools.product(range(states), repeat=2):
            if to_t[x0, x_t] > 0:
                expected[x_s] += answer[x0] * to_s[x0, x_s] * step[x_s, x_t] / to_t[x0, x_t]
        got = corruption.posterior(torch.tensor([x_t]), answer.unsqueeze(0), t, s)[0]
        torch.testing.assert_close(got, expected / expected.sum(), atol=1e-13, rtol=0)


@pytest.mark.parametrize("name", ["uniform", "mask and replace", "discretised gaussian"])
def test_without_bayes_the_law_is_wrong_however_many_steps(name: str) -> None:
    """D3PM's eq. 4 with the *true* p(x0 | x_t) misses by 0.1 to 0.2 in total variation, more with more steps."""
    corruption = CHAINS[name](3)
    law = torch.zeros(len(corruption.stationary), dtype=torch.float64)
    law[:3] = torch.tensor([0.7, 0.2, 0.1])

    def gap(count: int) -> float:
        times = torch.linspace(1, 0, count + 1, dtype=torch.float64)
        wrong = generated(corruption, law, times, lambda *a: posterior_without_bayes(corruption, *a))
        return 0.5 * (wrong - law).abs().sum().item()

    assert 0.10 < gap(10) < gap(100) < 0.20


def test_masks_forgive_the_missing_bayes() -> None:
    """A masked entry has the same likelihood under every x0, an unmasked one leaves one x0: nothing to weigh."""
    corruption, law = absorbing(3), torch.tensor([0.7, 0.2, 0.1, 0.0], dtype=torch.float64)
    times = torch.linspace(1, 0, 11, dtype=torch.float64)
    law = law / law.sum()
    got = generated(corruption, law, times, lambda *a: posterior_without_bayes(corruption, *a))
    torch.testing.assert_close(got, law, atol=1e-12, rtol=0)


def test_what_is_unmasked_stays_whatever_the_denoiser_says() -> None:
    corruption = absorbing(3)
    x_t, vague = torch.tensor([[0, 3, 2]]), torch.tensor([0.3, 0.3, 0.4, 0.0]).expand(1, 3, 4)
    posterior = corruption.posterior(x_t, vague, 0.5, 0.25)
    assert torch.equal(posterior[0, 0], torch.tensor([1.0, 0, 0, 0]))
    assert torch.equal(posterior[0, 2], torch.tensor([0.0, 0, 1, 0]))
    torch.testing.assert_close(posterior[0, 1], torch.tensor([0.15, 0.15, 0.2, 0.5]))  # half of it stays masked


def test_mask_and_replace_is_the_product_of_its_published_steps() -> None:
    """VQ-Diffusion, eq. 7: alpha + beta to stay, beta to each, gamma to the mask; multiplied up over the chain."""
    count, categories = 8, 4
    corruption = mask_and_replace(categories)
    product = torch.eye(categories + 1, dtype=torch.float64)
    for s, t in pairwise(torch.linspace(0, 1, count + 1, dtype=torch.float64)):
        keep_mask, keep_all = (1 - 0.9 * t) / (1 - 0.9 * s), (1 - t) / (1 - s)
        gamma, alpha = 1 - keep_mask, keep_mask * keep_all
        beta = (1 - alpha - gamma) / categories
        one = torch.full((categories + 1, categories + 1), float(beta), dtype=torch.float64)
        one.diagonal().add_(alpha)
        one[:, -1] = gamma
        one[-1] = 0
        one[-1, -1] = 1
        product = product @ one
        torch.testing.assert_close(corruption.matrix(exactly(0.0), t), product, atol=1e-13, rtol=0)


def test_a_discretised_gaussian_stays_near_and_is_symmetric() -> None:
    matrix = discretised_gaussian(7).matrix(exactly(0.0), exactly(0.05))
    torch.testing.assert_close(matrix, matrix.T, atol=1e-14, rtol=0)
    assert (matrix[0].diff() < 0).all()  # the farther, the rarer


def test_the_slowest_mode_fades_by_survival() -> None:
    """What is left of the coarsest feature, the second eigenvalue of the matrix, is ``survival``; the rest is less."""
    for t in (0.1, 0.5, 0.9):
        values = torch.linalg.eigvalsh(discretised_gaussian(6).matrix(exactly(0.0), exactly(t)))
        assert values[-1].item() == pytest.approx(1) and values[-2].item() == pytest.approx(1 - t)
        uniform_values = torch.linalg.eigvalsh(uniform(6, linear_survival).matrix(exactly(0.0), exactly(t)))
        assert uniform_values[-2].item() == pytest.approx(1 - t)


@each_chain
def test_drawn_categories_have_the_frequencies_of_the_matrix(make) -> None:
    """By sampling: corrupt from one category, and bridge from one state, at a time for each half of the batch."""
    corruption, count = make(3), 20000
    states = len(corruption.stationary)
    t = torch.tensor([0.2, 0.7]).double().repeat_interleave(count)
    x0 = torch.ones(2 * count, 1, dtype=torch.long)
    x_t = corruption.corrupt(x0, t, generator=generator())
    answer = data_law(3, states).expand(2 * count, 1, states)
    x_s = corruption.bridge(x0, answer, t, t / 2, generator=generator(1))
    for i, half in enumerate((slice(count), slice(count, None))):
        time = t[i * count]
        for drawn, law in (
            (x_t, corruption.matrix(exactly(0.0), time)[1]),
            (x_s, corruption.posterior(x0[:1], answer[:1], time, time / 2)[0, 0]),
        ):
            frequency = torch.bincount(drawn[half, 0], minlength=states) / count
            assert ((frequency - law).abs() < 4.5 * (law * (1 - law) / count).sqrt() + 1e-12).all()


@each_chain
def test_a_time_for_each_example_is_as_good_as_one(make) -> None:
    corruption = make(3)
    states = len(corruption.stationary)
    x_t = torch.randint(0, 3, (4, 2, 5), generator=generator())
    answer = torch.rand(4, 2, 5, states, generator=generator(), dtype=torch.float64)
    t, s = torch.tensor([0.3, 0.5, 0.7, 0.9]).double(), torch.tensor([0.0, 0.4, 0.1, 0.5]).double()
    together = corruption.posterior(x_t, answer, t, s)
    assert together.shape == (4, 2, 5, states)
    for i in range(4):
        alone = corruption.posterior(x_t[i : i + 1], answer[i : i + 1], t[i], s[i])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-13, rtol=0)


def test_probabilities_keep_their_dtype_and_draws_are_integers() -> None:
    corruption, x = uniform(3), torch.tensor([[0, 1]])
    assert corruption.posterior(x, torch.full((1, 2, 3), 1 / 3), 0.5, 0.2).dtype == torch.float32
    for drawn in (
        corruption.prior((4, 2), generator=generator()),
        corruption.corrupt(x, 0.5, generator=generator()),
        corruption.bridge(x, torch.full((1, 2, 3), 1 / 3), 0.5, 0.2, generator=generator()),
    ):
        assert drawn.dtype == torch.int64
    assert torch.equal(absorbing(3).prior((2, 2), generator=generator()), torch.full((2, 2), 3))


X, P = torch.tensor([[0, 1]]), torch.full((1, 2, 3), 1 / 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: uniform(3).bridge(X, P, 0.3, 0.5, generator=generator()), "s < t"),
        (lambda: uniform(3).bridge(X, P, 1.5, 0.5, generator=generator()), r"lie in \[0, 1\]"),
        (lambda: uniform(3).corrupt(X, -0.5, generator=generator()), r"lie in \[0, 1\]"),
        (lambda: uniform(3).corrupt(X, torch.ones(3), generator=generator()), r"t has shape \(\) or \(1,\)"),
        (lambda: uniform(3).corrupt(X, 0.5), "pass generator="),
        (lambda: uniform(3).prior((2,)), "pass generator="),
        (lambda: uniform(3).bridge(X, P, 0.5, 0.3), "pass generator="),
        (lambda: uniform(3).corrupt(X + 2, 0.5, generator=generator()), "integers from 0 to 2; got torch.int64 2 to 3"),
        (lambda: uniform(3).corrupt(X.float(), 0.5, generator=generator()), "integers from 0 to 2; got torch.float32"),
        (lambda: uniform(3).posterior(X, P[..., :2], 0.5, 0.3), r"returns shape \(1, 2, 3\), K last"),
        (lambda: uniform(3).posterior(X, P - 0.5, 0.5, 0.3), "logits want a softmax"),
        (lambda: CategoricalTable(torch.ones(3)).denoiser(absorbing(3))(X.T, 0.5), "3 categories, the corruption 4"),
        (lambda: absorbing(2).posterior(X, torch.eye(3)[torch.tensor([[1, 1]])], 0.5, 0.3), "no x0 to which"),
    ],
)
def test_bad_input_gets_one_clear_sentence(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
