"""Schedules: their ends, their inverse, their SDE, and the discrete chain made continuous."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survey_lib.core.schedules import (
    Schedule,
    edm,
    from_betas,
    rectified,
    shifted,
    ve,
    vp_cosine,
    vp_linear,
    vp_sigmoid,
    zero_terminal,
)

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
PRESERVING = [
    *(vp_linear(), vp_cosine(), vp_cosine(0.008), vp_sigmoid(), from_betas(BETAS)),
    *(zero_terminal(vp_linear()), zero_terminal(from_betas(BETAS)), shifted(vp_cosine(), 4.0)),
]
ALL = [*PRESERVING, ve(), edm(), rectified(), shifted(rectified(), 3.0, power=1)]
INNER = (torch.arange(3, 997, 4, dtype=torch.float64) + 0.5) / 1000  # never on a knot of BETAS, where f jumps
NAMES = [f"{i}-{schedule.name}" for i, schedule in enumerate(ALL)]
quick = settings(deadline=None, derandomize=True, max_examples=30)


@pytest.mark.parametrize("schedule", PRESERVING, ids=NAMES[: len(PRESERVING)])
def test_the_variance_is_preserved(schedule: Schedule) -> None:
    alpha, sigma = schedule.scales(torch.linspace(0, 1, 1001))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha), atol=1e-14, rtol=0)


@pytest.mark.parametrize("schedule", ALL, ids=NAMES)
def test_clean_at_0_and_ever_noisier(schedule: Schedule) -> None:
    alpha, sigma = schedule.scales(0.0)
    assert (alpha.item(), sigma.item()) == (1.0, 0.0)
    assert schedule.lam(0.0) == math.inf
    assert (schedule.lam(torch.linspace(0, 1, 1001)).diff() < 0).all()


@pytest.mark.parametrize("schedule", ALL, ids=NAMES)
@quick
@given(t=st.floats(1e-6, 1 - 1e-6))
def test_time_inverts_lam(schedule: Schedule, t: float) -> None:
    assert schedule.time(schedule.lam(t)).item() == pytest.approx(t, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("schedule", ALL, ids=NAMES)
def test_time_at_the_extremes(schedule: Schedule) -> None:
    """Infinite lam is the clean end, minus infinity the noisy one; what a schedule does not span is clamped."""
    ends = schedule.time(torch.tensor([math.inf, -math.inf, schedule.lam(1.0)], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("schedule", ALL, ids=NAMES)
def test_time_by_bisection_agrees_with_the_closed_form(schedule: Schedule) -> None:
    blind = Schedule(schedule.alpha, schedule.sigma)
    lam = schedule.lam(INNER)
    torch.testing.assert_close(blind.time(lam), schedule.time(lam), atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("schedule", ALL, ids=NAMES)
def test_the_sde_has_these_marginals(schedule: Schedule) -> None:
    """In ``dx = f x dt + g dw`` the mean grows by ``f alpha`` and the variance by ``2 f sigma^2 + g^2``."""
    h = 1e-6
    f, g2 = schedule.drift_diffusion(INNER)
    (alpha, sigma), (alpha_l, sigma_l), (alpha_r, sigma_r) = map(schedule.scales, (INNER, INNER - h, INNER + h))
    torch.testing.assert_close(f * alpha, (alpha_r - alpha_l) / (2 * h), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(2 * f * sigma**2 + g2, (sigma_r**2 - sigma_l**2) / (2 * h), rtol=1e-5, atol=1e-5)


def test_the_sde_of_linear_betas_is_the_published_one() -> None:
    """Score-SDE, eq. 11 with beta(t) = beta_min + t (beta_max - beta_min): f = -beta / 2, g^2 = beta."""
    f, g2 = vp_linear(0.1, 20.0).drift_diffusion(INNER)
    beta = 0.1 + INNER * 19.9
    torch.testing.assert_close(f, -beta / 2)
    torch.testing.assert_close(g2, beta)


def test_a_chain_of_betas_keeps_its_alpha_bar() -> None:
    """alpha^2 at t = n / N is the product over the chain, and the chain's steps have the variances beta_n."""
    steps = torch.arange(len(BETAS) + 1, dtype=torch.float64) / len(BETAS)
    alpha, sigma = from_betas(BETAS).scales(steps)
    torch.testing.assert_close(alpha[1:] ** 2, torch.cumprod(1 - BETAS, 0), rtol=1e-13, atol=0)
    ratio = alpha[1:] / alpha[:-1]
    torch.testing.assert_close(sigma[1:] ** 2 - ratio**2 * sigma[:-1] ** 2, BETAS, rtol=1e-9, atol=0)


def test_vp_linear_is_the_limit_of_ddpm_chains() -> None:
    """DDPM's betas are ``beta(n / N) / N``: the finer the chain, the closer, at first order."""
    gaps = []
    for count in (500, 1000, 2000):
        chain = from_betas((0.1 + 19.9 * torch.arange(1, count + 1, dtype=torch.float64) / count) / count)
        gaps.append((chain.scales(INNER)[0] - vp_linear().scales(INNER)[0]).abs().max().item())
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1) and gaps[1] / gaps[2] == pytest.approx(2, rel=0.1)


def test_ve_is_geometric_far_from_the_clean_end() -> None:
    _, sigma = ve(0.01, 50.0).scales(torch.tensor([0.5, 0.75, 1.0]))
    torch.testing.assert_close(
        sigma[1:] / sigma[:-1], torch.full((2,), (50 / 0.01) ** 0.25).double(), rtol=1e-3, atol=0
    )
    assert sigma[-1].item() == pytest.approx(50, rel=1e-7)


def test_scales_take_the_rank_and_the_dtype_of_the_data() -> None:
    x = torch.zeros(3, 1, 8, 8)
    alpha, sigma = rectified().scales(torch.tensor([0.1, 0.5, 1.0]), like=x)
    assert alpha.shape == sigma.shape == (3, 1, 1, 1) and alpha.dtype == torch.float32
    assert (x * rectified().scales(0.3, like=x)[0]).dtype == torch.float32


@pytest.mark.parametrize("t", [-1e-9, 1.0001, math.nan])
def test_a_time_outside_the_unit_interval_is_refused(t: float) -> None:
    with pytest.raises(ValueError, match=r"times lie in \[0, 1\]"):
        rectified().scales(t)


@pytest.mark.parametrize("betas", [[], [0.5, 1.0], [0.0], [[0.1]], [math.nan]])
def test_betas_that_are_none_are_refused(betas: list) -> None:
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        from_betas(torch.tensor(betas))


def test_zero_terminal_keeps_the_ends_of_the_chain_it_was_made_from() -> None:
    """Lin et al.'s algorithm 1 on their own numbers: sqrt(alpha_bar) of the chain, shifted and stretched."""
    root = torch.cumprod(1 - BETAS, 0).sqrt()
    theirs = (root - root[-1]) * root[0] / (root[0] - root[-1])  # their first step keeps its value, t = 0 is no step
    ours = zero_terminal(from_betas(BETAS)).scales(torch.arange(1, 1001) / 1000)[0]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert ours[-1] == 0 and zero_terminal(from_betas(BETAS)).scales(1.0)[1] == 1


def test_zero_terminal_asks_for_preserved_variance() -> None:
    with pytest.raises(ValueError, match=r"alpha\^2 \+ sigma\^2 = 1; edm is not so"):
        zero_terminal(edm())


@quick
@given(ratio=st.floats(0.1, 16), t=st.floats(0.01, 0.99))
def test_a_shift_shows_the_mean_of_n_by_n_pixels_the_noise_of_one(ratio: float, t: float) -> None:
    for schedule in (vp_cosine(), rectified(), edm()):
        alpha, sigma = shifted(schedule, ratio).scales(t)
        assert (sigma / ratio / alpha).item() == pytest.approx(math.exp(-schedule.lam(t)), rel=1e-9)


def test_a_shift_of_the_straight_path_is_a_change_of_time() -> None:
    t, ratio = torch.linspace(0, 1, 101, dtype=torch.float64), 3.0
    straight, moved = rectified(), shifted(rectified(), ratio, power=1)
    torch.testing.assert_close(moved.scales(t), straight.scales(ratio * t / (1 + (ratio - 1) * t)))


@pytest.mark.parametrize(
    "ratio, power, words", [(0.0, 2, "positive"), (math.nan, 2, "positive"), (2.0, 3, "1 .* or 2")]
)
def test_a_shift_that_makes_no_sense_is_refused(ratio: float, power: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        shifted(rectified(), ratio, power)


LINEAR, BETA = vp_linear(0.1, 20.0), 1e-4
COSINE = 1 / 1.008 * math.pi / 2 * math.tan(0.008 / 1.008 * math.pi / 2)
SIGMOID = 3 / (2 + 2 * math.cosh(3)) / math.tanh(1.5)  # S'(3) = 1 / (2 + 2 cosh 3), S(3) - S(-3) = tanh(3 / 2)


def _zero_terminal_slope() -> float:
    """``alpha'(0) = a'(0) / (1 - a(1))`` of the scaled and shifted alpha, 1 at t = 0, with a'(0) = -beta_min / 2."""
    return -0.05 / (1 - LINEAR.scales(1.0)[0].item())


@pytest.mark.parametrize(
    ("schedule", "f", "g2"),
    [
        (LINEAR, -0.05, 0.1),  # -beta_min / 2, beta_min
        (from_betas(BETAS), 500 * math.log1p(-BETA), -1000 * math.log1p(-BETA)),  # log alpha is linear up to 1 / 1000
        (vp_cosine(), 0.0, 0.0),
        # alpha = cos(a + t b) / cos(a): f = -b tan(a), and sigma^2 = 1 - alpha^2 gives g^2 = -2 f
        (vp_cosine(0.008), -COSINE, 2 * COSINE),
        # alpha^2 = 1 - (S(-3 + 6 t) - S(-3)) / (S(3) - S(-3)): f = -3 S'(-3) / (S(3) - S(-3)), g^2 = -2 f
        (vp_sigmoid(), -SIGMOID, 2 * SIGMOID),
        (ve(0.01, 50.0), 0.0, 1e-4 * 2 * math.log(5000)),  # (sigma^2)' = sigma_min^2 2 log(sigma_max / sigma_min)
        (edm(), 0.0, 0.0),
        (rectified(), -1.0, 0.0),
        (zero_terminal(LINEAR), _zero_terminal_slope(), -2 * _zero_terminal_slope()),
        # sigma^2 / alpha^2 is 4 times as large, so near t = 0 all slopes are
        (shifted(LINEAR, 2.0), -0.2, 0.4),
        (shifted(rectified(), 3.0, power=1), -3.0, 0.0),
    ],
    ids=lambda one: one.name if isinstance(one, Schedule) else "",
)
def test_drift_and_diffusion_are_right_at_the_clean_end(schedule: Schedule, f: float, g2: float) -> None:
    found = schedule.drift_diffusion(torch.tensor([0.0, 1e-9], dtype=torch.float64))
    for at in (0, 1):
        assert found[0][at].item() == pytest.approx(f, rel=2e-6, abs=1e-8)
        assert found[1][at].item() == pytest.approx(g2, rel=2e-6, abs=2e-5)  # EDM's grows as 12800 t
    exact = schedule.drift_diffusion(0.0)
    assert exact[0].item() == pytest.approx(f, rel=2e-6, abs=1e-12)
    assert exact[1].item() == pytest.approx(g2, rel=2e-6, abs=1e-12)


@pytest.mark.parametrize(
    "schedule",
    [vp_cosine(), vp_cosine(0.008), vp_sigmoid(), rectified(), zero_terminal(LINEAR), shifted(rectified(), 2.0)],
    ids=lambda one: one.name,
)
def test_drift_and_diffusion_have_no_bound_where_no_signal_is_left(schedule: Schedule) -> None:
    f, g2 = schedule.drift_diffusion(1.0)
    assert (f.item(), g2.item()) == (-math.inf, math.inf)


def test_drift_and_diffusion_are_finite_where_some_signal_is_left() -> None:
    """Linear: ``f = -beta_max / 2, g^2 = beta_max``; VE: ``g^2 = (sigma^2)'``; EDM: ``g^2 = 2 sigma_max^2``."""
    growth = 2 * math.log(5000)
    for schedule, f, g2 in ((LINEAR, -10, 20), (ve(), 0, growth * (50**2 + 0.01**2)), (edm(), 0, 2 * 80**2)):
        found = [value.item() for value in schedule.drift_diffusion(1.0)]
        assert found == pytest.approx([f, g2], rel=1e-7)


@pytest.mark.parametrize("schedule", [edm(), ve(), LINEAR, vp_cosine(), vp_sigmoid()], ids=lambda one: one.name)
def test_time_at_finds_the_ratio_of_noise_to_signal(schedule: Schedule) -> None:
    noise = torch.tensor([0.01, 0.5, 2.0, 30.0], dtype=torch.float64)
    alpha, sigma = schedule.scales(schedule.time_at(noise))
    torch.testing.assert_close(sigma / alpha, noise, rtol=1e-9, atol=0)
    ends = torch.stack([schedule.time_at(0.0), schedule.time_at(math.inf)])
    torch.testing.assert_close(ends, torch.tensor([0.0, 1.0]).double(), rtol=0, atol=1e-12)
