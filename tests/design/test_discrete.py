"""Discrete diffusion beyond its chains: by enumeration wherever a law can be written out."""

from __future__ import annotations

import itertools
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from survey_lib.core import grids
from survey_lib.core.categorical import (
    absorbing,
    cosine_survival,
    discretised_gaussian,
    mask_and_replace,
    posterior_without_bayes,
    uniform,
)
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.exact import CategoricalTable
from survey_lib.core.losses import denoising_loss, step_kl, variational_bound
from survey_lib.core.samplers import ancestral
from survey_lib.core.schedules import vp_cosine
from survey_lib.design import discrete
from survey_lib.lab.evaluation.cost import CountCalls
from survey_lib.nets.beside import Beside
from survey_lib.nets.transformer import Transformer
from survey_lib.nets.unet import UNet

CHAINS = {
    "uniform": uniform,
    "absorbing": absorbing,
    "mask and replace": mask_and_replace,
    "gaussian": discretised_gaussian,
}
each_chain = pytest.mark.parametrize("make", CHAINS.values(), ids=CHAINS)
quick = settings(deadline=None, derandomize=True, max_examples=20)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def seeded(make, *args, **kwargs):
    """A network none of whose layers starts at zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make(*args, **kwargs)
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3, generator=generator(1))
    return net


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


# ---------------------------------------------------------------------- the denoiser


@each_chain
def test_a_network_that_knows_nothing_is_the_posterior_of_one_entry(make) -> None:
    """The net answers 0; what is left is exactly Bayes' rule for an entry that is alike under all categories."""
    chain = make(4)
    net = UNet(len(chain.stationary), widths=(4,))
    denoiser = discrete.CategoricalDenoiser(net, chain, 4)
    flat = CategoricalTable(nn.functional.pad(torch.ones(4), (0, len(chain.stationary) - 4)))
    t = torch.tensor([0.2, 0.9], dtype=torch.float64)
    x_t = chain.corrupt(integers(4, 2, 1, 2, 2), t, generator=generator())
    with torch.no_grad():
        answer = denoiser(x_t, t)
    assert answer.shape == (2, 1, 2, 2, len(chain.stationary)) and answer.dtype == torch.float64
    for i in range(2):
        exact = flat.denoiser(chain)(x_t[i].reshape(-1, 1), t[i]).reshape(answer[i].shape)
        torch.testing.assert_close(answer[i], exact, atol=1e-6, rtol=0)


@each_chain
def test_any_network_keeps_what_evidence_decides(make) -> None:
    """At t = 0 x_t is x0; a masked entry may be any category, never the mask; all sums are 1."""
    chain = make(3)
    states = len(chain.stationary)
    denoiser = discrete.CategoricalDenoiser(seeded(Transformer, states, 3, 6, width=8, heads=2), chain, 3)
    x = integers(3, 4, 6)
    with torch.no_grad():
        torch.testing.assert_close(denoiser(x, 0.0), nn.functional.one_hot(x, states).double())
        answer = denoiser(chain.corrupt(x, 0.7, generator=generator()), torch.full((4,), 0.7))
    torch.testing.assert_close(answer.sum(-1), torch.ones(4, 6).double(), atol=1e-6, rtol=0)
    assert (answer[..., :3] >= 0).all() and (answer[..., 3:] == 0).all()


def test_images_of_several_channels_keep_their_categories_apart() -> None:
    """A net that hands its input through gives each entry's own state the highest probability, whatever the channel."""

    class Through(nn.Module):
        def forward(self, x: Tensor, c_noise: Tensor, cond=None) -> Tensor:
            return 10 * x

    denoiser = discrete.CategoricalDenoiser(Through(), uniform(4), 4, evidence=False)
    x = integers(4, 2, 3, 5, 5)
    assert torch.equal(denoiser(x, 0.5).argmax(-1), x)


def test_equation_4_of_d3pm_is_bayes_with_the_evidence_counted_once() -> None:
    """For what the *neighbours* say (the softmax) eq. 4 is exact; fed p(x0 | x_t) it counts evidence twice."""
    chain, t, s = uniform(4), 0.6, 0.3
    net = seeded(Transformer, 4, 4, 3, width=8, heads=2)
    x_t = integers(4, 5, 3)
    with torch.no_grad():
        whole = discrete.CategoricalDenoiser(net, chain, 4)(x_t, t)
        context = discrete.CategoricalDenoiser(net, chain, 4, evidence=False)(x_t, t)
    right = chain.posterior(x_t, whole, t, s)
    torch.testing.assert_close(posterior_without_bayes(chain, x_t, context, t, s), right, atol=1e-6, rtol=0)
    assert (posterior_without_bayes(chain, x_t, whole, t, s) - right).abs().max() > 0.02


def test_a_mask_or_none_is_accepted_and_nothing_else() -> None:
    with pytest.raises(ValueError, match="5 states has 5 categories, or one less and a mask"):
        discrete.CategoricalDenoiser(UNet(5, widths=(4,)), uniform(5), 3)


# ---------------------------------------------------------------------- losses and the bound


@each_chain
def test_without_its_auxiliary_term_the_loss_is_the_step_of_the_bound(make) -> None:
    chain = make(3)
    denoise = table(3, 2, len(chain.stationary)).denoiser(chain)
    x0 = integers(3, 6, 2)
    t, s = torch.full((6,), 0.7).double(), torch.full((6,), 0.4).double()
    got = discrete.hybrid_loss(
        lambda x, at, cond: denoise(x, torch.tensor(0.7).double()), chain, x0, t, s, auxiliary=0, generator=generator()
    )
    x_t = chain.corrupt(x0, t, generator=generator())
    torch.testing.assert_close(got * 2, step_kl(chain, x_t, x0, denoise(x_t, torch.tensor(0.7)), 0.7, 0.4))


def test_the_auxiliary_term_is_the_cross_entropy() -> None:
    chain, net = absorbing(3), seeded(Transformer, 4, 3, 5, width=8, heads=2)
    denoiser = discrete.CategoricalDenoiser(net, chain, 3)
    x0, (t, s) = integers(3, 4, 5), discrete.chain_steps(4, 10, generator=generator(3))
    losses = [discrete.hybrid_loss(denoiser, chain, x0, t, s, auxiliary=a, generator=generator()) for a in (0.0, 0.5)]
    alone = discrete.cross_entropy(denoiser, chain, x0, t, generator=generator())
    torch.testing.assert_close(losses[1] - losses[0], 0.5 * alone)


@each_chain
def test_the_exact_denoiser_has_the_least_loss(make) -> None:
    """Enumerated over x0 and x_t: any other answer costs more, in both terms."""
    chain, t, s = make(3), 0.5, 0.25
    law = table(3, 1, len(chain.stationary))
    denoise = law.denoiser(chain)
    x0 = torch.arange(3).repeat_interleave(len(chain.stationary)).unsqueeze(1)
    x_t = torch.arange(len(chain.stationary)).repeat(3).unsqueeze(1)
    weight = law.log_prob(x0).exp() * chain.marginal(x0, t)[:, 0].gather(1, x_t)[:, 0]
    x0, x_t, weight = x0[weight > 0], x_t[weight > 0], weight[weight > 0]

    def costs(answer: Tensor) -> tuple[float, float]:
        bound = (weight * step_kl(chain, x_t, x0, answer, t, s)).sum().item()
        surprise = -(weight * answer[:, 0].gather(1, x0)[:, 0].log()).sum().item()
        return bound, surprise

    exact = denoise(x_t, t)
    for seed in range(5):
        noise = 0.1 * torch.randn(4, exact.shape[-1], generator=generator(seed), dtype=torch.float64)
        other = exact * noise[x_t].exp()
        other = other / other.sum(-1, keepdim=True)
        if (other - exact).abs().max() > 1e-3:  # where masks leave nothing to guess, nothing can be wrong
            assert all(worse > best for worse, best in zip(costs(other), costs(exact), strict=True))


@each_chain
def test_gradients_are_finite_where_probabilities_are_zero(make) -> None:
    """Masks and small times make many exact zeros; 0 / 0 would poison every weight."""
    chain = make(4)
    net = seeded(UNet, len(chain.stationary), widths=(4,))
    denoiser = discrete.CategoricalDenoiser(net, chain, 4)
    t = torch.tensor([0.01, 0.02, 0.5, 1.0]).double()
    losses = discrete.hybrid_loss(
        denoiser, chain, integers(4, 4, 1, 4, 4), t, 0.9 * t, auxiliary=0.1, generator=generator()
    )
    losses.mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


@each_chain
@pytest.mark.parametrize("steps", [1, 3])
def test_the_bound_in_bits_lies_above_the_entropy_and_meets_it_for_one_entry(make, steps: int) -> None:
    """With one entry and the exact denoiser each reverse step is exact: the bound's mean is the entropy of the data."""
    chain = make(4)
    law = table(4, 1, len(chain.stationary))
    x0 = law.sample(20_000, generator=generator())
    bits = discrete.bound_in_bits(law.denoiser(chain), chain, x0, grids.uniform(steps), generator=generator(1))
    entropy = -(law.probabilities * law.probabilities.clamp_min(1e-300).log2()).sum().item()
    assert bits.mean().item() == pytest.approx(entropy, abs=4.5 * bits.std().item() / math.sqrt(len(bits)))


def test_bits_are_nats_a_dimension() -> None:
    chain, law = uniform(3), table(3, 2)
    x0 = integers(3, 7, 2)
    arguments = (law.denoiser(chain), chain, x0, grids.uniform(4))
    nats = variational_bound(*arguments, generator=generator()).total
    bits = discrete.bound_in_bits(*arguments, generator=generator())
    torch.testing.assert_close(bits * 2 * math.log(2), nats)


def test_steps_of_a_chain_are_all_drawn() -> None:
    t, s = discrete.chain_steps(500, 4, generator=generator())
    assert torch.equal(s.unique(), torch.tensor([0, 0.25, 0.5, 0.75]).double())
    torch.testing.assert_close(t - s, torch.full((500,), 0.25).double())
    with pytest.raises(ValueError, match="at least 1 step; got 0"):
        discrete.chain_steps(5, 0, generator=generator())


# ---------------------------------------------------------------------- guidance


def test_guidance_of_logits_is_a_geometric_mean_and_ends_where_it_should() -> None:
    laws = torch.tensor([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0]]).double()

    def denoiser(x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return laws[cond][:, None].expand(-1, x_t.shape[1], -1)

    x, cond = torch.full((2, 4), 2), torch.tensor([1, 1])
    for scale, odds in ((0.0, 0.6 / 0.4), (1.0, 0.25), (3.0, 0.25**3 / 1.5**2)):
        answer = discrete.LogitGuidance(denoiser, 0, scale)(x, 0.5, cond)
        assert answer.shape == (2, 4, 3) and (answer[..., 2] == 0).all()
        torch.testing.assert_close(answer[..., 0] / answer[..., 1], torch.full((2, 4), odds).double())
    counted = CountCalls(denoiser)
    discrete.LogitGuidance(counted, 0, 2.0)(x, torch.tensor([0.5, 0.2]), cond)
    assert (counted.calls, counted.examples) == (1, 4)
    with pytest.raises(ValueError, match="pass cond="):
        discrete.LogitGuidance(denoiser, 0, 2.0)(x, 0.5)


# ---------------------------------------------------------------------- bits


@quick
@given(bits=st.integers(1, 8), channels=st.integers(1, 3), seed=st.integers(0, 99))
def test_bits_there_and_back(bits: int, channels: int, seed: int) -> None:
    x = integers(2**bits, 2, channels, 3, 4, seed=seed)
    code = discrete.to_bits(x, bits)
    assert code.shape == (2, bits * channels, 3, 4) and set(code.unique().tolist()) <= {-1.0, 1.0}
    assert torch.equal(discrete.from_bits(code, bits), x)
    shaken = code + 0.99 * (2 * torch.rand(code.shape, generator=generator(seed)) - 1)
    assert torch.equal(discrete.from_bits(shaken, bits), x), "what keeps its sign keeps its integer"
    wild = discrete.from_bits(torch.randn(code.shape, generator=generator(seed)), bits)
    assert wild.min() >= 0 and wild.max() < 2**bits


def test_five_in_three_bits() -> None:
    code = discrete.to_bits(torch.tensor([[[5]], [[1]]]), 3)
    assert code[:, :, 0].tolist() == [[1, -1, 1], [-1, -1, 1]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: discrete.to_bits(torch.tensor([[8]]), 3), "3 bits hold the integers 0 to 7; got torch.int64 8 to 8"),
        (lambda: discrete.to_bits(torch.tensor([[0.5]]), 3), "got torch.float32"),
        (lambda: discrete.from_bits(torch.zeros(1, 4, 2, 2), 3), "a multiple of 3 channels"),
        (lambda: discrete.AsymmetricTime(Gaussian(vp_cosine()), -0.1), "from 0 to below 1"),
        (
            lambda: discrete.SelfConditioned(lambda *a: a[0])(torch.zeros(1, 1), 0.5, torch.zeros(1)),
            "cond must be None",
        ),
    ],
)
def test_bad_bits_get_one_clear_sentence(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def remembered(steps: int) -> tuple[list, Tensor]:
    seen: list = []

    def denoiser(x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        seen.append(cond)
        return 0.9 * x_t + (0 if cond is None else 0.1 * cond)

    memory, process = discrete.SelfConditioned(denoiser), Gaussian(vp_cosine())
    for _ in range(2):  # the second trajectory must not see the first
        x = process.prior((3, 2), generator=generator(), dtype=torch.float64)
        drawn = ancestral(memory, process, x, grids.uniform(steps), generator=generator(1))
    return seen, drawn


def test_each_answer_is_shown_to_the_next_call_and_no_trajectory_sees_another() -> None:
    seen, drawn = remembered(4)
    assert [cond is None for cond in seen] == [True, False, False, False] * 2
    assert all(a.equal(b) for a, b in zip(seen[1:4], seen[5:], strict=True))
    answers: list[Tensor] = []

    def again(x_t: Tensor, t: Tensor, cond: None = None) -> Tensor:  # the same by hand
        answers.append(0.9 * x_t + (0.1 * answers[-1] if answers else 0))
        return answers[-1]

    x = Gaussian(vp_cosine()).prior((3, 2), generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(
        drawn, ancestral(again, Gaussian(vp_cosine()), x, grids.uniform(4), generator=generator(1))
    )


def test_memory_ends_with_the_shape_and_by_hand() -> None:
    memory = discrete.SelfConditioned(lambda x, t, cond: torch.full_like(x, 0.0 if cond is None else 1.0))
    assert [memory(torch.zeros(2, 1), t).max().item() for t in (0.9, 0.5, 0.5)] == [0, 1, 1]
    assert memory(torch.zeros(3, 1), 0.4).max() == 0
    memory.reset()
    assert memory(torch.zeros(3, 1), 0.3).max() == 0


def test_a_network_that_ignores_its_answer_is_not_changed_by_it() -> None:
    """Its weights on the image beside are zero: same samples, same loss, whatever share is self-conditioned."""
    net = seeded(Beside, 1, 1, widths=(4,), patch=1)
    net.unet.enter.weight.data[:, 1] = 0

    def model(x: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Tensor:
        return net(x, torch.as_tensor(t).float().expand(len(x)), cond)

    process, x0 = Gaussian(vp_cosine()), torch.randn(4, 1, 4, 4, generator=generator())
    t = torch.linspace(0.2, 0.8, 4).double()
    plain = denoising_loss(model, process, x0, t, generator=generator(2))
    with torch.no_grad():
        samples = [
            ancestral(one, process, x0, grids.uniform(3), generator=generator(1))
            for one in (model, discrete.SelfConditioned(model))
        ]
    torch.testing.assert_close(*samples)
    torch.testing.assert_close(
        discrete.self_conditioned_loss(model, process, x0, t, share=0, generator=generator(2)), plain
    )


def test_the_estimate_is_shown_in_a_share_of_the_batches_and_passes_no_gradient() -> None:
    weight, calls = torch.ones((), requires_grad=True), []

    def model(x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        calls.append(cond)
        return weight * x if cond is None else 0 * x + cond

    process, x0, t = Gaussian(vp_cosine()), torch.ones(2, 1), torch.tensor([0.5, 0.5]).double()
    shares = []
    for seed in range(200):
        calls.clear()
        losses = discrete.self_conditioned_loss(model, process, x0, t, share=0.3, generator=generator(seed))
        shares.append(len(calls) == 2)
        assert len(calls) == 1 or (calls[1] is not None and not losses.requires_grad)
    assert abs(sum(shares) / 200 - 0.3) < 4.5 * math.sqrt(0.3 * 0.7 / 200)


def test_asymmetric_steps_go_further_and_end_clean() -> None:
    seen = []

    class Noted:
        def bridge(self, x_t, x0, t, s, *, generator=None):
            seen.append((round(float(t), 3), round(float(s), 3)))
            return x0

    ancestral(lambda x, t, cond: x, discrete.AsymmetricTime(Noted(), 0.1), torch.zeros(1, 1), grids.uniform(4))
    assert seen == [(1.0, 0.65), (0.75, 0.4), (0.5, 0.15), (0.25, 0.0)]


# ---------------------------------------------------------------------- parallel decoding

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
    with pytest.raises(ValueError, match="fills in masks"):
        discrete.ConfidenceDecoding(uniform(3))
    with pytest.raises(ValueError, match="fills in masks"):
        discrete.ConfidenceDecoding(mask_and_replace(3))
    with pytest.raises(ValueError, match="temperature is not negative"):
        discrete.ConfidenceDecoding(absorbing(3), temperature=-1.0)
    with pytest.raises(ValueError, match="pass generator="):
        discrete.ConfidenceDecoding(absorbing(2)).bridge(torch.full((1, 2), 2), torch.ones(1, 2, 3) / 3, 1.0, 0.5)


# ---------------------------------------------------------------------- one after another


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


# ---------------------------------------------------------------------- continuous time


@each_chain
def test_rates_are_what_the_matrix_grows_from(make) -> None:
    """Kolmogorov's equation d/dt matrix(0, t) = matrix(0, t) R_t, by a difference quotient over another span."""
    chain, t = make(4), torch.tensor(0.4).double()
    found = discrete.rates(chain, t)
    torch.testing.assert_close(found.sum(1), torch.zeros(len(found)).double(), atol=1e-9, rtol=0)
    assert (found - torch.diag(found.diagonal()) >= 0).all()
    zero, h = torch.zeros(()).double(), 1e-4
    slope = (chain.matrix(zero, t + h) - chain.matrix(zero, t - h)) / (2 * h)
    torch.testing.assert_close(chain.matrix(zero, t) @ found, slope, atol=1e-6, rtol=0)


@pytest.mark.parametrize("t", [1.0, -0.1, torch.tensor([0.3, 0.4])])
def test_rates_end_before_the_end(t) -> None:
    with pytest.raises(ValueError, match="rates are finite before t = 1"):
        discrete.rates(uniform(3), t)


@each_chain
def test_reverse_rates_turn_the_marginals_back(make) -> None:
    """``d/dt p_t = -p_t @ reverse`` for the exact denoiser: the master equation of the chain run backwards."""
    chain, t, h = make(3), torch.tensor(0.5).double(), 1e-5
    law, zero = table(3, 1, len(chain.stationary)), torch.zeros(()).double()
    x = torch.arange(len(chain.stationary)).unsqueeze(1)
    back = discrete.reverse_rates(chain, x, law.denoiser(chain)(x, t), t)[:, 0]
    back = back - torch.diag(back.sum(1))

    def marginal(at: Tensor) -> Tensor:
        return law.probabilities @ chain.matrix(zero, at)

    slope = (marginal(t + h) - marginal(t - h)) / (2 * h)
    torch.testing.assert_close(-marginal(t) @ back, slope, atol=1e-6, rtol=0)


def leaped(make, categories: int, steps: int) -> float:
    """Total variation between the data and the exact law of the leaping chain, for one entry: products of matrices."""
    chain = make(categories)
    law = table(categories, 1, len(chain.stationary))
    leaping, denoise = discrete.TauLeaping(chain), law.denoiser(chain)
    now = law.probabilities @ chain.matrix(torch.zeros(()).double(), torch.tensor(discrete.START).double())
    for t, s in pairwise(grids.uniform(steps, start=discrete.START)):
        live = (now > 0).nonzero()
        now = now[live[:, 0]] @ leaping.transition(live, denoise(live, t), t, s)[:, 0]
    assert now.sum().item() == pytest.approx(1)
    return total_variation(now, law.probabilities)


@each_chain
@pytest.mark.parametrize("categories", [3, 7])
def test_leaping_comes_as_close_as_one_likes(make, categories: int) -> None:
    """To the data's law, the faster the more steps: at least of first order from 40 steps on."""
    errors = [leaped(make, categories, steps) for steps in (40, 80, 160, 320)]
    assert all(fine < 0.7 * coarse for coarse, fine in pairwise(errors)) or errors[-1] < 1e-9
    assert errors[-1] < 0.01


def test_two_entries_that_depend_on_each_other_are_leaped_together() -> None:
    """L = 2: the joint law of 9 cells, propagated in full with independent entries in each leap."""
    chain, law = uniform(3), table(3, 2)
    leaping, denoise = discrete.TauLeaping(chain), law.denoiser(chain)
    x = torch.tensor(list(itertools.product(range(3), repeat=2)))

    def error(steps: int) -> float:
        times = grids.uniform(steps, start=discrete.START)
        now = law.log_prob(x, times[0], chain).exp()
        for t, s in pairwise(times):
            each = leaping.transition(x, denoise(x, t), t, s)  # (9, 2, 3)
            now = now @ torch.einsum("bi,bj->bij", each[:, 0], each[:, 1]).flatten(1)
        return total_variation(now, law.probabilities.flatten())

    errors = [error(steps) for steps in (25, 50, 100, 200)]
    assert all(fine < 0.7 * coarse for coarse, fine in pairwise(errors)) and errors[-1] < 0.02


@each_chain
def test_a_drawn_leap_has_the_law_that_is_written_out(make) -> None:
    chain, t, s = make(3), 0.6, 0.4
    states, count = len(chain.stationary), 20_000
    leaping, denoise = discrete.TauLeaping(chain), table(3, 1, states).denoiser(chain)
    for start in range(states):
        x = torch.full((count, 1), start)
        answer = denoise(x[:1], t)
        law = leaping.transition(x[:1], answer, t, s)[0, 0]
        drawn = leaping.bridge(x, answer.expand(count, 1, states), t, s, generator=generator(start))
        frequency = torch.bincount(drawn[:, 0], minlength=states) / count
        assert ((frequency - law).abs() < 4.5 * (law * (1 - law) / count).sqrt() + 1e-9).all()


def test_ordered_jumps_add_up_and_stay_in_range() -> None:
    """From 1 with means 2 up by one and 1 up by two: the sum is Poisson + 2 Poisson, clamped at the top."""
    means = torch.zeros(20_000, 1, 4).double()
    means[..., 2], means[..., 3] = 0.7, 0.3
    x = discrete.tau_leap(torch.ones(20_000, 1, dtype=torch.long), means, True, generator=generator())
    none, one = math.exp(-1), 0.7 * math.exp(-1)
    expected = torch.tensor([0, none, one, 1 - none - one]).double()
    frequency = torch.bincount(x[:, 0], minlength=4) / len(x)
    assert ((frequency - expected).abs() < 4.5 * (expected * (1 - expected) / len(x)).sqrt() + 1e-9).all()


def test_ordered_leaping_converges_too() -> None:
    """By sampling: with 150 steps the law of one entry is met within its noise and a first-order error."""
    chain, count = discretised_gaussian(5), 20_000
    law = table(5, 1)
    x = chain.prior((count, 1), generator=generator())
    times = grids.uniform(150, start=discrete.START)
    drawn = discrete.tau_leaping(law.denoiser(chain), chain, x, times, ordinal=True, generator=generator(1))
    assert total_variation(frequencies(drawn, law), law.probabilities) < 0.03


def test_corrections_leave_the_right_law_alone_and_mend_a_wrong_one() -> None:
    """A corrector leap at level s from the exact marginal stays near it; from elsewhere it moves closer."""
    chain, s = uniform(4, cosine_survival), torch.tensor(0.5).double()
    law = table(4, 1)
    x = torch.arange(4).unsqueeze(1)
    right = law.log_prob(x, s, chain).exp()
    out = discrete.rates(chain, s).fill_diagonal_(0)
    back = discrete.reverse_rates(chain, x, law.denoiser(chain)(x, s), s)[:, 0]
    generator_matrix = out + back - torch.diag((out + back).sum(1))
    torch.testing.assert_close(right @ generator_matrix, torch.zeros(4).double(), atol=1e-8, rtol=0)
    wrong = torch.tensor([1.0, 0, 0, 0]).double()
    errors = [total_variation(wrong @ torch.matrix_exp(time * generator_matrix), right) for time in (0, 0.1, 1, 5)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.01


def test_correctors_mend_few_leaps() -> None:
    """Ten leaps miss by more than ten leaps with two corrections each, which ask three times as often."""
    chain, count = uniform(4), 20_000
    law = table(4, 1)
    times = grids.uniform(10, start=discrete.START)
    x = chain.prior((count, 1), generator=generator())
    errors = []
    for corrections in (0, 2):
        counted = CountCalls(law.denoiser(chain))
        drawn = discrete.tau_leaping(
            counted, chain, x, times, corrections=corrections, reach=0.5, generator=generator(1)
        )
        errors.append(total_variation(frequencies(drawn, law), law.probabilities))
        assert counted.calls == 10 * (1 + corrections) - corrections
    assert errors[1] < errors[0]


def test_without_corrections_the_sampler_is_the_ordinary_loop() -> None:
    chain, law = absorbing(3), table(3, 2, 4)
    x, times = chain.prior((50, 2), generator=generator()), grids.uniform(5, start=discrete.START)
    by_loop = ancestral(law.denoiser(chain), discrete.TauLeaping(chain), x, times, generator=generator(1))
    assert torch.equal(by_loop, discrete.tau_leaping(law.denoiser(chain), chain, x, times, generator=generator(1)))
    assert by_loop.max() < 3


def test_leaps_refuse_what_they_cannot_do() -> None:
    chain, x = uniform(3), torch.tensor([[0]])
    answer = torch.ones(1, 1, 3) / 3
    with pytest.raises(ValueError, match="not written out"):
        discrete.TauLeaping(chain, ordinal=True).transition(x, answer, 0.5, 0.4)
    with pytest.raises(ValueError, match="pass generator="):
        discrete.TauLeaping(chain).bridge(x, answer, 0.5, 0.4)
    with pytest.raises(ValueError, match="logits want a softmax"):
        discrete.reverse_rates(chain, x, answer - 1, 0.5)
    with pytest.raises(ValueError, match=r"start at 0\.99"):
        discrete.TauLeaping(chain).bridge(x, answer, 1.0, 0.4, generator=generator())
