"""What a network's output means, undone: every head reads the same x0 off its own target."""

import itertools
from functools import partial
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from survey_lib.core import toys
from survey_lib.core.exact import GaussianMixture
from survey_lib.core.heads import Kind, LabelPosterior, Preconditioned, Reschedule, skip_out
from survey_lib.core.schedules import Schedule, edm, rectified, ve, vp_cosine, vp_linear

SCHEDULES = [vp_linear(), vp_cosine(), edm(), rectified(), ve()]
KINDS = get_args(Kind)
LAW = GaussianMixture(
    torch.tensor([[0.4, -0.2], [-0.5, 0.3]]), scales=torch.tensor([0.2, 0.3]), labels=torch.tensor([0, 1])
)
quick = settings(deadline=None, derandomize=True, max_examples=25)
pairs = [pytest.param(a, b, id=f"{a.name}-{b.name}") for a, b in itertools.permutations(SCHEDULES, 2)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def target(kind: Kind, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """What a head of this kind is asked for, from its definition; EDM's from its eq. 8, on ``x_t / alpha``."""
    if kind == "edm":
        noise, x = sigma / alpha, x0 + sigma / alpha * eps
        c_skip = sigma_data**2 / (noise**2 + sigma_data**2)
        return (x0 - c_skip * x) * (noise**2 + sigma_data**2).sqrt() / (noise * sigma_data)
    return {"x0": x0, "eps": eps, "score": -eps / sigma, "v": alpha * eps - sigma * x0, "flow": eps - x0}[kind]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
@pytest.mark.parametrize("kind", KINDS)
@quick
@given(t=st.floats(0.01, 0.99), sigma_data=st.floats(0.1, 3))
def test_every_head_goes_there_and_back(kind: Kind, schedule: Schedule, t: float, sigma_data: float) -> None:
    """``skip x_t + out F = x0`` for F's target, and the F that gives x0 is that target."""
    x0, eps = random(4, 3), random(4, 3, seed=1)
    alpha, sigma = schedule.scales(t)
    x_t, f = alpha * x0 + sigma * eps, target(kind, x0, eps, alpha, sigma, sigma_data)
    skip, out = skip_out(kind, alpha, sigma, sigma_data)
    grown = float((skip * x_t).abs().max() + 1)  # rounding grows with what cancels
    torch.testing.assert_close(skip * x_t + out * f, x0, rtol=0, atol=1e-13 * grown)
    torch.testing.assert_close((x0 - skip * x_t) / out, f, rtol=0, atol=1e-12 * grown * float(1 + 1 / out.abs()))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
@pytest.mark.parametrize("t", [0.01, 0.4, 0.99])
def test_edm_asks_for_unit_variance_and_leaves_nothing_to_regress(schedule: Schedule, t: float) -> None:
    """F is a x0 + b eps; its variance is 1, and ``x0 - skip x_t`` is uncorrelated with x_t (EDM, app. B.6)."""
    (alpha, sigma), width = schedule.scales(t), 0.7
    skip, out = skip_out("edm", alpha, sigma, width)
    on_x0, on_eps = (1 - skip * alpha) / out, -skip * sigma / out
    torch.testing.assert_close(on_x0**2 * width**2 + on_eps**2, torch.ones_like(alpha))
    covariance = (1 - skip * alpha) * alpha * width**2 - skip * sigma**2
    assert abs(covariance) < 1e-14 * (1 + sigma**2)


class Perfect(nn.Module):
    """A network that knows the law, and is told nothing but its scaled input and ``c_noise``: no alpha, no t."""

    def __init__(self, kind: Kind, sigma_data: float) -> None:
        super().__init__()
        self.kind, self.sigma_data = kind, sigma_data

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None) -> Tensor:
        noise = torch.exp(4 * c_noise).unsqueeze(1)  # sigma / alpha
        one, x = torch.ones_like(noise), x * (noise**2 + self.sigma_data**2).sqrt()
        x0 = LAW.denoiser(edm(1e3))(x, noise[:, 0] / 1e3, cond)
        return target(self.kind, x0, (x - x0) / noise, one, noise, self.sigma_data)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
@pytest.mark.parametrize("kind", ["x0", "eps", "flow", "edm"])
def test_one_network_serves_under_every_schedule(kind: Kind, schedule: Schedule) -> None:
    """Around a network that is right about the noise level, `Preconditioned` is the exact denoiser everywhere."""
    x, t, cond = random(5, 2), torch.tensor([0.05, 0.2, 0.5, 0.8, 0.95]), torch.tensor([0, 1, -1, 0, 1])
    model = Preconditioned(Perfect(kind, 0.6), schedule, kind, sigma_data=0.6)
    for condition in (None, cond):
        torch.testing.assert_close(
            model(x, t, condition), LAW.denoiser(schedule)(x, t, condition), rtol=1e-9, atol=1e-9
        )
    torch.testing.assert_close(model(x, t[1]), LAW.denoiser(schedule)(x, t[1]), rtol=1e-9, atol=1e-9)


class PerfectLabels(nn.Module):
    """A classifier that knows the law, and is told nothing but its scaled input and ``c_noise``."""

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        noise = torch.exp(4 * c_noise).unsqueeze(1)
        x = x * (noise**2 + 0.6**2).sqrt()
        return LAW.label_log_probs(x, noise[:, 0] / 1e3, edm(1e3)) + 3.0  # a constant in the logits changes nothing


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
def test_one_classifier_serves_under_every_schedule(schedule: Schedule) -> None:
    x, t, cond = random(5, 2), torch.tensor([0.05, 0.2, 0.5, 0.8, 0.95]), torch.tensor([0, 1, 1, 0, 1])
    labels = LabelPosterior(PerfectLabels(), schedule, sigma_data=0.6)
    exact = LAW.label_log_probs(x, t, schedule)
    close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)
    close(labels.log_probs(x, t), exact)
    close(labels.log_prob(x, t, cond), exact[range(5), cond])
    close(labels.log_prob(x, t, 1), exact[:, 1])
    close(labels.similarity(x, t, cond), exact[range(5), cond] + 3)
    close(labels.log_probs(x, t[1]), LAW.label_log_probs(x, t[1], schedule))


class Spy(nn.Module):
    def forward(self, x: Tensor, c_noise: Tensor, cond: object) -> Tensor:
        self.seen = x, c_noise, cond
        return torch.zeros_like(x)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
def test_the_network_sees_unit_variance_and_half_the_log_snr(schedule: Schedule) -> None:
    spy, t = Spy(), torch.tensor([0.1, 0.5, 0.9]).double()
    alpha, sigma = schedule.scales(t)
    spread = (0.5 * alpha) ** 2 + sigma**2  # the variance of x_t, if that of the data is 0.5^2
    Preconditioned(spy, schedule)(spread.sqrt().unsqueeze(1), t, "passed on")
    x, c_noise, cond = spy.seen
    torch.testing.assert_close(x, torch.ones(3, 1).double())
    torch.testing.assert_close(c_noise, torch.log(sigma / alpha) / 4)  # EDM, table 1
    assert cond == "passed on"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dtype_shape_and_both_ends(dtype: torch.dtype) -> None:
    """The network hears finite numbers even where lam is infinite, and clean data passes through untouched."""
    spy, x = Spy(), random(2, 1, 4, 4).to(dtype)
    for t in (torch.tensor(0.0), torch.tensor([0.0, 1.0])):
        answer = Preconditioned(spy, rectified())(x, t)
        assert answer.dtype == dtype and answer.shape == x.shape and torch.equal(answer[0], x[0])
        assert spy.seen[1].shape == (2,) and spy.seen[1].dtype == dtype and spy.seen[1].abs().max() <= 5


@pytest.mark.parametrize(("trained", "sampled"), pairs)
def test_a_denoiser_may_be_sampled_under_another_schedule(trained: Schedule, sampled: Schedule) -> None:
    """The exact denoiser of one schedule, rescheduled, is the exact denoiser of the other, where both know the lam."""
    low = max(trained.lam(1.0), sampled.lam(1.0)).clamp_min(-20)
    t = sampled.time(torch.linspace(10, float(low) + 1e-6, 7, dtype=torch.float64))
    x = sampled.scales(t)[1].unsqueeze(1) * random(7, 2) + 0.1
    other = Reschedule(LAW.denoiser(trained), trained, sampled)
    torch.testing.assert_close(other(x, t), LAW.denoiser(sampled)(x, t), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(other(x, t[3]), LAW.denoiser(sampled)(x, t[3]), rtol=1e-7, atol=1e-7)
    cond = torch.tensor([0, 1, 0, 1, 0, 1, 0])
    torch.testing.assert_close(other(x, t, cond), LAW.denoiser(sampled)(x, t, cond), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("trained", "sampled"), pairs)
def test_a_rescheduled_denoiser_is_whole_at_both_ends(trained: Schedule, sampled: Schedule) -> None:
    """Clean data stays itself; pure noise gets about the mean, as far as the noise of both is pure."""
    x, other = random(4, 2), Reschedule(LAW.denoiser(trained), trained, sampled)
    torch.testing.assert_close(other(x, torch.tensor(0.0)), x)
    noise = x * sampled.scales(1.0)[1]
    torch.testing.assert_close(other(noise, torch.tensor(1.0)), LAW.denoiser(sampled)(noise, 1.0), rtol=0, atol=0.02)


def test_a_network_of_unknown_kind_is_refused_when_made() -> None:
    with pytest.raises(ValueError, match="unknown kind of head 'epsilon'; accepted: x0, eps, score, v, flow, edm"):
        Preconditioned(Spy(), edm(), "epsilon")


def test_heads_of_noise_say_nothing_at_alpha_0() -> None:
    """At alpha = 0 the noise is x_t itself, any x0 would do, and these heads refuse. The others predict."""
    alpha, sigma = torch.zeros(()), torch.ones(())
    for kind in ("eps", "score"):
        with pytest.raises(ValueError, match=f"the {kind} head divides by alpha, which is 0 here"):
            skip_out(kind, alpha, sigma)
    x0, x_t = random(3), random(3, seed=1)
    for kind in ("x0", "v", "flow", "edm"):
        skip, out = skip_out(kind, alpha, sigma)
        f = {"x0": x0, "v": -x0, "flow": x_t - x0, "edm": x0 / 0.5}[kind]
        torch.testing.assert_close(skip * x_t + out * f, x0)


def test_the_toys_are_laws_too() -> None:
    """The ready-made mixtures pass through another schedule unchanged."""
    x, t = random(6, 2), torch.linspace(0.1, 0.9, 6)
    for law in (toys.eight_modes(), toys.grid_25(), toys.two_moons()):
        other = Reschedule(law.denoiser(vp_cosine()), vp_cosine(), rectified())
        torch.testing.assert_close(other(x, t), law.denoiser(rectified())(x, t), rtol=1e-8, atol=1e-8)
