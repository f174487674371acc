"""Score matching: the four losses agree, by quadrature and by algebra, on which score is the best one."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from survey_lib.core.exact import GaussianLaw, GaussianMixture
from survey_lib.core.schedules import edm
from survey_lib.design import score as scores
from survey_lib.design.score import ScoreNet, denoising, explicit, fit, implicit, sliced
from tests.support import generator

close = partial(torch.testing.assert_close, rtol=1e-8, atol=1e-8)
TARGET = GaussianMixture(
    torch.tensor([[-0.5, 0.2], [0.4, -0.1], [0.0, 0.6]]),
    covs=torch.tensor([[[0.30, 0.1], [0.1, 0.2]], [[0.25, 0.0], [0.0, 0.3]], [[0.4, -0.15], [-0.15, 0.2]]]).double(),
    weights=torch.tensor([0.5, 0.2, 0.3]),
)
SIGNS = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)


def gauss_hermite(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights, (N, 2) and (N,), of the mean over ``N(0, I)`` in the plane."""
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(count))
    return torch.cartesian_prod(nodes, nodes), torch.cartesian_prod(weights, weights).prod(1) / (2 * math.pi)


def data(count: int = 64) -> tuple[Tensor, Tensor]:
    """Points and weights whose sums are means over TARGET, component by component."""
    z, share = gauss_hermite(count)
    root = TARGET._axes @ TARGET.variances.sqrt().diag_embed()
    points = torch.cat([mean + z @ one.T for mean, one in zip(TARGET.means, root, strict=True)])
    return points, torch.cat([w * share for w in TARGET.weights])


class Family(nn.Module):
    """Scores around the true one: the true score of TARGET (noised by sigma), and 7 features with coefficients."""

    def __init__(self, sigma: float = 0.0):
        super().__init__()
        self.coefficients = nn.Parameter(torch.zeros(7, 2, dtype=torch.float64))
        self.sigma = sigma

    def truth(self, x: Tensor) -> Tensor:
        return TARGET.score(x, self.sigma / 10.0, edm(10.0)) if self.sigma else TARGET.score(x)

    def forward(self, x: Tensor) -> Tensor:
        one, (a, b) = torch.ones_like(x[:, 0]), x.unbind(1)
        features = torch.stack([one, a, b, a * b, a**2 - b**2, torch.tanh(a), torch.sin(2 * b)], 1)
        return self.truth(x) + features @ self.coefficients


def mean(loss, weights: Tensor) -> Tensor:
    return (loss * weights).sum()


def all_directions(score, x, **options):
    """`sliced` averaged over every direction that signs allow: no chance is left."""
    every = SIGNS[:, None].expand(4, *x.shape)
    return sliced(score, x, directions=every, **options)


LOSSES = {
    "explicit": lambda score, x: explicit(score, x, TARGET.score),
    "implicit": implicit,
    "sliced": partial(all_directions, reduced=False),
    "sliced, reduced": all_directions,
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_true_score_is_the_minimiser(name):
    """At the exact answer the gradient is zero in every direction of the family, and the loss goes up all around."""
    (x, weights), family, loss = data(), Family(), LOSSES[name]
    least = mean(loss(family, x), weights)
    (slope,) = torch.autograd.grad(least, family.parameters())
    close(slope, torch.zeros_like(slope), rtol=0, atol=1e-5)
    source = generator()
    for _ in range(5):
        with torch.no_grad():
            family.coefficients.copy_(0.3 * torch.randn(7, 2, generator=source, dtype=torch.float64))
        assert mean(loss(family, x), weights) > least + 1e-3


@pytest.mark.parametrize("name", ["implicit", "sliced", "sliced, reduced"])
def test_the_losses_differ_from_the_explicit_one_by_the_same_constant(name):
    """``1/2 E |grad log p|^2`` (Hyvärinen 2005, theorem 1), whatever the score."""
    (x, weights), family = data(), Family()
    constant = 0.5 * mean(TARGET.score(x).square().sum(1), weights)
    source = generator(1)
    for _ in range(4):
        with torch.no_grad():
            family.coefficients.copy_(torch.randn(7, 2, generator=source, dtype=torch.float64))
        found, wanted = (mean(LOSSES[one](family, x), weights).detach() for one in (name, "explicit"))
        torch.testing.assert_close(found, wanted - constant, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.1, 0.6])
def test_denoising_learns_the_score_of_the_noised_data(sigma):
    """Its gradient vanishes at the score of ``p * N(0, sigma^2)``, not at that of p; and it differs by a constant."""
    (x0, weights), (z, share) = data(16), gauss_hermite(12)
    pairs, noise = x0.repeat_interleave(len(z), 0), z.repeat(len(x0), 1)
    both = weights.repeat_interleave(len(z)) * share.repeat(len(x0))
    family = Family(sigma)
    least = mean(denoising(family, pairs, sigma, noise=noise), both)
    (slope,) = torch.autograd.grad(least, family.parameters())
    close(slope, torch.zeros_like(slope), rtol=0, atol=2e-4)
    clean = Family()
    (off,) = torch.autograd.grad(mean(denoising(clean, pairs, sigma, noise=noise), both), clean.parameters())
    assert off.abs().max() > 20 * slope.abs().max()
    with torch.no_grad():
        family.coefficients.normal_(generator=generator(2))
    noised = pairs + sigma * noise
    apart = mean(explicit(family, noised, family.truth), both)
    rise = mean(denoising(family, pairs, sigma, noise=noise), both) - least
    torch.testing.assert_close(rise, apart, rtol=1e-3, atol=0)


def test_reduced_slices_agree_in_the_mean_and_scatter_less():
    (x, _), family = data(), Family()
    with torch.no_grad():
        family.coefficients.normal_(generator=generator(3))
    few = x[::997]
    rough, smooth = (
        torch.stack([sliced(family, few, directions=v.expand(1, *few.shape), reduced=reduced) for v in SIGNS])
        for reduced in (False, True)
    )
    close(rough.mean(0), smooth.mean(0))
    close(smooth.mean(0), implicit(family, few))
    assert smooth.var(0).sum() < rough.var(0).sum()


def test_one_direction_is_exact_on_a_line():
    def score(x):
        return torch.sin(x) - x

    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    close(sliced(score, x, generator=generator()), implicit(score, x))


def test_losses_take_images_and_keep_examples_apart():
    def score(x):
        return -x * x.square()

    source = generator()
    x = torch.randn(3, 1, 2, 2, generator=source, dtype=torch.float64)
    exact = (0.5 * x**6 - 3 * x**2).flatten(1).sum(1)
    close(implicit(score, x), exact)
    close(sliced(score, x, slices=2, generator=source), exact)  # the Jacobian is diagonal: signs cancel
    noise = torch.randn(x.shape, generator=source, dtype=torch.float64)
    together = denoising(score, x, 0.5, noise=noise)
    close(together, torch.cat([denoising(score, x[i : i + 1], 0.5, noise=noise[i : i + 1]) for i in range(3)]))
    with torch.no_grad():
        close(implicit(score, x), exact)


def test_a_score_without_a_graph_is_refused():
    with pytest.raises(RuntimeError, match="detached from x"):
        implicit(lambda x: x.detach(), torch.ones(2, 2))
    with pytest.raises(ValueError, match="sigma must be positive; got"):
        denoising(lambda x: x, torch.ones(2, 2), 0.0)


@pytest.mark.parametrize("name", ["denoising", "implicit", "sliced"])
def test_a_small_network_learns_the_score_from_samples(name):
    """Within a fifth of the score's own size, on the plane, in a second or two; before, it is off by all of it."""
    source = generator()
    sigma = 0.3 if name == "denoising" else 0.0

    def loss(score, x):
        if name == "denoising":
            return denoising(score, x, sigma, generator=source)
        return implicit(score, x) if name == "implicit" else sliced(score, x, generator=source)

    torch.manual_seed(0)
    net = ScoreNet(2, width=32)
    losses = fit(net, loss, lambda: TARGET.sample(256, generator=source), steps=200, rate=5e-3)
    schedule = edm(10.0)
    x = TARGET.sample(500, generator=source, dtype=torch.float64)
    x = x + sigma * torch.randn(x.shape, generator=source, dtype=torch.float64)
    exact = TARGET.score(x, sigma / 10, schedule) if sigma else TARGET.score(x)
    with torch.no_grad():
        error = (net(x.float()) - exact).square().sum() / exact.square().sum()
    assert len(losses) == 200 and error < 0.1


def test_a_diverging_training_says_so():
    net = ScoreNet(2, width=8)
    with pytest.raises(FloatingPointError, match="not finite at step 0"):
        fit(net, lambda score, x: score(x).sum(1) / 0.0 * 0.0, lambda: torch.ones(2, 2), steps=2)


LAW = GaussianMixture(
    torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), scales=torch.tensor([0.1, 0.2]), weights=torch.tensor([0.75, 0.25])
)


def test_a_vote_scatters_as_calculus_says_on_a_normal_law():
    """For N(0, 1) and noise s the score is -x / (1 + s^2); the derivative of each loss is a quadratic in normals."""
    noise, n = 0.8, 200_000
    law = GaussianLaw(torch.zeros(1), 1.0)
    slope = partial(law.score, t=noise, schedule=edm(1.0))
    losses = scores.noised_losses(noise, generator())
    x0 = law.sample(n, generator=generator(1), dtype=torch.float64)
    found = {name: scores.gradient_noise(loss, slope, x0) for name, loss in losses.items()}
    # implicit, and sliced on a line: x^2 / T^2 - 1 / T, of deviation sqrt(2) / T, over the curvature 1 / T
    assert found["implicit"] == pytest.approx(math.sqrt(2), rel=0.02)
    assert found["sliced"] == pytest.approx(math.sqrt(2), rel=0.02)
    # denoising: (z / s - x / T) times -x / T; the two factors are independent, of variances 1 / (s^2 T) and 1 / T
    assert found["denoising"] == pytest.approx(1 / noise, rel=0.02)


def test_the_losses_of_noised_data_agree_on_the_best_score():
    """On average the derivative in theta at the exact score is 0 for every one of them."""
    g, sigma, n = generator(), 0.5, 40_000
    x0 = LAW.sample(n, generator=g, dtype=torch.float64)
    slope = partial(LAW.score, t=sigma, schedule=edm(1.0))
    power = slope(x0 + sigma * torch.randn(x0.shape, generator=g, dtype=x0.dtype)).square().sum(1).mean()
    for name, loss in scores.noised_losses(sigma, g).items():
        theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
        value = loss(lambda x, theta=theta: (1 + theta) * slope(x), x0).mean()
        (pull,) = torch.autograd.grad(value, theta)
        spread = scores.gradient_noise(loss, slope, x0[:4000]) * power
        assert abs(pull) < 5 * spread / math.sqrt(n), name
