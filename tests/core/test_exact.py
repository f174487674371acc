"""Exact models against independent mathematics: quadrature, gradients, conditioning, enumeration."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from survey_lib.core import toys
from survey_lib.core.categorical import absorbing, mask_and_replace, uniform
from survey_lib.core.corruptions import Gaussian
from survey_lib.core.exact import CategoricalTable, Empirical, GaussianLaw, GaussianMixture
from survey_lib.core.integrators import probability_flow
from survey_lib.core.schedules import edm, rectified, vp_cosine, vp_linear
from tests.support import generator

SCHEDULES = [vp_linear(), vp_cosine(), edm(), rectified()]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def random_covs(count: int, size: int, seed: int = 0) -> Tensor:
    root = random(count, size, size, seed=seed)
    return 0.1 * root @ root.mT + 0.01 * torch.eye(size, dtype=torch.float64)


def laws() -> dict:
    return {
        "eight modes": toys.eight_modes(),
        "scales of each axis": GaussianMixture(
            random(3, 2), scales=random(3, 2, seed=1).abs(), weights=torch.tensor([1, 2, 5])
        ),
        "full covariances": GaussianMixture(
            random(3, 2), covs=random_covs(3, 2), weights=torch.tensor([0.2, 0.3, 0.5])
        ),
        "one normal law": GaussianLaw(random(2), random_covs(1, 2)[0]),
        "points": Empirical(toys.spiral_points(40)),
    }


LAWS = laws()
law_and_schedule = [
    pytest.param(law, schedule, id=f"{name}-{schedule.name}") for name, law in LAWS.items() for schedule in SCHEDULES
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_the_denoiser_is_the_integral(schedule, t: float) -> None:
    """``E[x0 | x_t]`` and ``log p_t`` of a mixture on a line, by summing Bayes' rule over a fine grid of x0."""
    means, scales = torch.tensor([-0.7, 0.1, 0.8]).double(), torch.tensor([0.2, 0.1, 0.3]).double()
    law = GaussianMixture(means.unsqueeze(1), scales=scales)
    x0 = torch.linspace(-4, 4, 20001, dtype=torch.float64)
    density = torch.distributions.Normal(means, scales).log_prob(x0.unsqueeze(1)).exp().mean(1)
    alpha, sigma = schedule.scales(t)
    for x_t in torch.tensor([[-1.0], [0.05], [0.6]]).double():
        joint = density * torch.distributions.Normal(alpha * x0, sigma).log_prob(x_t).exp()
        evidence = torch.trapezoid(joint, x0)
        mean, x = torch.trapezoid(x0 * joint, x0) / evidence, x_t.unsqueeze(0)
        torch.testing.assert_close(law.denoiser(schedule)(x, t).squeeze(), mean, rtol=0, atol=1e-9)
        torch.testing.assert_close(law.log_prob(x, t, schedule).squeeze(), evidence.log(), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("law", "schedule"), law_and_schedule)
def test_the_score_is_the_gradient_of_the_density(law, schedule) -> None:
    x, t = random(6, 2).requires_grad_(), torch.linspace(0.1, 1, 6)
    (gradient,) = torch.autograd.grad(law.log_prob(x, t, schedule).sum(), x)
    torch.testing.assert_close(law.score(x, t, schedule), gradient, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("law", "schedule"), law_and_schedule)
def test_tweedie(law, schedule) -> None:
    """``alpha E[x0 | x_t] = x_t + sigma^2 score``: two routes to the same mean."""
    x, t = random(6, 2), torch.linspace(0.1, 1, 6)
    alpha, sigma = schedule.scales(t, like=x)
    torch.testing.assert_close(
        alpha * law.denoiser(schedule)(x, t), x + sigma**2 * law.score(x, t, schedule), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_both_ends_are_exact(law) -> None:
    """At t = 0 the data are the state itself; where alpha is 0 the state says nothing and the answer is the mean."""
    x = random(5, 2)
    assert torch.equal(law.denoiser(rectified())(x, torch.tensor(0.0)), x)
    mean = law.points.mean(0) if isinstance(law, Empirical) else (law.weights.unsqueeze(1) * law.means).sum(0)
    torch.testing.assert_close(law.denoiser(rectified())(x, torch.tensor(1.0)), mean.expand(5, 2), atol=1e-14, rtol=0)
    mixed = law.denoiser(rectified())(x, torch.tensor([0.0, 1.0, 0.5, 0.0, 1.0]))
    assert torch.equal(mixed[[0, 3]], x[[0, 3]])
    torch.testing.assert_close(mixed[[1, 4]], mean.expand(2, 2), atol=1e-14, rtol=0)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_a_time_for_each_example_is_as_good_as_one(law) -> None:
    x, t = random(4, 2), torch.tensor([0.1, 0.3, 0.6, 0.9])
    denoise = law.denoiser(Gaussian(vp_cosine()))
    together = denoise(x, t)
    for i in range(4):
        torch.testing.assert_close(together[i : i + 1], denoise(x[i : i + 1], t[i]), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_the_answer_has_the_dtype_of_the_question(law, dtype) -> None:
    x = random(4, 2).to(dtype)
    answer = law.denoiser(edm())(x, torch.tensor(0.2))
    assert answer.dtype == dtype
    assert torch.equal(answer, law.denoiser(edm())(x.double(), torch.tensor(0.2)).to(dtype))


def test_far_from_all_data_the_nearest_point_wins_and_nothing_overflows() -> None:
    x = torch.tensor([[1e4, 0.0], [-1e4, 0.0]])
    points = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    for law in (Empirical(points), GaussianMixture(points, scales=0.0)):
        assert torch.equal(law.denoiser(rectified())(x, torch.tensor(1e-3)), points)


def test_a_data_set_is_a_mixture_without_width() -> None:
    points, x, t = toys.spiral_points(30), random(5, 2), torch.linspace(0.05, 1, 5)
    data, spots = Empirical(points), GaussianMixture(points, scales=0.0)
    for schedule in SCHEDULES:
        torch.testing.assert_close(data.denoiser(schedule)(x, t), spots.denoiser(schedule)(x, t), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(data.log_prob(x, t, schedule), spots.log_prob(x, t, schedule), rtol=1e-9, atol=1e-9)


def test_rows_are_taken_in_pieces_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    law, x, t = Empirical(toys.spiral_points(40)), random(11, 2), torch.linspace(0, 1, 11)
    whole = law.denoiser(vp_cosine())(x, t)
    monkeypatch.setattr("survey_lib.core.exact.empirical._ROWS", 90)
    torch.testing.assert_close(law.denoiser(vp_cosine())(x, t), whole, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
def test_a_normal_law_denoises_by_gaussian_conditioning(schedule) -> None:
    """The joint law of (x0, x_t) is normal: condition it by its blocks, without diagonalising anything."""
    mean, cov, x = random(3), random_covs(1, 3)[0], random(4, 3, seed=5)
    alpha, sigma = schedule.scales(0.4)
    total = alpha**2 * cov + sigma**2 * torch.eye(3, dtype=torch.float64)
    expected = mean + torch.linalg.solve(total, (x - alpha * mean).T).T @ (alpha * cov)
    torch.testing.assert_close(GaussianLaw(mean, cov).denoiser(schedule)(x, torch.tensor(0.4)), expected)
    reference = torch.distributions.MultivariateNormal(alpha * mean, total).log_prob(x)
    torch.testing.assert_close(GaussianLaw(mean, cov).log_prob(x, 0.4, schedule), reference)


def test_a_normal_law_of_images() -> None:
    """A diagonal covariance of the shape of an image equals the same in full; `fit` recovers both."""
    mean, variance, x = random(2, 3, 3), random(2, 3, 3, seed=1).abs(), random(4, 2, 3, 3, seed=2)
    diagonal, full = GaussianLaw(mean, variance), GaussianLaw(mean, torch.diag(variance.flatten()))
    t = torch.tensor(0.5)
    torch.testing.assert_close(diagonal.denoiser(vp_cosine())(x, t), full.denoiser(vp_cosine())(x, t))
    points = diagonal.sample(20000, generator=generator())
    fitted = GaussianLaw.fit(points)
    torch.testing.assert_close(fitted.mean, mean, atol=0.03, rtol=0)
    torch.testing.assert_close(fitted.cov, torch.diag(variance.flatten()), atol=0.08, rtol=0)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
def test_the_flow_of_a_normal_law_is_where_its_probability_flow_leads(schedule) -> None:
    """In closed form and by an adaptive integrator with the denoiser; down, and back up again."""
    law, x = GaussianLaw(random(3), random_covs(1, 3)[0]), random(5, 3, seed=4)
    times = torch.tensor([0.9, 0.1], dtype=torch.float64)
    moved = law.flow(x, *times, schedule)
    reached = probability_flow(law.denoiser(schedule), schedule, x, times, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(moved, reached, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(law.flow(moved, 0.1, 0.9, schedule), x)


def test_the_flow_of_a_normal_law_ends_in_it() -> None:
    """From pure noise to clean data in one step: mean and covariance are those of the law; shapes and dtype stay."""
    law = GaussianLaw(torch.tensor([[0.5], [-1.0]]), torch.tensor([[0.3, 0.1], [0.1, 0.2]]))
    drawn = law.flow(random(200_000, 2, 1).float(), 1.0, 0.0, vp_cosine())
    assert drawn.shape == (200_000, 2, 1) and drawn.dtype == torch.float32
    torch.testing.assert_close(drawn.mean(0).double(), law.mean, rtol=0, atol=0.01)
    torch.testing.assert_close(drawn.squeeze(-1).T.cov().double(), law.cov, rtol=0, atol=0.01)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_samples_follow_the_law(law) -> None:
    """The denoiser is the regression of x0 on x_t, so its error is uncorrelated with any function of x_t."""
    g = generator()
    x0 = law.sample(8000, generator=g, dtype=torch.float64)
    x_t = Gaussian(vp_cosine()).corrupt(x0, 0.4, generator=g)
    error = x0 - law.denoiser(vp_cosine())(x_t, torch.tensor(0.4))
    for probe in (torch.ones_like(x_t), x_t, x_t.sin(), x_t.flip(1) ** 2):
        product = error * probe
        assert (product.mean(0).abs() < 4.5 * product.std(0) / 8000**0.5).all()


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_posterior_samples_follow_bayes(law) -> None:
    """The mean over draws of ``p(x0 | x_t)`` is the denoiser; for mixtures the draws have the density of Bayes."""
    x = torch.tensor([[0.3, -0.2]], dtype=torch.float64).expand(8000, 2)
    draws = law.sample_posterior(x, 0.4, vp_cosine(), generator=generator())
    mean = law.denoiser(vp_cosine())(x[:1], torch.tensor(0.4))[0]
    assert ((draws.mean(0) - mean).abs() < 4.5 * draws.std(0) / 8000**0.5).all()
    assert draws.dtype == x.dtype


def test_posterior_draws_then_noise_give_back_the_marginal() -> None:
    """x0 ~ p(x0 | x_t) with x_t ~ p_t leaves the data law: its covariance is that of the mixture, in closed form."""
    law, g = LAWS["full covariances"], generator()
    x_t = Gaussian(vp_cosine()).corrupt(law.sample(20000, generator=g, dtype=torch.float64), 0.6, generator=g)
    draws = law.sample_posterior(x_t, 0.6, vp_cosine(), generator=g)
    mean = law.weights @ law.means
    shift = law.means - mean
    covs = random_covs(3, 2)
    cov = (law.weights.reshape(-1, 1, 1) * (covs + shift.unsqueeze(2) * shift.unsqueeze(1))).sum(0)
    torch.testing.assert_close(torch.cov(draws.T), cov, atol=0.03 * cov.max().item(), rtol=0)


def test_conditions_pick_components() -> None:
    """Asked for one label, the mixture is the mixture of that label's components; -1 asks for none."""
    labels = torch.tensor([0, 1, 0])
    means, covs, x, t = random(3, 2), random_covs(3, 2), random(4, 2, seed=3), torch.tensor(0.5)
    law = GaussianMixture(means, covs=covs, labels=labels)
    only = GaussianMixture(means[labels == 0], covs=covs[labels == 0])
    free = law.denoiser(edm())(x, t)
    asked = law.denoiser(edm())(x, t, torch.tensor([0, 0, -1, 0]))
    torch.testing.assert_close(asked[[0, 1, 3]], only.denoiser(edm())(x, t)[[0, 1, 3]])
    assert torch.equal(asked[2], free[2])
    points = Empirical(means, labels)
    torch.testing.assert_close(
        points.denoiser(edm())(x, t, torch.zeros(4, dtype=torch.long)),
        Empirical(means[labels == 0]).denoiser(edm())(x, t),
    )


def test_labels_travel_with_the_samples() -> None:
    x, labels = toys.eight_modes().sample_labelled(100, generator=generator())
    nearest = torch.cdist(x.double(), toys.eight_modes().means).argmin(1)
    assert torch.equal(nearest, labels)


@pytest.mark.parametrize("corruption", [uniform(3), absorbing(2), mask_and_replace(2)], ids=["uniform", "mask", "both"])
def test_a_table_denoises_as_enumeration_does(corruption) -> None:
    """Bayes' rule spelt out over all 9 joint states of two variables with three categories."""
    table = torch.rand(3, 3, generator=generator(), dtype=torch.float64)
    if corruption.stationary[-1] > 0.5:  # the data are never masked
        table[2], table[:, 2] = 0, 0
    law, t = CategoricalTable(table), torch.tensor([0.3, 0.8], dtype=torch.float64)
    x_t = torch.tensor([[0, 1], [1, 0]])
    answer = law.denoiser(corruption)(x_t, t)
    for b in range(2):
        q = corruption.matrix(torch.tensor(0.0).double(), t[b])
        weight, marginals = 0.0, torch.zeros(2, 3, dtype=torch.float64)
        for i, j in itertools.product(range(3), range(3)):
            joint = table[i, j] / table.sum() * q[i, x_t[b, 0]] * q[j, x_t[b, 1]]
            weight += joint
            marginals[0, i] += joint
            marginals[1, j] += joint
        torch.testing.assert_close(answer[b], marginals / weight, rtol=1e-12, atol=1e-14)
        assert law.log_prob(x_t[b : b + 1], t[b], corruption).item() == pytest.approx(math.log(weight), abs=1e-12)


def test_a_table_samples_itself() -> None:
    table = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    law = CategoricalTable(table)
    draws = law.sample(50000, generator=generator())
    counts = torch.bincount(draws[:, 0] * 2 + draws[:, 1], minlength=4) / 50000
    torch.testing.assert_close(counts, table.flatten(), atol=0.01, rtol=0)
    torch.testing.assert_close(
        law.log_prob(torch.tensor([[1, 0]])).exp(), torch.tensor([0.3]).double(), atol=1e-7, rtol=0
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianMixture(torch.zeros(3, 2)), "either scales= or covs="),
        (lambda: GaussianMixture(torch.zeros(3), scales=1.0), "shape \\(K, \\*event\\)"),
        (lambda: GaussianMixture(torch.zeros(3, 2), covs=torch.eye(2)), "covs have shape"),
        (lambda: GaussianMixture(torch.zeros(1, 2), covs=-torch.eye(2)[None]), "no negative eigenvalue"),
        (lambda: GaussianMixture(torch.zeros(3, 2), scales=1.0, weights=torch.tensor([1.0, 0, 1])), "positive"),
        (lambda: GaussianLaw(torch.zeros(3), torch.zeros(2)), "cov has shape"),
        (lambda: GaussianLaw(torch.zeros(3), -1.0), "not negative"),
        (lambda: Empirical(torch.zeros(0, 2)), "N > 0"),
        (lambda: CategoricalTable(torch.rand(2, 3)), "equal dimensions"),
        (lambda: toys.eight_modes().denoiser(edm())(torch.zeros(4, 3), torch.tensor(0.5)), "x_t has shape \\(B, 2\\)"),
        (lambda: toys.eight_modes().denoiser(edm())(torch.zeros(4, 2), torch.full((3,), 0.5)), "one time for each"),
        (lambda: toys.eight_modes().denoiser(edm())(torch.zeros(4, 2), 0.5, torch.tensor([9] * 4)), "labels are"),
        (lambda: toys.two_peaks().denoiser(edm())(torch.zeros(4, 1), 0.5, torch.zeros(4)), "no labels"),
        (lambda: toys.eight_modes().sample(4), "pass generator="),
        (lambda: Empirical(torch.zeros(1, 2)).sample(4), "pass generator="),
        (lambda: Empirical(torch.zeros(1, 2)).log_prob(torch.zeros(1, 2)), "only at sigma > 0"),
        (lambda: toys.eight_modes().log_prob(torch.zeros(1, 2), 0.5), "pass schedule="),
        (lambda: CategoricalTable(torch.ones(2)).denoiser(uniform(2))(torch.zeros(3, 1), 0.5), "integers of shape"),
        (
            lambda: CategoricalTable(torch.eye(3)[0]).denoiser(absorbing(2))(torch.tensor([[1]]), 0.5),
            "a state of probability 0",
        ),
    ],
)
def test_bad_input_gets_one_clear_sentence(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
