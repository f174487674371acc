"""Losses and bounds against what they must equal: each other up to weights, closed forms, and enumerated laws."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from survey_lib.core.categorical import absorbing, discretised_gaussian, mask_and_replace, uniform
from survey_lib.core.corruptions import Gaussian, analytic_variance, chain_variance
from survey_lib.core.exact import CategoricalTable, Empirical, GaussianLaw
from survey_lib.core.heads import skip_out
from survey_lib.core.likelihood import bits_per_dim
from survey_lib.core.losses import (
    Bound,
    continuous_bound,
    denoising_loss,
    edm_weight,
    eps_weight,
    lognormal_times,
    prior_kl,
    reconstruction,
    step_kl,
    stratified_times,
    uniform_times,
    v_weight,
    variational_bound,
)
from survey_lib.core.schedules import edm, rectified, ve, vp_cosine, vp_linear
from tests.support import generator

SCHEDULES = [vp_linear(), vp_cosine(), edm(), rectified(), ve()]
PRESERVING = [vp_linear(), vp_cosine()]
name = dict(ids=lambda s: s.name)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def times(count: int, start: float = 1.0) -> Tensor:
    return torch.linspace(start, 0, count + 1, dtype=torch.float64)


def mistaken(x_t: Tensor, t: Tensor, cond=None) -> Tensor:
    return 0.3 * x_t + 0.1


class TestOneErrorManyWeights:
    """The same mistaken denoiser judged in noise, velocity, EDM's target and data: one number, up to a weight."""

    T = torch.tensor([0.02, 0.2, 0.5, 0.8, 0.97]).double()
    X0, EPS = random(5, 4, seed=3), random(5, 4, seed=8)  # 8 seeds the loss too

    def loss(self, schedule, weight) -> Tensor:
        w = weight(schedule.lam(self.T))
        return denoising_loss(mistaken, Gaussian(schedule), self.X0, self.T, weight=w, generator=generator(8))

    def states(self, schedule) -> tuple[Tensor, ...]:
        alpha, sigma = schedule.scales(self.T, like=self.X0)
        x_t = alpha * self.X0 + sigma * self.EPS
        return alpha, sigma, x_t, mistaken(x_t, self.T)

    @pytest.mark.parametrize("schedule", SCHEDULES, **name)
    def test_noise(self, schedule) -> None:
        _, _, x_t, guess = self.states(schedule)
        error = (self.EPS - Gaussian(schedule).eps(x_t, guess, self.T)).square().mean(1)
        torch.testing.assert_close(self.loss(schedule, eps_weight), error, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("schedule", PRESERVING, **name)
    def test_velocity(self, schedule) -> None:
        alpha, sigma, x_t, guess = self.states(schedule)
        guessed_v = alpha * (x_t - alpha * guess) / sigma - sigma * guess
        error = (alpha * self.EPS - sigma * self.X0 - guessed_v).square().mean(1)
        torch.testing.assert_close(self.loss(schedule, v_weight), error, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("schedule", SCHEDULES, **name)
    def test_edm_output(self, schedule) -> None:
        alpha, sigma, x_t, guess = self.states(schedule)
        skip, out = skip_out("edm", alpha, sigma, 0.7)
        error = ((self.X0 - skip * x_t) / out - (guess - skip * x_t) / out).square().mean(1)
        torch.testing.assert_close(self.loss(schedule, partial(edm_weight, sigma_data=0.7)), error, rtol=1e-11, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("schedule", SCHEDULES, **name)
def test_a_data_set_of_one_point_has_no_loss_at_all(schedule, dtype: torch.dtype) -> None:
    point = random(1, 3).to(dtype)
    t = torch.linspace(0.01, 1, 8, dtype=torch.float64)
    model = Empirical(point).denoiser(schedule)
    loss = denoising_loss(model, Gaussian(schedule), point.expand(8, 3), t, generator=generator())
    assert loss.dtype == dtype and torch.equal(loss, torch.zeros(8, dtype=dtype))


@pytest.mark.parametrize("schedule", SCHEDULES, **name)
def test_the_least_loss_is_the_variance_that_noise_hides(schedule) -> None:
    """On normal data of variance w the exact denoiser errs by ``w sigma^2 / (alpha^2 w + sigma^2)``, and no less."""
    w, law, t = 0.3, GaussianLaw(torch.zeros(1), 0.3), torch.full((20000,), 0.4).double()
    alpha, sigma = schedule.scales(0.4)
    x0 = law.sample(len(t), generator=generator(), dtype=torch.float64)
    loss = denoising_loss(law.denoiser(schedule), Gaussian(schedule), x0, t, generator=generator(1))
    assert abs(loss.mean() - w * sigma**2 / (alpha**2 * w + sigma**2)) < 4.5 * loss.std() / len(t) ** 0.5


def test_conditions_and_shapes_pass_through() -> None:
    def model(x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        assert x_t.shape == (2, 1, 4, 4) and t.shape == (2,)
        return cond

    x0, t = random(2, 1, 4, 4), torch.tensor([0.2, 0.6])
    loss = denoising_loss(
        model, Gaussian(edm()), x0, t, cond=x0 + torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1), generator=generator()
    )
    torch.testing.assert_close(loss, torch.tensor([1.0, 9.0]).double())


def test_times_are_where_they_should_be() -> None:
    slices = stratified_times(50, generator=generator()) * 50
    assert torch.equal(slices.floor(), torch.arange(50).double())
    plain = uniform_times(20000, generator=generator())
    assert plain.min() >= 0 and plain.max() < 1 and abs(plain.mean() - 0.5) < 4.5 / (12 * 20000) ** 0.5
    for schedule in (edm(), rectified(), vp_cosine()):
        t = lognormal_times(20000, schedule, mean=-1.0, std=0.8, generator=generator())
        noise = -schedule.lam(t)
        assert abs(noise.mean() + 1.0) < 4.5 * 0.8 / 20000**0.5 and noise.std().item() == pytest.approx(0.8, rel=0.03)


# --- the variational bound, Gaussian -------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES, **name)
def test_a_step_of_the_chain_costs_half_the_gain_in_snr(schedule) -> None:
    """VDM, eq. 13, from `step_kl`, which knows only of means and variances."""
    x0, x0_hat = random(3, 4), random(3, 4, seed=1)
    for t, s in pairwise((0.9, 0.6, 0.2)):
        gain = torch.exp(2 * schedule.lam(s)) - torch.exp(2 * schedule.lam(t))
        cost = step_kl(Gaussian(schedule), x0, x0, x0_hat, t, s)
        torch.testing.assert_close(cost, 0.5 * gain * (x0 - x0_hat).square().sum(1), rtol=1e-9, atol=0)


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("variance", [None, chain_variance, torch.rand(3, 4, generator=generator()) + 0.1])
def test_a_step_costs_the_divergence_of_two_normal_laws(eta: float, variance) -> None:
    x_t, x0, x0_hat = random(3, 4), random(3, 4, seed=1), random(3, 4, seed=2)
    t, s = torch.tensor([0.5, 0.7, 0.9]).double(), torch.tensor([0.4, 0.2, 0.8]).double()
    sampler, bridge = Gaussian(vp_linear(), eta, variance), Gaussian(vp_linear(), eta)

    def law(corruption: Gaussian, x0: Tensor) -> torch.distributions.Normal:
        on_x_t, on_x0, v = (c.reshape(3, -1) for c in corruption.coefficients(t, s))
        return torch.distributions.Normal(on_x_t * x_t + on_x0 * x0, v.double().sqrt())

    expected = torch.distributions.kl_divergence(law(bridge, x0), law(sampler, x0_hat)).sum(1)
    torch.testing.assert_close(step_kl(sampler, x_t, x0, x0_hat, t, s), expected, rtol=1e-9, atol=1e-12)


def quadrature(width: float, schedule, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes (x0, x_t) and weights that integrate every quadratic over ``x0 ~ N(0, width), x_t ~ q(x_t | x0)``."""
    node, weight = torch.tensor([[-(3**0.5), 0, 3**0.5], [1 / 6, 4 / 6, 1 / 6]], dtype=torch.float64)
    x0, eps = torch.meshgrid(node, node, indexing="ij")
    alpha, sigma = schedule.scales(t)
    x0 = width**0.5 * x0.reshape(-1, 1)
    return x0, alpha * x0 + sigma * eps.reshape(-1, 1), torch.outer(weight, weight).flatten()


@pytest.mark.parametrize("schedule", SCHEDULES, **name)
@pytest.mark.parametrize("count", [2, 5])
def test_the_bound_of_a_short_chain_on_normal_data_is_the_entropy(schedule, count: int) -> None:
    """With exact means and the analytic variance every reverse step is the true one, so the bound is tight.

    Its mean over the data is then the entropy ``log(2 pi e w) / 2`` plus the divergence of the law of the first
    state from the prior, both in closed form; every term is a quadratic, and three nodes a variable integrate it.
    """
    width, start = 0.3, 0.95
    law = GaussianLaw(torch.zeros(1), width)

    def mean_square_eps(t: Tensor) -> Tensor:
        alpha, sigma = schedule.scales(t)
        return sigma**2 / (alpha**2 * width + sigma**2)

    corruption = Gaussian(schedule, variance=partial(analytic_variance, mean_square_eps=mean_square_eps))
    grid, total = times(count, start), torch.zeros((), dtype=torch.float64)
    for t, s in pairwise(grid):
        x0, x_t, weight = quadrature(width, schedule, t)
        answer = law.denoiser(schedule)(x_t, t)
        if s > 0:
            total += weight @ step_kl(corruption, x_t, x0, answer, t, s)
        else:
            total += weight @ reconstruction(corruption, x_t, x0, answer, t, bin_width=None)
    x0, _, weight = quadrature(width, schedule, grid[0])
    total += weight @ prior_kl(corruption, x0, grid[0])
    alpha, sigma = schedule.scales(grid[0])
    growth = (alpha**2 * width + sigma**2) / sigma**2
    expected = 0.5 * math.log(2 * math.pi * math.e * width) + 0.5 * (growth - 1 - growth.log())
    torch.testing.assert_close(total, expected, rtol=1e-8, atol=1e-8)


def test_the_estimate_has_the_mean_of_its_terms() -> None:
    """`variational_bound` draws what the test above integrates; here the average of many draws, term by term."""
    schedule, law, count = vp_cosine(), GaussianLaw(torch.zeros(1), 0.3), 20000
    corruption, grid = Gaussian(schedule, 0.8, chain_variance), times(3, 0.95)
    x0 = law.sample(count, generator=generator(), dtype=torch.float64)
    bound = variational_bound(law.denoiser(schedule), corruption, x0, grid, bin_width=None, generator=generator(1))
    assert bound.steps.shape == (count, 2)
    columns = [bound.prior, *bound.steps.T, bound.reconstruction]
    for i, column in enumerate(columns):
        t = grid[max(i - 1, 0)]
        nodes, x_t, weight = quadrature(0.3, schedule, t)
        answer = law.denoiser(schedule)(x_t, t)
        if i == 0:
            terms = prior_kl(corruption, nodes, t)
        elif i < 3:
            terms = step_kl(corruption, x_t, nodes, answer, t, grid[i])
        else:
            terms = reconstruction(corruption, x_t, nodes, answer, t, bin_width=None)
        assert abs(column.mean() - weight @ terms) < 4.5 * column.std() / count**0.5
    torch.testing.assert_close(bound.total, sum(columns))


def test_many_steps_approach_the_continuous_bound() -> None:
    """Steps add up to ever less, down to an integral: ``log((1 + w SNR_0) / (1 + w SNR_1)) / 2`` for normal data."""
    schedule, width, low = vp_cosine(), 0.3, 0.05
    law = GaussianLaw(torch.zeros(1), width)
    snr = torch.exp(2 * schedule.lam(torch.tensor([low, 0.95]).double()))
    exact = 0.5 * (torch.log1p(width * snr[0]) - torch.log1p(width * snr[1]))
    gaps = []
    for count in (20, 40, 80):
        total = 0.0
        for t, s in pairwise(torch.linspace(0.95, float(low), count + 1, dtype=torch.float64)):
            x0, x_t, weight = quadrature(width, schedule, t)
            total += weight @ step_kl(Gaussian(schedule), x_t, x0, law.denoiser(schedule)(x_t, t), t, s)
        gaps.append((total - exact).item())
    assert gaps[0] > gaps[1] > gaps[2] > 0  # a finer chain says more of the data
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.1)
    x0 = law.sample(20000, generator=generator(), dtype=torch.float64)
    draws = continuous_bound(law.denoiser(schedule), schedule, x0, t_min=low, t_max=0.95, generator=generator(1))
    assert abs(draws.mean() - exact) < 4.5 * draws.std() / 20000**0.5


def test_the_continuous_bound_does_not_see_the_schedule() -> None:
    """Between equal ends of lam, three schedules give the same value (VDM, sec. 5.1), example by example."""
    law, x0, values = GaussianLaw(torch.zeros(2), 0.3), 0.5 * random(200, 2), []
    for schedule in (vp_linear(), rectified(), edm()):
        ends = {end: schedule.time(lam).item() for end, lam in (("t_min", 3.0), ("t_max", -3.0))}
        values.append(continuous_bound(law.denoiser(schedule), schedule, x0, **ends, generator=generator()))
    torch.testing.assert_close(values[0], values[1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(values[0], values[2], rtol=1e-6, atol=1e-6)


def test_the_bins_of_a_lattice_share_out_all_probability() -> None:
    """DDPM, eq. 13: the probabilities of all 256 values sum to 1, whatever the answer; a far bin has its exact log."""
    lattice = torch.linspace(-1, 1, 256, dtype=torch.float64).unsqueeze(1)
    for answer, t in ((0.1, 0.3), (-1.4, 0.1), (0.99, 0.9)):
        nats = reconstruction(Gaussian(vp_cosine()), lattice, lattice, torch.full_like(lattice, answer), t)
        assert torch.exp(-nats).sum().item() == pytest.approx(1, abs=1e-12)
    far = reconstruction(Gaussian(rectified()), lattice[:1], lattice[200:201], torch.full((1, 1), -0.9).double(), 0.01)
    distance = (
        lattice[200, 0].item() - torch.tensor(-0.9).item()
    )  # 147 standard deviations: a naive difference of cdfs is log 0
    inner = (distance - 1 / 255) / 0.01
    asymptote = inner**2 / 2 + math.log(inner * math.sqrt(2 * math.pi))  # Mills' ratio, to 1 / inner^2
    assert far.item() == pytest.approx(asymptote, abs=1e-4)


def test_a_narrow_bin_is_a_density() -> None:
    x0, answer, width = random(5, 2) * 0.3, random(5, 2, seed=1) * 0.3, 1e-6
    args = Gaussian(vp_cosine()), x0, x0, answer, 0.3
    density, narrow = reconstruction(*args, bin_width=None), reconstruction(*args, bin_width=width)
    torch.testing.assert_close(narrow + 2 * math.log(width), density, rtol=0, atol=1e-6)


def test_one_point_and_its_denoiser_leave_only_the_two_ends() -> None:
    point = torch.full((4, 3), 0.25).double()
    bound = variational_bound(
        Empirical(point[:1]).denoiser(vp_cosine()), Gaussian(vp_cosine()), point, times(4), generator=generator()
    )
    assert torch.equal(bound.steps, torch.zeros(4, 3).double())
    assert bound.prior.max() < 1e-30  # cos(pi / 2) in float64 is 6e-17


# --- the variational bound, categories: all by enumeration ----------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize(
    "corruption", [uniform(4), absorbing(4), mask_and_replace(4), discretised_gaussian(4)], ids=["u", "a", "m", "g"]
)
def test_the_bound_of_a_tiny_chain_is_the_entropy(corruption, count: int) -> None:
    """With the exact denoiser the bound, averaged over every x0 and x_t with its probability, is the data's entropy."""
    states = len(corruption.stationary)
    law = torch.zeros(states, dtype=torch.float64)
    law[:4] = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    denoise, x0 = CategoricalTable(law).denoiser(corruption), torch.arange(4).unsqueeze(1)
    total = law[:4] @ prior_kl(corruption, x0)
    for t, s in pairwise(times(count)):
        joint = law[:4].unsqueeze(1) * corruption.marginal(x0, t)[:, 0]  # p(x0, x_t)
        i, x_t = (joint > 0).nonzero().T.unsqueeze(-1)
        answer = denoise(x_t, t)
        term = step_kl if s > 0 else lambda *a: reconstruction(*a[:5])
        total += joint[i[:, 0], x_t[:, 0]] @ term(corruption, x_t, i, answer, t, s)
    torch.testing.assert_close(total, -(law[:4] * law[:4].log()).sum(), rtol=0, atol=1e-12)


def test_the_estimate_for_categories_has_the_mean_of_its_terms() -> None:
    """Many draws of `variational_bound` average to the entropy too, with shapes as for images of two entries."""
    corruption, count = uniform(3), 20000
    table = CategoricalTable(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))
    single = table.denoiser(corruption)

    def denoise(x_t: Tensor, t: Tensor, cond=None) -> Tensor:  # two entries, each of the same law
        return single(x_t.reshape(-1, 1), t).reshape(*x_t.shape, 3)

    x0 = table.sample(2 * count, generator=generator()).reshape(count, 2)
    bound = variational_bound(denoise, corruption, x0, times(4), generator=generator(1))
    entropy = -(table.probabilities * table.probabilities.log()).sum()
    assert abs(bound.total.mean() - 2 * entropy) < 4.5 * bound.total.std() / count**0.5
    assert bits_per_dim(bound.total, x0[0].numel()).mean().item() == pytest.approx(
        entropy.item() / math.log(2), rel=0.03
    )


def test_a_worse_denoiser_has_a_worse_bound() -> None:
    corruption, x0 = absorbing(3), torch.randint(0, 2, (2000, 1), generator=generator())
    good, bad = (
        CategoricalTable(torch.tensor(p)).denoiser(corruption) for p in ([0.5, 0.5, 0.0, 0.0], [0.9, 0.05, 0.05, 0.0])
    )
    totals = [variational_bound(d, corruption, x0, times(5), generator=generator(1)).total.mean() for d in (good, bad)]
    assert totals[0].item() == pytest.approx(math.log(2), abs=0.05) and totals[1] > totals[0] + 0.5


def test_a_bound_of_one_step_has_no_steps_between() -> None:
    bound = variational_bound(mistaken, Gaussian(rectified()), random(3, 2), times(1), generator=generator())
    assert isinstance(bound, Bound) and bound.steps.shape == (3, 0)
    torch.testing.assert_close(bound.total, bound.prior + bound.reconstruction)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: variational_bound(mistaken, Gaussian(edm()), random(2, 2), times(3)), "pass generator="),
        (
            lambda: variational_bound(mistaken, Gaussian(edm(), 0.0), random(2, 2), times(3), generator=generator()),
            "eta > 0",
        ),
        (lambda: variational_bound(mistaken, Gaussian(edm()), random(2, 2), torch.tensor([1.0, 0.5])), "ends at 0"),
        (
            lambda: variational_bound(mistaken, Gaussian(edm()), random(2, 2), torch.tensor([0.0, 1.0])),
            "falls strictly",
        ),
        (lambda: step_kl(Gaussian(edm()), random(2, 2), random(2, 2), random(2, 2), 0.5, 0.0), "sigma_s > 0"),
        (lambda: continuous_bound(mistaken, edm(), random(2, 2), t_min=0.0, generator=generator()), "finite lam"),
        (lambda: continuous_bound(mistaken, rectified(), random(2, 2), generator=generator()), "finite lam"),
        (lambda: denoising_loss(mistaken, Gaussian(edm()), random(2, 2), torch.tensor([0.5, 0.5])), "pass generator="),
    ],
)
def test_bad_input_gets_one_clear_sentence(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
