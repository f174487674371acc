"""Networks as denoisers of categories, their losses and bounds, by enumeration."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from survey_lib.core import grids
from survey_lib.core.categorical import (
    absorbing,
    posterior_without_bayes,
    uniform,
)
from survey_lib.core.exact import CategoricalTable
from survey_lib.core.losses import step_kl, variational_bound
from survey_lib.design import discrete
from survey_lib.lab.evaluation.cost import CountCalls
from survey_lib.nets.transformer import Transformer
from survey_lib.nets.unet import UNet
from tests.design.discrete.support import each_chain, integers, table
from tests.support import generator, nonzero


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
    denoiser = discrete.CategoricalDenoiser(nonzero(Transformer, states, 3, 6, width=8, heads=2), chain, 3)
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
    net = nonzero(Transformer, 4, 4, 3, width=8, heads=2)
    x_t = integers(4, 5, 3)
    with torch.no_grad():
        whole = discrete.CategoricalDenoiser(net, chain, 4)(x_t, t)
        context = discrete.CategoricalDenoiser(net, chain, 4, evidence=False)(x_t, t)
    right = chain.posterior(x_t, whole, t, s)
    torch.testing.assert_close(posterior_without_bayes(chain, x_t, context, t, s), right, atol=1e-6, rtol=0)
    assert (posterior_without_bayes(chain, x_t, whole, t, s) - right).abs().max() > 0.02


def test_a_mask_or_none_is_accepted_and_nothing_else() -> None:
    with pytest.raises(ValueError, match="5 states has 5 categories, or 4 and a mask; got 3"):
        discrete.CategoricalDenoiser(UNet(5, widths=(4,)), uniform(5), 3)


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
    chain, net = absorbing(3), nonzero(Transformer, 4, 3, 5, width=8, heads=2)
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
    net = nonzero(UNet, len(chain.stationary), widths=(4,))
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
    with pytest.raises(ValueError, match="steps is at least 1; got 0"):
        discrete.chain_steps(5, 0, generator=generator())


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
